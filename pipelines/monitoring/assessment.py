"""What a monitoring run is worth, measured on its own cube: figures, acceptance criteria, doubts, and the sentence about them.

False alarms and simulated (injected) breaks in stable pixels, change that the images show, and the references beside it
(pipelines.monitoring.evaluation, yearly_pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RequestError
from pipelines.learning.result import Criterion, Evaluation, Figure, Verdict
from pipelines.monitoring.areas import MonitoredCube, read_areas
from pipelines.monitoring.context import ExpectedValues, MonitorSettings, calibrate_on
from pipelines.monitoring.detector import Detector
from pipelines.monitoring.evaluation import EvaluationSettings, calibrate_references, evaluate_monitor
from pipelines.monitoring.yearly_pairs import PairIndex, evaluate_pairs
from pipelines.wording import share_text

ODD_YEAR = 2.0  # a year of the history whose threshold is so many times that of any other
FEW_STABLE = 0.25
LEAST_FOUND, ENOUGH_PIXELS = 0.5, 20
PROTOCOL = (
    "False alarms are counted in stable pixels of the monitored period. Simulated breaks of known size are injected into the "
    "same pixels, the same break for 8 x 8 pixels, four times over, and count as found if the alarm comes within a year. Change "
    "that the images show is a fall (or rise) of the season's level beyond the limit: not truth on the ground. Thresholds come "
    "from the history alone, at the same rate of false alarms for all methods."
)
Content = Mapping[str, Any]  # JSON values


@dataclass(frozen=True)
class Rivals:
    """What the detector is compared with: `references` whose thresholds are still to be calibrated, and indices of image pairs.
    `pair_indices` is called only where the cube has more than one band."""

    references: Mapping[str, Detector]
    pair_indices: Callable[[], Mapping[str, PairIndex]]


def assess(
    cube: MonitoredCube, expected: ExpectedValues, settings: MonitorSettings, rivals: Rivals, chosen: EvaluationSettings
) -> tuple[Evaluation, str]:
    """(the evaluation, the key of the detector that it is of). Raises RequestError where the history or the period is missing."""
    calibration, rests_on = calibrate_on(cube, expected.value_model, settings)
    detector = settings.detector(expected.value_model, calibration)
    shipped = f"{expected.name} {type(detector.test).__name__.lower()}"
    series, notes, references = read_areas(cube, cube.dates), [], {}
    try:
        references = calibrate_references(rivals.references, series, cube.start_day, settings.false_alarms)
    except RequestError as e:  # the config sets the detector's threshold, the references have none
        notes.append(f"the comparison methods are left out: {e}")
    references.pop(shipped.replace(" ", "_"), None)  # the same method under another name
    found = evaluate_monitor({shipped: detector, **references}, series, cube.start_day, chosen)
    pairs = evaluate_pairs(cube, rivals.pair_indices, chosen.limit, chosen.direction)
    methods = {name: flat_figures(scores) for name, scores in found["methods"].items()}
    seen = seen_of(found["methods"][shipped])
    # monitoring is not gated: the criteria say what it is worth
    sentence = sentence_of(methods[shipped], chosen.drops, seen)
    verdict = Verdict({}, (), True, sentence, unit="blocks", margin=0.0, confidence=chosen.confidence)
    details = {**found, "pairs": pairs, "calibrated_on": rests_on, "fallback": expected.fallback}
    criteria = criteria_of(methods[shipped], chosen, seen)
    notes += doubts(rests_on or {}, found)
    return Evaluation(shipped, methods, verdict, criteria, details, tuple(notes), PROTOCOL), detector.key


def flat_figures(scores: Content) -> dict[str, Figure]:
    """`false_alarms`, and per size of break `found_SIZE` and `delay_SIZE` (median days); None where not measured."""
    figures: dict[str, Figure] = {"threshold": scores["threshold"]}
    figures["false_alarms"] = (scores.get("false_alarms") or {}).get("per_1000_px_year")
    for size, drop in (scores.get("drops") or {}).items():
        figures[f"found_{size}"] = drop["found"]
        figures[f"delay_{size}"] = drop["delay_days"][1] if drop["delay_days"] else None
    return figures


def seen_of(scores: Content) -> dict[str, int]:
    """How many pixels the images show to have changed, in all years, and how many of them were found."""
    years = [year for year in (scores.get("seen_in_images") or {}).values() if year["found"] is not None]
    return {"pixels": sum(y["pixels"] for y in years), "found": round(sum(y["pixels"] * y["found"] for y in years))}


def doubts(rests_on: Content, details: Content) -> list[str]:
    """What a reader should know before believing the figures: a threshold that depends on one year, few stable pixels."""
    notes, years = [], sorted((rests_on.get("years") or {}).items(), key=lambda pair: pair[1])
    if len(years) > 1 and years[-1][1] > ODD_YEAR * years[-2][1]:
        (_, others), (odd, value) = years[-2:]
        notes.append(
            f"the threshold depends on the year from {odd}, which alone reaches {value:.1f}, all others at most {others:.1f}: if "
            "something did change then, monitoring is less sensitive than it could be (`monitoring.test.threshold` sets another)"
        )
    stable, monitored = details.get("stable_pixels") or 0, details.get("monitored_pixels") or 0
    if 0 < stable < FEW_STABLE * monitored:
        notes.append(f"only {stable} of {monitored} pixels look stable: false alarms and delays are measured on these alone")
    return [*notes, *details.get("notes", [])]


def sentence_of(figures: Mapping[str, Figure], drops: Sequence[float], seen: Mapping[str, int]) -> str:
    """What was measured, in a sentence."""
    if figures.get("false_alarms") is None:
        return "False alarms and delays could not be measured here: too few stable pixels."
    parts = [
        f"drops of {drop:g}: {share_text(found)} found, median delay {delay:.0f} days"
        for drop in drops
        if isinstance(found := figures.get(f"found_{drop:g}"), int | float)
        if isinstance(delay := figures.get(f"delay_{drop:g}"), int | float)
    ]
    if seen["pixels"]:
        parts.append(f"{seen['found']} of {seen['pixels']} pixels whose change the images show are found")
    return f"{figures['false_alarms']:g} false alarms per 1000 stable pixels and year; " + "; ".join(parts) + "."


def criteria_of(figures: Mapping[str, Figure], chosen: EvaluationSettings, seen: Mapping[str, int]) -> tuple[Criterion, ...]:
    """What the config asks for: no more false alarms than `monitoring.test.false_alarms`; and that it is not insensitive. Few
    alarms alone are no merit: half of the largest drop, and half of what the images show, is the least that must be found."""
    rate = figures.get("false_alarms")
    if not isinstance(rate, int | float):
        return ()
    criteria = [Criterion("false alarms per 1000 stable pixels and year", rate, chosen.false_alarms, "at most")]
    largest = f"{max(chosen.drops, default=0):g}"
    found = figures.get(f"found_{largest}")
    if isinstance(found, int | float):
        criteria.append(Criterion(f"drops of {largest} found", found, LEAST_FOUND))
    if seen["pixels"] >= ENOUGH_PIXELS:
        criteria.append(Criterion("change that the images show found", seen["found"] / seen["pixels"], LEAST_FOUND))
    return tuple(criteria)
