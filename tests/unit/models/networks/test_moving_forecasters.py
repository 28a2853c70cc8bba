"""TrajGRU, PredRNN, SimVP and networks on patches as forecasters. Their tiles, operations, descriptions: with all networks."""

import copy

import pytest
import torch

from models.blocks.channel_norm import ChannelNorm
from models.blocks.forecast import TIME_FEATURES, StatefulForecaster
from models.cells.st_lstm import STLSTM
from models.checkpoint import FORECASTER
from models.contract import Network
from models.networks.conv_gru_forecaster import ConvGRUSettings
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.networks.patched import PatchedSettings, from_patches, to_patches
from models.networks.predrnn_forecaster import PredRNNSettings
from models.networks.simvp_forecaster import SimVPSettings
from models.networks.traj_gru_forecaster import TrajGRUSettings
from models.residual_forecaster import Scaling, build_forecaster

CONTEXT, HORIZON = 4, 3
SETTINGS = {
    "trajgru": TrajGRUSettings((3, 4), links=2),
    "predrnn": PredRNNSettings((4, 4)),
    "predrnn, layer norm": PredRNNSettings((4, 4), layer_norm=True, decoupling=0.0),
    "simvp": SimVPSettings(CONTEXT, HORIZON, 4, 6),
    "patched": PatchedSettings(PredRNNSettings((4,)), 2),
}
STATEFUL = [name for name, one in SETTINGS.items() if isinstance(one.build(1, 1, 1, 2), StatefulForecaster)]
IN_VOLUMES = [name for name in SETTINGS if name != "simvp"]


def made(name: str, axes: int = 2) -> Network:
    """In float64 and with a random head."""
    torch.manual_seed(0)
    network = SETTINGS[name].build(2, 3, 2, axes).double().eval()
    (head,) = (one for part, one in network.named_modules() if part.split(".")[-1] == "head")
    torch.nn.init.normal_(head.weight)
    return network


def inputs(batch: int = 2, space=(9, 10), horizon: int = HORIZON) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    valid = (random(batch, CONTEXT, *space) > -0.5).double()
    return {
        "frames_BTCHW": random(batch, CONTEXT, 3, *space) * valid[:, :, None],
        "valid_BTHW": valid,
        "time_BTF": random(batch, CONTEXT, TIME_FEATURES),
        "elapsed_BT": random(batch, CONTEXT).abs(),
        "futures_BKCHW": random(batch, horizon, 2, *space),
        "time_BKF": random(batch, horizon, TIME_FEATURES),
        "elapsed_BK": random(batch, horizon).abs(),
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_an_untrained_network_predicts_zero(name):
    y = SETTINGS[name].build(2, 3, 2, 2).double()(**inputs())
    assert torch.equal(y, torch.zeros(2, HORIZON, 2, 9, 10, dtype=torch.float64))


@pytest.mark.parametrize("name", STATEFUL)
def test_dates_in_several_calls_equal_one_call(name):
    network, known = made(name), inputs()
    context, targets = (list(known.values())[part] for part in (slice(4), slice(4, None)))
    state = network.encode(*context)
    whole, after = network.decode(state, *targets)
    torch.testing.assert_close(whole, network(**known), atol=0, rtol=0)
    part, parts = None, []
    for t in range(CONTEXT):
        part = network.encode(*(one[:, t : t + 1] for one in context), part)
    for k in range(HORIZON):
        y, part = network.decode(part, *(one[:, k : k + 1] for one in targets))
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-14, rtol=0)
    torch.testing.assert_close(part, after, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "simvp"])
def test_a_frame_without_valid_pixels_has_no_effect(name):
    network, known = made(name), inputs()
    known["valid_BTHW"][:, 1] = 0
    other = known["time_BTF"].clone()
    other[:, 1] = 99
    assert torch.equal(network(**known), network(**{**known, "time_BTF": other}))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("changed", ["frames_BTCHW", "valid_BTHW", "time_BTF", "futures_BKCHW", "time_BKF"])
def test_every_input_has_an_effect_in_its_own_sample_only(name, changed):
    network, known = made(name), inputs(batch=3)
    other = {**known, changed: known[changed].clone()}
    other[changed][1] = 1 - other[changed][1]
    with torch.no_grad():
        before, after = network(**known), network(**other)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_parameter_gets_a_gradient(name):
    network, known = made(name).train(), inputs()
    loss, auxiliary = network(**known).square().sum(), network.auxiliary_loss()
    (loss if auxiliary is None else loss + auxiliary).backward()
    without = [one for one, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_decoupling_loss_is_of_training_only_and_taken_once():
    network, known = made("patched"), inputs()
    network(**known)
    assert network.auxiliary_loss() is None
    network.train()(**known)
    assert 0 < float(network.auxiliary_loss().detach()) <= 0.1
    assert network.auxiliary_loss() is None
    assert made("predrnn, layer norm").train()(**known) is not None
    copy.deepcopy(network)  # of_leads copies: nothing of a graph may be left in it


@pytest.mark.parametrize("name", IN_VOLUMES)
def test_volumes(name):
    network, known = made(name, axes=3), inputs(space=(3, 5, 4))
    y = network(**known)
    assert y.shape == (2, HORIZON, 2, 3, 5, 4)
    assert network.halo_px(5) == (network.halo_px(5)[0],) * 3
    assert float(y.detach().std()) > 0


def test_a_long_flow_stays_within_the_halo():
    torch.manual_seed(0)
    network = TrajGRUSettings((3,), links=2, max_flow=6.5).build(2, 3, 2, 2).double()
    torch.nn.init.normal_(network.head.weight)
    for stack in (network.encoder, network.forecaster):
        stack.cells[0].flow.weight.data *= 30
    halo, _ = network.halo_px(4)
    centre = halo + 3
    known = inputs(batch=1, space=(2 * centre + 1, 9), horizon=1)
    known = {name: one[:, -3:] if "BT" in name else one for name, one in known.items()}
    frames = known["frames_BTCHW"].requires_grad_()
    network(**known)[0, -1, :, centre].sum().backward()
    rows = torch.nonzero(frames.grad.abs().sum(dim=(0, 1, 2, 4))).flatten() - centre
    assert 1 + 3 * 4 < int(rows.abs().max()) <= halo  # farther than with the convolutions of the flow alone


def test_patches_are_for_networks_with_a_state():
    with pytest.raises(TypeError, match="patches are for networks with a state, not for SimVPForecaster"):
        PatchedSettings(SETTINGS["simvp"], 2).build(1, 1, 1, 2)


def test_simvp_refuses_volumes_and_other_numbers_of_dates():
    with pytest.raises(ValueError, match="SimVP is for images, these have 3 axes of space: take convlstm"):
        SETTINGS["simvp"].build(1, 1, 1, 3)
    network = made("simvp")
    with pytest.raises(ValueError, match="reads 4 frames and forecasts at most 3, got 4 and 4: train one"):
        network(**inputs(horizon=4))
    fewer = {name: one[:, :2] if "BK" in name else one for name, one in inputs().items()}
    torch.testing.assert_close(network(**fewer), network(**inputs())[:, :2], atol=1e-14, rtol=0)


@pytest.mark.parametrize("space", [(6, 8), (5, 7), (3, 4, 5)])
def test_patches_are_put_together_again(space):
    x = torch.arange(2.0 * 3 * torch.Size(space).numel()).reshape(1, 2, 3, *space)
    patches = to_patches(x, 4)
    assert patches.shape == (1, 2, 3 * 4 ** len(space), *(-(-side // 4) for side in space))
    assert torch.equal(from_patches(patches, 4, space), x)


def test_patches_of_one_pixel_are_the_network_itself():
    torch.manual_seed(0)
    plain = ConvGRUSettings((3,)).build(2, 4, 2, 2).double()
    torch.nn.init.normal_(plain.head.weight)
    patched = PatchedSettings(ConvGRUSettings((3,)), 1).build(2, 3, 2, 2).double()
    patched.network.load_state_dict(plain.state_dict())
    known = inputs()
    frames = torch.cat([known["frames_BTCHW"], known["valid_BTHW"][:, :, None]], dim=2)
    assert torch.equal(patched(**known), plain(**{**known, "frames_BTCHW": frames}))


def test_a_norm_of_channels_is_pytorch_s_at_every_pixel():
    norm, x = ChannelNorm(6, groups=2), torch.randn(2, 6, 3, 4)
    torch.nn.init.normal_(norm.weight)
    reference = torch.nn.GroupNorm(2, 6)
    reference.load_state_dict(norm.state_dict())
    pixels = x.movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(norm(x).movedim(1, -1).reshape(-1, 6), reference(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_untrained_forecaster_is_its_baseline_and_is_saved_and_loaded(name, make_window, tmp_path):
    scaling = Scaling((0.4, 0.6), (0.3, 0.2), ("log1p", "none"), 16.0)
    settings = SimVPSettings(6, HORIZON, 4, 6) if name == "simvp" else SETTINGS[name]
    forecaster = build_forecaster(None, scaling, context=6, horizon=HORIZON, network=settings)
    window = make_window().arguments()
    empty = build_forecaster(None, scaling, context=6, horizon=HORIZON, members=0)
    assert torch.equal(forecaster.forecast(**window), empty.forecast(**window))
    for part, module in forecaster.named_modules():
        if part.split(".")[-1] == "head":
            torch.nn.init.normal_(module.weight, std=0.1)
    FORECASTER.save(forecaster, tmp_path, {})
    loaded, _ = FORECASTER.load(tmp_path)
    assert torch.equal(loaded.forecast(**window), forecaster.forecast(**window))
    assert not torch.equal(loaded.forecast(**window), empty.forecast(**window))


# ---------------------------------------------------------------- published sizes


def parameters(module: torch.nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def test_published_parameters_of_predrnn():
    """OpenSTL's table for Moving MNIST (arXiv:2306.11249; 4 layers of 128, 5 x 5, patches of 4 x 4): 23.8M, with decoupling
    23.9M. They are counted without biases and with 16 inputs and outputs.
    """
    stack, head = STLSTM(16, (128,) * 4, 5), torch.nn.Conv2d(128, 16, 1, bias=False)
    biases = 4 * 7 * 128
    assert parameters(stack) + parameters(head) - biases == 23_838_720
    assert 23_838_720 + 128 * 128 == 23_855_104  # the adapter

    network = PatchedSettings(PredRNNSettings((128,) * 4, 5), 4).build(1, 1, 1, 2)
    inputs_more = 16 + 1 + 16 + TIME_FEATURES  # validity of pixels, of patches, what is known of a target, dates
    assert parameters(network) == 23_855_104 + biases + 16 + inputs_more * 7 * 128 * 25


def test_published_parameters_of_simvp():
    """46.8M in the same table: 64 and 512 channels, 8 blocks, 2 halvings, kernel 21, 10 frames of 1 channel."""

    def convolution(inputs: int, outputs: int, kernel: int, norm: bool = True) -> int:
        return outputs * (inputs * kernel**2 + 1 + (2 if norm else 0))

    def block(d: int) -> int:
        attention = 2 * d * (d + 1) + d * (25 + 1) + d * (49 + 1) + 2 * d * (d + 1)
        perceptron = 8 * d * (d + 1) + 8 * d * (9 + 1) + d * (8 * d + 1)
        return attention + perceptron + 2 * 2 * d + 2 * d  # two norms, two scales

    encoder = convolution(1, 64, 3) + 3 * convolution(64, 64, 3)
    decoder = (
        2 * (convolution(64, 4 * 64, 3, norm=False) + 2 * 64) + 2 * convolution(64, 64, 3) + convolution(64, 1, 1, norm=False)
    )
    ends = convolution(640, 512, 1, norm=False) + convolution(512, 640, 1, norm=False)
    published = encoder + decoder + block(640) + 7 * block(512) + ends
    assert round(published / 1e6, 1) == 46.8

    network = SimVPSettings(10, 10, 64, 512, 2, 8, 21, 8).build(1, 1, 1, 2)
    ours = parameters(network.from_future) + (1 + TIME_FEATURES) * 64 * 9  # targets; validity and dates of frames
    assert parameters(network) - ours == published


def test_published_parameters_of_the_convlstm():
    """15.0M in the same table are 11.7M of the equations and 3.3M of convolutions for an output gate that no step uses."""
    network = PatchedSettings(ConvLSTMSettings((128,) * 4, 5), 4).build(1, 1, 1, 2)
    gates = sum(cell.gates.weight.numel() for cell in network.network.encoder.cells)
    inputs_more = (16 + 1) * 512 * 25
    unused, head = 4 * 256 * 128 * 25, 128 * 16
    assert gates - inputs_more == 11_673_600
    assert round((gates - inputs_more + unused + head) / 1e6, 1) == 15.0
