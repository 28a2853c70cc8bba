"""Planes that are staged region by region, on a disk and in S3."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ArtefactDamaged, StateError, StorageFull
from pipelines.inference.regions import Plane, Regions
from pipelines.inference.tiling import plan_batches
from pipelines.tiles import Box

PLANES = Plane("share"), Plane("class", "|u1"), Plane("day", "<f8")


def fill(regions: Regions, tile_px: int = 4) -> dict[Plane, np.ndarray]:
    """Random planes, written tile by tile; what was written."""
    rng = np.random.default_rng(0)
    planes = {plane: (rng.random(regions.shape) * 200).astype(plane.dtype) for plane in regions.planes}
    for region in regions.parts:
        with regions.writing(region) as writer:
            for tile in region.cut(tile_px):
                writer.write(tile, {plane: values[tile.slices] for plane, values in planes.items()})
                writer.add({"pixels": int(np.prod(tile.shape))})
    return planes


def made(folder: Path | str, shape: tuple[int, ...] = (13, 17), key: str = "a" * 64) -> Regions:
    return Regions(str(folder), key, PLANES, shape, plan_batches(shape, 4, 2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 23), min_size=2, max_size=3), st.data())
def test_any_rows_of_any_raster_read_as_they_were_written(tmp_path_factory, shape, data):
    regions = made(tmp_path_factory.mktemp("staged"), tuple(shape))
    planes = fill(regions)
    first = data.draw(st.integers(0, shape[0]))
    rows, columns = slice(first, data.draw(st.integers(first, shape[0]))), slice(None, None, data.draw(st.integers(1, 3)))
    for plane, values in planes.items():
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(regions)).read(plane, rows, columns), values[rows, columns])
    assert sum(record.facts["pixels"] for record in regions.records()) == np.prod(shape)


def test_in_one_piece_or_in_many_the_files_are_the_same(tmp_path):
    for name, tile_px in (("many", 4), ("one", 32)):
        fill(made(tmp_path / name, (8, 8)), tile_px)
    (one,), (many,) = (made(tmp_path / name, (8, 8)).records() for name in ("one", "many"))
    assert one.sha256 == many.sha256
    regions = made(tmp_path / "twice", (8, 8))
    (region,) = regions.parts
    zeros = {plane: np.zeros(regions.shape, plane.dtype) for plane in PLANES}
    with regions.writing(region) as writer:
        writer.write(region, zeros)
        writer.write(Box((0, 0), (1, 1)), {plane: values[:1, :1] + values.dtype.type(1) for plane, values in zeros.items()})
    assert regions.missing() == []


def test_what_is_missing_or_damaged_is_named(tmp_path):
    regions = made(tmp_path)
    regions.begin()
    assert [why for _, why in regions.missing()] == [""] * len(regions.parts)
    fill(regions)
    assert regions.missing() == []
    first, second, *_ = regions.parts
    Path(regions.uri, f"{first.key}.region").unlink()
    path = Path(regions.uri, f"{second.key}.region")
    path.write_bytes(b"\0" + path.read_bytes()[1:] if path.read_bytes()[0] else b"\1" + path.read_bytes()[1:])
    assert [(region, bool(why)) for region, why in regions.missing()] == [(first, False), (second, True)]
    assert regions.missing([regions.parts[-1]]) == []
    with pytest.raises(StateError, match=rf"1 of {len(regions.parts)} regions are missing or damaged: {first.key}"):
        regions.records()
    with pytest.raises(StateError, match=rf"2 of {len(regions.parts)} regions .* {first.key}, {second.key}; do the slices again"):
        regions.require_whole()
    with pytest.raises(ArtefactDamaged, match=f"{first.key} is missing or too short; predict again"):
        regions.read(PLANES[0], slice(0, 4))


def test_a_region_under_anothers_name_is_not_taken_for_it(tmp_path):
    regions = made(tmp_path, (8, 16))
    fill(regions)
    first, second = (Path(regions.uri, f"{region.key}.region") for region in regions.parts[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(ArtefactDamaged, match=f"it is that of {regions.parts[0].key}"):
        regions.record(regions.parts[1])


def test_an_interrupted_region_is_not_there(tmp_path):
    regions = made(tmp_path)
    with pytest.raises(RuntimeError), regions.writing(regions.parts[0]):
        raise RuntimeError("stopped")
    assert regions.finished() == set()


def test_only_this_jobs_regions_stay(tmp_path):
    other, regions = made(tmp_path, key="b" * 64), made(tmp_path)
    for one in (other, regions):
        one.begin()
        fill(one)
    old, young = (Path(regions.uri, f".{regions.parts[0].key}.region.{mark}") for mark in ("1a2b", "3c4d"))
    for draft in (old, young):
        draft.write_bytes(b"half")
    os.utime(old, (0, 0))
    for foreign in ("of-somebody-else", "0123456789abcdef", "."):
        (tmp_path / foreign).mkdir(exist_ok=True)
        (tmp_path / foreign / "job.json").write_text('{"key": "of another program"}')
    for name in ("000-ndvi-forecast.f32", "ledger.jsonl"):
        (tmp_path / name).touch()
    regions.sweep()
    kept = {"job.json", regions.job, "of-somebody-else", "0123456789abcdef"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (old.exists(), young.exists()) == (False, True)
    assert regions.missing() == []


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path):
    with pytest.raises(StorageFull, match=r"\d+\.\d MiB are needed"):
        Regions(str(tmp_path), "k" * 64, PLANES, (10**7, 10**7), (Box.whole((10**7, 10**7)),)).begin()
