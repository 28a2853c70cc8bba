"""Which code a stage's key digests: what the stage uses, and nothing else."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flows import code
from flows.tasks.forecast import Forecast

FILES = {
    "flows/tasks/toy.py": """
from typing import TYPE_CHECKING
from configs import toy as config
from flows.folder import require
from pipelines.text import shout
if TYPE_CHECKING:
    from pipelines.unused import Thing
LIMIT = 3
class Toy:
    def fit(self, x: Thing):
        require(x)
        return self.helped(config.build_loss())
    def helped(self, loss):
        return loss + LIMIT
    def predict(self):
        from pipelines.late import load
        return shout(load())
""",
    "configs/toy.py": """
from configs.base import Strict
def build_loss():
    from models.losses import mae
    return mae
def build_report():
    from pipelines.unused import Thing
    return Thing
""",
    "configs/base.py": "class Strict:\n    pass\n",
    "flows/folder.py": "from pipelines.unused import Thing\ndef require(x):\n    return x\n",
    "models/losses.py": "import json\nfrom models.numbers import zero\nmae = zero\n",
    "models/numbers.py": "zero = 0\n",
    "pipelines/text.py": "def shout(x):\n    return x\nPAGE = 'page.html'\n",
    "pipelines/page.html": "{% include 'page.css' %}",
    "pipelines/page.css": "p {color: red}",
    "pipelines/other.css": "p {color: red}",
    "pipelines/late.py": "import pipelines.text\ndef load():\n    return 1\n",
    "pipelines/unused.py": "class Thing:\n    pass\n",
}
FIT, PREDICT = ("flows.tasks.toy:Toy.fit",), ("flows.tasks.toy:Toy.predict",)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[], ModuleType]:
    """`load()` is flows.code, new, for a tree of the files above; what it has read before is forgotten."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)

    def new() -> ModuleType:
        spec = importlib.util.spec_from_file_location("code_of_a_toy", code.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        module.ROOT = tmp_path
        return module

    return new


def test_a_definition_uses_what_it_reads_and_calls(load: Callable[[], ModuleType]) -> None:
    found = load()
    parts = {f"{part.module}:{part.name}" for part in found.parts(FIT)}
    assert parts == {
        "flows.tasks.toy:Toy.fit", "flows.tasks.toy:Toy.helped", "flows.tasks.toy:LIMIT", "configs.toy:build_loss",
        "models:", "models.losses:", "models.numbers:",
    }  # fmt: skip
    assert found.closure(PREDICT) == {"flows.tasks.toy", "pipelines", "pipelines.late", "pipelines.text"}


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("models/numbers.py", "0", "1", {"fit"}),
        ("pipelines/text.py", "return x", "return x + 1", {"predict"}),
        ("pipelines/page.html", "include", "from", {"predict"}),
        ("pipelines/page.css", "red", "blue", {"predict"}),
        ("pipelines/other.css", "red", "blue", set()),
        ("pipelines/unused.py", "pass", "x = 1", set()),
        ("flows/tasks/toy.py", "LIMIT = 3", "LIMIT = 4", {"fit"}),
        ("flows/tasks/toy.py", "shout(load())", "load()", {"predict"}),
        ("flows/folder.py", "return x", "return 1", set()),
        ("configs/toy.py", "return Thing", "return 1", set()),
    ],
)
def test_only_what_is_used_changes_the_key(
    name: str, old: str, new: str, changes: set[str], load: Callable[[], ModuleType], tmp_path: Path
) -> None:
    def keys() -> dict[str, str]:
        fresh = load()
        return {"fit": fresh.key({"a": 1}, FIT), "predict": fresh.key({"a": 1}, PREDICT)}

    before = keys()
    path = tmp_path / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    after = keys()
    assert {stage for stage in before if before[stage] != after[stage]} == changes


def test_a_key_depends_on_every_value() -> None:
    names = ("pipelines.progress",)
    assert code.key({"a": 1, "b": [2]}, names) == code.key({"b": [2], "a": 1}, names)
    assert code.key({"a": 1}, names) != code.key({"a": 2}, names)
    assert code.key({"a": 1}, names) != code.key({"a": 1}, ("pipelines.errors",))


def test_code_that_is_not_there_is_a_mistake() -> None:
    for name in ("pipelines.nothing", "flows.tasks.forecast:Forecast.nothing"):
        with pytest.raises(ValueError, match="nothing"):
            code.closure((name,))


def test_training_depends_neither_on_products_nor_on_other_tasks() -> None:
    used = {stage: code.closure(names) for stage, names in Forecast.code.items()}
    assert "pipelines.learning.training" in used["train"]
    assert "pipelines.learning.evaluation" in used["evaluate"] - used["train"]
    assert "pipelines.products.cog" in used["predict"] - used["evaluate"]
    assert {path.name for path in code.files_named_by("pipelines.products.viewer")} >= {
        "viewer.html",
        "viewer.js",
        "niivue.umd.js",
    }
    for stage in ("train", "evaluate"):
        others = ("pipelines.products", "pipelines.monitoring", "pipelines.change", "pipelines.sources", "flows.publish")
        assert not [name for name in used[stage] if name.startswith((*others, "configs.tasks.monitor", "configs.tasks.change"))]
