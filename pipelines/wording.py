"""Counts and shares as people write them, and text from outside that may be shown or written."""

import os
import re
from unicodedata import category
from urllib.parse import quote

_SCHEME = r"(?i)\b((?!file:)[a-z][a-z0-9+.-]{0,20}://"
# to the last @: secrets of AWS contain slashes, passwords whatever they like; bounded, since a file's name may be made to last
_USER = re.compile(_SCHEME + r")(?:[^\s'\"<>]{0,2000}|[^\s/?#'\"<>]{0,200}:\S{0,2000})@")
_QUERY = re.compile(_SCHEME + r"[^\s'\"<>?#]*)(?:\?[^\s'\"<>#]*)?(?:#[^\s'\"<>=]*=[^\s'\"<>]*)?")
_NAMES = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|sig|(?:aws)?access_?key_?id|(?:aws_)?(?:secret_access_key|session_token)"
    r"|account_?key|shared_?access_?signature|api_?key|password|passwd|pwd|secret|(?:\w+_)?token"
)
_NAMED = re.compile(rf"(?i)\b({_NAMES})(\s?=\s?['\"]?|%3D|\"\s?:\s?\")[^\s&;,'\"<>\\*][^\s&;,'\"<>\\]*")
_BEARER = re.compile(r"(?i)\b(bearer\s|authorization[=:]\s?(?:basic\s)?)[\w.~+/=-]{8,}")
_SECRET_VARIABLE = re.compile(r"(?i)secret|token|passw|api_?key|auth_string|access_key|account_key|connection_string|credential")
_NO_SECRET = re.compile(r"(?i)_(?:file|path|dir|uri|url)$")
_SHORTEST = 8  # of a value of the environment that is looked for in texts


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


def has_credentials(uri: str) -> bool:
    """Whether a URI has a user, a password or a query, where keys and tokens stand."""
    return _plain_uris(uri) != uri


def without_secrets(text: str) -> str:
    """The text without what gives access: user, password and query of URIs; values that are named as keys, signatures, passwords
    or tokens; secret values of this process's environment, wherever they are repeated.

    >>> without_secrets("no bucket at s3://KEY:se/cret@bucket/prefix?X-Amz-Signature=abc; try again")
    'no bucket at s3://***@bucket/prefix?*** try again'
    >>> without_secrets("AccountKey=a+b/c==;EndpointSuffix=core, sig=x%2By")
    'AccountKey=***;EndpointSuffix=core, sig=***'
    """
    for value in _secrets_of_environment():
        text = text.replace(value, "***")
    return _BEARER.sub(r"\1***", _NAMED.sub(r"\1\2***", _plain_uris(text)))


def _plain_uris(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        return found[0] if found[0] == found[1] else f"{found[1]}?***"

    return _QUERY.sub(plain, _USER.sub(r"\1***@", text))


def _secrets_of_environment() -> list[str]:
    """Longest first, each as it is and as URIs write it."""
    values = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name) and not _NO_SECRET.search(name)}
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy") and (password := re.search(r"://[^/]*?:(.+)@", value)):
            values.add(password[1])
    long = {value for value in values if len(value) >= _SHORTEST}
    return sorted(long | {quote(value, safe="") for value in long}, key=len, reverse=True)


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


def cell(text: str) -> str:
    """A text from a file for a table: programs that calculate take what begins with these characters for a formula.

    >>> cell("=HYPERLINK(A1)"), cell("-"), cell("mm")
    ("'=HYPERLINK(A1)", '-', 'mm')
    """
    return f"'{text}" if len(text) > 1 and text[0] in "=+-@\t\r" else text
