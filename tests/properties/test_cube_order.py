"""The cube is the same whatever the order of arrival and the batches."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.sources.fake import FakeSource
from pipelines.sources.quality import SclMask
from pipelines.sources.source import Listing

COUNT = 6


@dataclass(frozen=True)
class Arrived(FakeSource):
    """The scenes of the fake source that have arrived, in the order of their arrival."""

    arrived: tuple[int, ...] = ()

    def list_scenes(self) -> Listing:
        scenes = FakeSource.list_scenes(self).scenes
        return Listing([scenes[number] for number in self.arrived])


def ingest_into(uri: str, arrived: list[int], workers: int, commit_scenes: int) -> None:
    source = Arrived(dates=COUNT, shape_yx=(20, 20), bands=("red",), arrived=tuple(arrived))
    ingest(source, SclMask(keep=(4,)), uri, None, IngestSettings(chunk_px=16, workers=workers, commit_scenes=commit_scenes))


def content(uri: str) -> dict[str, list]:
    cube = open_cube(uri)
    return {name: cube[name].values.tolist() for name in ("time", "scene_id", "content_hash", "valid_fraction", "image", "valid")}


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(COUNT)),
    cuts=st.sets(st.integers(1, COUNT - 1), max_size=2),
    workers=st.integers(1, 3),
    commit=st.integers(2, 64),
)
def test_any_order_and_any_batches_give_the_same_cube(order, cuts, workers, commit):
    with tempfile.TemporaryDirectory() as folder:
        bit_by_bit, at_once = str(Path(folder) / "bit"), str(Path(folder) / "once")
        for cut in [*sorted(cuts), COUNT]:
            ingest_into(bit_by_bit, order[:cut], workers, commit)
        ingest_into(at_once, list(range(COUNT)), 1, 64)
        assert content(bit_by_bit) == content(at_once)
        assert (np.diff(open_cube(bit_by_bit).time.values) > np.timedelta64(0)).all()
