"""What an evaluation of change says: figures of the proposal and of simple differencing, per patient and over all, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.follow_up.agreement import Counts, Estimate, compare, figures_of
from pipelines.follow_up.change_score import METHODS
from pipelines.learning.intervals import Interval
from pipelines.learning.result import CLAIMS, Evaluation, Verdict
from pipelines.wording import counted

PROPOSAL, DIFFERENCING = METHODS
OTHERS = 5  # patients; with fewer nothing is said of how figures vary from patient to patient
LEARNT_FROM_FEW = 5
PROTOCOL = (
    "Change that is proposed is compared with the reference mask of changes on the same voxels, and so is simple differencing "
    "(voxelwise difference of the standardised images). The threshold of each method was chosen, for each patient, on the other "
    "patients alone, by the mean of Dice and lesion-wise F1. A lesion of the reference is detected as in MSSEG (Commowick et al. "
    "2018): more than 10 % of it is covered, by found lesions that do not lie outside of the reference with more than 70 % of "
    "their volume; lesions of at most 3 mm³ are not counted. Intervals: bootstrap over places of change within each patient, "
    "without drawings that have no lesion of the reference."
)
ONE_MASK = (
    "The reference marks change, and not whether a lesion is new, gone, larger or smaller: the events in the tables are not "
    "measured here. They are tested on made lesions with known truth (docs/follow-up.md)."
)
FIXED = (
    "The threshold of the proposal is set in the config (change.threshold). If it was chosen by looking at these patients, the "
    "figures are better than they would be for others."
)


@dataclass(frozen=True)
class AskedFigures:
    """`confidence` of the intervals; `margin`: the smallest difference of lesion-wise F1 that matters."""

    confidence: float = 0.95
    margin: float = 0.02
    resamples: int = 2000


def conclude(
    counts: Mapping[str, Counts],
    thresholds: Mapping[str, Mapping[str, float]],
    asked: AskedFigures,
    shipped: Mapping[str, float],
    *,
    is_fixed: bool = False,
) -> Evaluation:
    """The evaluation of patients with a reference. `shipped`: the thresholds of patients without one; `is_fixed`: a person chose
    that of the proposal."""
    patients = {
        name: {method: _plain(figures) for method, figures in figures_of(one, asked.confidence, asked.resamples).items()}
        for name, one in counts.items()
    }
    every = list(counts.values())
    f1 = compare(every, "lesion_f1", PROPOSAL, DIFFERENCING, asked.confidence, asked.resamples)
    overlap = compare(every, "dice", PROPOSAL, DIFFERENCING, asked.confidence, asked.resamples)
    places = sum(len(next(iter(one.by_method.values()))) for one in every)
    methods = {method: _pooled(patients, method, (f1[n], overlap[n])) for n, method in enumerate(METHODS)}
    difference = Interval(f1[2].value, f1[2].low, f1[2].high, "blocks", places, sites=len(counts))
    outcome = difference.outcome(asked.margin)
    sentence = _sentence(methods, f1[2], overlap[2], CLAIMS[outcome].format(margin=f"{asked.margin:g}"), len(counts), asked)
    verdict = Verdict(
        {DIFFERENCING: outcome}, (), True, sentence, "blocks", asked.margin, asked.confidence, best_baseline=DIFFERENCING
    )
    details = {
        "patients": patients,
        "reference": {name: _reference(one) for name, one in counts.items()},
        "thresholds": {name: dict(one) for name, one in thresholds.items()},
        "shipped_thresholds": dict(shipped),
        "differences": {"lesion_f1": f1[2].to_json(), "dice": overlap[2].to_json()},
        "places": places,
    }
    return Evaluation(PROPOSAL, methods, verdict, (), details, tuple(_notes(len(counts), is_fixed)), PROTOCOL)


def _plain(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {key: one.to_json() for key, one in figures.items()}


def _reference(counts: Counts) -> dict[str, Any]:
    total = next(iter(counts.by_method.values())).sum(axis=0)
    return {"lesions": int(total[3]), "volume_ml": round(float(total[0]) * counts.voxel_ml, 3)}


def _pooled(patients: Mapping[str, Any], method: str, known: Sequence[Estimate]) -> dict[str, float | None]:
    """Means over the patients."""
    found: dict[str, float | None] = {}
    for key, one in zip(("lesion_f1", "dice"), known, strict=True):
        found |= {key: one.value, f"{key}_low": one.low, f"{key}_high": one.high}
    for key in ("sensitivity", "precision", "false_lesions", "volume_difference_ml"):
        values = [figures[method][key]["value"] for figures in patients.values()]
        defined = [value for value in values if value is not None]
        found[key] = float(np.mean(defined)) if defined else None
    return found


def _sentence(
    methods: Mapping[str, Mapping[str, Any]], f1: Estimate, overlap: Estimate, claim: str, patients: int, asked: AskedFigures
) -> str:
    ours, other = methods[PROPOSAL], methods[DIFFERENCING]

    def shown(figures: Mapping[str, Any], key: str) -> str:
        return "undefined" if figures[key] is None else f"{figures[key]:.3f}"

    def between(one: Estimate) -> str:
        return (
            ""
            if one.low is None or one.high is None
            else f" ({100 * asked.confidence:g} % interval {one.low:+.3f} to {one.high:+.3f})"
        )

    difference = "undefined" if f1.value is None else f"{f1.value:+.3f}"
    more = "undefined" if overlap.value is None else f"{overlap.value:+.3f}"
    by_f1 = claim.replace("the model", "the proposal")
    return (
        f"Change is proposed with a lesion-wise F1 of {shown(ours, 'lesion_f1')} and a Dice of {shown(ours, 'dice')}, means of "
        f"{counted(patients, 'patient')}. Simple differencing: F1 {shown(other, 'lesion_f1')}, difference {difference}"
        f"{between(f1)}; Dice {shown(other, 'dice')}, difference {more}{between(overlap)}. By F1, {by_f1}."
    )


def _notes(patients: int, is_fixed: bool) -> list[str]:
    notes = [ONE_MASK, *([FIXED] if is_fixed else [])]
    if patients < OTHERS:
        few = f"{counted(patients, 'patient')} with a reference"
        notes.append(f"{few}: the intervals hold for these lesions only, and say nothing of other patients.")
    if patients <= LEARNT_FROM_FEW:
        others = max(patients - 1, 0)
        learnt = f"chosen on {counted(others, 'other patient')}" if others else "the defaults: there is no other patient"
        notes.append(f"The thresholds of each patient were {learnt}, which is a weak basis.")
    return notes
