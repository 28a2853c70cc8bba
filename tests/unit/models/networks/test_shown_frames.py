"""Recurrent forecasters that read true frames in place of their own forecasts in training, and their state in mixed precision."""

from dataclasses import replace

import pytest
import torch

from models.blocks.forecast import TIME_FEATURES, Shown, StatefulForecaster
from models.networks.conv_gru_forecaster import ConvGRUSettings
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.networks.patched import PatchedSettings
from models.networks.predrnn_forecaster import PredRNNSettings
from models.networks.simvp_forecaster import SimVPSettings
from models.networks.traj_gru_forecaster import TrajGRUSettings

CONTEXT, HORIZON, SPACE = 4, 4, (7, 6)
SETTINGS = {
    "convlstm": ConvLSTMSettings((3, 4), feedback=True),
    "convlstm, peepholes": ConvLSTMSettings((3,), peepholes=True, feedback=True),
    "convgru": ConvGRUSettings((3, 4), feedback=True),
    "trajgru": TrajGRUSettings((3,), links=2, feedback=True),
    "predrnn": PredRNNSettings((4, 4)),
    "patched": PatchedSettings(PredRNNSettings((4,)), 2),
    "patched convgru": PatchedSettings(ConvGRUSettings((4,), feedback=True), 2),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> StatefulForecaster:
    """With a random head."""
    torch.manual_seed(0)
    network = SETTINGS[name].build(2, 3, 2, 2).to(dtype).eval()
    (head,) = (one for part, one in network.named_modules() if part.split(".")[-1] == "head")
    torch.nn.init.normal_(head.weight, std=0.3)
    return network


def inputs(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)

    valid = (random(CONTEXT, *SPACE) > -0.5).to(dtype)
    return {
        "frames_BTCHW": random(CONTEXT, 3, *SPACE) * valid[:, :, None],
        "valid_BTHW": valid,
        "time_BTF": random(CONTEXT, TIME_FEATURES),
        "elapsed_BT": random(CONTEXT).abs(),
        "futures_BKCHW": random(HORIZON, 2, *SPACE),
        "time_BKF": random(HORIZON, TIME_FEATURES),
        "elapsed_BK": random(HORIZON).abs(),
    }


def shown(*targets: int, context: list[int] | None = None, truth: float = 1.0) -> Shown:
    """The targets of these numbers are shown to both samples; of the context these frames, None: all."""
    at_BK = torch.zeros(2, HORIZON, dtype=torch.bool)
    at_BK[:, list(targets)] = True
    at_BT = None if context is None else torch.tensor([[t in context for t in range(CONTEXT)]] * 2)
    return Shown(at_BT, at_BK, torch.full((2, HORIZON, 2, *SPACE), truth).double(), torch.ones(2, HORIZON, *SPACE) > 0)


@pytest.mark.parametrize("name", SETTINGS)
def test_without_true_frames_it_forecasts_as_ever(name):
    network, known = made(name), inputs()
    with torch.no_grad():
        plain = network(**known)
        for one in (shown(), shown(context=list(range(CONTEXT)))):
            torch.testing.assert_close(network(**known, shown=one), plain, atol=1e-13, rtol=0)
    torch.testing.assert_close(network(**known), plain, atol=1e-13, rtol=0)  # with gradients: another path


@pytest.mark.parametrize("name", SETTINGS)
def test_a_true_target_is_read_by_later_ones_where_it_is_valid(name):
    network, known = made(name), inputs()
    with torch.no_grad():
        plain, y = network(**known), network(**known, shown=shown(1))
        torch.testing.assert_close(y[:, :2], plain[:, :2], atol=1e-13, rtol=0)
        assert (y[:, 2:] - plain[:, 2:]).abs().amax(dim=(2, 3, 4)).min() > 1e-6
        hidden = replace(shown(1, truth=torch.nan), valid_BKHW=torch.zeros(2, HORIZON, *SPACE) > 0)
        torch.testing.assert_close(network(**known, shown=hidden), plain, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_its_own_forecasts_of_the_context_are_read_and_learnt(name):
    network, known = made(name), inputs()
    with torch.no_grad():
        assert not torch.allclose(network(**known, shown=shown(context=[0, 1, 3])), network(**known))
    network.train()(**known)
    without = network.auxiliary_loss()
    network(**known, shown=shown(context=[0, 1, 3]))
    both = network.auxiliary_loss()
    of_context = both if without is None else both - without
    assert 0.3 < float(of_context.detach()) < 30  # the mean square of noise and of the forecasts of it
    assert network.auxiliary_loss() is None
    both.backward()
    head = [one.grad for part, one in network.named_parameters() if part.endswith("head.weight")]
    assert float(head[0].abs().sum()) > 0


def test_missing_pixels_of_the_context_are_not_learnt():
    network, known = made("convgru").train(), inputs()
    known["valid_BTHW"][:, 1:] = 0
    network(**known, shown=shown(context=[0, 2]))
    assert network.auxiliary_loss() == 0


@pytest.mark.parametrize("settings", [ConvLSTMSettings((3,)), ConvGRUSettings((3,)), TrajGRUSettings((3,))])
def test_what_reads_no_forecasts_says_so(settings):
    network = settings.build(2, 3, 2, 2).double()
    with pytest.raises(ValueError, match="reads no forecasts"):
        network(**inputs(), shown=shown(1))
    assert "feedback" not in network.describe()
    assert not isinstance(SimVPSettings(CONTEXT, HORIZON, 4, 6).build(2, 3, 2, 2), StatefulForecaster)


@pytest.mark.parametrize("name", SETTINGS)
def test_mixed_precision_is_close_and_keeps_the_state_in_float32(name):
    network, known = made(name, torch.float32), inputs(torch.float32)
    y = network(**known).detach()
    with torch.autocast("cpu", torch.bfloat16):
        state = network.encode(*list(known.values())[:4])
        again, after = network.decode(state, *list(known.values())[4:])
    assert {one.dtype for layer in (*state, *after) for one in layer} == {torch.float32}
    assert float((again.detach().float() - y).abs().mean()) < 0.02 * float(y.abs().mean()) + 0.005


@pytest.mark.parametrize("settings", [ConvLSTMSettings((3, 4), feedback=True), ConvGRUSettings((3, 4), feedback=True)])
def test_the_halo_holds_for_several_layers_and_targets(settings):
    torch.manual_seed(0)
    network = settings.build(2, 3, 2, 2).double()
    torch.nn.init.normal_(network.head.weight)
    halo, _ = network.halo_px(CONTEXT + HORIZON)
    side = 2 * (halo + 4) + 1
    known = {
        name: one[..., :1, :1].expand(*one.shape[:-2], side, 3).clone() if name.endswith("HW") else one
        for name, one in inputs().items()
    }
    frames = known["frames_BTCHW"].requires_grad_()
    network(**known)[0, -1, :, side // 2].sum().backward()
    rows = torch.nonzero(frames.grad.abs().sum(dim=(0, 1, 2, 4))).flatten() - side // 2
    assert halo // 2 < int(rows.abs().max()) <= halo
