"""The callback that reports progress: `progress(done, total)`, both counts of the same unit (blocks, windows, steps)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


def note_progress(progress: Progress, text: str) -> None:
    """Shows `text` (an epoch's figures) beside the counts, where the callback has a method `note` for it."""
    note: Callable[[str], None] | None = getattr(progress, "note", None)
    if note is not None:
        note(text)


def ignore_progress(done: int, total: int) -> None:
    """A callback that shows nothing."""
