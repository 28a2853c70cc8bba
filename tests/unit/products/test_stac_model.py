import json
from pathlib import Path

import pystac
import pytest
from pystac.extensions.mlm import MLMExtension

from pipelines.grid import Grid
from pipelines.products.stac import ModelCard, write_model_item

GRID = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (30, 40))


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return ModelCard(
        name="demo",
        model_hash="ab" * 32,
        architecture="ConvLSTM encoder-forecaster",
        variables=("ndvi",),
        context=10,
        horizon=5,
        parameters=12_345,
        trained_from="2015-08-01T00:00:00Z",
        trained_to="2018-12-30T00:00:00Z",
        cube_snapshot="SNAP",
        framework_version="2.13.0",
        hyperparameters={"hidden": [16]},
        weights=tmp_path / "model" / "model.safetensors",
    )


def test_the_item_says_what_goes_in_and_what_comes_out(card: ModelCard, tmp_path: Path):
    (tmp_path / "products").mkdir()
    path = write_model_item(card, GRID, tmp_path / "products")
    item = pystac.Item.from_file(str(path))
    mlm = MLMExtension.ext(item)
    assert (mlm.mlm_name, mlm.framework, mlm.total_parameters) == ("demo", "PyTorch", 12_345)
    assert mlm.input[0].input.shape == [-1, 10, 1, -1, -1]
    assert mlm.output[0].result.shape == [-1, 5, 1, -1, -1]
    assert json.loads(path.read_text())["assets"]["model"]["href"] == "../model/model.safetensors"
    assert item.properties["driftline:model_hash"] == card.model_hash


def test_the_core_of_the_item_is_valid(card: ModelCard, tmp_path: Path):
    path = write_model_item(card, GRID, tmp_path)
    content = json.loads(path.read_text())
    content["stac_extensions"] = []  # their schemas lie on the network
    assert pystac.Item.from_dict(content).validate()
