"""The keys of a config that name paths or addresses, and their access (read, write, connect).

Every such key has a marker (`READ`, `WRITE`, `CONNECT`, `BELOW_SOURCE`) in its type or metadata; `named_paths` collects
them from a run, so that flows/limits.py can check all access before the run starts.

Inputs (`READ`) are relative to the config, all else to the working folder; `resolve_inputs` makes both relative to the working
folder, which is what a run holds.
"""

import os
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from configs.yaml_positions import Document, Key, dotted, parent_of

Access = Literal["read", "write", "connect"]

IN_WORKING_FOLDER = ("data", "runs")  # inputs that begin with these are relative to the working folder

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://|/[^/])")  # s3://..., and s3:/... as a mistyped one


@dataclass(frozen=True)
class Named:
    """Marker of a key whose value is a path or a URI; with `is_below_source` it is relative to `source.path`."""

    access: Access
    is_below_source: bool = False


SITE = "{site}"
READ, WRITE, CONNECT, BELOW_SOURCE = Named("read"), Named("write"), Named("connect"), Named("read", is_below_source=True)


@dataclass(frozen=True)
class NamedPath:
    """A path, URI or scheduler address in a run: the key, the text as a stage uses it, and the access (`write` includes read)."""

    key: Key
    text: str
    access: Access

    @property
    def is_remote(self) -> bool:
        return self.access == "connect" or (is_uri(self.text) and not self.text.startswith("file://"))

    @property
    def local(self) -> Path:
        """The path on this machine, as the pipelines read it: without `file://`, behind which a cube may have a `~`."""
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
        below: dict[Key, Any] = {here: value}
        if isinstance(value, dict):
            below = {(*here, inner): one for inner, one in value.items()}
        elif isinstance(value, list | tuple):
            below = {(*here, index): one for index, one in enumerate(value)}
        mark = next((m for m in info.metadata if isinstance(m, Named)), None)
        for position, one in below.items():
            if mark is not None and isinstance(one, str):
                yield NamedPath(position, str(source / one) if mark.is_below_source else one, mark.access)
            elif isinstance(one, BaseModel):
                yield from _walk(one, position, source)


# ---------------------------------------------------------------- relative to the config


def resolve_inputs(
    document: Document, tree: type[BaseModel], notify: Callable[[str], None], exists: Callable[[Path], bool] = Path.exists
) -> None:
    """Makes the inputs in `document`, the text of a config, relative to the working folder.

    Values of `--set` are so already. An input that is only there relative to the working folder is used, with a note: so it was
    read before. `exists` says whether a path is there.
    """
    folder = _as_seen_from_here(Path(document.name).parent)
    for key in (position for one in input_keys(tree) for position in positions_of(document.data, one)):
        parent = parent_of(document.data, key)
        text = parent.get(key[-1]) if isinstance(parent, dict) else None
        if not isinstance(text, str) or not text.isprintable() or is_fixed(text) or _is_typed(document, key):
            continue
        if SITE in text:  # of every site, below source.path: labels of one cube are an input, of sites they are not
            continue
        beside = text_from_here(text, folder)
        if beside != text and not exists(Path(beside)) and exists(Path(text)):
            notify(
                f"{document.position_of_value(key)}: {dotted(key)}: there is no {beside}, so {Path.cwd() / text} is used, "
                "from the working folder as in earlier versions; "
                f"write {text_beside(text, folder)}, relative to the config: this is read for one more version"
            )
        else:
            parent[key[-1]] = beside


def input_keys(tree: type[BaseModel]) -> list[tuple[str, ...]]:
    """The keys of a config that name inputs (`READ`).

    >>> from configs.tasks.forecast import ForecastRun
    >>> input_keys(ForecastRun)
    [('source', 'path'), ('source', 'mask_file'), ('compute', 'tls', 'ca'), ('compute', 'tls', 'cert'), \
('compute', 'tls', 'key'), ('covariates', 'static', 'path'), ('covariates', 'drivers', 'path'), ('model', 'use'), \
('training', 'start_from')]
    """
    found: list[tuple[str, ...]] = []
    for name, info in tree.model_fields.items():
        if READ in info.metadata:
            found.append((name,))
        found += [(name, *key) for model in models_in(info.rebuild_annotation()) for key in input_keys(model)]
    return list(dict.fromkeys(found))


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The config classes that an annotation names, those within them not counted."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]


def positions_of(data: object, key: Key) -> Iterator[Key]:
    """A key of `input_keys` in what the YAML says: of a list, the key in each of its items.

    >>> list(positions_of({"drivers": [{"path": "rain.csv"}, {"path": "sun.csv"}]}, ("drivers", "path")))
    [('drivers', 0, 'path'), ('drivers', 1, 'path')]
    """
    if isinstance(data, list):
        yield from ((index, *rest) for index, item in enumerate(data) for rest in positions_of(item, key))
    elif len(key) < 2:
        yield key
    else:
        below = data.get(key[0]) if isinstance(data, dict) else None
        yield from ((key[0], *rest) for rest in positions_of(below, key[1:]))


def is_fixed(text: str) -> bool:
    """True for an input that does not depend on where the config lies: absolute, `~/...`, a URI, `data/...` or `runs/...`.

    `./data` is the folder `data` beside the config.
    """
    return not text or is_uri(text) or text.startswith(("/", "~")) or text.split("/")[0] in IN_WORKING_FOLDER


def text_from_here(text: str, folder: Path) -> str:
    """An input of a config in `folder`, relative to the working folder; absolute where config and input lie outside of it.

    So a config that lies in the working folder, or below it, means the same run however it is named.
    """
    here = Path.cwd()
    if folder == here:
        return text
    beside = os.path.normpath(folder / text)
    return os.path.relpath(beside, here) if any(Path(one).is_relative_to(here) for one in (folder, beside)) else beside


def text_beside(text: str, folder: Path) -> str:
    """How a config in `folder` writes the input `text`, which is relative to the working folder.

    text_beside("scenes", Path("configs"))     # "../scenes"
    """
    folder = _as_seen_from_here(folder)
    if is_fixed(text) or folder == Path.cwd():
        return text
    beside = os.path.relpath(text, folder)
    return f"./{beside}" if is_fixed(beside) else beside


def _as_seen_from_here(folder: Path) -> Path:
    """The absolute path; one that leads through links into the working folder is a path below that."""
    here = Path.cwd()
    absolute = Path(os.path.normpath(here / folder))
    real = absolute.resolve()
    return real if real.is_relative_to(here) and not absolute.is_relative_to(here) else absolute


def _is_typed(document: Document, key: Key) -> bool:
    """True if the value, or a section around it, was given with `--set`: a person typed it in the working folder."""
    return any(document.value_positions.get(key[:depth], "").startswith("--set") for depth in range(1, len(key) + 1))
