import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from pipelines.cube.export import export_zarr
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.integrity import read_contents
from pipelines.cube.named_reads import decoded
from pipelines.cube.plan import fingerprint_scene
from pipelines.cube.store import (
    BRANCH,
    bands_of,
    create_arrays,
    grid_of,
    head_snapshot,
    missing_value,
    open_cube,
    open_or_create_repository,
)
from pipelines.errors import CubeMismatch, MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.fake import FakeSource

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3035", SINUSOIDAL])
def test_grid_and_bands_are_restored(tmp_path, crs):
    grid = Grid(crs, (231.65635826395825, 0.0, 500_000.1, 0.0, -231.65635826395825, 5e6), (20, 30))
    bands = (Band("ndvi", 1e-4, 0.5, -3000.0, "1", (-2000.0, 10_000.0)), Band("evi", nodata=float("nan")))
    session = open_or_create_repository(str(tmp_path / "cube")).writable_session(BRANCH)
    create_arrays(session.store, grid, bands, np.dtype("int16"), 16, {"config_hash": "abc"})
    session.commit("create cube")
    cube = open_cube(str(tmp_path / "cube"))
    assert grid_of(cube).is_aligned(grid, 1e-12)
    assert grid_of(cube).transform == grid.transform
    assert repr(bands_of(cube)) == repr(bands)
    assert cube.attrs["config_hash"] == "abc"
    assert cube.image.shape == (0, 2, 20, 30)
    assert cube.image.encoding["chunks"] == (1, 2, 16, 16)
    assert cube.attrs["spatial:transform"] == list(grid.transform)
    assert ("proj:code" in cube.attrs) == crs.startswith("EPSG")


def test_paths_that_are_not_cubes_are_refused(tmp_path):
    with pytest.raises(MissingInput, match=r"no cube at .*driftline ingest"):
        open_cube(str(tmp_path / "nowhere"))
    with pytest.raises(MissingInput, match="holds no cube"):
        open_cube(str(tmp_path))
    (tmp_path / "run" / "cube").mkdir(parents=True)
    with pytest.raises(MissingInput, match=r"did you mean .*run/cube\?"):
        open_cube(str(tmp_path / "run"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CubeMismatch, match=r"holds other files \(notes.txt, run\)"):
        open_or_create_repository(str(tmp_path))
    with pytest.raises(CubeMismatch, match="is a file"):
        open_or_create_repository(str(tmp_path / "notes.txt"))
    with pytest.raises(MissingInput, match="a folder or s3://bucket/prefix"):
        open_or_create_repository("gs://bucket/x")


def test_a_cube_that_is_read_at_once_is_what_xarray_reads_piece_by_piece(tmp_path):
    uri = str(tmp_path / "cube")
    ingest(FakeSource(dates=3), None, uri, None, IngestSettings())
    stored = open_or_create_repository(uri).readonly_session(BRANCH).store
    expected = xr.open_zarr(stored, consolidated=False, chunks=None, mask_and_scale=False)
    found = decoded(read_contents(stored))
    assert found.identical(expected)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype
        assert found[name].encoding == variable.encoding
        assert np.asarray(found[name]).tolist() == np.asarray(variable).tolist()


def test_old_versions_are_readable(tmp_path):
    uri = str(tmp_path / "cube")
    first = ingest(FakeSource(dates=2), None, uri, None, IngestSettings()).snapshot
    ingest(FakeSource(dates=3), None, uri, None, IngestSettings())
    assert open_cube(uri, first).sizes["time"] == 2
    assert open_cube(uri).sizes["time"] == 3
    assert head_snapshot(uri) != first
    with pytest.raises(MissingInput, match="has no version NOTTHERE"):
        open_cube(uri, "NOTTHERE")


@pytest.mark.parametrize(
    ("nodata", "dtype", "expected"),
    [
        (0, "uint16", 0),
        (-3000, "int16", -3000),
        (None, "uint16", 0),
        (-1.0, "uint8", 0),
        (None, "float32", np.nan),
        (-9.0, "float32", -9),
    ],
)
def test_missing_value(nodata, dtype, expected):
    assert missing_value([Band("a", nodata=nodata), Band("b", nodata=nodata)], np.dtype(dtype)) == pytest.approx(
        expected, nan_ok=True
    )


def test_the_fingerprint_of_a_scene_depends_on_its_files(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"one")
    scene = Scene("a", np.datetime64("2020-01-01", "ns"), {"red": Asset(str(path))})
    first = fingerprint_scene(scene, "rule")
    assert first == fingerprint_scene(scene, "rule") != fingerprint_scene(scene, "another rule")
    path.write_bytes(b"another")
    assert fingerprint_scene(scene, "rule") not in ("", first)
    assert fingerprint_scene(scene, "<object at 0x7f>") == ""
    assert fingerprint_scene(Scene("b", scene.observed_utc, {"red": Asset("s3://x/y.tif")}), "rule") == ""


# rioxarray 0.19 multiplies affines with `*`, which affine 3 replaces with `@`
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_an_export_is_read_by_xarray_rioxarray_and_gdal(tmp_path):
    import rioxarray  # noqa: F401

    uri, target = str(tmp_path / "cube"), tmp_path / "out" / "plain.zarr"
    ingest(FakeSource(dates=3), None, uri, None, IngestSettings(chunk_px=16))
    export_zarr(uri, target)
    cube, grid = open_cube(uri), grid_of(open_cube(uri))
    plain = xr.open_zarr(target, chunks=None)
    assert np.allclose(plain.image.values, np.where(cube.image.values == 0, np.nan, cube.image.values * 1e-4), equal_nan=True)
    assert np.array_equal(plain.valid.values, cube.valid.values)
    assert np.array_equal(plain.time.values, cube.time.values)
    assert plain.scene_id.values.tolist() == cube.scene_id.values.tolist()
    assert plain.rio.crs.to_epsg() == 32633
    assert plain.rio.transform() == grid.affine
    with rasterio.open(f'ZARR:"{target}":/image:2:1') as raster:
        assert raster.crs.to_epsg() == 32633
        assert raster.transform == grid.affine
        assert raster.nodata == 0
        assert np.array_equal(raster.read(1), cube.image.values[2, 1])
    assert [path.name for path in target.parent.iterdir()] == ["plain.zarr"]
    with pytest.raises(RequestError, match="is not overwritten: remove it or choose another path"):
        export_zarr(uri, target)


def test_a_rotated_cube_has_no_coordinates_of_the_world_and_is_not_exported(tmp_path):
    turned = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    uri = str(tmp_path / "cube")
    grid = Grid.from_affine("EPSG:32633", turned, FakeSource().shape_yx)
    turned_source = type("TurnedSource", (FakeSource,), {"native_grid": lambda self: grid})
    ingest(turned_source(dates=2), None, uri, None, IngestSettings(chunk_px=16))
    cube = open_cube(uri)
    assert cube.x.values[:2].tolist() == pytest.approx([5, 15])
    assert "distance along a rotated axis" in cube.x.attrs["long_name"]
    assert grid_of(cube).is_aligned(grid)
    with pytest.raises(RequestError, match="is rotated, which readers of plain Zarr do not see"):
        export_zarr(uri, tmp_path / "out.zarr")
