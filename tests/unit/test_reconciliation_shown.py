"""How a reconciliation is shown: as a value, in a notebook, in a terminal, by the command."""

import json
import math
import re
from itertools import pairwise

import pytest
from made import Made

import lossledger as ll
from lossledger.cli import main
from lossledger.reconciliation.result import Cause, Difference, Divergence, Reconciliation, Side
from lossledger.reconciliation.slugs import SLUGS
from lossledger.render.base import Options
from lossledger.render.reconciliation import JsonReconciliation, TerminalReconciliation

CAUSES = (
    Cause("weighting", 0.25, "exact", None, "<b>Eight</b> rows.", "Weigh by rows."),
    Cause("order", -0.125, "replayed", 0.01, "Another order.", "Train in one."),
)


def made(a=0.5, b=0.75, causes=CAUSES, **more):
    sides = Side("runs/<a>", "epoch_mean", a, 0, 9), Side("runs/b", "batch_mean", b, 1, 9, "a note")
    return Reconciliation.of(*sides, causes, verdict="It is so.", **more)


def test_the_law_is_kept_by_the_value():
    result = made()
    amounts = [cause.amount for cause in result.causes]
    assert result.gap == math.fsum((*amounts, result.unexplained)) == 0.25
    assert result.unexplained == 0.125
    with pytest.raises(ValueError, match="don't sum"):
        Reconciliation(result.a, result.b, 0.25, True, (), (), CAUSES, 0.0, None, "")
    with pytest.raises(ValueError, match="is not b - a"):
        Reconciliation(result.a, result.b, 0.5, True, (), (), (), 0.5, None, "")
    with pytest.raises(ValueError, match="no such cause"):
        Cause("weather", 0.1, "exact", None, "", "")


def test_rounding_is_not_left_over_and_causes_of_nothing_are_not_listed():
    parts = [Cause("weighting", each, "exact", None, "", "") for each in (0.1, 0.2, 0.0)]
    result = made(0.0, 0.3, parts)
    assert result.unexplained == 0
    assert len(result.causes) == 2


def test_json_has_what_is_promised():
    divergence = Divergence(3, 0, 3, "order", "Other batches.")
    difference = Difference("seed", 1, math.nan)
    result = made(math.nan, 0.5, (), divergence=divergence, differences=[difference])
    found = json.loads(result.to_json())
    assert found == json.loads(JsonReconciliation(Options()).render(result))
    keys = "a b gap comparable reasons differences causes unexplained noise verdict divergence"
    assert list(found) == keys.split()
    assert {"run", "statistic", "value"} <= set(found["a"])
    assert found["a"]["value"] == found["gap"] == "nan"
    assert found["divergence"]["step"] == 3
    keys = {"cause", "amount", "kind", "noise", "evidence", "advice"}
    assert set(json.loads(made().to_json())["causes"][0]) == keys


def test_a_notebook_gets_escaped_static_html():
    html = made(reasons=["<script>"], comparable=False)._repr_html_()
    assert "<script" not in html
    assert "runs/&lt;a&gt;:epoch_mean" in html
    assert "&lt;b&gt;Eight&lt;/b&gt;" in html
    assert "unexplained" in html
    assert len(html) < 4000
    bars = re.findall(r">([█░]+)<", html)
    assert [len(each) for each in bars] == [24] * (len(CAUSES) + 3)
    for one, other in pairwise(bars):  # each begins where the one before ends
        assert any(a == b == "█" for a, b in zip(one, other, strict=True))
    assert (bars[0].index("█"), bars[-1].index("█")) == (0, 23)  # a is smaller than b


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_terminal_shows_a_waterfall_whose_amounts_add_up(width, blocks):
    text = TerminalReconciliation(Options(width=width, blocks=blocks)).render(
        made(divergence=Divergence(None, None, None, "order", "Other batches."))
    )
    lines = text.splitlines()
    if width >= 60:
        assert max(map(len, lines)) <= width
        (head,) = [place for place, line in enumerate(lines) if " amount" in line]
        rows = [line.split() for line in lines[head + 1 : head + 6]]
        assert [row[0] for row in rows] == ["a", "weighting", "order", "unexplained", "b"]
        numbers = [float(row[2 if row[0] in SLUGS else 1]) for row in rows]
        assert numbers[0] + sum(numbers[1:4]) == pytest.approx(numbers[4])
    if width >= 80:
        assert ("█" if blocks else "#") in text
    assert blocks or text.isascii()
    for word in ("evidence", "advice", "It is so.", "where the trainings part"):
        assert word in " ".join(text.split())


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Made(tmp_path / "runs", "fit")
    made.call(0, driver="fit", model=0, weight_kind="rows")
    made.steps([0.5, 0.25, 0.75], weight=[8.0, 8.0, 2.0], epoch=0)
    return made.close()


def test_the_command(run, capsys):
    assert main(["reconcile", "latest", "latest:batch_mean"]) == 0
    shown = capsys.readouterr().out
    assert "All of the gap is weighting." in shown
    assert "\x1b" not in shown
    assert main(["reconcile", "fit:epoch_mean", "fit:raw", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["causes"][0]["cause"] == "convention"
    assert found["gap"] == pytest.approx(0.75 - 7.5 / 18)


@pytest.mark.parametrize(
    ("limit", "status"), [("0", 3), ("0.08", 3), ("0.084", 0), ("nan", 2), ("-1", 2), ("x", 2)]
)
def test_a_gate(run, limit, status):
    try:
        found = main(["reconcile", "fit", "fit:batch_mean", "--fail-over", limit])
    except SystemExit as ended:  # as argparse ends
        found = ended.code
    assert found == status


def test_no_gate_lets_nan_pass(tmp_path):
    made = Made(tmp_path)
    made.call(0, driver="fit", model=0)
    made.steps([0.5, math.nan], epoch=0)
    run = made.close()
    assert main(["reconcile", str(run.path), f"{run.path}@finite", "--fail-over", "1e9"]) == 3


@pytest.mark.parametrize(
    ("number", "slug"),
    [
        ("absent", "no-run"),
        ("fit:nonsense", "unknown-statistic"),
        ("fit:ema:beta", "statistic-parameter"),
        ("fit@colour=red", "selection"),
        ("fit@batch=x", "selection"),
        ("fit@weight=heavy", "selection"),
        ("fit@finite:reported", "selection"),
        ("fit@7", "no-call"),
        ("fit@epoch=4", "no-epoch"),
        ("fit@batch=3", "no-batch"),
        ("fit:reported", "not-reported"),
        ("fit:evaluate", "not-reported"),
        ("fit:epoch_mean:weight=elements", "no-weight"),
        ("fit@loss=b_loss", "no-loss"),
    ],
)
def test_what_can_not_be_read_is_said(run, number, slug):
    with pytest.raises(ll.LossLedgerError) as caught:
        ll.reconcile("fit", number)
    assert caught.value.slug == slug
    assert "Received: " in str(caught.value)


def test_a_run_may_have_signs_in_its_name(tmp_path):
    made = Made(tmp_path / "a@b:raw", "fit")
    made.call(0, driver="fit", model=0)
    made.steps([0.5, 0.25], epoch=0)
    path = made.close().path
    assert ll.reconcile(str(path), f"{path}@0:raw").b.statistic == "raw"
    assert ll.reconcile(path, (path, "raw")).gap == 0.25 - 0.375
