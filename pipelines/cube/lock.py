"""A lock for one writer at a time: Icechunk can lose commits of concurrent processes on a local disk (measured: 3 of 32)."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.cube.store import is_remote, local_path
from pipelines.errors import CubeBusy


@contextmanager
def exclusive_writer(uri: str) -> Iterator[None]:
    """Holds the cube for writing. The kernel releases the lock when its owner ends, however that happens.

    The lock file is kept beside the cube (removing it would let two writers lock two files of one name). On S3 nothing is
    locked: Icechunk detects a conflict at the commit.

    Raises CubeBusy at once if another process or thread is writing; the message names it.
    """
    if is_remote(uri):
        yield
        return
    path = local_path(uri)
    try:
        with exclusive_owner(path.with_name(path.name + ".lock"), path.with_name(path.name + ".writer.json")):
            yield
    except Held as e:
        who = f"{e}; try again when it has finished (or stop that process: that releases its lock)"
        raise CubeBusy(f"the cube {path} is being written by {who}") from e


class Held(Exception):
    """Another process or thread holds the lock; the message names it."""


@contextmanager
def exclusive_owner(lock_path: Path, owner_path: Path) -> Iterator[None]:
    """Holds the kernel's lock on `lock_path`, with our name in `owner_path`. Raises Held at once, naming the owner."""
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path, timeout=0, is_singleton=False)
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


def _owner(owner_path: Path) -> str:
    try:
        owner = json.loads(owner_path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it holds the lock and has not written its name yet
        return "another process that has just started"
