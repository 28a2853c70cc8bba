import pytest
import torch

from models.networks.conv_gru_forecaster import ConvGRUForecaster, ConvGRUForecasterConfig, ConvGRUSettings
from tests.networks_under_test import CASES

FORECAST = CASES["convgru"]


def test_an_untrained_network_predicts_zero():
    made = ConvGRUSettings(hidden=(4,)).build(outputs=2, frame_channels=2, future_channels=2)
    y = made(**FORECAST.inputs(0, 4, (13, 11), torch.float32))
    assert y.shape == (1, 1, 2, 13, 11)
    assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize(
    ("hidden", "kernel", "steps"), [((3,), 3, 2), ((3,), 3, 5), ((3, 2), 3, 4), ((2,), 5, 3), ((2, 2), 1, 4)]
)
def test_the_halo_is_the_exact_receptive_field(hidden, kernel, steps):
    torch.manual_seed(0)
    made = ConvGRUForecaster(ConvGRUForecasterConfig(2, 2, 2, hidden, kernel)).double()
    torch.nn.init.normal_(made.head.weight)
    halo, _ = made.halo_px(steps)
    size = 2 * halo + 9
    centre = size // 2
    known = FORECAST.inputs(0, steps, (size, size))
    known["valid_BTHW"] = torch.ones_like(known["valid_BTHW"])
    frames = known["frames_BTCHW"].requires_grad_()
    made(**known)[0, -1, :, centre, centre].sum().backward()
    rows = torch.nonzero(frames.grad.abs().sum(dim=(0, 1, 2, 4))).flatten()
    assert (int(rows.min()), int(rows.max())) == (centre - halo, centre + halo)


def test_a_frame_without_valid_pixels_has_no_effect():
    made, known = FORECAST.ready(), FORECAST.inputs(0, 4, (9, 9))
    known["valid_BTHW"][:, 1] = 0
    other = known["frames_BTCHW"].clone()
    other[:, 1] = 99
    assert torch.equal(made(**known), made(**{**known, "frames_BTCHW": other}))


def test_the_output_depends_on_the_season():
    made, known = FORECAST.ready(), FORECAST.inputs(0, 4, (9, 9))
    assert not torch.equal(made(**known), made(**{**known, "time_BKF": -known["time_BKF"]}))


def test_frames_are_hidden_in_training_only():
    torch.manual_seed(0)
    made = ConvGRUForecaster(ConvGRUForecasterConfig(2, 2, 2, (3,), frame_dropout=0.5)).double()
    torch.nn.init.normal_(made.head.weight)
    known = FORECAST.inputs(0, 7, (6, 6))
    assert torch.equal(made.eval()(**known), made(**known))
    assert not torch.equal(made.train()(**known), made(**known))
