"""Crops from MODIS and 222 points, as the ready-made config says; and all seasons split by pixel, which must not pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import stage
from flows.task import open_invocation, remembering_folder
from pipelines.errors import NotPublished

CONFIG = Path(__file__).parents[2] / "configs/porto-dos-gauchos.yaml"
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return shared_data("satellite/modis-porto-dos-gauchos")


def run(folder: Path, *overrides: str) -> None:
    paths = f"source.path={folder}", f"labels.path={folder / 'samples.csv'}"
    invocation = open_invocation(CONFIG, (*paths, *overrides))
    with remembering_folder(invocation):
        stage.carry_out(invocation, "run")


def summary(name: str) -> Any:
    return json.loads(Path(f"runs/{name}/summary.json").read_text())


@pytest.mark.exhaustive
def test_one_season_equals_random_forest_on_blocks_that_were_left_out(folder: Path) -> None:
    run(folder)
    found = summary("porto-dos-gauchos")
    methods, difference = found["methods"], found["evaluation"]["differences"]["random_forest"]
    assert found["evaluation"]["labels"]["used"] == 222
    assert methods["model"]["accuracy"] >= 0.9
    assert methods["random_forest"]["accuracy"] == pytest.approx(0.95, abs=0.04)  # of 37 points
    assert difference["low"] <= 0 <= difference["high"]


@pytest.mark.exhaustive  # as with made labels in tests/flows/test_segment.py
def test_all_seasons_split_by_pixel_are_confounded(folder: Path) -> None:
    whole = "labels.start=2007-09-01", "labels.stop=2013-09-01", "labels.classes=[]", "split.block_px=1", "training.epochs=12"
    with pytest.raises(NotPublished, match="nobody can say what the model has learnt"):
        run(folder, "name=all", *whole)
    assert "date" in summary("all")["verdict"]["confounded_by"][0]
