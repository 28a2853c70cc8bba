"""Scenes and label of a site -> its cube, and its label on the cube's grid.

Labels drawn on an image often carry no georeferencing and lie on that image's own pixels; images of the same site may
differ by a pixel in size. Classes are never interpolated: a label that lies on another grid is warped with nearest.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cube.ingest import IngestReport, IngestSettings, ingest
from pipelines.cube.store import grid_of, open_cube
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.files import replacing
from pipelines.grid import Grid
from pipelines.progress import Progress
from pipelines.samples.label_codes import UNKNOWN, LabelSettings, read_codes, show_codes
from pipelines.sources.facts import FileFacts
from pipelines.sources.quality import LandsatMask, SclMask, ValueMask
from pipelines.sources.resampling import ArrayLayer, lattice_offset, overlaps, resample
from pipelines.sources.sites import SiteSource
from pipelines.sources.source import Source

QualityMask = SclMask | LandsatMask | ValueMask | None
MOST_PROBLEMS = 12  # sites of which a message says what is wrong with them
MAX_SIZE_DIFFERENCE_PX = 1  # crops of one area, cut by coordinates, differ by this much; more is another area


@dataclass(frozen=True)
class LabelFacts:
    """What a record says of a site's label; the default is that of a site without one. `changed_fraction`: share of class 1."""

    label_sha256: str = ""
    changed_fraction: float | None = None
    notes: tuple[str, ...] = ()
    sentence: str = "no label: predicted only"

    def to_json(self) -> dict[str, Any]:
        return {"label_sha256": self.label_sha256, "changed_fraction": self.changed_fraction, "notes": list(self.notes)}


def ingest_site(
    source: Source, quality_mask: QualityMask, uri: str, settings: IngestSettings, progress: Progress, *, least: int = 2
) -> IngestReport:
    """The site's scenes into its cube. Raises RequestError: too few usable dates, a CRS that is not of the Earth."""
    report = ingest(source, quality_mask, uri, None, settings, progress)
    cube = open_cube(uri)
    written = [str(scene) for scene in cube["scene_id"].values]
    if len(written) < least:
        refused = "; ".join(str(error) for error in report.refused[:3])
        needed = "change needs two" if least == 2 else f"at least {least} are needed"
        raise RequestError(f"{len(written)} of its dates can be used ({', '.join(written) or 'none'}), {needed}; {refused}")
    return report


def refuse_sites(problems: Mapping[str, RequestError], good: Sequence[str]) -> RequestError:
    """One error that says what is wrong with every site, and how to go on with the good ones."""
    shown = [f"  {name}: {problem}" for name, problem in list(problems.items())[:MOST_PROBLEMS]]
    more = f"\n  and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    remedy = f"\nto go on without: source.sites: [{', '.join(good)}]" if good else ""
    count = f"{len(problems)} of {len(problems) + len(good)} sites cannot be used:\n"
    kind = MissingInput if all(isinstance(problem, MissingInput) for problem in problems.values()) else RequestError
    return kind(count + "\n".join(shown) + more + remedy)


# ---------------------------------------------------------------- labels


def ingest_label(source: SiteSource, uri: str, settings: LabelSettings, target: Path, file: Path | None) -> LabelFacts:
    """The label in `file` on the grid of the cube at `uri`, written to `target` (.npy, uint8) in one rename; None: no label.

    Raises MissingInput, RequestError (the label does not match codes or images).
    """
    if file is None:
        target.unlink(missing_ok=True)
        return LabelFacts()
    drawn_on = None
    if settings.grid_of != "own":
        scene = source.list_scenes().scenes[0 if settings.grid_of == "first" else -1]
        part = (scene.parts or (scene,))[0]
        drawn_on = {band.name: source.grid_of(part, band.name) for band in source.bands}
    label_YX, notes = read_label(file, grid_of(open_cube(uri)), settings, drawn_on)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, flush=False, mark="partial") as draft, draft.open("wb") as opened:
        np.save(opened, label_YX)
    shares = {name: class_share(label_YX, k) for k, name in enumerate(settings.names)}
    said = f"{shares['changed']:.2%} of the label changed" if settings.all_classes else ""
    said = said or "label: " + ", ".join(f"{share:.2%} {name}" for name, share in shares.items())
    return LabelFacts(hashlib.sha256(label_YX.tobytes()).hexdigest(), class_share(label_YX), tuple(notes), said)


def class_share(label_YX: np.ndarray, number: int = 1) -> float:
    """Share of the pixels of a class among the known ones; of 1, changed."""
    known = np.count_nonzero(label_YX != UNKNOWN)
    return float(np.count_nonzero(label_YX == number) / known) if known else float("nan")


def read_label(
    path: Path, grid: Grid, settings: LabelSettings, drawn_on: Mapping[str, Grid] | None = None
) -> tuple[np.ndarray, list[str]]:
    """The label raster at `path` on `grid` (the cube's): label_YX uint8, and what had to be done to the file to get there.

    Codes in neither list, the file's nodata and what lies outside are unknown. `drawn_on` are the grids of a scene's bands, of
    which one has the label's pixels; None: the label has a georeference of its own. A site where nothing changed is one to learn
    from: one class is accepted, and noted, unless the file holds other codes too, which then are likely to be the other class.
    Raises MissingInput (no such file) and RequestError (not readable, not georeferenced, another shape, none of the codes).
    """
    codes = Counter(code for one in settings.codes for code in set(one))
    if both := sorted(code for code, times in codes.items() if times > 1):
        names = " and for ".join(
            name for name, own in zip(settings.names[::-1], settings.codes[::-1], strict=True) if both[0] in own
        )
        raise RequestError(f"labels: the codes {both} stand for {names}; keep each in one list")
    try:
        classes_YX, own, others = read_codes(path, settings)
    except SceneRefused as error:
        raise RequestError(f"the label {path} cannot be used: {error.detail}") from error
    notes: list[str] = []
    there = own
    if drawn_on is not None:
        classes_YX, there = _fit(classes_YX, drawn_on, path, notes)
    if there is None:
        raise RequestError(
            f"the label {path} has no georeferencing; set labels.grid_of to first or last: the scene on whose pixels it was drawn"
        )
    if not overlaps(there, grid):
        raise RequestError(
            f"the label {path} lies at {_bounds(there)}, outside of the images at {_bounds(grid)}: "
            "it is of another site; correct labels.path"
        )
    height, width = grid.shape_yx
    if lattice_offset(there, grid) is None:
        notes.append(f"{path.name} was warped (nearest) onto the cube's grid of {height} x {width} pixels")
    facts = FileFacts(classes_YX.dtype, there, nodata=(UNKNOWN,))
    label_YX = np.ma.getdata(resample(ArrayLayer(classes_YX, facts), facts, grid, slice(0, height), "nearest"))
    return label_YX, [*notes, *_check_classes(path, label_YX, others, settings)]


def _bounds(grid: Grid) -> str:
    return f"({', '.join(f'{v:.9g}' for v in grid.bounds_xy)}) in {grid.crs[:40]}"


def _check_classes(path: Path, label_YX: np.ndarray, others: Mapping[float, int], settings: LabelSettings) -> list[str]:
    """Notes on the classes. Raises RequestError where there is none, or where one is missing and may be among `others` (code ->
    pixels) and all are asked for."""
    counts = {name: int(np.count_nonzero(label_YX == k)) for k, name in reversed([*enumerate(settings.names)])}
    missing = " and no ".join(name for name, count in counts.items() if not count)
    unknown = label_YX.size - sum(counts.values())
    if missing and ((others and settings.all_classes) or not any(counts.values())):
        held = f"; the file also holds the codes {show_codes(others)}" if others else ""
        found = ", ".join(f"{count} {name}" for name, count in [*counts.items(), ("unknown", unknown)])
        raise RequestError(
            f"the label {path} has no {missing} pixel on the images ({found}){held}: correct {settings.key}, or leave the site "
            "out of source.sites"
        )
    notes = [f"{path.name} has no {missing} pixel"] if missing and settings.all_classes else []
    if unknown:
        codes = f"codes {show_codes(others)} mean {'neither' if len(counts) == 2 else 'none'}" if others else ""
        codes = codes or "nodata, or outside of the label"
        notes.append(f"{path.name}: {unknown / label_YX.size:.1%} of the pixels are unknown and left out ({codes})")
    return notes


def _shown(found: Mapping[float, int]) -> str:
    """The most frequent codes, with how many pixels hold them."""
    common = sorted(found.items(), key=lambda item: -item[1])
    more = f" and {len(common) - 6} more" if len(common) > 6 else ""
    return ", ".join(f"{code:g} ({count} px)" for code, count in common[:6]) + more


def _fit(classes_YX: np.ndarray, drawn_on: Mapping[str, Grid], path: Path, notes: list[str]) -> tuple[np.ndarray, Grid]:
    """The label cropped or padded with unknown, at its lower and right edges, to the band with the nearest shape, and its grid.

    Raises RequestError if none is within a pixel.
    """
    height, width = classes_YX.shape
    apart = {name: max(abs(height - one.shape_yx[0]), abs(width - one.shape_yx[1])) for name, one in drawn_on.items()}
    band = min(apart, key=apart.__getitem__)
    shapes: dict[tuple[int, ...], str] = {}
    for name, one in drawn_on.items():
        shapes.setdefault(one.shape_yx, name)
    if apart[band] > MAX_SIZE_DIFFERENCE_PX:
        has = ", ".join(f"{shape[0]} x {shape[1]}{f' ({name})' if len(shapes) > 1 else ''}" for shape, name in shapes.items())
        raise RequestError(
            f"the label {path} has {height} x {width} pixels, its scene {has}; they may "
            "differ by one pixel: set labels.grid_of to the scene it was drawn on, or correct labels.path"
        )
    rows, columns = drawn_on[band].shape_yx
    if len(shapes) > 1:
        notes.append(f"{path.name} has the pixels of band {band}, {rows} x {columns}; other bands have another resolution")
    if (height, width) != (rows, columns):
        notes.append(f"{path.name} has {height} x {width} pixels, its scene {rows} x {columns}: cut or padded with unknown")
    fitted_YX = np.full((rows, columns), UNKNOWN, np.uint8)
    fitted_YX[:height, :width] = classes_YX[:rows, :columns]
    return fitted_YX, drawn_on[band]
