"""Slices of an ingest beside an ingest as a whole: the same bytes, whoever is killed; what changes in between is read again."""

import asyncio
import importlib.util
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import pytest
import rasterio
from zarr.core.buffer import default_buffer_prototype

from pipelines import stored_files
from pipelines.cube.history import list_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.slicing import stage_slice
from pipelines.cube.store import BRANCH, open_cube, open_repository
from pipelines.errors import StateError
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.slices import Slice
from pipelines.sources.fake import FakeSource
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest

GRID = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (24, 40))
SETTINGS = IngestSettings(chunk_px=16, workers=2, commit_scenes=2, attributes={"made": "here"})
DAYS = range(1, 8)


def write(folder: Path, day: int, seed: int = 0) -> Path:
    path = folder / f"S_201801{day:02d}.tif"
    profile = {"driver": "GTiff", "height": 24, "width": 40, "count": 2, "dtype": "uint16", "crs": GRID.crs, "nodata": 0}
    values = np.random.default_rng([day, seed]).integers(1, 5000, (2, 24, 40), "uint16")
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(*GRID.transform)) as file:
        file.write(values * (day != 5))  # that one is all nodata
    return path


@pytest.fixture
def source(tmp_path):
    """Seven scenes, of which one is empty and one no TIFF; of another one nothing but a part of the image has data."""
    (tmp_path / "scenes").mkdir()
    for day in DAYS:
        write(tmp_path / "scenes", day)
    (tmp_path / "scenes" / "S_20180104.tif").write_bytes(b"no TIFF")
    return FolderSource(tmp_path / "scenes", BandRequest((Band("red"), Band("nir"))), "S_{date:%Y%m%d}.tif")


def chunks(uri) -> dict[str, bytes]:
    """The bytes of every chunk but of the column that says when a scene was written."""
    store = open_repository(str(uri)).readonly_session(BRANCH).store

    async def read() -> dict[str, bytes]:
        names = [name async for name in store.list_prefix("") if "/c/" in name and not name.startswith("ingested_utc")]
        found = [(name, await store.get(name, default_buffer_prototype())) for name in names]
        return {name: content.to_bytes() for name, content in found}

    return asyncio.run(read())


def refused(report) -> list[tuple[str, str, str]]:
    return [(one.scene_id, one.reason, one.detail) for one in report.refused]


def whole(source, tmp_path, settings=SETTINGS, grid=GRID):
    return ingest(source, None, str(tmp_path / "whole"), grid, settings)


class Sliced:
    """An ingest in slices into tmp_path/sliced."""

    def __init__(self, source, tmp_path, settings=SETTINGS, grid=GRID):
        self.source, self.uri, self.grid = source, str(tmp_path / "sliced"), grid
        self.settings = replace(settings, staging=str(tmp_path / "staging"))
        self.folder = tmp_path / "staging"

    def slice(self, number, count):
        return stage_slice(self.source, None, self.uri, self.grid, self.settings, Slice(number, count)).done

    def finish(self):
        return ingest(self.source, None, self.uri, self.grid, self.settings)


class Killed(BaseException):
    """What no `except Exception` stops."""


@contextmanager
def killed_at_write(monkeypatch, number: int):
    """Of the `number`-th file half is written, without its name, and then the process ends, as far as it can here."""
    calls, replacing = iter(range(1, 1000)), stored_files.replacing

    @contextmanager
    def dying(path, **options):
        with replacing(path, **options) as draft:
            yield draft
            if next(calls) == number:
                path.with_name(f".{path.name}.killed").write_bytes(draft.read_bytes()[: draft.stat().st_size // 2])
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stored_files, "replacing", dying)
        yield


@pytest.mark.parametrize("grid", [GRID, None], ids=["grid", "native grid"])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_slices_make_the_cube_that_a_whole_ingest_makes(source, tmp_path, count, grid, monkeypatch):
    expected, sliced = whole(source, tmp_path, grid=grid), Sliced(source, tmp_path, grid=grid)
    with killed_at_write(monkeypatch, 1), pytest.raises(Killed):
        sliced.slice(1, count)
    done = [sliced.slice(number, count) for number in range(count, 0, -1)]
    assert sum(one.size for one in done) == len(DAYS)
    assert sliced.slice(1, count).made == 0
    report = sliced.finish()
    assert refused(report) == refused(expected)
    assert {one.reason for one in report.refused} == {"all-nodata", "driver"}
    assert (report.added, report.notes) == (expected.added, expected.notes)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")
    assert open_cube(sliced.uri).attrs.keys() == open_cube(str(tmp_path / "whole")).attrs.keys()
    again = sliced.finish()
    assert not again.is_new
    assert refused(again) == refused(expected)


def test_scenes_larger_than_memory_are_staged_in_strips(source, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.cube.writing.MB", 5000)  # a strip of 16 rows is allowed, the scene of 24 rows is too large
    settings = replace(SETTINGS, memory_mb=1, workers=1)
    expected, sliced = whole(source, tmp_path, settings), Sliced(source, tmp_path, settings)
    for number in (1, 2):
        sliced.slice(number, 2)
    report = sliced.finish()
    assert (refused(report), report.notes) == (refused(expected), expected.notes)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")


@pytest.mark.exhaustive
def test_strips_are_the_same_on_machines_with_more_cores(source, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.cube.writing.MB", 15_000)  # five strips of 4 rows; the scene is six
    settings = replace(SETTINGS, memory_mb=1, workers=None, chunk_px=4)
    hashes, sliced = {}, Sliced(source, tmp_path, settings)
    for number, cores in enumerate((1, 2, 16), 1):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        sliced.slice(number, 3)
        ingest(source, None, str(tmp_path / f"{cores}"), GRID, settings)
        hashes[cores] = open_cube(str(tmp_path / f"{cores}"))["content_hash"].values.tolist()
    assert sliced.finish().notes == ()
    assert hashes[1] == hashes[2] == hashes[16] == open_cube(sliced.uri)["content_hash"].values.tolist()
    assert chunks(sliced.uri) == chunks(tmp_path / "2")


def test_slices_that_were_cut_otherwise_are_named_as_such(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    sliced.settings = replace(sliced.settings, min_valid_fraction=0.1)
    with pytest.raises(StateError, match=r"7 of 7 scenes are in no slice: .*; slices with another config .*cube.workers"):
        sliced.finish()


def test_missing_scenes_are_named_and_nothing_is_committed(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(2, 3)
    with pytest.raises(StateError, match=r"5 of 7 scenes are in no slice: S_20180101, S_20180103, .*; do the slices"):
        sliced.finish()
    assert [version.added for version in list_versions(sliced.uri)] == []


def test_new_dates_come_in_slices_into_a_cube_that_is_there(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    sliced.finish()
    folder = tmp_path / "scenes"
    for day in (9, 10, 3):  # the last one is reprocessed
        write(folder, day, seed=1)
    assert [sliced.slice(number, 2).made for number in (1, 2)] == [2, 1]
    report = sliced.finish()
    assert (report.added, report.replaced) == (("S_20180109", "S_20180110"), ("S_20180103",))
    whole(source, tmp_path)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")


def test_a_scene_that_changes_after_its_slice_is_read_again_and_named(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    path = tmp_path / "scenes" / "S_20180102.tif"
    status = path.stat()
    write(path.parent, 2, seed=1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time are those of the file before
    write(path.parent, 3, seed=1)
    report = sliced.finish()
    assert report.notes[-1].startswith("read again by --finish: S_20180102: its files have changed since a slice read it (and 1")
    whole(source, tmp_path)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")


def test_damage_of_the_staging_is_seen_by_slices_and_by_the_end(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    one, other = sorted(sliced.folder.rglob("*.scene"), key=lambda path: path.stat().st_size)[-2:]
    one.write_bytes(one.read_bytes()[:-9])
    content = bytearray(other.read_bytes())
    content[100] ^= 1
    other.write_bytes(content)
    assert sliced.slice(1, 1).made == 2
    other.write_bytes(content)
    assert "what a slice has left of it is not whole" in sliced.finish().notes[-1]
    whole(source, tmp_path)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")


def test_an_end_that_is_killed_goes_on_where_it_was(source, tmp_path, monkeypatch):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    commits, original = iter(range(3)), icechunk.Session.commit  # the second version is not committed

    def dying(session, *args, **options):
        if next(commits) == 1:
            raise Killed
        return original(session, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(icechunk.Session, "commit", dying)
        with pytest.raises(Killed):
            sliced.finish()
    report = sliced.finish()
    assert report.notes == ()
    assert len(report.unchanged) > 0
    whole(source, tmp_path)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")


def test_refusals_are_tried_again_when_asked(source, tmp_path):
    sliced = Sliced(source, tmp_path)
    sliced.slice(1, 1)
    sliced.finish()
    assert sliced.slice(1, 1).size == 0
    sliced.settings = replace(sliced.settings, retry_refused=True)
    assert sliced.slice(1, 1).made == 2
    assert {one.reason for one in sliced.finish().refused} == {"all-nodata", "driver"}


def test_scenes_without_files_are_left_to_the_end(tmp_path):
    source = FakeSource(dates=4, shape_yx=(24, 40))
    sliced = Sliced(source, tmp_path, grid=None)
    found = stage_slice(source, None, sliced.uri, None, sliced.settings, Slice(1, 2))
    assert (found.done.size, found.left) == (0, 2)
    report = sliced.finish()
    assert "no change of its files could be noticed (and 3 more)" in report.notes[-1]
    assert len(report.added) == 4


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="moto is not installed: pip install 'driftline[dev]'")
def test_slices_into_a_bucket_make_the_cube_on_a_disk(source, tmp_path, bucket):
    sliced = Sliced(source, tmp_path)
    sliced.uri, sliced.settings = f"{bucket}/slices/cube", replace(SETTINGS, staging=f"{bucket}/slices/staging")
    sliced.slice(1, 2)
    with pytest.raises(StateError, match="3 of 7 scenes are in no slice"):
        sliced.finish()
    assert [sliced.slice(number, 2).made for number in (1, 2)] == [0, 3]
    assert sliced.finish().notes == ()
    whole(source, tmp_path)
    assert chunks(sliced.uri) == chunks(tmp_path / "whole")
