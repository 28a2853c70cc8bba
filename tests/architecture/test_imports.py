"""Import directions between packages, and safeguards for the four top-level package names."""

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.tasks import FLOWS, TASKS, entrypoint_of
from tests.flows.test_generate import TINY, write_images

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("driftline", "flows", "configs", "pipelines", "models")
MODULES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_imports_go_one_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_each_top_level_name_belongs_to_driftline(package: str) -> None:
    owners = set(importlib.metadata.packages_distributions().get(package, []))
    if not owners:
        pytest.skip("driftline is not installed here (run from the source tree)")
    assert owners == {"driftline"}


def test_every_package_is_shipped() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES} == set(listed)


def test_no_module_has_the_name_of_a_dependency_or_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[^A-Za-z0-9_.-]", line)[0].replace("-", "_") for line in project["dependencies"]}
    dependencies = required | {"yaml", "sklearn", "skimage", "PIL"}
    inner = {path.stem for path in MODULES if path.name != "__init__.py"} | {
        p.parent.name for p in MODULES if p.parent.parent != ROOT
    }
    assert inner & (dependencies | set(PACKAGES)) == set()


def test_ingest_and_the_plans_of_later_stages_load_no_torch(tmp_path: Path) -> None:
    """It takes seconds and 400 MB, and ingest has no use for it. Neither has the plan of images that are drawn, which is made."""
    light = ["flows.cli", "flows.planning", "flows.stage", "pipelines.cube.ingest", *(at.split(":")[0] for at in TASKS.values())]
    light += [f"flows.tasks.{path.stem}" for path in (ROOT / "flows" / "tasks").glob("*_plan.py")]
    write_images(tmp_path / "images", {"train": 9, "test": 3})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    script = (
        "import importlib, sys; [importlib.import_module(name) for name in sys.argv[2:]]; from configs.load import load_run; "
        "from flows.planning import make_plan; plan = make_plan(load_run(sys.argv[1]), 'run'); "
        "print(len(plan['steps']), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, tmp_path / "tiny.yaml", *light]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path
    )
    assert done.stdout.strip() == "4 False"


def test_only_flows_import_prefect_and_nothing_imports_torchvision() -> None:
    for path in MODULES:
        text = path.read_text()
        assert "torchvision" not in text, path
        if path.relative_to(ROOT).parts[0] != "flows":
            assert "import prefect" not in text, path
            assert "from prefect" not in text, path


def test_every_deployment_has_a_module_entrypoint_that_is_a_flow() -> None:
    from prefect import Flow

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert sorted(d["name"] for d in deployments) == sorted(FLOWS)
    assert [d["entrypoint"] for d in deployments] == [entrypoint_of(d["name"]) for d in deployments]
    for deployment in deployments:
        assert ":" not in deployment["entrypoint"]  # a file entrypoint would put flows/ on sys.path
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert deployment["work_pool"]["name"] in ("cpu", "gpu")
        assert all(not schedule["active"] for schedule in deployment["schedules"])
