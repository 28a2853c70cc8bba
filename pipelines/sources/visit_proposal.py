"""A config for visits of patients: what `driftline init` proposes for a folder of NIfTI files that lie on grids of their own."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import RequestError, SceneRefused
from pipelines.registration.transforms import MOST_BYTES
from pipelines.sources.nifti_header import SUFFIXES
from pipelines.sources.nifti_names import is_nifti
from pipelines.sources.visit_files import VisitFiles, VisitPattern
from pipelines.sources.visits import grid_of_file

NUMBER = re.compile(r"(?<!\d)\d+(?!\d)")
DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
MOST_FILES = 5000
MOST_PATTERNS = 50  # those that most names give are tried
BRAIN = re.compile(r"brain|bet_mask", re.IGNORECASE)


@dataclass(frozen=True)
class FoundVisits:
    """Patterns by key of the source, how many patients and visits they find, and whether visits lie on grids of their own."""

    patterns: dict[str, str]
    patients: int
    visits: int
    has_own_grids: bool


def find_visits(folder: Path) -> FoundVisits | None:
    """The visits below a folder; None where no names differ in one number alone, or no patient has two."""
    paths = [path for _, path in zip(range(MOST_FILES), sorted(folder.rglob("*")), strict=False) if path.is_file()]
    volumes = [path.relative_to(folder).as_posix() for path in paths if is_nifti(path)]
    proposed = Counter(one for name in volumes for one in dict.fromkeys(_patterns(name)))
    counts = {pattern: _count_visits(pattern, volumes) for pattern, _ in proposed.most_common(MOST_PATTERNS)}
    for pattern in sorted((one for one, count in counts.items() if count), key=lambda one: -counts[one]):
        files = VisitFiles(folder, {"visit": pattern}, None, tuple(paths))
        try:
            patients, visits = files.names(), [files.visits(one) for one in files.names()]
        except RequestError:  # a date that is none
            continue
        beside, count = dict(_beside(folder, paths, pattern, files)), sum(len(own) for own in visits if len(own) > 1)
        return FoundVisits({"pattern": pattern, **beside}, len(patients), count, _has_own_grids(files, patients))
    return None


def propose_visits(folder: Path, name: str, written_as: str, found: FoundVisits) -> str:
    """The text of a valid config; every guess has a comment."""
    lines = [
        f"# Proposed from NIfTI volumes: {found.patients} patients with {found.visits} visits. Every value may be changed.",
        f"name: {json.dumps(name)}",
        "task: follow_up",
        "",
        "source:",
        "  kind: visits",
        f"  path: {json.dumps(written_as)}",
        f"  pattern: {json.dumps(found.patterns['pattern'])}",
    ]
    notes = {
        "grid": "the common grid; without it that of the first visit",
        "transforms": "ITK: from the common space to the visit; without them visits are registered (rigid)",
        "brain": "where registration is judged and lesions may lie",
    }
    lines += [f"  {key}: {json.dumps(found.patterns[key])}  # {note}" for key, note in notes.items() if key in found.patterns]
    lines += ["", "registration:", f"  kind: {'given' if 'transforms' in found.patterns else 'rigid'}"]
    return "\n".join(lines) + "\n"


def _count_visits(pattern: str, volumes: Sequence[str]) -> int:
    """How many visits of patients with more than one a pattern finds; 0 where it fits two files of one visit."""
    try:
        found = Counter(key for name in volumes if (key := VisitPattern(pattern).match(name)) is not None)
    except RequestError:  # braces in the name of a file
        return 0
    if any(count > 1 for count in found.values()):
        return 0
    return sum(count for count in Counter(patient for patient, _ in found).values() if count > 1)


def _patterns(name: str) -> Iterator[str]:
    """Patterns that a path may have: one of the numbers of its file name is the visit, the folder it lies in the patient, who may
    be in the file name, too.
    """
    parent, slash, base = name.rpartition("/")
    folder = f"{'*/' * parent.count('/')}{{patient}}/" if slash else ""
    for match in NUMBER.finditer(base):
        if (match.start() and base[match.start() - 1] == ".") or base[match.end() :].startswith("nii"):
            continue
        form = "{date:%Y%m%d}" if DATE.fullmatch(match[0]) else "{visit}"
        before, after, patient = base[: match.start()], base[match.end() :], parent.rpartition("/")[2]
        yield f"{folder}{before}{form}{after}"
        if patient and (patient in before or patient in after):
            yield f"{folder}{before.replace(patient, '{patient}')}{form}{after.replace(patient, '{patient}')}"


def _beside(folder: Path, paths: Sequence[Path], pattern: str, files: VisitFiles) -> Iterator[tuple[str, str]]:
    """(key of the source, pattern) of what lies beside most visits: transforms, a mask of the brain, and its grid."""
    field = re.search(r"\{visit\}|\{date:[^}]*\}", pattern)
    assert field is not None
    visits = [visit for patient in files.names() for visit in files.visits(patient)]
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for visit in visits:
        home, stem = visit.path.parent, visit.path.name
        for path in (one for one in paths if one.parent == home and one != visit.path):
            head = f"{pattern.rpartition('/')[0]}/" if "/" in pattern else ""
            if _is_transform(path) and visit.text in path.name and path.name.split(visit.text)[0] == stem.split(visit.text)[0]:
                before, _, after = path.name.partition(visit.text)
                names["transforms"][f"{head}{before}{field[0]}{after}"] += 1
            elif path.name.lower().endswith(SUFFIXES) and BRAIN.search(path.name) and not NUMBER.search(path.name.split(".")[0]):
                names["brain"][f"{head}{path.name}"] += 1
    for key, counts in names.items():
        found, count = counts.most_common(1)[0]
        if count == len(visits) and VisitPattern(found).parts:
            yield key, found
            if key == "brain" and "transforms" in names:
                yield "grid", found


def _is_transform(path: Path) -> bool:
    if path.suffix.lower() not in (".txt", ".tfm") or path.stat().st_size > MOST_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(23) == b"#Insight Transform File"


def _has_own_grids(files: VisitFiles, patients: Sequence[str]) -> bool:
    """Whether visits of the first patients lie on other grids than one another."""
    for patient in patients[:20]:
        try:
            grids = [grid_of_file(visit.path, visit.id) for visit in files.visits(patient)]
        except SceneRefused:
            continue
        if any(not grid.is_aligned(grids[0], tolerance_px=0.01) for grid in grids[1:]):
            return True
    return False
