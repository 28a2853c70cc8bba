"""What is published of patients that are followed: tables, maps, pictures, a page for each patient, and an index of all files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.files import write_json
from pipelines.follow_up.analysis import CODES, COLUMNS, FollowedPatient, lesion_rows
from pipelines.follow_up.decisions import Decision
from pipelines.products.follow_up_page import describe_decision, patient_sentence, write_patient_page
from pipelines.products.follow_up_pictures import changed_ml, draw_lesions, largest_changes
from pipelines.products.label_products import write_rows
from pipelines.products.nifti import write_nifti
from pipelines.products.volume_products import grid_facts

INDEX = "index.json"
LARGEST = 6  # lesions in a picture
ROLES = {
    "-lesions.csv": "a row for each lesion and pair of visits",
    "-change.nii.gz": "change that is proposed: 1 brighter, -1 darker; a frame for each pair of visits",
    "-lesions.nii.gz": "codes of events (`codes`) of the voxels that are lesion at either visit; a frame for each pair of visits",
    "-key-images.png": "the lesions that change most, before and after",
    ".html": "a page with tables, pictures and a reader's decisions",
}
UNKNOWN_TIME = np.datetime64("NaT")


@dataclass(frozen=True)
class FollowUpLineage:
    """What the products were made from, for the index. `decisions`: how many lines a reader's decisions have."""

    name: str
    snapshot: str
    config_hash: str
    code_version: str
    decisions: int


def write_patient(
    found: FollowedPatient, registration: Mapping[str, Any], run: str, change_share: float, decisions: str, folder: Path
) -> dict[str, Any]:
    """Writes the files of a patient; what index, summary and report say of it. Raises StorageFull."""
    name, grid, intervals = found.patient.name, found.patient.grid, range(len(found.intervals))
    rows = lesion_rows(found)
    write_rows(rows, COLUMNS, folder / f"{name}-lesions.csv")
    times = list(found.patient.times[1:]) if found.patient.is_dated else [UNKNOWN_TIME for _ in intervals]
    write_nifti(folder / f"{name}-change.nii.gz", found.change_IZYX, grid, times, None, "change, 1 brighter -1 darker")
    codes = (found.event_codes(n) for n in intervals)
    write_nifti(folder / f"{name}-lesions.nii.gz", codes, grid, times, None, "codes of events, see index.json")
    shown = largest_changes(found, LARGEST)
    if shown:
        draw_lesions(found, shown, folder / f"{name}-key-images.png", f"{name}: the lesions that change most")
    write_patient_page(found, registration, run, change_share, decisions, folder / f"{name}.html")
    return {**patient_facts(found), "grid": grid_facts(grid), "files": files_of(name, folder)}


def files_of(name: str, folder: Path) -> list[dict[str, str]]:
    """The files of a patient, with what they are."""
    return [{"file": f"{name}{end}", "role": role} for end, role in ROLES.items() if (folder / f"{name}{end}").is_file()]


def patient_facts(found: FollowedPatient) -> dict[str, Any]:
    """Counts and volumes of a patient, JSON values. Volumes in ml; rejected lesions are not counted."""
    voxel_ml = found.patient.voxel_ml
    volumes = [round(volume, 3) for volume in found.volumes_ml]
    changed = {sign: int(np.count_nonzero(found.change_IZYX == sign)) * voxel_ml for sign in (1, -1)}
    largest = [
        {
            "patient": found.patient.name,
            "lesion": one.change.number,
            "event": one.change.event,
            "visits": " to ".join(found.intervals[one.change.interval]),
            "change_ml": round(changed_ml(one), 3),
            "axial_mm": round(one.change.largest.axial_mm, 1),
            "place_mm": ", ".join(f"{mm:.1f}" for mm in one.place_mm),
            "status": one.status,
        }
        for one in largest_changes(found, LARGEST)
    ]
    return {
        "sentence": patient_sentence(found),
        "visits": list(found.patient.visits),
        "events": found.events,
        "decided": found.decided,
        "volume_before_ml": volumes[0],
        "volume_after_ml": volumes[-1],
        "volumes_ml": volumes,
        "brighter_ml": round(changed[1], 3),
        "darker_ml": round(changed[-1], 3),
        "threshold": found.threshold,
        "lesions": "given" if found.is_given else "proposed",
        "unmatched": [describe_decision(one) for one in found.unmatched],
        "notes": list(found.notes),
        "largest": largest,
    }


def write_follow_up_index(
    patients: Mapping[str, Mapping[str, Any]], lineage: FollowUpLineage, strangers: Sequence[Decision], folder: Path
) -> None:
    """Writes `index.json`: the files of every patient, what codes mean, and what all of it was made from."""
    kept = ("visits", "events", "decided", "volumes_ml", "brighter_ml", "darker_ml", "threshold", "lesions", "unmatched", "grid")
    content = {
        "driftline_index": 1,
        "task": "follow_up",
        **{"name": lineage.name},
        "codes": {str(code): event for code, event in CODES.items()},
        "units": {"volume": "ml", "length": "mm", "position": "mm, LPS"},
        "patients": {name: {key: facts[key] for key in kept} for name, facts in patients.items()},
        "decisions_of_unknown_patients": len(strangers),
        "lineage": {key: value for key, value in asdict(lineage).items() if key != "name"},
        "files": [one for facts in patients.values() for one in facts["files"]],
        "note": "For research only, not for diagnosis.",
    }
    write_json(folder / INDEX, content, is_strict=True)


def draw_quicklook(found: Sequence[FollowedPatient], path: Path) -> bool:
    """Draws the lesions of the patient whose lesions change most; False where none changes."""
    most = max(found, key=lambda one: sum(changed_ml(lesion) for lesion in largest_changes(one, LARGEST)))
    shown = largest_changes(most, 4)
    if shown:
        draw_lesions(most, shown, path, f"{most.patient.name}: the lesions that change most")
    return bool(shown)
