"""Scenes and label of a site -> its cube, and its label on the cube's grid."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pyproj import CRS

from pipelines.change.labels import Label, read_label
from pipelines.cube.ingest import IngestReport, IngestSettings, ingest
from pipelines.cube.store import grid_of, open_cube
from pipelines.errors import MissingInput, RequestError
from pipelines.files import replacing
from pipelines.grid import Grid
from pipelines.progress import Progress
from pipelines.sources.quality import LandsatMask, SclMask, ValueMask
from pipelines.sources.sites import SiteSource

QualityMask = SclMask | LandsatMask | ValueMask | None
MOST_PROBLEMS = 12  # sites of which a message says what is wrong with them


@dataclass(frozen=True)
class LabelSettings:
    """How a label raster is read: codes of both classes, its band, and whose grid it lies on (`own`: its georeferencing)."""

    changed: tuple[int, ...]
    unchanged: tuple[int, ...]
    band: int = 1
    grid_of: Literal["own", "first", "last"] = "own"


@dataclass(frozen=True)
class LabelFacts:
    """What a record says of a site's label; the default is that of a site without a label."""

    label_sha256: str = ""
    changed_fraction: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}

    @property
    def sentence(self) -> str:
        return f"{self.changed_fraction:.2%} of the label changed" if self.label_sha256 else "no label: predicted only"


def ingest_site(
    source: SiteSource, quality_mask: QualityMask, uri: str, settings: IngestSettings, progress: Progress
) -> IngestReport:
    """The site's scenes into its cube. Raises RequestError: fewer than two dates can be used, or a CRS of no site on Earth."""
    report = ingest(source, quality_mask, uri, None, settings, progress)
    written = [str(scene) for scene in open_cube(uri)["scene_id"].values]
    if len(written) < 2:
        refused = "; ".join(str(error) for error in report.refused[:3])
        raise RequestError(
            f"{len(written)} of its dates can be used ({', '.join(written) or 'none'}), change needs two; {refused}"
        )
    check_earth(uri)
    return report


def check_earth(uri: str) -> None:
    """Raises RequestError where the grid is of no site on Earth: patches are measured in m², at the end of a long run."""
    crs = grid_of(open_cube(uri)).crs
    if CRS.from_user_input(crs).get_geod() is None:
        raise RequestError(
            f"its CRS is of no site on Earth ({crs[:60]}), and patches are measured in m²; for images that lie nowhere set "
            "source.crs: EPSG:3857 and source.transform: [SIZE, 0, 0, 0, -SIZE, 0] with the pixel's SIZE in m"
        )


def ingest_label(source: SiteSource, uri: str, settings: LabelSettings, target: Path, file: Path | None) -> LabelFacts:
    """The label in `file` on the grid of the cube at `uri`, written to `target` (.npy, uint8) in one rename; None: no label.

    Raises MissingInput, RequestError (the label does not match codes or images).
    """
    if file is None:
        target.unlink(missing_ok=True)
        return LabelFacts()
    label = read_label(
        file,
        grid_of(open_cube(uri)),
        changed=settings.changed,
        unchanged=settings.unchanged,
        band=settings.band,
        grid_of=None if settings.grid_of == "own" else grid_of_scene(source, settings.grid_of),
    )
    write_label(label, target)
    return LabelFacts(hashlib.sha256(label.label_YX.tobytes()).hexdigest(), label.changed_fraction, label.notes)


def write_label(label: Label, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, flush=False, mark="partial") as draft, draft.open("wb") as file:
        np.save(file, label.label_YX)


def grid_of_scene(source: SiteSource, which: Literal["first", "last"]) -> Grid:
    """Where the pixels of the first or last scene of a site lie."""
    scenes = source.list_scenes().scenes
    scene = scenes[0 if which == "first" else -1]
    return source.grid_of((scene.parts or (scene,))[0], source.bands[0].name)


def refuse_sites(problems: Mapping[str, RequestError], good: Sequence[str]) -> RequestError:
    """One error that says what is wrong with every site, and how to go on with the good ones."""
    shown = [f"  {name}: {problem}" for name, problem in list(problems.items())[:MOST_PROBLEMS]]
    more = f"\n  and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    remedy = f"\nto go on without: source.sites: [{', '.join(good)}]" if good else ""
    count = f"{len(problems)} of {len(problems) + len(good)} sites cannot be used:\n"
    kind = MissingInput if all(isinstance(problem, MissingInput) for problem in problems.values()) else RequestError
    return kind(count + "\n".join(shown) + more + remedy)
