"""Modules and functions stay small enough to be read at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("driftline", "flows", "configs", "pipelines", "models")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [
        f"{one.name}: {length}"
        for one in functions
        if (length := (one.end_lineno or 0) - one.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]
    assert not long, f"longer than {MOST_LINES_OF_A_FUNCTION} lines: {long}"
