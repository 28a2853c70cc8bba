"""The CPU time of a training beside its losses, as a column of the curve; all threads of this process count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.learning.epoch_batches import Batch
    from pipelines.learning.member import Score

CPU_SECONDS = "cpu_seconds"


def cpu_clock() -> Score:
    """Seconds of CPU since this call, read after every epoch; validation counts."""
    from pipelines.learning.member import Score  # loads torch, which a report need not wait for

    return Score(CPU_SECONDS, _nothing, partial(_since, time.process_time()))


def _nothing(y: Tensor, batch: Batch) -> Tensor:
    return y.new_zeros(1)


def _since(start: float, parts: Sequence[Tensor]) -> float:
    return time.process_time() - start


def added_up(curve: Sequence[Mapping[str, float | None]]) -> list[dict[str, float | None]]:
    """The curve with the seconds of all processes that an interrupted training went through, one after the other.

    >>> [row["cpu_seconds"] for row in added_up([{"cpu_seconds": 1.0}, {"cpu_seconds": 9.0}, {"cpu_seconds": 8.0}])]
    [1.0, 9.0, 17.0]
    """
    before, last, rows = 0.0, 0.0, []
    for row in curve:
        seconds = row[CPU_SECONDS] or 0.0
        if seconds < last:
            before += last
        last = seconds
        rows.append({**row, CPU_SECONDS: before + seconds})
    return rows
