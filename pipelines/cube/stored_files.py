"""The files of a cube as they are stored: in a folder, or as objects below a prefix in S3."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pipelines.files import write_bytes

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem


class StoredFiles(Protocol):
    """Names are paths from the cube's folder, with /."""

    def names(self, folder: str) -> list[str]:
        """Every file below `folder`, sorted; [] if there is no such folder."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def write(self, name: str, content: bytes) -> None:
        """Replaces the file."""


@dataclass(frozen=True)
class FolderFiles:
    """Files on a disk."""

    folder: Path

    def names(self, folder: str) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in (self.folder / folder).rglob("*") if not path.is_dir())

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content)


@dataclass(frozen=True)
class BucketFiles:
    """Objects below `prefix`, which begins with the bucket; region, endpoint and credentials as for the cube itself."""

    prefix: str

    @cached_property
    def _system(self) -> S3FileSystem:
        from pyarrow.fs import S3FileSystem

        scheme, address, *_ = urlsplit(endpoint() or "https://")
        return S3FileSystem(region=region(), scheme=scheme, endpoint_override=address or None)

    def names(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self.prefix}/{folder}", allow_not_found=True, recursive=True)
        found = self._system.get_file_info(selector)
        return sorted(one.path.removeprefix(f"{self.prefix}/") for one in found if one.type == FileType.File)

    def read(self, name: str) -> bytes:
        with self._system.open_input_file(f"{self.prefix}/{name}") as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        with self._system.open_output_stream(f"{self.prefix}/{name}") as file:
            file.write(content)


def endpoint() -> str | None:
    """The address of the store, None for that of AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
