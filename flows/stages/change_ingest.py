"""Scenes of every site -> a cube each, and its label on the cube's grid."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs import build, build_change
from flows.folder import RunFolder, write_json
from flows.invocation import Invocation
from flows.stages.ingest import format_refusals, format_report
from pipelines.errors import MissingInput, RequestError
from pipelines.progress import Progress

MOST_PROBLEMS = 12  # sites of which a message says what is wrong with them


def change_ingest(invocation: Invocation) -> dict[str, Any]:
    """Lays new and reprocessed scenes of all sites and reads their labels; hands back the record of the stage.

    Raises RequestError, once all sites have been looked at, where one to learn from cannot be used: without it another
    detector would be trained and judged, so that is for the user to say. A site that is only predicted is left out.
    """
    folder, steps = invocation.folder, invocation.steps
    sources = steps.do("ingest", "list the sites", lambda progress: build_change.build_sites(invocation.run))
    sites: dict[str, dict[str, Any]] = {}
    refused: list[dict[str, str]] = []
    problems: dict[str, RequestError] = {}
    for name, source in sources.items():
        try:
            sites[name], of_site = ingest_one_site(invocation, name, source)
            refused += of_site
        except RequestError as e:
            if not is_only_predicted(invocation, name):
                problems[name] = e
                continue
            refused.append({"scene_id": name, "reason": "site", "detail": str(e)})
            steps.log(f"ingest: {name} is left out: {e}")
    if problems:
        raise format_problems(problems, list(sites))
    if not any(site["label_sha256"] for site in sites.values()):
        raise RequestError("no site has a label, so there is nothing to learn from; mend labels.path")
    new = sum(site.pop("is_new") for site in sites.values())
    message = f"{len(sites)} sites, {new} with new scenes" if new else f"{len(sites)} sites (nothing new)"
    snapshot = hashlib.sha256("".join(f"{n}{p['snapshot']}{p['label_sha256']}" for n, p in sites.items()).encode()).hexdigest()
    record = {"snapshot": snapshot, "sites": sites, "refused": refused, "message": message}
    write_json(folder.refused, refused)
    write_json(folder.done("ingest"), record)
    return {**record, "skipped": not new}


def ingest_one_site(invocation: Invocation, name: str, source: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(what the record says of a site, its refused scenes), its cube and label written. Raises RequestError."""
    folder, steps = invocation.folder, invocation.steps
    report = steps.do("ingest", f"lay scenes of {name}", partial(ingest_site, invocation, name, source))
    label = steps.do("ingest", f"read the label of {name}", partial(ingest_label, invocation, name, source))
    steps.log(f"ingest: {name}: {format_report(report)}{describe_label(label)}")
    for line in [*label["notes"], *format_refusals(report.refused, refusals_of(folder, name))]:
        steps.log(f"  {line.strip()}")
    refused = [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused]
    return {"snapshot": report.snapshot, "is_new": bool(report.added or report.replaced), **label}, refused


def is_only_predicted(invocation: Invocation, site: str) -> bool:
    """True for a site that prediction.sites names and that has no label."""
    if site not in (invocation.run.prediction.sites or ()):
        return False
    try:
        build_change.label_file(invocation.run, site)
    except MissingInput:
        return True
    except RequestError:
        return False
    return False


def format_problems(problems: dict[str, RequestError], good: list[str]) -> RequestError:
    """One error that says what is wrong with every site, and how to go on without them."""
    shown = [f"  {name}: {problem}" for name, problem in list(problems.items())[:MOST_PROBLEMS]]
    more = f"\n  and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    remedy = f"\nto go on without: source.sites: [{', '.join(good)}]" if good else ""
    count = f"{len(problems)} of {len(problems) + len(good)} sites cannot be used:\n"
    kind = MissingInput if all(isinstance(problem, MissingInput) for problem in problems.values()) else RequestError
    return kind(count + "\n".join(shown) + more + remedy)


def label_path(folder: RunFolder, site: str) -> Path:
    return folder.path / "labels" / f"{site}.npy"


def refusals_of(folder: RunFolder, site: str) -> Path:
    return folder.path / "labels" / f"{site}-refused.json"


def ingest_site(invocation: Invocation, site: str, source: Any, progress: Progress) -> Any:
    from pipelines.cube.ingest import ingest as ingest_scenes

    settings = build.build_ingest_settings(invocation.run, refusals_of(invocation.folder, site))
    uri = invocation.folder.cube_of(site)
    report = ingest_scenes(source, build.build_quality_mask(invocation.run), uri, None, settings, progress)
    if len(written := scenes_in_cube(uri)) < 2:
        refused = "; ".join(str(error) for error in report.refused[:3])
        raise RequestError(
            f"{len(written)} of its dates can be used ({', '.join(written) or 'none'}), change needs two; {refused}"
        )
    check_earth(uri)
    return report


def scenes_in_cube(uri: str) -> list[str]:
    from pipelines.cube.store import open_cube

    return [str(scene) for scene in open_cube(uri)["scene_id"].values]


def check_earth(uri: str) -> None:
    """Raises RequestError where the grid is of no site on Earth: patches are measured in m², and it is better said at once."""
    from pyproj import CRS

    from pipelines.cube.store import grid_of, open_cube

    crs = grid_of(open_cube(uri)).crs
    if CRS.from_user_input(crs).get_geod() is None:
        raise RequestError(
            f"its CRS is of no site on Earth ({crs[:60]}), and patches are measured in m²; for images that lie nowhere set "
            "source.crs: EPSG:3857 and source.transform: [SIZE, 0, 0, 0, -SIZE, 0] with the pixel's SIZE in m"
        )


def ingest_label(invocation: Invocation, site: str, source: Any, _progress: Progress | None = None) -> dict[str, Any]:
    """The label on the cube's grid as a file of the run; a site that is only predicted (prediction.sites) needs none."""
    from pipelines.cube.store import grid_of, open_cube

    path = label_path(invocation.folder, site)
    try:
        label = build_change.build_label(invocation.run, site, source, grid_of(open_cube(invocation.folder.cube_of(site))))
    except MissingInput as e:
        if site not in (invocation.run.prediction.sites or ()):
            raise MissingInput(f"{e}. A site that is only to be predicted needs none: name it in prediction.sites") from e
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
