"""A sample of the hostile files (all of them: `make test-hostile`), by the command that users call."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.cube.store import open_cube
from tests.hostile.__main__ import run_all
from tests.hostile.batch import MEMORY_MB, ROOT, config_of, day, write_good
from tests.hostile.case import Case
from tests.hostile.corpus import all_cases, sample
from tests.hostile.hdf5s import DECODER_ENDS
from tests.hostile.single import run_singles

LIMITED = """
from flows.cli import main
from pipelines.sources import isolation

limit = "import os, resource; os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_CPU, (4, -1))); "
isolation.START = limit + isolation.START
main()
"""  # the program with 4 seconds of CPU for each process that decodes, none for itself


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return all_cases()


def test_the_corpus_is_large_and_each_file_has_its_own_name(cases: list[Case]) -> None:
    assert len(cases) >= 1500
    assert len({(case.group, case.kind, case.name) for case in cases}) == len(cases)


def test_no_hostile_file_ends_an_ingest_or_is_read_as_something_else(cases: list[Case], tmp_path: Path) -> None:
    chosen = [case for case in sample(cases, 40) if not case.group.endswith("-warped")]
    total = run_all(chosen, tmp_path, divides=False)
    assert total.is_clean, total.line + "\n" + "\n".join(total.faults)
    assert total.files == len(chosen) > 45
    assert total.refused > 0.4 * total.files
    assert total.peak_mb <= 1.5 * MEMORY_MB


def test_cubes_stacks_and_labels_answer_with_values_or_a_refusal(tmp_path: Path) -> None:
    total = run_singles(tmp_path, every=19)
    assert total.is_clean, total.line + "\n" + "\n".join(total.faults)
    assert total.refused > 0 < total.accepted
    assert total.files > 20


@pytest.mark.slow
def test_files_that_really_end_their_decoder_cost_themselves_only(tmp_path: Path) -> None:
    """A segfault, a lack of memory and an endless loop inside HDF5, each made by a file; time is limited by the kernel."""
    scenes, config = tmp_path / "scenes", config_of("h5")
    scenes.mkdir()
    config["cube"] = {"memory_mb": 64, "chunk_px": 64, "on_other_grid": "reproject"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    good = {day(2 * number): write_good("h5", scenes / f"{day(2 * number)}_good.h5", number) for number in range(6)}
    for number, make in enumerate(DECODER_ENDS.values()):
        make(scenes / f"{day(2 * number + 1)}_bad.h5")
    command = [sys.executable, "-c", LIMITED, "ingest", "run.yaml", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PREFECT_API_URL": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    refused = {one["scene_id"]: f"{one['reason']}: {one['detail']}" for one in json.loads(done.stdout)["refused"]}
    for (scene_id, said), (expected, _) in zip(sorted(refused.items()), DECODER_ENDS.items(), strict=True):
        assert said.startswith("unreadable: "), said
        assert expected in said, said
        assert f"reading {scene_id}.h5" in said
    cube = open_cube(str(tmp_path / "runs" / "hostile" / "cube"))
    np.testing.assert_array_equal(cube["image"].values, [*good.values()])
