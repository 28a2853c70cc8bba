"""The network in the frame of a moving field."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.baselines.moving_field import MovingField
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.samples.sampling import augmented, turned_vectors

STEP_YX = (1.0, 2.0)


@pytest.fixture
def known() -> dict[str, torch.Tensor]:
    """A pattern of 4 frames and 2 targets that moves by 1 row and 2 columns a step."""
    pattern = 20 * ndimage.gaussian_filter(np.random.default_rng(0).random((120, 120)), 2)
    frames = np.stack([ndimage.shift(pattern, np.multiply(STEP_YX, n), order=1)[40:72, 40:72] for n in range(6)])
    return {
        "x_NCHW": torch.tensor(frames[:, None], dtype=torch.float32), "valid_NHW": torch.ones(6, 32, 32, dtype=torch.bool),
        "days_N": torch.arange(6).double(), "context_T": torch.arange(4), "usable_N": torch.arange(6) < 4,
        "target_days_K": torch.tensor([4.0, 5.0]).double(),
    }  # fmt: skip


def build(**network):
    torch.manual_seed(0)
    made = build_forecaster(
        MovingField(blur_px_K=(0.5, 1.0)), Scaling((10.0,), (1.0,), ("none",), 1.0), context=4, horizon=2,
        network=ConvLSTMSettings((4,), **network),
    )  # fmt: skip
    return made


def test_untrained_it_is_the_moving_field_and_its_halo_is_unbounded(known):
    made = build()
    assert torch.equal(made.forecast(**known), MovingField(blur_px_K=(0.5, 1.0)).forecast(**known))
    assert made.halo_px(6) is None


def test_the_network_sees_frames_that_stand_still(known):
    """Carried on to the issue date, all frames of the context show the same: nothing has grown."""
    prepared = build().prepare(**known)
    inside = (slice(None), slice(None), slice(10, -10), slice(10, -10))
    moved = (known["x_NCHW"][:4] - known["x_NCHW"][3])[inside].abs().mean()
    assert prepared["x_TCHW"][inside].abs().mean() < 0.1 * moved
    assert torch.allclose(prepared["motion_2HW"].mean(dim=(1, 2)), torch.tensor(STEP_YX), atol=0.1)


def test_a_correction_is_carried_to_its_lead(known):
    """What is added at one place of the issue date arrives where that place has moved to."""
    made = build()
    batch = {name: values[None] for name, values in made.prepare(**known).items()}
    added_BKCHW = torch.zeros_like(batch["baseline_KCHW"])
    added_BKCHW[..., 14, 12] = 1.0
    for k, one_HW in enumerate(made._in_place(added_BKCHW, batch)[0, :, 0], start=1):
        peak = divmod(int(one_HW.argmax()), 32)
        assert np.abs(np.subtract(peak, (14 + k * STEP_YX[0], 12 + k * STEP_YX[1]))).max() <= 1


@pytest.mark.parametrize("symmetry", range(8))
def test_vectors_are_turned_with_their_image(known, symmetry):
    """The motion of turned frames is the turned motion."""
    made = build()
    expected_2HW = turned_vectors(augmented(made.prepare(**known)["motion_2HW"].numpy(), symmetry, True), symmetry, True)
    turned = {**known, "x_NCHW": torch.from_numpy(augmented(known["x_NCHW"].numpy(), symmetry, True).copy())}
    found_2HW = made.prepare(**turned)["motion_2HW"].numpy()
    assert np.abs(found_2HW - expected_2HW).mean() < 0.1


def test_dates_after_the_issue_are_not_used(known):
    made = build()
    for member in made.members:
        torch.nn.init.normal_(member.head.weight, std=0.3)
    before = made.forecast(**known)
    known["x_NCHW"][4:] = 1e6
    assert torch.equal(made.forecast(**known), before)
