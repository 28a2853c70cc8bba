"""The search for canaries in all that a run leaves: names, bytes, what is packed or coded in them, and changed spellings."""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

from numcodecs.zstd import Zstd

from tests.unit.privacy.planted import Canaries

WORD, UID, DIGITS = re.compile(rb"canary\d{5}", re.IGNORECASE), re.compile(rb"1\.2\.987\.\d+"), re.compile(rb"\d{8,}")
ISO_DATE = re.compile(rb"(?<!\d)(\d{4})[-/. :](\d\d)[-/. :](\d\d)(?!\d)")
BASE_64, HEX = re.compile(rb"[A-Za-z0-9+/_-]{12,}"), re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
DEEPEST, MOST_ALIGNED, FROM_URL = 2, 1 << 20, bytes.maketrans(b"-_", b"+/")


def found_in(canaries: Canaries, texts: list[str], folders: list[Path]) -> dict[str, str]:
    """Canary -> where it is: in texts, or in names or bytes of files."""
    places = {"texts": "\n".join(texts).encode()}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            places[f"name of {path.name}"] = str(path.relative_to(folder)).encode()
            if path.is_file():
                places[str(path.relative_to(folder))] = path.read_bytes()
    planted, found = set(canaries.planted), dict[str, str]()
    for where, data in places.items():
        for view in views(data):
            found.update(dict.fromkeys(planted & words_in(view), where))
    return found


def words_in(data: bytes) -> set[str]:
    """What may be a canary in bytes, as it was planted: whatever its case, its separators and how it is escaped."""
    words = set()
    for form in {data, data.replace(b"\0", b""), unquote_to_bytes(data) if b"%" in data else data}:
        words |= {word.upper() for word in WORD.findall(form)} | set(UID.findall(form)) | set(DIGITS.findall(form))
        words |= {word[:8] for word in words if word.isdigit()} | {b"".join(parts) for parts in ISO_DATE.findall(form)}
        words |= {word.upper() for word in WORD.findall(re.sub(rb"[-_. ^=:/]", b"", form))}
    return {word.decode() for word in words}


def views(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and what is packed or coded in them."""
    yield data
    if depth < DEEPEST:
        for inner in {*_unpacked(data), *_decoded(data)} - {b"", data}:
            yield from views(inner, depth + 1)


def _unpacked(data: bytes) -> Iterator[bytes]:
    """gzip, zip, zlib (PNG, PDF) and Zstandard (metadata and chunks of cubes)."""
    for start, window in ((rb"\x1f\x8b\x08", 31), (rb"\x78[\x01\x5e\x9c\xda]", 15)):
        for at in [match.start() for match in re.finditer(start, data)][:50]:
            with suppress(zlib.error):
                yield zlib.decompressobj(window).decompress(data[at:])
    if b"PK\3\4" in data:
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                yield name.encode()
                yield packed.read(name)
    at = -1
    while (at := data.find(b"\x28\xb5\x2f\xfd", at + 1)) >= 0:
        for end in (len(data), len(data) - 4):  # a chunk ends in a checksum
            with suppress(RuntimeError):
                yield Zstd().decode(data[at:end])


def _decoded(data: bytes) -> Iterator[bytes]:
    """What base64 (also that of URLs) gives at each of four places where it could begin, and hexadecimal digits."""
    text = data.replace(b"\n", b"") if data.isascii() else data
    runs = [run.translate(FROM_URL) for run in BASE_64.findall(text)]
    for at in range(4):
        yield b"\n".join(_from_base_64(run[at:]) for run in runs if at == 0 or len(run) < MOST_ALIGNED)
    yield b"\n".join(bytes.fromhex(run.decode()) for run in HEX.findall(data))


def _from_base_64(run: bytes) -> bytes:
    whole = run[: len(run) - (len(run) % 4 == 1)]
    with suppress(ValueError):
        return base64.b64decode(whole + b"=" * (-len(whole) % 4))
    return b""
