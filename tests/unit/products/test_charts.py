import numpy as np
from PIL import Image

from pipelines.monitoring.areas import Course
from pipelines.products.charts import (
    Series,
    draw_blocks,
    draw_change_series,
    draw_coverage,
    draw_errors,
    draw_f1,
    draw_growth,
    draw_reliability,
    draw_skill,
)  # fmt: skip
from pipelines.tiles import Box

DAY = 18_262.0  # 2020-01-01


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def has_colour(path, rgb: tuple[int, int, int]) -> bool:
    with Image.open(path) as picture:
        return bool((np.abs(np.asarray(picture.convert("RGB")).astype(int) - rgb).max(axis=-1) <= 2).any())


def test_curves_are_drawn_and_gaps_are_allowed(tmp_path, evaluation):
    evaluation["metrics"]["persistence"]["by_lead"][1]["ssim"] = None
    evaluation["skill"]["persistence"]["by_lead"][1].update(skill=None, low=None, high=None)
    draw_errors(evaluation["metrics"], "model", tmp_path / "e.png")
    draw_skill(evaluation["skill"], "network", tmp_path / "s.png")
    draw_coverage(evaluation["intervals"], tmp_path / "c.png")
    draw_blocks([(Box.whole((5, 5)), "train"), (Box((5, 0), (10, 5)), "test")], (10, 5), tmp_path / "b.png")
    assert all(size_of(tmp_path / name)[0] > 300 for name in ("e.png", "s.png", "c.png", "b.png"))


def series(found: bool) -> Series:
    days = DAY + np.arange(0, 400, 20.0)
    curve = np.arange(DAY, DAY + 400, 5.0)
    when = (DAY + 200, DAY + 240) if found else (np.nan, np.nan)
    return Series("a place", Course(days, np.sin(days / 58), curve, np.sin(curve / 58), np.full(curve.shape, 0.1)), *when)


def test_series_are_drawn_with_and_without_change(tmp_path):
    draw_change_series([series(True), series(False)], tmp_path / "two.png", "t", "ndvi", "1", DAY + 100)
    draw_change_series([series(True)], tmp_path / "one.png", "t", "ndvi", "1", DAY + 100)
    draw_change_series([], tmp_path / "none.png", "t", "ndvi", "1", DAY + 100)
    assert size_of(tmp_path / "two.png")[1] > size_of(tmp_path / "one.png")[1]
    assert has_colour(tmp_path / "one.png", (0xD5, 0x5E, 0x00))  # the alarm


def test_an_empty_pixel_is_drawn(tmp_path):
    nothing = np.empty(0)
    draw_change_series(
        [Series("never seen", Course(nothing, nothing, nothing, nothing, nothing))], tmp_path / "a.png", "t", "ndvi", "1", DAY
    )
    assert size_of(tmp_path / "a.png")[0] > 800


def test_curves_are_drawn_also_for_nothing(tmp_path):
    rule = {"pooled": {"f1": 0.34}, "sites": {"paris": {"f1": 0.3}, "rome": {"f1": None}}}
    interval = {"low": 0.3, "high": 0.4}
    fused = {"pooled": {"f1": 0.37}, "f1_interval": interval, "sites": {"paris": {"f1": float("nan")}}}
    draw_f1({"rule": rule, "fused": fused, "none": {"pooled": {"f1": None}, "sites": {}}}, "fused", tmp_path / "f1.png")
    draw_f1({"rule": {"pooled": {"f1": 0.0}, "sites": {}}}, "another", tmp_path / "f0.png")
    bins = zip([0.1, 0.5, 0.9], [0.05, float("nan"), 0.8], [100, 0, 3], strict=True)
    draw_reliability([dict(zip(("claimed", "happened", "pixels"), one, strict=True)) for one in bins], tmp_path / "r.png")
    draw_reliability([], tmp_path / "r0.png")
    none = np.full(3, np.nan)
    draw_growth(none, none, np.ones(3), tmp_path / "g0.png", DAY, DAY)
    draw_growth(DAY + np.arange(3.0), DAY + np.arange(3.0) + 30, np.ones(3), tmp_path / "g.png", DAY, DAY + 99)
    assert len(list(tmp_path.iterdir())) == 6  # and no drafts
