"""The keys of a config that name paths or addresses, and their access (read, write, connect).

Every such key has a marker (`READ`, `WRITE`, `CONNECT`, `BELOW_SOURCE`) in its type or metadata; `named_paths` collects
them from a run, so that flows/limits.py can check all access before the run starts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

Key = tuple[str | int, ...]
Access = Literal["read", "write", "connect"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://|/[^/])")  # s3://..., and s3:/... as a mistyped one


@dataclass(frozen=True)
class Named:
    """Marker of a key whose value is a path or a URI."""

    access: Access


@dataclass(frozen=True)
class BelowSource:
    """Marker of a key whose value is a path relative to `source.path`."""

    access: Access = "read"


READ, WRITE, CONNECT, BELOW_SOURCE = Named("read"), Named("write"), Named("connect"), BelowSource()


@dataclass(frozen=True)
class NamedPath:
    """A path, URI or scheduler address in a run: the key, the text as a stage uses it, and the access.

    `write` includes reading.
    """

    key: Key
    text: str
    access: Access

    @property
    def is_remote(self) -> bool:
        return self.access == "connect" or (is_uri(self.text) and not self.text.startswith("file://"))

    @property
    def local(self) -> Path:
        """The path on this machine, as the pipelines read it: without `file://`, with `~` of a cube expanded."""
        path = Path(self.text.removeprefix("file://"))
        return path.expanduser() if self.key[:1] == ("cube",) else path


def is_uri(text: str) -> bool:
    """True for `scheme://...`; False for a Windows drive or a file name with a colon."""
    return _SCHEME.match(text) is not None


def named_paths(run: BaseModel) -> list[NamedPath]:
    """Every path and URI in `run`, in the order of its keys, without unset keys.

    [p.text for p in named_paths(run) if p.access == "write"]     # ["runs"]
    """
    return list(_walk(run, (), Path(getattr(getattr(run, "source", None), "path", "."))))


def _walk(model: BaseModel, key: Key, source: Path) -> Iterator[NamedPath]:
    for name, info in type(model).model_fields.items():
        value, here = getattr(model, name), (*key, name)
        mark = next((m for m in info.metadata if isinstance(m, Named | BelowSource)), None)
        if mark is not None:
            for position, text in _texts(value, here):
                is_below = isinstance(mark, BelowSource)
                yield NamedPath(position, str(source / text) if is_below else text, mark.access)
        for position, child in _models(value, here):
            yield from _walk(child, position, source)


def _texts(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield (*key, name), one


def _models(value: Any, key: Key) -> Iterator[tuple[Key, BaseModel]]:
    if isinstance(value, BaseModel):
        yield key, value
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _models(one, (*key, index))
