"""Which source code decides a stage's output: what the stage names, and everything of driftline that this uses.

A stage names modules (`pipelines.monitoring.replay`), or definitions (`flows.tasks.forecast:Forecast.fit`). flows.tasks and
configs hold the code of every stage, so of these only the definitions that are used count; modules of pipelines and models
count whole, with the files beside them that they name: templates, scripts, tables. The rest of flows, the engine, computes
nothing and does not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = (".csv", ".txt")
DATA = (*TABLES, ".html", ".jinja", ".css", ".js")
WHOLE, BY_DEFINITION = ("pipelines", "models"), ("configs", "flows.tasks")


@dataclass(frozen=True, order=True)
class Part:
    """A module, or one definition in it: a function, a class, a method (`Class.method`) or a constant."""

    module: str
    name: str = ""


def key(content: Mapping[str, object], code: Iterable[str]) -> str:
    """SHA-256 (hex) of JSON values and of the source that `code` stands for."""
    text = json.dumps({"content": content, "code": digest(tuple(code))}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def digest(code: tuple[str, ...]) -> str:
    """SHA-256 (hex) over the source of `code` and of all that it uses."""
    found = hashlib.sha256()
    for part in sorted(parts(code)):
        found.update(f"{part.module}:{part.name}\n{source_of(part)}\n".encode())
    for path in sorted({path for part in parts(code) if not part.name for path in files_named_by(part.module)}):
        found.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()


def closure(code: Iterable[str]) -> set[str]:
    """The modules, by dotted name, of which something counts. Raises ValueError for code that is not there."""
    return {part.module for part in parts(tuple(code))}


@cache
def parts(code: tuple[str, ...]) -> frozenset[Part]:
    """Everything that `code` uses, directly or not. Imports within functions count too, so that none is missed."""
    found: set[Part] = set()
    waiting = [Part(*name.split(":")) for name in code]
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += used_by(part)
    packages = {Part(".".join(names[:n])) for part in found for names in [part.module.split(".")] for n in range(1, len(names))}
    return frozenset(found | {package for package in packages if package.module.startswith(WHOLE)})


@cache
def used_by(part: Part) -> tuple[Part, ...]:
    """What a part uses itself. Raises ValueError for a part that is not there."""
    node = node_of(part)
    if not part.name:
        return tuple(dict.fromkeys(use for target in imports_in(node).values() for use in resolve(target)))
    names = {**imports_in(tree_of(part.module), is_nested=False), **imports_in(node)}
    own, owner = definitions(part.module), part.name.partition(".")[0]
    found: list[Part] = []
    for name, attribute in references(node):
        if name == "self" and f"{owner}.{attribute}" in own:
            found.append(Part(part.module, f"{owner}.{attribute}"))
        elif name in names:
            found += resolve(names[name], attribute)
        elif name in own:
            found.append(Part(part.module, name))
    return tuple(dict.fromkeys(found))


def resolve(target: Part, attribute: str = "") -> Iterator[Part]:
    """What an imported name, or an attribute of an imported module, stands for; nothing for the engine and for other packages."""
    is_module = not target.name
    if target.module.partition(".")[0] in WHOLE:
        yield Part(target.module)
    elif not target.module.startswith(BY_DEFINITION):
        return
    elif (name := attribute if is_module else target.name) in definitions(target.module):
        yield Part(target.module, name)
    elif again := imports_in(tree_of(target.module), is_nested=False).get(name):
        yield from resolve(again, "" if is_module else attribute)
    elif is_module:
        yield target


# ---------------------------------------------------------------- source files


def source_of(part: Part) -> str:
    """The text of a module, or of a definition with its decorators."""
    node = node_of(part)
    if not isinstance(node, ast.stmt):
        return "".join(lines_of(part.module))
    first = min(one.lineno for one in [node, *getattr(node, "decorator_list", ())])
    return "".join(lines_of(part.module)[first - 1 : node.end_lineno])


@cache
def lines_of(module: str) -> list[str]:
    return file_of(module).read_text(encoding="utf-8").splitlines(keepends=True)


@cache
def files_named_by(module: str) -> frozenset[Path]:
    """The files that are no source code, of the package of a module, that it names, or that a template it names does."""
    folder, text = file_of(module).parent, "".join(lines_of(module))
    beside = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in DATA}
    found: set[Path] = set()
    waiting = [path for name, path in beside.items() if name in text]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            is_template = path.parent == folder and path.suffix not in TABLES  # what is vendored names nothing of ours
            named = path.read_text(encoding="utf-8") if is_template else ""
            waiting += [other for name, other in beside.items() if name in named]
    return frozenset(found)


def node_of(part: Part) -> ast.AST:
    """The syntax tree of a module or definition. Raises ValueError."""
    if not part.name:
        return tree_of(part.module)
    if part.name not in definitions(part.module):
        raise ValueError(f"{part.module} does not define {part.name}")
    return definitions(part.module)[part.name]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse("".join(lines_of(module)))


def file_of(module: str) -> Path:
    """The file of a module or of a package's `__init__`. Raises ValueError."""
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"no module {module} below {ROOT}")


def is_module(name: str) -> bool:
    try:
        file_of(name)
    except ValueError:
        return False
    return True


@cache
def definitions(module: str) -> Mapping[str, ast.AST]:
    """Functions, classes and constants of a module, and those of its classes as `Class.name`."""
    found = dict(_defined(tree_of(module)))
    of_classes = [(name, node) for name, node in found.items() if isinstance(node, ast.ClassDef)]
    return found | {f"{name}.{inner}": child for name, node in of_classes for inner, child in _defined(node)}


def _defined(parent: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((name.id, node) for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def imports_in(node: ast.AST, *, is_nested: bool = True) -> dict[str, Part]:
    """Local name -> the module or definition that an import statement in `node` binds to it; not those for type checkers."""
    found: dict[str, Part] = {}
    for child in statements(node) if is_nested else ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found |= {alias.asname or alias.name: Part(alias.name) for alias in child.names if is_module(alias.name)}
        elif isinstance(child, ast.ImportFrom) and child.module and is_module(child.module):
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                found[alias.asname or alias.name] = Part(inner) if is_module(inner) else Part(child.module, alias.name)
    return found


def references(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name, attribute or "") of everything that `node` reads; annotations are not carried out."""
    owners: set[ast.AST] = set()
    for child in executed(node):  # an attribute comes before the name that it is read of
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            owners.add(child.value)
            yield child.value.id, child.attr
        elif isinstance(child, ast.Name) and child not in owners:
            yield child.id, ""


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it but annotations and `if TYPE_CHECKING`."""
    yield node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not is_for_type_checkers(child):
                    yield from executed(child)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """As `executed`, without expressions, which are most of a tree and hold no import."""
    yield node
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        children = getattr(node, field, ())
        for child in children if isinstance(children, list) else ():
            if not is_for_type_checkers(child):
                yield from statements(child)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
