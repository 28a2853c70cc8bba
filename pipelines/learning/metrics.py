"""Errors on valid target pixels, kept as sums per target date, so that they add up and dates can be resampled.

Axes: D target dates, K leads (0 is the first step after the issue date), C variables, S sums; what follows C may be anything:
an image (H, W), a volume (D, H, W), tokens, or nothing at all. Names that end in HW stand for all of them.
"""

from dataclasses import dataclass

import numpy as np
from skimage.metrics import structural_similarity

SUMS = ("pixels", "absolute", "squared", "signed", "similarity", "frames", "truth", "truth_squared")
PIXELS, ABSOLUTE, SQUARED, SIGNED, SIMILARITY, FRAMES, TRUTH, TRUTH_SQUARED = range(len(SUMS))


@dataclass(frozen=True)
class ErrorTable:
    """`sums_DKCS` float64, S as in `SUMS`; `days_D` the target dates in days since 1970-01-01, sorted."""

    days_D: np.ndarray
    sums_DKCS: np.ndarray

    def scaled(self, scale_C: np.ndarray) -> np.ndarray:
        """Sums over variables, (D, K, S), every variable's errors divided by its `scale_C`; pixels of all variables count."""
        power_S = np.array([0, 1, 2, 1, 0, 0, 1, 2])
        scaled_DKS: np.ndarray = (self.sums_DKCS / scale_C[:, None] ** power_S).sum(axis=2)
        return scaled_DKS

    def spread(self) -> np.ndarray:
        """Standard deviation of the valid target values of each variable, (C,); 1 where they do not vary."""
        sums_CS = self.sums_DKCS.sum(axis=(0, 1))
        mean_C = sums_CS[:, TRUTH] / sums_CS[:, PIXELS]
        spread_C = np.sqrt(np.maximum(sums_CS[:, TRUTH_SQUARED] / sums_CS[:, PIXELS] - mean_C**2, 0))
        return np.where(spread_C > 0, spread_C, 1.0)


class ErrorTally:
    """Collects the errors of one forecaster, window by window."""

    def __init__(self) -> None:
        self._of_date: dict[int, np.ndarray] = {}

    def add(
        self, y_KCHW: np.ndarray, target_KCHW: np.ndarray, valid_KHW: np.ndarray, days_K: np.ndarray, range_C: np.ndarray
    ) -> None:
        """One window. `range_C`: data range of each variable for SSIM. Raises ValueError where shapes differ."""
        if y_KCHW.shape != target_KCHW.shape:
            raise ValueError(f"the forecast has shape {y_KCHW.shape}, the target {target_KCHW.shape}")
        K, C = y_KCHW.shape[:2]
        for k, valid_HW in enumerate(valid_KHW):
            if not np.any(valid_HW):
                continue
            of_date = self._of_date.setdefault(round(float(days_K[k]) * 86_400), np.zeros((K, C, len(SUMS))))
            for c in range(C):
                of_date[k, c] += frame_sums(y_KCHW[k, c], target_KCHW[k, c], valid_HW, float(range_C[c]))

    @property
    def is_empty(self) -> bool:
        return not self._of_date

    def table(self) -> ErrorTable:
        seconds = sorted(self._of_date)
        return ErrorTable(np.array(seconds) / 86_400.0, np.stack([self._of_date[second] for second in seconds]))


def frame_sums(y_HW: np.ndarray, target_HW: np.ndarray, valid_HW: np.ndarray, data_range: float) -> np.ndarray:
    """The S sums of one frame over its valid pixels, float64. `similarity` is SSIM x 1 frame, where SSIM is defined."""
    y_HW, target_HW, valid_HW = (np.atleast_1d(array) for array in (y_HW, target_HW, valid_HW))
    truth = target_HW[valid_HW].astype(np.float64)
    error = y_HW[valid_HW] - truth
    similarity = frame_ssim(y_HW, target_HW, valid_HW, data_range)
    is_known = np.isfinite(similarity)
    errors = [error.size, np.abs(error).sum(), (error**2).sum(), error.sum()]
    return np.array([*errors, similarity if is_known else 0.0, is_known, truth.sum(), (truth**2).sum()], np.float64)


def frame_ssim(y_HW: np.ndarray, target_HW: np.ndarray, valid_HW: np.ndarray, data_range: float) -> float:
    """Structural similarity (Wang et al. 2004; uniform 7x7 window, smaller in smaller frames), mean over valid pixels.

    Pixels that are not valid are filled with the mean of the valid target pixels in both frames alike, so windows that touch
    them look more similar than they were, for every forecaster in the same way. Volumes are compared in cubes. nan where less
    than a quarter of the frame is valid, the frame is narrower than 3 pixels, the data range is 0, or for what is no image.
    """
    side = min(7, *y_HW.shape) if y_HW.ndim in (2, 3) else 0
    side -= 1 - side % 2
    if side < 3 or valid_HW.mean() < 0.25 or not data_range > 0:
        return float("nan")
    fill = target_HW[valid_HW].mean(dtype=np.float64)
    y, target = (np.where(valid_HW, frame, fill).astype(np.float64) for frame in (y_HW, target_HW))
    _, map_HW = structural_similarity(target, y, win_size=side, data_range=data_range, full=True)
    return float(map_HW[valid_HW].mean())


def scores(sums_S: np.ndarray) -> dict[str, float | int | None]:
    """MAE, RMSE and bias (forecast minus truth) per valid pixel, mean SSIM per frame, pixel count. None where undefined."""
    pixels, frames = sums_S[PIXELS], sums_S[FRAMES]
    if pixels == 0:
        return {"mae": None, "rmse": None, "bias": None, "ssim": None, "pixels": 0}
    return {
        "mae": float(sums_S[ABSOLUTE] / pixels),
        "rmse": float(np.sqrt(sums_S[SQUARED] / pixels)),
        "bias": float(sums_S[SIGNED] / pixels),
        "ssim": float(sums_S[SIMILARITY] / frames) if frames else None,
        "pixels": int(pixels),
    }
