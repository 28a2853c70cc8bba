"""Thresholds of change learnt from patients with a reference: of each patient from the others alone (leave one patient out)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.follow_up.agreement import Counts, count_agreement, dice, lesion_f1
from pipelines.follow_up.change_score import METHODS, ChangeScores, ChangeSettings, changed

DEFAULTS = {"proposal": 3.5, "differencing": 6.0}  # where no patient has a reference; see docs/follow-up.md
TRIED = {
    "proposal": (2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0),
    "differencing": (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0),
}
Quality = dict[str, dict[float, float]]  # method -> threshold -> what is made large


def qualities(
    scores: Sequence[ChangeScores], reference_ZYX: np.ndarray, voxel_ml: float, settings: ChangeSettings, axis: int = 0
) -> Quality:
    """The mean of Dice and lesion F1 of one patient at every threshold that is tried; `scores` of all intervals together."""
    found: Quality = {}
    for method in METHODS:
        masks = {t: found_change(scores, method, t, settings, axis) for t in TRIED[method]}
        found[method] = {}
        for threshold, mask in masks.items():
            total = count_agreement(reference_ZYX, {method: mask}, voxel_ml).by_method[method].sum(axis=0)
            found[method][threshold] = float(np.nan_to_num((dice(total) + lesion_f1(total)) / 2))
    return found


def found_change(
    scores: Sequence[ChangeScores], method: str, threshold: float, settings: ChangeSettings, axis: int = 0
) -> np.ndarray:
    """Where any interval has change by a method, bool on the whole grid."""
    masks = [changed(one, method, threshold, settings, axis) != 0 for one in scores]
    return np.asarray(np.any(masks, axis=0))


def choose_thresholds(known: Mapping[str, Quality]) -> dict[str, float]:
    """method -> the threshold with the largest mean over the patients in `known`; `DEFAULTS` without any. Of equal ones the
    larger one, which finds less."""
    if not known:
        return dict(DEFAULTS)
    chosen = {}
    for method in METHODS:
        means = {t: float(np.mean([one[method][t] for one in known.values()])) for t in TRIED[method]}
        chosen[method] = max(means, key=lambda t: (means[t], t))
    return chosen


def held_out_thresholds(known: Mapping[str, Quality], patients: Sequence[str]) -> dict[str, dict[str, float]]:
    """patient -> method -> threshold, never chosen on the patient's own reference."""
    return {
        patient: choose_thresholds({name: quality for name, quality in known.items() if name != patient}) for patient in patients
    }


def fix_threshold(learnt: Mapping[str, dict[str, float]], proposal: float | None) -> dict[str, dict[str, float]]:
    """The thresholds with that of the proposal as a config states it, if it does."""
    return {name: {**one, **({} if proposal is None else {"proposal": proposal})} for name, one in learnt.items()}


def count_methods(
    scores: Sequence[ChangeScores], reference_ZYX: np.ndarray, voxel_ml: float, thresholds: Mapping[str, float],
    settings: ChangeSettings, axis: int = 0,
) -> Counts:  # fmt: skip
    """Agreement of both methods with the reference of one patient, on the same voxels."""
    found = {method: found_change(scores, method, thresholds[method], settings, axis) for method in METHODS}
    return count_agreement(reference_ZYX, found, voxel_ml)
