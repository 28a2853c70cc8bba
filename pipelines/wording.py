"""Counts and shares as people write them, and text from outside that may be shown or written."""

import re
from unicodedata import category

_USER = re.compile(r"(?i)\b((?!file:)[a-z][a-z0-9+.-]*://)[^\s'\"<>]*@")  # to the last @: secrets of AWS contain slashes
_QUERY = re.compile(r"(?i)\b((?!file:)[a-z][a-z0-9+.-]*://[^\s'\"<>?]*)\?[^\s'\"<>]+")


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


def without_secrets(text: str) -> str:
    """The text, its URIs without user, password and query, where keys and tokens stand.

    >>> without_secrets("no bucket at s3://KEY:se/cret@bucket/prefix?X-Amz-Signature=abc; try again")
    'no bucket at s3://***@bucket/prefix?*** try again'
    """
    return _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text))


def printable(text: str) -> str:
    """The text with control and other unprintable characters written out, but for spaces and line breaks: a file name may hold
    anything.

    >>> printable("a\x1b[31mb\u202ec"), printable("140\u202f813") == "140\u202f813"
    ('a\\\\x1b[31mb\\\\u202ec', True)
    """
    return "".join(c if c.isprintable() or c == "\n" or category(c) == "Zs" else ascii(c)[1:-1] for c in text)


def harmless(text: str, longest: int = 1000) -> str:
    """A name or unit from a file as one printable line of at most `longest` characters, for other files and tables.

    >>> harmless(" red\x1b[0m " + "a" * 9, 12)
    'red\\\\x1b[0m …'
    """
    line = printable(text.strip()).replace("\n", "\\n")
    return line if len(line) <= longest else line[: longest - 1] + "…"
