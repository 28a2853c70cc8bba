"""Files by name, in a folder or as objects below a prefix in S3: those of a cube, and the regions of a prediction."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pipelines.errors import MissingInput
from pipelines.files import replacing, write_bytes
from pipelines.wording import has_credentials, without_secrets

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem


@dataclass(frozen=True)
class Listed:
    """A file: its name, bytes, and when it was written (UTC)."""

    name: str
    size: int
    written_utc: datetime


class StoredFiles(Protocol):
    """Names are paths from the folder that they are in, with /."""

    @property
    def uri(self) -> str:
        """Where they are, for messages."""

    def names(self, folder: str) -> list[str]:
        """Every file below `folder`, sorted; [] if there is no such folder."""

    def listing(self, folder: str) -> list[Listed]:
        """As `names`, with size and time."""

    def folders(self) -> list[str]:
        """The names of the folders directly in here, sorted."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes from `start` on, fewer where the file ends before. Raises FileNotFoundError."""

    def size(self, name: str) -> int:
        """Bytes. Raises FileNotFoundError."""

    def write(self, name: str, content: bytes) -> None:
        """Replaces the file."""

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A file on this machine to write to, which takes the place of `name` when the block ends without an error.

        An upload to a bucket that is interrupted may leave a shorter object: whoever reads it must know its end.
        """

    def remove(self, folder: str) -> None:
        """Everything below `folder`; nothing where there is none."""

    def discard(self, name: str) -> None:
        """One file; nothing where there is none."""


@dataclass(frozen=True)
class FolderFiles:
    """Files on a disk."""

    folder: Path

    @property
    def uri(self) -> str:
        return str(self.folder)

    def names(self, folder: str) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in (self.folder / folder).rglob("*") if not path.is_dir())

    def listing(self, folder: str) -> list[Listed]:
        found = []
        for name in self.names(folder):
            with suppress(FileNotFoundError):  # a draft that has got its name since
                about = (self.folder / name).stat()
                found.append(Listed(name, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC)))
        return found

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*") if path.is_dir())

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        with (self.folder / name).open("rb") as file:
            return os.pread(file.fileno(), length, start)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, mark=secrets.token_hex(4))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mark=secrets.token_hex(4)) as draft:  # a process of another machine may have our number
            yield draft

    def remove(self, folder: str) -> None:
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    def discard(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class BucketFiles:
    """Objects below `prefix`, which begins with the bucket; region, endpoint and credentials as for the cube itself."""

    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.prefix}"

    @cached_property
    def _system(self) -> S3FileSystem:
        from pyarrow.fs import S3FileSystem

        scheme, address, *_ = urlsplit(endpoint() or "https://")
        return S3FileSystem(region=region(), scheme=scheme, endpoint_override=address or None)

    def names(self, folder: str) -> list[str]:
        return [one.name for one in self.listing(folder)]

    def listing(self, folder: str) -> list[Listed]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self.prefix}/{folder}", allow_not_found=True, recursive=True)
        found = [one for one in self._system.get_file_info(selector) if one.type == FileType.File]
        listed = (Listed(one.path.removeprefix(f"{self.prefix}/"), one.size, one.mtime) for one in found)
        return sorted(listed, key=lambda one: one.name)

    def folders(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        found = self._system.get_file_info(FileSelector(self.prefix, allow_not_found=True))
        return sorted(one.base_name for one in found if one.type == FileType.Directory)

    def read(self, name: str) -> bytes:
        with self._system.open_input_file(f"{self.prefix}/{name}") as file:
            return bytes(file.read())

    def read_range(self, name: str, start: int, length: int) -> bytes:
        with self._system.open_input_file(f"{self.prefix}/{name}") as file:
            return bytes(file.read_at(max(min(length, file.size() - start), 0), min(start, file.size())))

    def size(self, name: str) -> int:
        with self._system.open_input_file(f"{self.prefix}/{name}") as file:
            return int(file.size())

    def write(self, name: str, content: bytes) -> None:
        with self._system.open_output_stream(f"{self.prefix}/{name}") as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
            draft = Path(folder) / "draft"
            yield draft
            with draft.open("rb") as source, self._system.open_output_stream(f"{self.prefix}/{name}") as file:
                shutil.copyfileobj(source, file, 2**23)

    def remove(self, folder: str) -> None:
        for name in self.names(folder):
            self.discard(name)

    def discard(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._system.delete_file(f"{self.prefix}/{name}")


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """The same place for a process that works in another folder."""
    return uri if is_remote(uri) else str(Path(uri.removeprefix("file://")).expanduser().absolute())


def files_at(uri: str) -> StoredFiles:
    """The files below a folder or `s3://bucket/prefix`. Raises MissingInput as `bucket_of`."""
    if not is_remote(uri):
        return FolderFiles(Path(uri.removeprefix("file://")).expanduser().absolute())
    return BucketFiles("/".join(bucket_of(uri)))


def bucket_of(uri: str) -> tuple[str, str]:
    """(bucket, prefix) of `s3://bucket/prefix`. Raises MissingInput for another scheme, or credentials in the URI."""
    if has_credentials(uri):
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and leave user, password and query out of the URI"
        raise MissingInput(f"{without_secrets(uri)}: credentials are not read from URIs; {remedy}")
    scheme, bucket, prefix, *_ = urlsplit(uri)
    if scheme != "s3" or not bucket or not prefix.strip("/"):
        raise MissingInput(f"{uri}: expected a folder or s3://bucket/prefix")
    return bucket, prefix.strip("/")


def endpoint() -> str | None:
    """The address of the store, None for that of AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
