"""The model beside its baselines on the same held-out windows: errors, skill with intervals, coverage and a verdict.

Errors on valid target pixels are kept as sums per target date, so that they add up and dates can be resampled. Axes: D target
dates, K leads (0 is the first step after the issue date), C variables, S sums; what follows C may be anything: an image (H, W),
a volume (D, H, W), tokens, or nothing at all. Names that end in HW stand for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from skimage.metrics import structural_similarity

from pipelines.calendar import from_days, iso_utc, seconds_of
from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError, StateError
from pipelines.learning.choice import Publish, choose
from pipelines.learning.forecast_intervals import Calibrated
from pipelines.learning.interval_scores import IntervalTally
from pipelines.learning.intervals import Interval, paired_skill, skill_json
from pipelines.learning.result import COMBINATION, Evaluation, forecast_criteria, forecast_verdict
from pipelines.learning.threshold_scores import Thresholds, ThresholdTally
from pipelines.learning.window_work import Pass, WindowTally, tell_all
from pipelines.predictors import Combination, Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays
from pipelines.tiles import Box

SUMS = ("pixels", "absolute", "squared", "signed", "similarity", "frames", "truth", "truth_squared")
PIXELS, ABSOLUTE, SQUARED, SIGNED, SIMILARITY, FRAMES, TRUTH, TRUTH_SQUARED = range(len(SUMS))


@dataclass(frozen=True)
class EvaluationSettings:
    """`model` is the name of the network's forecaster; all others are its baselines, but for the combination of some of them.

    `variables` are the names of the C axis.

    `margin`: the smallest difference that matters, a share of the baseline's error. `publish`: see `pipelines.learning.choice`.
    """

    model: str = "model"
    variables: tuple[str, ...] = ()
    margin: float = 0.01
    confidence: float = 0.95
    publish: Publish = "best"
    thresholds: Thresholds = field(default_factory=Thresholds)


def evaluate(
    forecasters: Mapping[str, Forecaster], windows: Iterable[WindowArrays], settings: EvaluationSettings,
    progress: Progress | None = None, *, validation: Mapping[str, float], intervals: Mapping[str, Calibrated] | None = None,
    equal: Mapping[str, str] | None = None, others: Sequence[WindowTally] = (), compute: Compute = HERE,
) -> Evaluation:  # fmt: skip
    """Every forecaster on every window (read once, in order), on valid target pixels only, and the one that is published.

    `validation`: mean absolute errors on the validation part, by which that is chosen (`pipelines.learning.choice`); `equal`:
    which methods forecast the same there as a simpler one, and which. `intervals` are those of the forecasters, the model's
    among them; they are scored on the same windows. `progress(done, total)` counts windows; total is known where `windows` has a
    length. `others` are told of every window and all forecasts.

    In the details, `metrics[name]` and `skill[baseline]` hold `overall` and
    `by_lead`; `combined_skill` is that of the combination over each of the others, where there is one; `by_date` feeds the plots;
    `choice` says what is published and why; `calibration` are the intervals of that one and `calibrations` those of all by name,
    for `predict`; `intervals_of` are the scores of that one, the best baseline and the network; `thresholds` are scores
    of events, where the settings name some.

    Raises RequestError if `model` is not among the forecasters, or no valid target pixel is there; StateError if a forecast is
    not finite where the truth is known.
    """
    if settings.model not in forecasters:
        raise RequestError(f"{settings.model} must be evaluated but is not among the forecasters ({', '.join(forecasters)})")
    errors = MethodErrors(forecasters)
    scored = IntervalTally(intervals, settings.model) if intervals else None
    events = ThresholdTally(settings.thresholds) if settings.thresholds.values else None
    told = [tally for tally in (errors, scored, events, *others) if tally is not None]
    tell_all([Pass(forecasters, windows, told)], compute, progress)
    tallies, count = errors.tallies, errors.windows
    if tallies[settings.model].is_empty:
        raise RequestError(
            f"none of the {count} test windows has a valid target pixel; mend `split` (test_from, block_px) or the quality mask"
        )
    combined = forecasters.get(COMBINATION)
    members = tuple(combined.members) if isinstance(combined, Combination) else ()
    tables = {name: tally.table() for name, tally in tallies.items()}
    evaluation = _conclude(tables, settings, scored, validation, count, members, equal or {})
    scores = {"thresholds": events.to_json(settings.confidence)} if events else {}
    return replace(evaluation, details={**evaluation.details, **scores})


def _check_finite(y_KCHW: np.ndarray, name: str, window: WindowArrays) -> None:
    bad = ~np.isfinite(y_KCHW).all(axis=1) & window.target_valid_KHW.numpy()
    if bad.any():
        k = int(bad.reshape(len(bad), -1).any(axis=1).argmax())
        date = np.datetime_as_string(from_days(window.target_days_K[k].numpy()), unit="D")
        raise StateError(
            f"{name} forecast {int(bad.sum())} values that are not finite, tile {window.tile.key}, lead {k + 1} ({date})"
        )


def _data_range(window: WindowArrays) -> np.ndarray:
    """(C,): the range of the valid values of a tile over all dates, for SSIM."""
    seen_NCHW, valid_N1HW = window.x_NCHW.numpy(), window.valid_NHW.numpy()[:, None]
    rest = (0, *range(2, seen_NCHW.ndim))
    low = np.where(valid_N1HW, seen_NCHW, np.inf).min(axis=rest)
    range_C: np.ndarray = np.where(valid_N1HW, seen_NCHW, -np.inf).max(axis=rest) - low
    return range_C


def _conclude(
    tables: dict[str, ErrorTable], settings: EvaluationSettings, scored: IntervalTally | None, validation: Mapping[str, float],
    windows: int, members: tuple[str, ...], equal: Mapping[str, str],
) -> Evaluation:  # fmt: skip
    of_model = tables[settings.model]
    scale_C = of_model.spread() if of_model.sums_DKCS.shape[2] > 1 else np.ones(1)
    sums = {name: table.scaled(scale_C) for name, table in tables.items()}
    baselines = [name for name in tables if name not in (settings.model, COMBINATION)]
    skills = {
        ours: {name: _skills(sums[ours], sums[name], settings.confidence) for name in sums if name not in (ours, COMBINATION)}
        for ours in (settings.model, COMBINATION)
        if ours in sums
    }
    errors = {name: float(sums[name][..., ABSOLUTE].sum()) for name in baselines}
    whole = {ours: {name: found[0] for name, found in of_ours.items()} for ours, of_ours in skills.items()}
    choice = replace(choose(validation, whole, settings.model, settings.publish, settings.margin, members), equal=dict(equal))
    judged = COMBINATION if choice.published == COMBINATION else settings.model
    verdict = forecast_verdict(
        {name: whole[judged][name] for name in baselines}, errors, choice, margin=settings.margin, confidence=settings.confidence
    )
    metrics = {name: _metrics(tables[name], sums[name], settings.variables) for name in tables}
    said = {
        ours: {name: _labelled([skill_json(skill, settings.margin) for skill in found]) for name, found in of_ours.items()}
        for ours, of_ours in skills.items()
    }
    details: dict[str, Any] = {
        "metrics": metrics,
        "skill": said[settings.model],
        **({"combined_skill": said[COMBINATION]} if COMBINATION in said else {}),
        "choice": choice.to_json(),
        "intervals": scored.to_json(choice.published) if scored else None,
        "by_date": _by_date(of_model, sums),
        "counts": {"windows": windows, "dates": len(of_model.days_D), "pixels": int(sums[settings.model][..., PIXELS].sum())},
    }
    if scored:
        kept = [name for name in dict.fromkeys((choice.published, choice.baseline, settings.model)) if name in scored.intervals]
        details["intervals_of"] = {name: scored.to_json(name) for name in kept}
        details["calibrations"] = {name: intervals.to_json() for name, intervals in scored.intervals.items()}
        details["calibration"] = details["calibrations"][choice.published]
    methods = {name: dict(of_name["overall"]) for name, of_name in metrics.items()}
    ours = float(sums[choice.published][..., ABSOLUTE].sum())
    criteria, protocol = forecast_criteria(choice.published, ours, errors, settings.margin), _protocol(settings, scale_C)
    return Evaluation(choice.published, methods, verdict, criteria, details, protocol=protocol)


def _skills(model_DKS: np.ndarray, baseline_DKS: np.ndarray, confidence: float) -> list[Interval]:
    """Skill over all leads, then of each lead; dates without a valid pixel at that lead are left out."""
    found = []
    for leads in _overall_and_leads(model_DKS):
        seen_D = model_DKS[:, leads, PIXELS].sum(axis=1) > 0
        model_D, baseline_D = (sums[seen_D][:, leads, ABSOLUTE].sum(axis=1) for sums in (model_DKS, baseline_DKS))
        found.append(paired_skill(model_D, baseline_D, confidence=confidence))
    return found


def _metrics(table: ErrorTable, sums_DKS: np.ndarray, variables: tuple[str, ...]) -> dict[str, Any]:
    metrics = _labelled([scores(sums_DKS[:, leads].sum(axis=(0, 1))) for leads in _overall_and_leads(sums_DKS)])
    names = variables or tuple(f"variable {c}" for c in range(table.sums_DKCS.shape[2]))
    if len(names) > 1:
        metrics["by_variable"] = {name: scores(table.sums_DKCS[:, :, c].sum(axis=(0, 1))) for c, name in enumerate(names)}
    return metrics


def _overall_and_leads(sums_DKS: np.ndarray) -> list[slice]:
    return [slice(None), *(slice(k, k + 1) for k in range(sums_DKS.shape[1]))]


def _labelled(overall_then_leads: list[dict[str, Any]]) -> dict[str, Any]:
    overall, *leads = overall_then_leads
    return {"overall": overall, "by_lead": [{"lead": k, **lead} for k, lead in enumerate(leads, start=1)]}


def _by_date(table: ErrorTable, sums: dict[str, np.ndarray]) -> dict[str, Any]:
    """MAE of every forecaster on each target date, with the number of pixels that stand behind it."""
    dates = [iso_utc(date).removesuffix("Z") for date in from_days(table.days_D)]
    totals = {name: total_DKS.sum(axis=1) for name, total_DKS in sums.items()}
    mae = {name: (total_DS[:, ABSOLUTE] / total_DS[:, PIXELS]).tolist() for name, total_DS in totals.items()}
    pixels = next(iter(totals.values()))[:, PIXELS].astype(int).tolist()
    return {"date": dates, "pixels": pixels, "mae": mae}


def _protocol(settings: EvaluationSettings, scale_C: np.ndarray) -> str:
    several = "standard deviations of each variable's test targets, averaged over variables"
    unit = "physical units" if len(scale_C) == 1 else several
    return (
        f"Test windows lie in held-out blocks and after the start of the test period. Errors in {unit}, over valid target "
        "pixels, every pixel the same weight; baselines look at every date up to the issue date and are fitted on the training "
        "blocks up to the test period. skill = 1 - MAE of the "
        f"model / MAE of the baseline; interval: Student's t at {settings.confidence * 100:g} % over the paired differences of "
        "target dates, with the effective number of dates of an AR(1) (dates in their order, unequal gaps not used). A win or a "
        f"loss also takes a difference of {settings.margin * 100:g} % of the baseline's error. SSIM: 7x7 uniform window, data "
        "range the range of each tile's valid values over all dates; pixels that are not valid are filled alike in forecast and "
        "truth, the mean runs over valid pixels."
    )


# ---------------------------------------------------------------- errors


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


class FrameErrors(NamedTuple):
    """The sums (C, S) of the frame of a lead, of `leads`."""

    k: int
    leads: int
    seconds: float
    sums_CS: np.ndarray


class MethodErrors(WindowTally):
    """The errors of every method; `windows` counts what they were told of. Raises StateError for what is not finite."""

    def __init__(self, names: Iterable[str]) -> None:
        self.tallies, self.windows = {name: ErrorTally() for name in names}, 0
        self._range_of_tile: dict[Box, np.ndarray] = {}

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: object = None
    ) -> dict[str, list[FrameErrors]]:
        if window.tile not in self._range_of_tile:
            self._range_of_tile[window.tile] = _data_range(window)
        truth = window.target_KCHW.numpy(), window.target_valid_KHW.numpy(), window.target_days_K.numpy()
        found = {}
        for name, y_KCHW in forecasts.items():
            _check_finite(y_KCHW, name, window)
            found[name] = window_errors(y_KCHW, *truth, self._range_of_tile[window.tile])
        return found

    def include(self, measured: dict[str, list[FrameErrors]]) -> None:
        self.windows += 1
        for name, frames in measured.items():
            self.tallies[name].include(frames)


def window_errors(
    y_KCHW: np.ndarray, target_KCHW: np.ndarray, valid_KHW: np.ndarray, days_K: np.ndarray, range_C: np.ndarray
) -> list[FrameErrors]:
    """Of each frame with a valid pixel. range_C: data range of each variable for SSIM. Raises ValueError where shapes differ."""
    if y_KCHW.shape != target_KCHW.shape:
        raise ValueError(f"the forecast has shape {y_KCHW.shape}, the target {target_KCHW.shape}")
    K, C = y_KCHW.shape[:2]
    found = []
    for k, valid_HW in enumerate(valid_KHW):
        if np.any(valid_HW):
            of_frame = [frame_sums(y_KCHW[k, c], target_KCHW[k, c], valid_HW, float(range_C[c])) for c in range(C)]
            found.append(FrameErrors(k, K, float(seconds_of(days_K[k])), np.stack(of_frame)))
    return found


class ErrorTally:
    """Collects the errors of one forecaster, window by window."""

    def __init__(self) -> None:
        self._of_date: dict[float, np.ndarray] = {}

    def add(
        self, y_KCHW: np.ndarray, target_KCHW: np.ndarray, valid_KHW: np.ndarray, days_K: np.ndarray, range_C: np.ndarray
    ) -> None:
        """One window; see `window_errors`."""
        self.include(window_errors(y_KCHW, target_KCHW, valid_KHW, days_K, range_C))

    def include(self, frames: Iterable[FrameErrors]) -> None:
        for k, leads, seconds, sums_CS in frames:
            self._of_date.setdefault(seconds, np.zeros((leads, *sums_CS.shape)))[k] += sums_CS

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
