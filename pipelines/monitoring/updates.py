"""What a tile must do about the cube's dates: nothing, steps, a replay from a kept state, or a new fit. Pure comparison.

A tile's state depends on the sequence of dates on which it was seen and on nothing else. So the dates that it has consumed are
compared with the cube's, and the first difference that it can see decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

Kind = Literal["nothing", "note", "steps", "replay", "fit"]


@dataclass(frozen=True)
class CubeDate:
    """One date of the cube. `index` is its position along `time`; `is_empty`: not a single usable pixel in the whole scene."""

    index: int
    time_ns: int  # since 1970-01-01 UTC
    scene_id: str
    content_hash: str
    is_empty: bool = False

    @property
    def day(self) -> float:
        """Days since 1970-01-01, as `pipelines.calendar.to_days` has them."""
        return self.time_ns / 86_400e9

    @property
    def name(self) -> str:
        """`2020-06-25 (S2A_...)`, for messages."""
        return f"{np.datetime64(self.time_ns, 'ns').astype('datetime64[D]')} ({self.scene_id})"


@dataclass(frozen=True)
class Consumed:
    """A date that a tile knows. `is_seen`: it had usable pixels in the tile (grown by the halo)."""

    time_ns: int
    scene_id: str
    content_hash: str
    is_seen: bool


@dataclass(frozen=True)
class Plan:
    """What a tile does. It goes on from the state after `base` seen monitored dates and reads the dates `todo` (positions in
    the cube's list, ascending); of all others `seen` says already whether it saw them.

    `note`: no pixel changes, only the list of dates does.
    """

    kind: Kind
    base: int = 0
    todo: tuple[int, ...] = ()
    seen: tuple[tuple[int, bool], ...] = ()
    gone: tuple[Consumed, ...] = ()


def dates_of(dataset: xr.Dataset) -> tuple[CubeDate, ...]:
    """The cube's dates, sorted as the cube sorts them."""
    times = dataset["time"].values.astype("datetime64[ns]").astype(np.int64)
    fractions = dataset["valid_fraction"].values if "valid_fraction" in dataset.coords else np.ones(len(times))
    columns = zip(times, dataset["scene_id"].values, dataset["content_hash"].values, fractions, strict=True)
    return tuple(
        CubeDate(index, int(time), str(scene_id), str(content_hash), bool(fraction == 0))
        for index, (time, scene_id, content_hash, fraction) in enumerate(columns)
    )


def plan_tile(
    consumed: Sequence[Consumed] | None,
    checkpoints: Sequence[int],
    dates: Sequence[CubeDate],
    start_ns: int,
    sees: Callable[[CubeDate], bool],
) -> Plan:
    """The plan of one tile. `consumed` None: it has no state. `checkpoints`: after how many seen monitored dates a state is kept
    (0, the beginning, always is). `sees(date)` reads the date, and is asked only about late and replaced ones.
    """
    if consumed is None:
        return Plan("fit", 0, tuple(range(len(dates))))
    old = {c.time_ns: c for c in consumed}
    known = {date.time_ns for date in dates}
    gone = tuple(c for c in consumed if c.time_ns not in known)
    seen_before = [c.time_ns for c in consumed if c.is_seen and c.time_ns >= start_ns]
    last_ns = seen_before[-1] if seen_before else start_ns - 1
    seen: dict[int, bool] = {}
    touched = [c.time_ns for c in gone if c.is_seen]
    for n, date in enumerate(dates):
        was = old.get(date.time_ns)
        if was is not None and was.content_hash == date.content_hash:
            seen[n] = was.is_seen
        elif date.time_ns < start_ns or date.time_ns <= last_ns:
            seen[n] = sees(date)
            if seen[n] or (was is not None and was.is_seen):
                touched.append(date.time_ns)
    if any(time_ns < start_ns for time_ns in touched):
        return Plan("fit", 0, tuple(range(len(dates))), gone=gone)
    prefix = sum(time_ns < min(touched) for time_ns in seen_before) if touched else len(seen_before)
    base = max(after for after in (0, *checkpoints) if after <= prefix)
    reached_ns = seen_before[base - 1] if base else start_ns - 1
    todo = tuple(n for n, date in enumerate(dates) if date.time_ns > reached_ns and seen.get(n, True))
    seen = {n: is_seen for n, is_seen in seen.items() if n not in set(todo)}
    return Plan(_kind(consumed, dates, len(seen_before), prefix, base, todo), base, todo, tuple(sorted(seen.items())), gone)


def _kind(
    consumed: Sequence[Consumed], dates: Sequence[CubeDate], before: int, prefix: int, base: int, todo: tuple[int, ...]
) -> Kind:
    if prefix < before or base < before:
        return "replay"
    if todo:
        return "steps"
    is_same = [(c.time_ns, c.scene_id, c.content_hash) for c in consumed] == [
        (d.time_ns, d.scene_id, d.content_hash) for d in dates
    ]
    return "nothing" if is_same else "note"
