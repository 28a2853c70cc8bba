"""What a check says of a config: a mistake with its key and a remedy; and the checks that several sections share."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from configs.yaml_positions import Key

RELATIVE_TO = "inputs are relative to the config, data/... and runs/... to the working folder"


@dataclass(frozen=True)
class Finding:
    """A mistake before it is given its line: the key it belongs to, the problem, the remedy."""

    key: Key
    problem: str
    remedy: str = ""


def check_crs(key: Key, crs: str | None) -> Iterator[Finding]:
    if crs is None:
        return
    from rasterio.env import Env  # 0.2 s, and only for configs that name a CRS
    from rasterio.errors import CRSError

    from pipelines.grid import parse_crs

    try:
        with Env():  # inside an Env, PROJ's own message goes to logging instead of stderr
            parse_crs(crs)
    except CRSError:
        yield Finding(key, f"PROJ does not know the CRS {crs!r}", "an EPSG code such as EPSG:32635, a PROJ string or WKT")


def missing_file(key: Key, path: Path) -> Iterator[Finding]:
    """A finding if the file at `path` is not there."""
    if path.is_dir():
        yield Finding(key, f"{path} is a folder, expected a file")
    elif not path.exists():
        yield Finding(key, f"no file at {path}", _path_remedy(path))


def missing_folder(path: Path) -> Iterator[Finding]:
    """A finding if the source's folder is not there."""
    if not path.is_dir():
        problem = f"{path} is not a folder" if path.exists() else f"no folder at {path}"
        yield Finding(("source", "path"), problem, _path_remedy(path))


def _path_remedy(path: Path) -> str:
    if "nrt-0.2.1" in path.parts:
        return "`driftline demo` fetches the demo's data"
    parent = path.parent
    if parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in islice(parent.iterdir(), 5000)], n=1)
        if near:
            return f"did you mean {parent / near[0]}?"
    return f"check the path: {RELATIVE_TO}"


def closest(name: str, known: Sequence[str], otherwise: str) -> str:
    """`did you mean ...?`, or `otherwise` and all that is known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(known)}"
