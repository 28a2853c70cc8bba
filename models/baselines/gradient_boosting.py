"""Gradient boosting: decision trees that correct a simple forecast, pixel by pixel, from what `boosting_features` lists.

Two formulations: `change` (truth - last valid value), which wins in long series, and `residual` (truth - decaying anomaly), which
wins in short ones. Each may be centred: without the part that all pixels of a date share, which trees memorise where dates are
few (haze, a late spring) and can predict where they are many. `fit` decides on the last quarter of its own rows in time. The
forecast is the mean of both formulations unless one alone is clearly better there: on other dates than those, the mean had the
smaller error in a long series and in a short one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from models.baselines.boosting_features import FORMULATIONS, HALO_PX, Formulation, features_of
from models.baselines.pointwise import ARGUMENTS, DecayingAnomaly, season_distance_days
from models.contract import Description, Halo

LEAST_LAGS = 23  # a year of dates every 16 days: more lags than a short context gave smaller errors
LATER = 0.25  # share of the rows, the last in time, on which `fit` chooses
SEASON_DAYS = 15.0  # of the year, from the nearest date that was learnt: beyond, the season is unknown
MARGIN = 0.01  # by which one formulation alone must be better than the mean of both, a share of the error
TRIED_SAMPLES = 30_000  # rows, at most, that each trial is fitted on
FEW_TREES = 60  # where nothing can be held out
TREES = (15, 30, 60, 120, 180, 240)  # numbers that are tried, besides none and `iterations`


class Rows(NamedTuple):
    """Valid target pixels of windows, one per row; M: formulations, in the order of `FORMULATIONS`."""

    features_RFC: np.ndarray  # float32
    target_RMC: np.ndarray  # truth - base
    shared_RMC: np.ndarray  # the part of it that all valid pixels of the window share on that date
    day_R: np.ndarray  # target day

    def taken(self, which: np.ndarray) -> "Rows":
        return Rows(*(array[which] for array in self))

    def target(self, formulation: Formulation, is_centred: bool, channel: int) -> np.ndarray:
        m = FORMULATIONS.index(formulation)
        target_R: np.ndarray = self.target_RMC[:, m, channel]
        return target_R - self.shared_RMC[:, m, channel] if is_centred else target_R


@dataclass(frozen=True)
class Way:
    """One way to forecast a channel, and its mean absolute error on the rows that `fit` kept for choosing; nan: none were."""

    formulation: Formulation
    is_centred: bool
    trees: int
    error: float


@dataclass(frozen=True)
class Choice:
    """The ways whose mean is the forecast of a channel, one or one of each formulation, and the error of that mean."""

    ways: tuple[Way, ...]
    error: float


@dataclass
class GradientBoosting:
    """Trees on top of a simple forecast, each channel by itself; `fit` before `forecast`. Seeded; at most `samples` rows.

    `formulation`: None lets `fit` choose, for each channel. `iterations`: most trees. `uses_covariates`: those of the windows, if
    there are any, are among the features.
    """

    corrected: DecayingAnomaly = field(default_factory=DecayingAnomaly)
    samples: int = 100_000
    iterations: int = 300
    seed: int = 0
    formulation: Formulation | None = None
    lags: int = LEAST_LAGS
    axes: int = 2  # of space
    uses_covariates: bool = True
    choices: list[Choice] = field(default_factory=list)
    learnt_days: Tensor = field(default_factory=lambda: torch.empty(0))  # target days of the fit
    forests: list[list[HistGradientBoostingRegressor | None]] = field(default_factory=list)  # of each channel, per way

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.axes

    def halo_px(self, steps: int) -> Halo:
        """Radius of the widest neighbourhood."""
        return (HALO_PX,) * self.axes

    def describe(self) -> Description:
        """What was chosen: of each channel the ways (formulation, whether centred, trees) and the errors on the later rows."""
        channels = [
            {"error": finite(choice.error), "ways": [{**asdict(way), "error": finite(way.error)} for way in choice.ways]}
            for choice in self.choices
        ]
        return {"lags": self.lags, "channels": channels}

    def fit(self, windows: Iterable[Any]) -> "GradientBoosting":
        """Itself, fitted on windows with the arguments of `forecast` and `target_KCHW`, `target_valid_KHW`.

        Raises ValueError if none of them has a valid target pixel.
        """
        rows = self._sample(windows)
        if rows is None:
            raise ValueError("gradient boosting cannot be fitted: the training windows have no valid target pixel")
        self.learnt_days = torch.from_numpy(np.unique(rows.day_R))
        self.choices = [self._choose(rows, channel) for channel in range(rows.target_RMC.shape[2])]
        self.forests = [[self._grow(rows, channel, way) for way in choice.ways] for channel, choice in enumerate(self.choices)]
        return self

    def _sample(self, windows: Iterable[Any]) -> Rows | None:
        """Every valid pixel-date gets a random key and the `samples` lowest are kept: a uniform sample in one pass."""
        generator, kept, keys, is_first = np.random.default_rng(self.seed), list[Rows](), list[np.ndarray](), True
        for window in windows:
            if is_first:
                self.lags, self.axes = max(len(window.context_T), LEAST_LAGS), window.x_NCHW.ndim - 2
                is_first = False
            for rows in self._rows(window):
                kept.append(rows)
                keys.append(generator.random(len(rows.day_R)))
            if sum(map(len, keys)) > 2 * self.samples:
                kept, keys = self._lowest(kept, keys)
        return self._lowest(kept, keys)[0][0] if kept else None

    def _lowest(self, kept: list[Rows], keys: list[np.ndarray]) -> tuple[list[Rows], list[np.ndarray]]:
        key_R = np.concatenate(keys)
        lowest = np.argsort(key_R, kind="stable")[: self.samples]
        return [Rows(*map(np.concatenate, zip(*kept, strict=True))).taken(lowest)], [key_R[lowest]]

    def _rows(self, window: Any) -> Iterator[Rows]:
        given = getattr(window, "covariates", None) if self.uses_covariates else None
        arguments = [torch.as_tensor(getattr(window, name)) for name in ARGUMENTS]
        targets = features_of(arguments, self.corrected, self.lags, given)
        truth_KCHW, valid_KHW = torch.as_tensor(window.target_KCHW), torch.as_tensor(window.target_valid_KHW)
        for k, target in enumerate(targets):
            if not (seen_HW := valid_KHW[k]).any():
                continue
            bases_MCHW = torch.stack([target.base(formulation) for formulation in FORMULATIONS])
            target_RMC = (truth_KCHW[k] - bases_MCHW)[:, :, seen_HW].movedim(-1, 0).numpy()
            shared_RMC = np.broadcast_to(np.median(target_RMC, axis=0), target_RMC.shape)
            features_RFC = target.features_FCHW[:, :, seen_HW].movedim(-1, 0).numpy()
            yield Rows(features_RFC, target_RMC, shared_RMC, np.full(len(target_RMC), float(window.target_days_K[k])))

    def _choose(self, rows: Rows, channel: int) -> Choice:
        """What has the smallest error on the last quarter of the rows in time, fitted on the rest."""
        formulations = FORMULATIONS if self.formulation is None else (self.formulation,)
        is_later = rows.day_R > np.quantile(rows.day_R, 1 - LATER)
        if not is_later.any() or is_later.all():  # too few dates to hold some out
            return Choice((Way(formulations[-1], False, min(FEW_TREES, self.iterations), np.nan),), np.nan)
        earlier, later = (rows.taken(np.flatnonzero(which)[:TRIED_SAMPLES]) for which in (~is_later, is_later))
        best = []  # of each formulation: the way, and truth - forecast on the later rows
        for formulation in formulations:
            tried = [self._try(earlier, later, channel, formulation, is_centred) for is_centred in (False, True)]
            best.append(min(tried, key=lambda one: one[0].error))
        alone = min((Choice((way,), way.error) for way, _ in best), key=lambda choice: choice.error)
        mean = Choice(tuple(way for way, _ in best), mean_size(np.mean([missed_R for _, missed_R in best], axis=0)))
        return mean if mean.error <= (1 + MARGIN) * alone.error else alone

    def _try(
        self, earlier: Rows, later: Rows, channel: int, formulation: Formulation, is_centred: bool
    ) -> tuple[Way, np.ndarray]:
        """One way, with the number of trees after which the error falls no further, and truth - forecast on `later`.

        No trees, where they make the simple forecast worse.
        """
        features_RF, later_RF = without_empty(earlier.features_RFC[:, :, channel]), later.features_RFC[:, :, channel]
        target_R, truth_R = earlier.target(formulation, is_centred, channel), later.target(formulation, False, channel)
        forest, best_R = self._forest(len(target_R), 0), truth_R
        best = Way(formulation, is_centred, 0, mean_size(truth_R))
        for trees in (*(number for number in TREES if number < self.iterations), self.iterations):
            forest.set_params(max_iter=trees)
            missed_R = truth_R - forest.fit(features_RF, target_R).predict(later_RF)
            if (error := mean_size(missed_R)) >= best.error:
                break
            best, best_R = Way(formulation, is_centred, trees, error), missed_R
        return best, best_R

    def _grow(self, rows: Rows, channel: int, way: Way) -> HistGradientBoostingRegressor | None:
        if way.trees == 0:
            return None
        target_R = rows.target(way.formulation, way.is_centred, channel)
        return self._forest(len(target_R), way.trees).fit(without_empty(rows.features_RFC[:, :, channel]), target_R)

    def _forest(self, rows: int, trees: int) -> HistGradientBoostingRegressor:
        """Small trees with large leaves: larger ones memorise the training dates."""
        return HistGradientBoostingRegressor(
            loss="absolute_error",
            max_iter=trees,
            learning_rate=0.1,
            max_leaf_nodes=15,
            min_samples_leaf=min(max(rows // 100, 20), 1000),
            l2_regularization=1.0,
            early_stopping=False,
            warm_start=True,
            random_state=self.seed,
        )

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """y_KCHW; the simple forecast alone on dates in a season that the fit has not seen, of a series shorter than a year."""
        if len(self.forests) != x_NCHW.shape[1]:
            raise ValueError(
                f"gradient boosting is fitted for {len(self.forests)} channels, got {x_NCHW.shape[1]}: call fit(windows) first"
            )
        arguments, y = (x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K), []
        away_K = season_distance_days(target_days_K, self.learnt_days).amin(1)
        targets = features_of(arguments, self.corrected, self.lags, covariates if self.uses_covariates else None)
        for target, away in zip(targets, away_K.tolist(), strict=True):
            planes = [torch.zeros(x_NCHW.shape[2:]) for _ in self.forests]
            for c, (forests, choice) in enumerate(zip(self.forests, self.choices, strict=True)):
                rows_PF = target.features_FCHW[:, c].flatten(1).T.numpy()
                for forest, way in zip(forests, choice.ways, strict=True):
                    planes[c] += target.base(way.formulation)[c] / len(forests)
                    if forest is not None and away <= SEASON_DAYS:
                        correction_P = torch.from_numpy(forest.predict(rows_PF)).float()
                        planes[c] += correction_P.reshape(planes[c].shape) / len(forests)
            y.append(torch.stack(planes))
        return torch.stack(y)


def finite(error: float) -> float | None:
    """The error, or None, which JSON knows."""
    return error if np.isfinite(error) else None


def mean_size(values: np.ndarray) -> float:
    return float(np.abs(values).mean())


def without_empty(features_RF: np.ndarray) -> np.ndarray:
    """The features, 0 in columns of NaN only, which cannot be binned: a lag that is never valid."""
    return np.where(np.isnan(features_RF).all(axis=0), np.float32(0), features_RF)
