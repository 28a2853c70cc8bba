"""The program that test_cube_kill kills: `cube_killed_ingest.py FOLDER STAGE STEP [BASELINE]`, with the shim of
cube_write_calls.c.

STAGE `new`: scenes into a new cube; `late`: earlier, later and a refused one into the cube copied from BASELINE; `stricter`: one
more into that, and one that is refused now; `gc`: versions out of that, but the newest and the one that $DRIFTLINE_NAMED names.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipelines.cube.housekeeping import remove_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.errors import SceneRefused
from pipelines.sources.fake import FakeSource
from pipelines.sources.quality import SclMask
from pipelines.sources.source import Listing

STAGES = {"new": (1,), "late": (0, 1, 2, 4), "stricter": (0, 1, 2, 3, 4)}


@dataclass(frozen=True)
class Picked(FakeSource):
    """Selected scenes of the fake source; number 2 is refused as unreadable."""

    picked: tuple[int, ...] = ()

    def list_scenes(self) -> Listing:
        scenes = FakeSource.list_scenes(self).scenes
        return Listing([scenes[number] for number in self.picked])

    def read(self, scene, grid, names, resampling, rows=None) -> np.ndarray:
        if scene.id.endswith("0002"):
            raise SceneRefused(scene.id, "unreadable", "unreadable for the test")
        return FakeSource.read(self, scene, grid, names, resampling, rows)


def run(uri: str, stage: str) -> None:
    if stage == "gc":
        remove_versions(uri, {os.environ["DRIFTLINE_NAMED"]}, datetime.now(UTC), is_rehearsal=False)
        return
    source = Picked(dates=6, shape_yx=(32, 48), bands=("red",), picked=STAGES[stage])
    settings = IngestSettings(chunk_px=32, workers=1, min_valid_fraction=0.75 if stage == "stricter" else 0)
    ingest(source, SclMask(keep=(4,)), uri, None, settings)


def kill_at_calls(folder: Path, stage: str, step: int, baseline: Path | None) -> None:
    """Runs `stage` in forked children, killed before each `step`th call until one completes; each leaves `folder`/K/cube.

    Prints the last K, that of the undisturbed run. Forks, so that imports happen once; no thread has started yet.
    """
    for call in range(1, 1000, step):
        place = folder / str(call)
        place.mkdir(parents=True)
        if baseline is not None:
            shutil.copytree(baseline, place / "cube")
        child = os.fork()
        if child == 0:
            os.environ |= {"DRIFTLINE_WATCH": str(place), "DRIFTLINE_KILL_AT": str(call)}
            run(str(place / "cube"), stage)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(call if os.WEXITSTATUS(status) == 0 else "failed")
            return
    print("no end")


if __name__ == "__main__":
    kill_at_calls(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
