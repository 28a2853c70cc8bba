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
from pipelines.progress import Progress

MOST_PROBLEMS = 12  # places of which a message says what is wrong with them


def change_ingest(invocation: Invocation) -> dict[str, Any]:
    """Lays new and reprocessed scenes of all places and reads their labels; hands back the record of the stage.

    Raises RequestError, once all places have been looked at, where one to learn from cannot be used: without it another
    detector would be trained and judged, so that is for the user to say. A place that is only predicted is left out.
    """
    folder, steps = invocation.folder, invocation.steps
    sources = steps.do("ingest", "list the places", lambda progress: build_change.build_places(invocation.run))
    places: dict[str, dict[str, Any]] = {}
    refused: list[dict[str, str]] = []
    problems: dict[str, RequestError] = {}
    for name, source in sources.items():
        try:
            places[name], of_place = take_place(invocation, name, source)
            refused += of_place
        except RequestError as e:
            if not is_only_predicted(invocation, name):
                problems[name] = e
                continue
            refused.append({"scene_id": name, "reason": "place", "detail": str(e)})
            steps.say(f"ingest: {name} is left out: {e}")
    if problems:
        raise tell_problems(problems, list(places))
    if not any(place["label_sha256"] for place in places.values()):
        raise RequestError("no place has a label, so there is nothing to learn from; mend labels.path")
    new = sum(place.pop("is_new") for place in places.values())
    message = f"{len(places)} places, {new} with new scenes" if new else f"{len(places)} places (nothing new)"
    snapshot = hashlib.sha256("".join(f"{n}{p['snapshot']}{p['label_sha256']}" for n, p in places.items()).encode()).hexdigest()
    record = {"snapshot": snapshot, "places": places, "refused": refused, "message": message}
    write_json(folder.refused, refused)
    write_json(folder.done("ingest"), record)
    return {**record, "skipped": not new}


def take_place(invocation: Invocation, name: str, source: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(what the record says of a place, its refused scenes), its cube and label written. Raises RequestError."""
    folder, steps = invocation.folder, invocation.steps
    report = steps.do("ingest", f"lay scenes of {name}", partial(lay_place, invocation, name, source))
    label = steps.do("ingest", f"read the label of {name}", partial(lay_label, invocation, name, source))
    steps.say(f"ingest: {name}: {tell(report)}{describe_label(label)}")
    for line in [*label["notes"], *tell_refusals(report.refused, refusals_of(folder, name))]:
        steps.say(f"  {line.strip()}")
    refused = [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused]
    return {"snapshot": report.snapshot, "is_new": bool(report.added or report.replaced), **label}, refused


def is_only_predicted(invocation: Invocation, place: str) -> bool:
    """True for a place that prediction.places names and that has no label."""
    if place not in (invocation.run.prediction.places or ()):
        return False
    try:
        build_change.label_file(invocation.run, place)
    except MissingInput:
        return True
    except RequestError:
        return False
    return False


def tell_problems(problems: dict[str, RequestError], good: list[str]) -> RequestError:
    """One error that says what is wrong with every place, and how to go on without them."""
    shown = [f"  {name}: {problem}" for name, problem in list(problems.items())[:MOST_PROBLEMS]]
    more = f"\n  and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    remedy = f"\nto go on without: source.places: [{', '.join(good)}]" if good else ""
    count = f"{len(problems)} of {len(problems) + len(good)} places cannot be used:\n"
    kind = MissingInput if all(isinstance(problem, MissingInput) for problem in problems.values()) else RequestError
    return kind(count + "\n".join(shown) + more + remedy)


def label_path(folder: RunFolder, place: str) -> Path:
    return folder.path / "labels" / f"{place}.npy"


def refusals_of(folder: RunFolder, place: str) -> Path:
    return folder.path / "labels" / f"{place}-refused.json"


def lay_place(invocation: Invocation, place: str, source: Any, progress: Progress) -> Any:
    from pipelines.cube.ingest import ingest as ingest_scenes

    settings = build.build_ingest_settings(invocation.run, refusals_of(invocation.folder, place))
    uri = invocation.folder.cube_of(place)
    report = ingest_scenes(source, build.build_rule(invocation.run), uri, None, settings, progress)
    if len(laid := laid_scenes(uri)) < 2:
        refused = "; ".join(str(error) for error in report.refused[:3])
        raise RequestError(f"{len(laid)} of its dates can be used ({', '.join(laid) or 'none'}), change needs two; {refused}")
    check_earth(uri)
    return report


def laid_scenes(uri: str) -> list[str]:
    from pipelines.cube.store import open_cube

    return [str(scene) for scene in open_cube(uri)["scene_id"].values]


def check_earth(uri: str) -> None:
    """Raises RequestError where the grid is of no place on Earth: patches are measured in m², and it is better said at once."""
    from pyproj import CRS

    from pipelines.cube.store import grid_of, open_cube

    crs = grid_of(open_cube(uri)).crs
    if CRS.from_user_input(crs).get_geod() is None:
        raise RequestError(
            f"its CRS is of no place on Earth ({crs[:60]}), and patches are measured in m²; for images that lie nowhere set "
            "source.crs: EPSG:3857 and source.transform: [SIZE, 0, 0, 0, -SIZE, 0] with the pixel's SIZE in m"
        )


def lay_label(invocation: Invocation, place: str, source: Any, _progress: Progress | None = None) -> dict[str, Any]:
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
