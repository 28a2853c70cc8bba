"""The locks: every file has a hash, developers get what users get, and torch stands apart, with CUDA's packages."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock")
# name==version, perhaps a marker, then nothing but hashes: no address of an index, no option, no path
REQUIREMENT = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<pin>[\w.]+(?: ; [^\\]+?)?)(?: --hash=sha256:[0-9a-f]{64})+")
OF_CUDA = re.compile(r"nvidia|cuda|cupy|triton|cu1\d$")


def read_pins(lock: str) -> dict[str, str]:
    """Name -> version and marker of every requirement; a line of another form is a failure."""
    lines = (ROOT / lock).read_text().replace(" \\\n   ", "").splitlines()
    matches = [(line, REQUIREMENT.fullmatch(line)) for line in lines if line and not line.startswith("#")]
    assert [line for line, match in matches if not match] == []
    return {match["name"]: match["pin"] for _, match in matches if match}


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_is_pinned_with_hashes_except_torch_and_nothing_is_of_cuda(lock: str) -> None:
    pins = read_pins(lock)
    assert named(PROJECT["project"]["dependencies"]) - pins.keys() == {"torch"}
    assert [name for name in pins if OF_CUDA.search(name)] == []


def test_developers_get_what_users_get_and_their_tools() -> None:
    users, developers = map(read_pins, LOCKS)
    assert users.items() <= developers.items()
    tools = named(PROJECT["project"]["optional-dependencies"]["dev"])
    assert tools <= developers.keys()
    assert tools & users.keys() == set()


def test_torch_is_the_same_release_in_its_lock_in_the_project_and_in_what_is_known_of_its_needs() -> None:
    lines = (ROOT / "requirements-torch.lock").read_text().splitlines()
    (torch,) = [line for line in lines if not line.startswith("#")]
    (known,) = PROJECT["tool"]["uv"]["dependency-metadata"]
    assert torch in PROJECT["project"]["dependencies"]
    assert torch == f"{known['name']}=={known['version']}"
    assert named(known["requires-dist"]) <= read_pins("requirements.lock").keys()


LEARNT = ("pipelines.products.site_products",)  # of labelled change, which torch computes


def test_reading_writing_and_products_do_not_need_torch() -> None:
    """What `make test-without-torch` runs on newer Pythons must not shrink by an import."""
    free = [path for package in ("sources", "cube", "products") for path in (ROOT / "pipelines" / package).glob("*.py")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in free]
    modules = [name for name in modules if name not in LEARNT]
    code = f"import sys, importlib; sys.modules['torch'] = None; [importlib.import_module(m) for m in {modules!r}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_pytest_reads_before_it_can_skip_does_not_need_torch() -> None:
    """pytest imports the conftest files above a path that it is given at once: `pytest tests/unit/models` would end there."""
    files = sorted((ROOT / "tests").rglob("conftest.py"))
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    code = f"import sys, importlib; sys.modules['torch'] = None; [importlib.import_module(m) for m in {modules!r}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
