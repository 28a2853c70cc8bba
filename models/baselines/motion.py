"""The motion of a field over several frames, and what that motion carries elsewhere (semi-Lagrangian).

    estimate_motion   one displacement per pixel and step, from all pairs of consecutive frames of the context together
    path_back         where what will be at a pixel comes from, along the motion as it stands (Germann & Zawadzki 2002)
    carry             the values found there

The estimate starts from a translation of the whole field (phase correlation: Kuglin & Hines 1975) and refines it with
Lucas & Kanade's least squares (1981) over Gaussian windows. The equations of all pairs are added up before they are
solved, and pixels without data have no weight: the fixed edge of what is observed must not count as a field that stands still.
Shapes: B batch, T frames, C channels, H rows, W columns, K leads; positions and motions are (row, column) in pixels.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

WINDOWS_PX = (24.0, 16.0)  # standard deviations of the windows, the last one that of what is found
ROUNDS = 2  # of each window
SMOOTHED_PX = 0.5  # frames are smoothed by it: noise of single pixels is no texture that moves
HELD = 0.02  # weight of the motion found so far, a share of the mean texture: where nothing is to be seen, it stays
LARGEST = 0.25  # of the shorter side: a larger displacement in one step is no motion that frames can show


def estimate_motion(x_TCHW: Tensor, valid_THW: Tensor, steps_T: Tensor, *, is_uniform: bool = False) -> Tensor:
    """Pixels per step that the field moves, (2, H, W) float32; 0 without two frames that show anything.

    `steps_T` are the times of the frames in steps, rising. Channels are averaged. is_uniform: one motion for all of the image.
    """
    height, width = valid_THW.shape[1:]
    motion_2HW = x_TCHW.new_zeros(2, height, width)
    seen = [t for t in range(len(x_TCHW)) if bool(valid_THW[t].any())]
    if len(seen) < 2 or min(height, width) < 8:
        return motion_2HW
    frame_T1HW, valid_T1HW = scaled_frames(x_TCHW[seen], valid_THW[seen])
    span_P = torch.diff(steps_T[seen]).float().tolist()
    motion_2HW += translation(frame_T1HW[:, 0].numpy(), span_P)[:, None, None]
    limit = LARGEST * min(height, width)
    sizes = (math.inf,) if is_uniform else (math.inf, *WINDOWS_PX)
    for sigma in (size for size in sizes for _ in range(ROUNDS)):
        refined_2HW = motion_2HW + correction(frame_T1HW, valid_T1HW, span_P, motion_2HW, sigma)
        motion_2HW = refined_2HW.clamp(-limit, limit)
    return motion_2HW


def scaled_frames(x_TCHW: Tensor, valid_THW: Tensor) -> tuple[Tensor, Tensor]:
    """(frames (T, 1, H, W), weight (T, 1, H, W) in [0, 1]): the logarithm of the mean of the channels, smoothed, 0 where invalid.

    Rain and other sparse fields span orders of magnitude: without the logarithm a few cores would decide alone.
    """
    valid_T1HW = valid_THW[:, None].float()
    mean_T1HW = x_TCHW.float().mean(dim=1, keepdim=True)
    low = float(mean_T1HW[valid_T1HW > 0].min())
    above_T1HW = (mean_T1HW - low).clamp(min=0) * valid_T1HW
    count = float(((above_T1HW > 0) & (valid_T1HW > 0)).sum())
    usual = float(above_T1HW.sum()) / count if count else 1.0
    log_T1HW = torch.log1p(above_T1HW / usual)
    return blurred(log_T1HW, valid_T1HW, SMOOTHED_PX) * valid_T1HW, blur(valid_T1HW, SMOOTHED_PX).pow(4) * valid_T1HW


def translation(frame_THW: np.ndarray, span_P: list[float]) -> Tensor:
    """(2,) pixels per step: the median over the pairs of the shift at which they correlate best, to a tenth of a pixel."""
    from skimage.registration import phase_cross_correlation

    taper_HW = np.multiply.outer(*(np.hanning(size + 2)[1:-1] for size in frame_THW.shape[1:]))
    moved = []
    for before_HW, after_HW, span in zip(frame_THW[:-1], frame_THW[1:], span_P, strict=True):
        before_HW, after_HW = (taper_HW * (one - one.mean()) for one in (before_HW, after_HW))
        if before_HW.any() and after_HW.any():
            shift, _, _ = phase_cross_correlation(after_HW, before_HW, upsample_factor=10, normalization=None)
            moved.append(np.asarray(shift) / span)
    found = np.median(moved, axis=0) if moved else np.zeros(2)
    limit = LARGEST * min(frame_THW.shape[1:])
    return torch.from_numpy(np.clip(found, -limit, limit)).float()


def correction(frame_T1HW: Tensor, valid_T1HW: Tensor, span_P: list[float], motion_2HW: Tensor, sigma: float) -> Tensor:
    """What Lucas & Kanade's equations of all pairs, added up over a window of `sigma` pixels, add to the motion, (2, H, W)."""
    sums_5HW = torch.zeros(5, *motion_2HW.shape[1:])
    for number, span in enumerate(span_P):
        source_12HW = path_back(motion_2HW[None], torch.tensor([span]))[:, 0]
        carried_1HW, there_1HW = (carry(one[number][None], source_12HW)[0] for one in (frame_T1HW, valid_T1HW))
        after_1HW, weight_HW = frame_T1HW[number + 1], (there_1HW * valid_T1HW[number + 1] * inside(source_12HW))[0]
        row_HW, column_HW = torch.gradient((carried_1HW + after_1HW)[0] / 2)
        error_HW = (after_1HW - carried_1HW)[0]
        parts = (row_HW * row_HW, row_HW * column_HW, column_HW * column_HW, -row_HW * error_HW, -column_HW * error_HW)
        times_P = (span * span, span * span, span * span, span, span)
        sums_5HW += torch.stack([weight_HW * part * times for part, times in zip(parts, times_P, strict=True)])
    if math.isinf(sigma):
        sums_5HW = sums_5HW.mean(dim=(1, 2), keepdim=True).expand_as(sums_5HW)
    else:
        held = HELD * float((sums_5HW[0] + sums_5HW[2]).mean()) / 2
        sums_5HW = blur(sums_5HW[:, None], sigma)[:, 0]
        sums_5HW[[0, 2]] += held
    a, b, c, right_row, right_column = sums_5HW
    determinant = (a * c - b * b).clamp(min=1e-12)
    solved: Tensor = torch.stack([c * right_row - b * right_column, a * right_column - b * right_row]) / determinant
    return solved.nan_to_num(0.0).clamp(-2, 2)  # the equations hold near the solution only


# ---------------------------------------------------------------- carrying


def pixels_of(height: int, width: int) -> Tensor:
    """(2, H, W): row and column of every pixel."""
    rows_HW, columns_HW = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([rows_HW, columns_HW])


def path_back(motion_B2HW: Tensor, steps_K: Tensor) -> Tensor:
    """(B, K, 2, H, W): where what is at a pixel after `steps_K` steps (rising, from 0) was at the start, of a constant motion.

    The path is followed backwards in pieces of at most one step.
    """
    at_B2HW = pixels_of(*motion_B2HW.shape[2:]).to(motion_B2HW).expand_as(motion_B2HW)
    found, before = [], 0.0
    for steps in steps_K.tolist():
        pieces = math.ceil(round(steps - before, 6))
        for _ in range(pieces):
            at_B2HW = at_B2HW - (steps - before) / pieces * carry(motion_B2HW, at_B2HW)
        found.append(at_B2HW)
        before = steps
    return torch.stack(found, dim=1)


def carry(x_BCHW: Tensor, source_B2HW: Tensor) -> Tensor:
    """The values at `source_B2HW`, bilinear, (B, C, H, W); beyond the image those of its edge. Differentiable in `x_BCHW`."""
    sizes = torch.tensor(x_BCHW.shape[2:], dtype=x_BCHW.dtype, device=x_BCHW.device).clamp(min=2) - 1
    scaled_BHW2 = (source_B2HW.movedim(1, -1) / sizes * 2 - 1).flip(-1)  # torch wants x before y
    there = scaled_BHW2.to(x_BCHW.dtype)
    found: Tensor = F.grid_sample(x_BCHW, there, mode="bilinear", padding_mode="border", align_corners=True)
    return found


def inside(source_B2HW: Tensor) -> Tensor:
    """(B, H, W) bool: the position lies within the image."""
    last = torch.tensor(source_B2HW.shape[2:], device=source_B2HW.device)[:, None, None] - 1
    is_inside: Tensor = ((source_B2HW >= 0) & (source_B2HW <= last)).all(dim=1)
    return is_inside


# ---------------------------------------------------------------- blur


def blur(x_BCHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` pixels over every image, which is taken as 0 beyond its edge."""
    if sigma <= 0:
        return x_BCHW
    reach = max(round(3 * sigma), 1)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, dtype=x_BCHW.dtype) / sigma).square() / 2).to(x_BCHW.device)
    kernel = kernel / kernel.sum()
    images = x_BCHW.flatten(0, 1)[:, None]
    images = F.conv2d(images, kernel[None, None, :, None], padding=(reach, 0))
    images = F.conv2d(images, kernel[None, None, None, :], padding=(0, reach))
    smooth: Tensor = images[:, 0].unflatten(0, x_BCHW.shape[:2])
    return smooth


def blurred(x_BCHW: Tensor, valid_B1HW: Tensor, sigma: float) -> Tensor:
    """The mean of the valid pixels around each pixel, weighted by a Gaussian of `sigma` pixels; `x_BCHW` itself for 0."""
    if sigma <= 0:
        return x_BCHW
    weight_B1HW = blur(valid_B1HW.to(x_BCHW.dtype), sigma)
    return blur(x_BCHW * valid_B1HW, sigma) / weight_B1HW.clamp(min=1e-6)
