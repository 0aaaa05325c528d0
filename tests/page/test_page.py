"""The page in a real Chromium, opened from a file."""

import json
import re

import numpy as np
import pytest
from made import Made

from lossledger.page import gather

EVIL = "</script><img src=x onerror=alert(1)>{{data}}\"'&<b>"


def trained(folder, name="train", seed=0, epochs=4, steps=60, **info):
    """A run of one fit: losses that fall, with noise, validation, a schedule, penalty, spikes."""
    run = Made(folder, name, **info)
    rng = np.random.default_rng(seed)
    run.call(0, driver="fit", model=0, model_name="net", weight_kind="rows", loss_name="loss")
    for epoch in range(epochs):
        place = np.arange(steps) + epoch * steps
        loss = 1 + np.exp(-place / 80) + rng.normal(scale=0.05, size=steps)
        loss[steps // 2] += 2.0 * (epoch == 2)
        run.steps(
            loss,
            epoch=epoch,
            batch=np.arange(steps),
            penalty=np.full(steps, 0.01 + 0.001 * epoch),
            learning_rate=0.1 / (1 + place),
            time=place * 2_000_000,
            batch_id=np.arange(steps) + 1,
            a_loss=loss / 2,
        )
        items = [{"place": "validation", "name": "val_loss", "epoch": epoch, "value": 0.9}]
        run.call(0, reported=items)
        run.history(0, "loss", [np.average(np.float32(loss), weights=np.full(steps, 8))], epoch)
    run.call(0, ended=1)
    return run.close()


@pytest.fixture
def page(opened, tmp_path):
    return opened(trained(tmp_path / "runs"))


def assert_true_entry(page, losses):
    """Zoomed in, a point is an entry, and the line below has its loss."""
    assert "Each point is the raw loss of one entry" in page.page.inner_text("#caption")
    page.page.keyboard.press("ArrowRight")
    text = page.page.inner_text("#readout")
    step = int(re.match(r"step (\d+)", text)[1])
    assert f"raw {losses[step]:.6g}".rstrip("0") in text


def view(seen):
    return json.loads(seen.data("view"))


def test_opens_from_a_file_and_asks_for_nothing(page):
    assert [url.partition(":")[0] for url in page.requests if not url.startswith("data:")] == [
        "file"
    ]
    policy = page.page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_curve_is_painted_and_named_by_its_statistic(page):
    names = page.page.locator("#loss .legend:not(.runs) .chip").all_inner_texts()
    assert names == [
        *("raw", "running_mean", "epoch_mean", "batch_mean", "ema, beta 0.98"),
        "val_loss (evaluate)",
    ]
    for color in ("--running", "--ema", "--epoch", "--validation"):
        assert page.has(color) > 20, color
    assert page.has("--running", "parts") > 100
    assert page.has("--ema", "learning_rate") > 100
    assert page.has("--ema", "step_time") > 100
    assert "Each point is the raw loss of one entry: 240" in page.page.inner_text("#caption")


def test_parts_of_the_loss_are_named_and_left_out_where_there_are_none(opened, tmp_path):
    for penalty in (0.0, 0.5):
        run = Made(tmp_path / str(penalty))
        run.call(0, driver="fit", model=0)
        run.steps([0.25, 0.5], epoch=0, penalty=[0.0, penalty])
        page = opened(run.close()).page
        assert page.locator("#parts-title").is_visible() == bool(penalty)
    assert page.locator("[data-chart=parts] .legend .chip").all_inner_texts() == ["penalty"]


def test_a_curve_can_be_put_away(page):
    assert page.has("--ema") > 100
    page.after(lambda: page.page.get_by_label("ema, beta 0.98").click())
    assert page.has("--ema") < 20


def test_zoom_by_dragging_shows_fewer_entries_and_a_double_click_all(page):
    whole = view(page)
    box = page.page.locator("#loss .u-over").bounding_box()
    mouse = page.page.mouse

    def drag():
        mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
        mouse.down()
        mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 22, steps=3)
        mouse.up()

    page.after(drag)
    low, high = view(page)
    width = whole[1] - whole[0]
    assert low == pytest.approx(whole[0] + width / 2, rel=0.02)
    assert high == pytest.approx(whole[0] + width * 0.75, rel=0.02)
    shown = int(re.search(r"one entry: (\d+)", page.page.inner_text("#caption"))[1])
    assert 55 <= shown <= 67
    page.after(lambda: mouse.dblclick(box["x"] + 50, box["y"] + 50))
    assert view(page) == whole


def test_other_x_axes(page):
    for axis, last in (("epoch", 4), ("rows", 4 * 60 * 8), ("time", 0.478), ("step", 239)):
        button = page.page.locator(f"[data-axis={axis}]")
        page.after(button.click)
        low, high = view(page)
        assert button.get_attribute("aria-pressed") == "true"
        assert low == pytest.approx(0, abs=0.01 * last)
        assert high == pytest.approx(last, rel=0.01)


def test_a_zoom_keeps_its_entries_on_another_axis(page):
    for _ in range(2):
        page.after(page.page.locator("#in").click)
    shown = page.page.inner_text("#caption")
    page.after(page.page.locator("[data-axis=time]").click)
    counts = [
        int(re.search(r"entry: (\d+)", text)[1])
        for text in (shown, page.page.inner_text("#caption"))
    ]
    assert abs(counts[0] - counts[1]) <= 2


def test_logarithmic_axis(page):
    before = page.picture()
    page.after(page.page.locator("[data-scale=log]").click)
    assert page.picture() != before
    assert page.has("--ema") > 100


def test_an_outlier_is_marked_at_the_edge_and_shown_on_demand(page):
    assert "1 raw loss lies beyond the picture" in page.page.inner_text("#caption")
    page.after(page.page.locator("[data-trim=all]").click)
    assert "beyond the picture" not in page.page.inner_text("#caption")


def test_keyboard(page):
    whole = view(page)
    page.page.locator("#loss .plot").focus()
    press = page.page.keyboard.press
    page.after(lambda: press("+"))
    width = view(page)[1] - view(page)[0]
    assert width == pytest.approx((whole[1] - whole[0]) / 2)
    before = view(page)
    page.after(lambda: press("Shift+ArrowRight"))
    assert view(page)[0] == pytest.approx(before[0] + width * 0.2)
    press("ArrowRight")
    first = page.page.inner_text("#readout")
    press("ArrowRight")
    steps = [
        int(re.match(r"step (\d+)", text)[1]) for text in (first, page.page.inner_text("#readout"))
    ]
    assert steps[1] == steps[0] + 1
    page.after(lambda: press("0"))
    assert view(page) == whole


def test_the_readout_has_the_values_of_the_entry(opened, tmp_path):
    run = trained(tmp_path / "runs")
    page = opened(run)
    page.page.locator("#loss .plot").focus()
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    text = page.page.inner_text("#readout")
    step = int(re.match(r"step (\d+), epoch 0, batch (\d+)", text)[1])
    for name in ("raw", "running_mean"):
        value = run.statistic(name)[step]
        assert f"{name} {np.float32(value):.6g}".rstrip("0") in text


def test_light_and_dark(opened, tmp_path):
    run = trained(tmp_path / "runs")
    light, dark = opened(run), opened(run, color_scheme="dark")

    def background(page):
        return page.page.evaluate("() => getComputedStyle(document.body).backgroundColor")

    assert background(light) != background(dark)
    assert light.picture() != dark.picture()
    light.after(light.page.get_by_role("button", name="Dark").click)
    assert background(light) == background(dark)
    assert light.picture() == dark.picture()
    assert light.has("--ema") > 100


def test_on_a_phone_and_printed(opened, tmp_path):
    page = opened(trained(tmp_path / "runs"))
    page.after(lambda: page.page.set_viewport_size({"width": 360, "height": 700}))
    assert page.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert len(page.page.pdf()) > 20_000


def test_tables_are_those_of_the_run(opened, tmp_path):
    run = trained(tmp_path / "runs")
    page = opened(run)
    rows = page.page.locator("#statements tbody tr").all_inner_texts()
    assert len(rows) == 4
    for row, stated in zip(rows, run.epochs(), strict=True):
        assert f"{stated.epoch_mean:.5f}" in row
    spike = page.page.locator("#steps tbody tr").first.inner_text().split("\t")
    step = int(run.losses().argmax())
    assert spike[:5] == [str(step), "0", "2", "30", f"{30 * 8} to {31 * 8 - 1}"]
    assert spike[-1] == f"{31:016x}"
    page.page.locator("#reported summary").click()
    assert "History is epoch_mean = sum(w l) / sum(w)" in page.page.inner_text("#reported")
    assert page.page.locator("#reported tbody tr").count() == 8


def test_an_adversarial_name_does_nothing(opened, tmp_path):
    run = trained(
        tmp_path / "runs",
        EVIL,
        command=["train.py", EVIL],
        warnings=[{"slug": EVIL, "message": EVIL}],
    )
    page = opened(run)
    assert page.page.inner_text("h1") == EVIL
    assert page.page.locator("img").count() == 0
    assert page.page.locator("h1 b").count() == 0
    two = opened(run, trained(tmp_path / "more", EVIL, seed=1))
    assert two.page.locator("img").count() == 0


def test_an_empty_run(opened, tmp_path):
    page = opened(Made(tmp_path, "empty").close(), paint=False)
    page.page.wait_for_selector("html.drawn")
    assert "nothing to state" in page.page.inner_text("#statements")
    assert page.page.locator("canvas").count() <= 1


def test_one_step(opened, tmp_path):
    run = Made(tmp_path, "one")
    run.call(0, driver="fit", model=0)
    run.steps([0.25], epoch=0, time=[5])
    page = opened(run.close())
    assert "0.25" in page.page.inner_text("#readout")
    assert page.has("--epoch") > 5


def test_nothing_but_nan(opened, tmp_path):
    run = Made(tmp_path, "nan")
    run.call(0, driver="fit", model=0)
    run.steps([np.nan] * 30, epoch=0)
    run.steps([np.inf, -np.inf, np.nan], epoch=1)
    page = opened(run.close())
    assert "33 losses are not finite" in page.page.inner_text("#steps")
    assert page.has("--bad") > 50
    rows = page.page.locator("#statements tbody tr").all_inner_texts()
    assert "nan" in rows[0]


def test_some_nan_are_marked_where_they_are(opened, tmp_path):
    run = Made(tmp_path, "some")
    run.call(0, driver="fit", model=0)
    loss = np.linspace(2, 1, 200)
    loss[[50, 150]] = np.nan, np.inf
    run.steps(loss, epoch=0, batch=np.arange(200))
    page = opened(run.close())
    assert page.has("--bad") > 10
    assert page.has("--ema") > 100  # of the finite losses: it goes on
    assert "ema, beta 0.98, of finite losses" in page.page.inner_text("#loss .legend:not(.runs)")
    cells = [row.split("\t") for row in page.page.locator("#steps tbody tr").all_inner_texts()]
    assert [(row[0], row[5]) for row in cells] == [("50", "nan"), ("150", "inf")]


def test_fifty_models(opened, tmp_path):
    run = Made(tmp_path, "many")
    for model in range(50):
        run.call(model, driver="train_on_batch", model=model, model_name=f"net{model}")
        run.steps(np.linspace(2, 1, 20) + model, call=model, model=model, epoch=0)
    page = opened(run.close())
    select = page.page.locator("#model")
    assert select.locator("option").count() == 50
    page.after(lambda: select.select_option("7"))
    assert f"raw {8.0}".rstrip("0").rstrip(".") in page.page.inner_text("#readout")
    assert page.page.locator("#statements tbody tr").count() == 50


def test_a_crashed_run(opened, tmp_path):
    run = Made(tmp_path, "crashed", pid=1)
    run.call(0, driver="fit", model=0)
    run.steps(np.linspace(2, 1, 70), epoch=0)
    run.writer.flush()
    from lossledger.run import Run

    page = opened(Run(run.path))
    assert "incomplete" in page.page.inner_text("#head")
    assert page.has("--ema") > 100
    run.writer.close()


def test_two_runs_and_their_gap(opened, tmp_path):
    a = trained(tmp_path / "a", "first", versions={"keras": "3.15.1"})
    b = trained(tmp_path / "b", "second", seed=1, versions={"keras": "3.14.0"})
    page = opened(a, b)
    epochs = page.page.locator("#statements tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in epochs[:3]] == [
        ["0", "first"], ["0", "second"], ["1", "first"],
    ]  # fmt: skip
    assert page.has("--run-0") > 100
    assert page.has("--run-1") > 100
    assert page.page.locator("svg.waterfall .bar").count() >= 1
    gap = b.statistic("epoch_mean")[-1] - a.statistic("epoch_mean")[-1]
    assert f"{gap:+.4g}" in page.page.inner_text("#reconciliation")
    rows = page.page.locator("#configuration > .scroll tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["versions.keras"]
    page.after(lambda: page.page.get_by_label("second", exact=True).click())
    assert page.has("--run-1") < 20


def test_a_refusal_is_shown_as_one(opened, tmp_path):
    a = trained(tmp_path / "a", "first")
    page = opened(a, Made(tmp_path / "b", "empty").close())
    assert "could not be reconciled" in page.page.inner_text("#reconciliation")


def test_more_entries_than_pixels_are_an_envelope_until_zoomed(opened, tmp_path):
    run = Made(tmp_path, "long", segment_rows=100_000)
    run.call(0, driver="fit", model=0)
    rng = np.random.default_rng(0)
    loss, _ = run.steps(2 + rng.normal(size=30_000), epoch=0, batch=np.arange(30_000))
    page = opened(run.close())
    assert "an envelope of 30,000 raw losses" in page.page.inner_text("#caption")
    page.page.locator("#loss .plot").focus()
    for _ in range(5):
        page.after(lambda: page.page.keyboard.press("+"))
    assert_true_entry(page, loss)


def lasting(tmp_path, steps=70_000):
    run = Made(tmp_path, "lasting", segment_rows=100_000)
    run.call(0, driver="fit", model=0)
    rng = np.random.default_rng(0)
    run.steps(2 + rng.normal(size=steps), epoch=0, batch=np.arange(steps))
    return run.close()


def test_a_long_page_is_painted_before_all_of_it_is_read(opened, tmp_path):
    run = lasting(tmp_path)
    page = opened(run)
    page.page.wait_for_selector("html[data-whole]", state="attached")
    assert float(page.data("painted")) < float(page.data("whole"))
    page.page.locator("#loss .plot").focus()
    for _ in range(6):
        page.after(lambda: page.page.keyboard.press("+"))
    assert_true_entry(page, run.losses())


def test_a_page_of_buckets_says_so_however_far_it_is_zoomed(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "ENTRIES", 1000)
    monkeypatch.setattr(gather, "BUCKETS", 4096)
    page = opened(lasting(tmp_path))
    for _ in range(8):
        page.after(page.page.locator("#in").click)
    caption = page.page.inner_text("#caption")
    assert "an envelope of" in caption
    assert "This page keeps buckets of 32 entries" in caption
    assert "32 entries" in page.page.inner_text("#readout")
