"""Measurements of the objects that `track --run` followed, as DICOM SR, with a DICOM SEG in which each object is a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.seg import Segments, classes_of, write_labels
from pipelines.errors import RequestError
from pipelines.tracking.label_series import LabelSeries

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.products.dicom_sr import Measured
    from pipelines.products.track_files import Tables
    from pipelines.sources.dicom_references import ReferencedSeries

SEG, OBJECTS, SR = "seg", "seg-objects", "sr"  # folders of files of one series each, as other programs expect them
MOST_MEASURED = 5000  # groups of all reports together; highdicom takes some 20 ms for each


def write_sr(
    tracked: LabelSeries, ids: Sequence[np.ndarray], tables: Tables, referred: ReferencedSeries, folder: Path, segments: Segments
) -> list[Path]:
    """The SR files in `folder`/sr and the SEG files of single objects in `folder`/seg-objects.

    `tracked`: the masks of what was tracked; `ids`: the track of each pixel at each time. Raises RequestError, StorageFull.
    """
    from pipelines.products.dicom_sr import classes_of_tracks, write_measurements

    measured = measured_objects(tables.objects, tables.events, tracked.times)
    if len(measured) > MOST_MEASURED:
        problem = f"{len(measured)} objects at all times together, and reports hold at most {MOST_MEASURED}"
        raise RequestError(f"{problem}: leave out small objects with --min-size; objects.csv has them all")
    classes = classes_of_tracks(ids, tracked.labels, classes_of(tracked, segments), referred)
    of_objects = replace(tracked, labels=np.stack(ids).astype(np.uint8))
    record = write_labels(of_objects, referred, folder / OBJECTS, Segments(classes, segments.maker))
    segmentations = [Path(path) for path in record["files"]]
    return [*segmentations, *write_measurements(measured, classes, segmentations, referred, folder / SR)]


def measured_objects(objects: pd.DataFrame, events: pd.DataFrame, times: Sequence[np.datetime64 | float]) -> list[Measured]:
    """The rows of objects.csv, and of events.csv those of what is gone, as a report states them."""
    from pipelines.products.dicom_sr import SIZES, Measured
    from pipelines.tracking.table import time_of

    (column,) = time_of(times[0])
    stated = np.array([time_of(time)[column] for time in times])
    sizes = [name for name in SIZES if name in objects]
    made = []
    for rows in (objects[objects.event != "not seen"], events[events.event == "gone"]):
        of_event = [name for name in sizes if name in rows]  # none of what is gone
        for t, row in zip(np.searchsorted(stated, rows[column].to_numpy()).tolist(), rows.to_dict("records"), strict=True):
            change = None if np.isnan(row["change"]) or row["event"] == "gone" else float(row["change"])
            made.append(Measured(t, int(row["track_id"]), row["event"], {name: float(row[name]) for name in of_event}, change))
    return made


def dicom_lines(folder: Path, files: Sequence[str]) -> list[str]:
    """What a person is told of the SEG and SR files among `files`, names below `folder`."""
    own = {what: [name for name in files if name.startswith(f"{below}/")] for what, below in (("SEG", SEG), ("SR", SR))}
    return [f"DICOM {what}: {folder / of[0]}" + f" and {len(of) - 1} more" * (len(of) > 1) for what, of in own.items() if of]
