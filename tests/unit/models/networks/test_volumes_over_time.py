"""Networks of class maps on series of volumes: a window with its halo is the whole, slices are not halved, the cost is stated."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.change_detector import KINDS as CHANGE_KINDS
from models.segmenter import KINDS, build_segmenter, rebuild_network
from pipelines.tiles import Box

VOLUMES = [kind for kind in KINDS if kind not in CHANGE_KINDS]
SHAPE, DATES = (5, 40, 44), 3


def network_of(kind: str, **settings: object) -> torch.nn.Module:
    size = {"hidden": 8} if kind in ("gru", "lstm", "rnn", "l_tae") else {"widths": (4, 4)}
    heads = {"heads": 2} if kind in ("l_tae", "u_tae") else {}
    description = {"kind": kind, "bands": 2, "classes": 3, "dropout": 0.0, "axes": 3, **size, **heads, **settings}
    torch.manual_seed(0)
    network = rebuild_network(description).eval()
    torch.nn.init.normal_(network.get_parameter("decoder.head.weight" if "widths" in size else "head.weight"))
    return network.double()


def series(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_BTCDHW = torch.randn(1, DATES, 2, *shape, generator=generator, dtype=torch.float64)
    valid_BTDHW = torch.rand(1, DATES, *shape, generator=generator) > 0.2
    return x_BTCDHW, valid_BTDHW, torch.linspace(0, 1, DATES, dtype=torch.float64)[None]


@pytest.mark.parametrize("kind", VOLUMES)
def test_a_tile_with_its_halo_is_the_whole_and_a_voxel_beyond_it_has_no_effect(kind):
    network = network_of(kind, **({"kernel": 1} if kind.startswith("unet_") else {}))
    x, valid, years = series(SHAPE)
    tile = Box((2, 16, 20), (3, 20, 24))
    halo, stride = network.halo_px(DATES), network.stride_px
    assert (len(halo), stride[0]) == (3, 1)
    window = tile.grown(halo, SHAPE)
    window = Box(tuple(start - start % px for start, px in zip(window.start, stride, strict=True)), window.stop)
    with torch.no_grad():
        whole = network(x, valid, years)
        part = network(x[:, :, :, *window.slices], valid[:, :, *window.slices], years)
    assert whole.shape == (1, 3, *SHAPE)
    torch.testing.assert_close(part[:, :, *tile.within(window)], whole[:, :, *tile.slices], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["unet_convgru", "unet_convlstm", "unet_dcrn", "u_tae"])
def test_slices_are_neither_halved_nor_out_of_sight(kind):
    """Of a thin stack every slice sees the one beside it, and one slice alone can be read."""
    network = network_of(kind)
    x, valid, years = series((6, 8, 8))
    x.requires_grad_()
    network(x, valid | True, years)[0, 0, 2, 4, 4].backward()
    seen_D = x.grad.abs().sum((0, 1, 2, 4, 5)) > 0
    assert seen_D[1:4].all()
    assert network(*series((1, 8, 8))).shape == (1, 3, 1, 8, 8)


@pytest.mark.parametrize("kind", VOLUMES)
def test_the_cost_is_stated_and_the_description_rebuilds_the_network(kind):
    network = network_of(kind)
    x, valid, years = series((4, 9, 12))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, valid, years)
    assert network.flops(x.shape) == pytest.approx(counter.get_total_flops(), rel=0.3 if "convlstm" in kind else 0.05)
    again = rebuild_network(json.loads(json.dumps(network.describe())))
    assert (again.config, list(again.state_dict())) == (network.config, list(network.state_dict()))


def test_images_in_years_are_described_as_before_and_seconds_are_counted_in_the_series_own_length():
    segmenter = build_segmenter({"kind": "gru", "bands": 1, "hidden": 4}, ("a", "b"), 1, 0)
    assert not {"axes", "year_days"} & set(segmenter.describe()["members"][0])
    short = build_segmenter({"kind": "gru", "bands": 1, "hidden": 4, "axes": 3, "year_days": 36.525}, ("a", "b"), 1, 0)
    short.load_state_dict(segmenter.state_dict())
    x, valid, years = series((1, 2, 2))
    x, years = x[:, :, :1].float(), years.float()
    ours = short.eval().member_logits(0, x, valid, years / 10)
    torch.testing.assert_close(ours, segmenter.eval().members[0](x, valid, years).detach())
