"""Which forecast is published: chosen on the validation part, so that the test part measures it (docs/design/017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import length_hint
from typing import Any, Literal

import numpy as np

from pipelines.errors import RequestError
from pipelines.learning.conformal import forecast_window
from pipelines.learning.intervals import Interval
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays

Publish = Literal["best", "network", "beyond_doubt"]
SIMPLEST_FIRST = (
    "persistence", "same_date_last_year", "climatology", "median_anomaly", "decaying_anomaly", "harmonic", "translation",
    "optical_flow", "moving_field", "boosting_without_covariates", "gradient_boosting",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The method that is published, the best baseline, and why. errors: mean absolute error of every method on validation."""

    published: str
    baseline: str
    reason: str
    errors: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def validation_errors(
    forecasters: Mapping[str, Forecaster], windows: Iterable[WindowArrays], progress: Progress | None = None
) -> dict[str, float]:
    """Mean absolute error of every forecaster over valid target pixels; of several variables the mean, each over its spread.

    Raises RequestError if no window has a valid target pixel.
    """
    absolute: dict[str, np.ndarray] = {name: np.zeros(1) for name in forecasters}
    pixels, truth = 0, np.zeros((1, 2))
    for done, window in enumerate(windows, start=1):
        target_CKHW, valid_KHW = np.moveaxis(window.target_KCHW.numpy(), 1, 0), window.target_valid_KHW.numpy()
        seen_CP = target_CKHW[:, valid_KHW].astype(np.float64)
        pixels += seen_CP.shape[1]
        truth = truth + np.stack([seen_CP.sum(axis=1), (seen_CP**2).sum(axis=1)], axis=1)
        for name, forecaster in forecasters.items():
            error_CP = np.moveaxis(forecast_window(forecaster, window), 1, 0)[:, valid_KHW] - seen_CP
            absolute[name] = absolute[name] + np.abs(error_CP).sum(axis=1)
        if progress:
            progress(done, max(done, length_hint(windows)))
    if pixels == 0:
        raise RequestError("no validation window has a valid target pixel; mend `split` or the quality mask")
    spread_C = np.ones(1)
    if len(truth) > 1:
        mean_C = truth[:, 0] / pixels
        spread_C = np.sqrt(np.maximum(truth[:, 1] / pixels - mean_C**2, 0))
        spread_C = np.where(spread_C > 0, spread_C, 1.0)
    return {name: float((sums_C / pixels / spread_C).mean()) for name, sums_C in absolute.items()}


def choose(errors: Mapping[str, float], skills: Mapping[str, Interval], network: str, publish: Publish, margin: float) -> Choice:
    """What `evaluation.publish` takes. errors: on validation; skills: of the network over each baseline on the test part.

    >>> choose({"model": 0.1, "persistence": 0.2}, {}, "model", "best", 0.01).published
    'model'
    """
    baselines = sorted((name for name in errors if name != network), key=_simplicity)
    if not baselines:
        return Choice(network, "", "there is no baseline to compare it with", dict(errors))
    least = min(baselines, key=lambda name: errors[name])
    best = next(name for name in baselines if errors[name] <= errors[least] * (1 + margin))
    gain = 1 - errors[network] / errors[least] if errors[least] > 0 else 0.0
    found = f"on the validation part the network's error is {_compared(gain)} that of the best baseline, {least}"
    simplest = f"; {best}, which is simpler, is equal within {margin * 100:g} %" if best != least else ""
    published, reason = (network, found) if gain >= margin else (best, f"{found}{simplest}")
    if publish == "network":
        published, reason = network, f"as evaluation.publish asks, whatever its error; {found}"
    elif publish == "beyond_doubt" and (doubtful := [name for name in baselines if _outcome(skills, name, margin) != "beats"]):
        published, reason = best, f"on the test part the network does not beat {', '.join(doubtful)} beyond doubt"
    elif publish == "beyond_doubt":
        published, reason = network, "on the test part it beats every baseline beyond doubt"
    elif published == network and _outcome(skills, best, margin) == "loses":
        published, reason = best, f"{found}, and on the test part the network loses to it"
    return Choice(published, best, reason, dict(errors))


def _outcome(skills: Mapping[str, Interval], name: str, margin: float) -> str:
    return skills[name].outcome(margin) if name in skills else ""


def _simplicity(name: str) -> int:
    return SIMPLEST_FIRST.index(name) if name in SIMPLEST_FIRST else len(SIMPLEST_FIRST)


def _compared(gain: float) -> str:
    return f"{abs(gain) * 100:.1f} % {'smaller' if gain >= 0 else 'larger'} than"
