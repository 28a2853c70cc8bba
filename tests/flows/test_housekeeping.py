"""`driftline gc`: what a run needs no more goes; what its stages, and other runs, name stays."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.load import load_run
from flows.cli import app
from flows.folder import RunFolder
from flows.housekeeping import named_versions
from pipelines.stored_files import files_at
from pipelines.stored_runs import StoredFile, StoredRun, Version
from pipelines.working_copies import copy_folder

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
    frames = write(RUN / "samples/0123.npy")  # of a task on samples: they go by their age
    draft = write(RUN / ".summary.json.99")
    trial = write(RUN / "sweep/trials/0007/stages/ingest.json")
    (trial.parents[1] / "samples").symlink_to((RUN / "samples").resolve())
    kept = set(files_at(str(RUN)).names("")) - {str(one.relative_to(RUN)) for one in (job, other, draft, trial)}
    code, shown = call("gc", "tiny.yaml")
    assert (code, shown["removed"]) == (0, False)
    names = {Path(one["name"]).name: one["kind"] for one in shown["found"]}
    assert names.pop("cache-00") == "samples"
    assert names.pop(draft.name) == "drafts"
    assert names.pop("0007") == "trials of a search"
    assert set(names.values()) == {"staged tiles"}, "of what has been published since"
    assert job.exists()
    assert job.parent.name not in names, "a slice may be at work"
    assert frames.name not in names

    write(job, "x" * 100, days=31)
    code, done = call("gc", "tiny.yaml", "--yes")
    assert (code, done["removed"], done["bytes"]) == (0, True, shown["bytes"] + 100)
    assert not any(one.exists() for one in (job.parent, other.parent, draft, trial.parents[1]))
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


@pytest.mark.parametrize(("published_days_ago", "stays"), [(1.0, set()), (9.0, {"rival/a", "0123456789abcdef/job.json"})])
def test_only_what_is_staged_goes_by_the_time_in_the_record(tiny_run: Path, published_days_ago: float, stays: set[str]) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    record = {"key": "k", "model_hash": "m", "products": [], "snapshot": "s", "files": {}}
    record["at_utc"] = f"{datetime.now(UTC) - timedelta(days=published_days_ago):%Y-%m-%dT%H:%M:%S.%fZ}"
    write(RUN / "stages/predict.json", json.dumps(record))  # fetched or restored now
    old = {"0123456789abcdef/job.json", "rival/a"}
    others = {"0123456789abcde0/letter", "cube/refs/main", "notes.txt", "scenes/5123456789abcdef/a.scene", "lock"}
    for name in old | others:
        write(Path("shared/tiny") / name, days=5)
    write(Path("slices/tiny/scenes/0123456789abcdef/a.scene"), days=40)
    places = ("--set", "prediction.staging=shared", "--set", "cube.staging=slices")
    assert call("gc", "tiny.yaml", "--yes", *places)[0] == 0
    assert set(files_at("shared/tiny").names("")) == others | stays
    assert files_at("slices/tiny").names("") == []


def test_a_run_in_a_bucket_is_fetched_first_and_loses_superseded_versions(
    tiny_run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    runs = f"{bucket}/{request.node.name}"
    where = ("--set", f"runs={runs}")
    assert call("ingest", "tiny.yaml", *where)[0] == 0
    files, published = files_at(f"{runs}/tiny"), StoredRun.at(f"{runs}/tiny").read()
    files.write("versions/20200101T000000-abcd/products/stopped", b"x")
    other = files_at(f"{runs}/other")
    other.write("a", json.dumps({"snapshot": "0" * 20}).encode())
    other.write(
        "current.json", Version("20200101T000000-abcd", "", "", "", {"stages/a.json": StoredFile("a", 36, "")}).to_bytes()
    )
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tiny_run.parent / "another"))
    copies = copy_folder(runs)
    old, new, of_another = (copies / name for name in (".tiny.set-aside", ".tiny.set-aside-2", ".tiny-2.set-aside"))
    for aside, days in ((old, 31), (new, 3), (of_another, 99)):
        write(aside / "model/weights", "w" * 10)
        os.utime(aside, (time.time() - days * 86400,) * 2)
    trial = write(copies / "tiny/choice/scores.json", days=31)
    text = CliRunner().invoke(app, ["gc", "tiny.yaml", *where]).stdout
    assert "note: fetched version" in text
    assert f"    {runs}/tiny/versions/20200101T000000-abcd: 0.0 kB, 2" in text
    assert f"    {old}: 0.0 kB, 31.0 days old" in text
    assert f"{new}, set aside after a conflict, stays: 1 file, 0.0 MB, 3.0 days old" in text
    assert all(path.exists() for path in (old, new, of_another, trial)), "nothing is removed without --yes"
    code, done = call("gc", "tiny.yaml", *where, "--yes")
    assert code == 0
    found = [(one["kind"], one["files"]) for one in done["found"]]
    assert found == [("trials of a choice", 1), ("versions of the run", 1), ("set aside", 1)]
    assert [path.exists() for path in (old, new, of_another, trial)] == [False, True, True, False]
    assert call("gc", "tiny.yaml", *where)[1]["found"] == []
    assert not any("others may use it" in note for note in done["notes"]), "the cube is in the run"
    assert {name.split("/")[1] for name in files.names("versions")} == {published.version}
    named = named_versions(RunFolder.of(load_run("tiny.yaml", [where[1]])))
    assert {"0" * 20, json.loads(files.read(published.files["stages/ingest.json"].object))["snapshot"]} <= named
    seen = set()
    for _ in range(2):
        assert call("ingest", "tiny.yaml", *where)[1]["skipped"]
        seen.add(StoredRun.at(f"{runs}/tiny").read().version)
    assert len(seen) == 1, "the same record keeps its time, and is no new version"
    files.write("current.json", b"{")
    code, said = call("gc", "tiny.yaml", *where, "--cube")
    assert (code, "cannot be read" in said["error"]) == (1, True), "what is not the newest must not decide"


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
