import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipelines.products.track_plot import COLOURS, OTHER, THERE, _draw_positions, _strung, draw_tracks, size_scale
from pipelines.tracking.objects import Space
from pipelines.tracking.table import as_tables
from pipelines.tracking.tracks import track_objects


def colours_in(path):
    with Image.open(path) as picture:
        return {tuple(pixel) for pixel in np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)}


def as_rgb(colour):
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


def test_volumes_in_steps_are_drawn(tmp_path):
    masks = np.zeros((3, 5, 20, 20), bool)
    masks[:, 1:3, 2:6, 2:6] = masks[1:, 2:4, 12:16, 12:14] = True
    masks[2, 1:3, 2:6, 2:6] = False  # gone
    space = Space.of_spacing((3.0, 0.5, 0.5))
    objects, events, _ = as_tables(track_objects(masks, [0.0, 1.0, 2.0], space), space)
    draw_tracks(objects, events, space, tmp_path / "a.png", "Lesions", backdrop_YX=masks.any(axis=1).sum(axis=0))
    found = colours_in(tmp_path / "a.png")
    assert {as_rgb(COLOURS[0]), as_rgb(COLOURS[1])} <= found
    assert as_rgb(COLOURS[2]) not in found  # two tracks, two colours
    draw_tracks(objects, events, space, tmp_path / "b.png", "Lesions", backdrop_YX=masks.any(axis=1).sum(axis=0))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_more_tracks_than_colours_leave_the_small_ones_grey(tmp_path):
    masks = np.zeros((2, 60, 60), bool)
    for k in range(11):
        masks[:, 5 * k : 5 * k + 3, 2 : 8 + 4 * k] = True
    space = Space.of_spacing((1.0, 1.0))
    dates = [np.datetime64("2020-01-01"), np.datetime64("2020-02-01")]
    objects, events, _ = as_tables(track_objects(masks, dates, space), space)
    draw_tracks(objects, events, space, tmp_path / "a.png", "Many")
    assert {as_rgb(colour) for colour in COLOURS} <= colours_in(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("largest", "unit", "power", "scale"),
    [
        (900.0, "m", "²", (1.0, "m²")),
        (2.5e4, "m", "²", (1e-4, "ha")),
        (5e7, "m", "²", (1e-6, "km²")),
        (5e4, "mm", "³", (1e-3, "ml")),
        (5e4, "mm", "²", (1.0, "mm²")),
    ],
)
def test_the_axis_has_short_numbers(largest, unit, power, scale):
    assert size_scale(largest, unit, power) == scale


def test_thousands_of_small_tracks_are_a_few_lines(tmp_path, monkeypatch):
    masks = np.zeros((2, 80, 80), bool)
    masks[:, ::4, ::4] = True
    space = Space.of_spacing((1.0, 1.0))
    objects, events, _ = as_tables(track_objects(masks, [0.0, 1.0], space), space)
    assert objects.track_id.nunique() == 400
    drawn = []
    monkeypatch.setattr("pipelines.products.canvas.save_figure", lambda figure, path: drawn.append(figure))
    draw_tracks(objects, events, space, tmp_path / "a.png", "Specks")
    assert max(len(axes.lines) for axes in drawn[0].axes) <= 3 * (len(COLOURS) + 1)
    grey = next(line for line in drawn[0].axes[0].lines if line.get_color() == OTHER)
    assert len(grey.get_xdata()) == 3 * (400 - len(COLOURS)) - 1  # two dates and a gap for each track


def test_a_line_has_a_gap_between_two_tracks():
    dates = np.array(["2020-01-01", "2020-01-02", "2020-01-01"], "datetime64[ns]")
    x, y = _strung(pd.DataFrame({"track_id": [3, 3, 7], "date": dates, "size": [1, 2, 5]}), "date", "size")
    np.testing.assert_array_equal(y, [1, 2, np.nan, 5])
    np.testing.assert_array_equal(x, np.array(["2020-01-01", "2020-01-02", "NaT", "2020-01-01"], "datetime64[ns]"))


def test_what_was_there_on_one_date_only_is_not_white(tmp_path):
    low, high = (tuple(round(255 * part) for part in THERE(at)[:3]) for at in (1 / 9, 1.0))
    assert max(low) < 225
    assert max(high) < max(low) - 40


def test_places_are_in_metres_from_the_corner_of_the_raster():
    masks = np.zeros((2, 30, 60), bool)
    masks[:, 4:8, 20:30] = True
    space = Space.of_spacing((2.0, 0.5))
    objects, _, _ = as_tables(track_objects(masks, [0.0, 1.0], space), space)
    axes = Figure().subplots()
    _draw_positions(axes, objects, space, {}, masks.sum(axis=0))
    assert axes.get_xlabel() == "mm from the left edge of the raster"
    assert axes.get_ylabel() == "mm from the upper edge of the raster"
    assert tuple(axes.images[0].get_extent()) == (0, 30, 60, 0)
    x, y = axes.lines[-1].get_data()
    assert (float(x[-1]), float(y[-1])) == (12.5, 12.0), "the centre of the box, in mm"
    assert axes.get_aspect() == 1.0
