from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.baselines.motion import estimate_motion, path_back
from models.baselines.moving_field import BLURS_PX, MovingField
from models.baselines.pointwise import Persistence

SIDE = 64


def moving(count: int, step_yx: tuple[float, float] = (1, 2), noise: float = 0.0) -> torch.Tensor:
    """(count, 1, 64, 64) of a smooth pattern that moves by so many pixels a day, cut from a larger one."""
    rng = np.random.default_rng(0)
    pattern = 200 * ndimage.gaussian_filter(rng.random((200, 200)), 3)
    frames = [ndimage.shift(pattern, np.multiply(n, step_yx), order=1)[68 : 68 + SIDE, 68 : 68 + SIDE] for n in range(count)]
    return torch.tensor(np.stack(frames)[:, None] + noise * rng.standard_normal((count, 1, SIDE, SIDE)), dtype=torch.float32)


def arguments(x_NCHW: torch.Tensor, target_days: list[float]) -> dict[str, torch.Tensor]:
    count = len(x_NCHW)
    return {
        "x_NCHW": x_NCHW, "valid_NHW": torch.ones(count, SIDE, SIDE, dtype=torch.bool), "days_N": torch.arange(count).double(),
        "context_T": torch.arange(count), "usable_N": torch.ones(count, dtype=torch.bool),
        "target_days_K": torch.tensor(target_days, dtype=torch.float64),
    }  # fmt: skip


@pytest.mark.parametrize("step_yx", [(1.3, -2.2), (0.0, 0.0), (5.5, 3.0)])
@pytest.mark.parametrize("is_uniform", [False, True])
def test_the_motion_of_a_simulated_field_is_found(step_yx: tuple[float, float], is_uniform: bool):
    x_TCHW = moving(5, step_yx, noise=0.2)
    valid_THW = torch.ones(5, SIDE, SIDE, dtype=torch.bool)
    valid_THW[:, :, :10] = False  # an edge of data that stands still is no part of the field
    motion_2HW = estimate_motion(x_TCHW * valid_THW[:, None], valid_THW, torch.arange(5.0), is_uniform=is_uniform)
    error_2HW = (motion_2HW - torch.tensor(step_yx)[:, None, None]).abs()
    assert float(error_2HW.mean()) < 0.05


def test_a_path_turns_with_the_field():
    rows_HW, columns_HW = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    turning_2HW = 0.02 * torch.stack([-columns_HW, rows_HW])
    at_2 = path_back(turning_2HW[None], torch.tensor([50 * np.pi]))[0, 0, :, 20, 25] - 20  # half a turn of a point 5 px away
    assert torch.allclose(at_2, torch.tensor([0.0, -5.0]), atol=0.3)


@pytest.mark.parametrize("baseline", [MovingField(), MovingField(is_uniform=True)])
def test_a_pattern_that_moves_evenly_is_where_it_will_be(baseline: MovingField):
    frames = moving(5)
    inside = (slice(None), slice(None), slice(14, -14), slice(14, -14))
    expected, known = torch.stack([frames[3], frames[4]])[inside], arguments(frames[:3], [3.0, 4.0])
    error, of_persistence = ((m.forecast(**known)[inside] - expected).abs().mean() for m in (baseline, Persistence()))
    assert error < 0.1 * of_persistence


def test_without_motion_or_a_second_frame_it_is_persistence():
    known = arguments(moving(3, (0, 0)), [3.0])
    assert torch.allclose(MovingField().forecast(**known), Persistence().forecast(**known), atol=1e-3)
    first = arguments(moving(3)[:1], [3.0])
    assert torch.allclose(MovingField().forecast(**first), Persistence().forecast(**first))


def test_pixels_that_come_from_a_mask_keep_the_last_valid_value():
    known = arguments(moving(3), [3.0])
    known["valid_NHW"][:, :, :20] = False
    known["x_NCHW"] = torch.where(known["valid_NHW"][:, None], known["x_NCHW"], 0.0)
    forecast, persistence = MovingField().forecast(**known), Persistence().forecast(**known)
    assert torch.isfinite(forecast).all()
    assert torch.equal(forecast[..., :20], persistence[..., :20])


def test_what_follows_the_issue_date_is_not_used():
    known = arguments(moving(6), [3.0, 4.0])
    known["context_T"], known["usable_N"] = torch.arange(3), torch.arange(6) < 3
    before = MovingField(blur_px_K=(1.0,)).forecast(**known)
    known["x_NCHW"][3:] = torch.nan
    assert torch.equal(MovingField(blur_px_K=(1.0,)).forecast(**known), before)


def test_the_blur_of_noise_grows_with_the_lead_where_errors_do():
    """The pattern is the truth at the first lead, and noise of the size of a pixel has come to it at the second."""
    sharp, rng = moving(8, (0, 0)), np.random.default_rng(1)
    grain = torch.tensor(rng.standard_normal((SIDE, SIDE)) * 5, dtype=torch.float32)
    known = arguments(torch.cat([sharp[:3], sharp[:3]]) + grain, [6.0, 7.0])
    target_KCHW = torch.stack([sharp[0] + grain, sharp[0]])
    seen_KHW = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    fitted = MovingField().fit([SimpleNamespace(**known, target_KCHW=target_KCHW, target_valid_KHW=seen_KHW)])
    assert fitted.blur_px_K[0] == 0.0 < 1.0 <= fitted.blur_px_K[1] <= max(BLURS_PX)
