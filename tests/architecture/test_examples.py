"""The examples in docstrings are right: every module with `>>>` runs as a doctest."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("driftline", "flows", "configs", "pipelines", "models")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_the_shown_results(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    if found.failed:
        try:
            doctest.testmod(importlib.import_module(module), raise_on_error=True)
        except doctest.UnexpectedException as e:  # the lack of torch, for one, which skips
            raise e.exc_info[1] from None
        except doctest.DocTestFailure:
            pass
    assert found.failed == 0, f"{found.failed} of {found.attempted} examples differ; see the captured output"
