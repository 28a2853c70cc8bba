"""Which forecast is published: chosen on the validation part, so that the test part measures it (docs/design/017)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError
from pipelines.learning.intervals import Interval
from pipelines.learning.result import COMBINATION, named
from pipelines.learning.window_work import Pass, WindowTally, tell_all
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays

Publish = Literal["best", "network", "beyond_doubt"]
COMBINED_WITHIN, MOST_WITHIN = 0.5, 0.2  # over the root of the validation dates, at most; see `choose_members`
LEAST_METHODS = 3  # the network and two baselines: with one baseline the choice is between the two
EQUAL_WITHIN = 0.01  # of the mean error: forecasts that nowhere differ by more are one forecast
SIMPLEST_FIRST = (
    "persistence", "context_mean", "context_trend", "climatology", "same_date_last_year", "median_anomaly", "decaying_anomaly",
    "harmonic", "translation", "optical_flow", "moving_field", "boosting_without_covariates", "gradient_boosting",
)  # fmt: skip
NOT_COMBINED = ("boosting_without_covariates",)  # it is there to show what covariates are worth


@dataclass(frozen=True)
class Choice:
    """The method that is published, the best baseline, and why. errors: mean absolute error of every method on validation.

    members: of the combination, whether it is published or not; () where there is none. equal: by name, the methods that forecast
    the same on validation as a simpler one, and which; the combination counts them once.
    """

    published: str
    baseline: str
    reason: str
    errors: Mapping[str, float]
    members: tuple[str, ...] = ()
    equal: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class WindowErrors(NamedTuple):
    """Valid target pixels and their days; sums of truth and its squares (C, 2); of each method its absolute errors (C,).

    apart: of two methods, the largest difference on any pixel, (C,).
    """

    pixels: int
    days: set[float]
    truth_C2: np.ndarray
    absolute: dict[str, np.ndarray]
    apart: dict[frozenset[str], np.ndarray]


class ErrorSums(WindowTally):
    """Mean absolute errors over valid target pixels, collected window by window.

    Of several variables the mean, each over its spread.
    """

    def __init__(self) -> None:
        self._absolute: dict[str, np.ndarray] = {}
        self._pixels, self._truth, self._days = 0, np.zeros((1, 2)), set[float]()
        self._apart: dict[frozenset[str], np.ndarray] = {}  # of two methods, by variable: the largest difference on any pixel

    @property
    def dates(self) -> int:
        """How many target dates have a valid pixel."""
        return len(self._days)

    def measure(self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: object = None) -> WindowErrors:
        target_CKHW, valid_KHW = np.moveaxis(window.target_KCHW.numpy(), 1, 0), window.target_valid_KHW.numpy()
        seen_CP = target_CKHW[:, valid_KHW].astype(np.float64)
        absolute = {}
        for name, y_KCHW in forecasts.items():
            error_CP = np.moveaxis(y_KCHW, 1, 0)[:, valid_KHW] - seen_CP
            absolute[name] = np.abs(error_CP).sum(axis=1)
        return WindowErrors(
            seen_CP.shape[1],
            {day for day, valid in zip(window.target_days_K.tolist(), valid_KHW, strict=True) if valid.any()},
            np.stack([seen_CP.sum(axis=1), (seen_CP**2).sum(axis=1)], axis=1),
            absolute,
            {
                frozenset((one, other)): _largest_difference(forecasts[one], forecasts[other])
                for one, other in combinations(forecasts, 2)
            },
        )

    def include(self, measured: WindowErrors) -> None:
        self._pixels += measured.pixels
        self._days |= measured.days
        self._truth = self._truth + measured.truth_C2
        for name, absolute_C in measured.absolute.items():
            self._absolute[name] = self._absolute.get(name, np.zeros(1)) + absolute_C
        for pair, apart_C in measured.apart.items():
            self._apart[pair] = np.maximum(self._apart.get(pair, 0.0), apart_C)

    @property
    def equal(self) -> dict[str, str]:
        """Methods that forecast the same on every window as a simpler one, by name: that one.

        The same: of no variable and on no pixel, seen or not, do they differ by more than `EQUAL_WITHIN` of the mean error.
        """
        names = sorted((name for name in self._absolute if name not in NOT_COMBINED), key=_simplicity)
        distinct, found = list[str](), dict[str, str]()
        for name in names:
            if twin := next((one for one in distinct if self._are_equal(name, one)), None):
                found[name] = twin
            else:
                distinct.append(name)
        return found

    def _are_equal(self, one: str, other: str) -> bool:
        least_C = np.minimum(self._absolute[one], self._absolute[other]) / max(self._pixels, 1)
        return bool((self._apart[frozenset((one, other))] <= EQUAL_WITHIN * least_C).all())

    def means(self) -> dict[str, float]:
        """By method. Raises RequestError if no window has a valid target pixel."""
        if self._pixels == 0:
            raise RequestError("no validation window has a valid target pixel; mend `split` or the quality mask")
        spread_C = np.ones(1)
        if len(self._truth) > 1:
            mean_C = self._truth[:, 0] / self._pixels
            spread_C = np.sqrt(np.maximum(self._truth[:, 1] / self._pixels - mean_C**2, 0))
            spread_C = np.where(spread_C > 0, spread_C, 1.0)
        return {name: float((sums_C / self._pixels / spread_C).mean()) for name, sums_C in self._absolute.items()}


def _largest_difference(one_KCHW: np.ndarray, other_KCHW: np.ndarray) -> np.ndarray:
    """Of each variable, (C,); NaN where only one of them is not a number."""
    both_missing = np.isnan(one_KCHW) & np.isnan(other_KCHW)
    apart_KCHW = np.where(both_missing, 0.0, np.abs(one_KCHW - other_KCHW))
    apart_C: np.ndarray = np.moveaxis(apart_KCHW, 1, 0).reshape(apart_KCHW.shape[1], -1).max(axis=1)
    return apart_C


def tally_errors(
    forecasters: Mapping[str, Forecaster], windows: Iterable[WindowArrays], progress: Progress | None = None,
    compute: Compute = HERE,
) -> ErrorSums:  # fmt: skip
    """The errors of every forecaster."""
    errors = ErrorSums()
    tell_all([Pass(forecasters, windows, [errors])], compute, progress)
    return errors


def choose_members(
    errors: Mapping[str, float], dates: int, equal: Mapping[str, str] | None = None, corrected: str = "", network: str = "model"
) -> tuple[str, ...]:
    """Those whose mean is a candidate: methods that so few target dates do not tell from the one with the smallest error.

    Their error is above that by a share of at most 0.5 over the root of `dates`, and never by more than 20 %: 10 % of 25 dates.
    () where that is one alone, or there are not three to choose from. equal: those that are left out, as `ErrorSums.equal`.
    corrected: the baseline that the network corrects; the mean of these two alone would be half of the correction, whose size has
    been chosen already.

    >>> choose_members({"model": 0.1, "gradient_boosting": 0.105, "persistence": 0.2}, 25)
    ('model', 'gradient_boosting')
    """
    known = {name: error for name, error in errors.items() if name not in (*NOT_COMBINED, *(equal or ()))}
    if len(known) < LEAST_METHODS or dates < 1:
        return ()
    within = min(COMBINED_WITHIN / math.sqrt(dates), MOST_WITHIN)
    good = tuple(name for name, error in known.items() if error <= min(known.values()) * (1 + within))
    is_half = set(good) == {network, (equal or {}).get(corrected, corrected)}
    return good if len(good) > 1 and not is_half else ()


def choose(
    errors: Mapping[str, float], skills: Mapping[str, Mapping[str, Interval]], network: str, publish: Publish, margin: float,
    members: tuple[str, ...] = (),
) -> Choice:  # fmt: skip
    """What `evaluation.publish` takes. errors: on validation, that of the combination of `members` among them.

    skills: of the network, and of the combination, over each baseline on the test part.

    >>> choose({"model": 0.1, "persistence": 0.2}, {}, "model", "best", 0.01).published
    'model'
    """
    baselines = sorted((name for name in errors if name not in (network, COMBINATION)), key=_simplicity)
    if not baselines:
        return Choice(network, "", "there is no baseline to compare it with", dict(errors), members)
    least = min(baselines, key=lambda name: errors[name])
    best = next(name for name in baselines if errors[name] <= errors[least] * (1 + margin))
    gain = 1 - errors[network] / errors[least] if errors[least] > 0 else 0.0
    found = f"on the validation part the network's error is {_compared(gain)} that of the best baseline, {least}"
    if errors[least] == 0:
        found = f"on the validation part {least} makes no error"
    simplest = f"; {best}, which is simpler, is equal within {margin * 100:g} %" if best != least else ""
    single = (network, found) if gain >= margin else (best, f"{found}{simplest}")
    wanted = [*_combined(errors, network, least), single]

    def outcome(name: str, baseline: str) -> str:
        of_name = skills.get(name, {})
        return of_name[baseline].outcome(margin) if baseline in of_name else ""

    if publish == "network":
        published, reason = network, f"as evaluation.publish asks, whatever its error; {found}"
    elif publish == "beyond_doubt":
        tried = [COMBINATION, network] if network in members and COMBINATION in errors else [network]
        doubtful = {name: [one for one in baselines if outcome(name, one) != "beats"] for name in tried}
        published = next((name for name in tried if not doubtful[name]), best)
        reason = "on the test part it beats every baseline beyond doubt"
        if published == best:
            beaten = [f"{named(name, network)} does not beat {' or '.join(doubtful[name])} beyond doubt" for name in tried]
            reason = f"on the test part {' and '.join(beaten)}"
    else:
        lost = []
        for published, reason in [*wanted, (best, "")]:
            if published == best or outcome(published, best) != "loses":
                break
            lost.append(f"{reason}, and on the test part {named(published, network)} loses to {best}")
        reason = "; ".join([*lost, *filter(None, [reason])])
    return Choice(published, best, reason, dict(errors), members)


def _combined(errors: Mapping[str, float], network: str, least: str) -> list[tuple[str, str]]:
    """The combination, where there is one: its error exceeds the smallest by no more than that of its worst member does."""
    if COMBINATION not in errors:
        return []
    single = min(network, least, key=lambda name: errors[name])
    gain = 1 - errors[COMBINATION] / errors[single] if errors[single] > 0 else 0.0
    found = f"{_compared(gain)} that of the best single method, {named(single, network)}"
    return [(COMBINATION, f"on the validation part its error is {found}")]


def _simplicity(name: str) -> int:
    return SIMPLEST_FIRST.index(name) if name in SIMPLEST_FIRST else len(SIMPLEST_FIRST)


def _compared(gain: float) -> str:
    return f"{abs(gain) * 100:.1f} % {'smaller' if gain >= 0 else 'larger'} than"
