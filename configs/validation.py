"""Every check with its message as Markdown, read from the code: `python -m configs.validation > docs/validation.md`."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from configs.reference import section
from configs.run import PolicyConfig
from pipelines.grid import Grid
from pipelines.privacy.folder import NO_SERIES
from pipelines.refusals import REASONS, exit_code, fate
from pipelines.scene import Band, Scene
from pipelines.sources.facts import FileFacts
from pipelines.sources.layers import ASSUMED, BandRequest
from pipelines.sources.metadata_files import ProductMetadata
from pipelines.sources.other_notations import Notation
from pipelines.sources.source import Listing
from pipelines.sources.survey import Seen, SourceInfo, remarks_on

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "models", "configs", "flows")


@dataclass(frozen=True)
class Message:
    """A message that the code can raise: the class of the error, the reason of a refusal, the text with <what varies>."""

    error: str
    reason: str
    text: str
    module: str


@cache
def _trees() -> dict[str, ast.Module]:
    """Module, as pipelines/errors -> its code."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def _functions() -> dict[str, list[tuple[ast.Module, ast.FunctionDef]]]:
    """Name -> every function or method that has it, with its module."""
    found: dict[str, list[tuple[ast.Module, ast.FunctionDef]]] = {}
    for tree in _trees().values():
        for one in ast.walk(tree):
            if isinstance(one, ast.FunctionDef):
                found.setdefault(one.name, []).append((tree, one))
    return found


@cache
def messages() -> tuple[Message, ...]:
    """Every message of the errors below, in the order of the files. Raises ValueError for a reason that the code hides."""
    return tuple(message for name, tree in _trees().items() for message in _messages_in(name, tree))


def _messages_in(module: str, tree: ast.Module) -> Iterator[Message]:
    for function, node in _with_function(tree, tree):
        made: tuple[str, ast.expr | None, ast.expr] | None = None
        match node:
            case ast.Call(func=ast.Name(id="SceneRefused"), args=[_, reason, detail]):
                made = "SceneRefused", reason, detail
            case ast.Call(func=ast.Name(id="PrivacyRefusal"), args=[_, ast.Constant() as reason, detail]) if (
                reason.value not in NO_SERIES
            ):
                made = "SceneRefused", reason, detail
            case ast.Call(func=ast.Attribute(attr="refuse"), args=[ast.Constant() as reason, detail]):
                made = "SceneRefused", reason, detail
            case ast.Call(func=ast.Name(id="SceneRefused"), args=[_, ast.Starred()]):
                continue  # made elsewhere
            case ast.Call(func=ast.Name(id="SceneRefused")):
                raise ValueError(
                    f"{module}:{node.lineno}: write SceneRefused(scene, reason, detail), so that this page can list it"
                )
            case ast.Call(func=ast.Name(id=error), args=[detail, *_]) if error in ERRORS:
                made = error, None, detail
            case ast.Return(value=ast.Tuple(elts=[reason, detail])) if _gives_refusals(function):
                made = "SceneRefused", reason, detail
        if made is not None:
            scope = Scope(tree, function, node.lineno)  # type: ignore[attr-defined]
            error, of_reason, of_text = made
            for name in [""] if of_reason is None else scope.reasons(of_reason):
                for text in scope.texts(of_text):
                    yield Message(error, name, text, module)


def _gives_refusals(function: ast.AST) -> bool:
    """True for a function that returns (reason, detail)."""
    returned = function.returns if isinstance(function, ast.FunctionDef) else None
    return returned is not None and ast.unparse(returned) == "tuple[str, str] | None"


def _with_function(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(innermost function, or the module; node) of everything below `node`."""
    for child in ast.iter_child_nodes(node):
        yield function, child
        yield from _with_function(child, child if isinstance(child, ast.FunctionDef) else function)


def _returned_by(name: str) -> list[tuple[ast.Module, ast.FunctionDef, ast.expr]]:
    """What the function or method of that name returns, where only one has it."""
    named = _functions().get(name, [])
    if len(named) != 1:
        return []
    tree, function = named[0]
    return [(tree, function, one.value) for one in ast.walk(function) if isinstance(one, ast.Return) and one.value is not None]


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: names are those of the function before the line, else of the module."""

    module: ast.Module
    function: ast.AST
    line: int

    def reasons(self, node: ast.expr) -> list[str]:
        """The reasons that an expression can be; none for one that was made elsewhere. Raises ValueError."""
        match node:
            case ast.Constant(value=str() as reason):
                return [reason]
            case ast.IfExp():
                return [*self.reasons(node.body), *self.reasons(node.orelse)]
            case ast.Attribute(attr="reason") | ast.Starred():
                return []
            case ast.Name() if values := self._values(node.id):
                return [reason for value in values for reason in self.reasons(value)]
            case ast.Call(func=ast.Name(id=name)) if returned := _returned_by(name):
                return [reason for _, _, value in returned for reason in self.reasons(value)]
        raise ValueError(f"line {self.line}: the reason {ast.unparse(node)} cannot be told from the code; write it out")

    def texts(self, node: ast.expr) -> list[str]:
        """The texts that an expression can be, with <name> for what varies."""
        if isinstance(node, ast.Name) and (values := self._values(node.id)):
            return [text for value in values for text in self.texts(value)]
        if isinstance(node, ast.NamedExpr):
            return self.texts(node.value)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            places = [(Scope(tree, one, value.lineno), value) for tree, one, value in _returned_by(name)]
            is_text = (ast.JoinedStr, ast.BinOp, ast.Constant)
            if found := [scope.text(value) for scope, value in places if isinstance(value, is_text)]:
                return [text for text in found if text]
        return [self.text(node)]

    def text(self, node: ast.expr) -> str:
        """The text of an expression; of alternatives the last."""
        match node:
            case ast.Constant(value=str() as text):
                return text
            case ast.JoinedStr():
                return "".join(self.text(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values)
            case ast.BinOp(op=ast.Add()):
                return self.text(node.left) + self.text(node.right)
            case ast.Name():
                values = self._values(node.id)
                is_text = values and isinstance(values[-1], ast.JoinedStr | ast.Constant | ast.BinOp)
                return self.text(values[-1]) if is_text else f"<{node.id}>"
            case ast.Attribute():
                return f"<{node.attr.strip('_')}>"
        return "<...>"

    def _values(self, name: str) -> list[ast.expr]:
        """What the name can be bound to before the line, in the function or else in the module."""
        for nodes in (list(ast.walk(self.function)), self.module.body):
            found: list[ast.expr] = []
            for node in nodes:
                match node:
                    case ast.Assign(targets=[ast.Name(id=target)]) if target == name and node.lineno <= self.line:
                        found.append(node.value)
                    case ast.NamedExpr(target=ast.Name(id=target)) if target == name:
                        found.append(node.value)
                    case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)) if node.lineno <= self.line:
                        found += [v for t, v in zip(targets, values, strict=True) if isinstance(t, ast.Name) and t.id == name]
            if found:
                return found
        return []


ERRORS = ("CubeMismatch", "ArtefactDamaged", "NotPublished", "RequestError")
OTHERS = (  # title, text, (error, modules) ...
    (
        "Cubes",
        "Exit code 2 for a request that does not fit the cube, 1 for a cube that is damaged: nothing is written, and what is "
        "damaged is not used. [cube.md](cube.md) says how a cube is checked and repaired.",
        (("CubeMismatch", "pipelines/cube"), ("ArtefactDamaged", "pipelines/cube")),
    ),
    (
        "Models",
        "Exit code 2 for images that are not like those of the training, 1 for a model that is damaged. "
        "[models.md](models.md) says how models are used on other images.",
        (
            ("ArtefactDamaged", "configs/trained"),
            ("RequestError", "pipelines/learning/reuse"),
            ("RequestError", "configs/trained"),
        ),
    ),
    (
        "Publishing",
        "Exit code 1: the products of the run before stay. [evaluation.md](evaluation.md) says how a model is judged.",
        (("NotPublished", ""), ("ArtefactDamaged", "pipelines/inference"), ("ArtefactDamaged", "pipelines/products/layers")),
    ),
)
HEAD = """# What is checked, and what happens then

Generated from the code by `python -m configs.validation`; do not edit. `<...>` stands for what varies in a message. Nothing is
converted, left out or refused without a line in the output of `driftline ingest`, in `runs/NAME/refused.json` and in the cube's
history; `--dry-run` says it before anything is written.

## Scenes that are refused

A refused scene is not written, and the others are. `driftline ingest` ends with exit code 3 if any was refused, with 0 if the
reasons were clouds or `driftline drop`, with 1 if none is left or if more were refused than `policy.max_refused` allows;
`--dry-run` ends so too, by what it lists as refused before pixels are read. A scene
is read again when its files or the config change, or with `--retry-refused`; `cube.quarantine: FOLDER` links the files of those
refused.

| reason | meaning | what to do | its date in a cube that has it | exit code |
|---|---|---|---|---|
"""
CONVERTED = """
## Scenes that are converted

These lines of `driftline ingest` say what was done with values and files, with the number of scenes and the first one. The cube
has the values of most scenes; `policy.conversions: refuse` refuses instead.

"""


def reference() -> str:
    """The whole page."""
    found = messages()
    rows = [f"| {name} | {one.meaning} | {one.remedy} | {fate(name)} | {exit_code(name)} |\n" for name, one in REASONS.items()]
    refused = [
        f"\n**{name}**\n\n{_listed([m.text for m in found if (m.error, m.reason) == ('SceneRefused', name)])}" for name in REASONS
    ]
    others = []
    for title, text, kinds in OTHERS:
        those = [m.text for error, place in kinds for m in found if m.error == error and m.module.startswith(place)]
        others.append(f"\n## {title}\n\n{textwrap.fill(text, 128)}\n\n{_listed(those)}")
    policy = section(PolicyConfig).replace("## PolicyConfig", "\n### Stricter rules: `policy`").replace(" See validation.md.", "")
    converted = CONVERTED + _listed(conversions())
    return HEAD + "".join(rows) + policy + "\n### Messages\n" + "".join(refused) + converted + "".join(others)


def _listed(texts: list[str]) -> str:
    """One item for each text that says something, in their order."""
    told = [text for text in dict.fromkeys(texts) if re.sub(r"<[^>]*>|\W", "", text)]
    lines = [textwrap.fill(f"- {text}", 128, subsequent_indent="  ", break_long_words=False) for text in told]
    return "".join(f"{line}\n" for line in lines)


@cache
def _grid(left: float) -> Grid:
    return Grid("EPSG:32633", (10.0, 0.0, left, 0.0, -10.0, 5_000_000.0), (100, 100))


def conversions() -> list[str]:
    """What ingest says of made-up scenes of which every second one differs."""
    band, dtype = Band("B04", 0.0001, 0.0, 0.0, "1"), np.dtype("uint16")
    usual = FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,))
    others = [
        FileFacts(dtype, _grid(5e5), 0.0001, -0.1, (0.0,)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (65535.0,)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), valid_range=(1.0, 10000.0)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), mask="alpha band"),
        FileFacts(dtype, _grid(6e5), 0.0001, 0.0, (0.0,), planes=4),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), unread=(".aux.xml:nodata=255",)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), product=ProductMetadata("MTD_MSIL2A.xml", "04.00", 0.0001, -0.1)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), said=(ASSUMED,)),
        FileFacts(dtype, _grid(5e5), 0.0001, 0.0, (0.0,), said=(Notation(0.5, -32.0, (255.0,), 0.0).no_echo(),)),
    ]
    info = SourceInfo((band,), dtype, _grid(5e5))
    lines: list[str] = []
    for facts in others:
        pair = [Seen(Scene(name, np.datetime64("2020-06-05"), {}), {"B04": one}) for name, one in (("A", usual), ("B", facts))]
        lines += remarks_on(pair, info, BandRequest((Band("B04"),)), counts_planes=True)
    stated = [Seen(Scene("A", np.datetime64("2020-06-05"), {}), {"B04": usual})]
    lines += remarks_on(stated, info, BandRequest((Band("B04", scale=0.001),)), counts_planes=True)
    return [*lines, *Listing(unused=[".hidden (a hidden folder with 3 files)", "notes.txt"]).remarks()]


if __name__ == "__main__":
    print(reference(), end="")
