"""Masks per date -> every object's size, shape and position over time, as tables and a picture. Needs no config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import yaml

from flows import Json
from pipelines.calendar import is_elapsed, iso_utc
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.files import write_json
from pipelines.progress import Progress
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.products.track_files import Tables
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
    progress: Progress = lambda done, total: None,
) -> Json:
    """Writes objects.csv, events.csv, tracks.csv, tracks.png, outlines.parquet, outlines.geojson and track.json into `out`.

    Of volumes (NIfTI: one file of four dimensions, or a folder of files of three) tracks.nii.gz and viewer.html, no outlines.
    `paths`: mask files, a folder of them, or the folder of a monitor run. `out`: RUN/track of a run, else runs/track.
    `min_size` in m2: of a run its `monitoring.min_area_px`, else 0; `grow` relative; `farthest` in m.
    With `spacing_mm` (y, x), files are frames without georeferencing: everything is in mm, and there are no outlines.
    Of PNG files everything is in pixels without it.
    The files of an earlier run in `out` are replaced; anything else in it is left alone. Returns the record.
    Raises MissingInput, RequestError, SceneRefused (a file that cannot be read).
    """
    from pipelines.products.track_files import TrackFiles
    from pipelines.sources.nifti import NiftiSource
    from pipelines.tracking.mask_files import MonitorMasks
    from pipelines.tracking.tracks import Tracker, TrackSettings

    masks, space = masks_of([Path(path) for path in paths], pattern, spacing_mm)
    run = masks.folder if isinstance(masks, MonitorMasks) else None
    if min_size is None:
        min_size = least_size_of(run, space) if run else 0.0
    settings = TrackSettings(least_size=min_size, tolerance=grow, farthest=farthest)
    files = TrackFiles(space, outlines)
    tracker = Tracker(space, settings)
    total = len(masks) if isinstance(masks, list) else 0
    volumes = masks if isinstance(masks, NiftiSource) else None
    ids: list[np.ndarray] = []  # of volumes: the track of every voxel
    for done, one in enumerate(dated_masks(masks, code), start=1):
        tracked = tracker.advance(one.mask_YX, one.date, one.seen_YX)
        files.add(tracked)
        ids += [np.array([0, *tracked.track_id_N], np.int32)[tracked.label]] if volumes else []
        progress(done, max(total, done))
    if not files.objects:
        least = f" of at least {min_size:g} {unit_of_size(space)}" if min_size else ""
        asked = f" with the code {code}" if code is not None else ""
        where = f" of {', '.join(map(str, paths[:2]))}" if space.unit == "m" else ""  # names of files may name a patient
        problem = f"no object{least}{asked} in any of the {files.dates} masks{where}"
        remedy = "look at the files, lower --min-size or name another --code"
        raise RequestError(f"{problem}; an object is any pixel that is neither 0 nor nodata: {remedy}")
    folder = Path(out) if out is not None else run / "track" if run else Path("runs/track")
    what = Path(paths[0]).name if len(paths) == 1 and space.unit == "m" else counted(files.dates, "mask")
    tables, written = files.write(folder, f"Objects of {what}")
    for stale in (TRACK_VOLUMES, VIEWER):
        (folder / stale).unlink(missing_ok=True)
    if volumes is not None:
        written += write_track_volumes(folder, ids, volumes)
    record = record_of(folder, tables, written, settings, unit_of_size(space))
    write_json(folder / "track.json", record)
    return record


TRACK_VOLUMES, VIEWER = "tracks.nii.gz", "viewer.html"
Masks: TypeAlias = "list[MaskFile] | MonitorMasks | NiftiSource | LabelSeries"


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


def write_track_volumes(folder: Path, ids: Sequence[np.ndarray], volumes: NiftiSource) -> list[str]:
    """Names of the NIfTI file with the track of every voxel and time, 0 for none, and of the page that shows it."""
    from pipelines.products.nifti import write_nifti
    from pipelines.products.viewer import Layer, write_viewer

    times = [scene.observed_utc for scene in volumes.list_scenes().scenes]
    step_s = float(np.median(np.diff(times) / np.timedelta64(1, "s")))
    write_nifti(folder / TRACK_VOLUMES, ids, volumes.native_grid(), times, step_s, "driftline track of each voxel")
    shown = [] if is_elapsed(times[0]) else [iso_utc(time) for time in times]  # undated masks are numbered
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


def record_of(out: Path, tables: Tables, written: Sequence[str], settings: TrackSettings, unit: str) -> Json:
    """What `track.json` holds: counts, where the files lie, and lines for a person."""
    tracks, last = len(tables.tracks), tables.last
    message = f"{counted(tracks, 'track')} through {counted(tables.dates, 'date')}"
    least = f" (objects of at least {settings.least_size:.10g} {unit})" if settings.least_size else ""
    return {
        "message": message,
        "lines": [
            f"{message}: " + ", ".join(f"{count} {kind}" for kind, count in tables.counts.items()) + least,
            *(["sizes are in pixels: PNG files state no other; --spacing-mm Y,X gives mm"] if unit.startswith("px") else []),
            f"table:   {out / 'objects.csv'} ({len(tables.objects)} rows), {out / 'events.csv'}, {out / 'tracks.csv'}",
            f"picture: {out / 'tracks.png'}",
            *([f"viewer:  {out / VIEWER}"] if VIEWER in written else []),
        ],
        "dates": tables.dates,
        "tracks": tracks,
        "events": tables.counts,
        "grow": settings.tolerance,
        "min_size": settings.least_size,
        "objects_on_last_date": len(last),
        f"{tables.size}_on_last_date": float(last[tables.size].sum()),
        "files": [str(out / name) for name in [*written, "track.json"]],
    }
