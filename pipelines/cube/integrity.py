"""What tells damage from data: checksums in the codecs, the seal of a version, and errors that say where (docs/design/012)."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import icechunk
import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup
from zarr.core.sync import sync
from zarr.storage import StorePath
from zarr.types import AnyArray

from pipelines.errors import ArtefactDamaged, CubeMismatch, DriftlineError, StateError, StorageFull
from pipelines.stored_files import files_at

SEAL = "seal"
COLUMN_CODECS = (ZstdCodec(level=0, checksum=False), Crc32cCodec())
UNREACHABLE = (  # in errors of remote stores: what says nothing about what is stored
    "dispatch failure", "operation timed out", "timeout error", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "ExpiredToken", "NoSuchBucket", "SlowDown", "ServiceUnavailable", "failed to load credentials",
)  # fmt: skip
REPOSITORY, MAGIC = "repo", b"ICE\xf0\x9f\xa7\x8aCHUNK"  # of format 2, beside or in place of `refs`
PANIC = "PanicException"  # of Icechunk's Rust, which is no Exception


def pixel_codecs(item_bytes: int) -> tuple[BloscCodec, Crc32cCodec]:
    """Compression and checksum of the chunks of pixels. Blosc itself detects 3 of 40 flipped bits."""
    return BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=item_bytes), Crc32cCodec()


def first_line(error: BaseException) -> str:
    """What went wrong and its first cause, in one line, without Icechunk's box drawing and context."""
    lines = [line.strip(" \t│|×x") for line in str(error).splitlines()]
    what = next((line for line in lines if line), type(error).__name__)
    causes = [line.lstrip("`->╰─▶├ ") for line in lines if line.startswith(("`->", "╰─▶"))]
    return f"{what}: {causes[-1]}" if causes and causes[-1] not in what else what


def remedy_for(uri: str) -> str:
    return f"restore it from a copy, or remove {uri} and run `driftline ingest CONFIG`, which writes every scene again"


def require_format_1(uri: str) -> None:
    """Raises CubeMismatch for a repository that Icechunk 2 has created or upgraded; Icechunk 1 sees none there, or an old one."""
    try:
        head = files_at(uri).read_range(REPOSITORY, 0, len(MAGIC))
    except OSError:  # not there, or not to be seen: S3 says so of what may be missing to those who may not list
        return
    if head == MAGIC:
        raise CubeMismatch(
            f"the cube at {uri} is in the format of Icechunk 2 (created or upgraded by another program), and this driftline has "
            f"Icechunk {icechunk.__version__}. It is not damaged: read it with Icechunk 2, restore it from an earlier backup "
            "(`driftline restore`), or ingest into another cube.uri"
        )


@contextmanager
def naming_damage(uri: str, what: str = "cannot be read") -> Iterator[None]:
    """Whatever goes wrong with the storage, its metadata or its values becomes an ArtefactDamaged that names the cube.

    Errors of driftline, and of the machine (permissions, too many open files), stay what they are; a remote store that does not
    answer, or refuses the credentials, is a StateError.
    """
    try:
        yield
    except DriftlineError as e:
        if isinstance(e, ArtefactDamaged) and uri not in str(e):
            raise ArtefactDamaged(f"the cube at {uri}: {e}") from e
        raise
    except BaseException as e:
        is_of_machine = isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno is not None)
        if is_of_machine or not (isinstance(e, Exception) or type(e).__name__ == PANIC):
            raise
        if any(sign in str(e) for sign in UNREACHABLE):
            of = f" of the cube at {uri}" if uri else ""
            remedy = "check the network, the endpoint (AWS_ENDPOINT_URL), the bucket and the credentials (AWS_*), and try again"
            raise StateError(
                f"the store{of} cannot be reached ({first_line(e)}); nothing says that it is damaged: {remedy}"
            ) from e
        raise ArtefactDamaged(f"the cube at {uri} {what} ({first_line(e)}); {remedy_for(uri)}") from e


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Converts Icechunk errors, which hold the system's error as text: StorageFull for a full disk, else StateError."""
    try:
        yield
    except (icechunk.IcechunkError, OSError) as e:
        if isinstance(e, icechunk.ConflictError):
            raise
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        texts = [text for code in codes for text in (f"os error {code}", os.strerror(code))]
        if getattr(e, "errno", None) in codes or any(text in str(e) for text in texts):
            raise StorageFull(
                f"no space left for the cube at {uri}; what was committed before is intact. "
                "Free space and run the same command again: it resumes"
            ) from e
        remedy = f"what was committed before stays; `driftline check {uri}` says whether it is damaged"
        raise StateError(f"the cube at {uri} could not be written: {first_line(e)}; {remedy}") from e


# ---------------------------------------------------------------- the seal of a version


@dataclass(frozen=True)
class Contents:
    """A version without its pixels, read at once: a read by itself takes a round trip to zarr's event loop, or to a bucket.

    `metadata`: the content of each `zarr.json`, of the group as "". `root` holds it, so that `root[name]` reads nothing.
    """

    root: zarr.Group
    metadata: Mapping[str, Any]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The values of all arrays with one axis."""
        arrays = {name: array.async_array for name, array in self.root.arrays() if array.ndim == 1}
        values = sync(_all_of(array.getitem(slice(None)) for array in arrays.values()))
        return {name: np.asarray(one) for name, one in zip(arrays, values, strict=True)}


def read_contents(store: Store) -> Contents | None:
    """What `store` holds; None without a group."""
    metadata = sync(_read_metadata(store))
    if not metadata[""]:
        return None
    arrays = {name: content for name, content in metadata.items() if name}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    group = AsyncGroup.from_dict(StorePath(store), {**metadata[""], "consolidated_metadata": consolidated})
    return Contents(zarr.Group(group), metadata)


def seal_of(contents: Contents) -> str:
    """SHA-256 (hex) over the metadata of a cube's group and arrays, and over the values of all arrays but those of pixels."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.metadata.items()):
        attributes = {key: value for key, value in content.get("attributes", {}).items() if key != SEAL}
        unsealed = {**content, "attributes": attributes} if "attributes" in content else content
        digest.update(json.dumps(unsealed, sort_keys=True).encode())
        if name in contents.columns:
            digest.update(json.dumps(contents.columns[name].tolist()).encode())
    return digest.hexdigest()


def write_seal(root: zarr.Group) -> None:
    root.attrs[SEAL] = ""  # so that the attributes are those that `seal_of` will find
    contents = read_contents(root.store_path.store)
    assert contents is not None
    root.attrs[SEAL] = seal_of(contents)


def require_seal(contents: Contents, uri: str) -> None:
    """Raises ArtefactDamaged unless metadata and coordinates are as they were written. Older cubes have no seal."""
    sealed = contents.root.attrs.get(SEAL)
    if sealed is not None and sealed != seal_of(contents):
        raise ArtefactDamaged(f"the cube at {uri} is damaged: its metadata or coordinates have changed; {remedy_for(uri)}")


async def _read_metadata(store: Store) -> dict[str, Any]:
    names = ["", *sorted([name async for name in store.list_dir("") if name != "zarr.json"])]
    keys = [f"{name}/zarr.json" if name else "zarr.json" for name in names]
    found = await _all_of(store.get(key, default_buffer_prototype()) for key in keys)
    return {name: json.loads(one.to_bytes()) if one is not None else {} for name, one in zip(names, found, strict=True)}


async def _all_of(reads: Iterable[Awaitable[Any]]) -> list[Any]:
    """Their results. Raises the first error; further ones of `gather` alone would end in asyncio's log."""
    results = await asyncio.gather(*reads, return_exceptions=True)
    for one in results:
        if isinstance(one, BaseException):
            raise one
    return results


# ---------------------------------------------------------------- reads that say where


def chunks_of(array: AnyArray, key: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """Positions of the chunks that an index (integers, slices, arrays) touches."""
    touched = []
    for one, size, chunk in zip(key, array.shape, array.chunks, strict=True):
        touched.append(np.unique(np.atleast_1d(np.arange(size)[one]) // chunk).tolist())
    yield from itertools.product(*touched)


def damaged_chunks(array: AnyArray, places: Iterator[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], str]]:
    """(position, reason) of those chunks that cannot be read."""
    for place in places:
        try:
            with naming_damage(""):
                array[box_of(array, place)]
        except ArtefactDamaged as e:
            yield place, first_line(e.__cause__ or e).partition(". Stored: ")[0]


def box_of(array: AnyArray, place: tuple[int, ...]) -> tuple[slice, ...]:
    edges = zip(place, array.chunks, array.shape, strict=True)
    return tuple(slice(n * chunk, min((n + 1) * chunk, size)) for n, chunk, size in edges)


def box_text(array: AnyArray, place: tuple[int, ...]) -> str:
    """The box of a chunk: `rows 0 to 255, columns 256 to 511`; first and last are inside, counted from 0."""
    names = {"z": "slices", "y": "rows", "x": "columns"}
    dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    boxes = zip(dims, box_of(array, place), strict=True)
    return ", ".join(f"{names[dim]} {box.start} to {box.stop - 1}" for dim, box in boxes if dim in names)
