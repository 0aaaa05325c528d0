"""The demonstration at its full size: every number that it says, computed again with numpy."""

import json
import math
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import LOSSLEDGER, environment, in_turn

import lossledger
from lossledger.cli import main
from lossledger.demo import programs
from lossledger.demo.programs import EPOCHS, FIT, RAW, TRAININGS, Recorded, Training

BACKEND = os.environ.get("KERAS_BACKEND") or "jax"
EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?%?(?![\w])")


@dataclass(frozen=True)
class Entries:
    """The entries of a run, an array an epoch."""

    losses: list[np.ndarray]
    rows: list[np.ndarray]

    def batch_mean(self, epoch: int = -1) -> float:
        return float(np.mean(self.losses[epoch]))

    def epoch_mean(self, epoch: int = -1) -> float:
        return float(np.average(self.losses[epoch], weights=self.rows[epoch]))

    def running_std(self, epoch: int = -1) -> float:
        losses, rows = self.losses[epoch], self.rows[epoch]
        return float(np.std(np.cumsum(losses * rows) / np.cumsum(rows)))


@dataclass(frozen=True)
class Demo:
    directory: Path
    text: str
    progress: str
    paths: dict[str, Path]
    entries: dict[str, Entries]
    printed: dict[str, list[float]]

    def numbers(self, name: str) -> list[str]:
        """The numbers of the paragraph of that name."""
        lines = self.text.split("\nWhat to conclude\n")[1].splitlines()
        start = next(k for k, line in enumerate(lines) if line.startswith(f"{name}  "))
        end = next(k for k, line in enumerate(lines) if k > start and not line.startswith(" "))
        words = [lines[start][len(name) :], *lines[start + 1 : end]]
        return NUMBER.findall(" ".join(" ".join(words).split()))


def entries_of(path: Path) -> Entries:
    """Cut into epochs by rows alone: 1,000 each, or as many whole batches as there are."""
    table = lossledger.open(path).entries(["loss", "rows"])
    losses = table["loss"].to_numpy().astype(np.float64)
    rows = table["rows"].to_numpy().astype(np.int64)
    steps = 31 if path.name.endswith("drop-remainder") else 32
    cuts = range(steps, len(losses), steps)
    return Entries(np.split(losses, cuts), np.split(rows, cuts))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*LOSSLEDGER, "demo", "-o", "runs"],
        cwd=folder,
        env=environment(KERAS_BACKEND=BACKEND, COLUMNS="80"),
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [path for path in (folder / "runs").iterdir() if not path.is_symlink()]
    paths = {each.name: next(p for p in found if p.name.endswith(each.name)) for each in TRAININGS}
    assert len(found) == len(set(paths.values())) == 5
    return Demo(
        directory=folder,
        text=done.stdout,
        progress=done.stderr,
        paths=paths,
        entries={name: entries_of(path) for name, path in paths.items()},
        printed=plainly((FIT, EPOCHS, RAW), folder),
    )


def plainly(trainings: Sequence[Training], folder: Path) -> dict[str, list[float]]:
    """What the programs print without a recorder: the losses of training."""
    found = in_turn([EXAMPLES / f"{each.program}.py" for each in trainings], folder)
    assert not any(each["error"] for each in found), found
    printed = {}
    for training, each in zip(trainings, found, strict=True):
        lines = [line for line in each["printed"].splitlines() if not line.startswith("final")]
        printed[training.name] = [float(line.split()[-1]) for line in lines]
    return printed


def six(*values: float) -> list[str]:
    return [f"{value:.6f}" for value in values]


def apart(a: float, b: float) -> str:
    return f"{abs(round(a, 6) - round(b, 6)):.6f}"


# The programs


def test_the_programs_run_alone_and_print_what_they_computed(demo: Demo) -> None:
    fit, epochs, raw = (demo.entries[each.name] for each in (FIT, EPOCHS, RAW))
    np.testing.assert_allclose(demo.printed[FIT.name], [fit.epoch_mean()], atol=1e-6)
    means = [epochs.batch_mean(epoch) for epoch in range(10)]
    np.testing.assert_allclose(demo.printed[EPOCHS.name], means, atol=1e-6)
    np.testing.assert_allclose(demo.printed[RAW.name], raw.losses[0], atol=1e-6)


def test_the_programs_train_alike(demo: Demo) -> None:
    epochs, raw, fit = (demo.entries[each.name] for each in (EPOCHS, RAW, FIT))
    assert [len(each.losses) for each in (fit, epochs, raw)] == [10, 10, 1]
    for entries in (fit, epochs, raw):
        for rows in entries.rows:
            assert rows.tolist() == [32] * 31 + [8]
    np.testing.assert_array_equal(epochs.losses[0], raw.losses[0])
    first = [lossledger.open(path).calls[0].info["initial_weights"] for path in demo.paths.values()]
    assert len(set(first)) == 1


# The text


def test_it_fits_into_80_columns(demo: Demo) -> None:
    for line in demo.text.split("\nNext\n")[0].splitlines():
        assert len(line) <= 80
    assert "Traceback" not in demo.text


def test_it_says_on_standard_error_that_it_is_at_work(demo: Demo) -> None:
    first, *lines = demo.progress.splitlines()
    assert first == f"5 short trainings on {BACKEND}, recorded into runs"
    assert [line.split()[0] for line in lines] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert all(line.endswith(" s") for line in lines)


def test_the_table_states_the_last_epoch_of_each(demo: Demo) -> None:
    rows = demo.text.split("The last epoch of each\n\n")[1].splitlines()[1:6]
    for training, row in zip(TRAININGS, rows, strict=True):
        entries = demo.entries[training.name]
        printed = f"{len(entries.losses[0])} losses"
        if training is FIT:
            printed = f"{entries.epoch_mean():.6f}"
        elif training is not RAW:
            printed = f"{entries.batch_mean():.6f}"
        assert row.split() == [
            training.option or training.name,
            str(len(entries.losses[-1])),
            f"{entries.rows[-1].sum():,}",
            *printed.split(),
            *six(entries.epoch_mean(), entries.batch_mean()),
            f"{np.std(entries.losses[-1]):.4f}",
        ]


def test_each_printed_number_is_named_by_its_statistic(demo: Demo) -> None:
    text = " ".join(demo.text.split())
    fit, epochs = demo.printed[FIT.name][-1], demo.printed[EPOCHS.name][-1]
    assert f"fit_average.py printed {fit:.6f}: that is epoch_mean, " in text
    assert f"train_on_batch_epochs.py printed {epochs:.6f}: that is batch_mean, " in text
    assert "train_on_batch_raw.py printed 32 losses: raw, " in text
    assert demo.numbers("printed") == [*six(fit, epochs), "10", "32"]


def test_the_gap_is_the_sum_of_its_causes(demo: Demo) -> None:
    fit, epochs = demo.entries[FIT.name], demo.entries[EPOCHS.name]
    plain, weighted, fits = (
        round(value, 6) for value in (epochs.batch_mean(), epochs.epoch_mean(), fit.epoch_mean())
    )
    *two, total, weighting, order = demo.numbers("their gap")
    assert two == six(plain, fits)
    parts = ((total, plain - fits), (weighting, plain - weighted), (order, weighted - fits))
    assert all(number == f"{gap:+.6f}" for number, gap in parts)
    assert sum(round(float(each) * 1e6) for each in (weighting, order)) == round(float(total) * 1e6)


def test_how_much_calmer_an_average_is(demo: Demo) -> None:
    raw, fit = demo.entries[RAW.name], demo.entries[FIT.name]
    losses, running = raw.losses[0], raw.running_std()
    over_all = np.sqrt(
        np.mean([np.var(each) for each in fit.losses])
        / np.mean([fit.running_std(epoch) ** 2 for epoch in range(10)])
    )
    assert demo.numbers("calm") == [
        *(f"{losses.min():.3f}", f"{losses.max():.3f}", f"{np.std(losses):.4f}"),
        *(f"{running:.4f}", f"{np.std(losses) / running:.1f}", f"{over_all:.1f}"),
    ]


def test_what_the_last_batch_weighs(demo: Demo) -> None:
    fit = demo.entries[FIT.name]
    weighted, plain = fit.epoch_mean(), fit.batch_mean()
    assert demo.numbers("weighting") == [
        *six(weighted, plain),
        apart(plain, weighted),
        *("32", "8", f"{fit.losses[-1][-1]:.6f}", f"{1 / 32:.1%}", f"{8 / 1000:.1%}"),
    ]


def test_what_dropping_the_remainder_costs(demo: Demo) -> None:
    whole, dropped = demo.entries[EPOCHS.name], demo.entries["drop-remainder"]
    without, trained = float(np.mean(whole.losses[-1][:31])), dropped.batch_mean()
    assert dropped.losses[-1].shape == (31,)
    np.testing.assert_array_equal(whole.losses[0][:31], dropped.losses[0])
    assert whole.losses[1][0] != dropped.losses[1][0]
    assert demo.numbers("remainder") == [
        "8",
        *six(without, whole.batch_mean()),
        apart(without, whole.batch_mean()),
        *six(trained),
        apart(trained, without),
        "31",
    ]


def test_what_the_order_changes(demo: Demo) -> None:
    shuffled = demo.entries[EPOCHS.name].epoch_mean()
    unshuffled = demo.entries["no-shuffle"].epoch_mean()
    numbers = [*six(unshuffled, shuffled), apart(unshuffled, shuffled)]
    assert demo.numbers("order") == numbers
    text = " ".join(demo.text.split())
    assert f"{numbers[2]} {'higher' if unshuffled > shuffled else 'lower'}, by the order" in text


def test_the_final_weights_have_another_loss(demo: Demo) -> None:
    measured = float(lossledger.open(demo.paths[FIT.name]).statistic("evaluate")[-1])
    fits = demo.entries[FIT.name].epoch_mean()
    assert demo.numbers("weights") == [*six(fits), "32", *six(measured), apart(measured, fits)]


def test_the_scale_is_an_epoch_of_training(demo: Demo) -> None:
    fit = demo.entries[FIT.name]
    means = [fit.epoch_mean(epoch) for epoch in range(10)]
    assert demo.numbers("scale") == six(abs(np.mean(np.diff(means))))


@pytest.mark.skipif(BACKEND != "jax", reason="the guide has the numbers of JAX")
def test_the_guide_has_these_numbers(demo: Demo) -> None:
    """Up to the rounding of other processors."""
    text = (EXAMPLES.parent / "docs/guide.md").read_text().partition("\nSo name the statistic")[0]
    found = [float(number) for number in re.findall(r"[-+]?0\.\d{3,}", text)]
    fit, epochs, raw = (demo.entries[each.name] for each in (FIT, EPOCHS, RAW))
    fits, plain, weighted = fit.epoch_mean(), epochs.batch_mean(), epochs.epoch_mean()
    measured = float(lossledger.open(demo.paths[FIT.name]).statistic("evaluate")[-1])
    wanted = [
        *(fits, plain, plain - fits, plain - weighted, weighted - fits),
        *(raw.losses[0].min(), raw.losses[0].max(), np.std(raw.losses[0]), raw.running_std()),
        *(np.mean(epochs.losses[-1][:31]), plain, demo.entries["drop-remainder"].batch_mean()),
        *(demo.entries["no-shuffle"].epoch_mean(), weighted, fits, measured),
    ]
    digits = [len(number.partition(".")[2]) for number in re.findall(r"[-+]?0\.\d{3,}", text)]
    assert len(found) == len(wanted)
    for number, value, places in zip(found, wanted, digits, strict=True):
        assert number == pytest.approx(float(value), abs=0.5 * 10**-places + 5e-6)


def test_the_commands_that_it_ends_with_work(demo: Demo) -> None:
    lines = [line[11:] for line in demo.text.split("\nNext\n")[1].splitlines()[1:]]
    commands = [line.rpartition("lossledger ")[2].split() for line in lines]
    assert [command[0] for command in commands] == ["list", "show", "show", "run"]
    for command in commands[:-1]:
        done = subprocess.run(
            [*LOSSLEDGER, *command], cwd=demo.directory, env=environment(), capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")


# The same runs again, without training


@pytest.fixture
def again(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """The programs are not run: they left these runs, and printed what stands in here."""
    printed = dict(demo.printed)

    def train(training: Training, *_: Any) -> Recorded:
        found = printed.get(training.name, [0.0])
        words = tuple((f"line {k}", value) for k, value in enumerate(found))
        return Recorded(training, demo.paths[training.name], words)

    monkeypatch.setattr(programs, "train", train)
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    return printed


def test_json_has_the_numbers_behind_the_text(
    demo: Demo, again: dict[str, list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--json", "-o", "runs"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backend"] == BACKEND
    for name, training in found["trainings"].items():
        entries = demo.entries[name]
        assert training["path"] == str(demo.paths[name])
        assert training["last"]["epoch_mean"] == pytest.approx(entries.epoch_mean(), abs=1e-12)
        assert training["last"]["batch_mean"] == pytest.approx(entries.batch_mean(), abs=1e-12)
        assert training["last"]["std"] == pytest.approx(np.std(entries.losses[-1]), abs=1e-12)
    statistics = {name: each["statistics"] for name, each in found["trainings"].items()}
    assert [statistics[each.name] for each in (FIT, EPOCHS, RAW)] == [
        ["epoch_mean"],
        ["batch_mean"],
        ["raw"],
    ]
    gap = found["gap"]
    assert gap["total"] == pytest.approx(gap["weighting"] + gap["order"], abs=1e-15)
    both = found["dropped"]["in_mean"] + found["dropped"]["in_training"]
    assert both == pytest.approx(
        demo.entries["drop-remainder"].batch_mean() - demo.entries[EPOCHS.name].batch_mean()
    )
    assert found["order"]["gap"] == pytest.approx(found["order"]["b"] - found["order"]["a"])


def test_a_number_that_is_no_statistic_is_not_called_one(
    again: dict[str, list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    again[FIT.name] = [again[FIT.name][0] + 3e-6]
    assert main(["demo", "-o", "runs"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"{again[FIT.name][0]:.6f}: that is no statistic of its entries." in text


def test_a_last_digit_that_was_rounded_otherwise_is_told(
    demo: Demo, again: dict[str, list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    mean = demo.entries[FIT.name].epoch_mean()
    near = round(mean, 6)
    again[FIT.name] = [near + math.copysign(1e-6, mean - near)]
    assert main(["demo", "-o", "runs"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"printed {again[FIT.name][0]:.6f}: that is epoch_mean" in text
    assert "to six decimals; where the last one differs, that is Keras's float32 rounding." in text
    assert "float32 rounding" not in demo.text
