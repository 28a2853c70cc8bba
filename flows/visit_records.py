"""What is kept of the registration of a patient's visits, and the patient's masks on the common grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs import build
from configs.visits import build_registration
from flows import Json, code
from pipelines.errors import DAMAGED, CubeMismatch, MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid, PatientFrame

if TYPE_CHECKING:
    import numpy as np

    from pipelines.registration.placing import Placement
    from pipelines.sources.visit_files import Visit, VisitFiles

PLACED_BY = ("pipelines.registration.placing", "pipelines.sources.visits")

# ---------------------------------------------------------------- figures


def registration_lines(about: Json) -> list[str]:
    """The figures of each visit, for a person."""
    lines = [f"registration: {about['how']}, onto visit {about['reference']}"]
    for one in about["visits"]:
        if (figures := one.get("figures")) is not None:
            fate = "NOT USED" if one.get("problem") else "kept from an earlier ingest" if one.get("kept") else "used"
            lines.append(
                f"  visit {one['visit']}: {fate}, mutual information {figures['information']:.3f} (mirrored "
                f"{figures['mirrored']:.3f}), edges {figures['edge_overlap']:.2f}, left over {figures['residual_mm']:.2f} mm, "
                f"{figures['rotation_deg']:.2f} degrees, {figures['field']:.0%} of the brain"
            )
    return [*lines, *about.get("notes", ())]


def about_placement(placement: Placement, how: str) -> Json:
    return {
        "how": how,
        "reference": placement.reference,
        "visits": [one.to_json() for one in placement.visits],
        "notes": list(placement.notes),
    }


def require_masks_of_reference(placement: Placement, how: str, first: str, given: Sequence[str]) -> None:
    """Raises RequestError where masks of a patient (keys of `source`) are of the space of another visit than the reference."""
    if how != "given" and given and placement.reference != first:
        raise RequestError(
            f"visit {placement.reference} is the reference in place of visit {first}; whether "
            f"{' and '.join(f'source.{key}' for key in given)} lies in the space of the one or of the other is not known: take "
            f"visit {first} out, and name files in the space of visit {placement.reference}"
        )


def with_kept(about: Json, uri: str, used: Sequence[str], refused: Sequence[SceneRefused], *, drops: bool) -> Json:
    """`about_placement`, and the lines of visits that the cube keeps though their files are gone or damaged. used: ids.

    Raises CubeMismatch where those lie on another reference than the visits of now; of given transforms none does.
    """
    from pipelines.cube.history import REGISTRATION
    from pipelines.cube.store import open_cube

    try:
        cube = open_cube(uri, accept_damaged=True)
    except MissingInput:
        return about
    before = json.loads(cube.attrs.get(REGISTRATION, "null"))
    reasons = {one.scene_id: one.reason for one in refused}
    others = [str(one) for one in cube["scene_id"].values if str(one) not in used]
    kept = [one.removeprefix("visit-") for one in others if (reasons[one] in DAMAGED if one in reasons else not drops)]
    if before is None or not kept:
        return about
    if (before["how"], before["reference"]) != (about["how"], about["reference"]) and {before["how"], about["how"]} != {"given"}:
        raise CubeMismatch(
            f"the cube {uri} keeps visit {', '.join(kept)}, whose files are gone or damaged, in the space of visit "
            f"{before['reference']} ({before['how']}); the others now lie on visit {about['reference']} ({about['how']}): "
            "put the files back"
        )
    lines = [{**one, "kept": True} for one in before["visits"] if one["visit"] in kept]
    return {**about, "visits": [*(one for one in about["visits"] if one["visit"] not in kept), *lines]}


def key_of_placement(run: Any, files: VisitFiles, patient: str, visits: Sequence[Visit]) -> str:
    """What the placement of a patient depends on."""
    paths: list[Path | None] = [files.file_of(role, patient) for role in ("grid", "brain")]
    for visit in visits:
        paths += [visit.path, files.file_of("transform", patient, visit)]
    stamps = [None if path is None else [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    settings = {**asdict(build_registration(run)), "coordinates": run.registration.coordinates}
    content = {"files": stamps, "visits": [one.name for one in visits], "settings": settings,
               "nodata": build.build_bands(run.source)[0].nodata}  # fmt: skip
    return code.key(content, PLACED_BY)


def placement_to_json(placement: Placement) -> Json:
    grid = placement.grid
    fits = [{"fit": None if one.fit is None else asdict(one.fit), "name": one.name, "matrix": list(one.matrix),
             "problem": one.problem} for one in placement.visits]  # fmt: skip
    return {
        "transform": list(grid.transform),
        "shape": list(grid.shape),
        "reference": placement.reference,
        "visits": fits,
        "notes": list(placement.notes),
    }


def placement_from_json(content: Json) -> Placement:
    from pipelines.registration.figures import Fit
    from pipelines.registration.placing import Placed, Placement

    grid = Grid(PatientFrame(), tuple(content["transform"]), tuple(content["shape"]))
    visits = [
        Placed(one["name"], tuple(one["matrix"]), None if one["fit"] is None else Fit(**one["fit"]), one["problem"])
        for one in content["visits"]
    ]
    return Placement(grid, content["reference"], tuple(visits), tuple(content["notes"]))


# ---------------------------------------------------------------- masks


LEAST_SHARE = 0.9  # of a mask of lesions or changes that must lie within the common grid


class PatientMasks:
    """The masks of a patient on the common grid."""

    def __init__(self, files: VisitFiles, patient: str, visits: Sequence[str], grid: Grid, registration: Json):
        self.files, self.grid, self.patient = files, grid, patient
        self.found = {one.name: one for one in files.visits(self.patient)}
        self.matrices = {one["visit"]: one["matrix"] for one in registration["visits"]}
        self.grids = {} if set(files.patterns) <= {"visit", "grid", "transform"} else _grids_of(self.found)
        self.without_files = tuple(one for one in visits if "lesions" in files.patterns and one not in self.grids)
        self.visits = [one for one in visits if one not in self.without_files]
        is_of_visit = registration["how"] == "rigid" and "grid" not in files.patterns  # then nothing is drawn on another grid
        self.if_both: Literal["visit", "refuse"] = "visit" if is_of_visit else "refuse"

    def brain(self) -> np.ndarray | None:
        """is_brain_ZYX"""
        codes_ZYX = self._of("brain", "the mask of source.brain")
        return None if codes_ZYX is None else codes_ZYX > 0

    def reference(self) -> np.ndarray | None:
        """is_change_ZYX"""
        codes_ZYX = self._of("reference", "the mask of evaluation.reference")
        return None if codes_ZYX is None else codes_ZYX > 0

    def lesions(self) -> np.ndarray | None:
        """codes_TZYX, of `visits`: all but those `without_files`."""
        import numpy as np

        if "lesions" not in self.files.patterns:
            return None
        masks = [self._of("lesions", f"the mask of lesions of visit {visit}", visit) for visit in self.visits]
        if lacking := [visit for visit, mask in zip(self.visits, masks, strict=True) if mask is None]:
            raise RequestError(f"no mask of lesions (lesions.masks) for visit {lacking[0]}; every visit that is used needs one")
        return np.stack([mask for mask in masks if mask is not None])

    def _of(self, role: str, label: str, visit: str | None = None) -> np.ndarray | None:
        from pipelines.sources.visits import mask_on_grid

        path = self.files.file_of(role, self.patient, None if visit is None else self.found[visit])
        if path is None:
            return None
        near = [one for one in (self.visits if visit is None else [visit]) if one in self.grids and one in self.matrices]
        places = [(self.grids[one], self.matrices[one]) for one in near]
        is_of_visit, share = visit is not None, 0.0 if role == "brain" else LEAST_SHARE
        if_both = self.if_both if is_of_visit else "common"
        return mask_on_grid(path, self.grid, label, places, if_both, of_visit=is_of_visit, least_share=share)


def _grids_of(visits: Mapping[str, Visit]) -> dict[str, Grid]:
    """The grids of visits whose files can be read; others are visits that the cube keeps."""
    from pipelines.sources.visits import grid_of_file

    found: dict[str, Grid] = {}
    for name, visit in visits.items():
        with suppress(SceneRefused):
            found[name] = grid_of_file(visit.path, visit.id)
    return found
