"""What a tile has to do when its state meets a cube: nothing, note dates, steps, a replay from a kept state, or a new fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipelines.monitoring.areas import CubeDate, MonitoredCube
from pipelines.monitoring.state import Consumed

Kind = Literal["nothing", "note", "steps", "replay", "fit"]


@dataclass(frozen=True)
class Plan:
    """What a tile does. It goes on from the state after `base` seen monitored dates and reads the dates `todo` (positions in
    the cube's list); of all others `seen` says already whether it saw them.

    `note`: no pixel changes, only the list of dates does.
    """

    kind: Kind
    base: int = 0
    todo: frozenset[int] = frozenset()
    seen: Mapping[int, bool] = field(default_factory=dict)
    gone: tuple[Consumed, ...] = ()


def plan_tile(
    consumed: Sequence[Consumed] | None, checkpoints: Sequence[int], cube: MonitoredCube, sees: Callable[[CubeDate], bool]
) -> Plan:
    """The plan of one tile. `consumed` None: it has no state. `checkpoints`: after how many seen monitored dates a state is kept
    (0, the beginning, always is). `sees(date)` reads the date, and is asked only about late and replaced ones."""
    dates, start_ns = cube.dates, cube.start_ns
    if consumed is None:
        return Plan("fit", 0, frozenset(range(len(dates))))
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
        return Plan("fit", 0, frozenset(range(len(dates))), gone=gone)
    prefix = sum(time_ns < min(touched) for time_ns in seen_before) if touched else len(seen_before)
    base = max(after for after in (0, *checkpoints) if after <= prefix)
    reached_ns = seen_before[base - 1] if base else start_ns - 1
    todo = frozenset(n for n, date in enumerate(dates) if date.time_ns > reached_ns and seen.get(n, True))
    is_same = [(c.time_ns, c.scene_id, c.content_hash) for c in consumed] == [
        (d.time_ns, d.scene_id, d.content_hash) for d in dates
    ]
    kind: Kind = "replay" if base < len(seen_before) else "steps" if todo else "nothing" if is_same else "note"
    return Plan(kind, base, todo, {n: is_seen for n, is_seen in seen.items() if n not in todo}, gone)
