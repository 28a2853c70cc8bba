"""Tracked objects as tables: one row per object and date, one per event, one per track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.calendar import elapsed_seconds, is_elapsed
from pipelines.tracking.objects import Space
from pipelines.tracking.tracks import TrackedDate, When

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # column -> value
TIMES = ("date", "seconds", "step")  # the column of time: UTC, since the first frame, or the number of the mask
EVENT_COLUMNS = ("track_id", "event", "others", "change")
TRACK_COLUMNS = ("track_id", "began", "parents", "ended", "dates", "dates_seen")


def size_columns(space: Space) -> tuple[str, str, str, str, str]:
    """Names of the columns for size, outline, longest axis, shortest axis and movement, with their units."""
    unit = space.unit
    size, outline = (f"area_{unit}2", f"perimeter_{unit}") if space.axes == 2 else (f"volume_{unit}3", f"surface_{unit}2")
    return size, outline, f"major_{unit}", f"minor_{unit}", f"moved_{unit}"


def time_of(when: When) -> Row:
    """The column of time of a row, and its value."""
    if not isinstance(when, np.datetime64):
        return {"step": when}
    return {"seconds": elapsed_seconds(when)} if is_elapsed(when) else {"date": when}


def time_column(table: pd.DataFrame) -> str:
    """The one of `TIMES` that a table has; "date" if it is empty."""
    return next((name for name in TIMES if name in table), TIMES[0])


def object_rows(tracked: TrackedDate, space: Space) -> list[Row]:
    """One row per object of a date. x, y (z): centroid in the world; on a map in the grid's CRS, with lon and lat beside it.

    Where `event` is "not seen", sizes and place are those last seen. `change` is relative to the size that grown and shrunk
    compare with. Pixel columns are zero-based; a box ends one past its last pixel.
    """
    shapes = tracked.shapes
    numbers = (shapes.size_N, shapes.outline_N, shapes.major_N, shapes.minor_N, tracked.moved_N)
    world = space.world(shapes.centroid_ND)
    lonlat = space.lonlat(shapes.centroid_ND) if space.grid is not None else np.empty((len(shapes), 0))
    axes = ("row", "column") if space.axes == 2 else ("slice", "row", "column")
    rows = []
    for n in range(len(shapes)):
        row: Row = {**time_of(tracked.when), "track_id": tracked.track_id_N[n], "event": tracked.event_N[n]}
        row |= {"parents": _ids(tracked.parents_N[n])}
        row |= {name: float(values[n]) for name, values in zip(size_columns(space), numbers, strict=True)}
        row |= {"change": np.nan if tracked.change_N[n] is None else tracked.change_N[n]}
        row |= dict(zip("xyz", world[n].tolist(), strict=False)) | dict(zip(("lon", "lat"), lonlat[n].tolist(), strict=False))
        for axis, centre, (first, last) in zip(axes, shapes.centroid_ND[n].tolist(), shapes.box_ND2[n].tolist(), strict=True):
            row |= {axis: centre, f"{axis}_from": first, f"{axis}_to": last}
        row |= {"pixels": int(shapes.pixels_N[n]), "seen_share": float(shapes.seen_share_N[n])}
        rows.append(row | {"at_edge": bool(shapes.at_edge_N[n])})
    return rows


def event_rows(tracked: TrackedDate) -> list[Row]:
    """One row per event of a date; `others` are the tracks that ended in it (merged) or came out of it (split)."""
    return [
        {
            **time_of(event.when),
            "track_id": event.track_id,
            "event": event.kind,
            "others": _ids(event.others),
            "change": np.nan if event.change is None else event.change,
        }
        for event in tracked.events
    ]


def as_tables(sequence: Sequence[TrackedDate], space: Space) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(objects, events, tracks) of a sequence."""
    objects = [row for tracked in sequence for row in object_rows(tracked, space)]
    events = [row for tracked in sequence for row in event_rows(tracked)]
    return tables_of(objects, events, space)


def tables_of(objects: list[Row], events: list[Row], space: Space) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(objects, events, tracks) as data frames, by date and then by track; times are datetime64[ns] UTC, or numbers."""
    import pandas as pd

    object_table = pd.DataFrame(objects)
    time = time_column(object_table)
    event_table = pd.DataFrame(events, columns=[time, *EVENT_COLUMNS])
    for table in (object_table, event_table):
        if time == "date" and len(table):
            table[time] = pd.to_datetime(table[time].to_numpy(dtype="datetime64[ns]"))
    if len(object_table):
        object_table = object_table.sort_values([time, "track_id"], ignore_index=True)
    event_table = event_table.sort_values([time, "track_id"], ignore_index=True, kind="stable")
    return object_table, event_table, track_table(object_table, event_table, space, time)


def track_table(objects: pd.DataFrame, events: pd.DataFrame, space: Space, time: str) -> pd.DataFrame:
    """One row per track: how it began and ended ("" where it is there on the last date), and its first, last and largest size."""
    import pandas as pd

    size = size_columns(space)[0]
    ends = {int(e.track_id): "gone" for e in events[events.event == "gone"].itertuples()}
    for event in events[events.event == "merged"].itertuples():
        ends |= {int(other): f"merged into {event.track_id}" for other in str(event.others).split()}
    if not len(objects):
        return pd.DataFrame(columns=list(TRACK_COLUMNS))
    times = {f"first_{time}": (time, "first"), f"last_{time}": (time, "last")}
    seen = {"dates": ("event", "size"), "dates_seen": ("is_seen", "sum")}
    sizes = {f"{name}_{size}": (size, how) for name, how in (("first", "first"), ("last", "last"), ("largest", "max"))}
    own = objects.assign(is_seen=objects.event != "not seen").groupby("track_id")
    tracks = own.agg(began=("event", "first"), parents=("parents", "first"), **times, **seen, **sizes).reset_index()
    tracks.insert(3, "ended", [ends.get(int(track_id), "") for track_id in tracks.track_id])
    return tracks


def _ids(ids: tuple[int, ...]) -> str:
    return " ".join(map(str, ids))
