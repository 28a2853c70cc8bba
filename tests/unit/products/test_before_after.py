from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image, ImageSequence

from pipelines.change.metrics import Counts
from pipelines.grid import Grid
from pipelines.products.before_after import (
    MOST_FRAMES,
    ChangeMaps,
    Observation,
    PairMaps,
    _draw_scored,
    _draw_size,
    _inwards,
    draw_change_animation,
    draw_change_quicklook,
    draw_pair_quicklook,
    frame_days,
)  # fmt: skip
from pipelines.products.canvas import panels

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
        marked=[(8, 9)],
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
        maps = ChangeMaps(Observation(BEFORE, seen, "ndvi", "1"), Observation(AFTER, seen, "ndvi", "1"), nothing, GRID)
        draw_change_quicklook(maps, tmp_path / f"{number}.png", "nothing")
        assert not has_colour(tmp_path / f"{number}.png", (0xE6, 0x9F, 0x00))


def test_a_pair_shows_hits_misses_and_false_alarms(tmp_path):
    truth, mask = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[5:10, 5:10], mask[5:10, 8:14], mask[0, :5], truth[20, 20] = 1, 1, 255, 255
    maps = PairMaps(
        Observation(BEFORE, colours()), Observation(AFTER, colours(1)), mask.astype(np.float32), mask, GRID, truth=truth
    )
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
    maps = PairMaps(
        Observation(BEFORE, colours()), Observation(AFTER, colours(1)), mask.astype(np.float32), mask, GRID, truth=truth
    )
    assert scored_title(maps) == "F1 0.00   precision –   recall 0.00"
    whole = replace(maps, counts=Counts(true_changed=2, false_changed=1, missed=3))
    assert scored_title(whole) == "F1 0.50   precision 0.67   recall 0.40"


def test_the_legend_of_a_pair_names_its_ground():
    mask = np.zeros(GRID.shape_yx, np.uint8)
    truth = np.where(np.arange(SHAPE[1]) < 5, 255, mask).astype(np.uint8)
    maps = PairMaps(Observation(BEFORE, colours()), Observation(AFTER, colours(1)), mask * 1.0, mask, GRID, truth=truth)
    assert [text.get_text() for text in scored(maps).get_legend().get_texts()][-2:] == ["unchanged", "not observed"]


def scored_title(maps: PairMaps) -> str:
    return scored(maps).get_title(loc="right")


def scored(maps: PairMaps) -> Axes:
    _, (axes,) = panels(GRID, 1, 1, "a", "", 3.0)
    assert maps.truth is not None
    _draw_scored(axes, maps, maps.truth)
    return axes


@pytest.mark.parametrize(("sizes", "limits"), [((-0.3, -0.1), (-0.3, 0)), ((0.1, 0.3), (0, 0.3)), ((-0.3, 0.1), (-0.3, 0.3))])
def test_changes_of_one_sign_have_all_colours(sizes, limits):
    changed = np.zeros(SHAPE, bool)
    changed[0, :2] = True
    given = layers(changed)
    given["magnitude"][0, :2] = sizes
    _, (axes,) = panels(GRID, 1, 1, "a", "", 3.0)
    observation = Observation(AFTER, colours())
    _draw_size(axes, ChangeMaps(observation, observation, given, GRID))
    assert axes.images[-1].get_clim() == pytest.approx(limits, abs=0.01)


def test_the_animation_grows_and_ends_whole(tmp_path):
    grown = np.zeros(SHAPE, bool)
    grown[5:12, 6:8] = True
    maps = ChangeMaps(Observation(BEFORE, colours()), Observation(AFTER, colours(1)), layers(grown), GRID)
    draw_change_animation(maps, tmp_path / "a.gif", "t", DAY, DAY + 200)
    with Image.open(tmp_path / "a.gif") as gif:
        assert sum(1 for _ in ImageSequence.Iterator(gif)) == 4  # the beginning, two alarms and the end
    draw_change_animation(ChangeMaps(maps.before, maps.after, layers(), GRID), tmp_path / "c.gif", "t", DAY, DAY + 9)
    assert (tmp_path / "c.gif").stat().st_size > 0


def test_an_animation_has_a_bounded_number_of_frames():
    assert list(frame_days(np.array([[np.nan, 3.0], [5.0, 3.0]]), 1.0, 9.0)) == [1, 3, 5, 9]
    many = frame_days(np.arange(1000.0), 0.0, 999.0)
    assert (many.size, many[0], many[-1]) == (MOST_FRAMES, 0, 999)


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
        maps = ChangeMaps(observation, observation, layers(changed) | more, GRID)
        draw_change_quicklook(maps, tmp_path / f"{name}.png", "t")
    assert has_colour(tmp_path / "with.png", (0xF6, 0xD9, 0x99))
    assert has_colour(tmp_path / "with.png", (0xE6, 0x9F, 0x00))
    assert not has_colour(tmp_path / "without.png", (0xF6, 0xD9, 0x99))


@pytest.mark.parametrize(
    ("row", "column", "expected"), [(50, 50, (14, 14)), (50, 97, (-14, 14)), (2, 50, (14, -14)), (98, 1, (14, 14))]
)
def test_the_number_of_a_mark_stays_on_the_map(row, column, expected):
    assert _inwards(column / 100, row / 100, 1) == expected
