"""The CPU time of a training beside its losses, as a column of the curve; all threads of this process count.

A row of the curve, and so the state that a killed training goes on from, holds the seconds of its own epoch: those of all
processes that a training went through add up. What a kill cost of an unfinished epoch is in no row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.learning.epoch_batches import Batch
    from pipelines.learning.member import Score

CPU_SECONDS = "cpu_seconds"


def cpu_clock() -> Score:
    """Seconds of CPU since the epoch before, or since this call, read after every epoch; validation counts."""
    from pipelines.learning.member import Score  # loads torch, which a report need not wait for

    return Score(CPU_SECONDS, _nothing, Clock())


def _nothing(y: Tensor, batch: Batch) -> Tensor:
    return y.new_zeros(1)


@dataclass
class Clock:
    """Called after every epoch. In another process than the one that made it, the first call counts from that one's start."""

    process: int = field(default_factory=os.getpid)
    read: float = field(default_factory=time.process_time)

    def __call__(self, parts: Sequence[Tensor]) -> float:
        before, now = self.read if self.process == os.getpid() else 0.0, time.process_time()
        self.process, self.read = os.getpid(), now
        return now - before


def added_up(curve: Sequence[Mapping[str, float | None]]) -> list[dict[str, float | None]]:
    """The curve with the seconds of every epoch and all before it.

    >>> [row["cpu_seconds"] for row in added_up([{"cpu_seconds": 1.0}, {"cpu_seconds": 9.0}, {"cpu_seconds": 8.0}])]
    [1.0, 10.0, 18.0]
    """
    total, rows = 0.0, []
    for row in curve:
        total += row[CPU_SECONDS] or 0.0
        rows.append({**row, CPU_SECONDS: total})
    return rows
