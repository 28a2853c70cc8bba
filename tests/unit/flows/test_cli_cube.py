"""The commands that look after a cube, on scenes on disk: check, repair, drop, missing and refused scenes, hostile names."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner, Result

from flows.cli import app
from pipelines.errors import SceneRefused
from pipelines.scene import Scene
from pipelines.sources import worker
from pipelines.sources.reading import SceneReader, Slice

DATES = ("20200105", "20200121", "20200206", "20200222", "20200309")
CONFIG = """
name: field
task: forecast
source: {kind: folder, path: scenes, pattern: "s{date:%Y%m%d}_{band}.tif", bands: [B04, B08]}
samples:
  variables: [{name: ndvi, formula: normalized_difference, bands: [B08, B04], valid_range: [-1, 1]}]
  context: 3
  horizon: 1
split: {validation_from: 2020-02-01, test_from: 2020-03-01}
"""


def write_scene(folder: Path, date: str, level: int = 1000) -> None:
    for number, band in enumerate(("B04", "B08")):
        pixels = np.random.default_rng(int(date) + number).integers(level, level + 500, (1, 40, 50), dtype=np.uint16)
        profile = {"driver": "GTiff", "count": 1, "height": 40, "width": 50, "dtype": "uint16", "crs": "EPSG:32633"}
        transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
        with rasterio.open(folder / f"s{date}_{band}.tif", "w", **profile, transform=transform) as file:
            file.write(pixels)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def answer(*arguments: str) -> dict[str, object]:
    result = call(*arguments, "--json")
    found: dict[str, object] = json.loads(result.stdout)
    return {**found, "code": result.exit_code}


@pytest.fixture
def cube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cube of an ingested run in the working folder, whose config is run.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    for date in DATES:
        write_scene(Path("scenes"), date)
    Path("run.yaml").write_text(CONFIG)
    assert answer("ingest", "run.yaml")["code"] == 0
    return Path("runs/field/cube")


def damage(cube: Path) -> None:
    chunk = max((cube / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)


def ids(cube: Path) -> list[str]:
    return [date["scene_id"] for date in answer("info", str(cube))["dates"]]  # type: ignore[attr-defined]


def test_check_names_what_is_damaged_and_ingest_heals_it(cube: Path) -> None:
    whole = call("check", str(cube))
    assert whole.exit_code == 0
    assert "ok: 5 dates, 10 chunks read; every checksum and content hash agrees" in whole.stdout
    damage(cube)
    found = call("check", str(cube))
    assert found.exit_code == 1
    assert "damaged: 1 scene of 5 dates" in found.stdout
    assert "image, all bands, rows 0 to 39, columns 0 to 49: Stored and computed checksum do not match" in found.stdout
    assert "damaged:   1 scene: s2020" in call("info", str(cube)).stdout
    assert "check: 1 damaged" in call("history", str(cube)).stdout
    assert call("export", str(cube), "copy.zarr").exit_code == 1
    assert answer("ingest", "run.yaml")["replaced"] == 1
    assert call("check", str(cube)).exit_code == 0


def test_check_repairs_from_the_config_of_the_cube(cube: Path) -> None:
    damage(cube)
    assert "name the config of this cube" in call("check", "elsewhere/cube", "--repair", "run.yaml").stderr
    found = answer("check", str(cube), "--repair", "run.yaml")
    assert (found["code"], found["ok"], len(found["found"]), found["damages"]) == (0, True, 1, [])  # type: ignore[arg-type]


def test_a_dropped_scene_stays_out_until_it_is_accepted_again(cube: Path) -> None:
    first = ids(cube)[0]
    assert "add --yes if that is right" in call("drop", str(cube), first).stderr
    assert answer("drop", str(cube), "2020-01-05", "--yes")["scene_id"] == first
    assert "no scene or date" in call("drop", str(cube), first, "--yes").stderr
    assert f"drop: {first} taken out\n  dropped: {first}" in call("history", str(cube)).stdout
    again = call("ingest", "run.yaml")
    assert again.exit_code == 0
    assert f"refused, dropped: {first}: taken out of the cube by hand; `driftline drop runs/field/cube" in again.stderr
    assert first not in ids(cube)
    assert f"kept out:  1 scene: {first}" in call("info", str(cube)).stdout
    assert call("drop", str(cube), first, "--undo").exit_code == 0
    assert answer("ingest", "run.yaml")["added"] == 1
    assert ids(cube)[0] == first
    assert call("drop", str(cube), first, "--undo").exit_code == 2


@pytest.mark.parametrize(("policy", "left"), [("keep", 5), ("drop", 4)])
def test_a_deleted_file_is_noticed(cube: Path, policy: str, left: int) -> None:
    gone = ids(cube)[1]
    for path in Path("scenes").glob(f"s{DATES[1]}*"):
        path.unlink()
    found = call("ingest", "run.yaml", "--set", f"cube.on_missing={policy}")
    assert f"no longer in the source: {gone}; " in found.stderr
    assert f"(cube.on_missing: {policy})" in found.stderr
    assert len(ids(cube)) == left


def test_an_emptied_folder_does_not_empty_the_cube(cube: Path) -> None:
    for date in DATES[1:4]:
        for path in Path("scenes").glob(f"s{date}*"):
            path.unlink()
    found = call("ingest", "run.yaml", "--set", "cube.on_missing=drop")
    assert found.exit_code == 1
    assert "no longer lists 3 of the 5 scenes" in found.stderr
    assert len(ids(cube)) == 5


def test_refused_scenes_are_listed_and_can_be_tried_again(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for date in ("20200325", "20200410"):
        write_scene(Path("scenes"), date)
    read = SceneReader.read

    def fail(reader: SceneReader, scene: Scene) -> Slice:
        if scene.id == "s20200325":
            raise SceneRefused(scene.id, "unreadable", "the network drive was away")
        return read(reader, scene)

    with monkeypatch.context() as away:
        away.setattr(SceneReader, "read", fail)
        away.setattr(worker, "is_worker", True)  # read in this process, where it fails
        assert answer("ingest", "run.yaml")["code"] == 3
    assert "refused, unreadable: s20200325: the network drive was away" in call("ingest", "run.yaml").stderr  # not read again
    assert "refused:   1 scene: s20200325, unreadable" in call("info", str(cube)).stdout
    assert answer("ingest", "run.yaml", "--retry-refused")["added"] == 1
    assert "refused:" not in call("info", str(cube)).stdout


def test_escape_sequences_of_file_names_do_not_reach_the_terminal(cube: Path) -> None:
    folder = Path("hostile")
    folder.mkdir()
    for date in DATES:
        write_scene(folder, date)
        for path in folder.glob(f"s{date}*"):
            path.rename(folder / f"\x1b[31m{path.name}")
    where = ("--set", "source.path=hostile", "--set", 'source.pattern="*s{date:%Y%m%d}_{band}.tif"', "--set", "name=hostile")
    assert answer("ingest", "run.yaml", *where)["added"] == 5
    (folder / f"\x1b[31ms{DATES[0]}_B04.tif").unlink()
    shown = [
        call(*one) for one in (("ingest", "run.yaml", *where), *((verb, "runs/hostile/cube") for verb in ("info", "history")))
    ]
    assert all("\x1b" not in one.output for one in shown)
    assert "\\x1b[31ms20200105" in shown[2].stdout


@pytest.mark.parametrize("uri", ["s3://KEY:SE/CRET@bucket/cube", "s3://bucket/cube?X-Amz-Signature=SECRET"])
def test_credentials_of_a_uri_are_refused_and_never_written(cube: Path, uri: str) -> None:
    Path("secret.yaml").write_text(f"{CONFIG}cube: {{uri: '{uri}'}}\n".replace("name: field", "name: secret"))
    for arguments in (("run", "secret.yaml"), ("run", "run.yaml", "--set", f"cube.uri={uri}"), ("info", uri)):
        for shown in (call(*arguments), call(*arguments, "--json")):
            assert shown.exit_code == 2
            assert "SE/CRET" not in shown.output
            assert "=SECRET" not in shown.output
            assert "AWS_" in shown.output
    assert not Path("runs/secret").exists()


@pytest.mark.parametrize(
    "line",
    [
        "cube: {uri: 's3://KEY:SE/CRET@bucket/cube'}",
        "cube: {uri: 's3://bucket/cube#access_token=SE/CRET'}",
        "cube: {uri: 'abfss://box@account.dfs.core.windows.net/cube?sv=1&sig=SE/CRET'}",
        "cube: {uri: 's3://KEY:SE/CRET@bucket/cube'",  # YAML that does not end
        "cub: {uri: 's3://KEY:SE/CRET@bucket/cube'}",
        "runs: https://me:SE/CRET@host/runs",
        "quality: 'https://host/x.tif?X-Amz-Signature=SE/CRET'",
        "policy: {checksums: 'https://me:SE/CRET@host/SHA256SUMS'}",
    ],
)
def test_credentials_in_a_config_reach_no_output_and_no_file(cube: Path, line: str) -> None:
    Path("secret.yaml").write_text(f"{CONFIG}{line}\n".replace("name: field", "name: secret"))
    for arguments in (("run", "secret.yaml"), ("ingest", "secret.yaml", "--json"), ("run", "secret.yaml", "--dry-run")):
        shown = call(*arguments)
        assert shown.exit_code in (1, 2)
        assert "CRET" not in shown.output
    assert [path.name for path in Path().rglob("*") if path.is_file() and b"CRET" in path.read_bytes()] == ["secret.yaml"]
