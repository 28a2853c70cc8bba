"""Rows from the south, columns from the east, rotated grids: pictures, marks and outlines are where the pixels are."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from pipelines.grid import Grid
from pipelines.inference.class_map import ClassMap
from pipelines.products.before_after import ChangeMaps, Observation, draw_change_quicklook
from pipelines.products.canvas import draw_image
from pipelines.products.class_charts import draw_class_map
from pipelines.products.frames import Frame, image_extent, north_text, place_on_map
from pipelines.products.layers import Class
from pipelines.products.pictures import Maps, draw_quicklook
from pipelines.products.polygons import outline_changes
from pipelines.samples.labels import Span

GRID = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), (24, 30))
TURNED = Grid.from_affine("EPSG:32633", Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10), (24, 30))
FLIPS = pytest.mark.parametrize("dims", ["yx"])  # a picture takes a second
DATES = [np.datetime64("2019-07-01", "ns"), np.datetime64("2020-07-01", "ns")]


def flip(values: np.ndarray, dims: str) -> np.ndarray:
    """`values` (y, x, ...) in the opposite order of rows or columns."""
    return np.flip(values, [("y", "x").index(dim) for dim in dims])


def flip_grid(dims: str) -> Grid:
    grid = GRID
    for dim in dims:
        grid = grid.flipped(dim)
    return grid


def changed() -> np.ndarray:
    found = np.zeros(GRID.shape_yx, bool)
    found[2:6, 3:9] = found[14:17, 20:22] = True
    return found


def change_maps(grid: Grid, dims: str) -> ChangeMaps:
    is_changed = changed()
    values = np.random.default_rng(0).random(GRID.shape_yx).astype(np.float32)
    day = np.where(is_changed, 18_262.0 + np.arange(GRID.shape_yx[1]), np.nan)
    layers = {
        "change_day": day, "detected_day": day + 40, "magnitude": np.where(is_changed, -0.3, 0).astype(np.float32),
        "confidence": np.where(is_changed, 0.99, 0.3).astype(np.float32), "direction": -is_changed.astype(np.int8),
        "status": (1 + is_changed).astype(np.uint8),
    }  # fmt: skip
    rows, columns = (np.nonzero(flip(np.arange(side) == at, "y"))[0][0] if dim in dims else at
                     for dim, side, at in (("y", 24, 3), ("x", 30, 4)))  # fmt: skip
    before, after = (Observation(date, flip(values + k, dims), "ndvi") for k, date in enumerate(DATES))
    flipped = {name: flip(layer, dims) for name, layer in layers.items()}
    return ChangeMaps(before, after, flipped, grid, marked=[(int(rows), int(columns))])


def pixels_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as picture:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]


def check_same(one: Path, other: Path) -> None:
    for first, second in zip(pixels_of(one), pixels_of(other), strict=True):
        assert first.std() > 10
        differs = np.abs(first.astype(int) - second).max(axis=-1) > 30  # palettes, and the soft edges of outlines
        assert differs.mean() < 0.002


@FLIPS
def test_change_is_drawn_alike_whatever_the_order_of_rows_and_columns(tmp_path, dims):
    for name, grid, order in (("a", GRID, ""), ("b", flip_grid(dims), dims)):
        draw_change_quicklook(change_maps(grid, order), tmp_path / f"{name}.png", "t")
    check_same(tmp_path / "a.png", tmp_path / "b.png")


@FLIPS
def test_forecasts_are_drawn_alike_whatever_the_order_of_rows_and_columns(tmp_path, dims):
    values = np.random.default_rng(1).random(GRID.shape_yx).astype(np.float32)
    for name, grid, order in (("a", GRID, ""), ("b", flip_grid(dims), dims)):
        frames = tuple(Frame(date, flip(values * (k + 1), order)) for k, date in enumerate(DATES))
        maps = Maps("ndvi", "1", grid, frames, frames, (None, None))
        draw_quicklook(maps, tmp_path / f"{name}.png", "t")
    check_same(tmp_path / "a.png", tmp_path / "b.png")


@FLIPS
def test_class_maps_and_their_labels_are_drawn_alike(tmp_path, dims):
    span = Span(*DATES)
    codes = np.where(changed(), 2, 1).astype(np.uint8)
    classes = [Class(0, "not-observed", "", "#888888"), Class(1, "a", "", "#e69f00"), Class(2, "b", "", "#0072b2")]
    for name, grid, order in (("a", GRID, ""), ("b", flip_grid(dims), dims)):
        class_HW, row, column = flip(codes, order), 23 - 3 if "y" in order else 3, 29 - 4 if "x" in order else 4
        found = ClassMap(span, 5, class_HW, (class_HW / 3).astype(np.float32), np.ones((1, 2)))
        areas = [{"class": "a", "pixels": 1}, {"class": "b", "pixels": 2}]
        draw_class_map(found, classes, np.array([[row, column, 1]]), grid, tmp_path / f"{name}.png", "t", areas)
    check_same(tmp_path / "a.png", tmp_path / "b.png")


def test_the_north_of_a_grid_with_rows_from_the_south_is_above():
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    draw_image(axes, np.zeros(GRID.shape_yx), GRID.flipped("y"))
    south, north = axes.get_ylim()
    assert (south, north) == (2.7e6 - 240, 2.7e6)
    assert image_extent(GRID.flipped("y"))[2:] == (2.7e6, 2.7e6 - 240)  # the last row is the northern one


def test_marks_on_a_rotated_grid_lie_on_their_pixels(tmp_path):
    assert image_extent(TURNED) == pytest.approx((0, 300, 0, 240))
    assert place_on_map(TURNED, 0.5, 0.5) == pytest.approx((5, 235))
    assert north_text(TURNED) == "a rotated grid: north is 30 degrees clockwise of up"
    draw_change_quicklook(change_maps(TURNED, ""), tmp_path / "a.png", "t")
    assert pixels_of(tmp_path / "a.png")[0].std() > 10


@pytest.mark.parametrize(
    "grid", [flip_grid("y"), flip_grid("yx"), TURNED, Grid("EPSG:32633", (0, 10, 5e5, 10, 0, 5e6), (24, 30))]
)
def test_outlines_lie_where_their_pixels_are(grid):
    found = outline_changes(changed(), grid, {})
    corners = grid.to_world([[3, 2], [9, 2], [9, 6], [3, 6]])
    bounds = found.iloc[0].geometry.bounds
    assert bounds == pytest.approx((*corners.min(axis=0), *corners.max(axis=0)))
    assert found.area_m2.iloc[0] == pytest.approx(2400, rel=0.01)
