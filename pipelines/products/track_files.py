"""Tracked objects as files: tables of objects, events and tracks, a picture, and outlines; gathered date by date."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely

from pipelines.products.polygons import outlines_of, write_geojson
from pipelines.products.track_plot import draw_tracks
from pipelines.tracking.objects import Space
from pipelines.tracking.table import event_rows, object_rows, size_columns, tables_of, time_column
from pipelines.tracking.tracks import TrackedDate, When

EVENT_ORDER = ("new", "grown", "shrunk", "gone", "merged", "split", "stable", "not seen", "first seen")
MOST_DATES_OF_OUTLINES = 500
OUTLINES = ("outlines.parquet", "outlines.geojson")


@dataclass(frozen=True)
class Tables:
    """One row per object and date, per event, and per track; and all dates. `size`: the column of their size."""

    objects: pd.DataFrame
    events: pd.DataFrame
    tracks: pd.DataFrame
    times: Sequence[When]
    size: str

    @property
    def dates(self) -> int:
        return len(self.times)

    @property
    def counts(self) -> dict[str, int]:
        """Events by kind, in the order of `EVENT_ORDER`."""
        counts = Counter(self.events.event)
        return {kind: counts[kind] for kind in EVENT_ORDER if counts[kind]}

    @property
    def last(self) -> pd.DataFrame:
        """The objects of the last time that has any."""
        times = self.objects[time_column(self.objects)]
        return self.objects[times == times.max()]


class TrackFiles:
    """Rows, outlines and the backdrop of the picture, gathered date by date."""

    def __init__(self, space: Space, with_outlines: bool):
        self.space, self.grid = space, space.grid if with_outlines else None
        self.objects: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.polygons: list[shapely.MultiPolygon] = []  # one per object and date, in the grid's CRS
        self.times: list[When] = []
        self.backdrop: np.ndarray | None = None

    @property
    def dates(self) -> int:
        return len(self.times)

    def add(self, tracked: TrackedDate) -> None:
        """Takes in one date; call it for every date, in order."""
        self.times.append(tracked.when)
        if len(self.times) > MOST_DATES_OF_OUTLINES:
            self.grid = None  # the file would be too large to open
        self.objects += object_rows(tracked, self.space)
        self.events += event_rows(tracked)
        if self.grid is not None:
            self.polygons += outlines_of(tracked.label, self.grid, len(tracked.shapes))
        there = (tracked.label > 0).astype("int32")
        there = there.max(axis=0) if there.ndim > 2 else there  # volumes are looked at along z
        self.backdrop = there if self.backdrop is None else self.backdrop + there

    def write(self, out: Path, title: str) -> tuple[Tables, list[str]]:
        """(the tables, names of the files) written into `out`, those of an earlier run replaced."""
        tables = Tables(*tables_of(self.objects, self.events, self.space), self.times, size_columns(self.space)[0])
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".track-") as name:
            draft = Path(name)
            for table, stem in ((tables.objects, "objects"), (tables.events, "events"), (tables.tracks, "tracks")):
                table.to_csv(draft / f"{stem}.csv", index=False, float_format="%.10g")
            draw_tracks(tables.objects, tables.events, self.space, draft / "tracks.png", title, backdrop_YX=self.backdrop)
            if self.grid is not None:
                frame = geopandas.GeoDataFrame(pd.DataFrame(self.objects), geometry=self.polygons, crs=self.grid.crs)
                frame["date"] = pd.to_datetime(frame["date"].to_numpy(dtype="datetime64[ns]")).tz_localize("UTC")
                frame.to_parquet(draft / OUTLINES[0], index=False, compression="zstd")
                write_geojson(frame, draft / OUTLINES[1])
            written = sorted(path.name for path in draft.iterdir())
            for stale in OUTLINES:
                (out / stale).unlink(missing_ok=True)
            for file in written:
                shutil.move(draft / file, out / file)
        return tables, written
