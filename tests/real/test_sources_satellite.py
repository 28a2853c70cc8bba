"""Every kind of source on real series, against values read independently."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
import yaml

from configs.tasks.forecast import ForecastRun
from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.proposal import propose_run
from pipelines.sources.quality import LandsatMask, SclMask
from pipelines.sources.reading import SceneReader
from pipelines.sources.series import NetcdfSource, StackSource

RADAR_CRS = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +units=m"


def bands(*names: str, **meaning) -> tuple[Band, ...]:
    return tuple(Band(name, **meaning) for name in names)


@pytest.mark.parametrize(("size", "names"), [("10m", ("B2", "B3", "B4", "B8")), ("20m", ("B3", "B4", "B8A", "B11"))])
def test_sentinel2_cube(shared_data, size, names):
    path = shared_data(f"satellite/sentinel2-romania/sentinel2_cube_subset_romania_{size}.nc")
    source = NetcdfSource(path, BandRequest(bands(*names, scale=1e-4), quality="SCL"))
    scenes = source.list_scenes().scenes
    grid = source.native_grid()
    assert len(scenes) == 140
    assert (grid.crs, source.dtype(), source.bands[0].nodata) == ("EPSG:3035", np.dtype("uint16"), 0)
    with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as cube:
        np.testing.assert_array_equal([scene.observed_utc for scene in scenes], cube.time.values)
        np.testing.assert_allclose(grid.centres("x"), cube.x, rtol=0, atol=1e-6)
        np.testing.assert_allclose(grid.centres("y"), cube.y, rtol=0, atol=1e-6)
        for index in (0, 71, 139):
            found = SceneReader(source, SclMask((4, 5)), grid).read(scenes[index])
            expected = np.stack([cube[name].values[index] for name in names])
            np.testing.assert_array_equal(found.image_BYX, expected)
            usable = np.isin(cube.SCL.values[index], (4, 5)) & (expected != 0).all(axis=0)
            np.testing.assert_array_equal(found.valid_YX, usable)


def test_modis_by_date_is_signed(shared_data):
    folder = shared_data("satellite/modis-sinop-by-date")
    requested = BandRequest(bands("NDVI", "EVI", scale=1e-4, valid_range=(-2000, 10000)), read_as="int16")
    source = FolderSource(folder, requested, "TERRA_MODIS_{band}_{date:%Y-%m-%d}.jp2")
    listing = source.list_scenes()
    assert (len(listing.scenes), listing.refused, source.dtype()) == (23, [], np.dtype("int16"))
    lowest = min(int(SceneReader(source, None, source.native_grid()).read(s).image_BYX.min()) for s in listing.scenes[:12])
    assert -2000 <= lowest < 0
    with rasterio.open(folder / "TERRA_MODIS_EVI_2013-11-01.jp2") as file:
        expected = file.read(1).astype(np.int64)
    found = source.read(listing.scenes[3], source.native_grid(), ("EVI",), "nearest")[0]
    np.testing.assert_array_equal(found, np.where(expected > 32767, expected - 65536, expected))


def test_radar_netherlands(shared_data):
    folder = shared_data("satellite/radar-netherlands")
    requested = BandRequest(bands("rain", scale=0.01, nodata=65535), crs=RADAR_CRS, transform=(1000, 0, 0, 0, -1000, -3650000))
    source = FolderSource(folder, requested, "RAD_NL25_RAP_5min_{date:%Y%m%d%H%M}.h5", variable="image1/image_data")
    scenes = source.list_scenes().scenes
    assert len(scenes) == 60
    assert scenes[1].observed_utc - scenes[0].observed_utc == np.timedelta64(5, "m")
    found = SceneReader(source, None, source.native_grid()).read(scenes[30])
    with h5py.File(next(folder.glob("*201008260230.h5"))) as file:
        expected = file["image1/image_data"][:]
        corners = file["geographic"].attrs["geo_product_corners"]
    np.testing.assert_array_equal(found.image_BYX[0], expected)
    np.testing.assert_array_equal(found.valid_YX, expected != 65535)
    left, bottom, *_ = source.native_grid().bounds_xy
    lon, lat = rasterio.warp.transform(RADAR_CRS, "EPSG:4326", [left], [bottom])
    np.testing.assert_allclose([lon[0], lat[0]], corners[:2], atol=2e-3)
    utm = Grid("EPSG:32631", (2000.0, 0.0, 400_000.0, 0.0, -2000.0, 5_900_000.0), (300, 200))
    warped = SceneReader(source, None, utm, on_other_grid="reproject").read(scenes[30])
    strip = SceneReader(source, None, utm, on_other_grid="reproject").read_rows(scenes[30], slice(200, 300))
    np.testing.assert_array_equal(strip[0], warped.image_BYX[:, 200:])
    assert 0.3 < warped.valid_YX.mean() < 1


def test_radar_finland_ignores_the_blank_overviews(shared_data):
    folder = shared_data("satellite/radar-finland")
    source = FolderSource(folder, BandRequest(bands("dbz", scale=0.5, offset=-32, nodata=255)), "{date:%Y%m%d%H%M}_FINUTM.tif")
    scene = source.list_scenes().scenes[0]
    native = source.native_grid()
    assert native.crs == "EPSG:3067"
    coarse = Grid(native.crs, tuple(v * (8 if i in (0, 4) else 1) for i, v in enumerate(native.transform)), (914, 620))
    found = SceneReader(source, None, coarse, on_other_grid="reproject", resampling="average").read(scene)
    fine = source.read(scene, native, ("dbz",), "nearest", slice(0, 914 * 8))[0][:, : 620 * 8].astype(float)
    fine[fine == 255] = np.nan
    blocks = fine.reshape(914, 8, 620, 8)
    is_whole = np.isfinite(blocks).all(axis=(1, 3))
    expected = blocks.mean(axis=(1, 3))
    assert found.image_BYX[0][is_whole].max() > 50
    assert np.abs(found.image_BYX[0][is_whole] - expected[is_whole]).max() <= 1


def test_landsat_scenes_of_several_paths_make_mosaics(shared_data):
    folder = shared_data("satellite/landsat8-new-york")
    pattern = "*/LC08_L1TP_*_{date:%Y%m%d}_{band}.TIF"
    requested = BandRequest(bands("B4", "B5", nodata=0), quality="BQA")
    alone = FolderSource(folder, requested, pattern)
    listing = alone.list_scenes()
    assert (len(listing.scenes), [refusal.reason for refusal in listing.refused]) == (17, ["duplicate-date"] * 2)
    with pytest.raises(SceneRefused, match="wrong-grid"):
        SceneReader(alone, LandsatMask(1, band="BQA"), alone.native_grid()).read(listing.scenes[1])
    source = FolderSource(folder, requested, pattern, same_date="mosaic")
    grid = Grid("EPSG:32618", (3000.0, 0.0, 390_000.0, 0.0, -3000.0, 4_743_000.0), (135, 125))
    rule = LandsatMask(1, band="BQA")
    scene = next(scene for scene in source.list_scenes().scenes if len(scene.parts) == 2)
    whole = SceneReader(source, rule, grid, on_other_grid="reproject").read(scene)
    parts = [SceneReader(source, rule, grid, on_other_grid="reproject").read(part) for part in scene.parts]
    np.testing.assert_array_equal(whole.valid_YX, parts[0].valid_YX | parts[1].valid_YX)
    np.testing.assert_array_equal(whole.image_BYX[:, parts[0].valid_YX], parts[0].image_BYX[:, parts[0].valid_YX])
    assert whole.valid_YX.sum() > max(part.valid_YX.sum() for part in parts)


@pytest.mark.parametrize(
    ("folder", "dates", "files", "count", "first"),
    [
        ("modis-sinop-17-years", "mod13Q1-timeline-2000-2017.csv", "sinop-crop-{}.tif", 392, "2000-02-18"),
        ("modis-porto-dos-gauchos", "timeline", "{}.tif", 137, "2007-09-14"),
    ],
)
def test_modis_stacks(shared_data, folder, dates, files, count, first):
    path = shared_data(f"satellite/{folder}")
    names = ("ndvi", "evi")
    source = StackSource(path, BandRequest(bands(*names)), {name: files.format(name) for name in names}, dates)
    scenes = source.list_scenes().scenes
    assert (len(scenes), str(scenes[0].observed_utc)[:10]) == (count, first)
    found = SceneReader(source, None, source.native_grid()).read(scenes[100])
    for name, plane in zip(names, found.image_BYX, strict=True):
        with rasterio.open(path / files.format(name)) as file:
            np.testing.assert_array_equal(plane, file.read(101))
            assert source.bands[0].nodata == file.nodata


@pytest.mark.parametrize(
    ("place", "kind", "variable"),
    [
        ("sentinel2-romania", "netcdf", "ndvi"),
        ("sentinel2-romania/sentinel2_subset.nc", "netcdf", "ndvi"),
        ("modis-sinop-by-date", "folder", "ndvi"),
        ("radar-netherlands", "folder", "rain"),
        ("radar-finland", "folder", "b1"),
        ("landsat8-new-york", "folder", "ndvi"),
        ("modis-sinop-17-years", "stack", "ndvi"),
        ("modis-porto-dos-gauchos", "stack", "ndvi"),
    ],
)
def test_a_proposed_run_loads_and_its_source_reads(shared_data, place, kind, variable):
    from configs.build import build_quality_mask, build_source

    path = shared_data(f"satellite/{place}")
    run = ForecastRun.model_validate(yaml.safe_load(propose_run(path, Path(place).stem)))
    assert (run.source.kind, run.samples.variables[0].name) == (kind, variable)
    source = build_source(run)
    scenes = source.list_scenes().scenes
    assert (run.model.kind, run.samples.context) == ("auto", "auto")
    assert len(scenes) >= 3 + run.samples.horizon
    assert run.split.validation_from < run.split.test_from
    reader = SceneReader(source, build_quality_mask(run), source.native_grid(), run.cube.on_other_grid)
    assert max(reader.read(scene).valid_YX.mean() for scene in (scenes[0], scenes[len(scenes) // 2])) > 0.01
