"""One patient from images to rows: scores of change, lesions of each visit, what became of them, what a reader decided.

Patient -> score_patient -> (threshold) -> follow_patient -> FollowedPatient -> lesion_rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.follow_up.agreement import Counts
from pipelines.follow_up.calibration import Quality, count_methods, qualities
from pipelines.follow_up.change_score import (
    BrightSettings,
    ChangeScores,
    ChangeSettings,
    bright_lesions,
    changed,
    score_change,
)
from pipelines.follow_up.decisions import DecidedLesion, Decision, decide
from pipelines.follow_up.events import EVENTS, EventSettings, FollowedLesions, count_events, follow_lesions, lesions_by_change
from pipelines.follow_up.intensity import foreground
from pipelines.follow_up.measures import Measures, axial_axis, side_of
from pipelines.follow_up.patient import Patient
from pipelines.wording import counted

Row = dict[str, Any]
REJECTED = len(EVENTS) + 1  # the code of lesions that a reader rejected
CODES = {**dict(enumerate(EVENTS, start=1)), REJECTED: "rejected"}
NO_BRAIN = "no brain mask is given: skull and scalp count as brain, and false changes there are to be expected"
DAY = np.timedelta64(1, "D")
LEAST_SEEN = 0.5  # share of a lesion's voxels that both visits show


@dataclass(frozen=True)
class FollowUpSettings:
    """How patients are followed."""

    change: ChangeSettings
    bright: BrightSettings
    events: EventSettings


@dataclass(frozen=True)
class FollowedPatient:
    """What was found of a patient with T visits and I = T - 1 intervals.

    `change_IZYX`: int8, 1 brighter, -1 darker. `lesions`: a row for each lesion and interval. `unmatched`: decisions that find no
    lesion. `is_given`: lesions of the visits were marked by someone; else they are proposed. `score_IZYX`: of the proposal.
    """

    patient: Patient
    threshold: float
    change_IZYX: np.ndarray
    score_IZYX: np.ndarray
    followed: FollowedLesions
    lesions: tuple[DecidedLesion, ...]
    unmatched: tuple[Decision, ...]
    is_given: bool
    notes: tuple[str, ...] = ()

    @property
    def intervals(self) -> list[tuple[str, str]]:
        """The pairs of visits."""
        return list(pairwise(self.patient.visits))

    @property
    def counting(self) -> list[DecidedLesion]:
        """The rows that no reader has rejected."""
        return [one for one in self.lesions if one.counts]

    @property
    def events(self) -> dict[str, int]:
        """How many rows have each event, without rejected ones."""
        return count_events(one.change for one in self.counting)

    @property
    def decided(self) -> dict[str, int]:
        """How many rows are proposed, confirmed, rejected, moved."""
        found = [one.status for one in self.lesions]
        return {status: found.count(status) for status in ("proposed", "confirmed", "rejected", "moved")}

    @property
    def volumes_ml(self) -> list[float]:
        """Of all lesions that count, at each visit."""
        before = [[one.change.before for one in self.counting if one.change.interval == n] for n in range(len(self.intervals))]
        last = [one.change.after for one in self.counting if one.change.interval == len(self.intervals) - 1]
        return [sum(size.volume_ml for size in sizes if size is not None) for sizes in [*before, last]]

    def days(self, interval: int) -> int | None:
        """Between the visits of an interval; None where nothing states their dates."""
        if not self.patient.is_dated:
            return None
        times = self.patient.times
        return round(float((times[interval + 1] - times[interval]) / DAY))

    def event_codes(self, interval: int) -> np.ndarray:
        """uint8 (Z, Y, X): the code of the event (`CODES`) of each voxel that is lesion at either visit."""
        codes = {n: EVENTS.index(one.change.event) + 1 if one.counts else REJECTED for n, one in enumerate(self.lesions)}
        return self.followed.paint(codes, interval)


def brain_of(patient: Patient) -> tuple[np.ndarray, list[str]]:
    """(where lesions may lie, notes to the reader)."""
    if patient.brain_ZYX is not None:
        return patient.brain_ZYX.astype(bool), []
    return foreground(patient.images_TZYX), [NO_BRAIN]


def score_patient(patient: Patient, settings: FollowUpSettings) -> list[ChangeScores]:
    """The scores of every interval. Raises RequestError where an image has no contrast within the brain."""
    brain, _ = brain_of(patient)
    images, visits = patient.images_TZYX, patient.visits
    pairs = [(images[n : n + 2], visits[n : n + 2]) for n in range(len(images) - 1)]
    return [score_change(pair, brain, patient.grid.spacing, settings.change, names) for pair, names in pairs]


def try_thresholds(patient: Patient, settings: FollowUpSettings) -> Quality:
    """How well change of a patient with a reference is found with every threshold that is tried. Raises RequestError."""
    assert patient.reference_ZYX is not None, "only patients with a reference are asked for"
    scores, axis = score_patient(patient, settings), axial_axis(patient.grid)
    return qualities(scores, patient.reference_ZYX, patient.voxel_ml, settings.change, axis)


def count_patient(patient: Patient, thresholds: Mapping[str, float], settings: FollowUpSettings) -> Counts:
    """Agreement of both methods with the reference of a patient. Raises RequestError."""
    assert patient.reference_ZYX is not None, "only patients with a reference are asked for"
    scores, axis = score_patient(patient, settings), axial_axis(patient.grid)
    return count_methods(scores, patient.reference_ZYX, patient.voxel_ml, thresholds, settings.change, axis)


def follow_patient(
    patient: Patient,
    scores: Sequence[ChangeScores],
    threshold: float,
    settings: FollowUpSettings,
    decisions: Sequence[Decision] = (),
) -> FollowedPatient:
    """Change at a threshold, lesions, their events, and what was decided of them. Raises RequestError."""
    brain, notes = brain_of(patient)
    axis = axial_axis(patient.grid)
    change_IZYX = np.stack([changed(one, "proposal", threshold, settings.change, axis) for one in scores])
    is_given = patient.lesions_TZYX is not None
    codes = patient.lesions_TZYX
    if codes is None:
        bright = [
            bright_lesions(image, brain, patient.grid.spacing, settings.bright, visit)
            for image, visit in zip(patient.images_TZYX, patient.visits, strict=True)
        ]
        codes = lesions_by_change(bright[0][0], np.stack([left for _, left in bright]), change_IZYX)
    followed, unseen = keep_seen(follow_lesions(codes, patient.grid, settings.events), patient.images_TZYX)
    if unseen:
        notes.append(f"left out because a visit shows less than half of it: {counted(unseen, 'lesion')}")
    lesions, unmatched = decide(followed, patient.grid, patient.name, patient.visits, decisions)
    score_IZYX = np.stack([one.whole(one.scores["proposal"]) for one in scores])
    found = (tuple(lesions), tuple(unmatched), is_given, tuple(notes))
    return FollowedPatient(patient, threshold, change_IZYX, score_IZYX, followed, *found)


def keep_seen(followed: FollowedLesions, images_TZYX: np.ndarray) -> tuple[FollowedLesions, int]:
    """(the rows of which both visits show at least half, how many others there are): what is not shown has not disappeared."""
    is_lesion_ZYX = (followed.numbers_TZYX > 0).any(axis=0)
    if np.isfinite(images_TZYX[:, is_lesion_ZYX]).all():
        return followed, 0
    kept = []
    for change in followed.changes:
        pair_2ZYX = images_TZYX[change.interval : change.interval + 2]
        before, after = followed.masks(change)
        if np.isfinite(pair_2ZYX[:, before | after]).all(axis=0).mean() >= LEAST_SEEN:
            kept.append(change)
    return replace(followed, changes=tuple(kept)), len(followed.changes) - len(kept)


# ---------------------------------------------------------------- rows of the table

COLUMNS = (
    "patient", "lesion", "from_visit", "to_visit", "days", "event", "status",
    "volume_before_ml", "volume_after_ml", "change_ml", "change_percent", "explained_percent",
    "axial_before_mm", "perpendicular_before_mm", "longest_before_mm",
    "axial_after_mm", "perpendicular_after_mm", "longest_after_mm",
    "x_mm", "y_mm", "z_mm", "side", "found_x_mm", "found_y_mm", "found_z_mm",
    "lesions_before", "lesions_after", "confluent",
)  # fmt: skip


def lesion_rows(found: FollowedPatient) -> list[Row]:
    """A row for each lesion and interval, with the keys of `COLUMNS`; what is not there is "". Volumes in ml, lengths in mm.

    `explained_percent`: the change of volume that voxels at the edge explain. `found_*`: where the lesion lies by the images,
    `x_mm` and so on where a reader says that it does, if one did.
    """
    return [lesion_row(found, one) for one in found.lesions]


def lesion_row(found: FollowedPatient, one: DecidedLesion) -> Row:
    """The row of a lesion."""
    change, visits = one.change, found.intervals[one.change.interval]
    days = found.days(change.interval)
    volumes = [0.0 if size is None else size.volume_ml for size in (change.before, change.after)]
    start = (found.patient.name, change.number, *visits, "" if days is None else days, change.event, one.status)
    volume = (
        _ml(change.before), _ml(change.after), round(volumes[1] - volumes[0], 3), _percent(change.change), _percent(change.floor)
    )  # fmt: skip
    sizes = (*_lengths(change.before), *_lengths(change.after))
    place = (*(round(mm, 1) for mm in one.place_mm), side_of(one.place_mm[0]), *(round(mm, 1) for mm in change.place_mm))
    names = (_ids(change.numbers_before), _ids(change.numbers_after), "yes" if change.is_confluent else "no")
    return dict(zip(COLUMNS, (*start, *volume, *sizes, *place, *names), strict=True))


def _ml(size: Measures | None) -> float | str:
    return "" if size is None else round(size.volume_ml, 3)


def _percent(share: float | None) -> float | str:
    return "" if share is None else round(100 * share, 1)


def _lengths(size: Measures | None) -> tuple[float | str, ...]:
    if size is None:
        return "", "", ""
    return round(size.axial_mm, 1), round(size.perpendicular_mm, 1), round(size.longest_mm, 1)


def _ids(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))
