"""Cubes of this driftline and Icechunk 2, which has its own environment: `make test-icechunk2` (Icechunk 2 needs Python 3.12)."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cube.checking import check_cube
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.integrity import MAGIC, REPOSITORY, SEAL
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, CubeMismatch
from pipelines.stored_files import files_at

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parent / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)
PickedSource, RULE = cube_sources.PickedSource, cube_sources.RULE

INTERPRETER = os.environ.get("DRIFTLINE_ICECHUNK2", "")
SETTINGS = IngestSettings(chunk_px=16, workers=1)
SCENES = PickedSource(dates=4, shape_yx=(24, 40))
needs_icechunk_2 = pytest.mark.skipif(not INTERPRETER, reason="DRIFTLINE_ICECHUNK2 names no interpreter: make test-icechunk2")


def with_icechunk_2(verb: str, folder: Path) -> dict:
    command = [INTERPRETER, Path(__file__).parent / "icechunk2.py", verb, folder]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["found"]


@pytest.fixture
def cube(tmp_path: Path) -> tuple[Path, list[str]]:
    """A cube of two versions."""
    uri = tmp_path / "cube"
    parts = replace(SCENES, picked=(0, 2, 3)), SCENES
    return uri, [ingest(part, RULE, str(uri), None, SETTINGS).snapshot for part in parts]


def seen(uri: Path, snapshot: str) -> dict:
    dataset = open_cube(str(uri), snapshot)
    return {
        "arrays": {name: hashlib.sha256(dataset[name].values.tobytes()).hexdigest() for name in ("image", "valid")},
        "time": [str(time) for time in dataset["time"].values.astype("datetime64[ns]")],
        "scene_id": dataset["scene_id"].values.tolist(),
        "attributes": dataset.attrs,
        "bands": dataset["image"].attrs["bands"],
    }


@needs_icechunk_2
def test_every_version_of_a_cube_is_read_with_icechunk_2(cube):
    uri, ids = cube
    found = with_icechunk_2("read", uri)
    assert list(found) == ids[::-1]
    for snapshot, theirs in found.items():
        assert theirs.pop("message").startswith("ingest: ")
        assert theirs["attributes"].pop(SEAL)
        assert theirs == seen(uri, snapshot)
    assert not check_cube(str(uri)).files, "reading changes nothing"


@needs_icechunk_2
def test_what_icechunk_2_writes_into_a_cube_of_format_1_can_be_read(cube):
    uri, ids = cube
    before = seen(uri, ids[1])
    with_icechunk_2("tag", uri)
    assert seen(uri, "") == before
    written = with_icechunk_2("commit", uri)["snapshot"]
    with pytest.raises(ArtefactDamaged, match="its metadata or coordinates have changed"):
        open_cube(str(uri), written)
    assert seen(uri, ids[1]) == before


@needs_icechunk_2
@pytest.mark.parametrize("verb", ["create", "upgrade", "upgrade-and-keep"])
def test_a_repository_of_icechunk_2_is_named_and_not_called_damaged(verb, cube, tmp_path):
    uri = cube[0] if verb != "create" else tmp_path / "new"
    with_icechunk_2(verb, uri)
    refused(uri)


def test_the_format_is_told_by_its_file(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / REPOSITORY).write_bytes(MAGIC + b"2.3.0")
    refused(tmp_path)


@pytest.mark.slow
def test_a_bucket_that_icechunk_2_has_written_to_is_left_alone(bucket, request):
    uri = f"{bucket}/{request.node.name}"
    files_at(uri).write(REPOSITORY, MAGIC + b"2.3.0")
    refused(uri)
    assert files_at(uri).names("") == [REPOSITORY], "nothing is created in its place"


def refused(uri: Path | str) -> None:
    for work in (open_cube, lambda place: ingest(SCENES, RULE, place, None, SETTINGS)):
        with pytest.raises(CubeMismatch, match=r"in the format of Icechunk 2.*It is not damaged"):
            work(str(uri))
