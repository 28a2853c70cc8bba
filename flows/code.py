"""Which source files decide a stage's output: the modules that it names and everything of driftline that they import."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "configs", "pipelines", "models")


@cache
def digest(modules: tuple[str, ...]) -> str:
    """SHA-256 (12 hex) over the source of `modules` and of every module that they import, directly or not.

    Imports within functions count too, so that a module that is loaded late is not missed.
    """
    found = hashlib.sha256()
    for name in sorted(closure(modules)):
        found.update(name.encode() + source_of(name).read_bytes())
    return found.hexdigest()[:12]


def closure(modules: Iterable[str]) -> set[str]:
    """The modules and all that they import, by dotted name. Raises ValueError for a module that is not there."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name)
    return found


@cache
def imports_of(name: str) -> tuple[str, ...]:
    """Modules of driftline that the module's source names in import statements, packages included."""
    tree = ast.parse(source_of(name).read_text(encoding="utf-8"))
    return tuple(dict.fromkeys(target for node in ast.walk(tree) for target in _targets(node)))


def source_of(name: str) -> Path:
    """The file of a module or of a package's `__init__`. Raises ValueError."""
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"no module {name} below {ROOT}")


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return
    yield from (name for name in names if name.split(".")[0] in PACKAGES and _is_module(name))


def _is_module(name: str) -> bool:
    try:
        source_of(name)
    except ValueError:
        return False
    return True
