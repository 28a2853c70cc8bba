"""Rasters with rows from the south, mirrored or rotated: every value is at its place in the cube, or the scene is refused."""

import numpy as np
import pytest
from affine import Affine
from source_rasters import UTM, ramp, read_slice, write_tiff

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import grid_of, open_cube
from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest

TURNED = Grid.from_affine("EPSG:32633", Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10), UTM.shape_yx)
GRIDS = {"south": UTM.flipped("y"), "mirrored": UTM.flipped("x"), "both": UTM.flipped("y").flipped("x"), "turned": TURNED,
         "upright": Grid("EPSG:32633", (0.0, 10.0, 5e5, 10.0, 0.0, 5e6), UTM.shape_yx)}  # fmt: skip
EVERY_GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))


def source(folder) -> FolderSource:
    return FolderSource(folder, BandRequest((Band("b1"),)), "{date:%Y%m%d}.tif")


def expected_on(target: Grid, grid: Grid, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values of the pixel of `grid` that holds each centre of `target`, whether the centre is well inside one)."""
    rows, columns = np.indices(target.shape_yx)
    world = target.to_world(np.stack([columns + 0.5, rows + 0.5], axis=-1))
    at = grid.to_index(world)
    column, row = np.floor(at).astype(int)[..., 0], np.floor(at).astype(int)[..., 1]
    height, width = grid.shape_yx
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    is_clear = (np.abs(at - np.round(at)) > 0.02).all(axis=-1)  # not on an edge between two pixels
    return values[row.clip(0, height - 1), column.clip(0, width - 1)], inside & is_clear


@EVERY_GRID
def test_a_cube_keeps_the_grid_of_its_scenes(tmp_path, grid):
    for day in (1, 2):
        write_tiff(tmp_path / "in" / f"2018010{day}.tif", ramp(start=day), grid=grid)
    ingest(source(tmp_path / "in"), None, str(tmp_path / "cube"), None, IngestSettings(chunk_px=16))
    cube = open_cube(str(tmp_path / "cube"))
    assert grid_of(cube).is_aligned(grid)
    np.testing.assert_array_equal(cube["image"].values[:, 0], [ramp(start=1), ramp(start=2)])
    if grid.is_straight:
        np.testing.assert_allclose(cube["y"].values, grid.centres("y"))
        np.testing.assert_allclose(cube["x"].values, grid.centres("x"))


@EVERY_GRID
def test_reprojected_values_lie_where_they_were(tmp_path, grid):
    write_tiff(tmp_path / "20180101.tif", ramp(), grid=grid)
    scenes = source(tmp_path)
    (scene,) = scenes.list_scenes().scenes
    target = UTM if grid.is_straight else Grid("EPSG:32633", (5.0, 0, 5e5 - 100, 0, -5.0, 5e6 + 600), (200, 160))
    found = read_slice(scenes, None, scene, target, on_other_grid="reproject")
    expected, inside = expected_on(target, grid, ramp())
    assert inside.mean() > 0.2
    np.testing.assert_array_equal(found.image_BYX[0][inside], expected[inside])
    assert found.valid_YX[inside].all()


@pytest.mark.parametrize("name", ["south", "turned"])
def test_a_scene_on_another_grid_is_refused_unless_reprojection_is_asked_for(tmp_path, name):
    write_tiff(tmp_path / "20180101.tif", ramp(), grid=GRIDS[name])
    scenes = source(tmp_path)
    (scene,) = scenes.list_scenes().scenes
    with pytest.raises(SceneRefused, match="wrong-grid"):
        read_slice(scenes, None, scene, UTM)
