"""What a page carries, against numpy; no browser."""

import base64
import json
import re
import socket
import zlib
from html import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import Made
from shared import Shared

from lossledger.cli import main
from lossledger.page import content, gather
from lossledger.page.content import Content
from lossledger.page.drawn import drawn
from lossledger.page.ema import Ema
from lossledger.page.gather import Axis, Envelope, bucket_of
from lossledger.page.pack import pack
from lossledger.render.base import Options
from lossledger.render.markup import Column, table
from lossledger.render.page import PageReport
from lossledger.run import Run
from lossledger.statement import RunningMeans
from lossledger.statistics import STATISTICS

floats = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf])


def unpacked(packed):
    size = {"f4": 4, "f8": 8}[packed["type"]]
    data = base64.b64decode(packed["data"])
    planes = np.frombuffer(zlib.decompress(data) if packed["zip"] else data, np.uint8)
    values = planes.reshape(size, -1).T.copy().view(f"<{packed['type']}").ravel()
    assert len(values) == packed["length"]
    return np.cumsum(values) if packed["delta"] else values


@given(st.lists(floats))
def test_packed_numbers_come_back_bit_by_bit(values):
    found = unpacked(json.loads(json.dumps(pack(values), allow_nan=False)))
    np.testing.assert_array_equal(found, np.array(values, "f4"))


def test_many_numbers_are_compressed():
    packed = pack(np.arange(100_000))
    assert len(packed["data"]) < 400_000
    np.testing.assert_array_equal(unpacked(packed), np.arange(100_000))


@given(st.lists(st.integers(-(2**52), 2**52)))
def test_so_do_whole_numbers_as_differences(values):
    np.testing.assert_array_equal(unpacked(pack(values, "f8", delta=True)), values)


def cut(data, count):
    """Places at which something of that length is cut into pieces."""
    places = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    return [(a, b) for a, b in zip([0, *places], [*places, count], strict=True) if b > a]


@given(st.data(), st.lists(floats, min_size=1, max_size=60))
def test_the_statistics_block_by_block_are_those_at_once(data, losses):
    loss = np.array(losses, "f4").astype("f8")
    n = len(loss)
    weight = np.array(data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)), "f8")
    epoch = np.cumsum(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    running, ema = RunningMeans(), Ema(0.9)
    pieces = cut(data, n)
    found = np.concatenate([running.feed(loss[a:b], weight[a:b], epoch[a:b]) for a, b in pieces])
    wanted = STATISTICS["running_mean"](loss, weight, epoch)
    scale = np.abs(loss[np.isfinite(loss)]).max(initial=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * scale)
    found = np.concatenate([ema.feed(loss[a:b]) for a, b in pieces])
    finite = np.isfinite(loss)
    wanted = np.full(n, np.nan)
    wanted[finite] = STATISTICS["ema"](loss[finite], np.ones(finite.sum()), epoch[finite], beta=0.9)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12 * scale)


@given(st.data(), st.lists(floats, min_size=1, max_size=60), st.sampled_from([2, 4, 8]))
def test_an_envelope_is_min_max_and_mean_of_each_bucket(data, losses, size):
    values = np.array(losses, "f4").astype("f8")
    envelope, axis = Envelope(size), Axis(size)
    for a, b in cut(data, len(values)):
        envelope.feed(a, values[a:b])
        axis.feed(a, np.arange(a, b))
    found = {name: unpacked(each) for name, each in envelope.packed(0).items()}
    buckets = [values[i : i + size] for i in range(0, len(values), size)]
    for place, bucket in enumerate(buckets):
        finite = bucket[np.isfinite(bucket)]
        assert found["nonfinite"][place] == len(bucket) - len(finite)
        for name in ("min", "max", "mean"):
            wanted = getattr(finite, name)() if len(finite) else np.nan
            np.testing.assert_allclose(
                found[name][place], np.float32(wanted), rtol=1e-5, atol=np.abs(finite).sum() * 1e-12
            )
    middle = [min(i + size // 2, len(values) - 1) for i in range(0, len(values), size)]
    np.testing.assert_array_equal(unpacked(axis.packed(0)), middle)


def test_buckets_are_so_many_that_a_page_stays_small():
    assert bucket_of(1 << 20, 1 << 20, 1) == 1
    for entries, tracks in ((2_000_000, 1), (10**8, 1), (10**8, 50), (10**10, 3)):
        size = bucket_of(entries, entries * tracks, tracks)
        assert -(-entries // size) * tracks <= gather.BUCKETS
        assert -(-entries // size) * tracks > gather.BUCKETS // 4


def long(folder, steps=5000, epochs=5):
    run = Made(folder, "long", segment_rows=700)
    run.call(0, driver="fit", model=0)
    rng = np.random.default_rng(3)
    loss = 1 + rng.random(steps * epochs)
    loss[1234] = np.nan
    for epoch in range(epochs):
        part = slice(epoch * steps, (epoch + 1) * steps)
        rows = rng.integers(1, 9, steps)
        run.steps(
            loss[part],
            epoch=epoch,
            rows=rows,
            weight=rows,
            time=np.arange(steps * epochs)[part] * 1000,
        )
    return run.close()


def curve(made, name, line=0):
    return {key: unpacked(each) for key, each in made["lines"][line]["curves"][name].items()}


def test_a_page_has_the_statistics_of_its_run(tmp_path):
    run = long(tmp_path)
    made = drawn(Content([run]))
    np.testing.assert_array_equal(curve(made, "raw")["value"], run.losses().astype("f4"))
    np.testing.assert_allclose(
        curve(made, "running_mean")["value"], run.statistic("running_mean"), rtol=1e-6
    )
    points = {each["name"]: each for each in made["lines"][0]["points"]}
    np.testing.assert_array_equal(unpacked(points["epoch_mean"]["at"]), np.arange(1, 6) * 5000)
    np.testing.assert_allclose(
        unpacked(points["epoch_mean"]["value"]), run.statistic("epoch_mean"), rtol=1e-7
    )
    rows = run.entries(["rows"])["rows"].to_numpy()
    np.testing.assert_array_equal(
        unpacked(made["lines"][0]["axes"]["rows"]), np.cumsum(rows, dtype="f8")
    )


def test_a_long_run_is_an_envelope_of_the_same(tmp_path, monkeypatch):
    run = long(tmp_path)
    whole = drawn(Content([run]))
    monkeypatch.setattr(gather, "ENTRIES", 10_000)
    monkeypatch.setattr(gather, "BUCKETS", 1000)
    made = drawn(Content([run]))
    assert made["lines"][0]["bucket"] == 32
    times = unpacked(whole["lines"][0]["axes"]["time"])
    for name in ("raw", "running_mean", "ema", "step_time"):
        if name == "step_time":
            values = np.diff(times, prepend=np.nan) / 1e6
        else:
            values = curve(whole, name)["value"].astype("f8")
        padded = np.full(32 * -(-len(values) // 32), np.nan)
        padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
        buckets, found = padded.reshape(-1, 32), curve(made, name)
        np.testing.assert_allclose(found["max"], np.fmax.reduce(buckets, axis=1), rtol=1e-6)
        known = np.isfinite(buckets).sum(axis=1)
        with np.errstate(invalid="ignore"):
            mean = np.nansum(buckets, axis=1) / known
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)


def test_what_was_added_later_is_all_that_is_new(tmp_path):
    run = Made(tmp_path, "growing", segment_rows=64)
    run.call(0, driver="fit", model=0)
    rng = np.random.default_rng(5)
    run.steps(rng.random(100), epoch=0)
    run.writer.flush()
    growing = Content([content.Run(run.path)])
    run.steps(rng.random(50), epoch=0)
    run.steps(rng.random(20), epoch=1)
    run.writer.flush()
    growing.runs = [content.Run(run.path)]
    growing.update()
    assert growing.generation == 1
    new, at_once = drawn(growing, {(0, 0): 100}), drawn(Content([run.close()]))
    assert new["lines"][0]["begin"] == 99
    for name in ("raw", "running_mean", "ema"):
        wanted = curve(at_once, name)["value"]
        np.testing.assert_allclose(curve(new, name)["value"], wanted[99:], rtol=1e-6)
    for name in ("step", "rows"):
        wanted = unpacked(at_once["lines"][0]["axes"][name])
        np.testing.assert_array_equal(unpacked(new["lines"][0]["axes"][name]), wanted[99:])


def test_epochs_that_are_found_later_change_what_was_read(tmp_path):
    run = Made(tmp_path, "growing")
    run.call(0, driver="train_on_batch", model=0)
    rng = np.random.default_rng(6)
    ids = rng.integers(1, 2**62, 5)

    def one_pass():
        run.steps(rng.random(5), batch_id=ids)
        run.writer.flush()

    one_pass()
    growing = Content([content.Run(run.path)])
    for _ in range(2):
        one_pass()
        growing.runs = [content.Run(run.path)]
        growing.update()
    now = content.Run(run.path)
    assert now.calls[0].epochs_from == "batch_id"
    found = curve(drawn(growing), "running_mean")["value"]
    np.testing.assert_allclose(found, now.statistic("running_mean"), rtol=1e-6)
    run.writer.close()


def test_evaluate_stands_where_it_was_measured(tmp_path):
    run = Made(tmp_path, "train")
    run.call(0, driver="fit", model=0, loss_name="loss")
    run.steps(np.ones(30), epoch=np.repeat([0, 1, 2], 10))
    items = [
        {"place": "evaluate", "name": "loss", "epoch": 1, "batch": 4, "value": 0.5},
        {"place": "validation", "name": "val_loss", "epoch": 1, "value": 0.25},
        {"place": "validation", "name": "val_accuracy", "epoch": 1, "value": 0.75},
        {"place": "evaluate", "name": "loss", "epoch": None, "value": 0.125},
    ]
    run.call(0, reported=items)
    found = Content([run.close()]).lines[0].measured
    assert [(m.name, m.at, m.value) for m in found] == [
        ("evaluate", 14, 0.5),
        ("val_loss", 20, 0.25),
        ("evaluate", 30, 0.125),
    ]


def test_a_table_is_escaped_and_cut_in_the_middle():
    columns = [Column("<i>", [f"<b>{n}" for n in range(1000)]), Column("n", ["&"] * 1000)]
    html = table(columns, "<u>", limit=10)
    assert not re.search(r"<[bui]>", html)
    assert html.count("<tr>") == 1 + 10 + 1
    assert "990 rows left out here" in html
    assert "&lt;b&gt;999" in html


def test_no_part_of_a_run_stands_for_a_part_of_the_page(tmp_path):
    run = Made(tmp_path, "{{script}}")
    page = PageReport(Options()).render(Content([run.close()]))
    assert "<h1>{{script}}</h1>" in page


def words(*runs):
    page = PageReport(Options()).render(Content(list(runs)))
    return " ".join(re.sub("<[^>]*>", " ", page.partition("</script>")[0]).split())


def test_the_last_finite_loss_is_finite_where_the_last_epoch_has_none(tmp_path):
    run = Made(tmp_path, "diverged")
    run.call(0, driver="fit", model=0)
    run.steps([4.0, 2.5, np.nan], epoch=0)
    run.steps([np.nan, np.nan], epoch=1)
    assert "raw 2.50000 the last finite step" in words(run.close())


def test_what_each_call_reported_is_under_its_number(tmp_path):
    run = Made(tmp_path, "train")
    for call in range(2):
        run.call(call, driver="fit", model=0, loss_name="loss")
        run.steps([4.0, 2.0], call=call, epoch=0)
        item = {"place": "history", "name": "loss", "epoch": 0, "value": 3.0}
        run.call(call, reported=[item])
    page = words(run.close())
    assert "call 0: loss in History is epoch_mean" in page
    assert " call 1: loss in History is epoch_mean" in page
    assert "train, call" not in page


def test_how_epochs_are_known_names_the_run_that_it_is_true_of(tmp_path):
    fit, loop = Made(tmp_path, "fit"), Made(tmp_path, "loop")
    fit.call(0, driver="fit", model=0)
    fit.steps([4.0, 2.0, 3.0, 1.0], epoch=[0, 0, 1, 1])
    loop.call(0, driver="train_on_batch", model=0)
    loop.steps([4.0, 2.0, 3.0, 1.0], batch_id=[7, 8, 7, 8])
    loop = loop.close()
    assert "Epochs are found in the data" in words(loop)
    assert "Epochs of loop are found in the data" in words(fit.close(), loop)


def test_what_a_worker_that_died_has_left_out_is_said(tmp_path):
    run = Shared(tmp_path, 2)
    for rank, count in enumerate((4, 2)):
        usual = {"weight": np.full(count, 2.0), "rows": np.full(count, 2)}
        run.write(rank, step=np.arange(count), loss=np.full(count, 1.0 + rank), **usual)
        run.close(rank)
    run = Run(run.path)
    told = escape("worker 1's rows of 2 steps of call 0: the last that it has is 1")
    assert f"missing: {told}" in words(run)
    assert "2 workers" in words(run)
    assert told in run._repr_html_()


def test_arrays_among_arguments_stand_by_shape(tmp_path):
    run = Made(tmp_path, "train")
    arrays = [{"shape": [100, 10], "dtype": "float32"}, {"shape": [100, 1], "dtype": "int32"}]
    run.call(0, driver="fit", model=0, arguments={"validation_data": arrays})
    run.steps([4.0, 2.0], epoch=0)
    page = words(run.close())
    assert "arguments.validation_data [float32[100,10], int32[100,1]]" in page


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Made(tmp_path / "runs", "train")
    run.call(0, driver="fit", model=0)
    run.steps([2.0, 1.0], epoch=0)
    run.close()
    return tmp_path


def test_the_command_writes_a_page_and_never_over_another(here, capsys):
    assert main(["report"]) == 0
    (path,) = here.glob("*.html")
    assert path.name.endswith("-train.html")
    told = capsys.readouterr()
    assert told.out == ""
    assert f"-> {path.name}  next: " in told.err
    before = path.read_bytes()
    path.write_bytes(b"mine")
    assert main(["report"]) == 1
    assert "[file-exists]" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    assert main(["report", "--force"]) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "slug"),
    [
        (["report", "absent"], 1, "no-run"),
        (["report", "-o", "nowhere/page.html"], 1, "page-not-written"),
        (["report", "-o", "runs", "--force"], 1, "file-exists"),
        (["report", "--beta", "1"], 2, "usage"),
    ],
)
def test_what_the_command_refuses(here, capsys, arguments, status, slug):
    assert main(arguments) == status
    assert f"[{slug}]" in capsys.readouterr().err


def test_a_port_that_another_program_has(here, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["report", "--live", "--port", str(other.getsockname()[1])]) == 1
    assert "[port-not-free]" in capsys.readouterr().err


def test_a_live_page_forgets_what_a_resume_trained_again(tmp_path):
    """The fit's second epoch was begun, and is begun again."""
    made = Made(tmp_path, resumed=[{}])
    made.call(0, driver="fit", model=0)
    old, _ = made.steps(np.linspace(3, 2, 14), epoch=np.repeat([0, 1], [10, 4]))
    made.writer.flush()
    content = Content([Run(made.path)])
    assert content.entries == 14
    made.call(1, driver="fit", model=0, attempt=1)
    new, _ = made.steps(np.linspace(2, 1, 9), call=1, epoch=1)
    made.writer.flush()
    content.update()
    curve = content.lines[0].track.packed()["curves"]["raw"]["value"]
    np.testing.assert_array_equal(unpacked(curve), np.concatenate((old[:10], new)).astype("f4"))
