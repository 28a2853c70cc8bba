"""What the map shows, for the whole raster on disk: one plain file per layer, tiles written in place as they change."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.files import naming_full_disk, write_text
from pipelines.tiles import Box

HEADER, LEDGER = "layers.json", "ledger.jsonl"


@dataclass(frozen=True)
class Layers:
    """Files (rows, columns) in `folder`, little-endian, no header: `change_day.f8`, `status.u1`, ... `dtypes` by layer name."""

    folder: Path
    shape_yx: tuple[int, int]
    dtypes: Mapping[str, np.dtype]

    @classmethod
    def open(cls, folder: Path) -> Layers:
        """The layers that lie in `folder`; raises MissingInput if there are none."""
        found = _read_header(folder)
        if found is None:
            raise MissingInput(f"{folder}: no change layers here; run `driftline monitor CONFIG` first")
        return found

    @classmethod
    def create(cls, folder: Path, shape_yx: tuple[int, int], dtypes: Mapping[str, np.dtype]) -> Layers:
        """The layers in `folder`, made empty (and the ledger with them) unless those that lie there are the same."""
        layers = cls(folder, shape_yx, dtypes)
        if _read_header(folder) == layers and layers.is_whole():
            return layers
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        with naming_full_disk(folder, sum(layers.sizes.values())):
            for path, size in layers.sizes.items():
                with path.open("wb") as file:
                    file.truncate(size)
            content = {"shape_yx": shape_yx, "dtypes": {name: dtype.str for name, dtype in dtypes.items()}}
            write_text(folder / HEADER, json.dumps(content), flush=False, mark="partial")
        return layers

    @property
    def sizes(self) -> dict[Path, int]:
        """Every file, and its bytes."""
        return {self.path(name): math.prod(self.shape_yx) * dtype.itemsize for name, dtype in self.dtypes.items()}

    def is_whole(self) -> bool:
        return all(path.exists() and path.stat().st_size == size for path, size in self.sizes.items())

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.{self.dtypes[name].str[1:]}"

    def map(self, name: str) -> np.ndarray:
        """The whole layer as a read-only memory map, (Y, X)."""
        try:
            return np.memmap(self.path(name), self.dtypes[name], "r", shape=self.shape_yx)
        except (OSError, ValueError) as e:
            raise ArtefactDamaged(f"{self.path(name)} is not whole ({e}); run `driftline monitor CONFIG` again") from e

    def write(self, blocks: Sequence[tuple[Box, Mapping[str, np.ndarray], str]]) -> None:
        """Writes tiles, (tile, layer -> (rows, columns), what it was made from), in place, and then notes them. A tile that is
        not noted with what it should be made from is written again; while it is written, it is not noted."""
        with naming_full_disk(self.folder, sum(plane.nbytes for _, planes, _ in blocks for plane in planes.values())):
            self._note([(tile, "") for tile, _, _ in blocks])
            for name, dtype in self.dtypes.items():
                with self.path(name).open("r+b", buffering=0) as file:
                    for tile, planes, _ in blocks:
                        self._put(file.fileno(), tile, np.ascontiguousarray(planes[name], dtype))
            self._note([(tile, made_from) for tile, _, made_from in blocks])

    def _note(self, lines: Sequence[tuple[Box, str]]) -> None:
        with (self.folder / LEDGER).open("ab") as file:
            file.write(b"".join(json.dumps([tile.key, made_from]).encode() + b"\n" for tile, made_from in lines))

    def _put(self, descriptor: int, tile: Box, plane_YX: np.ndarray) -> None:
        """Plain writes: mapped pages would count as memory."""
        if plane_YX.shape != tile.shape:
            raise ValueError(f"a layer of {plane_YX.shape} for tile {tile.key} of {tile.shape}")
        for row, line in enumerate(plane_YX, start=tile.rows.start):
            os.pwrite(descriptor, line.data, (row * self.shape_yx[1] + tile.columns.start) * plane_YX.itemsize)

    def written(self) -> dict[str, str]:
        """tile key -> what its part of the layers was made from. A line that a kill cut off is left out."""
        path, found = self.folder / LEDGER, {}
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            with suppress(ValueError):
                key, made_from = json.loads(line)
                found[key] = made_from
        return found

    def compact(self) -> None:
        """Leaves one line per tile in the ledger."""
        lines = (json.dumps([key, made_from]) for key, made_from in sorted(self.written().items()))
        write_text(self.folder / LEDGER, "".join(f"{line}\n" for line in lines), flush=False, mark="partial")


def _read_header(folder: Path) -> Layers | None:
    """None where there is none that can be read: the layers are made anew."""
    try:
        content = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        height, width = content["shape_yx"]
        return Layers(folder, (int(height), int(width)), {name: np.dtype(text) for name, text in content["dtypes"].items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
