from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from pipelines.change.metrics import Counts
from pipelines.grid import Grid
from pipelines.products.animation import MOST_FRAMES, draw_change_animation, frame_days
from pipelines.products.before_after import (
    ChangeMaps,
    Marker,
    Observation,
    PairMaps,
    _draw_scored,
    _inwards,
    draw_change_quicklook,
    draw_pair_quicklook,
    thin_rows,
)
from pipelines.products.canvas import (
    aspect_of,
    colour_limits,
    draw_bar,
    draw_image,
    draw_legend,
    label_dates,
    metres_per_unit,
    outline,
    panels,
    stretch_colours,
)
from pipelines.products.charts import draw_f1, draw_growth, draw_reliability, scores_of
from pipelines.products.pixel_series import Series, draw_change_series, strongest_pixel
from pipelines.products.polygons import outline_changes

SHAPE = (24, 30)
GRID = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), SHAPE)
DAY = 18_262.0  # 2020-01-01
BEFORE, AFTER = np.datetime64("2019-07-01", "ns"), np.datetime64("2020-07-01", "ns")


def colours(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).random((*SHAPE, 3)).astype(np.float32) * 0.2
    image[:3, :3] = np.nan
    return image


def layers(changed: np.ndarray | None = None) -> dict[str, np.ndarray]:
    changed = np.zeros(SHAPE, bool) if changed is None else changed
    day = np.where(changed, DAY + np.arange(SHAPE[1]), np.nan)
    return {
        "change_day": day,
        "detected_day": day + 40,
        "magnitude": np.where(changed, -0.3, 0).astype(np.float32),
        "confidence": np.where(changed, 0.99, 0.3).astype(np.float32),
        "direction": -changed.astype(np.int8),
        "status": (1 + changed).astype(np.uint8),
    }


def patch() -> np.ndarray:
    changed = np.zeros(SHAPE, bool)
    changed[5:12, 6:15] = True
    return changed


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def has_colour(path, rgb: tuple[int, int, int]) -> bool:
    with Image.open(path) as picture:
        return bool((np.abs(np.asarray(picture.convert("RGB")).astype(int) - rgb).max(axis=-1) <= 2).any())


def test_a_quicklook_shows_what_changed(tmp_path):
    maps = ChangeMaps(
        Observation(BEFORE, colours()),
        Observation(AFTER, colours(1)),
        layers(patch()),
        GRID,
        "ndvi",
        "1",
        markers=[Marker(8, 9, "1")],
    )
    draw_change_quicklook(maps, tmp_path / "a.png", "title", "subtitle")
    draw_change_quicklook(maps, tmp_path / "b.png", "title", "subtitle")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert size_of(tmp_path / "a.png")[0] > 1200
    assert has_colour(tmp_path / "a.png", (0xE6, 0x9F, 0x00))  # decrease


@pytest.mark.parametrize("status", [0, 1])
def test_a_quicklook_is_drawn_where_nothing_was_found_or_watched(tmp_path, status):
    nothing = layers() | {"status": np.full(SHAPE, status, np.uint8)}
    values = np.full(SHAPE, np.nan, np.float32)
    for number, seen in enumerate((values, np.nan_to_num(values) + 0.5)):
        maps = ChangeMaps(
            Observation(BEFORE, seen, "ndvi", "1"), Observation(AFTER, seen, "ndvi", "1"), nothing, GRID, "ndvi", "1"
        )
        draw_change_quicklook(maps, tmp_path / f"{number}.png", "nothing")
        assert not has_colour(tmp_path / f"{number}.png", (0xE6, 0x9F, 0x00))


def test_a_pair_shows_hits_misses_and_false_alarms(tmp_path):
    truth, mask = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[5:10, 5:10], mask[5:10, 8:14], mask[0, :5], truth[20, 20] = 1, 1, 255, 255
    maps = PairMaps(Observation(BEFORE, colours()), Observation(AFTER, colours(1)), mask.astype(np.float32), mask, GRID, truth)
    draw_pair_quicklook(maps, tmp_path / "pair.png", "a place")
    for rgb in ((0x00, 0x9E, 0x73), (0xE6, 0x9F, 0x00), (0xCC, 0x79, 0xA7)):
        assert has_colour(tmp_path / "pair.png", rgb)


def test_a_pair_without_label_or_change_or_sight_is_drawn(tmp_path):
    nothing = np.zeros(SHAPE, np.uint8)
    unseen = np.full(SHAPE, np.nan, np.float32)
    blank = np.full((*SHAPE, 3), np.nan, np.float32)
    for number, probability in enumerate((unseen, np.zeros(SHAPE, np.float32))):
        maps = PairMaps(Observation(BEFORE, blank), Observation(AFTER, blank), probability, nothing, GRID, threshold=0.4)
        draw_pair_quicklook(maps, tmp_path / f"{number}.png", "a place")
        assert size_of(tmp_path / f"{number}.png")[0] > 800


def test_the_figures_are_of_the_whole_place_and_not_of_what_is_drawn():
    mask = np.zeros(GRID.shape_yx, np.uint8)
    truth = mask.copy()
    truth[0, 0] = 1
    maps = PairMaps(Observation(BEFORE, colours()), Observation(AFTER, colours(1)), mask.astype(np.float32), mask, GRID, truth)
    assert scored_title(maps) == "F1 0.00   precision –   recall 0.00"
    whole = replace(maps, counts=Counts(true_changed=2, false_changed=1, missed=3))
    assert scored_title(whole) == "F1 0.50   precision 0.67   recall 0.40"


def scored_title(maps: PairMaps) -> str:
    _, (axes,) = panels(GRID, 1, 1, "a", "", 3.0)
    assert maps.truth is not None
    _draw_scored(axes, maps, maps.truth)
    return axes.get_title(loc="right")


def test_the_outline_runs_along_the_pixels_edges():
    figure, (axes,) = panels(GRID, 1, 1, "", "", 3)
    changed = np.zeros(SHAPE, bool)
    changed[2, 3] = True
    outline(axes, changed, GRID, "red", 1)
    (lines,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    corners = {tuple(float(v) for v in point) for segment in lines.get_segments() for point in segment}
    x, y = 5.5e6 + 30, 2.7e6 - 20
    assert corners == {(x, y), (x + 10, y), (x, y - 10), (x + 10, y - 10)}
    assert len(lines.get_segments()) == 4
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure)


def test_degrees_are_drawn_as_wide_as_they_are_on_the_ground():
    north = Grid("EPSG:4326", (0.001, 0, 10.0, 0, -0.001, 60.05), (100, 100))
    assert metres_per_unit(north)[0] == pytest.approx(55_660, rel=0.01)
    assert aspect_of(north) == pytest.approx(2, rel=0.01)
    assert aspect_of(GRID) == pytest.approx(1, abs=0.01)
    web = Grid("EPSG:3857", (10.0, 0, 1.1e6, 0, -10.0, 6.1e6), (10, 10))  # 48 degrees north: true to angles, not to scale
    assert metres_per_unit(web) == pytest.approx((0.67, 0.67), rel=0.01)
    feet = Grid("EPSG:2263", (10.0, 0, 1e6, 0, -10.0, 2e5), (10, 10))
    assert metres_per_unit(feet)[0] == pytest.approx(0.3048, rel=1e-3)


def test_before_and_after_are_stretched_alike():
    limits = colour_limits([colours(), colours(1)])
    assert limits.shape == (3, 2)
    rgba = stretch_colours(colours(), limits)
    assert rgba[..., :3].min() >= 0
    assert rgba[..., :3].max() <= 1
    assert (rgba[:3, :3, 3] == 0).all()
    assert (rgba[5:, 5:, 3] == 1).all()
    np.testing.assert_array_equal(colour_limits([np.full((2, 2, 3), np.nan)]), [[0, 1]] * 3)


def test_large_rasters_are_thinned_alike():
    large = np.arange(1500 * 20).reshape(1500, 20)
    np.testing.assert_array_equal(thin_rows(large), large[::3, ::3])
    np.testing.assert_array_equal(thin_rows(large, 1), large)


def series(found: bool) -> Series:
    days = DAY + np.arange(0, 400, 20.0)
    curve = np.arange(DAY, DAY + 400, 5.0)
    when = (DAY + 200, DAY + 240) if found else (np.nan, np.nan)
    return Series("a place", days, np.sin(days / 58), curve, np.sin(curve / 58), np.full(curve.shape, 0.1), *when, number="1")


def test_series_are_drawn_with_and_without_change(tmp_path):
    draw_change_series([series(True), series(False)], tmp_path / "two.png", "ndvi", "1", DAY + 100, title="t")
    draw_change_series([series(True)], tmp_path / "one.png", "ndvi", "1", DAY + 100)
    draw_change_series([], tmp_path / "none.png", "ndvi", "1", DAY + 100)
    assert size_of(tmp_path / "two.png")[1] > size_of(tmp_path / "one.png")[1]
    assert has_colour(tmp_path / "one.png", (0xD5, 0x5E, 0x00))  # the alarm


def test_an_empty_pixel_is_drawn(tmp_path):
    nothing = np.empty(0)
    draw_change_series([Series("never seen", nothing, nothing, nothing, nothing, nothing)], tmp_path / "a.png", "ndvi", "1", DAY)
    assert size_of(tmp_path / "a.png")[0] > 800


def test_the_clearest_pixel_of_a_patch_is_found():
    changed = patch()
    magnitude = np.where(changed, -0.1, -9).astype(np.float32)  # the largest lies outside
    magnitude[9, 11] = -0.5
    frame = outline_changes(changed, GRID)
    assert strongest_pixel(frame.geometry[0], GRID, magnitude) == (9, 11)


def test_the_animation_grows_and_ends_whole(tmp_path):
    grown = np.zeros(SHAPE, bool)
    grown[5:12, 6:8] = True
    maps = ChangeMaps(Observation(BEFORE, colours()), Observation(AFTER, colours(1)), layers(grown), GRID, "ndvi", "1")
    draw_change_animation(maps, tmp_path / "a.gif", "t", DAY, DAY + 200)
    with Image.open(tmp_path / "a.gif") as gif:
        assert sum(1 for _ in ImageSequence.Iterator(gif)) == 4  # the beginning, two alarms and the end
    draw_change_animation(ChangeMaps(maps.before, maps.after, layers(), GRID, "ndvi", "1"), tmp_path / "c.gif", "t", DAY, DAY + 9)
    assert (tmp_path / "c.gif").stat().st_size > 0


def test_scores_of_an_evaluation_are_arranged_for_the_picture():
    method = {"pooled": {"f1": 0.3}, "f1_interval": {"low": 0.2, "high": 0.4}, "sites": {"a": {"f1": 0.1}, "b": {"f1": None}}}
    unscored = {"pooled": {"f1": None}, "sites": {}}
    assert scores_of({"net": method, "none": unscored}) == {"net": {"pooled": 0.3, "low": 0.2, "high": 0.4, "a": 0.1}}


def test_an_animation_has_a_bounded_number_of_frames():
    assert list(frame_days(np.array([[np.nan, 3.0], [5.0, 3.0]]), 1.0, 9.0)) == [1, 3, 5, 9]
    many = frame_days(np.arange(1000.0), 0.0, 999.0)
    assert (many.size, many[0], many[-1]) == (MOST_FRAMES, 0, 999)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_legend_stays_on_the_figure(count):
    figure, axes = panels(GRID, 2, 3, "", "", 3.3)
    draw_legend(axes[2], [("#f6d999", "decrease, recovered 14.0%")] * count)
    figure.dpi = 130  # as the file is written
    FigureCanvasAgg(figure).draw()
    assert axes[2].get_legend().get_window_extent().x1 <= figure.bbox.x1
    assert len(axes[2].get_legend().get_texts()) == count


def test_every_frame_of_an_animation_is_a_date_that_was_observed():
    alarms = np.concatenate([np.arange(100.0, 130.0), [500.0, 900.5]])
    shown = frame_days(alarms, 7.0, 1000.0)
    assert set(shown) <= {7.0, 1000.0, *alarms}
    assert {129.0, 500.0, 900.5} <= set(shown)
    assert shown.size <= MOST_FRAMES


def test_recovered_pixels_have_their_own_colour_and_place_in_the_legend(tmp_path):
    changed = patch()
    recovered = np.full(SHAPE, np.nan)
    recovered[changed & (np.arange(SHAPE[1]) % 2 == 0)] = DAY + 90
    observation = Observation(AFTER, np.zeros(SHAPE, np.float32), "ndvi", "1", when="Jun-Aug 2020, median of 3 looks")
    for name, more in (("with", {"recovered_day": recovered}), ("without", {})):
        maps = ChangeMaps(observation, observation, layers(changed) | more, GRID, "ndvi", "1")
        draw_change_quicklook(maps, tmp_path / f"{name}.png", "t")
    assert has_colour(tmp_path / "with.png", (0xF6, 0xD9, 0x99))
    assert has_colour(tmp_path / "with.png", (0xE6, 0x9F, 0x00))
    assert not has_colour(tmp_path / "without.png", (0xF6, 0xD9, 0x99))


def test_curves_are_drawn_also_for_nothing(tmp_path):
    scores = {"rule": {"pooled": 0.34, "paris": 0.3}, "fused": {"pooled": 0.37, "low": 0.3, "high": 0.4, "paris": float("nan")}}
    draw_f1(scores, "fused", tmp_path / "f1.png", must_beat=0.36)
    draw_f1({"rule": {"pooled": 0.0}}, "another", tmp_path / "f0.png")
    draw_reliability([0.1, 0.5, 0.9], [0.05, float("nan"), 0.8], [100, 0, 3], tmp_path / "r.png")
    draw_reliability([], [], [], tmp_path / "r0.png")
    none = np.full(3, np.nan)
    draw_growth(none, none, np.ones(3), tmp_path / "g0.png", DAY, DAY)
    draw_growth(DAY + np.arange(3.0), DAY + np.arange(3.0) + 30, np.ones(3), tmp_path / "g.png", DAY, DAY + 99)
    assert len(list(tmp_path.iterdir())) == 6  # and no drafts


@pytest.mark.parametrize(
    ("low", "high", "above", "first"),
    [
        (17000.0, 17200.0, "", "2016-08"),
        (17040.0, 17080.0, "2016", "09-01"),
        (17160.0, 17180.0, "2016 to 2017", "12-25"),
        (17040.0, 17040.0, "2016", "08-27"),
        (17040.0, 17040.5, "2016-08-27", "00:00"),
    ],
)
def test_dates_at_a_bar_are_short_and_what_they_share_stands_above(low, high, above, first):
    figure, (axes,) = panels(GRID, 1, 1, "", "", 3.0)
    image = draw_image(axes, np.zeros(GRID.shape_yx), GRID, "viridis", low, max(high, low + 1))
    bar = draw_bar(axes, image, "")
    label_dates(bar, low, high)
    figure.canvas.draw()
    text = [tick.get_text() for tick in bar.ax.get_yticklabels() if low <= tick.get_position()[1] <= max(high, low + 0.1)]
    assert (bar.ax.get_title(loc="right"), text[0]) == (above, first)
    assert max(map(len, text)) <= 7


@pytest.mark.parametrize(
    ("row", "column", "expected"), [(50, 50, (14, 14)), (50, 97, (-14, 14)), (2, 50, (14, -14)), (98, 1, (14, 14))]
)
def test_the_number_of_a_mark_stays_on_the_map(row, column, expected):
    assert _inwards(Marker(row, column, "1"), (100, 100), (14, 14)) == expected
