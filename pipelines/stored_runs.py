"""A run in a bucket: versions whose files are never replaced, and a marker, written last, that says which version counts.

    s3://bucket/prefix/NAME/
        current.json                    the version that counts: for every file of the run its object, bytes and SHA-256
        versions/VERSION/version.json   the same of each version
        versions/VERSION/products/...   the files that are new in a version, under the names that they have in the run
        turns/                          in which order versions were published (`Turns`)

Work is done in a copy on this machine (`pipelines.working_copies`): fetched before, published after each stage (docs/design/029).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipelines.errors import ArtefactDamaged, MissingInput, RunBusy, StateError
from pipelines.files import replacing
from pipelines.stored_files import Listed, StoredFiles, files_at
from pipelines.wording import without_secrets

if TYPE_CHECKING:
    import icechunk

MARKER, OF_VERSION, VERSIONS = "current.json", "version.json", "versions"
VERSION = re.compile(r"\d{8}T\d{6}-[0-9a-f]{4}")
PIECE = 2**26  # bytes of a file that are in memory
AT_ONCE = 8  # files

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredFile:
    """A file of a version: the object below the run's prefix, bytes, SHA-256 (hex)."""

    object: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Version:
    """What is published at once. files: name in the run -> where it is stored; before: the version that it replaced, or ""."""

    version: str
    before: str
    written_utc: str
    host: str
    files: Mapping[str, StoredFile]

    @classmethod
    def from_json(cls, content: Any) -> Version:
        """Raises TypeError, KeyError or ValueError for other content."""
        files = {name: StoredFile(**one) for name, one in content["files"].items()}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise ValueError("a file outside of the run")
        version, before, written_utc, host = (str(content[name]) for name in ("version", "before", "written_utc", "host"))
        return cls(version, before, written_utc, host, files)

    def to_bytes(self) -> bytes:
        return (json.dumps({"format": 1, **asdict(self)}, indent=1) + "\n").encode()


class Order(Protocol):
    """In which order versions are published."""

    def begin(self) -> None:
        """Makes what `follow` needs, if it is not there."""

    def last(self) -> str:
        """The newest version, "" before the first."""

    def follow(self, before: str, version: str) -> bool:
        """Makes `version` the newest, if `before` still is: of two processes at once only one succeeds."""


@dataclass(frozen=True)
class Turns:
    """Order by the history of an Icechunk repository without data, whose commits S3 accepts only from one of two writers.

    PyArrow cannot write an object on a condition, and nothing else that driftline needs can.
    """

    uri: str

    def begin(self) -> None:
        self._repository()

    def last(self) -> str:
        import icechunk

        from pipelines.cube.store import storage_of

        storage = storage_of(self.uri)
        return self._newest(icechunk.Repository.open(storage)) if icechunk.Repository.exists(storage) else ""

    def follow(self, before: str, version: str) -> bool:
        import icechunk
        import zarr

        repository = self._repository()
        session = repository.writable_session("main")
        if self._newest(repository, session.snapshot_id) != before:
            return False
        zarr.open_group(session.store, mode="a").attrs["version"] = version
        try:
            session.commit(version)
        except icechunk.ConflictError:
            return False
        return True

    def _repository(self) -> icechunk.Repository:
        import icechunk

        from pipelines.cube.store import storage_of

        return icechunk.Repository.open_or_create(storage_of(self.uri))

    @staticmethod
    def _newest(repository: icechunk.Repository, snapshot: str | None = None) -> str:
        message = next(repository.ancestry(branch=None if snapshot else "main", snapshot_id=snapshot)).message
        return message if VERSION.fullmatch(message) else ""


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Makes errors of the store's clients StateError with the place."""
    try:
        yield
    except FileNotFoundError as e:
        raise ArtefactDamaged(f"{uri}: an object that the marker names is not there: {without_secrets(str(e))}") from e
    except Exception as e:
        if not isinstance(e, OSError) and type(e).__name__ != "IcechunkError":
            raise
        from pipelines.cube.integrity import first_line

        detail = without_secrets(first_line(e))
        remedy = "check the bucket and the variables AWS_* (docs/s3.md), and run the same command again"
        raise StateError(f"{uri}: cannot be read or written: {detail}; {remedy}") from e


# ---------------------------------------------------------------- the stored run


@dataclass(frozen=True)
class StoredRun:
    """A run below `files`, and the order of its versions."""

    files: StoredFiles
    order: Order

    @classmethod
    def at(cls, uri: str) -> StoredRun:
        """The run at `s3://bucket/prefix/NAME`, which need not be there. Raises MissingInput for another URI."""
        return cls(files_at(uri), Turns(f"{uri.rstrip('/')}/turns"))

    @property
    def uri(self) -> str:
        return self.files.uri

    def read(self, name: str = MARKER) -> Version | None:
        """The version that counts, or that of a `version.json`; None if there is none. Raises ArtefactDamaged, StateError."""
        try:
            content = self.files.read(name)
        except FileNotFoundError:
            return None
        except OSError as e:
            with reaching(self.uri):
                raise e
        try:
            return Version.from_json(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            remedy = f"copy the {OF_VERSION} of the newest folder in {self.uri}/{VERSIONS} there"
            raise ArtefactDamaged(f"{self.uri}/{name} cannot be read ({type(e).__name__}: {e}); {remedy}") from e

    def settled(self) -> Version | None:
        """As `read`, for a writer: a marker that a process was stopped before, once its version had its turn, is written."""
        with reaching(self.uri):
            current, last = self.read(), self.order.last()
            if last and (current is None or current.version != last):
                owed = self.read(f"{VERSIONS}/{last}/{OF_VERSION}")
                if owed is not None:
                    return owed if self._mark(owed) else self.settled()
        return current

    def fetch(self, file: StoredFile, path: Path) -> None:
        """Writes the file to `path`. Raises ArtefactDamaged if it is not the one that was stored."""
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with replacing(path, flush=False) as draft, draft.open("wb") as output:
            for piece in self._pieces(file):
                output.write(piece)
                digest.update(piece)
            if digest.hexdigest() != file.sha256:
                raise ArtefactDamaged(damaged(f"{self.uri}/{file.object}", file))

    def is_whole(self, file: StoredFile) -> bool:
        """Whether the object is there and has the content that was stored."""
        digest = hashlib.sha256()
        try:
            for piece in self._pieces(file):
                digest.update(piece)
            return self.files.size(file.object) == file.bytes and digest.hexdigest() == file.sha256
        except FileNotFoundError:
            return False

    def _pieces(self, file: StoredFile) -> Iterator[bytes]:
        for start in range(0, file.bytes, PIECE):
            yield self.files.read_range(file.object, start, min(PIECE, file.bytes - start))

    def store(self, path: Path, name: str, version: str) -> StoredFile:
        """Stores a file as part of a version: its digest is that of the bytes that were sent."""
        stored, digest, size = f"{VERSIONS}/{version}/{name}", hashlib.sha256(), 0
        with self.files.writing(stored) as draft, path.open("rb") as source, draft.open("wb") as output:
            while piece := source.read(PIECE):
                output.write(piece)
                digest.update(piece)
                size += len(piece)
        return StoredFile(stored, size, digest.hexdigest())

    def publish(self, version: Version) -> None:
        """Makes a version whose files are stored the one that counts. Raises RunBusy if another was published meanwhile."""
        self.files.write(f"{VERSIONS}/{version.version}/{OF_VERSION}", version.to_bytes())
        if not self.order.follow(version.before, version.version):
            raise RunBusy(self.overtaken(version.before))
        self._mark(version)

    def _mark(self, version: Version) -> bool:
        """Writes the marker, unless another version follows by now: its writer has written the marker or owes it."""
        is_newest = self.order.last() == version.version
        if is_newest:
            self.files.write(MARKER, version.to_bytes())
        return is_newest

    def overtaken(self, before: str) -> str:
        """What a process is told that worked from `before`, where another has published since."""
        other = self.read()
        by = f"version {other.version} from {other.host}" if other else "another version"
        since = f"since this command fetched version {before}" if before else "since this command began the run"
        return (
            f"{self.uri}: {by} was published {since}; nothing of it is replaced. Run the same command again: it goes on from "
            "the published version, and what this command made is set aside on this machine"
        )


def damaged(where: str, file: StoredFile) -> str:
    return f"{where}: its SHA-256 is not {file.sha256[:12]}..., as the marker says; put the object back, or remove the run"


def in_threads(work: Callable[[str], Result], names: Iterable[str]) -> dict[str, Result]:
    """name -> what `work` returns for it; the first error ends it."""
    names = list(names)
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        return dict(zip(names, pool.map(work, names), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- what others do with a stored run


@dataclass(frozen=True)
class CheckedRun:
    """What `check` found: the version that counts, how many files it has, and what is wrong with which objects."""

    version: str
    files: int
    bytes: int
    damages: tuple[str, ...]


def check(uri: str) -> CheckedRun | None:
    """Reads every object of the published version; None if there is no run at `uri`. Raises StateError, ArtefactDamaged."""
    stored = StoredRun.at(uri)
    current = stored.read()
    if current is None:
        return None
    with reaching(uri):
        whole = in_threads(lambda name: stored.is_whole(current.files[name]), current.files)
    damages = tuple(damaged(current.files[name].object, current.files[name]) for name in current.files if not whole[name])
    return CheckedRun(current.version, len(whole), sum(file.bytes for file in current.files.values()), damages)


def superseded(uri: str, keep: int = 2, grace: timedelta = timedelta(days=1)) -> list[Listed]:
    """The objects that the newest `keep` versions (at least the one that counts) do not need, older than `grace`.

    Among them are those of uploads that were stopped; younger ones may belong to one that goes on, or be read. Raises
    MissingInput where there is no run.
    """
    stored = StoredRun.at(uri)
    current = stored.settled()
    if current is None:
        raise MissingInput(f"{uri} holds no run (no {MARKER})")
    with reaching(uri):
        objects = [one for one in stored.files.listing(VERSIONS) if VERSION.fullmatch(one.name.split("/")[1])]
    needed: set[str] = set()
    version: Version | None = current
    for _ in range(max(keep, 1)):
        if version is None:
            break
        needed |= {f"{VERSIONS}/{version.version}/{OF_VERSION}", *(file.object for file in version.files.values())}
        version = stored.read(f"{VERSIONS}/{version.before}/{OF_VERSION}") if version.before else None
    young = f"{datetime.now(UTC) - grace:%Y%m%dT%H%M%S}"
    return [one for one in objects if one.name not in needed and one.name.split("/")[1] < young]


def remove(uri: str, objects: Iterable[str]) -> None:
    """Removes objects that `superseded` named."""
    with reaching(uri):
        in_threads(files_at(uri).discard, objects)


def published(runs: str, is_wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """The wanted files (by their names in the run) of the published version of every run below `s3://bucket/prefix`.

    Raises StateError, ArtefactDamaged.
    """
    with reaching(runs):
        uris = [f"{runs}/{name}" for name in files_at(runs).folders()]
    for stored in map(StoredRun.at, uris):
        version = stored.read()
        if version is not None:
            objects = [file.object for name, file in version.files.items() if is_wanted(name)]
            with reaching(stored.uri):
                yield from in_threads(stored.files.read, objects).values()
