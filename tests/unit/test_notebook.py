"""Runs in a notebook: static HTML, and figures of matplotlib."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from made import Made

import lossledger.plot
from lossledger.errors import LossLedgerError

KINDS = ["empty", "one", "nan", "many", "plain"]


def run_of(kind, folder):
    made = Made(folder, "<script>alert(1)</script>$x^2")
    made.info["warnings"] = [{"slug": "x", "message": "<b>bold</b>"}]
    if kind != "empty":
        count = {"one": 1, "nan": 6, "many": 40, "plain": 40}[kind]
        for call in range(50 if kind == "many" else 1):
            made.call(call, driver="fit", model=call, model_name="<i>net</i>", loss_name="loss")
            losses = np.full(count, np.nan) if kind == "nan" else np.arange(count)
            made.steps(losses, call=call, model=call, epoch=np.arange(count) // 2)
            made.history(call, "loss", [0.5])
    return made.close()


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_html_is_small_static_and_escaped(kind, tmp_path):
    html = run_of(kind, tmp_path)._repr_html_()
    tags = Tags(html)
    assert tags.open == []
    assert tags.seen <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;bold" in html
    assert len(html) < 40_000
    if kind == "plain":
        assert "the last 10 of 20 epochs" in html
        assert ">38.5000<" in html  # the mean of the last epoch, 38 and 39
        assert ">36.5000<" in html
    if kind == "many":
        assert "44 earlier ones are left out" in html


def curves(figure):
    (axes,) = figure.axes
    return {line.get_label(): line.get_xydata() for line in axes.lines}, axes


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_of_every_kind_of_run(kind, tmp_path):
    run, before = run_of(kind, tmp_path), "matplotlib.pyplot" in sys.modules
    figure = run.plot(model=0 if kind == "many" else None)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == before
    lines, _ = curves(figure)
    if kind == "nan":
        assert "6 of 6 steps are not finite" in lines
    if kind == "plain":
        np.testing.assert_array_equal(lines["raw"], [[step, step] for step in range(40)])
        wanted = [step if step % 2 == 0 else step - 0.5 for step in range(40)]
        np.testing.assert_array_equal(lines["running_mean"][:, 1], wanted)
        np.testing.assert_array_equal(
            lines["epoch_mean"], [[2 * e + 1, 2 * e + 0.5] for e in range(20)]
        )


def test_many_steps_are_an_envelope_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lossledger.plot, "POINTS", 20)
    monkeypatch.setattr(lossledger.plot, "BUCKETS", 10)
    figure = run_of("plain", tmp_path).plot()
    _, axes = curves(figure)
    (envelope,) = axes.collections
    assert envelope.get_label() == "raw: smallest to largest of 4 steps a place"
    corners = envelope.get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0, 39)
    low = {y for x, y in envelope.get_paths()[0].vertices if x == 4}
    assert low == {4, 7}


def test_axes_of_the_users_own(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(2)
    run = run_of("plain", tmp_path)
    assert run.plot(ax=axes[1]) is figure
    assert len(axes[0].lines) == 0
    assert len(axes[1].lines) == 3


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(LossLedgerError, match=r'pip install "lossledger\[plot\]"') as error:
        run_of("one", tmp_path).plot()
    assert error.value.slug == "not-installed"
