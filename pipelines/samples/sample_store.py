"""The store of many small series: an Icechunk repository with image(sample, time, band, [z,] y, x) and columns for each sample.

`valid (sample, time)`: frames that exist; `seconds (sample, time)`: of each from the first, NaN where not known. Columns: id,
digest (SHA-256 of the sample's files, and of what was done to them), file (its name), answer, group, part, is_current (False: the
source lists it no longer), and the facts of `pipelines.sources.samples`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr

from pipelines.cube.checksums import require_sums
from pipelines.cube.integrity import COLUMN_CODECS, naming_damage, pixel_codecs, read_contents, require_seal, write_seal
from pipelines.cube.store import BRANCH, band_as_json, open_repository
from pipelines.errors import ArtefactDamaged, CubeMismatch, MissingInput
from pipelines.files import replacing
from pipelines.progress import Progress, ignore_progress
from pipelines.scene import Band, bands_from_json
from pipelines.sources.samples import FACTS, PLACE_FACTS
from pipelines.stored_files import files_at

FORMAT, FORMAT_NAME = 1, "driftline_samples_format"
IMAGE, VALID, SECONDS = "image", "valid", "seconds"
TEXTS = ("id", "digest", "file", "answer", "group", "part")
CURRENT = "is_current"
CHUNK_BYTES = 1 << 20
COLUMN_CHUNK = 65_536
READ_BYTES = 64 << 20


@dataclass(frozen=True)
class SampleLayout:
    """What all samples share: frames (most), bands, sizes, dtype, and how frames became so (`settings`, JSON values)."""

    frames: int
    bands: tuple[Band, ...]
    size: tuple[int, ...]
    dtype: np.dtype
    settings: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, C, [z,] y, x)."""
        return self.frames, len(self.bands), *self.size

    @property
    def is_cut(self) -> bool:
        """Whether the samples are windows of a cube."""
        return "windows" in self.settings

    @property
    def grouped_by(self) -> str:
        """What a group is: `blocks of 5 x 5 pixels`."""
        side = self.settings["windows"]["block_px"] if self.is_cut else 0
        return f"blocks of {side} x {side} pixels" if side else "groups"


@dataclass(frozen=True)
class SampleTable:
    """The samples that the source still lists, N of them: their rows in the store, and their columns.

    `answer_N`: text, "" where not known.
    """

    layout: SampleLayout
    row_N: np.ndarray
    id_N: np.ndarray
    answer_N: np.ndarray
    group_N: np.ndarray
    part_N: np.ndarray
    file_N: np.ndarray
    valid_NT: np.ndarray
    seconds_NT: np.ndarray
    facts: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.row_N)

    def chosen(self, index_P: np.ndarray) -> SampleTable:
        """The samples of these numbers."""
        named = {name: getattr(self, name)[index_P] for name in ARRAYS}
        return SampleTable(self.layout, facts={name: one[index_P] for name, one in self.facts.items()}, **named)


def facts_of(layout: SampleLayout) -> tuple[str, ...]:
    """The names of what a store keeps of samples beside their frames."""
    return PLACE_FACTS if layout.is_cut else FACTS


ARRAYS = ("row_N", "id_N", "answer_N", "group_N", "part_N", "file_N", "valid_NT", "seconds_NT")


def create_arrays(store: icechunk.IcechunkStore, layout: SampleLayout) -> zarr.Group:
    """An empty store. Nothing is committed."""
    root = zarr.create_group(store, overwrite=True)
    root.attrs.update(
        {
            FORMAT_NAME: FORMAT,
            "settings": json.dumps(layout.settings, sort_keys=True),
            "bands": json.dumps([band_as_json(band) for band in layout.bands]),
        }
    )
    each = max(1, CHUNK_BYTES // max(1, int(np.prod(layout.shape)) * layout.dtype.itemsize))
    space = ("z", "y", "x")[-len(layout.size) :]
    root.create_array(
        IMAGE,
        shape=(0, *layout.shape),
        chunks=(each, *layout.shape),
        dtype=layout.dtype,
        fill_value=layout.dtype.type(0),
        compressors=pixel_codecs(layout.dtype.itemsize),
        dimension_names=("sample", "time", "band", *space),
        attributes={"long_name": "image as stored; physical = stored * scale + offset (see bands)"},
    )
    for name, dtype in ((VALID, bool), (SECONDS, "float64")):
        root.create_array(
            name,
            shape=(0, layout.frames),
            chunks=(COLUMN_CHUNK, layout.frames),
            dtype=dtype,
            fill_value=False if name == VALID else np.nan,
            compressors=COLUMN_CODECS,
            dimension_names=("sample", "time"),
        )
    columns: dict[str, Any] = {**dict.fromkeys(TEXTS, str), CURRENT: bool, **dict.fromkeys(facts_of(layout), "float64")}
    for name, kind in columns.items():
        how: dict[str, Any] = {"chunks": (COLUMN_CHUNK,), "compressors": COLUMN_CODECS, "dimension_names": ("sample",)}
        root.create_array(name, shape=(0,), dtype=kind, **how)
    return root


def seal(root: zarr.Group) -> None:
    """Before every commit: what tells damage from data."""
    write_seal(root)


def read_layout(root: zarr.Group, uri: str) -> SampleLayout:
    """Raises CubeMismatch for a store of another kind or version."""
    found = root.attrs.get(FORMAT_NAME)
    if found != FORMAT:
        held = "a cube of scenes" if "driftline_format" in root.attrs else f"format {found}"
        raise CubeMismatch(f"{uri} holds {held}, samples of format {FORMAT} were expected: choose another cube.uri")
    image: Any = root[IMAGE]
    return SampleLayout(
        image.shape[1],
        bands_from_json(str(root.attrs["bands"])),
        tuple(image.shape[3:]),
        image.dtype,
        json.loads(str(root.attrs["settings"])),
    )


def open_store(uri: str, snapshot: str | None = None) -> zarr.Group:
    """The arrays of a version, to be read. Raises MissingInput, CubeMismatch, ArtefactDamaged."""
    repository = open_repository(uri)
    with naming_damage(uri):
        session = repository.readonly_session(snapshot_id=snapshot) if snapshot else repository.readonly_session(BRANCH)
        require_sums(files_at(uri), repository, session.snapshot_id)
        contents = read_contents(session.store)
        if contents is None or IMAGE not in contents.metadata:
            raise MissingInput(f"{uri} holds no samples yet; run `driftline ingest CONFIG`")
        read_layout(contents.root, uri)
        require_seal(contents, uri)
        return contents.root


def read_table(uri: str, snapshot: str | None = None) -> SampleTable:
    """The samples that are still listed, without their pixels. Raises as `open_store`."""
    root = open_store(uri, snapshot)
    with naming_damage(uri):
        return table_of(root, uri)


def table_of(root: zarr.Group, uri: str) -> SampleTable:
    row_N = np.flatnonzero(column(root, CURRENT))
    order = np.argsort(column(root, "id")[row_N], kind="stable")
    row_N = row_N[order]
    texts = {name: column(root, name)[row_N] for name in ("id", "answer", "group", "part", "file")}
    layout = read_layout(root, uri)
    facts = {name: column(root, name)[row_N] for name in facts_of(layout)}
    valid_NT, seconds_NT = column(root, VALID)[row_N], column(root, SECONDS)[row_N]
    named = {f"{name}_N": values for name, values in texts.items()}
    return SampleTable(layout, row_N, valid_NT=valid_NT, seconds_NT=seconds_NT, facts=facts, **named)


def column(root: zarr.Group, name: str) -> np.ndarray:
    values: np.ndarray = np.asarray(root[name][:])  # type: ignore[index]
    return values.astype(object) if name in TEXTS else values


def decode_images(uri: str, snapshot: str, table: SampleTable, folder: Path, progress: Progress = ignore_progress) -> np.ndarray:
    """image_NTC[Z]YX, stored dtype, a read-only memory map in `folder`; made once for each snapshot and order of samples.

    Raises as `open_store`.
    """
    name = hashlib.sha256(f"{snapshot}{','.join(map(str, table.row_N))}".encode()).hexdigest()[:24]
    path = folder / f"{name}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.npy"):
            if old != path:  # which another slice has just decoded
                old.unlink(missing_ok=True)
        with replacing(path, mark=secrets.token_hex(4)) as draft:  # a slice on another machine may have our number
            _decode(uri, snapshot, table, draft, progress)
    image: np.ndarray = np.load(path, mmap_mode="r")
    if image.shape != (len(table), *table.layout.shape) or image.dtype != table.layout.dtype:
        raise ArtefactDamaged(f"{path} is not what was written; delete it")
    return image


def _decode(uri: str, snapshot: str, table: SampleTable, path: Path, progress: Progress) -> None:
    image: Any = open_store(uri, snapshot)[IMAGE]
    with path.open("wb") as file:
        out = np.lib.format
        header = {"descr": out.dtype_to_descr(image.dtype), "fortran_order": False, "shape": (len(table), *table.layout.shape)}
        out.write_array_header_2_0(file, header)
        each = max(1, READ_BYTES // max(1, int(np.prod(table.layout.shape)) * image.dtype.itemsize))
        for start in range(0, len(table), each):
            rows = table.row_N[start : start + each]
            with naming_damage(uri):
                low = int(rows.min())
                block = np.asarray(image[low : int(rows.max()) + 1]) if np.ptp(rows) < 4 * len(rows) else None
                values = block[rows - low] if block is not None else np.asarray(image.get_orthogonal_selection((rows,)))
            file.write(np.ascontiguousarray(values).tobytes())
            progress(min(start + each, len(table)), len(table))


def names_of(values: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more."""
    shown = ", ".join(values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
