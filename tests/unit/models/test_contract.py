"""What every network states, checked against its behaviour; modules that state nothing are refused."""

import importlib
import json
import math
import pkgutil

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from models.blocks.change import ChangeNetwork
from models.cells.convlstm import ConvLSTMCell
from models.change_detector import ChangeDetector, build_network
from models.checkpoint import FORECASTER, rebuild_forecaster, rebuild_forecaster_network
from models.contract import Ensemble, Network, Pointwise, layer_flops
from models.filler import Filler, FillingNetwork
from models.history_forecaster import HistoryForecaster
from models.networks.residual_gru import ResidualEnsemble, ResidualGRUConfig
from models.pixel_model import PixelModel
from models.residual_forecaster import ResidualForecaster, Scaling, build_forecaster
from models.segmenter import Segmenter
from models.sequence_model import SequenceModel
from models.sequence_model import rebuild_network as rebuild_sequence_network
from tests.networks_under_test import CASES, ONE_SIZE, SEQUENCES, TARGETS

CONTAINERS = {
    ResidualForecaster,
    HistoryForecaster,
    ChangeDetector,
    ResidualEnsemble,
    PixelModel,
    Segmenter,
    SequenceModel,
    Filler,
    FillingNetwork,  # a network of class maps or change, whose pixels a decoder reads one by one
}  # they combine what their members state
SCALING = Scaling((0.4,), (0.3,), ("none",), 16.0)
STATED = ("halo_px", "stride_px", "flops", "describe")


def every_network() -> set[type[Network]]:
    for module in pkgutil.walk_packages(models.__path__, "models."):
        importlib.import_module(module.name)
    found, open_classes = set(), [Network]
    while open_classes:
        cls = open_classes.pop()
        found |= {cls} if cls.__module__.startswith("models.") and not cls.__abstractmethods__ else set()
        open_classes += cls.__subclasses__()
    return found


def test_every_network_is_under_test():
    assert {type(case.build()) for case in CASES.values()} == every_network() - CONTAINERS


def test_every_module_with_a_forecast_or_a_change_network_s_name_is_a_network():
    assert issubclass(ChangeNetwork, Network)
    assert ChangeNetwork.__abstractmethods__ == {"features"}


@pytest.mark.parametrize("missing", STATED)
def test_an_incomplete_network_cannot_be_instantiated(missing):
    stated = {"halo_px": lambda self, steps: (0, 0), "stride_px": (1, 1), "flops": lambda self, shape, targets=1: 0}
    stated |= {"describe": lambda self: {}}
    assert type("Whole", (Network,), stated)().halo_px(3) == (0, 0)
    del stated[missing]
    with pytest.raises(TypeError, match=rf"abstract .* '?{missing}"):
        type("Half", (Network,), stated)()


def test_a_plain_module_is_refused_as_a_member():
    with pytest.raises(TypeError, match="Linear states no halo, stride, flops and description: derive it from"):
        ResidualForecaster(None, [nn.Linear(1, 1)], SCALING, context=2, horizon=1)  # type: ignore[list-item]


def gates_of_zeros(cell: ConvLSTMCell, x_BCHW: torch.Tensor) -> torch.Tensor:
    return cell.gates(torch.cat([x_BCHW, cell.initial_state(x_BCHW)[0]], dim=1))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("steps", "shape_yx"), [(2, (16, 16)), (5, (13, 22))])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_the_stated_flops_equal_the_counted_ones(name, steps, shape_yx, with_gradient, monkeypatch):
    monkeypatch.setattr(ConvLSTMCell, "gates_of_input", gates_of_zeros)  # a first step is stated like the others
    case = CASES[name]
    network, known = case.ready(), case.inputs(0, case.steps(steps), shape_yx)
    with torch.set_grad_enabled(with_gradient), FlopCounterMode(display=False) as counter:
        case.call(network, known)
    assert network.flops(case.shape(known), TARGETS) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_flops_of_a_layer_by_hand():
    assert layer_flops(nn.Conv2d(2, 3, 5, padding=2), pixels=100) == 2 * 100 * 2 * 3 * 25
    assert layer_flops(nn.Conv3d(1, 1, 3), pixels=10) == 2 * 10 * 27
    assert layer_flops(nn.Linear(4, 5), pixels=100, rows=2) == 2 * 2 * 20


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind not in ONE_SIZE])
@pytest.mark.parametrize("steps", [2, 7])
def test_the_halo_is_a_multiple_of_the_stride_and_grows_with_the_steps(name, steps):
    network = CASES[name].build()
    halo = network.halo_px(steps)
    assert len(halo) == len(network.stride_px) == 2
    assert all(side % stride == 0 for side, stride in zip(halo, network.stride_px, strict=True))
    assert halo <= network.halo_px(steps + 1)


@pytest.mark.parametrize("name", CASES)
def test_a_description_is_plain_json(name):
    description = CASES[name].build().describe()
    assert json.loads(json.dumps(description)).keys() == description.keys()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind in ("forecast", "history")])
def test_a_forecaster_s_network_is_rebuilt_from_its_description(name):
    network = CASES[name].build()
    again = rebuild_forecaster_network(json.loads(json.dumps(network.describe())))
    assert (type(again), again.describe()) == (type(network), network.describe())
    assert list(again.state_dict()) == list(network.state_dict())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind in SEQUENCES])
def test_a_network_of_sequences_is_rebuilt_from_its_description_and_has_no_halo(name):
    network = CASES[name].build()
    again = rebuild_sequence_network(json.loads(json.dumps(network.describe())))
    assert (type(again), again.config) == (type(network), network.config)
    assert list(again.state_dict()) == list(network.state_dict())
    assert network.halo_px(5) is None
    assert set(network.stride_px) == {1}


def test_a_description_without_a_kind_is_of_the_convlstm():
    """Checkpoints from before there was a second network have no kind; they stay readable."""
    assert "kind" not in CASES["convlstm"].build().describe()


# ---------------------------------------------------------------- containers of networks


class WholeImage(Network):
    """Adds the mean of the whole frame: every pixel depends on all of them."""

    stride_px = (1, 1)

    def halo_px(self, steps):
        return None

    def flops(self, shape, targets=1):
        return 0

    def describe(self):
        return {"kind": "whole_image", "hidden": []}

    def forward(self, frames_BTCHW, valid, time, elapsed, futures_BKCHW, *_):
        return (
            frames_BTCHW[:, -1:]
            .mean(dim=(-2, -1), keepdim=True)
            .expand(-1, futures_BKCHW.shape[1], -1, *futures_BKCHW.shape[-2:])
        )


class Strided(Pointwise, Network):
    """Only its stride is used."""

    def __init__(self, stride_px):
        super().__init__()
        self.stride = stride_px

    stride_px = property(lambda self: self.stride)

    def flops(self, shape, targets=1):
        return 7

    def describe(self):
        return {}


class Together(Ensemble):
    """Any members."""

    def describe(self):
        return {"members": self.describe_members()}


def test_one_member_with_an_unbounded_halo_is_enough():
    finite = CASES["convlstm"].build()
    assert Together([finite, WholeImage()]).halo_px(4) is None
    assert Together([finite, CASES["convgru"].build()]).halo_px(4) == CASES["convgru"].build().halo_px(4)
    assert Together([]).halo_px(4) == (0, 0)
    assert ResidualForecaster(None, [WholeImage()], SCALING, context=2, horizon=1).halo_px(3) is None


def test_the_common_stride_is_a_multiple_of_all():
    assert Together([Strided((4, 1)), Strided((6, 2))]).stride_px == (12, 2)
    assert Together([]).stride_px == (1, 1)


def test_containers_sum_the_flops_of_their_members():
    forecaster = build_forecaster(None, SCALING, context=3, horizon=2, members=2)
    assert forecaster.flops((1, 3, 1, 8, 8), 2) == 2 * forecaster.members[0].flops((1, 3, 1, 8, 8), 2)
    network = build_network("fc_ef", bands=2)
    assert ChangeDetector([network]).flops((1, 2, 2, 16, 16)) == network.flops((1, 2, 2, 16, 16))
    ensemble = ResidualEnsemble(ResidualGRUConfig(1), 3)
    assert ensemble.flops((1, 4, 10, 1)) == 3 * ensemble.members[0].flops((1, 4, 10, 1)) > 0
    assert ensemble.halo_px(4) == (0, 0)


def test_a_forecaster_of_the_second_network_is_saved_and_loaded(make_window, tmp_path):
    from models.networks.conv_gru_forecaster import ConvGRUForecaster, ConvGRUSettings

    scaling = Scaling((0.4, 0.6), (0.3, 0.2), ("log1p", "none"), 16.0)
    made = build_forecaster(None, scaling, context=6, horizon=3, members=2, network=ConvGRUSettings((4, 3)))
    for member in made.members:
        nn.init.normal_(member.head.weight)
    FORECASTER.save(made, tmp_path, {"a": 1})
    loaded, metadata = FORECASTER.load(tmp_path)
    assert metadata == {"a": 1}
    assert all(isinstance(member, ConvGRUForecaster) for member in loaded.members)
    assert loaded.halo_px(9) == made.halo_px(9) == (2 * (9 + 2) - 3,) * 2
    window = make_window().arguments()
    assert torch.equal(loaded.forecast(**window), made.forecast(**window))


def test_a_network_that_the_checkpoint_cannot_rebuild_is_not_saved(tmp_path):
    made = ResidualForecaster(None, [WholeImage()], SCALING, context=2, horizon=1)
    with pytest.raises(
        ValueError, match=r"cannot be rebuilt .*'patched' or 'history', got the forecaster's network 'whole_image'.*: not saved"
    ):
        FORECASTER.save(made, tmp_path / "model", {})
    assert not (tmp_path / "model").exists()


def test_an_incomplete_description_is_detected(tmp_path, monkeypatch):
    made = build_forecaster(None, SCALING, context=2, horizon=1)
    monkeypatch.setattr(type(made.members[0]), "describe", lambda self: {**vars(self.config), "hidden": [3]})
    with pytest.raises(ValueError, match="has a description of other tensors: not saved"):
        FORECASTER.save(made, tmp_path, {})


def test_a_forecaster_is_rebuilt_from_its_description():
    made = build_forecaster(None, SCALING, context=3, horizon=2, members=2)
    again = rebuild_forecaster(json.loads(json.dumps(made.describe())))
    assert again.describe() == made.describe()
    assert math.prod(again.stride_px) == 1
