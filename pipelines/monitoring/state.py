"""What the tiles of a block remember from one run to the next: a header and few files of tensors, on a disk or in S3.

    STATE/NAME-OF-MODEL/blocks/r000000-001024_c000000-001024/
        header.json             which dates were consumed, for what the state was made, which pieces there are
        fitted-3f2a...          pieces of all tiles one after another, a piece is the tensors of one tile
        state-91c0...           after the newest date
        kept000016-77de...      after 16 dates that a tile has seen: for late and reprocessed scenes

Files are named by what they hold, so a new state never overwrites the one that the header names. The header is replaced last:
whenever a process is killed, the block is the old one or the new one. Files that no header names are swept afterwards.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path

import numcodecs.blosc
import numpy as np
from numcodecs.blosc import Blosc

from pipelines.errors import ArtefactDamaged, StateError
from pipelines.files import naming_full_disk
from pipelines.monitoring.areas import CubeDate
from pipelines.monitoring.sequential_test import Arrays
from pipelines.stored_files import StoredFiles

numcodecs.blosc.use_threads = False  # with threads its bytes would depend on which is first
CODEC = Blosc("lz4", clevel=5, shuffle=Blosc.SHUFFLE)  # decodes what earlier versions packed with zstd, too
FORMAT, EARLIER_FORMATS = 2, (1,)  # the earlier one had a folder per tile
HEADER, FITTED, STATE = "header.json", "fitted", "state"
IN_MEMORY = 2**26  # bytes of pieces that wait for their files; beyond that they wait in a temporary file
LABELS = {
    "detector": "another detector (model, test or threshold)",
    "variable": "another variable",
    "start": "another monitoring.start",
    "grid": "another grid",
    "tile_px": "other tiles (monitoring.tile_px)",
    "format": "another version of driftline",
}


@dataclass(frozen=True)
class Identity:
    """What a state was made for; a state of another identity is refused. Texts and numbers only, compared one by one."""

    detector: str
    variable: str
    start: str
    grid: str
    tile_px: int
    format: int = FORMAT


@dataclass(frozen=True)
class Consumed:
    """A date that a tile knows. `is_seen`: it had usable pixels in the tile (grown by the halo)."""

    time_ns: int
    scene_id: str
    content_hash: str
    is_seen: bool


@dataclass(frozen=True)
class Piece:
    """The tensors of a tile in a file of its block: the SHA-256 (hex) of their bytes, and how many these are."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """The state after `after` seen monitored dates."""

    after: int
    piece: Piece


@dataclass(frozen=True)
class TileState:
    """All that is known of a tile but its tensors. `seen`: "1" or "0" for each date of the block. `state` is the newest, `kept`
    are older ones, ascending."""

    seen: str
    fitted: Piece
    state: Checkpoint
    kept: tuple[Checkpoint, ...] = ()


@dataclass(frozen=True)
class Header:
    """A block: `dates` that it has consumed (time_ns, scene id, content hash), in the order of the cube, and `tiles` by key."""

    dates: tuple[tuple[int, str, str], ...]
    tiles: Mapping[str, TileState]

    def consumed(self, tile: str) -> tuple[Consumed, ...]:
        return tuple(Consumed(*date, is_seen == "1") for date, is_seen in zip(self.dates, self.tiles[tile].seen, strict=True))

    @cached_property
    def files(self) -> Mapping[str, tuple[str, tuple[Piece, ...]]]:
        """Name of a file -> (kind, its pieces in their order); tiles of equal tensors share a piece."""
        kinds: dict[str, dict[Piece, None]] = {FITTED: {}, STATE: {}}
        for tile in self.tiles.values():
            kinds[FITTED][tile.fitted] = kinds[STATE][tile.state.piece] = None
            for one in tile.kept:
                kinds.setdefault(kept_kind(one.after), {})[one.piece] = None
        return {f"{kind}-{_digest(pieces)}": (kind, tuple(pieces)) for kind, pieces in sorted(kinds.items())}

    @cached_property
    def places(self) -> Mapping[tuple[str, Piece], tuple[str, int]]:
        """(kind, piece) -> (file, where it begins in there)."""
        found = {}
        for name, (kind, pieces) in self.files.items():
            start = 0
            for piece in pieces:
                found[kind, piece] = (name, start)
                start += piece.size
        return found

    @cached_property
    def digest(self) -> str:
        """Names the tensors that the layers are made from."""
        return _digest([piece for tile in self.tiles.values() for piece in (tile.fitted, tile.state.piece)])


def kept_kind(after: int) -> str:
    return f"kept{after:06d}"


def _digest(pieces: Sequence[Piece] | Mapping[Piece, None]) -> str:
    return hashlib.sha256("".join(piece.sha256 for piece in pieces).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- what a state was made for


def check_identity(found: Mapping[str, object], requested: Identity, place: str) -> None:
    """Raises StateError that names the first difference and the remedy, unless `found` is `requested`."""
    for name, value in asdict(requested).items():
        if name not in found or found[name] != value:
            raise refuse(place, name, value, found.get(name))


def refuse(place: str, name: str, requested: object, found: object) -> StateError:
    """The error for a state that was made for something else; `name` is a field of Identity."""
    expected, was = (text if len(text) <= 100 else f"{text[:97]}..." for text in map(str, (requested, found)))
    return StateError(
        f"the state in {place} was made for {LABELS[name]}: expected {expected}, found {was}. "
        "Set the config back, or begin anew with `driftline monitor CONFIG --restart`"
    )


def check_cube(known: Sequence[tuple[int, str]], dates: Sequence[CubeDate], place: str) -> None:
    """Raises StateError if not one of the dates that the state has consumed, (time_ns, content hash), stands in this cube. What
    makes a cube the same one is what it holds: ingested again from the same files, it is."""
    here = {(date.time_ns, date.content_hash) for date in dates}
    if known and not here & set(known):
        raise StateError(
            f"the state in {place} was made from another cube: of the {len(known)} dates that it has consumed, this cube holds "
            "not one with the same pixels. Set cube.uri back, or begin anew with `driftline monitor CONFIG --restart`"
        )


# ---------------------------------------------------------------- tensors as bytes


def pack(arrays: Arrays) -> bytes:
    """The arrays as bytes, compressed without loss; the same arrays give the same bytes."""
    parts = {name: CODEC.encode(np.ascontiguousarray(array)) if array.size else b"" for name, array in sorted(arrays.items())}
    index = [[name, arrays[name].dtype.str, arrays[name].shape, len(part)] for name, part in parts.items()]
    head = json.dumps(index, separators=(",", ":")).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *parts.values()])


def unpack(content: bytes) -> Arrays:
    """What `pack` was given."""
    start = 4 + int.from_bytes(content[:4], "little")
    arrays, packed = {}, memoryview(content)
    for name, dtype, shape, size in json.loads(content[4:start]):
        arrays[name] = np.empty(shape, dtype)
        if arrays[name].size:
            CODEC.decode(packed[start : start + size], arrays[name])
        start += size
    return arrays


class Pieces:
    """What a block has computed and not yet written, by SHA-256."""

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  (closed with the block, see `__exit__`)
        self.starts: dict[str, int] = {}

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __contains__(self, piece: Piece) -> bool:
        return piece.sha256 in self.starts

    def put(self, arrays: Arrays) -> Piece:
        """Raises StorageFull where there is no room for temporary files."""
        content = pack(arrays)
        piece = Piece(hashlib.sha256(content).hexdigest(), len(content))
        if piece not in self:
            with naming_full_disk(Path(tempfile.gettempdir()), len(content)):
                self.starts[piece.sha256] = self.file.seek(0, 2)
                self.file.write(content)
        return piece

    def get(self, piece: Piece) -> bytes:
        self.file.seek(self.starts[piece.sha256])
        return self.file.read(piece.size)


# ---------------------------------------------------------------- a block's files


@dataclass(frozen=True)
class BlockFiles:
    """The files of a block, in `folder` of `files`."""

    files: StoredFiles
    folder: str

    @property
    def uri(self) -> str:
        return f"{self.files.uri}/{self.folder}"

    def read_header(self, requested: Identity, tiles: Sequence[str]) -> Header | None:
        """The header of the block; None if there is none. Raises ArtefactDamaged as `read_header_alone`, and for one whose files
        are missing or of another size; StateError."""
        header = self.read_header_alone(requested, tiles)
        for name, (_, pieces) in header.files.items() if header else ():
            expected, found = sum(piece.size for piece in pieces), self._size(name)
            if found != expected:
                raise ArtefactDamaged(f"{self.uri}/{name}: expected {expected} bytes, found {found or 'no file'}")
        return header

    def read_header_alone(self, requested: Identity, tiles: Sequence[str]) -> Header | None:
        """The header, whatever files there are. Raises ArtefactDamaged for one that cannot be read or is not of these `tiles`;
        StateError for one that was made for something else."""
        path = f"{self.folder}/{HEADER}"
        try:
            stored = json.loads(self.files.read(path))
            content = stored["content"]
            if hashlib.sha256(_text(content)).hexdigest() != stored["sha256"]:
                raise ValueError("its SHA-256 differs")
            header = Header(
                tuple((int(time), str(scene), str(sha)) for time, scene, sha in content["dates"]),
                {key: _tile_state(*parts) for key, parts in content["tiles"].items()},
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as e:
            raise ArtefactDamaged(f"{self.uri}/{HEADER} is not the header of a block ({type(e).__name__}: {e})") from e
        check_identity(content["made_for"], requested, self.uri)
        if list(header.tiles) != list(tiles):
            raise ArtefactDamaged(f"{self.uri}/{HEADER} is of other tiles")
        return header

    def _size(self, name: str) -> int:
        try:
            return self.files.size(f"{self.folder}/{name}")
        except FileNotFoundError:
            return 0

    def read_arrays(self, header: Header, kind: str, piece: Piece) -> Arrays:
        """The tensors of a piece. Raises ArtefactDamaged unless its bytes are those that were written."""
        content = self._read(header, kind, piece)
        if hashlib.sha256(content).hexdigest() != piece.sha256:
            name, _ = header.places[kind, piece]
            raise ArtefactDamaged(f"{self.uri}/{name} is not what was written (its SHA-256 differs)")
        return unpack(content)

    def _read(self, header: Header, kind: str, piece: Piece) -> bytes:
        name, start = header.places[kind, piece]
        try:
            return self.files.read_range(f"{self.folder}/{name}", start, piece.size)
        except FileNotFoundError as e:
            raise ArtefactDamaged(f"{self.uri}/{name} is gone") from e

    def publish(self, header: Header, made_for: Identity, before: Header | None, made: Pieces) -> None:
        """The header takes the place of the one `before`, once its files are there: from then on the block is the new one.

        What was not `made` now is copied as it lies there: a damaged piece stays one, and is noticed when it is used.
        """
        for name, (kind, pieces) in header.files.items():
            if before is not None and name in before.files and not any(piece in made for piece in pieces):
                continue
            with self.files.writing(f"{self.folder}/{name}") as draft, draft.open("wb") as file:
                for piece in pieces:
                    if piece in made:
                        file.write(made.get(piece))
                    else:
                        assert before is not None, "a piece that is neither made nor there"
                        file.write(self._read(before, kind, piece))
        tiles = {key: astuple(tile) for key, tile in header.tiles.items()}
        content = {"made_for": asdict(made_for), "dates": header.dates, "tiles": tiles}
        stored = {"sha256": hashlib.sha256(_text(content)).hexdigest(), "content": content}
        self.files.write(f"{self.folder}/{HEADER}", _text(stored))

    def sweep(self, header: Header) -> None:
        """Removes what the header does not name: files of the state before, and what a killed process left."""
        kept = {f"{self.folder}/{name}" for name in (HEADER, *header.files)}
        for name in self.files.names(self.folder):
            if name not in kept:
                self.files.discard(name)


def _text(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _tile_state(seen: str, fitted: tuple[str, int], state: tuple[int, tuple[str, int]], kept: Sequence[object]) -> TileState:
    return TileState(str(seen), Piece(*fitted), _checkpoint(state), tuple(_checkpoint(one) for one in kept))


def _checkpoint(parts: object) -> Checkpoint:
    if not isinstance(parts, list):
        raise TypeError(f"{parts!r} is no checkpoint")
    after, (sha256, size) = parts
    return Checkpoint(int(after), Piece(str(sha256), int(size)))
