"""Every kind of network of a forecast, from its section of a config."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from configs.load import load_run
from configs.networks import Model, build_network
from configs.tasks.forecast import build_forecaster
from models.contract import Network
from models.networks.patched import PatchedForecaster
from pipelines.errors import RequestError
from pipelines.samples.prepare import ChannelStatistics

RADAR = Path(__file__).resolve().parents[3] / "configs" / "radar.yaml"
KINDS = ("convlstm", "convgru", "trajgru", "predrnn", "simvp")


def built(**model: object) -> Network:
    return build_network(TypeAdapter(Model).validate_python(model), 3, 2).build(1, 2, 3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_every_kind_make_a_network_with_a_finite_halo(kind):
    network = built(kind=kind)
    assert sum(one.numel() for one in network.parameters()) < 250_000
    assert network.halo_px(5) is not None


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_patches_go_around_any_recurrent_network(kind):
    network = built(kind=kind, patch_px=4)
    assert isinstance(network, PatchedForecaster)
    assert network.stride_px == (4, 4)
    assert network.network.describe().get("kind", "convlstm") == kind
    assert network.flops((1, 3, 1, 32, 32), 2) < built(kind=kind, patch_px=1).flops((1, 3, 1, 32, 32), 2)


def test_volumes_are_refused_by_simvp_before_anything_is_trained():
    run = load_run(RADAR, ["model.kind=simvp"], inputs_must_exist=False)
    with pytest.raises(RequestError, match="simvp is for images, these are volumes; take convlstm, convgru, trajgru or predrnn"):
        build_forecaster(run, lambda: (), ChannelStatistics(("rain",), (0.0,), (1.0,), 1), 1.0, axes=3)
