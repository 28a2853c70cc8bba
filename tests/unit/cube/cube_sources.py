"""Sources for the tests of the cube: the fake source, with some scenes selected, unreadable or changed."""

from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.scene import Scene
from pipelines.sources.fake import FakeSource
from pipelines.sources.quality import SclMask
from pipelines.sources.source import Listing

RULE = SclMask(keep=(4,))


@dataclass(frozen=True)
class PickedSource(FakeSource):
    """The scenes of the fake source with the numbers `picked` (None: all).

    `unreadable` raises SceneRefused for a number; `brighter` adds to its pixels (a reprocessed scene); `empty` is all
    nodata; `cloudy` all cloud; `renamed` and `moved` change id and date.
    """

    picked: tuple[int, ...] | None = None
    unreadable: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    cloudy: tuple[int, ...] = ()
    brighter: dict[int, int] = field(default_factory=dict, hash=False)
    renamed: dict[int, str] = field(default_factory=dict, hash=False)
    moved: dict[int, str] = field(default_factory=dict, hash=False)
    stored: str = "uint16"

    def dtype(self) -> np.dtype:
        return np.dtype("uint16")

    def list_scenes(self) -> Listing:
        scenes = FakeSource.list_scenes(self).scenes
        numbers = range(len(scenes)) if self.picked is None else self.picked
        return Listing([self._renamed(scenes[number], number) for number in numbers])

    def _renamed(self, scene: Scene, number: int) -> Scene:
        date = np.datetime64(self.moved[number], "ns") if number in self.moved else scene.observed_utc
        return Scene(self.renamed.get(number, scene.id), date, scene.assets)

    def read(self, scene, grid, names, resampling, rows=None) -> np.ndarray:
        number = scene.assets["SCL"].index
        if number in self.unreadable:
            raise SceneRefused(scene.id, "unreadable", "unreadable for the test")
        layers = FakeSource.read(self, scene, grid, names, resampling, rows)
        if names == ("SCL",):
            return np.full_like(layers, 9) if number in self.cloudy else layers
        if number in self.empty:
            return np.zeros_like(layers)
        return (layers + self.brighter.get(number, 0)).astype(self.stored)
