"""What a tile remembers from one run to the next: tensors and a header, published so that a kill leaves the old or the new.

    state/NAME-OF-DETECTOR/r000000-000256_c000000-000256/
        header.json                    which dates were consumed, for what the state was made, which files hold it
        fitted-3f2a....safetensors     named by their content: a new state never overwrites the one that the header names
        state-91c0....safetensors

The header is replaced last, in one rename; files that it does not name are swept afterwards. Nothing is flushed to the disk:
after a power cut a file may be torn, its SHA-256 says so, and the tile is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from pipelines.errors import ArtefactDamaged, StateError
from pipelines.files import write_bytes
from pipelines.monitoring.areas import CubeDate
from pipelines.monitoring.sequential_test import Arrays

FORMAT = 1
HEADER = "header.json"
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
class Stored:
    """A file of tensors: its name in the tile's folder, the SHA-256 (hex) of its bytes, and how many they are."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """The state after `after` seen monitored dates."""

    after: int
    stored: Stored


@dataclass(frozen=True)
class Header:
    """All that is known of a tile but its tensors. `state` is the newest; `kept` are older ones, ascending."""

    consumed: tuple[Consumed, ...]
    fitted: Stored
    state: Checkpoint
    kept: tuple[Checkpoint, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Every file of tensors, and its bytes."""
        every = (self.fitted, self.state.stored, *(kept.stored for kept in self.kept))
        return {stored.file: stored.size for stored in every}

    @property
    def digest(self) -> str:
        """Names the tensors that the layers are made from."""
        return f"{self.fitted.sha256[:16]}-{self.state.stored.sha256[:16]}"


def check_identity(found: Mapping[str, object], requested: Identity, folder: Path) -> None:
    """Raises StateError that names the first difference and the remedy, unless `found` is `requested`."""
    for name, value in asdict(requested).items():
        if name not in found or found[name] != value:
            raise refuse(folder, name, value, found.get(name))


def refuse(folder: Path, name: str, requested: object, found: object) -> StateError:
    """The error for a state that was made for something else; `name` is a field of Identity."""
    expected, was = (text if len(text) <= 100 else f"{text[:97]}..." for text in map(str, (requested, found)))
    return StateError(
        f"the state in {folder} was made for {LABELS[name]}: expected {expected}, found {was}. "
        "Set the config back, or begin anew with `driftline monitor CONFIG --restart`"
    )


def check_cube(known: Sequence[tuple[int, str]], dates: Sequence[CubeDate], folder: Path) -> None:
    """Raises StateError if not one of the dates that the state has consumed, (time_ns, content hash), stands in this cube. What
    makes a cube the same one is what it holds: ingested again from the same files, it is."""
    here = {(date.time_ns, date.content_hash) for date in dates}
    if known and not here & set(known):
        raise StateError(
            f"the state in {folder} was made from another cube: of the {len(known)} dates that it has consumed, this cube holds "
            "not one with the same pixels. Set cube.uri back, or begin anew with `driftline monitor CONFIG --restart`"
        )


def read_header(folder: Path, requested: Identity) -> Header | None:
    """The header of the tile in `folder`; None if there is none.

    Sweeps files that it does not name. Raises ArtefactDamaged for one that cannot be read or whose files are missing or of
    another size, StateError for one that was made for something else.
    """
    path = folder / HEADER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        identity = content["made_for"]
        header = Header(
            tuple(Consumed(*entry) for entry in content["consumed"]),
            Stored(*content["fitted"]),
            _checkpoint(*content["state"]),
            tuple(_checkpoint(*entry) for entry in content["kept"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise ArtefactDamaged(f"{path} is not a tile's header ({type(e).__name__}: {e})") from e
    check_identity(identity, requested, folder)
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat().st_size for entry in entries}
    sizes = header.sizes
    for name, size in sizes.items():
        if found.get(name) != size:
            raise ArtefactDamaged(f"{folder / name}: expected {size} bytes, found {found.get(name, 'no file')}")
    for name in found.keys() - sizes.keys() - {HEADER}:  # of a run that was killed before it had swept
        (folder / name).unlink(missing_ok=True)
    return header


def _checkpoint(after: int, stored: tuple[str, str, int]) -> Checkpoint:
    return Checkpoint(int(after), Stored(*stored))


def read_arrays(folder: Path, stored: Stored) -> Arrays:
    """The tensors of a file. Raises ArtefactDamaged unless its bytes are those that were written."""
    path = folder / stored.file
    try:
        content = path.read_bytes()
    except OSError as e:
        raise ArtefactDamaged(f"{path} cannot be read ({e.strerror})") from e
    if hashlib.sha256(content).hexdigest() != stored.sha256:
        raise ArtefactDamaged(f"{path} is not what was written (its SHA-256 differs)")
    try:
        return safetensors.numpy.load(content)
    except SafetensorError as e:
        raise ArtefactDamaged(f"{path} is not a safetensors file ({e})") from e


def write_arrays(folder: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> Stored:
    """Puts tensors into a file that is named by its content; the same tensors are written once. Raises StorageFull."""
    content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    stored = Stored(f"{kind}-{sha256[:16]}.safetensors", sha256, len(content))
    path = folder / stored.file
    if not path.exists() or path.read_bytes() != content:  # compared in full: a damaged file keeps its name
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    return stored


def publish_header(folder: Path, header: Header, made_for: Identity, before: Header | None) -> None:
    """The header takes the place of the one `before`; from then on the tile is the new one. Sweeps what only that one named."""
    names = ("consumed", "fitted", "state", "kept")
    content = {"made_for": vars(made_for), **dict(zip(names, astuple(header), strict=True))}
    replace_file(folder / HEADER, json.dumps(content, separators=(",", ":")).encode())
    there = before.sizes.keys() if before else {path.name for path in folder.iterdir()} - {HEADER}
    for name in there - header.sizes.keys():
        (folder / name).unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file in one rename. Raises StorageFull."""
    write_bytes(path, content, flush=False, mark="partial")
