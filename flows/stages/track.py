"""Masks per date -> every object's size, shape and place over time, as tables and a picture. Needs no config."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.folder import write_json
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.progress import Progress

EVENT_ORDER = ("new", "grown", "shrunk", "gone", "merged", "split", "stable", "not seen", "first seen")
MOST_DATES_OF_OUTLINES = 500


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
) -> dict[str, Any]:
    """Writes objects.csv, events.csv, tracks.csv, tracks.png, outlines.parquet, outlines.geojson and track.json into `out`.

    `paths`: mask files, a folder of them, or the folder of a monitor run. `out`: RUN/track of a run, else runs/track.
    `min_size` in m2: of a run its `monitoring.min_area_px`, else 0; `grow` relative; `farthest` in m.
    With `spacing_mm` (y, x), files are frames without a place in the world: everything is in mm, and there are no outlines.
    The files of an earlier run in `out` are replaced; anything else in it is left alone. Hands back the record.
    Raises MissingInput, RequestError, SceneRefused (a file that cannot be read).
    """
    from pipelines.tracking.mask_files import MonitorMasks, check_shapes, find_masks, grid_of, read_masks
    from pipelines.tracking.objects import Space
    from pipelines.tracking.tracks import Tracker, TrackSettings

    masks = find_masks([Path(path) for path in paths], pattern)
    if spacing_mm is None:
        space = Space.of_grid(grid_of(masks))
    else:
        space = Space.of_spacing(tuple(spacing_mm), "mm")
        check_shapes(masks)
    run = masks.folder if isinstance(masks, MonitorMasks) else None
    if min_size is None:
        min_size = least_size_of(run, space) if run else 0.0
    settings = TrackSettings(least_size=min_size, tolerance=grow, farthest=farthest)
    record = _Record(space, outlines and space.grid is not None)
    tracker = Tracker(space, settings)
    total = len(masks) if isinstance(masks, list) else 0
    for done, one in enumerate(read_masks(masks, code), start=1):
        record.add(tracker.advance(one.mask_YX, one.date, one.seen_YX))
        progress(done, max(total, done))
    if not record.objects:
        least = f" of at least {min_size:g} {space.unit}²" if min_size else ""
        asked = f" with the code {code}" if code is not None else ""
        raise RequestError(
            f"no object{least}{asked} in any of the {record.dates} masks of {', '.join(map(str, paths[:2]))}; "
            "an object is any pixel that is neither 0 nor nodata: look at the files, lower --min-size or name another --code"
        )
    folder = Path(out) if out is not None else run / "track" if run else Path("runs/track")
    return record.write(folder, title_of(paths), settings)


def least_size_of(run: Path, space: Any) -> float:
    """What a run's `monitoring.min_area_px` is in m2, of the smallest pixels of the raster. 0: not known."""
    import numpy as np
    import yaml

    config = run / "config.yaml"
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ArtefactDamaged(f"{config}: not YAML, so the run's monitoring.min_area_px is not known; give --min-size") from e
    monitoring = content.get("monitoring") if isinstance(content, dict) else None
    pixels = monitoring.get("min_area_px") if isinstance(monitoring, dict) else None
    if not isinstance(pixels, int):
        return 0.0
    rows, columns = space.grid.shape_yx
    corners = np.array([[row, column] for row in (0, rows - 1) for column in (0, columns - 1)], np.float64)
    return pixels * float(space.pixel_size(corners).min()) * (1 - 1e-6)


def title_of(paths: Sequence[str | Path]) -> str:
    first = Path(paths[0])
    return f"Objects of {first.name if len(paths) == 1 else f'{len(paths)} masks'}"


class _Record:
    """Rows, outlines and the backdrop of the picture, gathered date by date."""

    def __init__(self, space: Any, with_outlines: bool):
        self.space, self.with_outlines = space, with_outlines
        self.objects: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.polygons: list[Any] = []
        self.dates = 0
        self.backdrop: Any = None

    def add(self, tracked: Any) -> None:
        from pipelines.products.track_outlines import outlines_of
        from pipelines.tracking.table import event_rows, object_rows

        self.dates += 1
        if self.with_outlines and self.dates > MOST_DATES_OF_OUTLINES:
            self.with_outlines = False  # the file would be too large to open
        self.objects += object_rows(tracked, self.space)
        self.events += event_rows(tracked)
        self.polygons += outlines_of(tracked, self.space.grid) if self.with_outlines else []
        there = (tracked.label > 0).astype("int32")
        self.backdrop = there if self.backdrop is None else self.backdrop + there

    def write(self, out: Path, title: str, settings: Any) -> dict[str, Any]:
        from pipelines.products.track_outlines import frame_of, write_outlines
        from pipelines.products.track_plot import draw_tracks
        from pipelines.tracking.table import tables_of

        objects, events, tracks = tables_of(self.objects, self.events, self.space)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".track-") as name:
            draft = Path(name)
            for table, stem in ((objects, "objects"), (events, "events"), (tracks, "tracks")):
                table.to_csv(draft / f"{stem}.csv", index=False, float_format="%.10g")
            draw_tracks(objects, events, self.space, draft / "tracks.png", title, backdrop_YX=self.backdrop)
            if self.with_outlines:
                write_outlines(frame_of(self.objects, self.polygons, self.space.grid), draft)
            written = sorted(path.name for path in draft.iterdir())
            for stale in ("outlines.parquet", "outlines.geojson"):
                (out / stale).unlink(missing_ok=True)
            for file in written:
                shutil.move(draft / file, out / file)
        record = self._summary(out, objects, events, tracks, written, settings)
        write_json(out / "track.json", record)
        return record

    def _summary(self, out: Path, objects: Any, events: Any, tracks: Any, written: list[str], settings: Any) -> dict[str, Any]:
        from pipelines.tracking.table import size_columns

        counts, size = Counter(events.event), size_columns(self.space)[0]
        notified = {kind: counts[kind] for kind in EVENT_ORDER if counts[kind]}
        last = objects[objects.date == objects.date.max()]
        message = f"{len(tracks)} track{'s' * (len(tracks) != 1)} through {self.dates} dates"
        least = f" (objects of at least {settings.least_size:.4g} {self.space.unit}²)" if settings.least_size else ""
        return {
            "message": message,
            "lines": [
                f"{message}: " + ", ".join(f"{count} {kind}" for kind, count in notified.items()) + least,
                f"table:   {out / 'objects.csv'} ({len(objects)} rows), {out / 'events.csv'}, {out / 'tracks.csv'}",
                f"picture: {out / 'tracks.png'}",
            ],
            "dates": self.dates,
            "tracks": len(tracks),
            "events": notified,
            "grow": settings.tolerance,
            "min_size": settings.least_size,
            "objects_on_last_date": len(last),
            f"{size}_on_last_date": float(last[size].sum()),
            "files": [str(out / name) for name in [*written, "track.json"]],
        }
