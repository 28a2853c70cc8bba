"""The ready-made runs that the docs show."""

import re
from pathlib import Path

import pytest

from configs.load import load_run

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "page"), [("sinop", "docs/own-data.md"), ("radar", "docs/own-data.md"), ("demo-change", "README.md")]
)
def test_the_docs_show_the_ready_made_runs_verbatim(name, page):
    path = ROOT / "configs" / f"{name}.yaml"
    shown = re.search(rf"```yaml\n(name: {name}\n.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    made = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert shown
    assert shown[1] == "".join(line for line in made if not line.startswith("#"))
    assert load_run(path, inputs_must_exist=False).name == name
