"""Counts and shares as people write them."""


def counted(count: int, one: str, several: str = "") -> str:
    """The count with its noun; `several` where the plural is not `one` with an s.

    >>> counted(1, "date"), counted(2, "date"), counted(2, "patch", "patches")
    ('1 date', '2 dates', '2 patches')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def share_text(share: float) -> str:
    """A share as percent, rounded to nothing or all only where it is.

    >>> share_text(0.996), share_text(0.98), share_text(1.0)
    ('99.6 %', '98 %', '100 %')
    """
    rounds_away = round(100 * share) in (0, 100) and share not in (0, 1)
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %" if rounds_away else f"{100 * share:.0f} %"
