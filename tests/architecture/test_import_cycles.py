"""No modules import each other in a circle. Imports inside functions count, those for type checkers alone do not."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

grimp = pytest.importorskip("grimp")  # comes with import-linter

PACKAGES = ("driftline", "flows", "configs", "pipelines", "models")


def find_cycle(*packages: str) -> list[str]:
    """The modules of one circle of imports, the first one again at the end; [] if there is none."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    assert find_cycle(*PACKAGES) == []


@pytest.mark.parametrize(
    ("of_first", "is_cycle"),
    [
        ("def late():\n    from toy_cycle import second\n    return second\n", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy_cycle import second\n", False),
    ],
)
def test_what_counts_as_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_first: str, is_cycle: bool) -> None:
    package = tmp_path / "toy_cycle"
    package.mkdir()
    for name, text in {"__init__": "", "first": of_first, "second": "import toy_cycle.first\n"}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert set(find_cycle("toy_cycle")) == ({"toy_cycle.first", "toy_cycle.second"} if is_cycle else set())
