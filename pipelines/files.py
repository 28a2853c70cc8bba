"""Files and folders that are there as a whole or not at all (written beside their place, then renamed), and a lock.

A draft of `NAME` is `.NAME.PROCESS` in the same folder; `flows.folder.sweep` removes what a killed process left. Where only one
process may write (`mark="partial"`), the next one overwrites it. `models.checkpoint` has its own: models do not know pipelines.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RequestError, StorageFull

if TYPE_CHECKING:
    import numpy as np

CACHE_VARIABLE = "DRIFTLINE_CACHE"


def cache_folder() -> Path:
    """What is kept between runs and checkouts: in $DRIFTLINE_CACHE, else in the platform's folder of caches.

    Raises RequestError where that needs a home folder and there is none (a container with a user that it does not know).
    """
    try:
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named).expanduser().absolute()
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "driftline"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "driftline" / "cache"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "driftline"
    except RuntimeError as e:
        raise RequestError(f"no folder for caches, since there is no home folder ({e}); set {CACHE_VARIABLE} to a folder") from e


@contextmanager
def replacing(path: Path, *, flush: bool = True, mark: str = "") -> Iterator[Path]:
    """A path to write the new content of `path` to; it takes its place when the block ends without an error.

    flush: the content is on disk before the name is, so that not even a power failure leaves an empty file. mark: the end of the
    draft's name, by default the number of the process. Raises StorageFull.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, replacing(Path(folder) / "a.txt", mark="partial") as draft:
    ...     print(draft.name, draft.write_text("whole"))
    .a.txt.partial 5
    """
    draft = path.with_name(f".{path.name}.{mark or os.getpid()}")
    try:
        with naming_full_disk(path):
            yield draft
            publish(draft, path, flush=flush)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, *, flush: bool = True, mark: str = "") -> None:
    """Replaces `path` by `content`; arguments as of `replacing`. Raises StorageFull."""
    with replacing(path, flush=flush, mark=mark) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str, *, flush: bool = True, mark: str = "") -> None:
    """Replaces `path` by `text` in UTF-8; arguments as of `replacing`. Raises StorageFull."""
    write_bytes(path, text.encode(), flush=flush, mark=mark)


def write_json(path: Path, content: object, *, is_strict: bool = False) -> None:
    """Replaces `path` by `content` as JSON; makes its folder. Raises StorageFull.

    is_strict: for programs of others; numbers that are not finite are mistakes of ours and raise ValueError. Otherwise they are
    written as NaN, and values that JSON does not know (paths, dates) as text.
    """
    if is_strict:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    else:
        text = json.dumps(content, indent=1, default=str)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def publish(draft: Path, path: Path, *, flush: bool = True) -> None:
    """Renames a finished file to `path`, once its content is on disk (`flush`)."""
    if flush:
        sync(draft)
    draft.replace(path)


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`; what was there is removed once the new one is in its place."""
    old = target.with_name(f".{target.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_full_disk(path: Path, size: int = 0) -> Iterator[None]:
    """Turns "no space left" into StorageFull that says where, and how many bytes were wanted where that is known."""
    try:
        yield
    except OSError as e:
        # GDAL's errors have no number
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free if e.errno is None else None
        if not is_full(e) and (free is None or free >= max(size, 2**20)):
            raise
        wanted = f" for {size / 2**20:.1f} MiB" if size else ""
        raise StorageFull(
            f"{path}: no space left{wanted}; free space and run the same command again, what was finished is kept"
        ) from e


def is_full(error: OSError) -> bool:
    """True if the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Held(Exception):
    """Another process or thread holds the lock; the message names it."""


@contextmanager
def exclusive_owner(lock_path: Path, owner_path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the kernel's lock on `lock_path`, with our name in `owner_path`. Raises Held after `wait_s`, naming the owner.

    The kernel releases the lock when its owner ends, however that happens.
    """
    from filelock import FileLock, Timeout  # slow to import

    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path, timeout=wait_s, is_singleton=False)
    try:
        lock.acquire()
    except Timeout as e:
        raise Held(_owner(owner_path)) from e
    try:
        # a separate file: opening the lock file truncates it, even if the lock is not acquired
        ours = {"pid": os.getpid(), "host": platform.node(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        owner_path.write_text(json.dumps(ours), encoding="utf-8")
        yield
        owner_path.unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Around "is the folder there, else make it", by processes that hold no lock of their run: one makes it, the others wait."""
    from filelock import FileLock  # slow to import

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=False):
        yield


def _owner(owner_path: Path) -> str:
    try:
        owner = json.loads(owner_path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it holds the lock and has not written its name yet
        return "another process that has just started"


def path_of(array: np.ndarray) -> Path | None:
    """The absolute path of the file that the array is the memory map of, as a whole (`map_file`); else None."""
    import numpy as np

    mapped = array if isinstance(array, np.memmap) else array.base
    if not isinstance(mapped, np.memmap) or mapped.filename is None:
        return None
    is_whole = (mapped.shape, mapped.dtype, mapped.ctypes.data) == (array.shape, array.dtype, array.ctypes.data)
    return Path(mapped.filename).absolute() if is_whole and isinstance(mapped.base, mmap) else None


def map_file(path: Path) -> np.ndarray:
    """The array as a private memory map: changes stay in this process and never reach the file."""
    import numpy as np

    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
