"""A class map by threads, processes, Dask workers and slices is the same, byte for byte, also when workers are lost."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.compute import Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import head_snapshot, open_cube
from pipelines.errors import StateError
from pipelines.inference.class_map import MapWork, finished_maps, map_tile, mapped_span
from pipelines.inference.staged_work import cut_regions, make_all, make_slice, require_all
from pipelines.samples.variables import Variable
from pipelines.slices import Slice
from pipelines.sources.fake import FakeSource
from pipelines.tiles import Box

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from map_driver import Brightness

VARIABLES = (Variable("nir", "band", ("nir",)), Variable("red", "band", ("red",)))
SHAPES = {"a": (50, 40), "b": (30, 20)}
WORKERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("processes", "dask")]
DASK = ["dask", pytest.param("processes", marks=pytest.mark.exhaustive)]  # their processes are those of test_compute


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Two sites."""
    found = {}
    for name, shape_yx in SHAPES.items():
        uri = str(tmp_path_factory.mktemp("map") / name)
        ingest(FakeSource(dates=3, shape_yx=shape_yx, bands=("red", "nir")), None, uri, None, IngestSettings(chunk_px=32))
        found[name] = mapped_span(open_cube(uri), (uri, head_snapshot(uri)), None, None, VARIABLES)
    return found


@pytest.fixture
def plan(mapped, tmp_path):
    """`plan(folder)`: the maps of both sites in 12 + 4 tiles."""

    def of(folder, tile_px=16, model=None):
        return MapWork(mapped, model or Brightness(tmp_path / "model"), "model", tile_px, str(tmp_path / folder))

    (tmp_path / "model").mkdir()
    return of


def files(work) -> dict[str, bytes]:
    return {regions.name_of(part) + name: regions.files.read(regions.name_of(part)) for name, regions in work.rasters.items()
            for part in regions.parts}  # fmt: skip


def test_tiles_are_the_whole(plan, mapped, tmp_path):
    work = plan("here")
    make_all(work)
    for name, found in finished_maps(work, tmp_path).items():
        class_HW, confidence_HW, pixels_MK = map_tile(work.model, mapped[name].source.open()(Box.whole(SHAPES[name])), (...,))
        np.testing.assert_array_equal(found.class_HW, class_HW)
        np.testing.assert_array_equal(found.confidence_HW, confidence_HW)
        np.testing.assert_array_equal(found.pixels_MK, pixels_MK)
        assert set(np.unique(class_HW)) >= {1, 2}


@pytest.mark.parametrize("kind", ["threads", *WORKERS])
def test_wherever_it_is_mapped_the_bytes_are_the_same(plan, kind):
    here, there, seen = plan("here"), plan("there"), []
    make_all(here)
    make_all(there, Compute(kind, workers=2), lambda done, total: seen.append((done, total)))
    assert files(there) == files(here)
    assert seen == [(n, 16) for n in range(17)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DASK)
def test_lost_workers_change_nothing(plan, kind, tmp_path):
    here, there = plan("here"), plan("there")
    make_all(here)
    for number in range(2):
        (tmp_path / "model" / f"kill-{number}").touch()
    make_all(there, Compute(kind, workers=2))
    assert files(there) == files(here)
    assert not list((tmp_path / "model").glob("kill-*"))


def test_slices_make_the_whole_and_the_finish_names_what_is_missing(plan):
    whole, sliced = plan("whole"), plan("sliced")
    make_all(whole)
    assert make_slice(sliced, Slice(20, 20)).size == 0
    assert [make_slice(sliced, Slice(n, 3)).made for n in (3, 1)] == [5, 6]
    with pytest.raises(StateError, match=r"maps/a/\w+: 4 of 12 regions are missing or damaged: r000000-000016_c000016-000032"):
        require_all(sliced)
    assert make_slice(sliced, Slice(1, 3)).made == 0
    make_slice(sliced, Slice(2, 3))
    require_all(sliced)
    assert files(sliced) == files(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["threads", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("processes", "dask"))]
)
def test_a_tile_that_fails_is_named_and_a_second_call_goes_on(plan, kind, tmp_path):
    work, whole = plan("broken"), plan("whole")
    make_all(whole)
    (tmp_path / "model" / "raise").touch()
    with pytest.raises(ValueError, match="no such luck") as error:
        make_all(work, Compute(kind, workers=1))
    assert [note for note in error.value.__notes__ if note.startswith("at ")] == ["at a r000000-000016_c000000-000016"]
    assert "a" in work.rasters
    make_all(work)
    assert files(work) == files(whole)


def test_another_model_or_tile_is_another_job(plan, mapped):
    keys = {plan("x").key, plan("y").key, plan("x", 32).key, MapWork(mapped, plan("x").model, "other", 16, "x").key}
    assert len(keys) == 3


@pytest.mark.parametrize("shape", [(1600, 1600), (10, 10), (16, 100_000), (333, 77)])
def test_regions_are_whole_tiles_and_few(shape):
    regions = cut_regions(shape, 16)
    assert len(regions) <= 400
    assert all(start % 16 == 0 for region in regions for start in region.start)
    assert sum(np.prod(region.shape) for region in regions) == np.prod(shape)
