"""The callback that reports progress: `progress(done, total)`, both counts of the same unit (blocks, windows, steps)."""

from collections.abc import Callable, Mapping

Progress = Callable[[int, int], None]


def note_progress(progress: Progress, text: str) -> None:
    """Shows `text` (an epoch's figures) beside the counts, where the callback has a method `note` for it."""
    note: Callable[[str], None] | None = getattr(progress, "note", None)
    if note is not None:
        note(text)


def report_epoch(progress: Progress, figures: Mapping[str, float | None]) -> None:
    """Hands the figures of an epoch to the callback's method `epoch`, where it has one; what that raises ends the training."""
    report: Callable[[Mapping[str, float | None]], None] | None = getattr(progress, "epoch", None)
    if report is not None:
        report(figures)


def ignore_progress(done: int, total: int) -> None:
    """A callback that shows nothing."""
