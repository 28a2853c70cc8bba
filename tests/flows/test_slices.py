"""`driftline predict --slice` and `--finish` through the command line, beside a run as a whole; and `compute` of a run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

SMALL_TILES = ["--set", "prediction.tile_px=16", "--set", "samples.horizon=1"]
runner = CliRunner()


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


def products(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "products").glob("*.tif"))}


@pytest.fixture
def evaluated(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that is evaluated; four tiles, a region each."""
    monkeypatch.setattr("pipelines.inference.tiling.TILES_PER_BATCH", 1)
    monkeypatch.setattr("pipelines.inference.tiling.plan_batches", one_tile_each)
    for verb in ("ingest", "train", "evaluate"):
        assert call(verb, str(tiny_run), *SMALL_TILES)[0] == 0
    return str(tiny_run)


def one_tile_each(shape: tuple[int, ...], tile_px: int, tiles_across: int = 4):
    from pipelines.tiles import Box

    return tuple(Box.whole(shape).cut(tile_px))


def test_slices_make_what_a_run_makes(evaluated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.inference.job.plan_batches", one_tile_each)
    folder = Path("runs/tiny")
    code, text = call("predict", evaluated, *SMALL_TILES, "--slice", "2/3", "--json")
    assert code == 0
    assert json.loads(text.splitlines()[-1])["message"].startswith("slice 2/3: ")
    assert not (folder / "products").exists()
    code, text = call("predict", evaluated, *SMALL_TILES, "--finish")
    assert code == 1
    assert "3 of 4 regions are missing: r000000-000016_c000000-000016, r000016-000032_c000000-000016" in text
    assert "do the slices again" in text
    for share in ("3/3", "1/3", "2/3"):
        assert call("predict", evaluated, *SMALL_TILES, "--slice", share)[0] == 0
    code, text = call("predict", evaluated, *SMALL_TILES, "--finish")
    assert code == 0, text
    sliced = products(folder)
    assert sliced
    assert json.loads((folder / "stages" / "predict.json").read_text())["method"] == "model"
    whole = call("run", evaluated, *SMALL_TILES, "--set", "name=whole")
    assert whole[0] == 0
    names = {name: len(content) for name, content in products(Path("runs/whole")).items()}
    assert {name: len(content) for name, content in sliced.items()} == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slice", "4/3"], "--slice 4/3: expected I/N with I from 1 to N, such as 3/8"),
        (["--slice", "one"], "expected I/N"),
        (["--slice", "1/2", "--finish"], "--slice does a share of the work; leave out --finish"),
        (["--slice", "1/2"], "has no finished"),
    ],
)
def test_a_wrong_request_is_one_message(tiny_run: Path, arguments: list[str], message: str) -> None:
    code, text = call("predict", str(tiny_run), *arguments)
    assert code == 2
    assert message in text


def test_monitoring_has_no_slices(tiny_run: Path) -> None:
    code, text = call("predict", "watched.yaml", "--slice", "1/2")
    assert code == 2
    assert "has no slices; run it as a whole" in text
