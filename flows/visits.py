"""Visits of patients, each onto the common grid of its patient: a cube for every patient. For every task that follows patients.

ingest_visits(context) -> Record         the cubes and the figures of registration
patients_of(context) -> list[str]        the patients of the last ingest (pseudonyms)
open_patient(context, name) -> Patient   images and masks of one on the common grid
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from configs import build
from configs.originals import original_of
from configs.privacy import copy_of, is_copied, path_to_read, settings_of, without_originals
from configs.visits import build_registration, build_visit_files
from flows.copies import ALONE, ORIGINALS, format_refusals, is_read_alone
from flows.folder import RunFolder, readable, require
from flows.task import Invocation, Record, format_findings, format_report
from flows.visit_records import (
    PatientMasks,
    about_placement,
    key_of_placement,
    placement_from_json,
    placement_to_json,
    registration_lines,
    require_masks_of_reference,
    with_kept,
)
from pipelines.errors import ArtefactDamaged, CubeMismatch, MissingInput, RequestError, SceneRefused, StateError, StorageFull
from pipelines.files import write_json
from pipelines.grid import Grid
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.planning import Extent
    from pipelines.follow_up.patient import Patient
    from pipelines.registration.placing import Placement
    from pipelines.registration.volumes import Volume
    from pipelines.sources.visit_files import Visit, VisitFiles

LEAST_VISITS = 2
SWAPPED = "nothing states when the visits were: that two of them were exchanged could not be seen"

# ---------------------------------------------------------------- what is read


def visits_to_read(context: Invocation) -> tuple[VisitFiles, list[str], list[SceneRefused]]:
    """(the files that may be opened, what de-identification did, files that it refused); of patients the copy.

    Raises RequestError if nothing could be passed on.
    """
    run, steps = context.run, context.steps
    if is_read_alone(run):
        return build_visit_files(without_originals(run)), [ALONE], []
    if not is_copied(run):
        return build_visit_files(run), [ORIGINALS], []
    copy, (source, kinds) = copy_of(run), original_of(run)
    work = partial(path_to_read, settings_of(run), source, copy, kinds=kinds)
    _, manifest = steps.do("ingest", "de-identify the visits", lambda progress: work(progress))
    assert manifest is not None
    notes = [f"read from a de-identified copy of {counted(manifest.copied + manifest.unchanged, 'file')}, under pseudonyms"]
    return build_visit_files(without_originals(run)), notes, list(manifest.left_out)


def files_at_hand(run: Any) -> VisitFiles:
    """The files that the last ingest read; nothing is copied."""
    return build_visit_files(without_originals(run))


def name_of_patient(patient: str) -> str:
    """What a patient is called in the run: the pseudonym, or what the path says where originals are read.

    Raises RequestError for a name that no folder can have.
    """
    name = patient or "patient"
    if not (name[0].isalnum() and name.isascii() and all(one.isalnum() or one in "_.-" for one in name)):
        raise RequestError("the name of a patient's folder has characters that no folder of a cube can have; rename the folder")
    return name


# ---------------------------------------------------------------- ingest


def ingest_visits(context: Invocation) -> Record:
    """The visits of every patient on its common grid, as `Task.ingest` returns it. Patients are the `sites` of the record.

    Visits that cannot be used are refused; a patient of whom fewer than two are left is left out, and the others go on.
    Raises RequestError if no patient can be used.
    """
    from pipelines.registration.transforms import require_simpleitk

    require_simpleitk()
    files, notes, left_out = visits_to_read(context)
    refused = [_refusal("", one) for one in left_out]
    sites: dict[str, Record] = {}
    lines = list(format_refusals(left_out, None))
    for patient in files.names():
        name = name_of_patient(patient)
        try:
            sites[name] = ingest_patient(context, files, patient)
            refused += sites[name].pop("refused")
            lines += sites[name].pop("lines")
        except CubeMismatch as e:
            raise CubeMismatch(f"{e}; or remove this cube: `driftline ingest` makes it anew") from e
        except (StorageFull, ArtefactDamaged):
            raise
        except (RequestError, SceneRefused, StateError) as e:
            refused += [
                *getattr(e, "driftline_refused", ()),
                _refusal("", SceneRefused(name, "left-out", f"not used: {e}")),
            ]
            lines += [f"  {name} is left out: {e}"]
    if not sites:
        raise RequestError("\n".join(["no patient has two visits that can be used", *lines]))
    new = sum(site.pop("is_new") for site in sites.values())
    if not files.is_dated:
        notes.append(SWAPPED)
    digest = hashlib.sha256("".join(f"{name}{one['snapshot']}" for name, one in sites.items()).encode())
    write_json(context.folder.refused, refused)
    many = f"{counted(len(sites), 'patient')}, {counted(sum(len(one['visits']) for one in sites.values()), 'visit')}"
    return {
        "snapshot": digest.hexdigest(),
        "sites": sites,
        "refused": refused,
        "notes": notes,
        "message": f"{many}, {new} with new visits" if new else f"{many} (nothing new)",
        "lines": (*(f"  note: {note}" for note in notes), *lines, *_where(refused, context.folder)),
        "is_new": bool(new),
    }


def ingest_patient(context: Invocation, files: VisitFiles, patient: str) -> Record:
    """What the record says of a patient, with `refused`, `lines` and `is_new`; its cube is written.

    Raises RequestError where fewer than two visits can be used; it carries their refusals.
    """
    from pipelines.cube.history import REGISTRATION
    from pipelines.cube.ingest import ingest
    from pipelines.cube.store import open_cube
    from pipelines.sources.visits import UNDATED, PlacedVisit, VisitsSource

    run, name = context.run, name_of_patient(patient)
    visits = files.visits(patient)
    placement, refused = place_patient(context, files, patient, visits)
    problems = {one.name: one.problem for one in placement.visits if one.problem}
    refused += [
        SceneRefused(f"visit-{of}", "badly-registered", f"it does not lie on the reference visit: {problem}")
        for of, problem in problems.items()
    ]
    matrices = {one.name: one.matrix for one in placement.visits if not one.problem}
    used = tuple(PlacedVisit.of(one, matrices[one.name]) for one in visits if one.name in matrices)
    _require_two(name, [one.id for one in used], refused)
    how = build_registration(run)
    notes = () if files.is_dated else (UNDATED,)
    band = build.build_bands(run.source)[0]
    source = VisitsSource(used, placement.grid, band, how.interpolation, notes, tuple(refused))
    settings = build.build_ingest_settings(run, context.folder.registration / f"{name}-refused.json",
                                           retry_refused=context.retry_refused)  # fmt: skip
    uri, drops = context.folder.cube_of(name), run.cube.on_missing == "drop"
    about = with_kept(about_placement(placement, how.how), uri, [one.id for one in used], refused, drops=drops)
    settings = replace(settings, attributes={**settings.attributes, REGISTRATION: json.dumps(about, sort_keys=True)})
    work = partial(ingest, source, None, uri, placement.grid, settings)
    report = context.steps.do("ingest", f"write the visits of {name}", work)
    written = [*report.added, *report.replaced, *report.unchanged]
    _require_two(name, written, list(report.refused))
    lines = [f"  {name}: {format_report(report)}", *(f"    {line}" for line in registration_lines(about))]
    lines += [*format_findings(report, run.cube.on_missing), *format_refusals(_named(name, report.refused), None)]
    return {
        "snapshot": report.snapshot,
        "is_new": report.is_new,
        "visits": [str(one).removeprefix("visit-") for one in open_cube(uri, report.snapshot)["scene_id"].values],
        "is_dated": files.is_dated,
        "registration": about,
        "refused": [_refusal(name, one) for one in report.refused],
        "lines": lines,
    }


def place_patient(
    context: Invocation, files: VisitFiles, patient: str, visits: Sequence[Visit]
) -> tuple[Placement, list[SceneRefused]]:
    """(where the visits lie, with figures; visits that cannot be read). Raises RequestError.

    What was found before is kept while its files and settings are the same.
    """
    name, refused = name_of_patient(patient), list[SceneRefused]()
    kept = context.folder.registration / f"{name}.json"
    key = key_of_placement(context.run, files, patient, visits)
    if (before := readable(kept)).get("key") == key:
        return placement_from_json(before["placement"]), [SceneRefused(one[0], *one[1:]) for one in before["unread"]]

    def work(_progress: object) -> Placement:
        return _place(context, files, patient, visits, refused)

    placement = context.steps.do("ingest", f"register the visits of {name}", work)
    unread = [(one.scene_id, one.reason, one.detail) for one in refused]
    write_json(kept, {"key": key, "placement": placement_to_json(placement), "unread": unread})
    return placement, refused


def _place(
    context: Invocation, files: VisitFiles, patient: str, visits: Sequence[Visit], refused: list[SceneRefused]
) -> Placement:
    from pipelines.registration.placing import copies_among, place_visits
    from pipelines.registration.transforms import read_transform
    from pipelines.sources.visits import grid_of_file, load_visit, mask_on_grid

    settings, nodata = build_registration(context.run), build.build_bands(context.run.source)[0].nodata
    volumes: dict[str, Volume] = {}
    given: dict[str, np.ndarray] = {}
    for visit in visits:
        try:
            volumes[visit.name] = load_visit(visit.path, visit.id, nodata)
            path = files.file_of("transform", patient, visit)
            if settings.how == "given" and path is not None:
                given[visit.name] = read_transform(path, context.run.registration.coordinates)
        except SceneRefused as e:
            refused.append(e)
        except RequestError as e:
            volumes.pop(visit.name)
            refused.append(SceneRefused(visit.id, "badly-registered", f"its transform cannot be used: {e}"))
    if len(volumes) < LEAST_VISITS:
        _require_two(name_of_patient(patient), list(volumes), refused)
    of_grid, of_brain = files.file_of("grid", patient), files.file_of("brain", patient)
    if lacking := [role for role, path in (("grid", of_grid), ("brain", of_brain)) if role in files.patterns and path is None]:
        raise RequestError(f"there is no file of source.{lacking[0]} that can be used")
    try:
        grid = None if of_grid is None else grid_of_file(of_grid, "the file of source.grid")
    except SceneRefused as e:
        raise RequestError(f"the file of source.grid cannot be used, {e.reason}: {e.detail}") from None

    def brain_on(common: Grid) -> np.ndarray | None:
        return None if of_brain is None else mask_on_grid(of_brain, common, "the mask of source.brain") > 0

    placement = place_visits(volumes, given, grid, brain_on, settings, context.steps.log)
    beside = [key for key, path in (("grid", of_grid), ("brain", of_brain)) if path is not None]
    require_masks_of_reference(placement, settings.how, visits[0].name, beside)
    return replace(placement, notes=(*placement.notes, *copies_among(volumes)))


def _require_two(patient: str, usable: Sequence[str], refused: Sequence[SceneRefused]) -> None:
    if len(usable) >= LEAST_VISITS:
        return
    shown = "; ".join(str(one) for one in refused[:3])
    error = RequestError(f"{counted(len(usable), 'visit')} can be used, two are needed{f': {shown}' if shown else ''}")
    error.driftline_refused = [_refusal(patient, one) for one in refused]  # type: ignore[attr-defined]
    raise error


# ---------------------------------------------------------------- afterwards


def patients_of(context: Invocation) -> list[str]:
    """The patients of the last ingest, in natural order: pseudonyms where a copy was read. Raises MissingInput without one."""
    return list(require(context.folder, "ingest")["sites"])


def open_patient(context: Invocation, name: str) -> Patient:
    """Images of the visits that are used, and masks, on the common grid of a patient of `patients_of`.

    Masks come from source.brain, lesions.masks (one for each visit) and evaluation.reference, where the config names them, by
    `pipelines.sources.visits.mask_on_grid`. With masks of visits, those whose files are gone or damaged (the cube may keep them)
    are left out. Raises MissingInput, RequestError (a mask that does not fit, or that a visit lacks).
    """
    import numpy as np

    from pipelines.cube.store import grid_of, open_cube
    from pipelines.follow_up.patient import Patient

    about = require(context.folder, "ingest")["sites"].get(name)
    if about is None:
        raise MissingInput(f"no patient {name} in the last ingest; there are {', '.join(patients_of(context))}")
    cube = open_cube(context.folder.cube_of(name), about["snapshot"])
    grid, names = grid_of(cube), [str(one).removeprefix("visit-") for one in cube["scene_id"].values]
    files = files_at_hand(context.run)
    patient = next(one for one in files.names() if name_of_patient(one) == name)
    masks = PatientMasks(files, patient, names, grid, about["registration"])
    if masks.without_files:
        left_out = f"{name}: without visit {', '.join(masks.without_files)}, whose files, and so masks of lesions, are not there"
        if len(masks.visits) < LEAST_VISITS:
            raise RequestError(f"{left_out}; two visits are needed: put the files back")
        context.steps.log(left_out)
    cube = cube.isel(time=[names.index(one) for one in masks.visits])
    images_TZYX = cube["image"].values[:, 0].astype(np.float32, copy=True)
    images_TZYX[~cube["valid"].values] = np.nan
    return Patient(
        name=name,
        grid=grid,
        times=cube["time"].values.astype("datetime64[ns]"),
        visits=tuple(masks.visits),
        images_TZYX=images_TZYX,
        brain_ZYX=masks.brain(),
        lesions_TZYX=masks.lesions(),
        reference_ZYX=masks.reference(),
        is_dated=bool(about["is_dated"]),
    )


def extent_of(run: Any, folder: RunFolder, *, reads_source: bool) -> Extent:
    """All patients as one volume of as many voxels, with the visits of the longest series."""
    from flows.planning import Extent
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.sources.visits import grid_of_file

    shapes, dates = list[tuple[int, ...]](), list[int]()
    if reads_source:
        files = files_at_hand(run) if is_read_alone(run) else build_visit_files(run)
        for patient in files.names():
            visits = files.visits(patient)
            path = files.file_of("grid", patient) or visits[0].path
            try:
                shapes.append(grid_of_file(path, visits[0].id).shape)
            except SceneRefused as e:
                raise RequestError(f"a volume of visit {visits[0].name} cannot be read, {e.reason}: {e.detail}") from None
            dates.append(len(visits))
    else:
        for name, about in require(folder, "ingest")["sites"].items():
            shapes.append(grid_of(open_cube(folder.cube_of(name), about["snapshot"])).shape)
            dates.append(len(about["visits"]))
    largest = max(shapes, key=lambda shape: shape[1] * shape[2])
    voxels = sum(shape[0] * shape[1] * shape[2] for shape in shapes)
    slices = max(1, round(voxels / (largest[1] * largest[2])))
    return Extent(max(dates), max(dates), (slices, largest[1], largest[2]), 1, 4, len(shapes))


def _refusal(patient: str, e: SceneRefused) -> Record:
    where = f"{patient}/{e.scene_id}" if patient else e.scene_id
    return {"scene_id": where, "reason": e.reason, "detail": e.detail}


def _named(patient: str, refused: Sequence[SceneRefused]) -> list[SceneRefused]:
    return [SceneRefused(f"{patient}/{one.scene_id}", *(one.reason, one.detail)) for one in refused]


def _where(refused: Sequence[Record], folder: RunFolder) -> list[str]:
    return [f"  all refusals: {folder.refused} (what they mean: docs/validation.md)"] if refused else []
