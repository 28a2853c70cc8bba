"""`driftline gc`: what a run needs no more goes; what its stages, and other runs, name stays."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.stored_files import files_at

RUN = Path("runs/tiny")


def call(*arguments: str) -> tuple[int, dict]:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    return found.exit_code, json.loads(found.stdout)


def write(path: Path, text: str = "{}", days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - days * 86400,) * 2)
    return path


def test_a_run_is_cleaned_and_stays_up_to_date(tiny_run: Path) -> None:
    pytest.importorskip("torch")
    assert call("run", "tiny.yaml", "--even-if-worse")[0] == 0
    job = write(RUN / "staging/0123456789abcdef/r0.region", "x" * 100)
    write(RUN / "staging/lock", "", days=99)
    other = write(RUN / "samples/cache-00/cache.json", json.dumps({"snapshot": "0" * 20}))
    draft = write(RUN / ".summary.json.99")
    kept = set(files_at(str(RUN)).names("")) - {str(one.relative_to(RUN)) for one in (job, other, draft)}
    code, shown = call("gc", "tiny.yaml")
    assert (code, shown["removed"]) == (0, False)
    names = {Path(one["name"]).name: one["kind"] for one in shown["found"]}
    assert names.pop("cache-00") == "samples"
    assert names.pop(draft.name) == "drafts"
    assert set(names.values()) == {"staged tiles"}, "of what has been published since"
    assert job.exists()
    assert job.parent.name not in names, "a slice may be at work"

    write(job, "x" * 100, days=31)
    code, done = call("gc", "tiny.yaml", "--yes")
    assert (code, done["removed"], done["bytes"]) == (0, True, shown["bytes"] + 100)
    assert not any(one.exists() for one in (job.parent, other.parent, draft))
    gone = kept - set(files_at(str(RUN)).names(""))
    assert all(name.startswith("staging/") for name in gone)
    assert call("gc", "tiny.yaml", "--yes")[1]["found"] == []
    assert call("run", "tiny.yaml", "--even-if-worse")[1]["skipped"]
    assert call("verify", "tiny.yaml")[0] == 0
    text = CliRunner().invoke(app, ["gc", "tiny.yaml"]).stdout
    assert text == f"nothing in {RUN} is without use\n"


def test_versions_that_any_run_in_the_folder_names_stay(tiny_run: Path) -> None:
    from pipelines.cube.history import list_versions
    from pipelines.cube.store import open_cube

    assert call("ingest", "tiny.yaml")[0] == 0
    first = list_versions(str(RUN / "cube"))[0]
    scene = open_cube(str(RUN / "cube")).scene_id.values[0]
    write(Path("runs/cube/stages/train.json"), json.dumps({"snapshot": first.snapshot}))
    for undo in ((), ("--undo",)):
        assert call("drop", str(RUN / "cube"), str(scene), "--yes", *undo)[0] == 0
    assert call("ingest", "tiny.yaml")[0] == 0, "its record names the newest version now"
    code, done = call("gc", "tiny.yaml", "--keep-days", "0", "--yes")
    assert code == 0
    assert [one["kind"] for one in done["found"]] == ["versions of the cube"]
    assert len(open_cube(str(RUN / "cube"), first.snapshot).time) == 60

    outside = "cube.uri=elsewhere"
    assert call("ingest", "tiny.yaml", "--set", outside)[0] == 0
    assert call("drop", "elsewhere", str(scene), "--yes")[0] == 0
    alone = call("gc", "tiny.yaml", "--keep-days", "0", "--set", outside)[1]
    assert "others may use it" in alone["notes"][0]
    assert alone["found"] == []
    both = call("gc", "tiny.yaml", "--keep-days", "0", "--set", outside, "--cube")[1]
    assert both["notes"][-1].endswith("records name them"), "of the ingest"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(("--keep-days", "-1"), 2, "0 or more"), (("--set", "name=nobody"), 2, "no run in")],
)
def test_a_wrong_request_is_refused(arguments: tuple[str, ...], code: int, text: str, tiny_run: Path) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    found, said = call("gc", "tiny.yaml", *arguments)
    assert found == code
    assert text in said["error"]
    assert not Path("runs/nobody").exists()
