"""`--slice` and `--finish` of predict and monitor through the command line, beside a run as a whole; and `compute` of a run."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from flows.cli import app
from flows.folder import RunFolder, exclusive_run
from pipelines.monitoring.blocks import Monitoring
from pipelines.stored_files import files_at

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


@pytest.mark.torch
def test_slices_make_what_a_run_makes(evaluated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.inference.job.plan_batches", one_tile_each)
    folder = Path("runs/tiny")
    code, text = call("predict", evaluated, *SMALL_TILES, "--slice", "2/3", "--json")
    assert code == 0
    assert json.loads(text.splitlines()[-1])["message"].startswith("slice 2/3: ")
    assert not (folder / "products").exists()
    code, text = call("predict", evaluated, *SMALL_TILES, "--finish")
    assert code == 1
    assert "3 of 4 regions are missing or damaged: r000000-000016_c000000-000016, r000016-000032_c000000-000016" in text
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
    assert sliced.keys() == products(Path("runs/whole")).keys()
    for name in sliced:
        with rasterio.open(folder / "products" / name) as one, rasterio.open(f"runs/whole/products/{name}") as other:
            np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.exhaustive
def test_slices_of_monitoring_make_what_a_run_makes(
    tiny_run: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.monitoring.context.Monitoring", partial(Monitoring, block_px=16))
    monkeypatch.setattr("pipelines.products.found_changes.draw_changes", lambda *arguments: None)
    monkeypatch.setattr("flows.publish.report", lambda task, context: {})
    monitor = ["monitor", "watched.yaml", "--set", "monitoring.tile_px=16", "--set"]
    shared, folder = [*monitor, f"monitoring.state={bucket}/slices"], Path("runs/watched")
    code, text = call(*shared, "--slice", "1/3")
    assert (code, "has no finished ingest step" in text) == (2, True)
    assert call("ingest", "watched.yaml")[0] == 0
    code, text = call(*shared, "--slice", "2/3", "--json")
    assert code == 0, text
    assert json.loads(text.splitlines()[-1])["message"] == "slice 2/3: 1 blocks are there, 1 of them advanced now"
    assert not (folder / "products").exists()
    code, text = call(*shared, "--finish")
    assert code == 1
    assert "of 4, 3 blocks are missing, damaged, or not at the dates of the cube: r000000-000016_c000000-000016, r0000" in text
    with exclusive_run(RunFolder(folder, "")):  # a slice asks for no lock
        for share in ("3/3", "1/3", "2/3"):
            assert call(*shared, "--slice", share)[0] == 0
    assert call(*shared, "--finish")[0] == 0
    assert call(*monitor, "name=whole")[0] == 0
    assert products(folder)
    for name, content in products(Path("runs/whole")).items():
        with rasterio.MemoryFile(content) as file, file.open() as whole, rasterio.open(folder / "products" / name) as one:
            np.testing.assert_array_equal(one.read(), whole.read())
    files, kept = files_at(f"{bucket}/slices/watched/harmonic"), Path("runs/whole/state/harmonic")
    assert files.names("") == sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file())
    assert all(files.read(name) == (kept / name).read_bytes() for name in files.names(""))
    assert "nothing to do" in call(*shared)[1]
    assert files_at(f"{bucket}/slices/watched").names("") == [f"harmonic/{name}" for name in files.names("")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slice", "1/2", "--restart"], "leave out --finish, --restart and --dry-run"),
        (["--finish", "--restart"], "leave one of them out"),
    ],
)
def test_a_wrong_request_to_monitor_is_one_message(tiny_run: Path, arguments: list[str], message: str) -> None:
    code, text = call("monitor", "watched.yaml", *arguments)
    assert code == 2
    assert message in text


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


def test_a_stage_without_slices_is_refused(tiny_run: Path) -> None:
    code, text = call("predict", "watched.yaml", "--slice", "1/2")
    assert code == 2
    assert "has no slices; run it as a whole" in text
    code, text = call("predict", "watched.yaml", "--finish")
    assert code == 2
    assert "--finish: `driftline predict` of a run with `task: monitor` has no slices; leave it out" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["compute.address=tcp://10.0.0.5:8786"], "tcp://10.0.0.5:8786 is on another machine: whoever reaches its port"),
        (["compute.address=tls://10.0.0.5:8786"], "tls:// needs certificates"),
        (["compute.address=10.0.0.5:8786"], "is no address of a scheduler"),
        (["compute.address=tcp://127.0.0.1"], "is no address of a scheduler"),
        (["compute.address=tcp://127.0.0.1:8786", "compute.kind=threads"], "threads takes no address"),
        (["compute.tls={ca: tiny.nc, cert: tiny.nc, key: tiny.nc}"], "certificates are for a scheduler, and none is named"),
    ],
)
def test_where_work_cannot_run_is_refused_with_the_config(tiny_run: Path, settings: list[str], message: str) -> None:
    code, text = call("predict", str(tiny_run), *(part for one in settings for part in ("--set", one)))
    assert code == 2
    assert message in text


def test_old_keys_of_a_cluster_are_read(tiny_run: Path) -> None:
    from configs.load import load_run
    from pipelines.compute import Compute

    run = load_run(str(tiny_run), ["cube.dask=tcp://[::1]:8786", "prediction.workers=1"])
    assert run.compute.build() == Compute("dask", 1, "tcp://[::1]:8786")
