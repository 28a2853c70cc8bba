"""The model beside its baselines on the same held-out windows: errors, skill with intervals, coverage and a verdict."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import numpy as np

from pipelines.calendar import from_days
from pipelines.errors import RequestError, StateError
from pipelines.learning.conformal import CoverageTally, Intervals, forecast_window
from pipelines.learning.intervals import Interval
from pipelines.learning.metrics import ABSOLUTE, PIXELS, ErrorTable, ErrorTally, scores
from pipelines.learning.result import Criterion, Evaluation, Figure
from pipelines.learning.skill import paired_skill, skill_json
from pipelines.learning.verdict import Verdict, forecast_verdict
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays
from pipelines.tiles import Tile


@dataclass(frozen=True)
class EvaluationSettings:
    """`model` is the name of the forecaster on trial; all others are its baselines. `variables` are the names of the C axis.

    `ssim_range_C`: data range of each variable for SSIM; default: the range of the valid values of each tile over all dates.
    `margin`: the smallest difference that matters, a share of the baseline's error. `publish_if`: see `Verdict`.
    """

    model: str = "model"
    must_beat: tuple[str, ...] = ("persistence", "climatology")
    variables: tuple[str, ...] = ()
    margin: float = 0.01
    confidence: float = 0.95
    publish_if: str = "smaller_error"  # | "beyond_doubt"
    ssim_range_C: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """What was measured. `metrics[name]` and `skill[baseline]` hold `overall` and `by_lead`; `by_date` feeds the plots."""

    model: str
    metrics: dict[str, dict[str, Any]]
    skill: dict[str, dict[str, Any]]
    verdict: Verdict
    criteria: tuple[Criterion, ...]
    intervals: dict[str, Any] | None
    by_date: dict[str, Any]
    counts: dict[str, int]
    protocol: str
    tables: dict[str, ErrorTable] = field(repr=False, compare=False)

    def to_evaluation(self, intervals: Intervals | None = None) -> Evaluation:
        """The same as every task states it; `intervals` are kept under details.calibration, for `predict`."""
        details = {name: getattr(self, name) for name in ("metrics", "skill", "intervals", "by_date", "counts")}
        calibration = {"calibration": intervals.to_json()} if intervals else {}
        methods = {name: dict(of_name["overall"]) for name, of_name in self.metrics.items()}
        return Evaluation(self.model, methods, self.verdict, self.criteria, {**details, **calibration}, protocol=self.protocol)


def evaluate(
    forecasters: Mapping[str, Forecaster],
    windows: Iterable[WindowArrays],
    settings: EvaluationSettings,
    progress: Progress | None = None,
    *,
    intervals: Intervals | None = None,
) -> Comparison:
    """Every forecaster on every window (read once, in order), on valid target pixels only.

    `intervals` are the model's; their coverage is measured on the same windows. `progress(done, total)` counts windows; total is
    known where `windows` has a length.

    Raises RequestError if `model` or a baseline that must be beaten is not among the forecasters, or no valid target pixel is
    there; StateError if a forecast is not finite where the truth is known.
    """
    _check_names(forecasters, settings)
    tallies = {name: ErrorTally() for name in forecasters}
    coverage = CoverageTally(intervals) if intervals else None
    range_of_tile: dict[Tile, np.ndarray] = {}
    count = 0
    for count, window in enumerate(windows, start=1):
        if window.tile not in range_of_tile:
            range_of_tile[window.tile] = _data_range(window, settings)
        truth = window.target_KCHW.numpy(), window.target_valid_KHW.numpy(), window.target_days_K.numpy()
        for name, forecaster in forecasters.items():
            y_KCHW = forecast_window(forecaster, window)
            _check_finite(y_KCHW, name, window)
            tallies[name].add(y_KCHW, *truth, range_of_tile[window.tile])
            if coverage and name == settings.model:
                coverage.add(window, y_KCHW)
        if progress:
            progress(count, max(count, length_hint(windows)))
    if tallies[settings.model].is_empty:
        raise RequestError(
            f"none of the {count} test windows has a valid target pixel; mend `split` (test_from, block_px) or the quality mask"
        )
    tables = {name: tally.table() for name, tally in tallies.items()}
    return _conclude(tables, settings, coverage, count)


def _check_names(forecasters: Mapping[str, Forecaster], settings: EvaluationSettings) -> None:
    missing = [name for name in (settings.model, *settings.must_beat) if name not in forecasters]
    if missing:
        raise RequestError(
            f"{', '.join(missing)} must be evaluated but is not among the forecasters ({', '.join(forecasters)}); "
            "every name in evaluation.must_beat must stand in evaluation.baselines"
        )


def _check_finite(y_KCHW: np.ndarray, name: str, window: WindowArrays) -> None:
    bad = ~np.isfinite(y_KCHW).all(axis=1) & window.target_valid_KHW.numpy()
    if bad.any():
        k = int(bad.reshape(len(bad), -1).any(axis=1).argmax())
        date = np.datetime_as_string(from_days(window.target_days_K[k].numpy()), unit="D")
        raise StateError(
            f"{name} forecast {int(bad.sum())} values that are not finite, tile {window.tile.key}, lead {k + 1} ({date})"
        )


def _data_range(window: WindowArrays, settings: EvaluationSettings) -> np.ndarray:
    """(C,) for SSIM."""
    if settings.ssim_range_C is not None:
        return np.array(settings.ssim_range_C, np.float64)
    seen_NCHW, valid_N1HW = window.x_NCHW.numpy(), window.valid_NHW.numpy()[:, None]
    rest = (0, *range(2, seen_NCHW.ndim))
    low = np.where(valid_N1HW, seen_NCHW, np.inf).min(axis=rest)
    range_C: np.ndarray = np.where(valid_N1HW, seen_NCHW, -np.inf).max(axis=rest) - low
    return range_C


def _conclude(
    tables: dict[str, ErrorTable], settings: EvaluationSettings, coverage: CoverageTally | None, windows: int
) -> Comparison:
    of_model = tables[settings.model]
    scale_C = of_model.spread() if of_model.sums_DKCS.shape[2] > 1 else np.ones(1)
    sums = {name: table.scaled(scale_C) for name, table in tables.items()}
    baselines = [name for name in tables if name != settings.model]
    skills = {name: _skills(sums[settings.model], sums[name], settings.confidence) for name in baselines}
    errors = {name: float(sums[name][..., ABSOLUTE].sum()) for name in baselines}
    overall = {name: of_baseline[0] for name, of_baseline in skills.items()}
    verdict = forecast_verdict(
        overall,
        errors,
        settings.must_beat,
        margin=settings.margin,
        confidence=settings.confidence,
        publish_if=settings.publish_if,
    )
    return Comparison(
        model=settings.model,
        metrics={name: _metrics(tables[name], sums[name], settings.variables) for name in tables},
        skill={
            name: _labelled([skill_json(skill, settings.margin) for skill in of_baseline]) for name, of_baseline in skills.items()
        },
        verdict=verdict,
        criteria=tuple(_criteria(overall, settings)),
        intervals=coverage.to_json() if coverage else None,
        by_date=_by_date(of_model, sums),
        counts={"windows": windows, "dates": len(of_model.days_D), "pixels": int(sums[settings.model][..., PIXELS].sum())},
        protocol=_protocol(settings, scale_C),
        tables=tables,
    )


def _skills(model_DKS: np.ndarray, baseline_DKS: np.ndarray, confidence: float) -> list[Interval]:
    """Skill over all leads, then of each lead; dates without a valid pixel at that lead are left out."""
    found = []
    for leads in (slice(None), *(slice(k, k + 1) for k in range(model_DKS.shape[1]))):
        seen_D = model_DKS[:, leads, PIXELS].sum(axis=1) > 0
        model_D, baseline_D = (sums[seen_D][:, leads, ABSOLUTE].sum(axis=1) for sums in (model_DKS, baseline_DKS))
        found.append(paired_skill(model_D, baseline_D, confidence=confidence))
    return found


def _criteria(skills: Mapping[str, Interval], settings: EvaluationSettings) -> Iterator[Criterion]:
    """What `settings.publish_if` requires against each baseline that must be beaten; `failing` decides by the same numbers."""
    for name in settings.must_beat:
        skill = skills[name].to_json()
        yield Criterion(f"error saved against {name}", _finite(skill["value"]), settings.margin, unit="of its error")
        if settings.publish_if == "beyond_doubt":
            yield Criterion(f"error saved against {name}, lower end of its interval", _finite(skill["low"]), 0.0)


def _finite(value: Figure) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _metrics(table: ErrorTable, sums_DKS: np.ndarray, variables: tuple[str, ...]) -> dict[str, Any]:
    count = sums_DKS.shape[1]
    metrics = _labelled(
        [scores(sums_DKS[:, leads].sum(axis=(0, 1))) for leads in (slice(None), *(slice(k, k + 1) for k in range(count)))]
    )
    names = variables or tuple(f"variable {c}" for c in range(table.sums_DKCS.shape[2]))
    if len(names) > 1:
        metrics["by_variable"] = {name: scores(table.sums_DKCS[:, :, c].sum(axis=(0, 1))) for c, name in enumerate(names)}
    return metrics


def _labelled(overall_then_leads: list[dict[str, Any]]) -> dict[str, Any]:
    overall, *leads = overall_then_leads
    return {"overall": overall, "by_lead": [{"lead": k, **lead} for k, lead in enumerate(leads, start=1)]}


def _by_date(table: ErrorTable, sums: dict[str, np.ndarray]) -> dict[str, Any]:
    """MAE of every forecaster on each target date, with the number of pixels that stand behind it."""
    dates = [str(date) for date in np.datetime_as_string(from_days(table.days_D), unit="s")]
    totals = {name: total_DKS.sum(axis=1) for name, total_DKS in sums.items()}
    mae = {name: (total_DS[:, ABSOLUTE] / total_DS[:, PIXELS]).tolist() for name, total_DS in totals.items()}
    pixels = next(iter(totals.values()))[:, PIXELS].astype(int).tolist()
    return {"date": dates, "pixels": pixels, "mae": mae}


def _protocol(settings: EvaluationSettings, scale_C: np.ndarray) -> str:
    several = "standard deviations of each variable's test targets, averaged over variables"
    unit = "physical units" if len(scale_C) == 1 else several
    ranges = settings.ssim_range_C or "the range of each tile's valid values over all dates"
    return (
        f"Test windows lie in held-out blocks and after the start of the test period. Errors in {unit}, over valid target "
        "pixels, every pixel the same weight; baselines are refitted on every date up to the issue date. skill = 1 - MAE of the "
        f"model / MAE of the baseline; interval: Student's t at {settings.confidence * 100:g} % over the paired differences of "
        "target dates, with the effective number of dates of an AR(1) (dates in their order, unequal gaps not used). A win or a "
        f"loss also takes a difference of {settings.margin * 100:g} % of the baseline's error. SSIM: 7x7 uniform window, data "
        f"range {ranges}; pixels that are not valid are filled alike in forecast and truth, the mean runs over valid pixels."
    )
