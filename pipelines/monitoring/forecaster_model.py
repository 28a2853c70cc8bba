"""The forecaster of a finished forecast run predicts each new date from the dates before it.

The frames that it forecasts from are in the state, the history that its baseline needs in `fitted`: both are of constant size,
so a date costs the same however many come before it, and the baseline never learns the change that it is to find. A frame's
values enter clipped to `CLIP` spreads of the harmonic curve: the baseline carries on at most that much of a break.

Spread: the forecaster is asked for the dates of the history, each from the frames before it and with half a year on both sides
kept from its baseline; how far off it is there is fitted per pixel and season, as HarmonicModel does with a constant for a
curve.

Everything covers what it is given: the tile grown by the halo. A date on which a tile shows nothing is no frame of that tile.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.monitoring.detector import Observations, part_of, prefixed
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Arrays
from pipelines.predictors import Forecaster
from pipelines.samples.variables import Variable

log = logging.getLogger(__name__)
CLIP = 0.75  # spreads of the curve
HALF_YEAR_DAYS = 182.62
LEAST_SPREAD = 0.25  # of the curve's


@dataclass(frozen=True)
class ForecasterModel:
    """`context` frames, usually `step_days` apart; `halo_px` for one date ahead. `digest` stands for the model in the key."""

    forecaster: Forecaster
    context: int
    step_days: float
    halo_px: int
    digest: str
    harmonic: HarmonicModel

    @property
    def key(self) -> dict[str, Any]:
        """What the detector's key is made from."""
        return {"model": self.digest, "harmonic": [self.harmonic.harmonics, self.harmonic.trend], "clip": CLIP}

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """The curve's arrays (`curve.*`), those of the forecaster's errors (`error.*`), and the history that the baseline needs.

        `history` (N, Y, X) float32, `history_valid` bool, `history_day` (N, 1, 1) float64; `count` (Y, X) int32 of usable dates.
        """
        curve = self.harmonic.fit(x_NYX, valid_NYX, days_N)
        fitted = prefixed("curve", curve) | {
            "history": np.where(valid_NYX, x_NYX, 0).astype(np.float32),
            "history_valid": valid_NYX.astype(bool),
            "history_day": np.asarray(days_N, np.float64).reshape(-1, 1, 1),
            "count": curve["count"],
        }
        return fitted | prefixed("error", HarmonicModel(harmonics=0).fit(*self._errors(fitted)))

    def _errors(self, fitted: Arrays) -> Observations:
        """Seen minus forecast on the history's dates, valid where there are others that it can rest on."""
        history = _history(fitted)
        x_NYX, valid_NYX, days_N = history
        errors = Observations(np.zeros_like(x_NYX), np.zeros_like(valid_NYX), days_N)
        frames = history._replace(x_NYX=self._clipped(fitted, x_NYX, days_N))
        for n, day in enumerate(days_N):
            usable_N = np.abs(days_N - day) > HALF_YEAR_DAYS
            if n == 0 or not valid_NYX[n].any() or not valid_NYX[usable_N].any():
                continue
            before = frames.on(slice(max(n - self.context, 0), n))
            errors.x_NYX[n] = x_NYX[n] - self._forecast(fitted, usable_N, before, float(day))
            errors.valid_NYX[n] = valid_NYX[n] & (valid_NYX[usable_N].any(axis=0))
        return errors

    def begin(self, fitted: Arrays) -> Arrays:
        """The last frames of the history: `frames` (T, Y, X) float32, `frames_valid` bool, `frames_day` (T, 1, 1), NaN: none."""
        last = _history(fitted).on(slice(-self.context, None))
        last = last._replace(x_NYX=self._clipped(fitted, last.x_NYX, last.days_N))
        frames, valid, days_T = _padded(last, np.full(self.context - len(last.days_N), np.nan))
        return {"frames": frames, "frames_valid": valid, "frames_day": days_T.reshape(-1, 1, 1)}

    def predict(self, fitted: Arrays, state: Arrays, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, spread_YX) float32. Frames that are not from before `day` are left aside."""
        frames = Observations(state["frames"], state["frames_valid"], state["frames_day"].ravel())
        with np.errstate(invalid="ignore"):
            before = frames.on(frames.days_N < day)
        forecast_YX = self._forecast(fitted, np.ones(len(fitted["history"]), bool), before, day)
        bias_YX, spread_YX = HarmonicModel(harmonics=0).predict(part_of(fitted, "error"), {}, day)
        return forecast_YX + bias_YX, np.maximum(spread_YX, np.float32(LEAST_SPREAD) * fitted["curve.spread"])

    def advance(self, fitted: Arrays, state: Arrays, x_YX: np.ndarray, valid_YX: np.ndarray, day: float) -> Arrays:
        """The state with this date as its last frame; the same where nothing at all was seen."""
        if not valid_YX.any():
            return state
        frame_YX = self._clipped(fitted, np.where(valid_YX, x_YX, 0)[None].astype(np.float32), np.array([day]))
        new = {"frames": frame_YX, "frames_valid": valid_YX[None], "frames_day": np.full((1, 1, 1), day)}
        return {name: np.concatenate([state[name][1:], value]) for name, value in new.items()}

    def _clipped(self, fitted: Arrays, x_TYX: np.ndarray, days_T: np.ndarray) -> np.ndarray:
        """The frames, no further off the curve than `CLIP` spreads; a pixel's own curve, so that tiles equal the whole."""
        curve, clipped = part_of(fitted, "curve"), np.empty_like(x_TYX)
        for t, day in enumerate(days_T):
            expected_YX, spread_YX = self.harmonic.predict(curve, {}, float(day))
            clipped[t] = np.clip(x_TYX[t], expected_YX - CLIP * spread_YX, expected_YX + CLIP * spread_YX)
        return clipped

    def _forecast(self, fitted: Arrays, usable_N: np.ndarray, frames: Observations, day: float) -> np.ndarray:
        """y_YX of `day` from at most `context` frames before it; those that are missing are steps on which nothing was seen."""
        missing = self.context - len(frames.days_N)
        next_day = float(frames.days_N[0]) if len(frames.days_N) else day
        frames = _padded(frames, next_day - self.step_days * np.arange(missing, 0, -1))
        x_NYX, valid_NYX, days_N = map(np.concatenate, zip(_history(fitted), frames, strict=True))
        usable = np.concatenate([usable_N, np.zeros(self.context, bool)])
        y_KCHW = self.forecaster.forecast(
            torch.from_numpy(x_NYX)[:, None],
            torch.from_numpy(valid_NYX),
            torch.from_numpy(days_N),
            torch.arange(len(usable_N), len(usable)),
            torch.from_numpy(usable),
            torch.tensor([day], dtype=torch.float64),
        )
        return y_KCHW[0, 0].numpy()


def _padded(frames: Observations, empty_days: np.ndarray) -> Observations:
    """The frames after some on which nothing was seen."""
    empty = np.zeros((len(empty_days), *frames.x_NYX.shape[1:]), bool)
    return Observations(*map(np.concatenate, zip((empty.astype(np.float32), empty, empty_days), frames, strict=True)))


def _history(fitted: Arrays) -> Observations:
    return Observations(fitted["history"], fitted["history_valid"], fitted["history_day"].ravel())


def check_forecaster(metadata: Mapping[str, Any], variable: Variable, start: datetime, run: str) -> None:
    """Raises RequestError unless the forecaster of `run` predicts the one variable that is monitored. Logs a warning if it was
    trained or validated on dates from `start` (UTC) on."""
    if metadata.get("covariates"):
        names = ", ".join(str(one["name"]) for one in metadata["covariates"])
        raise RequestError(
            f"the forecaster in {run} needs the covariates {names}, which monitoring does not give: train one without"
        )
    monitored = {"formula": variable.formula, "bands": list(variable.bands), "transform": variable.transform}
    found = [{name: one.get(name) for name in monitored} for one in metadata.get("variables", [])]
    if found != [monitored]:
        raise RequestError(
            f"the forecaster in {run} predicts {found}, and what is monitored is {monitored}: train one on that variable alone, "
            "or use monitoring.model: {kind: harmonic}"
        )
    known_until = datetime.fromisoformat(metadata["split"]["test_from"]).replace(tzinfo=None)
    if known_until > start:
        log.warning(
            "the forecaster in %s was trained and validated on dates until %s, monitoring starts %s: changes in between may look "
            "usual to it; train it with split.test_from at monitoring.start",
            run, f"{known_until:%Y-%m-%d}", f"{start:%Y-%m-%d}",
        )  # fmt: skip
