"""Gradient boosting on lags: decision trees that correct the decaying-anomaly baseline, pixel by pixel.

Features of a pixel and a target date: the last valid values as anomalies, their ages, the baseline and the climatology on the
target date, the climatology's change from the issue date, the median anomaly, season, lead. The trees learn
truth - baseline, which gave smaller errors than learning raw lags.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from models.baselines.pointwise import ARGUMENTS, TROPICAL_YEAR_DAYS, DecayingAnomaly, context_arrays, context_days, last_values
from models.contract import Pointwise, over_space


class Rows(NamedTuple):
    """Valid target pixels of windows, one per row."""

    features_RFC: np.ndarray
    residual_RC: np.ndarray  # truth - baseline
    shared_RC: np.ndarray  # the part of it that all valid pixels of the window share on that date
    day_R: np.ndarray  # target day

    def taken(self, which: np.ndarray) -> "Rows":
        return Rows(*(array[which] for array in self))


@dataclass
class GradientBoosting(Pointwise):
    """Trees on top of `corrected`, one forest per channel; `fit` before `forecast`. Seeded; never uses more than `samples` rows.

    `is_centred`: the trees learn the residual without the part that all pixels of a date share. With few dates trees memorise
    that part (haze, a late spring); with many it may be predictable. `fit` decides by trying both.
    """

    corrected: DecayingAnomaly = field(default_factory=DecayingAnomaly)
    lags: int = 5
    samples: int = 100_000
    iterations: int = 60
    seed: int = 0
    is_centred: bool = False
    forests: list[HistGradientBoostingRegressor] = field(default_factory=list)

    def fit(self, windows: Iterable[Any]) -> "GradientBoosting":
        """Itself, fitted on windows with the arguments of `forecast` and `target_KCHW`, `target_valid_KHW`.

        Every valid pixel-date gets a random key and the `samples` lowest are kept: a uniform sample in one pass.
        """
        generator = np.random.default_rng(self.seed)
        keys, kept = np.empty(0), None
        for window in windows:
            rows = self._rows(window)
            keys = np.concatenate([keys, generator.random(len(rows.day_R))])
            kept = rows if kept is None else Rows(*(np.concatenate(pair) for pair in zip(kept, rows, strict=True)))
            lowest = np.argsort(keys, kind="stable")[: self.samples]
            keys, kept = keys[lowest], kept.taken(lowest)
        if kept is None or len(kept.day_R) == 0:
            raise ValueError("gradient boosting cannot be fitted: the training windows have no valid target pixel")
        self.is_centred = self._is_centred_better(kept)
        self.forests = self._grow(kept, self.is_centred)
        return self

    def _is_centred_better(self, rows: Rows) -> bool:
        """Whether centred residuals give the smaller error on the last quarter of the rows in time, fitted on the rest."""
        later = rows.day_R > np.quantile(rows.day_R, 0.75)
        if not later.any() or later.all():
            return False
        earlier, later_rows = rows.taken(~later), rows.taken(later)

        def error(is_centred: bool) -> float:
            y_CR = [forest.predict(later_rows.features_RFC[:, :, c]) for c, forest in enumerate(self._grow(earlier, is_centred))]
            return float(np.abs(later_rows.residual_RC.T - np.stack(y_CR)).mean())

        return error(True) < error(False)

    def _grow(self, rows: Rows, is_centred: bool) -> list[HistGradientBoostingRegressor]:
        """Few, small trees with large leaves: larger ones memorise the training dates and lose to the baseline they correct."""
        target_RC = rows.residual_RC - rows.shared_RC if is_centred else rows.residual_RC
        # A lag that is never valid: its column must not be all NaN.
        features_RFC = np.where(np.isnan(rows.features_RFC).all(axis=0), np.float32(0), rows.features_RFC)
        forests = []
        for c in range(target_RC.shape[1]):
            forest = HistGradientBoostingRegressor(
                loss="absolute_error",
                max_iter=self.iterations,
                learning_rate=0.1,
                max_leaf_nodes=15,
                min_samples_leaf=min(max(len(target_RC) // 100, 20), 1000),
                l2_regularization=1.0,
                early_stopping=False,
                random_state=self.seed,
            )
            forests.append(forest.fit(features_RFC[:, :, c], target_RC[:, c]))
        return forests

    def _rows(self, window: Any) -> Rows:
        features_KFCHW, baseline_KCHW = self._lag_features([torch.as_tensor(getattr(window, name)) for name in ARGUMENTS])
        valid_KHW = torch.as_tensor(window.target_valid_KHW)
        axes = valid_KHW.ndim - 1
        residual_KCHW = torch.as_tensor(window.target_KCHW) - baseline_KCHW
        seen_KCHW = torch.where(valid_KHW[:, None], residual_KCHW, torch.nan)
        shared_KCHW = over_space(seen_KCHW.flatten(2).nanmedian(dim=-1).values, axes).expand_as(residual_KCHW)
        day_KHW = over_space(torch.as_tensor(window.target_days_K).double(), axes).expand_as(valid_KHW)
        residual_RC, shared_RC = (image.movedim(1, -1)[valid_KHW].numpy() for image in (residual_KCHW, shared_KCHW))
        features_RFC = features_KFCHW.movedim((1, 2), (-2, -1))[valid_KHW].numpy()
        return Rows(features_RFC, residual_RC, shared_RC, day_KHW[valid_KHW].numpy())

    def _lag_features(self, arguments: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(features_KFCHW, baseline_KCHW), float32. A lag without a valid value is NaN (the trees have a branch for it)."""
        x_NCHW, valid_NHW, days_N, context_T, _, target_days_K = arguments
        parts = self.corrected.parts(*arguments)
        days_T = context_days(days_N, context_T)
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        values_LCHW, lag_days_LHW, seen_LHW = last_values(x_TCHW - parts.background_TCHW, valid_THW, days_T, self.lags)
        shape_CHW = x_NCHW.shape[1:]
        missing = torch.tensor(float("nan"))
        lag_anomalies = torch.where(seen_LHW[:, None], values_LCHW, missing)
        features = []
        for k, target_day in enumerate(target_days_K.tolist()):
            ages_LHW = torch.where(seen_LHW, target_day - lag_days_LHW, missing.double()).float()
            angle = 2 * np.pi * (target_day / TROPICAL_YEAR_DAYS % 1)
            scalars = [target_day - float(days_T[-1]), float(np.sin(angle)), float(np.cos(angle))]
            background_CHW = parts.background_KCHW[k]
            planes = [parts.y_KCHW[k], background_CHW, background_CHW - parts.background_TCHW[-1], parts.anomaly_CHW]
            planes += [torch.full(shape_CHW, scalar) for scalar in scalars]
            planes += [*lag_anomalies, *(age_HW.expand(shape_CHW) for age_HW in ages_LHW)]
            features.append(torch.stack(planes))
        return torch.stack(features), parts.y_KCHW

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        if len(self.forests) != x_NCHW.shape[1]:
            raise ValueError(
                f"gradient boosting is fitted for {len(self.forests)} channels, got {x_NCHW.shape[1]}: call fit(windows) first"
            )
        features_KFCHW, baseline_KCHW = self._lag_features((x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K))
        y_KCHW = baseline_KCHW.clone()
        for k, features_FCHW in enumerate(features_KFCHW):
            for c, forest in enumerate(self.forests):
                rows_PF = features_FCHW[:, c].flatten(1).T.numpy()
                y_KCHW[k, c] += torch.from_numpy(forest.predict(rows_PF)).float().reshape(y_KCHW.shape[2:])
        return y_KCHW
