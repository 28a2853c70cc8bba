"""A tile with its halo, cropped, equals the same pixels of the whole image.

The difference is 0.0 where the library sums in the same order whatever the shape; for tiny tiles and on some processors it
is the last digit of a float32. A wrong halo shows as 0.001 and more.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines.pointwise import Climatology, DecayingAnomaly, Persistence
from models.networks.conv_gru_forecaster import ConvGRUSettings
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster

BASELINES = [None, Persistence(), Climatology(), DecayingAnomaly()]
SIZE, DATES = 64, 30


def series(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    valid_NHW = torch.rand(DATES, SIZE, SIZE, generator=generator) > 0.3
    days_N = 17000 + torch.cumsum(torch.randint(3, 30, (DATES,), generator=generator), 0).double()
    return {
        "x_NCHW": torch.rand(DATES, 2, SIZE, SIZE, generator=generator) * valid_NHW[:, None],
        "valid_NHW": valid_NHW,
        "days_N": days_N,
        "context_T": torch.tensor([22, 23, -1, 25]),
        "usable_N": torch.arange(DATES) < 26,
        "target_days_K": days_N[26:28],
    }


@pytest.mark.parametrize("kind", ["convlstm", "convgru"])
@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: "none" if baseline is None else type(baseline).__name__)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 3),
    kernel=st.sampled_from([1, 3, 5]),
    hidden=st.sampled_from([(3,), (16,), (4, 8)]),
    row0=st.integers(0, SIZE - 1),
    col0=st.integers(0, SIZE - 1),
    height=st.integers(1, SIZE),
    width=st.integers(1, SIZE),
)
def test_a_cropped_tile_equals_the_whole_image(baseline, kind, seed, kernel, hidden, row0, col0, height, width):
    scaling = Scaling((0.5, 0.5), (0.3, 0.3), ("none", "log1p"), 16.0)
    gru = ConvGRUSettings(hidden=hidden, kernel=kernel)
    network = gru if kind == "convgru" else ConvLSTMSettings(hidden=hidden, kernel=kernel, peepholes=seed % 2 == 0)
    made = build_forecaster(baseline, scaling, context=4, horizon=2, network=network, seed=seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(made.members[0].head.weight)
    arguments = series(seed)
    row1, col1 = min(row0 + height, SIZE), min(col0 + width, SIZE)
    down, across = made.halo_px(4 + 2)
    top, left = max(row0 - down, 0), max(col0 - across, 0)
    rows, columns = slice(top, row1 + down), slice(left, col1 + across)
    tile = arguments | {name: arguments[name][..., rows, columns] for name in ("x_NCHW", "valid_NHW")}
    whole = made.forecast(**arguments)[..., row0:row1, col0:col1]
    cropped = made.forecast(**tile)[..., row0 - top : row1 - top, col0 - left : col1 - left]
    torch.testing.assert_close(cropped, whole, rtol=1e-5, atol=1e-6)
