"""The callback that reports progress: `progress(done, total)`, both counts of the same unit (blocks, windows, steps)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
