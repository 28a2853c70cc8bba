"""A backup is whole whatever happens meanwhile, and what is restored is what was there."""

import json
import shutil
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

from configs.load import load_run
from configs.privacy import PrivacyConfig
from flows import backup as backups
from flows.cli import app
from flows.folder import RunFolder
from pipelines.cube.checking import check_cube
from pipelines.cube.store import head_snapshot, open_cube
from pipelines.stored_files import FolderFiles, files_at

RUN = Path("runs/tiny")


def call(*arguments: str) -> tuple[int, dict]:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    return found.exit_code, json.loads(found.stdout)


def show_dates(dates: int) -> None:
    with xr.open_dataset("all.nc", engine="h5netcdf", decode_timedelta=False) as series:
        series.isel(time=slice(0, dates)).load().to_netcdf("tiny.nc", engine="h5netcdf")


def test_a_run_restored_elsewhere_is_up_to_date_and_verifies(tiny_run: Path) -> None:
    pytest.importorskip("torch")
    assert call("run", "tiny.yaml", "--even-if-worse")[0] == 0
    code, first = call("backup", "tiny.yaml", "safe")
    assert code == 0
    assert first["new_bytes"] > 0
    later = call("backup", "tiny.yaml", "safe")
    assert later[0] == 2 or later[1]["new_bytes"] < first["new_bytes"] / 10, "within the same second it is refused"
    code, back = call("restore", "safe", "elsewhere", "--at", first["backup"])
    assert (code, back["notes"]) == (0, [])
    shutil.rmtree("runs")
    there = ("--set", "runs=elsewhere")
    assert not check_cube("elsewhere/tiny/cube").files
    assert call("run", "tiny.yaml", *there, "--even-if-worse")[1]["skipped"]
    assert call("verify", "tiny.yaml", *there)[0] == 0
    code, refused = call("restore", "safe", "elsewhere")
    assert code == 2
    assert "is not overwritten" in refused["error"]


def test_a_cube_that_is_written_meanwhile_is_copied_as_it_was(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next ingest commits after the first files of the cube have been copied, before the others are."""
    shutil.copy("tiny.nc", "all.nc")
    show_dates(50)
    assert call("ingest", "tiny.yaml")[0] == 0
    before, newest = open_cube(str(RUN / "cube")).image.values.tolist(), head_snapshot(str(RUN / "cube"))
    real, calls = FolderFiles.listing, []

    def listing(files: FolderFiles, folder: str) -> list:
        found = real(files, folder)
        if folder == "snapshots" and not calls:
            calls.append(folder)
            show_dates(60)
            assert call("ingest", "tiny.yaml")[0] == 0, "the run's folder is free while its cube is copied"
        return found

    monkeypatch.setattr(FolderFiles, "listing", listing)
    assert call("backup", "tiny.yaml", "safe")[0] == 0
    assert calls
    assert head_snapshot(str(RUN / "cube")) != newest
    assert call("restore", "safe", "elsewhere")[0] == 0
    cube = "elsewhere/tiny/cube"
    assert head_snapshot(cube) == newest
    assert open_cube(cube).image.values.tolist() == before
    assert not check_cube(cube).files
    assert call("ingest", "tiny.yaml", "--set", "runs=elsewhere")[1]["added"] == 10


def test_damage_is_found_and_an_interrupted_restore_goes_on(tiny_run: Path) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    assert call("backup", "tiny.yaml", "safe")[0] == 0
    objects = [path for path in Path("safe/objects").rglob("*") if path.is_file()]
    victim = max(objects, key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    victim.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    code, said = call("restore", "safe", "elsewhere")
    assert code == 1
    assert victim.name in said["error"]
    assert not Path("elsewhere/tiny").exists()
    victim.write_bytes(whole)
    code, back = call("restore", "safe", "elsewhere")
    assert code == 0
    assert back["written_bytes"] < back["bytes"], "what was restored before is not written again"
    listed = next(Path("safe/backups/tiny").iterdir())
    listed.write_text(listed.read_text().replace('"name": "tiny"', '"name": "Tiny"'))
    code, said = call("restore", "safe", "third")
    assert code == 1
    assert "the list of a backup cannot be read" in said["error"]


def test_an_interrupted_backup_is_not_listed_and_goes_on(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    real = backups.Copying.add

    def add(copying, name, content):
        if len(copying.files) >= 20:  # several threads add
            raise KeyboardInterrupt
        real(copying, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(backups.Copying, "add", add)
        assert CliRunner().invoke(app, ["backup", "tiny.yaml", "safe"]).exit_code == 130
    code, said = call("restore", "safe", "elsewhere")
    assert code == 2
    assert "holds no complete backup" in said["error"]
    code, made = call("backup", "tiny.yaml", "safe")
    assert code == 0
    assert made["new_bytes"] < made["bytes"]


def test_the_key_that_leads_back_to_patients_is_left_out(tiny_run: Path) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    (RUN / "privacy.key").write_text("secret")
    run = load_run("tiny.yaml").model_copy(update={"privacy": PrivacyConfig(key_file=str(RUN / "privacy.key"))})
    names = [one.name for one in backups.files_of_run(run, RunFolder.of(run), ["cube"])]
    assert "stages/ingest.json" in names
    assert "privacy.key" not in names


def test_a_damaged_cube_is_not_taken_for_a_backup(tiny_run: Path) -> None:
    assert call("ingest", "tiny.yaml")[0] == 0
    victim = max((RUN / "cube/manifests").iterdir(), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    code, said = call("backup", "tiny.yaml", "safe")
    assert code == 1
    assert f"manifests/{victim.name} is not as it was written" in said["error"]
    code, said = call("backup", "tiny.yaml", str(RUN / "safe"))
    assert code == 2
    assert "in the run's own folder" in said["error"]


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_in_a_bucket_is_copied_as_it_is_published(
    asked: bool, tiny_run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"{bucket}/backup-{asked}"
    place = f"{base}/states/watched" if asked else f"{base}/runs/watched/state"
    where = ["--set", f"runs={base}/runs", *(["--set", f"monitoring.state={base}/states"] if asked else [])]
    assert call("ingest", "watched.yaml", *where)[0] == 0
    state = {"harmonic/monitoring.json": b"{}", "harmonic/b0/header.json": b"1", "harmonic/b0/fitted": b"2"}
    for name, content in state.items():
        files_at(place).write(name, content)
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tiny_run.parent / "another"))
    code, made = call("backup", "watched.yaml", "safe", *where)
    assert code == 0
    assert f"with the state at {place}" in made["message"]
    code, back = call("restore", "safe")
    assert code == 0
    restored = FolderFiles(Path("runs/watched"))
    assert {name: restored.read(f"state/{name}") for name in state} == state
    assert "stages/ingest.json" in restored.names("stages")
    said = " ".join(back["notes"])
    assert f"the run was in {base}/runs, and its config says so: set runs to runs" in said
    assert "set cube.uri to runs/watched/cube" in said
    assert ("take monitoring.state out" in said) == asked
    assert call("backup", "watched.yaml", "safe", "--set", f"runs={base}/nothing")[0] == 2


@pytest.mark.slow
@pytest.mark.exhaustive
def test_from_bucket_to_bucket(tiny_run: Path, bucket: str, request: pytest.FixtureRequest) -> None:
    base = f"{bucket}/{request.node.name}"
    where = ("--set", f"cube.uri={base}/cube")
    assert call("ingest", "tiny.yaml", *where)[0] == 0
    assert call("backup", "tiny.yaml", f"{base}/safe", *where)[0] == 0
    code, back = call("restore", f"{base}/safe", "elsewhere", "--cube", f"{base}/again")
    assert code == 0
    assert f"set cube.uri to {base}/again" in back["notes"][0]
    assert open_cube(f"{base}/again").image.values.tolist() == open_cube(f"{base}/cube").image.values.tolist()
    assert not check_cube(f"{base}/again").files
    assert call("restore", f"{base}/safe", "third", "--cube", f"{base}/safe")[0] == 2
    code, done = call("gc", "tiny.yaml", *where, "--cube", "--yes")
    assert code == 0
    assert done["found"] == []
    assert files_at(f"{base}/cube").names("chunks")
