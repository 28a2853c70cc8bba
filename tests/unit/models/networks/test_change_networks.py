"""Properties of all five change networks: sizes, dates, clouds, symmetry, learning."""

import pytest
import torch
from torch import Tensor, nn

from models.blocks.change import NetworkConfig, receptive_radius
from models.networks.fully_convolutional import FCEF, FCSiamConc, FCSiamDiff
from models.networks.l_unet import LUNet, LUNetConfig
from models.networks.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig

SMALL = {"bands": 3, "widths": (4, 6, 8), "dropout": 0.0}
PAIRS = {
    "fc_ef": lambda **more: FCEF(NetworkConfig(**SMALL | more)),
    "fc_siam_diff": lambda **more: FCSiamDiff(NetworkConfig(**SMALL | more)),
    "fc_siam_conc": lambda **more: FCSiamConc(NetworkConfig(**SMALL | more)),
}
SERIES = {
    "l_unet": lambda **more: LUNet(LUNetConfig(**SMALL | more)),
    "convlstm": lambda **more: SiameseDCRN(SiameseDCRNConfig(**SMALL | more)),
    "convgru": lambda **more: SiameseDCRN(SiameseDCRNConfig(**SMALL | {"recurrence": "convgru", "kernel": 3} | more)),
    "dcrn": lambda **more: SiameseDCRN(SiameseDCRNConfig(**SMALL | {"recurrence": "dcrn", "kernel": 3} | more)),
}
ALL = PAIRS | SERIES


def build(kind: str, seed: int = 0, **more) -> nn.Module:
    """A network with a random head."""
    torch.manual_seed(seed)
    network = ALL[kind](**more)
    nn.init.normal_(network.decoder.head.weight)
    return network.eval()


def scene(batch: int = 2, dates: int = 2, height: int = 20, width: int = 24, bands: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    """(x_BTCHW, valid_BTHW, elapsed_BT), a fifth of it invalid."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, dates, bands, height, width, generator=generator)
    valid = torch.rand(batch, dates, height, width, generator=generator) > 0.2
    return x * valid[:, :, None], valid, torch.full((batch, dates), 16.0)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (16, 16), (21, 34)])
def test_any_size_gives_a_logit_per_pixel(kind, height, width):
    logit = build(kind)(*scene(height=height, width=width))
    assert logit.shape == (2, 1, height, width)
    assert logit.dtype == torch.float32
    assert torch.isfinite(logit).all()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("widths", [(5,), (4, 6), (3, 4, 5, 6)])
def test_any_number_of_scales(kind, widths):
    network = build(kind, widths=widths)
    assert network(*scene()).shape == (2, 1, 20, 24)
    assert network.stride_px == (2 ** (len(widths) - 1),) * 2


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("dates", [1, 3])
def test_a_pair_network_takes_two_dates(kind, dates):
    with pytest.raises(ValueError, match=f"{kind} compares exactly 2 dates, got {dates}: choose two, or siamese_dcrn"):
        build(kind)(*scene(dates=dates))


@pytest.mark.parametrize("kind", SERIES)
def test_a_recurrent_network_takes_any_series(kind):
    network = build(kind)
    assert network(*scene(dates=4)).shape == (2, 1, 20, 24)
    with pytest.raises(ValueError, match="needs at least 2 dates to compare, got 1"):
        network(*scene(dates=1))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_values_under_clouds_are_ignored(kind, garbage):
    network = build(kind)
    x, valid, elapsed = scene()
    dirty = torch.where(valid[:, :, None], x, garbage)
    assert torch.equal(network(dirty, valid, elapsed), network(x, valid, elapsed))
    assert not torch.allclose(network(x, torch.ones_like(valid), elapsed), network(x, valid, elapsed)), "0 is also a value"


@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_finite_without_valid_pixels(kind):
    network = build(kind)
    x, valid, elapsed = scene()
    network(torch.full_like(x, float("nan")), torch.zeros_like(valid), elapsed).sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_date_without_valid_pixels_has_no_effect(kind, at):
    network = build(kind)
    x, valid, elapsed = scene()
    x3 = torch.cat([x[:, :at], torch.full_like(x[:, :1], 7.0), x[:, at:]], dim=1)
    valid3 = torch.cat([valid[:, :at], torch.zeros_like(valid[:, :1]), valid[:, at:]], dim=1)
    with_it = network(x3, valid3, torch.full((2, 3), 8.0))
    torch.testing.assert_close(with_it, network(x, valid, elapsed), atol=1e-6, rtol=1e-5)


def test_dates_may_be_reversed_where_the_network_is_symmetric():
    network = build("fc_siam_diff")
    x, valid, elapsed = scene()
    reversed_logit = network(x.flip(1), valid.flip(1), elapsed)
    torch.testing.assert_close(reversed_logit, network(x, valid, elapsed), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fc_ef", "fc_siam_conc", "l_unet", "convlstm", "convgru", "dcrn"])
def test_the_order_of_the_dates_matters_elsewhere(kind):
    network = build(kind)
    x, valid, elapsed = scene()
    assert not torch.allclose(network(x.flip(1), valid.flip(1), elapsed), network(x, valid, elapsed), atol=1e-3)


@pytest.mark.parametrize("kind", ["fc_siam_diff"])
def test_two_equal_dates_give_one_value_everywhere(kind):
    x, valid, elapsed = scene(height=32, width=32)
    logit = build(kind)(x[:, :1].repeat(1, 2, 1, 1, 1), valid[:, :1].repeat(1, 2, 1, 1), elapsed)
    inner = logit[..., 8:-8, 8:-8]
    torch.testing.assert_close(inner, inner[:1, :, :1, :1].expand_as(inner))


@pytest.mark.parametrize("kind", ALL)
def test_samples_of_a_batch_do_not_mix(kind):
    network = build(kind)
    x, valid, elapsed = scene(batch=3)
    alone = network(x[1:2], valid[1:2], elapsed[1:2])
    torch.testing.assert_close(network(x, valid, elapsed)[1:2], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_every_parameter_gets_a_gradient(kind):
    network = build(kind).train()
    network(*scene()).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("kind", ALL)
def test_an_untrained_network_predicts_little_change(kind):
    torch.manual_seed(0)
    p = torch.sigmoid(ALL[kind]()(*scene())).detach()
    assert 0.01 < float(p.min()) <= float(p.max()) < 0.2


@pytest.mark.parametrize("kind", ALL)
def test_dropout_only_in_training(kind):
    network = build(kind, dropout=0.5)
    assert torch.equal(network(*scene()), network(*scene()))
    network.train()
    assert not torch.equal(network(*scene()), network(*scene()))


def test_the_receptive_radius_by_hand():
    assert receptive_radius(1) == 2  # two 3 x 3 convolutions, a 1 x 1 head
    assert receptive_radius(1, lateral=3) == 5
    # 2 scales, pixel 1: decoder -1..3; cell -1..1; two convolutions -3..3; pixels -6..7; two convolutions -8..9: 9, up to even 10
    assert receptive_radius(2) == 10


def square_appears(count: int, seed: int, dates: int = 2) -> tuple[Tensor, ...]:
    """Constant noise, and a square that is there on the last date only: (x, valid, elapsed, target_B1HW)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 2, 24, 24, generator=generator).repeat(1, dates, 1, 1, 1)
    x += 0.1 * torch.randn(x.shape, generator=generator)
    target = torch.zeros(count, 1, 24, 24)
    for b in range(count):
        row, column = torch.randint(2, 14, (2,), generator=generator).tolist()
        x[b, -1, :, row : row + 8, column : column + 8] += 3.0
        target[b, 0, row : row + 8, column : column + 8] = 1
    return x, torch.ones(count, dates, 24, 24, dtype=torch.bool), torch.zeros(count, dates), target


@pytest.mark.parametrize("kind", ALL)
def test_a_square_that_appears_is_learnt(kind):
    torch.manual_seed(0)
    network = ALL[kind](bands=2, widths=(8, 12)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(60):
        *inputs, target = square_appears(4, seed=step)
        loss = nn.functional.binary_cross_entropy_with_logits(network(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    *inputs, target = square_appears(8, seed=1000)
    with torch.no_grad():
        found = network.eval()(*inputs) > 0
    truth = target > 0
    f1 = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert f1 > 0.8, f"F1 {float(f1):.2f} on new squares"
