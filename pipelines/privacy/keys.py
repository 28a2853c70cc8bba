"""The project's key, and what is calculated with it: UIDs, pseudonyms, shifts of dates, names of files.

All of it is HMAC-SHA-256: the same input gives the same output in every file and every run, and only key and original together
say which belongs to which. There is no list of pairs that could be lost or stolen.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import MissingInput, RequestError

HEAD = "driftline-privacy-key-1"
KEY_BYTES = 32


@dataclass(frozen=True)
class Key:
    """32 secret bytes. They are in no repr, no message and no record."""

    secret: bytes = field(repr=False)

    def digest(self, purpose: str, text: str) -> bytes:
        """32 bytes that depend on the key, the purpose and the text."""
        return hmac.new(self.secret, f"{purpose}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def uid(self, uid: str) -> str:
        """The UID in place of `uid`: `2.25.` and a UUID (version 8) as a decimal number, at most 44 characters (PS3.5 B.2).

        >>> Key(bytes(32)).uid("1.2.3") == Key(bytes(32)).uid("1.2.3 ")
        True
        """
        raw = bytearray(self.digest("uid", uid.strip(" \0"))[:16])
        raw[6], raw[8] = (raw[6] & 0x0F) | 0x80, (raw[8] & 0x3F) | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"

    def pseudonym(self, patient_id: str) -> str:
        """`P` and 16 hexadecimal digits in place of a patient ID."""
        return f"P{self.digest('patient', patient_id.strip(' ' + chr(0))).hex()[:16]}"

    def term(self, text: str) -> str:
        """`T` and 8 hexadecimal digits in place of a code string that is in no list."""
        return f"T{self.digest('term', text.strip()).hex()[:8].upper()}"

    def name(self, purpose: str, text: str) -> str:
        """32 hexadecimal digits in place of a name of a file, series or folder."""
        return self.digest(purpose, text).hex()[:32]

    def group(self, text: str) -> str:
        """`G` and 16 hexadecimal digits in place of the name of a group of samples."""
        return f"G{self.name('group', text)[:16]}"

    def original_of(self, keyed: str, originals: Iterable[str]) -> str | None:
        """Which of the texts a pseudonym, a group or the keyed name of a file, folder, series or instance stands for."""
        last = keyed.rpartition("/")[2].partition(".")[0].partition("-")[0]  # of a sample: its own name
        for text in originals:
            names = (self.name(purpose, text) for purpose in ("file", "folder", "series", "instance"))
            if keyed in (self.pseudonym(text), self.group(text)) or last in names:
                return text
        return None

    def shift_days(self, patient_id: str, between: tuple[int, int]) -> int:
        """By how many whole days all dates of a patient move: one of `between`, both included."""
        low, high = between
        return low + int.from_bytes(self.digest("days", patient_id.strip(" \0"))[:8], "big") % (high - low + 1)

    @property
    def fingerprint(self) -> str:
        """Says whether two copies were made with the same key, and nothing about the key."""
        return self.digest("fingerprint", "").hex()[:16]


def default_key_file() -> Path:
    """`driftline/privacy.key` in the user's data folder ($XDG_DATA_HOME, else ~/.local/share).

    Raises MissingInput for a user without a home folder, as some containers run programs.
    """
    try:
        base = os.environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    except RuntimeError:
        problem = "no place for the privacy key: HOME is not set, and this user has no home folder"
        raise MissingInput(f"{problem}; name the file (privacy.key_file, --key), or set HOME or XDG_DATA_HOME") from None
    return Path(base) / "driftline" / "privacy.key"


def load_key(path: Path, *, create: bool = True) -> Key:
    """The key in the file at `path`; made at first use, readable by its owner alone (mode 0600).

    Raises MissingInput if there is none and `create` is false, RequestError for a file that others may read or that is no key.
    """
    try:
        if create and not path.exists():
            _create(path)
    except OSError as e:
        remedy = "name another place (privacy.key_file, --key)"
        raise RequestError(f"no privacy key can be made at {path}: {e.strerror}; {remedy}") from e
    try:
        text, mode = path.read_text(encoding="ascii"), stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise MissingInput(f"no privacy key at {path}; name the one that the copy was made with (`--key`)") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a privacy key; name another file, which is then made") from None
    if mode & 0o077:
        raise RequestError(f"{path} may be read by others (mode {mode:04o}): `chmod 600 {path}`")
    head, _, digits = text.strip().partition(" ")
    if head != HEAD or len(digits) != 2 * KEY_BYTES or set(digits) - set("0123456789abcdef"):
        raise RequestError(f"{path} is not a privacy key; name another file, which is then made")
    return Key(bytes.fromhex(digits))


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(f"{HEAD} {secrets.token_hex(KEY_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename it never replaces a key that another process has made meanwhile
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
