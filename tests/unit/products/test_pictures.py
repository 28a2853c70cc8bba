import numpy as np
import pytest
from PIL import Image

from pipelines.products.curves import draw_blocks, draw_coverage, draw_errors, draw_skill
from pipelines.products.frames import Frame, Shades, extent_of, shades_for, step_for, thin
from pipelines.products.pictures import Maps, day, draw_animation, draw_quicklook, error_frame, flat_widths, round_length
from pipelines.tiles import Tile


def frames(count: int, offset: float = 0.0, shape=(30, 40)) -> tuple[Frame, ...]:
    rng = np.random.default_rng(0)
    start = np.datetime64("2020-01-01", "ns")
    return tuple(
        Frame(start + k * np.timedelta64(10, "D"), (rng.random(shape) + offset).astype(np.float32)) for k in range(count)
    )


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("variable", ["ndvi", "rain", "difference"])
def test_a_quicklook_is_drawn_with_and_without_truth(tmp_path, variable):
    truth = (*frames(2), None)
    maps = Maps(variable, "mm/h", frames(4), frames(3), truth, frames(3), (0, 400, 0, 300), "EPSG:3857", "m", 0.9)
    draw_quicklook(maps, tmp_path / "one.png", "title", "subtitle")
    unknown = Maps(variable, "", (), frames(1), (None,), (), (0, 400, 0, 300))
    draw_quicklook(unknown, tmp_path / "two.png", "title")
    assert size_of(tmp_path / "one.png")[0] > 800
    assert size_of(tmp_path / "two.png")[1] < size_of(tmp_path / "one.png")[1]


def test_the_same_maps_give_the_same_bytes(tmp_path):
    maps = Maps("ndvi", "1", frames(2), frames(2), (None, None), (), (0, 400, 0, 300))
    for name in ("a.png", "b.png"):
        draw_quicklook(maps, tmp_path / name, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_maps_that_show_nothing_are_drawn_grey(tmp_path):
    empty = Frame(np.datetime64("2020-01-01", "ns"), np.full((30, 40), np.nan, np.float32))
    draw_quicklook(Maps("ndvi", "1", (empty,), (empty,), (empty,), (empty,), (0, 4, 0, 3)), tmp_path / "q.png", "t")
    with Image.open(tmp_path / "q.png") as picture:
        assert min(picture.size) > 200


def test_the_animation_holds_every_date(tmp_path):
    maps = Maps("ndvi", "1", frames(3), frames(2, 0.1), (None, None), (), (0, 400, 0, 300))
    draw_animation(maps, tmp_path / "a.gif", "t")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0


def test_intervals_that_are_alike_everywhere_are_told_in_words():
    flat = tuple(Frame(frame.date, np.full((3, 3), 0.4, np.float32)) for frame in frames(2))
    assert flat_widths(Maps("a", "", (), flat, (None, None), flat, interval=0.9)) == "90% interval, half width by date: 0.2, 0.2."
    assert flat_widths(Maps("a", "", (), flat, (None, None), frames(2))) == ""
    cut = np.full((10, 10), 0.4, np.float32)
    cut[0, :5] = 0.3  # a few pixels whose upper bound would be above 1
    assert flat_widths(Maps("a", "", (), flat, (None,), (Frame(flat[0].date, cut),))) == "Interval, half width by date: 0.2."


def test_error_is_forecast_minus_truth_and_none_where_unknown():
    one, other = frames(1)[0], frames(1, 0.5)[0]
    np.testing.assert_allclose(error_frame(other, one).values_YX, 0.5, atol=1e-6)
    assert error_frame(one, None) is None
    assert error_frame(one, Frame(one.date, np.full_like(one.values_YX, np.nan))) is None


def test_colours_fit_the_variable():
    assert shades_for("ndvi", list(frames(1))).colours == "YlGn"
    assert shades_for("rain", list(frames(1))) == Shades("YlGnBu", 0.0, shades_for("x", list(frames(1))).high)
    assert shades_for("temperature", list(frames(1))).colours == "viridis"
    signed = shades_for("anomaly", list(frames(1, -0.5)))
    assert signed.colours == "BrBG"
    assert signed.low == -signed.high


def test_large_fields_are_thinned(make_staged):
    staged, grid = make_staged((40, 60))
    small = thin(staged, staged.fields[0], 20)
    assert small.shape == (14, 20)
    np.testing.assert_array_equal(small, staged.read(staged.fields[0], slice(None))[::3, ::3])
    assert step_for((700, 10)) == 1
    assert extent_of(grid) == (500000.0, 500600.0, 4999600.0, 5000000.0)


@pytest.mark.parametrize(("most", "length"), [(333, 200), (0.9, 0.5), (1000, 1000), (7, 5)])
def test_scale_bars_have_round_lengths(most, length):
    assert round_length(most) == pytest.approx(length)


def test_dates_show_the_time_of_day_where_there_is_one():
    assert day(np.datetime64("2020-01-01", "ns")) == "2020-01-01"
    assert day(np.datetime64("2020-01-01T10:05", "ns")) == "2020-01-01 10:05"


def test_curves_are_drawn_and_gaps_are_allowed(tmp_path, evaluation):
    evaluation["metrics"]["persistence"]["by_lead"][1]["ssim"] = None
    evaluation["skill"]["persistence"]["by_lead"][1].update(skill=None, low=None, high=None)
    draw_errors(evaluation, tmp_path / "e.png")
    draw_skill(evaluation, tmp_path / "s.png")
    draw_coverage(evaluation["intervals"], tmp_path / "c.png")
    draw_blocks([(Tile(0, 5, 0, 5), "train"), (Tile(5, 10, 0, 5), "test")], (10, 5), tmp_path / "b.png")
    assert all(size_of(tmp_path / name)[0] > 300 for name in ("e.png", "s.png", "c.png", "b.png"))
