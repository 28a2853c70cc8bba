import numpy as np
import pytest
import torch
from scipy import ndimage

from models.baselines.optical_flow import OpticalFlow
from models.baselines.pointwise import Persistence


def moving(count: int, step_yx: tuple[int, int] = (1, 2)) -> torch.Tensor:
    """(count, 1, 64, 64) of a smooth pattern that moves by so many pixels a day."""
    pattern = 200 * ndimage.gaussian_filter(np.random.default_rng(0).random((64, 64)), 3, mode="wrap")
    frames = [np.roll(pattern, (n * step_yx[0], n * step_yx[1]), (0, 1)) for n in range(count)]
    return torch.tensor(np.stack(frames)[:, None], dtype=torch.float32)


def arguments(x_NCHW: torch.Tensor, target_days: list[float]) -> dict[str, torch.Tensor]:
    count = len(x_NCHW)
    return {
        "x_NCHW": x_NCHW, "valid_NHW": torch.ones(count, 64, 64, dtype=torch.bool), "days_N": torch.arange(count).double(),
        "context_T": torch.arange(count), "usable_N": torch.ones(count, dtype=torch.bool),
        "target_days_K": torch.tensor(target_days, dtype=torch.float64),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["ilk", "tvl1"])
def test_a_pattern_that_moves_evenly_is_where_it_will_be(method: str):
    frames = moving(5)
    inside = (slice(None), slice(None), slice(14, -14), slice(14, -14))
    expected, known = torch.stack([frames[3], frames[4]])[inside], arguments(frames[:3], [3.0, 4.0])
    error, of_persistence = ((m.forecast(**known)[inside] - expected).abs().mean() for m in (OpticalFlow(method), Persistence()))
    assert error < 0.1 * of_persistence


def test_without_motion_or_a_second_frame_it_is_persistence():
    still = moving(3, (0, 0))
    known = arguments(still, [3.0])
    assert torch.allclose(OpticalFlow().forecast(**known), Persistence().forecast(**known), atol=1e-3)
    first = arguments(moving(3)[:1], [3.0])
    assert torch.equal(OpticalFlow().forecast(**first), Persistence().forecast(**first))


def test_pixels_that_come_from_a_mask_keep_the_last_valid_value():
    known = arguments(moving(3), [3.0])
    known["valid_NHW"][:, :, :20] = False
    known["x_NCHW"] = torch.where(known["valid_NHW"][:, None], known["x_NCHW"], 0.0)
    forecast, persistence = OpticalFlow().forecast(**known), Persistence().forecast(**known)
    assert torch.isfinite(forecast).all()
    assert torch.equal(forecast[..., :20], persistence[..., :20])
