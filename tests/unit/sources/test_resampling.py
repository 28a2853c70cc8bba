"""Warps of layers with masks or several missing values: from the window that a strip needs, equal to those of the whole layer."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from pipelines.grid import Grid
from pipelines.sources import resampling as module
from pipelines.sources.facts import FileFacts
from pipelines.sources.resampling import resample, source_window, warp_scale

(LEFT,), (TOP,) = transform("EPSG:32633", "EPSG:32632", [270_000.0], [5_420_000.0])
SOURCE = Grid("EPSG:32632", (10.0, 0.0, LEFT, 0.0, -10.0, TOP), (1500, 700))  # rotated against the target by 4.5 degrees
TARGET = Grid("EPSG:32633", (10.0, 0.0, 270_000.0, 0.0, -10.0, 5_420_000.0), (1500, 700))
VALUES = np.random.default_rng(0).integers(1, 60_000, SOURCE.shape_yx).astype("uint16")
VALUES[VALUES % 7 == 0] = 7


class Counting:
    """A layer with a mask that counts the pixels that are read of it."""

    grid = SOURCE
    facts = FileFacts(VALUES.dtype, SOURCE, nodata=(0.0, 7.0), mask="mask band")

    def __init__(self) -> None:
        self.read_px = 0

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        self.read_px += VALUES[rows, columns].size
        return VALUES[rows, columns]

    def masked(self, rows: slice, columns: slice) -> np.ndarray:
        return MASKED[rows, columns]


MASKED = (VALUES % 2 == 0) & (np.arange(SOURCE.shape_yx[1]) % 2 == 1)
WHOLE = slice(0, TARGET.shape_yx[0])


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_masked_layers_are_warped_as_gdal_warps_the_whole(resampling):
    stand_in = np.iinfo("int32").min
    wide = np.where(MASKED | (VALUES == 7), stand_in, VALUES.astype("int32"))
    expected = np.full(TARGET.shape_yx, stand_in, "int32")
    reproject(
        wide, expected, src_crs=SOURCE.crs, src_transform=SOURCE.affine, dst_crs=TARGET.crs, dst_transform=TARGET.affine,
        src_nodata=stand_in, dst_nodata=stand_in, resampling=Resampling[resampling], **warp_scale(SOURCE, TARGET),
    )  # fmt: skip
    found = resample(Counting(), Counting.facts, TARGET, WHOLE, resampling)
    assert 0.1 < found.mask.mean() < 0.6
    np.testing.assert_array_equal(found.mask, expected == stand_in)
    np.testing.assert_array_equal(found.compressed(), expected[expected != stand_in])


@functools.cache
def masked(start: int, stop: int, most_px: int) -> np.ma.MaskedArray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_WINDOW_PX", most_px)
        return resample(Counting(), Counting.facts, TARGET, slice(start, stop), "bilinear")


@pytest.mark.parametrize("most_px", [10**5, 10**7])
@settings(max_examples=6, deadline=None)
@given(start=st.integers(0, 1499), size=st.integers(1, 600))
def test_strips_of_masked_layers_equal_the_whole(most_px, start, size):
    rows = slice(start, min(start + size, 1500))
    whole, part = masked(0, 1500, most_px), masked(rows.start, rows.stop, most_px)
    np.testing.assert_array_equal(part.mask, whole.mask[rows])
    np.testing.assert_array_equal(part.data, whole.data[rows])


def test_a_strip_reads_its_window_only():
    layer = Counting()
    resample(layer, layer.facts, TARGET, slice(600, 700), "bilinear")
    assert layer.read_px < 0.5 * VALUES.size
    elsewhere = Grid(TARGET.crs, (10.0, 0.0, 900_000.0, 0.0, -10.0, 5_420_000.0), (300, 300))
    layer = Counting()
    assert resample(layer, layer.facts, elsewhere, slice(0, 300), "bilinear").mask.all()
    assert layer.read_px == 0


GLOBE = Grid("EPSG:4326", (0.25, 0.0, -180.0, 0.0, -0.25, 90.0), (720, 1440))
METRES = st.integers(-4_000_000, 4_000_000)


@settings(max_examples=60, deadline=None)
@given(left=METRES, top=METRES, crs=st.sampled_from(["EPSG:3413", "EPSG:3857", "EPSG:3832"]), size=st.integers(20, 400))
def test_no_pixel_lies_outside_the_window(left, top, crs, size):
    """Across the pole (3413) and the antimeridian (3832 is centred near it), too."""
    target = Grid(crs, (9_000.0, 0.0, float(left), 0.0, -9_000.0, float(top)), (size, size))
    rows, columns = source_window(GLOBE, target, 1)
    x, y = target.affine @ np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    column, row = ~GLOBE.affine @ Transformer.from_crs(target.wkt, GLOBE.wkt, always_xy=True).transform(x, y)
    for at, window, length in ((row, rows, 720), (column, columns, 1440)):
        inside = at[(at >= 0) & (at < length)]
        assert ((inside >= window.start) & (inside < window.stop)).all()
