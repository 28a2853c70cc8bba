"""Class and change maps by threads, processes and slices, by the command line: the same scores, maps and products."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.change_sites import write_sites
from tests.flows.small_runs import one_thread

runner = CliRunner()
TILES = ["--set", "prediction.tile_px=16"]
FOLDER = Path("runs/tiny")
pytestmark = pytest.mark.torch


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


def forget() -> None:
    """What prediction left, so that it is done again."""
    for name in ("staging", "scores", "products"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / "stages/predict.json").unlink(missing_ok=True)


def made() -> dict[str, Any]:
    """name -> pixels of the products, bytes of scores and of what is staged."""
    rasters = {path.name: rasterio.open(path).read() for path in sorted((FOLDER / "products").glob("*.tif"))}
    arrays = {path.name: np.load(path) for folder in ("scores", "staging") for path in sorted((FOLDER / folder).rglob("*.npy"))}
    return {**rasters, **arrays}


def require_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture
def config(here: Path) -> Iterator[str]:
    """Labelled change on three tiny sites, trained and evaluated; nine tiles each."""
    path = str(write_sites(here))
    with one_thread():
        for verb in ("ingest", "train", "evaluate"):
            code, text = call(verb, path, *TILES)
            assert code == 0, text
        yield path


@pytest.mark.exhaustive
def test_change_in_slices_and_by_workers_is_that_of_one_process(config: str) -> None:
    predict = ["predict", config, *TILES, "--even-if-worse"]
    forget()
    assert call(*predict)[0] == 0
    expected = made()
    assert [name for name in expected if name.endswith("-mask.tif")] == [
        f"{site}-mask.tif" for site in ("alpha", "beta", "gamma")
    ]
    forget()
    code, text = call(*predict, "--slice", "2/3", "--json")
    assert code == 0, text
    assert json.loads(text.splitlines()[-1])["regions"] == 18  # a network and an index of each of 27 tiles
    code, text = call(*predict, "--finish")
    assert code == 1
    assert "regions are missing or damaged" in text
    for share in ("3/3", "1/3", "2/3"):
        assert call(*predict, "--slice", share)[0] == 0
    code, text = call(*predict, "--finish")
    assert code == 0, text
    require_equal(made(), expected)
    forget()
    code, text = call(*predict, "--set", "compute={kind: processes, workers: 2}")
    assert code == 0, text
    require_equal(made(), expected)


@pytest.mark.exhaustive
def test_a_tile_that_fails_is_named(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.change import score_work

    def fail(*_: object) -> np.ndarray:
        raise ValueError("no such luck")

    forget()
    monkeypatch.setattr(score_work, "score_tile", fail)
    code, text = call("predict", config, *TILES, "--even-if-worse")
    assert code == 1
    assert "unexpected ValueError: no such luck (at alpha-" in text
    assert " r000000-000016_c000000-000016)" in text
