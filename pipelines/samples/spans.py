"""Spans of a sample with a class each, and which of its steps they hold.

A step has the class of the span that holds it: by its number in the file, or by its seconds from the first frame. The answer of a
sample is {"unit": "frames" or "seconds", "spans": [[start, stop, class], ...]} in JSON, half-open, in order, without overlap.

Shapes: T frames.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.boxes import FilePlaces
from pipelines.samples.sample_store import SampleTable, names_of

UNLABELLED = -1
KnownSpan = tuple[float, float, str]  # start, stop, class


def classes_of(
    table: SampleTable, n: int, unit: str, spans: Sequence[KnownSpan], names: Sequence[str], dropped: Counter[str]
) -> np.ndarray:
    """class_T of the steps of sample n, UNLABELLED where no span holds them or they are not valid. Raises RequestError."""
    moment_T, class_T = moments_of(table, n, unit, spans), np.full(table.valid_NT.shape[1], UNLABELLED)
    for start, stop, name in spans:
        if name not in names:
            where, there = f"sample {table.id_N[n]}, span {start:g} to {stop:g}", names_of(list(names), 8)
            raise RequestError(f"{where}: unknown class {name!r}, the classes are {there}; correct it, or see labels.classes")
        is_held_T = table.valid_NT[n] & (moment_T >= start) & (moment_T < stop)
        class_T[is_held_T] = names.index(name)
        dropped["spans without a valid frame that is kept"] += not is_held_T.any()
    return class_T


def spans_of(table: SampleTable, n: int) -> tuple[str, list[KnownSpan]]:
    """(frames or seconds, the spans) that the answer of sample n states. Raises RequestError."""
    try:
        content = json.loads(table.answer_N[n])
        return str(content["unit"]), [(float(start), float(stop), str(name)) for start, stop, name in content["spans"]]
    except (ValueError, TypeError, KeyError) as e:
        found = str(table.answer_N[n])[:60]
        raise RequestError(f"sample {table.id_N[n]} has the answer {found!r}, expected spans; see labels.spans") from e


def moments_of(table: SampleTable, n: int, unit: str, spans: Sequence[KnownSpan]) -> np.ndarray:
    """moment_T as `clock_of`. Raises RequestError for spans of a file that end after it, in seconds by more than half a frame."""
    moment_T, end = clock_of(table, n, unit)
    if table.layout.is_cut:
        return moment_T
    slack = 0.0 if unit == "frames" else 0.5 * end / float(table.facts["frames"][n])
    for start, stop, name in spans:
        if stop > end + slack:
            span, where = f"the span {start:g} to {stop:g} ({name})", f"sample {table.id_N[n]}"
            raise RequestError(f"{where}: {span} ends after the file, which has {end:g} {unit}; correct the table of labels")
    return moment_T


def clock_of(table: SampleTable, n: int, unit: str) -> tuple[np.ndarray, float]:
    """(moment_T of the stored frames, NaN of padding; where the last one ends), in `frames` of the file or `seconds`.

    Raises RequestError where the times of frames are not known.
    """
    moment_T, count = np.full(table.valid_NT.shape[1], np.nan), int(table.facts["frames"][n]) if not table.layout.is_cut else 0
    if unit == "frames":
        kept = FilePlaces(table.layout, table.facts).kept(n)
        moment_T[: len(kept)] = kept
        return moment_T, float(count)
    seconds_T = table.seconds_NT[n]
    stored = int(np.isfinite(seconds_T).sum())
    if not stored or (not table.layout.is_cut and stored < min(count, len(seconds_T))):
        raise RequestError(f"sample {table.id_N[n]}: its frames have no times: set source.frame_time, or labels.spans: frames")
    moment_T[:stored] = seconds_T[:stored]
    if table.layout.is_cut:
        step, after = np.median(np.diff(seconds_T[:stored])) if stored > 1 else 0.0, 1
    else:  # frames of the file from the last kept one on: that one alone, but for a single kept frame, which is the middle one
        step, after = table.facts["frame_s"][n], count - int(FilePlaces(table.layout, table.facts).kept(n)[-1])
    return moment_T, float(seconds_T[stored - 1] + (after * step if np.isfinite(step) else 0.0))
