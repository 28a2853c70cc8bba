"""Ingest of sites in slices through the command line: cubes, labels and records of an undivided ingest, whoever is killed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.change_sites import write_site, write_sites
from tests.unit.cube.test_slicing import Killed, chunks, killed_at_write

runner = CliRunner()
SITES = ("alpha", "beta", "delta", "gamma")


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, ["ingest", "tiny.yaml", *arguments])
    return found.exit_code, " ".join(found.output.split())


def record_of(name: str) -> Any:
    """What an ingest leaves in words, without the ids of versions, which are drawn, and times."""
    record, refused = (json.loads((Path("runs") / name / file).read_text()) for file in ("stages/ingest.json", "refused.json"))
    for one in (record, *record["sites"].values()):
        one.pop("snapshot")
    return {key: value for key, value in record.items() if key not in ("at_utc", "digest")}, refused


def require_equal(name: str, other: str) -> None:
    for site in SITES:
        assert chunks(f"runs/{name}/cubes/{site}") == chunks(f"runs/{other}/cubes/{site}"), site
        labels = [Path("runs") / one / "labels" / f"{site}.npy" for one in (name, other)]
        assert labels[0].read_bytes() == labels[1].read_bytes()
    assert record_of(name) == record_of(other)


@pytest.fixture
def sites(here: Path) -> Path:
    """Four sites; of `beta` one of three dates is no TIFF."""
    write_sites(here, SITES)
    write_site(here / "sites" / "beta", seed=1, dates=3)
    (here / "sites" / "beta" / "2" / "red.tif").write_bytes(b"no TIFF")
    return here / "sites"


def test_slices_of_sites_leave_what_an_ingest_leaves(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("--set", "name=whole")[0] == 3
    with killed_at_write(monkeypatch, 2), pytest.raises(Killed):  # of its five scenes one is there
        call("--slice", "2/2")
    code, text = call("--finish")
    assert code == 1
    assert "4 of 4 sites are not there as a whole, with scenes that are in no slice: alpha (2 of 2 scenes), beta (" in text
    assert not Path("runs/tiny/cubes").exists()
    code, text = call("--slice", "1/3", "--json")  # N has changed
    assert (code, json.loads(text[text.index("{") :])["sites"]) == (0, ["alpha", "gamma"])
    code, text = call("--slice", "2/3")
    assert code == 0
    assert "slice 2/3: 1 site, 3 scenes are staged, " in text
    assert not text.split("scenes are staged, ")[1].startswith("3")
    assert "beta: refused, driver: beta/2: " in text
    assert (
        "1 of 4 sites is not there as a whole, with scenes that are in no slice: delta (2 of 2 scenes); do" in call("--finish")[1]
    )
    assert not Path("runs/tiny/cubes").exists()
    assert call("--slice", "3/3")[0] == 0
    code, text = call("--finish")
    assert code == 3, text
    assert not Path("runs/tiny/staging/scenes").exists()
    require_equal("tiny", "whole")
    assert "slice 1/1: 4 sites, 0 scenes are staged, 0 read now" in call("--slice", "1/1")[1]
    code, text = call("--finish")
    assert (code, "4 sites (nothing new)" in text) == (3, True)


def test_an_end_that_is_killed_goes_on_and_new_dates_come_in_slices(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import sites as of_sites

    assert call("--slice", "1/1")[0] == 0
    original = of_sites.ingest_one_site

    def dying(context: Any, name: str, *others: Any) -> Any:
        if name == "delta":
            raise Killed
        return original(context, name, *others)

    with monkeypatch.context() as patch:
        patch.setattr(of_sites, "ingest_one_site", dying)
        with pytest.raises(Killed):
            call("--finish")
    assert {path.name for path in Path("runs/tiny/cubes").iterdir() if path.is_dir()} == {"alpha", "beta"}
    assert "slice 1/1: 4 sites, 4 scenes are staged, 0 read now" in call("--slice", "1/1")[1]
    assert call("--finish")[0] == 3
    write_site(sites / "gamma", seed=3, dates=3)  # the date of before lies elsewhere now, and is of other pixels
    assert "gamma (" in call("--finish")[1]
    assert call("--slice", "2/2")[0] == 0
    assert call("--finish")[0] == 3
    assert call("--set", "name=whole")[0] == 3
    for site in SITES:
        assert chunks(f"runs/tiny/cubes/{site}") == chunks(f"runs/whole/cubes/{site}"), site


def test_a_site_that_cannot_be_used_leaves_the_others(sites: Path) -> None:
    shutil.rmtree(sites / "delta" / "2")
    code, text = call("--slice", "1/1")
    assert code == 0
    assert "slice 1/1: 4 sites, 7 scenes are staged, 7 read now, 2 refused" in text
    assert "delta cannot be used: " in text
    code, text = call("--finish")
    assert code == 2
    assert "1 of 4 sites cannot be used: delta: " in text
    assert "to go on without: source.sites: [alpha, beta, gamma]" in text
    assert call("--finish", "--set", "source.sites=[alpha,beta,gamma]")[0] == 3
    assert not Path("runs/tiny/staging/scenes").exists()
