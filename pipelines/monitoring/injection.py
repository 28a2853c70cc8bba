"""Simulated breaks of known size and date, injected into real series in which nothing changed."""

import numpy as np

PATCH_PX = 8  # neighbours change together, as a felling does


def patch_numbers(shape_yx: tuple[int, int], patch_px: int = PATCH_PX) -> np.ndarray:
    """(Y, X) int64: the number of the square of `patch_px` that each pixel lies in."""
    rows, columns = np.arange(shape_yx[0]) // patch_px, np.arange(shape_yx[1]) // patch_px
    number_YX: np.ndarray = rows[:, None] * (columns[-1] + 1) + columns[None]
    return number_YX


def assign_break_days(patch_YX: np.ndarray, days_K: np.ndarray, repeats: int, seed: int) -> np.ndarray:
    """(R, Y, X) float64: `repeats` of `days_K` per patch, the same for the same seed.

    Assigned in turn, not drawn: every date comes up equally often (within one), and a patch gets dates far apart. There are
    so few dates that the median delay would otherwise depend on the draw.
    """
    days_K = np.asarray(days_K, np.float64)
    numbers_B, rank_YX = np.unique(patch_YX, return_inverse=True)
    break_B = np.random.default_rng(seed).permutation(len(numbers_B))
    shifts_R = np.arange(repeats) * len(days_K) // repeats
    day_RYX: np.ndarray = days_K[(break_B[rank_YX.reshape(patch_YX.shape)] + shifts_R[:, None, None]) % len(days_K)]
    return day_RYX


def inject(x_NYX: np.ndarray, days_N: np.ndarray, break_day_YX: np.ndarray, step: float) -> np.ndarray:
    """A new array: `x` with `step` (units of the variable) added from each pixel's break day on, that day included.

    The step is permanent and the noise is the pixel's own: what is left of the series is real.
    """
    is_after_NYX = np.asarray(days_N)[:, None, None] >= break_day_YX
    return x_NYX + np.float32(step) * is_after_NYX


def break_choices(days_N: np.ndarray, valid_NYX: np.ndarray, within_days: float) -> np.ndarray:
    """Dates on which a break may fall: those that saw something and leave `within_days` to find it; (K,) float64.

    Where the series is too short for that, the first half of those that saw something.
    """
    saw_N = valid_NYX.reshape(len(valid_NYX), -1).mean(axis=1) > 0.05 if valid_NYX.size else np.zeros(len(valid_NYX), bool)
    seen_K: np.ndarray = np.asarray(days_N, np.float64)[saw_N]
    if not len(seen_K):
        return seen_K
    early_K: np.ndarray = seen_K[seen_K <= days_N[-1] - within_days]
    return early_K if len(early_K) else seen_K[: max(1, len(seen_K) // 2)]
