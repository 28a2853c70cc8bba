"""`driftline ingest --slice` and `--finish` through the command line; the bytes are compared in tests/unit/cube."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from configs.load import load_run
from flows import verbs
from flows.cli import app
from flows.ingest_slices import require_slices
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError

runner = CliRunner()
CONFIGS = Path(__file__).parents[2] / "configs"


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


def test_slices_and_their_end_leave_what_an_ingest_leaves(tiny_run: Path) -> None:
    config, folder = str(tiny_run), Path("runs/tiny")
    code, text = call("ingest", config, "--slice", "2/3", "--json")
    assert code == 0, text
    record = json.loads(text.splitlines()[-1])
    assert (record["message"], record["refused"]) == ("slice 2/3: 20 scenes are staged, 20 read now", [])
    code, text = call("ingest", config, "--finish")
    assert code == 1
    assert "40 of 60 scenes are in no slice: " in text
    assert not (folder / "stages" / "ingest.json").exists()
    for share in ("3/3", "1/3"):
        assert call("ingest", config, "--slice", share)[0] == 0
    code, text = call("ingest", config, "--finish", "--set", "prediction.tile_px=16")
    assert code == 0, text
    assert "60 added" in text
    assert not (folder / "staging" / "scenes").exists()
    assert call("ingest", config, "--set", "name=whole")[0] == 0
    one, other = open_cube("runs/tiny/cube"), open_cube("runs/whole/cube")
    assert one.attrs == other.attrs
    for name in ("image", "valid", "scene_id", "content_hash", "fingerprint", "valid_fraction"):
        np.testing.assert_array_equal(one[name].values, other[name].values)
    assert call("ingest", config, "--slice", "1/2")[1].endswith("slice 1/2: 0 scenes are staged, 0 read now\n")


def test_a_staging_of_its_own_changes_nothing_in_the_cube(tiny_run: Path) -> None:
    place = ["--set", "cube.staging=elsewhere"]
    assert call("ingest", str(tiny_run), *place, "--slice", "1/1")[0] == 0
    assert list(Path("elsewhere/tiny/scenes").rglob("*.scene"))
    assert call("ingest", str(tiny_run), *place, "--finish")[0] == 0
    assert "staging" not in json.loads(open_cube("runs/tiny/cube").attrs["driftline_config"])["cube"]
    assert not list(Path("elsewhere").rglob("*.scene"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slice", "0/3"], "--slice 0/3: expected I/N with I from 1 to N, such as 3/8"),
        (["--slice", "1/3", "--finish"], "--slice does a share of the work; leave out --finish"),
        (["--slice", "1/3", "--dry-run"], "--slice does a share of the work; leave out --finish"),
    ],
)
def test_a_wrong_request_is_one_message(tiny_run: Path, arguments: list[str], message: str) -> None:
    code, text = call("ingest", str(tiny_run), *arguments)
    assert code == 2
    assert message in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("ms-follow-up.yaml", "of a run with `task: follow_up` over patients or samples has no slices; ingest it as a whole"),
        ("lung-ultrasound.yaml", "over patients or samples has no slices"),
        ("demo-medical.yaml", "images of source.kind: dicom are de-identified first, which has no slices"),
    ],
)
def test_what_is_no_series_or_is_copied_first_has_no_slices(config: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        require_slices(load_run(CONFIGS / config, inputs_must_exist=False))


@pytest.mark.parametrize("verb", ["ingest", "predict"])
def test_flows_of_prefect_know_nothing_of_slices(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.tracking.is_reachable", lambda url: True)
    monkeypatch.setattr(verbs, "perform_tracked", lambda *all_of_it: asked.append(all_of_it[-1]) or {})
    assert call(verb, str(tiny_run))[0] == 0
    assert "is_finishing" not in asked[0]
