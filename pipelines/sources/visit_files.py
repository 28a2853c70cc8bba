"""Which files are the visits of which patient, and what lies beside them (grid, transforms, masks), by patterns of paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.errors import MissingInput, RequestError
from pipelines.privacy.folder import MANIFEST, read_manifest
from pipelines.sources.dates import format_regex, parse_date
from pipelines.sources.file_names import natural_key
from pipelines.sources.name_matching import Part, find_spans
from pipelines.sources.nifti_header import SUFFIXES

TOKEN = re.compile(r"\{date:([^{}]+)\}|\{(patient|visit)\}|(\*)")
MOST_FIELDS = 12
MOST_NUMBER = 999  # visits may be called by such a number; a longer one may be a date, or a number of the hospital
KIND = "visits"  # of files of a copy, in its manifest
OF_VISIT, OF_PATIENT = ("visit", "transform", "lesions"), ("grid", "brain", "reference")  # roles of files
ROLES = (*OF_VISIT, *OF_PATIENT)
STAMP = "{date:%Y%m%dT%H%M%S}"
Key = tuple[str, str]  # patient, what stands for the visit in the path ("" in patterns without it)


@dataclass(frozen=True)
class VisitPattern:
    """A path below a folder, with {patient}, {visit} or {date:...}, and * for any text but /."""

    text: str

    @cached_property
    def parts(self) -> list[Part]:
        """Raises RequestError for an unknown field, or too many."""
        parts: list[Part] = []
        position, dates, seen = 0, 0, set[str]()
        for match in TOKEN.finditer(self.text):
            if literal := self.text[position : match.start()]:
                parts.append(Part(literal=literal))
            position, (form, name, _) = match.end(), match.groups()
            if form:
                parts.append(Part(f"date{dates}", regex=re.compile(format_regex(form))))
                dates += 1
            elif name:
                parts.append(Part(f"{name}+", same_as=name) if name in seen else Part(name, least=1))
                seen.add(name)
            elif not parts or parts[-1] != Part():
                parts.append(Part())
        if rest := self.text[position:]:
            parts.append(Part(literal=rest))
        if len(parts) > 2 * MOST_FIELDS or any(mark in part.literal for part in parts for mark in "{}"):
            raise RequestError("a pattern of visits has {patient}, {visit}, {date:%Y%m%d} and *, and few of them")
        return parts

    @property
    def form(self) -> str:
        """Of the date, as of `strptime`; "" without one."""
        return " ".join(form for form, *_ in TOKEN.findall(self.text) if form)

    def match(self, path: str) -> Key | None:
        spans = find_spans(self.parts, path)
        if spans is None:
            return None
        texts = {name: path[slice(*span)] for name, span in spans.items()}
        dates = " ".join(texts[name] for name in sorted(texts) if name.startswith("date"))
        return texts.get("patient", ""), texts.get("visit", dates)


@dataclass(frozen=True)
class Visit:
    """A visit of a patient. `name`: its number where the path holds a small one, else its place in order from 1.

    `text`: what stands for it in the path, which may say more than a name may.
    """

    patient: str
    name: str
    moment: np.datetime64
    path: Path
    text: str = field(repr=False)

    @property
    def id(self) -> str:
        return f"visit-{self.name}"


@dataclass(frozen=True)
class VisitFiles:
    """The files of all patients below `root`. patterns: role (of ROLES) -> pattern; `visit` is always there.

    patients: those to use, as the paths have them; None: all. Of a de-identified copy only files count whose originals are there.
    """

    root: Path
    patterns: Mapping[str, str] = field(hash=False)
    patients: tuple[str, ...] | None = None
    paths: tuple[Path, ...] | None = field(default=None, repr=False)  # the files below root, where they are known

    @property
    def is_dated(self) -> bool:
        return bool(VisitPattern(self.patterns["visit"]).form)

    def names(self) -> list[str]:
        """The patients in natural order; "" is the one of a pattern without {patient}."""
        return sorted({patient for patient, _ in self._found("visit")}, key=natural_key)

    def visits(self, patient: str) -> list[Visit]:
        """In order of date, or natural order. Raises RequestError for two files of one visit, or a date that is none."""
        pattern = VisitPattern(self.patterns["visit"])
        texts = sorted((text for of, text in self._found("visit") if of == patient), key=natural_key)
        if pattern.form:
            dates = {text: parse_date(text, pattern.form) for text in texts}
            known = {text: date for text, date in dates.items() if date is not None}
            if len(known) < len(texts):
                raise RequestError(f"{len(texts) - len(known)} names of files hold a date that is none; correct source.pattern")
            texts = sorted(known, key=lambda text: (known[text], text))
            return [
                Visit(patient, str(n), known[text].astype("datetime64[ns]"), self._path("visit", (patient, text)), text)
                for n, text in enumerate(texts, 1)
            ]
        numbers = [int(text) if text.isascii() and text.isdigit() and int(text) <= MOST_NUMBER else None for text in texts]
        known_numbers = [n for n in numbers if n is not None]
        if len(set(known_numbers)) < len(texts):
            known_numbers = list(range(1, len(texts) + 1))
        return [
            Visit(patient, str(n), UNKNOWN_ORIGIN + np.timedelta64(n, "s"), self._path("visit", (patient, text)), text)
            for n, text in zip(known_numbers, texts, strict=True)
        ]

    def file_of(self, role: str, patient: str, visit: Visit | None = None) -> Path | None:
        """The file of that role of a patient, of OF_VISIT that of a visit; None if there is none.

        Raises RequestError where the pattern fits several.
        """
        if role not in self.patterns:
            return None
        key = (patient if "{patient}" in self.patterns[role] else "", visit.text if visit is not None else "")
        return self._path(role, key) if key in self._found(role) else None

    def roles(self) -> Iterator[tuple[Path, str, str, Visit | None]]:
        """(file, role, patient, visit) of everything that belongs to a visit that is used. One file may have several roles."""
        for patient in self.names():
            visits = self.visits(patient)
            for role in self.patterns:
                for visit in visits if role in OF_VISIT else (None,):
                    path = visit.path if role == "visit" and visit else self.file_of(role, patient, visit)
                    if path is not None:
                        yield path, role, patient, visit

    def _path(self, role: str, key: Key) -> Path:
        paths = self._found(role)[key]
        if len(paths) > 1:
            raise RequestError(f"{len(paths)} files fit the pattern of the {role} of one visit; name one (with fewer *)")
        return self.root / paths[0]

    def _found(self, role: str) -> dict[Key, list[str]]:
        return self._index[role]

    @cached_property
    def _index(self) -> dict[str, dict[Key, list[str]]]:
        """role -> (patient, visit) -> paths below the root that fit its pattern. Raises RequestError, MissingInput."""
        paths = list(self._listed())
        found: dict[str, dict[Key, list[str]]] = {}
        for role, text in self.patterns.items():
            pattern = VisitPattern(text)
            suffixes = ("",) if role == "transform" else SUFFIXES
            of_role: dict[Key, list[str]] = {}
            for path in paths:
                if path.lower().endswith(suffixes) and (key := pattern.match(path)) is not None:
                    of_role.setdefault(key, []).append(path)
            found[role] = of_role
        if not found["visit"]:
            raise RequestError(f"source.pattern fits none of the {len(paths)} files below source.path")
        if self.patients is not None:
            there = {patient for patient, _ in found["visit"]}
            if absent := sum(one not in there for one in self.patients):
                raise RequestError(f"{absent} of source.patients are not among the {len(there)} that source.pattern finds")
            found["visit"] = {key: own for key, own in found["visit"].items() if key[0] in self.patients}
        return found

    def _listed(self) -> Iterator[str]:
        if not self.root.is_dir():
            raise MissingInput("there is no folder where source.path says")
        if (self.root / MANIFEST).is_file():
            yield from sorted(names_in_copy(self.root))
            return
        for path in sorted(self.root.rglob("*") if self.paths is None else self.paths):
            if path.is_file() and path.resolve().is_relative_to(self.root.resolve()):
                yield path.relative_to(self.root).as_posix()


def names_in_copy(copy: Path) -> set[str]:
    """The names of all files of visits of a de-identified copy whose originals are still there."""
    latest = {record["file"]: record for record in read_manifest(copy)}.values()
    kept = [one for one in latest if one.get("target") and "gone" not in one and one.get("kind") == KIND]
    return {name for one in kept for name in (one["target"], *one.get("beside", ()))}


def patterns_of_copy(roles: Collection[str], *, is_dated: bool) -> dict[str, str]:
    """The patterns of the files of a de-identified copy, which is a folder of visits itself."""
    visit = STAMP if is_dated else "{visit}"
    return {
        role: f"{{patient}}/{role}{f'-{visit}' if role in OF_VISIT else ''}{'.txt' if role == 'transform' else '.nii.gz'}"
        for role in roles
    }


def name_in_copy(role: str, pseudonym: str, visit: Visit | None, moment: np.datetime64 | None) -> str:
    """The path of a file in the copy; moment: the moved one of a dated visit."""
    stamp = "" if visit is None else f"-{visit.name}"
    if visit is not None and moment is not None:
        stamp = "-" + str(moment.astype("datetime64[s]")).replace("-", "").replace(":", "")
    return f"{pseudonym}/{role}{stamp}{'.txt' if role == 'transform' else '.nii.gz'}"
