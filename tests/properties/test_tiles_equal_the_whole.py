"""A window with the halo, cropped, is the same pixels of the whole image, for every change network.

In float64, where one pixel too few shows; the float32 that is shipped differs in the last digits only, because PyTorch takes
another convolution for small images on a CPU (docs/design/001-spine.md).
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.change_blocks import NetworkConfig
from models.fc_ef import FCEF
from models.fc_siam_conc import FCSiamConc
from models.fc_siam_diff import FCSiamDiff
from models.l_unet import LUNet, LUNetConfig
from models.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig

KINDS = {
    "fc_ef": lambda **more: FCEF(NetworkConfig(2, **more)),
    "fc_siam_diff": lambda **more: FCSiamDiff(NetworkConfig(2, **more)),
    "fc_siam_conc": lambda **more: FCSiamConc(NetworkConfig(2, **more)),
    "l_unet": lambda **more: LUNet(LUNetConfig(2, **more)),
    "convlstm": lambda **more: SiameseDCRN(SiameseDCRNConfig(2, kernel=3, **more)),
    "convgru": lambda **more: SiameseDCRN(SiameseDCRNConfig(2, recurrence="convgru", kernel=3, **more)),
    "dcrn": lambda **more: SiameseDCRN(SiameseDCRNConfig(2, recurrence="dcrn", kernel=5, **more)),
    "pointwise": lambda **more: SiameseDCRN(SiameseDCRNConfig(2, **more)),
}


def network_and_scene(kind: str, seed: int, widths: tuple[int, ...], dates: int, shape_yx: tuple[int, int]):
    """A network whose head says something, in float64, and a seeded scene with gaps."""
    torch.manual_seed(seed)
    network = KINDS[kind](widths=widths, dropout=0.0).eval()
    nn.init.normal_(network.decoder.head.weight)
    x = torch.randn(1, dates, 2, *shape_yx, dtype=torch.float64)
    valid = torch.rand(1, dates, *shape_yx) > 0.2
    return network.double(), x * valid[:, :, None], valid


def worst_difference(network, x, valid, rows: slice, columns: slice, halo: int) -> float:
    """Largest difference of a window's logits from the whole's, relative to the spread of the logits."""
    elapsed = torch.zeros(x.shape[:2], dtype=x.dtype)
    with torch.no_grad():
        whole = network(x, valid, elapsed)
        top, left = max(rows.start - halo, 0), max(columns.start - halo, 0)
        window = (..., slice(top, rows.stop + halo), slice(left, columns.stop + halo))
        part = network(x[window], valid[window], elapsed)
    inside = part[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return float((whole[..., rows, columns] - inside).abs().max() / whole.std())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 3),
    widths=st.sampled_from([(3,), (3, 4), (3, 4, 4)]),
    dates=st.sampled_from([2, 3]),
    shape_yx=st.tuples(st.integers(60, 90), st.integers(60, 90)),
    start_yx=st.tuples(st.integers(0, 59), st.integers(0, 59)),
    size_yx=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_a_cropped_window_is_the_whole_image(kind, seed, widths, dates, shape_yx, start_yx, size_yx):
    dates = 2 if kind.startswith("fc_") else dates
    network, x, valid = network_and_scene(kind, seed, widths, dates, shape_yx)
    row, column = (start // network.stride_px * network.stride_px for start in start_yx)
    rows, columns = slice(row, min(row + size_yx[0], shape_yx[0])), slice(column, min(column + size_yx[1], shape_yx[1]))
    assert worst_difference(network, x, valid, rows, columns, network.halo_for(dates)) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_only_the_last_digits_differ(kind):
    network, x, valid = network_and_scene(kind, 0, (16, 32, 64), 2, (97, 110))
    halo = network.halo_px
    assert worst_difference(network.float(), x.float(), valid, slice(48, 61), slice(40, 70), halo) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_halo_is_needed(kind):
    """Half of it is not enough: the test above can fail."""
    network, x, valid = network_and_scene(kind, 0, (3, 4, 4), 2, (96, 96))
    halo = network.halo_px // 2 // network.stride_px * network.stride_px
    assert network.halo_px == network.halo_for(2)
    assert worst_difference(network, x, valid, slice(48, 52), slice(48, 52), halo) > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_must_be_aligned(kind):
    network, x, valid = network_and_scene(kind, 0, (3, 4, 4), 2, (96, 96))
    assert worst_difference(network, x, valid, slice(46, 50), slice(48, 52), network.halo_px) > 1e-6
