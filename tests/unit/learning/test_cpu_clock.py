"""The CPU seconds of a training that several processes did, one after the other."""

import time

import pytest

from pipelines.learning.cpu_clock import CPU_SECONDS, Clock, added_up


def use_cpu(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_every_second_is_in_one_epoch_whichever_process_it_was_of() -> None:
    clock, started = Clock(), time.process_time()
    rows = []
    for seconds in (0.01, 0.03):
        use_cpu(seconds)
        rows.append({CPU_SECONDS: clock([])})
    assert sum(row[CPU_SECONDS] for row in rows) == pytest.approx(time.process_time() - started, abs=0.005)
    later = Clock()  # of the process that goes on, whose first epoch takes longer than all before
    use_cpu(0.08)
    rows.append({CPU_SECONDS: later([])})
    assert added_up(rows)[-1][CPU_SECONDS] == pytest.approx(0.12, abs=0.02)


def test_a_process_that_got_the_clock_counts_from_its_start() -> None:
    sent = Clock(process=-1, read=1e9)
    assert 0 < sent([]) <= time.process_time()
    use_cpu(0.01)
    assert sent([]) == pytest.approx(0.01, abs=0.005)
