"""The protocol of all sources: which scenes there are, the grid of their pixels, and the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, Scene

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
SameDate = Literal["refuse", "mosaic"]
OnOtherGrid = Literal["reproject", "refuse"]
OVERPASS_S = 1800  # scenes that follow each other within this time are of one overpass,
OVERPASS_SCENES = 10  # unless so many do that this is the interval of the series


@dataclass(frozen=True)
class Listing:
    """What a source found: `scenes` sorted by (date, id), one per date; `refused`: scenes left out, with the reason.

    `unused`: files and variables that no scene needs, and folders that were not searched. `notes`: readings that may be doubted.
    """

    scenes: list[Scene] = field(default_factory=list)
    refused: list[SceneRefused] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_of_place: bool = True  # False of frames of a patient or a clip, which are of no overpass

    def remarks(self) -> list[str]:
        """The notes, the number of unused files with the first of them, and dates that belong to one overpass."""
        shown = f"{', '.join(self.unused[:3])}{f' and {len(self.unused) - 3} more' if len(self.unused) > 3 else ''}"
        unused = [f"not used: {len(self.unused)} files, folders or variables: {shown}"] if self.unused else []
        return [*self.notes, *unused, *(seconds_apart(self.scenes) if self.is_of_place else [])]


class DecodesFiles:
    """Marks sources that decode files: they are picklable, and their scenes are read in workers (`isolation`)."""


class Source(Protocol):
    """Scenes of one area. Opens files only on demand; small enough to pickle to a Dask worker."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands in the cube's order, with nodata, scale and offset from the files unless requested otherwise."""

    def dtype(self) -> np.dtype:
        """The stored dtype of the bands (the quality band has its own)."""

    def list_scenes(self) -> Listing: ...

    def native_grid(self) -> Grid:
        """The grid of the first readable scene. Raises RequestError if none can be read."""

    def grid_of(self, scene: Scene, name: str) -> Grid:
        """The grid of band (or quality band) `name` of `scene`. Raises SceneRefused."""

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) of `scene` on `grid`, stored dtype, the band's nodata outside the scene; only `rows` of the grid.

        Pixels that are aligned with the grid are copied, others are resampled. `scene` has assets, not parts: `reading`
        composes mosaics. Raises SceneRefused.
        """


def resolve_dates(
    scenes: Sequence[Scene], refused: Sequence[SceneRefused], same_date: SameDate,
    unused: Sequence[str] = (), notes: Sequence[str] = (),
) -> Listing:  # fmt: skip
    """The listing with one scene per date (and id): later ones are refused, or all of a date become parts of a mosaic.

    A mosaic is named after its date, even with one part, so that a part that arrives late replaces the mosaic in the cube
    instead of conflicting with it.
    """
    by_date: dict[np.datetime64, list[Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.observed_utc, scene.id)):
        by_date.setdefault(scene.observed_utc, []).append(scene)
    if same_date == "mosaic":
        mosaics = [Scene(f"mosaic_{compact_date(date)}", date, {}, tuple(parts)) for date, parts in by_date.items()]
        return Listing(mosaics, list(refused), list(unused), list(notes))
    kept: dict[str, Scene] = {}
    duplicates = []
    for date, of_date in by_date.items():
        first: Scene | None = None
        for scene in of_date:
            if first is None and scene.id not in kept:
                first = kept[scene.id] = scene
                continue
            detail = f"two scenes have the id {scene.id}; the one with the earlier date is used"
            if first is not None:
                detail = (
                    f"observed at {date}, like {first.id}, which is used; "
                    "if they are adjacent, set cube.same_date: mosaic; if one is obsolete, remove it"
                )
            duplicates.append(SceneRefused(scene.id, "duplicate-date", detail))
    return Listing(list(kept.values()), [*refused, *duplicates], list(unused), list(notes))


def seconds_apart(scenes: Sequence[Scene]) -> list[str]:
    """A line if scenes of one overpass, minutes or less apart, stay dates of their own; series of such intervals are none."""
    times = np.array(sorted(scene.observed_utc for scene in scenes), "datetime64[s]").astype(np.int64)
    groups = np.split(times, np.flatnonzero(np.diff(times) > OVERPASS_S) + 1)
    sizes = [len(group) for group in groups]
    if len(groups) < 2 or not 1 < max(sizes) <= OVERPASS_SCENES:
        return []
    several = [group for group in groups if len(group) > 1]
    widest = max(int(group[-1] - group[0]) for group in several)
    return [
        f"{len(several)} times, scenes lie at most {widest} seconds apart and stay dates of their own; if they are one overpass, "
        "take the time out of the date ({date:%Y%m%d} and *) and set cube.same_date: mosaic"
    ]


def compact_date(date: np.datetime64) -> str:
    """20200605, or 20200605T101559 with the time of day."""
    day, _, time = str(date.astype("datetime64[s]")).partition("T")
    return day.replace("-", "") + ("" if time == "00:00:00" else "T" + time.replace(":", ""))
