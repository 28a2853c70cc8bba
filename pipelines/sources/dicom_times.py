"""Which time each frame of a DICOM series belongs to, and when that was; or by name why positions repeat for another reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN, is_elapsed
from pipelines.errors import RequestError
from pipelines.sources.dicom_frames import Clues, Frame

HALF_DAY, DAY = np.timedelta64(12, "h"), np.timedelta64(1, "D")
SECOND = np.timedelta64(1, "s")
NO_DAY_STATED = "times pass midnight, and no image states its own day: those after it are taken for the next day"
NOT_ADVANCED = (
    "times pass midnight, and the images state one day for all: by their numbers those after it are of the next day, and are "
    "taken for it"
)
HOW = "state the seconds between two frames as source.frame_time"


@dataclass(frozen=True)
class Order:
    """`of_frame`: the index of the time of each frame. `times_T`: datetime64[ns], rising. `missing`: time -> lacking slices.

    `notes` say what was concluded rather than read.
    """

    of_frame: np.ndarray
    times_T: np.ndarray
    missing: dict[int, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clue:
    """One element that may order frames; `is_shared`: its values are those of whole volumes, not of single slices."""

    text: str
    value: Callable[[Clues], Any]
    is_shared: bool = False


CLUES = (
    Clue("the temporal position", lambda clues: clues.temporal, is_shared=True),
    Clue("the trigger time", lambda clues: clues.trigger_s),
    Clue("the frame reference time", lambda clues: clues.reference_s),
    Clue("the acquisition time", lambda clues: clues.acquired),
    Clue("the acquisition number", lambda clues: clues.acquisition, is_shared=True),
    Clue("the content time", lambda clues: clues.content),
)
INSTANCE = Clue("the instance number", lambda clues: clues.instance)


def order_times(frames: Sequence[Frame], of_slice: np.ndarray, slices: int, frame_time: float | None) -> Order:
    """The times of the frames at each slice position. `of_slice`: the slice of each frame; `frame_time`: seconds, of the config.

    Raises RequestError for several contrasts, duplicate slices, missing slices, and where no frame time is known.
    """
    frames, over = _over_midnight(frames, of_slice)
    counts = np.bincount(of_slice, minlength=slices)
    if counts.max() == 1:
        moment = _least([frame.clues.acquired for frame in frames])
        is_known = moment is not None and not is_elapsed(moment)
        notes = over if is_known else (*over, "no acquisition date is stated: the time is unknown")
        return Order(
            np.zeros(len(frames), np.int64), np.array([moment if is_known else UNKNOWN_ORIGIN], "datetime64[ns]"), {}, notes
        )
    _check_contrasts(frames, of_slice)
    for clue in CLUES:
        values = [clue.value(frame.clues) for frame in frames]
        if any(value is None for value in values) or not _tells_apart(values, of_slice):
            continue
        if clue.is_shared:
            _, of_frame = np.unique(np.array(values), return_inverse=True)
        elif counts.min() == counts.max():
            of_frame = _ranks(np.array(values), of_slice)
        else:
            continue
        order = _dated(frames, of_slice, slices, of_frame, clue, frame_time)
        return replace(order, notes=(*order.notes, *over))
    order = _by_instance(frames, of_slice, slices, counts, frame_time)
    return replace(order, notes=(*order.notes, *over))


def _over_midnight(frames: Sequence[Frame], of_slice: np.ndarray) -> tuple[Sequence[Frame], tuple[str, ...]]:
    """The frames, and what was concluded: times of day run on past midnight, to the next day.

    Without it 00:00:01 would come 24 hours before 23:59:59. A gap of more than half a day among times of one day shows it. Where
    the images state that day as their own, their numbers must show it too.
    """
    notes: tuple[str, ...] = ()
    for name in ("acquired", "content"):
        moments = [getattr(frame.clues, name) for frame in frames]
        if any(one is None for one in moments):
            continue
        in_order = np.unique(np.array(moments))
        gaps = np.diff(in_order)
        if not len(gaps) or gaps.max() <= HALF_DAY or in_order[0].astype("M8[D]") != in_order[-1].astype("M8[D]"):
            continue
        last = in_order[int(gaps.argmax())]
        moved = [one + DAY if one <= last else one for one in moments]
        is_stated = any(_is_day_stated(frame.clues, name) for frame in frames)
        if is_stated and (_is_in_order(frames, of_slice, moments) or not _is_in_order(frames, of_slice, moved)):
            continue
        frames = [replace(f, clues=replace(f.clues, **{name: at})) for f, at in zip(frames, moved, strict=True)]
        notes = (NOT_ADVANCED if is_stated else NO_DAY_STATED,)
    return frames, notes


def _is_in_order(frames: Sequence[Frame], of_slice: np.ndarray, moments: Sequence[Any]) -> bool:
    """Whether moments at each position rise with the temporal positions, or where these are not stated the instance numbers."""
    for name in ("temporal", "instance"):
        numbers = [getattr(frame.clues, name) for frame in frames]
        if all(one is not None for one in numbers) and _tells_apart(numbers, of_slice):
            return bool((_ranks(np.array(numbers), of_slice) == _ranks(np.array(moments), of_slice)).all())
    return False


def _is_day_stated(clues: Clues, name: str) -> bool:
    return clues.is_day_stated if name == "acquired" else clues.content is not None and not is_elapsed(clues.content)


def _check_contrasts(frames: Sequence[Frame], of_slice: np.ndarray) -> None:
    """Raises RequestError if images at one position are of different kinds: echoes, b-values, magnitude and phase."""
    kinds: dict[tuple[str, int], set[str]] = defaultdict(set)
    for frame, k in zip(frames, of_slice.tolist(), strict=True):
        for name, value in frame.contrast:
            kinds[name, k].add(str(value))
    for (name, _), found in kinds.items():
        if len(found) > 1:
            raise RequestError(
                f"several contrasts: the images at one position differ in {name} ({len(found)} values), so they are no series in "
                "time; export one kind as a series of its own"
            )


def _tells_apart(values: Sequence[Any], of_slice: np.ndarray) -> bool:
    pairs = set(zip(values, of_slice.tolist(), strict=True))
    return len(pairs) == len(values)


def _ranks(values: np.ndarray, of_slice: np.ndarray) -> np.ndarray:
    """The rank of each value among those of its slice."""
    ranks = np.empty(len(values), np.int64)
    for k in np.unique(of_slice):
        members = np.flatnonzero(of_slice == k)
        ranks[members[np.argsort(values[members], kind="stable")]] = np.arange(len(members))
    return ranks


def _by_instance(
    frames: Sequence[Frame], of_slice: np.ndarray, slices: int, counts: np.ndarray, frame_time: float | None
) -> Order:
    """Frames in the order of their numbers, where nothing else orders them. Raises RequestError where that proves nothing."""
    values = [frame.clues.instance for frame in frames]
    most, repetition = int(counts.max()), frames[0].clues.repetition_s
    is_numbered = all(value is not None for value in values) and _tells_apart(values, of_slice)
    if not is_numbered or (frame_time is None and not repetition):
        known = "no temporal position, trigger, reference, acquisition or content time tells them apart"
        if slices == 1:
            raise RequestError(
                f"not a volume: all {most} images lie at one slice position, and {known}; if they are frames, {HOW}"
            )
        remedy = f"; if they are frames, {HOW}" if is_numbered else ": remove the copies"
        raise RequestError(f"duplicate slices: up to {most} images lie at one position, and {known}{remedy}")
    if counts.min() != counts.max():
        few = int((counts < most).sum())
        raise RequestError(
            f"missing slices: {few} of {slices} slice positions have fewer images than the {most} of the others, and nothing "
            "tells which time they lack; export the whole series"
        )
    return _dated(frames, of_slice, slices, _ranks(np.array(values), of_slice), INSTANCE, frame_time)


# ---------------------------------------------------------------- when


def _dated(
    frames: Sequence[Frame], of_slice: np.ndarray, slices: int, of_frame: np.ndarray, clue: Clue, frame_time: float | None
) -> Order:
    count = int(of_frame.max()) + 1
    missing = {
        t: lacking for t in range(count) if (lacking := sorted(set(range(slices)) - set(of_slice[of_frame == t].tolist())))
    }
    if len(missing) == count:
        raise RequestError(
            f"missing slices: each of the {count} times lacks some of the {slices} slices; export the whole series"
        )
    times_T, notes = _times(frames, of_frame, count, clue, frame_time)
    return Order(of_frame, times_T, missing, notes)


def _times(
    frames: Sequence[Frame], of_frame: np.ndarray, count: int, clue: Clue, frame_time: float | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(datetime64[ns] of each time, notes): as the config says, as the headers say, or from the repetition time."""
    clues = [[frame.clues for frame, t in zip(frames, of_frame, strict=True) if t == one] for one in range(count)]
    moments = [_least([one.acquired for one in of_time]) for of_time in clues]
    start = moments[0] if moments[0] is not None else _least([one.content for one in clues[0]])
    is_dated = start is not None and not is_elapsed(start)
    origin = start.astype("datetime64[ns]") if is_dated else UNKNOWN_ORIGIN
    undated = () if is_dated else ("no acquisition date is stated: times are seconds since the first frame",)
    if frame_time is not None:
        return origin + _nanoseconds(frame_time * np.arange(count)), (
            *undated,
            f"times by source.frame_time: {frame_time:g} s apart",
        )
    for name in ("trigger_s", "reference_s"):
        seconds = [_mean([getattr(one, name) for one in of_time]) for of_time in clues]
        if _rises(seconds):
            since_first = np.array(seconds, float)
            return origin + _nanoseconds(since_first - since_first[0]), undated
    for name in ("acquired", "content"):
        found = [_least([getattr(one, name) for one in of_time]) for of_time in clues]
        if _rises(found):
            times_T = np.array(found, "datetime64[ns]")
            return (times_T if is_dated else UNKNOWN_ORIGIN + (times_T - times_T[0])), undated
    repetition, why = frames[0].clues.repetition_s, _against_order(clues)
    if not repetition:
        raise RequestError(f"no frame times: {clue.text} orders the {count} times, and {why}; {HOW}")
    why = f"frames are ordered by {clue.text}, and {why}"
    taken = f"the repetition time, {repetition:g} s, is taken for their interval (else state source.frame_time)"
    return origin + _nanoseconds(repetition * np.arange(count)), (*undated, f"{why}: {taken}")


def _against_order(clues: Sequence[Sequence[Clues]]) -> str:
    """Why no element says when each of the times was: there is none, or it contradicts their order."""
    names = {
        "trigger_s": "trigger times", "reference_s": "frame reference times", "acquired": "acquisition times",
        "content": "content times",
    }  # fmt: skip
    for name, text in names.items():
        found = [_least([getattr(one, name) for one in of_time]) for of_time in clues]
        if all(one is not None for one in found) and len(set(found)) > 1:
            fallen = sum(not a < b for a, b in pairwise(found))
            return f"the {text} contradict that order (they do not rise at {fallen} of {len(found) - 1} steps)"
    return "no element says when each was"


def _nanoseconds(seconds: np.ndarray) -> np.ndarray:
    return np.round(seconds * 1e9).astype("timedelta64[ns]")


def _least(values: Sequence[Any]) -> Any:
    return min((value for value in values if value is not None), default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else float(np.mean([value for value in values if value is not None]))


def _rises(values: Sequence[Any]) -> bool:
    return all(value is not None for value in values) and all(a < b for a, b in pairwise(values))


def describe_kinds(frames: Sequence[Frame]) -> str:
    """`64 x 64`, or the most frequent size and how many others."""
    sizes = Counter(frame.shape_yx for frame in frames)
    (rows, columns), _ = sizes.most_common(1)[0]
    return f"{rows} x {columns}" + (f" and {len(sizes) - 1} other sizes" if len(sizes) > 1 else "")
