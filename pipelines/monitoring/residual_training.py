"""The networks of a RecurrentModel, trained on the history alone; every one leaves another year of it out.

Each year's residuals are those from the curve that was fitted without that year: a curve that has seen a year lies too near to
it. The year that a network leaves out is where its training stops and what says how much of its answer is believed (`shares`),
because dates are what is scarce: pixels of the same date share its haze, so blocks in space would let a network pass that has
only memorised dates. What the left-out years do not support is 0, and with 0 the model is the curve itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipelines.calendar import iso_date
from pipelines.errors import RequestError
from pipelines.learning.epoch_batches import Batch
from pipelines.learning.training import Loss, TrainingSettings, train
from pipelines.monitoring.areas import MonitoredCube, read_dates
from pipelines.monitoring.calibration import LEAST_PIXELS, SPREADS, YEAR_DAYS, left_out_years, stable_history
from pipelines.monitoring.detector import Observations
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.recurrent_model import network_inputs, standardise
from pipelines.predictors import Trainable
from pipelines.progress import Progress
from pipelines.tiles import Box

AREAS, AREA_PX = 4, 256  # what a network learns from: at most so many squares of the raster
TARGET_CLIP = 4.0  # spreads; a sequential test counts no more either
WINDOW_PX = 64
SHARES = tuple(n / 10 for n in range(11))


class Ensemble(Trainable, Protocol):
    """Networks with one left-out year each; `compute_member` gives (B, T, 2, P), mean and log sigma, `shares` (2,) of both."""

    shares: torch.Tensor


@dataclass(frozen=True)
class Learning:
    """What is learned from: `pixels` (at most, multiples of 64) that have `min_history` usable dates; `radius` of the inputs."""

    harmonic: HarmonicModel
    min_history: int
    radius: int = 0
    pixels: int = 4096
    seed: int = 0
    direction: str = "down"


@dataclass(frozen=True)
class ResidualYear:
    """One year of the history against the curve of the others, on P pixels: (T, P, F) inputs, (T, P) z float32 and seen bool."""

    first_day: float
    last_day: float
    days_T: np.ndarray
    inputs_TPF: np.ndarray
    z_TP: np.ndarray
    seen_TP: np.ndarray


def residual_years_of(cube: MonitoredCube, chosen: Learning) -> list[ResidualYear]:
    """The left-out years of the cube's history on some squares of the raster. Raises RequestError where none has enough of it."""
    tiles = Box.whole(cube.shape_yx).cut(AREA_PX)
    squares = np.random.default_rng(chosen.seed).permutation(len(tiles))[:AREAS]
    found, refused = [], []
    for index in sorted(squares.tolist()):
        history = read_dates(cube, tiles[index], cube.history)
        try:
            found.append(residual_years(history, cube.start_day, replace(chosen, pixels=chosen.pixels // len(squares))))
        except RequestError as error:
            refused.append(error)
    if not found:
        raise refused[-1]
    return merge_years(found)


def residual_years(series: Observations, start_day: float, chosen: Learning) -> list[ResidualYear]:
    """The years before `start_day`, on stable pixels. Later dates are not used. Raises RequestError with fewer than two years or
    too few pixels to learn from."""
    history = series.before(start_day)
    folds = left_out_years(history.days_N, start_day)
    if len(folds) < 2:
        raise RequestError(
            f"the recurrent model needs two years of history to learn from, found {len(folds)} before monitoring.start: "
            "begin later, or use monitoring.model: {kind: harmonic}"
        )
    fitted = chosen.harmonic.fit(*history)
    limit = SPREADS * float(np.median(fitted["spread"]))
    use_YX = stable_history(history, limit, chosen.direction) & (fitted["count"] >= chosen.min_history)
    index_P = np.random.default_rng(chosen.seed).permutation(np.flatnonzero(use_YX))[: chosen.pixels]
    if len(index_P) < LEAST_PIXELS:
        raise RequestError(
            f"the recurrent model found {len(index_P)} stable pixels with {chosen.min_history} usable dates to learn from, "
            f"expected at least {LEAST_PIXELS}: lower monitoring.min_history, or use monitoring.model: {{kind: harmonic}}"
        )
    index_P = np.resize(index_P, -(-len(index_P) // WINDOW_PX) * WINDOW_PX)
    return [_left_out(chosen, history, first_day, is_out_N, index_P) for first_day, is_out_N in folds]


def _left_out(
    chosen: Learning, history: Observations, first_day: float, is_out_N: np.ndarray, index_P: np.ndarray
) -> ResidualYear:
    """The year `is_out_N` against the curve of all other dates."""
    others, year = chosen.harmonic.fit(*history.on(~is_out_N)), history.on(is_out_N)
    inputs, values, seen = [], [], []
    for x_YX, valid_YX, day in zip(*year, strict=True):
        seen_YX = valid_YX & (others["count"] > 0)
        z_YX = standardise(x_YX, seen_YX, *chosen.harmonic.predict(others, {}, float(day)))
        inputs.append(network_inputs(z_YX, seen_YX, chosen.radius).reshape(-1, seen_YX.size)[:, index_P].T)
        values.append(np.clip(z_YX.ravel()[index_P], -TARGET_CLIP, TARGET_CLIP))
        seen.append(seen_YX.ravel()[index_P])
    return ResidualYear(first_day, first_day + YEAR_DAYS, year.days_N, np.stack(inputs), np.stack(values), np.stack(seen))


def merge_years(areas: Sequence[Sequence[ResidualYear]]) -> list[ResidualYear]:
    """The same years of several areas of one cube, as years of all their pixels."""
    names = ("inputs_TPF", "z_TP", "seen_TP")
    return [
        replace(same[0], **{name: np.concatenate([getattr(year, name) for year in same], axis=1) for name in names})
        for same in zip(*areas, strict=True)
    ]


class YearWindows:
    """Windows of 64 pixels and one year, for `pipelines.learning.training`.

    `hide` is the share of dates that each epoch hides from a window. A hidden date is still a target: the networks learn to
    predict over gaps, and find it harder to recognise a date.
    """

    def __init__(self, years: Sequence[ResidualYear], hide: float = 0.0):
        self.years, self.hide, self.epoch = years, hide, 0
        self.windows = [(y, w) for y, year in enumerate(years) for w in range(year.z_TP.shape[1] // WINDOW_PX)]

    @property
    def shapes(self) -> list[int]:
        """Dates of each window: those of one year share a batch."""
        return [y for y, _ in self.windows]

    def __len__(self) -> int:
        return len(self.windows)

    def set_epoch(self, epoch: int) -> None:
        """Another epoch hides other dates."""
        self.epoch = epoch

    def gather(self, indices: list[int]) -> Batch:
        """Windows of one year: inputs_TPF, seen_TP, days_T, target (T, 1, P) and weight (T, 1, P), with a leading B."""
        rows = [self._window(index) for index in indices]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def _window(self, index: int) -> dict[str, np.ndarray]:
        y, w = self.windows[index]
        year, span = self.years[y], slice(w * WINDOW_PX, (w + 1) * WINDOW_PX)
        seen_TP = year.seen_TP[:, span]
        shown_T = np.random.default_rng([self.epoch, index]).random(len(seen_TP)) >= self.hide
        return {
            "inputs_TPF": year.inputs_TPF[:, span],
            "seen_TP": (seen_TP & shown_T[:, None]).astype(np.float32),
            "days_T": year.days_T,
            "target": year.z_TP[:, None, span],
            "weight": seen_TP[:, None].astype(np.float32),
        }


class _Alone:
    """One member of an ensemble, as a forecaster with one network."""

    def __init__(self, ensemble: Ensemble, i: int):
        self.members, self._ensemble, self._i = [ensemble.members[i]], ensemble, i

    def compute_member(self, _i: int, batch: Batch) -> torch.Tensor:
        return self._ensemble.compute_member(self._i, batch)


def train_ensemble(
    ensemble: Ensemble,
    years: Sequence[ResidualYear],
    loss: Loss,
    settings: TrainingSettings,
    folder: Path,
    *,
    hide: float = 0.2,
    key: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains network i of `ensemble` without year i, in place, and sets `ensemble.shares`; a report, plain JSON. `folder` gets
    logs and what an interrupted training goes on from. For errors see `pipelines.learning.training.train`."""
    reports, total = [], len(years)
    for i, year in enumerate(years):
        others = [other for other in years if other is not year]
        show = (lambda done, of, i=i: progress(i * of + done, total * of)) if progress else None
        report = train(
            _Alone(ensemble, i), YearWindows(others, hide), YearWindows([year]), loss, settings, folder / f"year-{i}", show,
            key=f"{key}:{i}",
        )  # fmt: skip
        reports.append(report.members[0])
    shares = supported_shares(ensemble, years)
    ensemble.shares.copy_(torch.tensor(shares))
    return {
        "shares": list(shares),
        "years": [iso_date(year.first_day) for year in years],
        "epochs": [report.best_epoch for report in reports],
        "loss_untrained": [report.curve[0]["validation_loss"] for report in reports],
        "loss_trained": [report.best_validation_loss for report in reports],
    }


@torch.no_grad()
def supported_shares(ensemble: Ensemble, years: Sequence[ResidualYear]) -> tuple[float, float]:
    """(of the mean, of the log sigma): the smallest shares that the left-out years cannot tell from the best.

    Each network answers for its own year. First the mean's share by the mean absolute error, then, with it, the sigma's by
    the likelihood; differences between dates give the standard error (the rule of one standard error: Hastie, Tibshirani and
    Friedman 2009, section 7.10).
    """
    answered = []
    for i, year in enumerate(years):
        windows = YearWindows([year])
        answers_T2P = [ensemble.compute_member(i, windows.gather([w]))[0].numpy() for w in range(len(windows))]
        answered.append((year, *np.moveaxis(np.concatenate(answers_T2P, axis=2), 1, 0)))
    errors = [[np.abs(year.z_TP - share * mean_TP) for share in SHARES] for year, mean_TP, _ in answered]
    mean_share = SHARES[smallest_supported(_per_date(years, errors))]
    losses = []
    for year, mean_TP, log_TP in answered:
        error_TP = math.sqrt(2) * np.abs(year.z_TP - mean_share * mean_TP)
        losses.append([error_TP * np.exp(-share * log_TP) + share * log_TP for share in SHARES])
    return mean_share, SHARES[smallest_supported(_per_date(years, losses))]


def smallest_supported(losses_SD: np.ndarray) -> int:
    """The first choice whose mean loss over dates is within one standard error (of the difference) of the best choice's."""
    best = int(losses_SD.mean(axis=1).argmin())
    for s in range(best):
        worse_D = losses_SD[s] - losses_SD[best]
        error = worse_D.std(ddof=1) / math.sqrt(len(worse_D)) if len(worse_D) > 1 else 0.0
        if worse_D.mean() <= error:
            return s
    return best


def _per_date(years: Sequence[ResidualYear], losses: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """(S, D) float64 mean over the seen pixels of each date that has any, all years in a row."""
    columns = []
    for year, of_share in zip(years, losses, strict=True):
        count_T = year.seen_TP.sum(axis=1)
        sums_ST = np.stack([np.where(year.seen_TP, loss_TP, 0).sum(axis=1, dtype=np.float64) for loss_TP in of_share])
        columns.append(sums_ST[:, count_T > 0] / count_T[count_T > 0])
    return np.concatenate(columns, axis=1)
