import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pipelines.grid import Grid
from pipelines.products.canvas import (
    aspect_of,
    colour_limits,
    day,
    draw_bar,
    draw_image,
    draw_legend,
    label_dates,
    metres_per_unit,
    outline,
    panels,
    round_length,
    stretch_colours,
)  # fmt: skip

SHAPE = (24, 30)
GRID = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), SHAPE)


def colours(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).random((*SHAPE, 3)).astype(np.float32) * 0.2
    image[:3, :3] = np.nan
    return image


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


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_legend_stays_on_the_figure(count):
    figure, axes = panels(GRID, 2, 3, "", "", 3.3)
    draw_legend(axes[2], [("#f6d999", "decrease, recovered 14.0%")] * count)
    figure.dpi = 130  # as the file is written
    FigureCanvasAgg(figure).draw()
    assert axes[2].get_legend().get_window_extent().x1 <= figure.bbox.x1
    assert len(axes[2].get_legend().get_texts()) == count


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


@pytest.mark.parametrize(("most", "length"), [(333, 200), (0.9, 0.5), (1000, 1000), (7, 5)])
def test_scale_bars_have_round_lengths(most, length):
    assert round_length(most) == pytest.approx(length)


def test_dates_show_the_time_of_day_where_there_is_one():
    assert day(np.datetime64("2020-01-01", "ns")) == "2020-01-01"
    assert day(np.datetime64("2020-01-01T10:05", "ns")) == "2020-01-01 10:05"
