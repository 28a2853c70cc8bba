"""Masks per date -> every object's size, shape and position over time, as tables and a picture. Needs no config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import yaml

from flows import Json
from flows.sr import dicom_lines
from flows.track_run import INDEX, KEY_IMAGES, RunFrames, frames_of, masks_of_frames, remove_stale, require_names, write_products
from pipelines.calendar import iso_utc
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.files import write_json
from pipelines.progress import Progress
from pipelines.wording import counted

if TYPE_CHECKING:
    from flows.seg import Segments
    from pipelines.grid import Grid
    from pipelines.products.track_files import Tables, TrackFiles
    from pipelines.products.track_series import SeriesFiles
    from pipelines.sources.nifti import NiftiSource
    from pipelines.tracking.label_series import LabelSeries
    from pipelines.tracking.mask_files import DatedMask, MaskFile, MonitorMasks
    from pipelines.tracking.objects import Space
    from pipelines.tracking.tracks import TrackSettings


def track(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    pattern: str | None = None,
    code: int | None = None,
    min_size: float | None = None,
    grow: float = 0.1,
    farthest: float | None = None,
    spacing_mm: Sequence[float] | None = None,
    outlines: bool = True,
    run: str | Path | None = None,
    segments: Segments | None = None,
    next_in: float | None = None,
    edge_error: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Json:
    """Writes objects.csv, events.csv, tracks.csv, tracks.png, outlines.parquet, outlines.geojson and track.json into `out`.

    Of visits growth.csv, growth_check.csv, totals.csv and growth.png too, of frames motion.csv, cycle.csv and motion.png.
    Of volumes (NIfTI: one file of four dimensions, or a folder of files of three) tracks.nii.gz and viewer.html, no outlines.
    `paths`: mask files, a folder of them, or the folder of a monitor run. `out`: RUN/track of a run, else runs/track.
    `min_size` in m2: of a run its `monitoring.min_area_px`, else 0; `grow` relative; `farthest` in m.
    With `spacing_mm` (y, x), files are frames that lie nowhere: sizes in mm, no outlines. Without it PNG files are in pixels.
    `run`: the folder of the run over frames or volumes that the masks were drawn on, which states times and pixel sizes. Then
    key_images.png, index.json and, of a DICOM series, seg/ are written too, with what `segments` states of the masks.
    `next_in`: days (hours, seconds, steps) from the last visit to the next; None: as the last interval. `edge_error`: standard
    deviation of the place of an outline in pixels, for all intervals; None: 1/sqrt(12).
    The files of an earlier run in `out` are replaced; anything else in it is left alone. Returns the record.
    Raises MissingInput, RequestError, SceneRefused (a file that cannot be read).
    """
    from pipelines.products.track_series import write_series
    from pipelines.tracking.growth import EDGE_ERROR_PX, GrowthSettings
    from pipelines.tracking.label_series import LabelSeries
    from pipelines.tracking.tracks import TrackSettings

    growth = GrowthSettings(EDGE_ERROR_PX if edge_error is None else edge_error, next_in=next_in)
    drawn = drawn_masks([Path(path) for path in paths], pattern, spacing_mm, code, run)
    space, owner = drawn.space, drawn.owner
    if isinstance(drawn.masks, LabelSeries):
        require_names(drawn.masks, segments)
    min_size = min_size if min_size is not None else least_size_of(owner, space) if owner else 0.0
    settings = TrackSettings(least_size=min_size, tolerance=grow, farthest=farthest)
    files, ids = follow(drawn, settings, outlines, code, progress)
    require_objects(files, space, min_size, code, paths)
    folder = Path(out) if out is not None else owner / "track" if owner else Path("runs/track")
    is_place = len(paths) == 1 and space.unit == "m"  # names of other files may name a patient
    of = drawn.frames.run.name if drawn.frames else Path(paths[0]).name if is_place else counted(files.dates, "mask")
    tables, written = files.write(folder, f"Objects of {of}")
    written += (series := write_series(folder, tables, space, growth, of)).names
    remove_stale(folder, (TRACK_VOLUMES, VIEWER, KEY_IMAGES, INDEX))
    if (volumes := volumes_of(drawn.masks)) is not None:
        written += write_track_volumes(folder, ids, *volumes)
    notes = list(drawn.notes)
    if drawn.frames is not None and isinstance(drawn.masks, LabelSeries):
        written, said = write_products(drawn.frames, drawn.masks, ids, tables, space, folder, written, segments, series.lines)
        notes += said
    record = record_of(folder, tables, written, settings, unit_of_size(space), series, notes)
    write_json(folder / "track.json", record)
    return record


def require_objects(files: TrackFiles, space: Space, min_size: float, code: int | None, paths: Sequence[str | Path]) -> None:
    """Raises RequestError where no mask has any object."""
    if files.objects:
        return
    least = f" of at least {min_size:g} {unit_of_size(space)}" if min_size else ""
    asked = f" with the code {code}" if code is not None else ""
    where = f" of {', '.join(map(str, paths[:2]))}" if space.unit == "m" else ""  # names of files may name a patient
    problem = f"no object{least}{asked} in any of the {files.dates} masks{where}"
    remedy = "look at the files, lower --min-size or name another --code"
    raise RequestError(f"{problem}; an object is any pixel that is neither 0 nor nodata: {remedy}")


TRACK_VOLUMES, VIEWER = "tracks.nii.gz", "viewer.html"
SHOWN = {
    "picture": "tracks.png", "growth": "growth.png", "motion": "motion.png", "viewer": VIEWER, "frames": KEY_IMAGES,
    "index": INDEX,
}  # fmt: skip
PIXELS = "sizes are in pixels: no file states another; --spacing-mm Y,X gives mm"
OF_RUN = "; of frames of a run --run RUN gives times, and what their files state"
Masks: TypeAlias = "list[MaskFile] | MonitorMasks | NiftiSource | LabelSeries"


@dataclass(frozen=True)
class Drawn:
    """Masks and the space that they lie in; of a run its folder, `frames` where it is of frames or volumes."""

    masks: Masks
    space: Space
    owner: Path | None = None
    frames: RunFrames | None = None
    notes: Sequence[str] = ()


def drawn_masks(
    paths: Sequence[Path], pattern: str | None, spacing_mm: Sequence[float] | None, code: int | None, run: str | Path | None
) -> Drawn:
    """The masks that the paths name. Raises MissingInput, RequestError."""
    from pipelines.tracking.mask_files import MonitorMasks
    from pipelines.tracking.objects import Space

    if run is None:
        masks, space = masks_of(paths, pattern, spacing_mm)
        return Drawn(masks, space, masks.folder if isinstance(masks, MonitorMasks) else None)
    if pattern is not None:
        raise RequestError("with --run the masks are those of all its times, in order of their names: leave --pattern out")
    frames = frames_of(Path(run))
    labels, notes = masks_of_frames(paths, frames, code)
    if spacing_mm is None:
        return Drawn(labels, Space.of_grid(frames.grid), frames.folder, frames, notes)
    if frames.grid.unit == "mm":
        raise RequestError(f"the run states the size of a pixel, {frames.grid.spacing} mm: leave --spacing-mm out")
    return Drawn(labels, Space.of_spacing(tuple(spacing_mm), "mm"), frames.folder, frames, notes)


def follow(
    drawn: Drawn, settings: TrackSettings, outlines: bool, code: int | None, progress: Progress
) -> tuple[TrackFiles, list[np.ndarray]]:
    """(rows of all dates; of volumes, and of frames of a run, the track of every pixel at each time)."""
    from pipelines.products.track_files import TrackFiles
    from pipelines.tracking.tracks import Tracker

    files, tracker, ids = TrackFiles(drawn.space, outlines), Tracker(drawn.space, settings), list[np.ndarray]()
    is_kept = drawn.frames is not None or volumes_of(drawn.masks) is not None
    total = len(drawn.masks) if isinstance(drawn.masks, list) else 0
    for done, one in enumerate(dated_masks(drawn.masks, code), start=1):
        tracked = tracker.advance(one.mask_YX, one.date, one.seen_YX)
        files.add(tracked)
        ids += [tracked.track_of_pixel] if is_kept else []
        progress(done, max(total, done))
    return files, ids


def masks_of(paths: Sequence[Path], pattern: str | None, spacing_mm: Sequence[float] | None) -> tuple[Masks, Space]:
    """The masks that the paths name, and the space that they lie in. Raises MissingInput, RequestError."""
    from pipelines.tracking.mask_files import are_pictures, check_shapes, find_masks, grid_of
    from pipelines.tracking.objects import Space
    from pipelines.tracking.seg_files import find_seg, read_seg
    from pipelines.tracking.volume_masks import find_volumes

    for path in paths if pattern is None else ():
        task = config_of(path).get("task", "monitor")  # of a run's folder
        if task != "monitor":
            raise RequestError(f"{path} is the folder of a {task} run: `driftline track` takes masks, or a monitoring run")
    if segmentations := find_seg(paths):
        if pattern is not None or spacing_mm is not None:
            raise RequestError("DICOM SEG files state their times and the size of a voxel: leave --pattern and --spacing-mm out")
        labels = read_seg(segmentations)
        assert labels.grid is not None  # SEG files have one
        if len(labels.times) < 2:
            raise RequestError("the segmentation is of one time; objects are followed through two times or more")
        return labels, Space.of_grid(labels.grid)
    volumes = find_volumes(paths, pattern)
    if volumes is not None:
        if spacing_mm is not None:
            raise RequestError("NIfTI files state the size of their voxels: leave --spacing-mm out")
        return volumes, Space.of_grid(volumes.native_grid())
    masks = find_masks(paths, pattern)
    if spacing_mm is None and not are_pictures(masks):
        return masks, Space.of_grid(grid_of(masks))
    check_shapes(masks)
    return masks, Space.of_spacing((1.0, 1.0), "px") if spacing_mm is None else Space.of_spacing(tuple(spacing_mm), "mm")


def dated_masks(masks: Masks, code: int | None) -> Iterator[DatedMask]:
    from pipelines.sources.nifti import NiftiSource
    from pipelines.tracking.label_series import LabelSeries
    from pipelines.tracking.mask_files import read_masks
    from pipelines.tracking.volume_masks import read_volume_masks

    if isinstance(masks, LabelSeries):
        return masks.masks(code)
    return read_volume_masks(masks, code) if isinstance(masks, NiftiSource) else read_masks(masks, code)


def volumes_of(masks: Masks) -> tuple[Grid, Sequence[np.datetime64]] | None:
    """(grid of the volumes, their times, NaT where these are not known); None for images."""
    from pipelines.sources.nifti import NiftiSource
    from pipelines.tracking.label_series import LabelSeries
    from pipelines.tracking.volume_masks import times_of

    if isinstance(masks, NiftiSource):
        return masks.native_grid(), times_of(masks)
    if isinstance(masks, LabelSeries) and masks.grid is not None and masks.grid.is_volume:
        return masks.grid, [time if isinstance(time, np.datetime64) else np.datetime64("NaT", "ns") for time in masks.times]
    return None


def write_track_volumes(folder: Path, ids: Sequence[np.ndarray], grid: Grid, times: Sequence[np.datetime64]) -> list[str]:
    """Names of the NIfTI file with the track of every voxel and time, 0 for none, and of the page that shows it."""
    from pipelines.products.nifti import write_nifti
    from pipelines.products.viewer import Layer, write_viewer
    from pipelines.products.volume_products import seconds_between

    is_known = not np.isnat(times[0])
    step_s = seconds_between(times) if is_known else None
    write_nifti(folder / TRACK_VOLUMES, ids, grid, times, step_s, "driftline track of each voxel")
    shown = [iso_utc(time) for time in times] if is_known else []  # masks without a time are numbered
    tracks = Layer(folder / TRACK_VOLUMES, "track of each voxel", shown, kind="labels")
    write_viewer(folder / VIEWER, "Tracks", counted(len(times), "time"), [tracks])
    return [TRACK_VOLUMES, VIEWER]


def unit_of_size(space: Space) -> str:
    return f"{space.unit}{'²' if space.axes == 2 else '³'}"


def least_size_of(run: Path, space: Space) -> float:
    """What a run's `monitoring.min_area_px` is in m2, of the smallest pixels of the raster. 0: not known."""
    monitoring = config_of(run).get("monitoring")
    pixels = monitoring.get("min_area_px") if isinstance(monitoring, dict) else None
    return pixels * space.smallest_pixel * (1 - 1e-6) if isinstance(pixels, int) else 0.0


def config_of(folder: Path) -> Json:
    """The config in the folder of a run; {} where there is none. Raises ArtefactDamaged."""
    config = folder / "config.yaml"
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ArtefactDamaged(f"{config}: not YAML; `driftline monitor CONFIG` writes it anew") from e
    return content if isinstance(content, dict) else {}


def record_of(
    out: Path, tables: Tables, written: Sequence[str], settings: TrackSettings, unit: str, series: SeriesFiles,
    notes: Sequence[str],
) -> Json:  # fmt: skip
    """What `track.json` holds: counts, where the files lie, and lines for a person."""
    tracks, last, seg = len(tables.tracks), tables.last, [name for name in written if name.endswith(".dcm")]
    message = f"{counted(tracks, 'track')} through {counted(tables.dates, 'date')}"
    least = f" (objects of at least {settings.least_size:.10g} {unit})" if settings.least_size else ""
    return {
        "message": message,
        "lines": [
            f"{message}: " + ", ".join(f"{count} {kind}" for kind, count in tables.counts.items()) + least,
            *([PIXELS + OF_RUN * (INDEX not in written)] if unit.startswith("px") else []),
            *series.lines,
            f"table:   {out / 'objects.csv'} ({len(tables.objects)} rows), {out / 'events.csv'}, {out / 'tracks.csv'}",
            *(f"{what + ':':<8} {out / name}" for what, name in SHOWN.items() if name in written),
            *dicom_lines(out, seg),
            *(f"note: {note}" for note in notes),
        ],
        "dates": tables.dates,
        "tracks": tracks,
        "events": tables.counts,
        "grow": settings.tolerance,
        "min_size": settings.least_size,
        "objects_on_last_date": len(last),
        f"{tables.size}_on_last_date": float(last[tables.size].sum()),
        **series.facts,
        "files": [str(out / name) for name in [*written, "track.json"]],
    }
