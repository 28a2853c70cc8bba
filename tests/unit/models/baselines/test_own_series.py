"""A straight line is continued exactly, in seconds as in years and in volumes; what has no trend gets its mean."""

import pytest
import torch

from models.baselines.own_series import ContextMean, ContextTrend

SECOND = 1 / 86_400


def line(step_days: float, shape: tuple[int, ...], dates: int = 8) -> dict[str, torch.Tensor]:
    """A level and a slope of each pixel over uneven dates, a fifth of the values missing; the last two dates are targets."""
    generator = torch.Generator().manual_seed(0)
    days_N = -62_000.0 + step_days * torch.tensor([0.0, 1, 2, 4, 5, 7, 8, 9], dtype=torch.float64)  # 1800, as undated series
    level, slope = torch.rand(2, *shape, generator=generator).double()
    x_NCHW = torch.stack([level + slope * (day - days_N[0]) / step_days for day in days_N]).float()[:, None]
    valid_NHW = torch.rand(dates, *shape, generator=generator) > 0.2
    return {
        "x_NCHW": x_NCHW * valid_NHW[:, None], "valid_NHW": valid_NHW, "days_N": days_N, "context_T": torch.arange(1, 6),
        "usable_N": torch.arange(dates) < 6, "target_days_K": days_N[6:], "truth_KCHW": x_NCHW[6:],
    }  # fmt: skip


@pytest.mark.parametrize("step_days", [1.5 * SECOND, 30.0])
@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7)])
def test_a_line_is_continued_and_a_pixel_seen_once_keeps_its_value(step_days, shape):
    known = line(step_days, shape)
    truth_KCHW = known.pop("truth_KCHW")
    seen_HW = known["valid_NHW"][1:6].sum(dim=0)
    y_KCHW = ContextTrend().forecast(**known)
    assert (seen_HW > 1).float().mean() > 0.9
    torch.testing.assert_close(y_KCHW[:, 0, seen_HW > 1], truth_KCHW[:, 0, seen_HW > 1], rtol=0, atol=2e-5)
    mean_KCHW = ContextMean().forecast(**known)
    torch.testing.assert_close(y_KCHW[:, 0, seen_HW < 2], mean_KCHW[:, 0, seen_HW < 2])
    x_THW = known["x_NCHW"][1:6, 0]
    torch.testing.assert_close(mean_KCHW[0, 0, seen_HW > 0], (x_THW.sum(dim=0) / seen_HW)[seen_HW > 0])
