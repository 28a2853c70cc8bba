"""`policy` and `cube.quarantine` of a config: stricter than what ingest does without them, and nothing else."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner, Result

from flows.cli import app

DATES = ("20200105", "20200121", "20200206", "20200222")
CONFIG = """
name: field
task: forecast
source: {kind: folder, path: scenes, pattern: "s{date:%Y%m%d}.tif", bands: [{name: v, source: "1"}]}
samples: {variables: [{name: v, bands: [v]}], context: 1, horizon: 1}
split: {validation_from: 2020-02-01, test_from: 2020-02-10}
"""


def write(date: str, scale: float = 1.0, bands: int = 1, crs: str = "EPSG:32633") -> None:
    pixels = np.random.default_rng(int(date)).integers(1, 500, (bands, 20, 30), dtype=np.uint16)
    profile = {"driver": "GTiff", "count": bands, "height": 20, "width": 30, "dtype": "uint16", "crs": crs}
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(f"scenes/s{date}.tif", "w", **profile, transform=transform) as file:
        file.write(pixels)
        file.scales = (scale,) * bands


def ingest(*overrides: str) -> Result:
    return CliRunner().invoke(app, ["ingest", "run.yaml", *(part for one in overrides for part in ("--set", one))])


def refusals() -> list[tuple[str, str]]:
    return [(one["scene_id"], one["reason"]) for one in json.loads(Path("runs/field/refused.json").read_text())]


@pytest.fixture(autouse=True)
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    for date in DATES:
        write(date)
    Path("run.yaml").write_text(CONFIG)


def list_checksums(kind: str = "sha256", line: str = "{digest}  {name}\n") -> None:
    paths = sorted(Path("scenes").glob("*.tif"))
    digests = {path.name: hashlib.new(kind, path.read_bytes()).hexdigest() for path in paths}
    text = "".join(line.format(digest=digest, name=name) for name, digest in digests.items())
    Path("scenes/SUMS").write_text(text)


MADE: dict[str, Callable[[], None]] = {
    "policy.conversions=refuse": lambda: write(DATES[1], scale=2.0),
    "policy.unused=refuse": lambda: write(DATES[1], bands=2),
    "policy.checksums=SUMS": lambda: (list_checksums(), write(DATES[1], bands=2))[1],
}


@pytest.mark.parametrize("rule", MADE)
def test_a_rule_refuses_what_is_accepted_without_it_and_drops_it_from_a_cube(rule):
    MADE[rule]()
    assert ingest("policy.max_refused=1").exit_code == 0
    assert refusals() == []
    found = ingest(rule)
    assert found.exit_code == 3, found.output
    reason = "checksum" if "checksums" in rule else "policy"
    assert refusals() == [(f"s{DATES[1]}", reason)]
    assert "1 dropped, 3 unchanged" in found.output
    assert ingest().exit_code == 0
    assert refusals() == []


@pytest.mark.parametrize(
    ("kind", "line"), [("md5", "{digest} *{name}\n"), ("sha512", "{digest}  ./{name}\n"), ("sha1", "SHA1 ({name}) = {digest}\n")]
)
def test_lists_of_checksums_are_read_as_the_tools_write_them(kind, line):
    list_checksums(kind, line)
    assert ingest("policy.checksums=SUMS", "policy.unused=refuse").exit_code == 0
    write("20200309")
    assert ingest("policy.checksums=SUMS").exit_code == 3
    assert "s20200309.tif is not in the list of checksums" in Path("runs/field/refused.json").read_text()


@pytest.mark.parametrize(("text", "message"), [(None, "no list of checksums at"), ("12 files\n", "is no line of")])
def test_a_list_that_is_none_ends_the_ingest(text, message):
    if text:
        Path("scenes/SUMS").write_text(text)
    found = ingest("policy.checksums=SUMS")
    assert found.exit_code == 2
    assert message in found.stderr


def test_files_that_no_scene_uses_end_the_ingest():
    Path("scenes/notes.txt").write_text("x")
    assert ingest().exit_code == 0
    found = ingest("policy.unused=refuse")
    assert found.exit_code == 2
    assert "no scene uses notes.txt, and policy.unused is refuse" in found.stderr


def test_too_many_refused_scenes_end_the_run_and_clouds_do_not_count():
    write(DATES[1], crs="EPSG:32634")
    assert ingest("policy.max_refused=0.25").exit_code == 3
    found = ingest("policy.max_refused=0.2")
    assert found.exit_code == 1
    assert "1 of 4 scenes (25 %) are refused, policy.max_refused allows 20 %; the first: s20200121: wrong-crs" in found.stderr


def test_a_policy_that_contradicts_the_config_is_a_mistake():
    found = ingest("policy.conversions=refuse", "cube.on_other_grid=reproject")
    assert found.exit_code == 2
    assert "which policy.conversions refuses" in found.stderr


def test_refused_files_are_linked_with_their_reason_and_stay_where_they_are():
    write(DATES[1], crs="EPSG:32634")
    Path("scenes/s20209999.tif").write_bytes(b"II*\0")
    assert ingest("cube.quarantine=aside").exit_code == 3
    place = Path("aside/wrong-crs/s20200121")
    assert (place / "s20200121.tif").resolve() == Path("scenes/s20200121.tif").resolve()
    assert "s20200121: wrong-crs: band v is on EPSG:32634" in (place / "reason.txt").read_text()
    assert "s20209999.tif is not a date" in Path("aside/no-date/s20209999/reason.txt").read_text()
    write(DATES[1])
    Path("scenes/s20209999.tif").unlink()
    assert CliRunner().invoke(app, ["ingest", "run.yaml", "--quarantine", "aside"]).exit_code == 0
    assert [path.name for path in Path("aside").iterdir()] == ["ABOUT.txt"]


@pytest.mark.parametrize(("folder", "message"), [("scenes/aside", "lies below source.path"), ("mine", "holds other files")])
def test_a_quarantine_replaces_nothing_of_others(folder, message):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    found = ingest(f"cube.quarantine={folder}")
    assert found.exit_code == 2
    assert message in found.stderr
    assert Path("mine/thesis.txt").exists()
