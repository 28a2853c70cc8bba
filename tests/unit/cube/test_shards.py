"""Cubes whose chunks are stored together: the same pixels, dates and hashes as without, in fewer objects."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

from pipelines.cube.checking import check_cube
from pipelines.cube.edits import mark_damaged
from pipelines.cube.encoding import encode_rows
from pipelines.cube.export import export_zarr
from pipelines.cube.history import describe
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.steps import pixel_store
from pipelines.cube.store import create_arrays, open_cube
from pipelines.scene import Band
from pipelines.sources.fake import FakeSource
from pipelines.sources.reading import Slice

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parent / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)
PickedSource, RULE = cube_sources.PickedSource, cube_sources.RULE

SETTINGS = IngestSettings(chunk_px=16, workers=2, shard_px=48)
SHAPE = (100, 150)  # no multiple of chunk or shard


def ingest_into(uri, settings=SETTINGS, **changes):
    return ingest(PickedSource(**{"dates": 5, "shape_yx": SHAPE, **changes}), RULE, str(uri), None, settings)


def assert_equal(one, other, but=()):
    a, b = open_cube(str(one)), open_cube(str(other))
    for name in {"image", "valid", "time", "scene_id", "content_hash", "fingerprint", "valid_fraction"} - set(but):
        np.testing.assert_array_equal(a[name].values, b[name].values)


def objects(uri) -> int:
    return len(list((Path(uri) / "chunks").iterdir()))


def test_shards_hold_the_pixels_of_chunks_in_fewer_objects(tmp_path):
    for name, settings in (("shards", SETTINGS), ("chunks", replace(SETTINGS, shard_px=None))):
        ingest_into(tmp_path / name, settings)
    assert_equal(tmp_path / "shards", tmp_path / "chunks")
    assert describe(str(tmp_path / "shards"))["shards"] == [1, 2, 16, 48]
    assert describe(str(tmp_path / "chunks"))["shards"] == []
    assert 2 * objects(tmp_path / "shards") < objects(tmp_path / "chunks")
    part = np.s_[1:4, 1, 40:70, 90:150]
    np.testing.assert_array_equal(
        open_cube(str(tmp_path / "shards")).image[part], open_cube(str(tmp_path / "chunks")).image[part]
    )


@pytest.mark.parametrize("memory_mb", [512, 1])
def test_dates_are_inserted_replaced_and_moved(tmp_path, memory_mb, monkeypatch):
    monkeypatch.setattr("pipelines.cube.writing.MB", 2**20 if memory_mb > 1 else 100_000)  # the latter in strips
    settings = replace(SETTINGS, memory_mb=memory_mb)
    ingest_into(tmp_path / "late", settings, picked=(1, 3))
    ingest_into(tmp_path / "late", settings, brighter={3: 9}, moved={1: "2018-02-20"})
    ingest_into(tmp_path / "once", settings, brighter={3: 9}, moved={1: "2018-02-20"})
    assert_equal(tmp_path / "late", tmp_path / "once")
    report = check_cube(str(tmp_path / "late"))
    assert (report.damages, report.files) == ((), ())


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first chunk", "a chunk", "index"])
def test_damage_is_named_with_its_file_and_read_again(tmp_path, place):
    uri = str(tmp_path / "cube")
    ingest_into(uri)
    path = max((tmp_path / "cube" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    report = check_cube(uri)
    assert [damage.file for damage in report.files] == [f"chunks/{path.name}"]
    assert len({damage.scene_id for damage in report.damages}) == 1
    assert all(damage.array == "image" and "rows" in damage.box for damage in report.damages)
    mark_damaged(uri, report.scene_ids, [one.file for one in report.files])
    assert len(ingest_into(uri).replaced) == 1
    assert check_cube(uri).damages == ()


@pytest.mark.parametrize(
    ("shape", "image", "valid"),
    [
        ((5000, 5000), (1, 1, 256, 4096), (1, 256, 6144)),  # three blocks of the mask, each 2048 px wide
        ((5000, 300), (1, 1, 256, 512), None),  # of which one covers the raster
        ((4096, 4096), None, None),
    ],
)
def test_blocks_of_large_rasters_are_stored_together(shape, image, valid):
    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    grid = FakeSource(shape_yx=shape).native_grid()
    root = create_arrays(session.store, grid, (Band("a"),), np.dtype("uint16"), 256, {})
    assert (root["image"].shards, root["valid"].shards) == (image, valid)


def test_chunks_and_shards_of_nothing_are_not_stored():
    image_BYX = np.random.default_rng(0).integers(1, 9, (2, *SHAPE), "uint16")
    valid_YX = np.ones(SHAPE, bool)
    image_BYX[:, :70, 20:], valid_YX[:70, 20:] = 0, False  # whole objects of both, and chunks of others
    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    grid = FakeSource(shape_yx=SHAPE).native_grid()
    root = create_arrays(session.store, grid, (Band("a", nodata=0), Band("b", nodata=0)), np.dtype("uint16"), 16, {}, shard_px=32)
    root["image"].resize((1, 2, *SHAPE))
    root["valid"].resize((1, *SHAPE))
    pixels = pixel_store(root)
    rows = encode_rows(Slice(image_BYX, valid_YX), slice(0, SHAPE[0]), pixels.layouts, 10)
    pixels.write(0, rows)
    np.testing.assert_array_equal(root["image"][0], image_BYX)
    np.testing.assert_array_equal(root["valid"][0], valid_YX)
    assert sum(not len(content) for path, _, content in rows.chunks() if path == "image") == 4 * 4


def test_an_exported_copy_holds_the_pixels(tmp_path):
    ingest_into(tmp_path / "cube")
    export_zarr(str(tmp_path / "cube"), tmp_path / "copy.zarr")
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "copy.zarr")["image"][:], open_cube(str(tmp_path / "cube")).image)
