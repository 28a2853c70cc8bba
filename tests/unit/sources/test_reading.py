"""Reading scenes on the cube's grid: what is copied, resampled, refused and usable, and the content hash."""

import dataclasses

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform
from source_rasters import UTM, ramp, read_slice, shifted, write_tiff

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.fake import FakeSource
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.quality import SclMask, ValueMask
from pipelines.sources.reading import SceneReader, hash_content
from pipelines.sources.resampling import WARP_ROWS, covered, lattice_offset, overlaps


def one_scene(folder, plane=None, grid=UTM, band=None, quality=None, **options):
    write_tiff(folder / "a_20180105.tif", ramp() if plane is None else plane, grid=grid, **options)
    source = FolderSource(folder, BandRequest((band or Band("a", nodata=0),), quality=quality), "{band}_{date:%Y%m%d}.tif")
    return source, source.list_scenes().scenes[0]


def reason_of(source, scene, grid, quality_mask=None, **options) -> str:
    with pytest.raises(SceneRefused) as refusal:
        read_slice(source, quality_mask, scene, grid, **options)
    return refusal.value.reason


def test_a_slice_on_its_own_grid_equals_the_file(tmp_path):
    plane = ramp()
    plane[3, 4] = 0
    source, scene = one_scene(tmp_path, plane)
    found = read_slice(source, None, scene, UTM)
    np.testing.assert_array_equal(found.image_BYX[0], plane)
    np.testing.assert_array_equal(found.valid_YX, plane != 0)
    assert found.content_hash == hash_content(plane[None], plane != 0)
    assert read_slice(source, None, scene, UTM).content_hash == found.content_hash


def test_other_grids_are_refused_without_reprojection(tmp_path):
    source, scene = one_scene(tmp_path)
    other_zone = Grid("EPSG:32634", UTM.transform, UTM.shape_yx)
    half = Grid.from_affine(UTM.crs, UTM.affine @ rasterio.Affine.scale(1.004), UTM.shape_yx)  # a fifth of a pixel at the end
    for grid in (shifted(UTM, 1, 0), shifted(UTM, 0.5, 0), half, UTM.window(slice(0, 39), slice(0, 56))):
        assert reason_of(source, scene, grid) == "wrong-grid"
        read_slice(source, None, scene, grid, on_other_grid="reproject")
    assert reason_of(source, scene, other_zone) == "wrong-crs"
    assert reason_of(source, scene, other_zone, on_other_grid="reproject") == "no-overlap"
    with pytest.raises(SceneRefused, match=r"set cube\.on_other_grid: reproject"):
        read_slice(source, None, scene, other_zone)


def test_aligned_pixels_are_copied(tmp_path):
    source, scene = one_scene(tmp_path)
    found = read_slice(source, None, scene, shifted(UTM, -2, 3), on_other_grid="reproject", resampling="cubic")
    np.testing.assert_array_equal(found.image_BYX[0, :-3, 2:], ramp()[3:, :-2])
    assert not found.valid_YX[-3:].any()
    assert not found.valid_YX[:, :2].any()
    assert found.valid_YX[:-3, 2:].all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
def test_resampling_equals_gdal_within_a_strip(tmp_path, resampling):
    source, scene = one_scene(tmp_path)
    target = Grid.from_affine(UTM.crs, UTM.affine @ rasterio.Affine.translation(3.3, 4.4) @ rasterio.Affine.scale(2), (15, 20))
    expected = np.zeros(target.shape_yx, "uint16")
    reproject(
        ramp(), expected, src_crs=UTM.crs, src_transform=UTM.affine, dst_crs=UTM.crs, dst_transform=target.affine,
        src_nodata=0, dst_nodata=0, resampling=Resampling[resampling],
    )  # fmt: skip
    found = read_slice(source, None, scene, target, on_other_grid="reproject", resampling=resampling)
    np.testing.assert_array_equal(found.image_BYX[0], expected)


def test_nodata_is_never_averaged(tmp_path):
    plane = np.full(UTM.shape_yx, 1000, "uint16")
    plane[::2] = 0
    source, scene = one_scene(tmp_path, plane)
    coarse = Grid.from_affine(UTM.crs, UTM.affine @ rasterio.Affine.scale(4), (10, 14))
    found = read_slice(source, None, scene, coarse, on_other_grid="reproject", resampling="average")
    assert (found.image_BYX == 1000).all()


def test_without_nodata_the_outside_is_not_valid(tmp_path):
    source, scene = one_scene(tmp_path, band=Band("a"))
    found = read_slice(source, None, scene, shifted(UTM, 10, 0), on_other_grid="reproject")
    assert found.valid_YX[:, :-10].all()
    assert not found.valid_YX[:, -10:].any()


def test_floats_use_nan_outside(tmp_path):
    source, scene = one_scene(tmp_path, ramp(dtype="float32"), band=Band("a"))
    found = read_slice(source, None, scene, shifted(UTM, 10.5, 0), on_other_grid="reproject", resampling="bilinear")
    assert np.isnan(found.image_BYX[0, :, -9:]).all()
    assert not found.valid_YX[:, -9:].any()
    assert found.valid_YX[:, :40].all()


def test_strips_equal_rows_of_the_whole_across_zones(tmp_path):
    """GDAL's approximate transformer depends on the window; the strips here are always the same."""
    big = Grid(UTM.crs, UTM.transform, (700, 300))
    plane = (np.random.default_rng(0).integers(1, 60_000, big.shape_yx)).astype("uint16")
    source, scene = one_scene(tmp_path, plane, grid=big)
    target = Grid("EPSG:32634", (13.0, 0.0, 28_000.0, 0.0, -13.0, 5_021_000.0), (WARP_ROWS * 2 + 77, 250))
    options = {"on_other_grid": "reproject", "resampling": "bilinear"}
    whole = read_slice(source, None, scene, target, **options)
    assert 0.1 < whole.valid_YX.mean() <= 1
    for rows in (slice(0, 100), slice(100, 300), slice(300, 589)):
        image, valid, _ = SceneReader(source, None, target, **options).read_rows(scene, rows)
        np.testing.assert_array_equal(image, whole.image_BYX[:, rows])
        np.testing.assert_array_equal(valid, whole.valid_YX[rows])


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("height", [1400, 1100, 1024])
def test_strips_equal_gdal_on_the_whole_image(tmp_path, resampling, height):
    """Grids rotated by the meridian convergence: GDAL alone would blur the strips, as if they were reduced."""
    (left,), (top,) = transform("EPSG:32633", "EPSG:32632", [270_000.0], [5_420_000.0])
    there = Grid("EPSG:32632", (10.0, 0.0, left, 0.0, -10.0, top), (height, 800))
    plane = (np.random.default_rng(0).integers(1, 60_000, there.shape_yx)).astype("uint16")
    source, scene = one_scene(tmp_path, plane, grid=there)
    target = Grid("EPSG:32633", (10.0, 0.0, 270_000.0, 0.0, -10.0, 5_420_000.0), (height, 800))
    found = read_slice(source, None, scene, target, on_other_grid="reproject", resampling=resampling)
    with (
        rasterio.open(tmp_path / "a_20180105.tif") as file,
        WarpedVRT(
            file, crs=target.crs, transform=target.affine, width=800, height=height, resampling=Resampling[resampling],
            src_nodata=0, nodata=0, XSCALE=1, YSCALE=1,
        ) as warped,
    ):  # fmt: skip
        expected = warped.read(1)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_array_equal(found.image_BYX[0], expected)


def test_a_file_is_opened_once_for_a_slice(tmp_path, monkeypatch):
    source, scene = one_scene(tmp_path)
    read_slice(source, None, scene, UTM)
    opened, really_open = [], rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, **options: opened.append(path) or really_open(path, **options))
    read_slice(source, None, scene, UTM)
    assert len(opened) == 1
    read_slice(source, None, scene, UTM)
    assert len(opened) == 2, "files are closed and not cached after a slice"


def test_valid_range_and_all_nodata(tmp_path):
    source, scene = one_scene(tmp_path, band=Band("a", nodata=0, valid_range=(10, 20)))
    assert read_slice(source, None, scene, UTM).valid_YX.sum() == 11
    source, scene = one_scene(tmp_path, np.zeros(UTM.shape_yx, "uint16"))
    assert reason_of(source, scene, UTM) == "all-nodata"


def test_cloud_distance_extends_across_strips():
    source = FakeSource(dates=4)
    quality_mask, grid = SclMask((4, 5), away_px=3), source.native_grid()
    for scene in source.list_scenes().scenes:
        whole = read_slice(source, quality_mask, scene, grid).valid_YX
        strips = [SceneReader(source, quality_mask, grid).read_rows(scene, slice(row, row + 5))[1] for row in range(0, 40, 5)]
        np.testing.assert_array_equal(np.concatenate(strips), whole)
    assert not whole.all()


def test_a_coarser_quality_band_is_resampled_with_nearest(tmp_path):
    coarse = Grid.from_affine(UTM.crs, UTM.affine @ rasterio.Affine.scale(2), (20, 28))
    mask = np.ones(coarse.shape_yx, "uint8")
    mask[5, 6] = 0
    write_tiff(tmp_path / "q_20180105.tif", mask, grid=coarse)
    source, scene = one_scene(tmp_path, quality="q")
    valid = read_slice(source, ValueMask("q"), scene, UTM, resampling="bilinear").valid_YX
    expected = np.ones(UTM.shape_yx, bool)
    expected[10:12, 12:14] = False
    np.testing.assert_array_equal(valid, expected)
    write_tiff(tmp_path / "q_20180105.tif", mask, grid=shifted(coarse, 4, 0))
    assert reason_of(source, scene, UTM, ValueMask("q")) == "wrong-grid"
    far = read_slice(source, ValueMask("q"), scene, UTM, on_other_grid="reproject").valid_YX
    assert not far[:, :8].any()


def test_a_mosaic_uses_the_first_valid_pixel_then_the_first_with_data(tmp_path):
    first, second = np.full(UTM.shape_yx, 10, "uint16"), np.full(UTM.shape_yx, 20, "uint16")
    mask_first, mask_second = np.ones(UTM.shape_yx, "uint8"), np.ones(UTM.shape_yx, "uint8")
    first[:, :10] = 0
    mask_first[:5], mask_second[:2] = 0, 0
    for tile, plane, mask in (("T1", first, mask_first), ("T2", second, mask_second)):
        write_tiff(tmp_path / f"{tile}_a_20180105.tif", plane)
        write_tiff(tmp_path / f"{tile}_q_20180105.tif", mask)
    requested = BandRequest((Band("a", nodata=0),), quality="q")
    source = FolderSource(tmp_path, requested, "*_{band}_{date:%Y%m%d}.tif", same_date="mosaic")
    (scene,) = source.list_scenes().scenes
    found = read_slice(source, ValueMask("q"), scene, UTM)
    expected = np.full(UTM.shape_yx, 10)
    expected[2:5], expected[:, :10] = 20, 20
    np.testing.assert_array_equal(found.image_BYX[0], expected)
    np.testing.assert_array_equal(found.valid_YX[:2].any(), False)
    assert found.valid_YX[2:].all()
    (tmp_path / "T2_a_20180105.tif").write_bytes(b"")
    with pytest.raises(SceneRefused, match="mosaic_20180105: truncated: T2_20180105"):
        read_slice(source, ValueMask("q"), scene, UTM)


def test_the_hash_covers_pixels_mask_shape_and_dtype():
    image, valid = np.zeros((1, 2, 3), "uint16"), np.ones((2, 3), bool)
    hashes = {
        hash_content(image, valid),
        hash_content(image + np.uint16(1), valid),
        hash_content(image, ~valid),
        hash_content(image.astype("int16"), valid),
        hash_content(image.reshape(1, 3, 2), valid.reshape(3, 2)),
    }
    assert len(hashes) == 5


def test_lattice_offset_and_coverage():
    assert lattice_offset(UTM, shifted(UTM, -4, 7)) == (7, -4)
    assert lattice_offset(UTM, shifted(UTM, 0.01, 0)) is None
    assert lattice_offset(UTM, dataclasses.replace(UTM, frame="EPSG:32634")) is None
    np.testing.assert_array_equal(covered(UTM, shifted(UTM, 50.4, 0), slice(0, 1))[0], np.arange(56) < 6)


def test_an_engineering_crs_overlaps_nothing():
    assert not overlaps(dataclasses.replace(UTM, frame='LOCAL_CS["pixels",UNIT["metre",1]]'), UTM)
