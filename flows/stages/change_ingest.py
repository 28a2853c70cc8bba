"""Scenes of every place -> a cube each, and its label on the cube's grid."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs import build, build_change
from flows.folder import RunFolder, write_json
from flows.invocation import Invocation
from flows.stages.ingest import tell, tell_refusals
from pipelines.errors import MissingInput, RequestError


def change_ingest(invocation: Invocation) -> dict[str, Any]:
    """Lays new and reprocessed scenes of all places and reads their labels; hands back the record of the stage.

    Raises RequestError where no place has a label, or one does not match its images.
    """
    folder, steps = invocation.folder, invocation.steps
    sources = steps.do("ingest", "list the places", lambda progress: build_change.build_places(invocation.run))
    places: dict[str, dict[str, Any]] = {}
    refused: list[dict[str, str]] = []
    for name, source in sources.items():
        report = steps.do("ingest", f"lay scenes of {name}", partial(lay_place, invocation, name, source))
        label = steps.do("ingest", f"read the label of {name}", partial(lay_label, invocation, name, source))
        places[name] = {"snapshot": report.snapshot, "is_new": bool(report.added or report.replaced), **label}
        refused += [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused]
        steps.say(f"ingest: {name}: {tell(report)}{describe_label(label)}")
        for line in [*label["notes"], *tell_refusals(report.refused, refusals_of(folder, name))]:
            steps.say(f"  {line.strip()}")
    if not any(place["label_sha256"] for place in places.values()):
        raise RequestError("no place has a label, so there is nothing to learn from; mend labels.path")
    new = sum(place.pop("is_new") for place in places.values())
    message = f"{len(places)} places, {new} with new scenes" if new else f"{len(places)} places (nothing new)"
    snapshot = hashlib.sha256("".join(f"{n}{p['snapshot']}{p['label_sha256']}" for n, p in places.items()).encode()).hexdigest()
    record = {"snapshot": snapshot, "places": places, "refused": refused, "message": message}
    write_json(folder.refused, refused)
    write_json(folder.done("ingest"), record)
    return {**record, "skipped": not new}


def label_path(folder: RunFolder, place: str) -> Path:
    return folder.path / "labels" / f"{place}.npy"


def refusals_of(folder: RunFolder, place: str) -> Path:
    return folder.path / "labels" / f"{place}-refused.json"


def lay_place(invocation: Invocation, place: str, source: Any, progress: Any) -> Any:
    from pipelines.cube.ingest import ingest as ingest_scenes

    settings = build.build_ingest_settings(invocation.run, refusals_of(invocation.folder, place))
    return ingest_scenes(source, build.build_rule(invocation.run), invocation.folder.cube_of(place), None, settings, progress)


def lay_label(invocation: Invocation, place: str, source: Any, _progress: Any = None) -> dict[str, Any]:
    """The label on the cube's grid as a file of the run; a place that is only predicted (prediction.places) needs none."""
    from pipelines.cube.store import grid_of, open_cube

    path = label_path(invocation.folder, place)
    try:
        label = build_change.build_label(invocation.run, place, source, grid_of(open_cube(invocation.folder.cube_of(place))))
    except MissingInput as e:
        if place not in (invocation.run.prediction.places or ()):
            raise MissingInput(f"{e}. A place that is only to be predicted needs none: name it in prediction.places") from e
        path.unlink(missing_ok=True)
        return {"label_sha256": "", "changed_fraction": None, "notes": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.save(file, label.label_YX)
    partial.replace(path)
    digest = hashlib.sha256(label.label_YX.tobytes()).hexdigest()
    return {"label_sha256": digest, "changed_fraction": label.changed_fraction, "notes": list(label.notes)}


def describe_label(label: dict[str, Any]) -> str:
    return (
        "; no label: predicted only" if not label["label_sha256"] else f"; {label['changed_fraction']:.2%} of the label changed"
    )
