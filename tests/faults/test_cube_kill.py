"""kill -9 before the calls that change the disk, as SQLite tests its journal.

Before every fourth call; before each in `make test-all`, which CI has no time for.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipelines.cube.checking import check_cube
from pipelines.cube.history import collect_garbage, list_versions
from pipelines.cube.housekeeping import remove_versions
from pipelines.cube.store import open_cube
from pipelines.errors import MissingInput
from tests.thoroughness import EVERYTHING

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VICTIM = HERE / "cube_killed_ingest.py"
STEP = 1 if EVERYTHING else 4


def load_victim():
    spec = importlib.util.spec_from_file_location("cube_killed_ingest", VICTIM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler to count the calls of the Rust side")
    library = tmp_path_factory.mktemp("shim") / "calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "cube_write_calls.c", "-ldl"], check=True)
    return library


def content(uri: Path) -> dict[str, list]:
    cube = open_cube(str(uri))
    return {name: cube[name].values.tolist() for name in ("time", "scene_id", "content_hash", "image", "valid")}


def content_or_nothing(uri: Path) -> dict[str, list] | None:
    try:
        return content(uri)
    except MissingInput:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("stage", [pytest.param("new", marks=pytest.mark.exhaustive), "stricter"])
def test_after_a_kill_at_a_write_the_rerun_completes_the_cube(stage, shim, tmp_path):
    victim = load_victim()
    undisturbed, baseline = tmp_path / "undisturbed" / "cube", tmp_path / "baseline" / "cube"
    if stage != "new":
        victim.run(str(baseline), "late")
    before = content_or_nothing(baseline)
    if stage != "new":
        shutil.copytree(baseline, undisturbed)
    victim.run(str(undisturbed), stage)
    after = content(undisturbed)
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, VICTIM, tmp_path / "killed", stage, str(STEP), *([baseline] if stage != "new" else [])]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=540)
    last = int(done.stdout.split()[-1])
    assert last > 20, f"only {last} calls were counted: the shim does not intercept the writes"
    seen = set()
    for call in range(1, last, STEP):
        uri = tmp_path / "killed" / str(call) / "cube"
        found = content_or_nothing(uri)
        assert found in (before, after), f"killed before call {call} of {last}: neither the old nor the new cube"
        seen.add(found == after)
        victim.run(str(uri), stage)
        assert content(uri) == after, f"killed before call {call} of {last}: the rerun gives another cube"
    assert False in seen, "no kill happened before the commit"
    assert content(tmp_path / "killed" / str(last) / "cube") == after


def require_whole(uri: str, versions: dict[str, list]) -> None:
    assert {snapshot: open_cube(uri, snapshot).image.values.tolist() for snapshot in versions} == versions, uri
    assert not check_cube(uri).files, uri


@pytest.mark.slow
def test_after_a_kill_of_gc_at_a_write_the_cube_is_whole(shim, tmp_path):
    victim = load_victim()
    uri = str(tmp_path / "baseline" / "cube")
    for stage in ("new", "late", "stricter"):
        victim.run(uri, stage)
    newest, middle, oldest = (version.snapshot for version in list_versions(uri))
    before = {snapshot: open_cube(uri, snapshot).image.values.tolist() for snapshot in (newest, oldest)}
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT), "DRIFTLINE_NAMED": oldest}
    command = [sys.executable, VICTIM, tmp_path / "killed", "gc", str(STEP), uri]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=540)
    last = int(done.stdout.split()[-1])
    assert last > 15, f"only {last} calls were counted: the shim does not intercept them"
    seen = set()
    for call in range(1, last + 1, STEP):
        uri = str(tmp_path / "killed" / str(call) / "cube")
        state = frozenset((path.relative_to(uri), path.read_bytes()) for path in Path(uri).rglob("*") if path.is_file())
        if state in seen:
            continue
        seen.add(state)
        require_whole(uri, before)
        remove_versions(uri, {oldest}, datetime.now(UTC), is_rehearsal=False)
        require_whole(uri, before)
        with pytest.raises(MissingInput, match="has no version"):
            open_cube(uri, middle)
    assert len(seen) > 5 - STEP, "no kill happened between the removals"


def test_chunks_of_a_killed_ingest_are_collected(tmp_path):
    import zarr

    from pipelines.cube.store import BRANCH, open_repository

    victim = load_victim()
    uri = str(tmp_path / "cube")
    victim.run(uri, "late")
    before = content(Path(uri))
    session = open_repository(uri).writable_session(BRANCH)
    zarr.open_group(session.store)["image"][0] = np.random.default_rng(0).integers(1, 9999, (1, 32, 48))
    del session  # written, never committed: as after a kill
    assert collect_garbage(uri) >= 2
    assert content(Path(uri)) == before
    assert len(list_versions(uri)) == 1
