"""How long work tells how far it is: `progress(done, total)`, both counts of the same thing (blocks, windows, steps)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
