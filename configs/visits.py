"""Visits of patients on grids of their own, and how they come onto one: `source: {kind: visits}`, section `registration`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from configs import schema
from configs.schema import Finding, InputPath, Sections, Strict, suggest
from configs.sources import BandConfig, SourceDefaults, _check_date_form, _named_band
from configs.yaml_positions import Key

if TYPE_CHECKING:
    from pipelines.privacy.other_kinds import KindsOf
    from pipelines.registration.placing import RegistrationSettings
    from pipelines.sources.visit_files import VisitFiles

FIELDS = ("patient", "visit", "date")
ROLE_OF = {"grid": "grid", "transforms": "transform", "brain": "brain"}  # key of the source -> role of its files
Example = "{patient}/study{visit}_FLAIR.nii.gz"

# ---------------------------------------------------------------- schema


class VisitsSource(SourceDefaults):
    """Volumes of patients (NIfTI) that were taken at several visits, each on a grid of its own.

    Patterns are matched against the path below `path`: `{patient}`, `{visit}` (in natural order: 2 before 10) or
    `{date:%Y%m%d}`, and `*` (anything but `/`). Without `{patient}` all files are of one patient.
    """

    kind: Literal["visits"]
    path: InputPath = Field(description="the folder; files in folders below it count too")
    pattern: str = Field(description="where patient and visit are in the path, e.g. `{patient}/study{visit}_FLAIR.nii.gz`")
    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        [BandConfig(name="intensity")], min_length=1, max_length=1, description="the name of the one band, or a mapping"
    )
    grid: str | None = Field(
        None, description="pattern of a NIfTI file of each patient whose grid is the common one; default: that of the first visit"
    )
    transforms: str | None = Field(
        None, description="pattern of a transform of each visit: ITK's text, or a matrix of four rows; see `registration`"
    )
    brain: str | None = Field(
        None, description="pattern of a mask of each patient: where registration is judged and lesions may lie; default: the head"
    )
    patients: list[str] | None = Field(None, min_length=1, description="those to use, as paths name them; default: all")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        for name in ("read_as", "crs", "transform", "scale", "offset"):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield Finding(("source", name), "has no meaning for visits: the files state it", "take it out")
        if sections.get("quality") is not None:
            yield Finding(("quality",), "is for images of places, not for volumes of a patient", "take it out")
        yield from _check_pattern("pattern", self.pattern)
        if "{visit}" not in self.pattern and "{date:" not in self.pattern:
            yield Finding(("source", "pattern"), "nothing in the pattern tells the visits apart", f"for example {Example}")
        for name in ROLE_OF:
            if (text := getattr(self, name)) is not None:
                yield from _check_pattern(name, text)
                yield from _check_beside(name, text, self.pattern, is_of_visit=name == "transforms")
        if self.patients is not None and "{patient}" not in self.pattern:
            yield Finding(("source", "patients"), "the pattern has no {patient}", "add it, or take `patients` out")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        missing = list(schema.missing_original(Path(self.path)))
        yield from missing
        if not missing:
            yield from _check_files(self, sections)


class RegistrationConfig(Strict):
    """How visits come onto one grid, and from which figures on one counts as badly registered and is not used."""

    kind: Literal["auto", "given", "rigid", "none"] = Field(
        "auto",
        description="given: by `source.transforms`; rigid: each visit is registered onto the first one by mutual information; "
        "none: the positions that the files state; auto: given where there are transforms, else rigid",
    )
    maps: Literal["to_visit", "to_common"] = Field(
        "to_visit",
        description="which way given transforms take a point; to_visit is the way of ITK, from the common space to the visit",
    )
    coordinates: Literal["LPS", "RAS"] | None = Field(
        None, description="of transforms that are plain matrices of four rows; ITK's text is always in LPS"
    )
    interpolation: Literal["linear", "bspline"] = Field(
        "linear",
        description="of images; bspline is cubic: sharper, and beyond the range of its neighbours at edges. Masks: nearest",
    )
    max_residual_mm: float = Field(
        1.0, gt=0, description="largest shift at the boundary of the brain that a second registration may still find"
    )
    min_edge_overlap: float = Field(0.5, ge=0, le=1, description="least Dice of the steepest edges of visit and reference")
    min_information: float = Field(1.06, ge=1, le=2, description="least normalised mutual information with the reference")
    min_field: float = Field(0.9, ge=0, le=1, description="least share of the brain that a visit shows")

    def check(self, sections: Sections) -> Iterator[Finding]:
        source = sections.get("source")
        transforms = getattr(source, "transforms", None)
        if source is None:
            return
        if self.kind == "given" and transforms is None:
            yield Finding(("registration", "kind"), "no transforms are given", "name them: source.transforms, or kind: rigid")
        if self.kind in ("rigid", "none") and transforms is not None:
            problem = f"the transforms of source.transforms are not used with kind: {self.kind}"
            yield Finding(("registration", "kind"), problem, "take one of both out")
        for name in ("maps", "coordinates"):
            if transforms is None and getattr(self, name) != type(self).model_fields[name].default:
                yield Finding(("registration", name), "is of given transforms, and there are none", "take it out")


# ---------------------------------------------------------------- checks


def _check_pattern(name: str, pattern: str) -> Iterator[Finding]:
    key: Key = ("source", name)
    fields = re.findall(r"\{([^{}:]*)(?::([^{}]*))?\}", pattern)
    names = [field for field, _ in fields]
    for field, form in fields:
        if field not in FIELDS:
            known = "{patient}, {visit}, {date:%Y%m%d}; * stands for the rest"
            yield Finding(key, f"unknown field {{{field}}}", suggest(field, FIELDS, known, "{{{}}}".format))
        elif field == "date":
            yield from _check_date_form(key, form)
    if set("{}") & set(re.sub(r"\{[^{}]*\}", "", pattern)):
        yield Finding(key, "a brace is not closed", f"for example {Example}")
    if "visit" in names and "date" in names:
        yield Finding(key, "both {visit} and {date} are in the pattern", "keep the date, and write * for the visit")
    if len(names) + pattern.count("*") > 8:
        yield Finding(key, "it has more than 8 fields and stars", "one * stands for any text")


def _check_beside(name: str, pattern: str, of_visits: str, *, is_of_visit: bool) -> Iterator[Finding]:
    """Findings for a pattern of files beside the visits."""
    key: Key = ("source", name)
    if "{patient}" in pattern and "{patient}" not in of_visits:
        yield Finding(key, "{patient} is not in source.pattern", "take it out here, or add it there")
    tells = "{visit}" if "{visit}" in of_visits else "{date:"
    if is_of_visit and tells not in pattern:
        shown = "{visit}" if tells == "{visit}" else "the same {date:...}"
        yield Finding(key, "every visit would have the same file", f"put {shown} of source.pattern into it")
    if not is_of_visit and ("{visit}" in pattern or "{date:" in pattern):
        yield Finding(key, "is one file for each patient, and the pattern has one for each visit", "write * for the visit")


def _check_files(source: VisitsSource, sections: Sections) -> Iterator[Finding]:
    """Findings for patterns that fit no file; no name is repeated, since it may be one of a patient."""
    from pipelines.errors import DriftlineError
    from pipelines.sources.visit_files import VisitFiles

    patterns = patterns_of(source, sections)
    if any(_check_pattern("pattern", source.pattern)):
        return
    files = VisitFiles(Path(source.path), patterns, None if source.patients is None else tuple(source.patients))
    try:
        patients = files.names()
        found = [(patient, visit) for patient in patients for visit in files.visits(patient)]
        absent = {
            role: not any(files.file_of(role, *(one if role == "transform" else (one[0],))) for one in found)
            for role in ROLE_OF.values()
            if role in patterns
        }
    except DriftlineError as e:
        yield Finding(("source", "pattern"), str(e), f"the patterns are matched with paths below source.path: {Example}")
        return
    for name, role in ROLE_OF.items():
        if absent.get(role):
            yield Finding(("source", name), "the pattern fits no file", "correct it, or take it out")
    if patients and max(sum(one[0] == patient for one in found) for patient in patients) < 2:
        problem = f"no patient has two visits ({len(patients)} patients, {len(found)} files)"
        yield Finding(("source", "pattern"), problem, "put {visit} where the visits differ, {patient} where patients do")


# ---------------------------------------------------------------- objects


def patterns_of(source: VisitsSource, sections: Mapping[str, Any]) -> dict[str, str]:
    """Role of files -> pattern: of the source, and of masks that other sections name (lesions.masks, evaluation.reference)."""
    beside = {role: getattr(source, name) for name, role in ROLE_OF.items()}
    beside["lesions"] = getattr(sections.get("lesions"), "masks", None)
    beside["reference"] = getattr(sections.get("evaluation"), "reference", None)
    return {"visit": source.pattern, **{role: text for role, text in beside.items() if text is not None}}


def _sections_of(run: Any) -> dict[str, Any]:
    return {name: getattr(run, name, None) for name in ("lesions", "evaluation")}


def build_visit_files(run: Any, path: Path | None = None) -> VisitFiles:
    """Which files are visits of whom, and what lies beside them. path: the folder, in place of `source.path`."""
    from pipelines.sources.visit_files import VisitFiles

    source: VisitsSource = run.source
    patients = None if source.patients is None else tuple(source.patients)
    return VisitFiles(path or Path(source.path), patterns_of(source, _sections_of(run)), patients)


def build_visit_kinds(run: Any) -> KindsOf:
    """What is copied of the visits when they are de-identified."""
    from pipelines.sources.deidentifying_visits import visit_kinds

    source: VisitsSource = run.source
    patients = None if source.patients is None else tuple(source.patients)
    return visit_kinds(patterns_of(source, _sections_of(run)), patients, run.registration.coordinates)


def values_of_copy(run: Any) -> dict[str, dict[str, object]]:
    """Section -> its keys -> their values for a run that reads the de-identified copy, which is a folder of visits itself."""
    from pipelines.sources.visit_files import patterns_of_copy

    source: VisitsSource = run.source
    there = patterns_of(source, _sections_of(run))
    new = patterns_of_copy(there, is_dated="{date:" in source.pattern)
    changed: dict[str, dict[str, object]] = {"source": {"pattern": new["visit"], "patients": None}}
    changed["source"] |= {name: new.get(role) for name, role in ROLE_OF.items()}
    for section, name, role in (("lesions", "masks", "lesions"), ("evaluation", "reference", "reference")):
        if role in there:
            changed[section] = {name: new[role]}
    return changed


def build_registration(run: Any) -> RegistrationSettings:
    """How visits are registered and judged."""
    from pipelines.registration.placing import Limits, RegistrationSettings

    config: RegistrationConfig = run.registration
    how = ("given" if run.source.transforms is not None else "rigid") if config.kind == "auto" else config.kind
    names = ("max_residual_mm", "min_edge_overlap", "min_information", "min_field")
    limits = Limits(**{name: getattr(config, name) for name in names})
    return RegistrationSettings(how, config.maps == "to_common", config.interpolation, limits)
