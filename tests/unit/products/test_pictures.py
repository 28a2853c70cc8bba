import numpy as np
import pytest
from PIL import Image

from pipelines.grid import Grid
from pipelines.products.frames import Frame
from pipelines.products.pictures import Maps, _rows, draw_animation, draw_quicklook, error_frame, flat_widths

GRID = Grid("EPSG:3857", (10.0, 0, 0, 0, -10.0, 300), (30, 40))


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
    maps = Maps(variable, "mm/h", GRID, frames(4), frames(3), truth, frames(3), 0.9)
    draw_quicklook(maps, tmp_path / "one.png", "title", "subtitle")
    unknown = Maps(variable, "", GRID, (), frames(1), (None,))
    draw_quicklook(unknown, tmp_path / "two.png", "title")
    assert size_of(tmp_path / "one.png")[0] > 800
    assert size_of(tmp_path / "two.png")[1] < size_of(tmp_path / "one.png")[1]


def test_rows_say_what_they_leave_out_and_bars_where_values_are_cut_off():
    maps = Maps("ndvi", "1", GRID, frames(4), frames(3), frames(3), tuple(frames(3, 5.0)), 0.9, context_dates=10)
    context, *_, error, width = _rows(maps)
    assert context.title == "Context\n(3 of 10 dates)"
    assert (context.extend, error.extend, width.extend) == ("neither", "both", "both")
    assert error.notes[0] == "MAE 0.000"
    assert width.shades.low > 4.5


def test_the_same_maps_give_the_same_bytes(tmp_path):
    maps = Maps("ndvi", "1", GRID, frames(2), frames(2), (None, None))
    for name in ("a.png", "b.png"):
        draw_quicklook(maps, tmp_path / name, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_maps_that_show_nothing_are_drawn_grey(tmp_path):
    empty = Frame(np.datetime64("2020-01-01", "ns"), np.full((30, 40), np.nan, np.float32))
    draw_quicklook(Maps("ndvi", "1", GRID, (empty,), (empty,), (empty,), (empty,)), tmp_path / "q.png", "t")
    with Image.open(tmp_path / "q.png") as picture:
        assert min(picture.size) > 200


def test_the_animation_holds_every_date(tmp_path):
    maps = Maps("ndvi", "1", GRID, frames(3), frames(2, 0.1), (None, None))
    draw_animation(maps, tmp_path / "a.gif", "t")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0


def test_intervals_that_are_alike_everywhere_are_told_in_words():
    flat = tuple(Frame(frame.date, np.full((3, 3), 0.4, np.float32)) for frame in frames(2))
    assert (
        flat_widths(Maps("a", "", GRID, (), flat, (None, None), flat, interval=0.9))
        == "90 % interval, alike in all pixels shown, half width by date: 0.200, 0.200."
    )
    assert flat_widths(Maps("a", "", GRID, (), flat, (None, None), frames(2))) == ""
    cut = np.full((10, 10), 0.4, np.float32)
    cut[0, :5] = 0.3  # a few pixels whose upper bound would be above 1
    assert (
        flat_widths(Maps("a", "", GRID, (), flat, (None,), (Frame(flat[0].date, cut),)))
        == "Interval, alike in 95 % of the pixels shown, narrower in the others, half width by date: 0.200."
    )


def test_intervals_that_are_wider_in_a_small_part_are_drawn():
    """Such as those of a head in a wide empty field."""
    width = np.full((100, 100), 0.4, np.float32)
    width[40:60, 40:80] = 0.9
    frame = Frame(np.datetime64("2020-01-01", "ns"), width)
    assert flat_widths(Maps("a", "", GRID, (), (frame,), (None,), (frame,))) == ""


def test_error_is_forecast_minus_truth_and_none_where_unknown():
    one, other = frames(1)[0], frames(1, 0.5)[0]
    np.testing.assert_allclose(error_frame(other, one).values_YX, 0.5, atol=1e-6)
    assert error_frame(one, None) is None
    assert error_frame(one, Frame(one.date, np.full_like(one.values_YX, np.nan))) is None
