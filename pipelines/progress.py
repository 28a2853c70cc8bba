"""The callback that reports progress: `progress(done, total)`, both counts of the same unit (blocks, windows, steps)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


def ignore_progress(done: int, total: int) -> None:
    """A callback that shows nothing."""
