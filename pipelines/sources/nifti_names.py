"""When the volumes of a folder were taken, by their names: dates, or numbers in a series. Names of copies hold them, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.privacy.folder import MANIFEST, copies_in
from pipelines.sources.dates import parse_date
from pipelines.sources.file_names import FilePattern, natural_key
from pipelines.sources.nifti_header import SUFFIXES

DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
NUMBER_IN_NAME = re.compile(r"(\d+)(?=\D*$)")
COPIED = re.compile(r"[0-9a-f]{32}(?:-(\d{8}T\d{6})|-(\d{4}))?\.nii(?:\.gz)?")  # as `copy_name` writes them
MOST_APART = 9999  # numbers that are further apart are no places in a series


def is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def files_of(folder: Path) -> list[Path]:
    """The NIfTI files below a folder in natural order; of a de-identified copy those whose originals are still there."""
    if (folder / MANIFEST).is_file():
        return [folder / name for name in sorted(copies_in(folder, "nifti").values())]
    return sorted(filter(is_nifti, folder.rglob("*")), key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def only_file(path: Path) -> Path:
    """The file of a de-identified copy of one file; else `path`."""
    if not (path / MANIFEST).is_file():
        return path
    files = files_of(path)
    copied = COPIED.fullmatch(files[0].name) if len(files) == 1 else None
    return files[0] if copied and not any(copied.groups()) else path


def dates_in(names: Sequence[str], pattern: str) -> dict[str, np.datetime64]:
    """The moments (ns) that names state: by the pattern, with files that it does not fit left out; else of all names or none.

    Raises RequestError if the pattern fits none.
    """
    if pattern:
        template = FilePattern(pattern)
        parsed = {name: template.match(name) for name in names}
        dated = {name: parse_date(found.date_text, template.date_format) for name, found in parsed.items() if found}
        known = {name: date.astype("datetime64[ns]") for name, date in dated.items() if date is not None}
        if not known:
            raise RequestError(f"source.pattern fits none of the {len(names)} NIfTI files of the folder")
        return known
    copied = {name: COPIED.fullmatch(Path(name).name) for name in names}
    if names and all(copied.values()):
        moved = {name: _moment_of(one[1]) for name, one in copied.items() if one and one[1]}
        return moved if len(moved) == len(names) else {}
    in_name = {name: DATE_IN_NAME.search(name) for name in names}
    if not all(in_name.values()):
        return {}
    return {name: np.datetime64(f"{one[1]}-{one[3]}-{one[4]}", "ns") for name, one in in_name.items() if one}


def _moment_of(text: str) -> np.datetime64:
    day, time = text.split("T")
    return np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}", "ns")


def numbers_in(names: Sequence[str]) -> dict[str, int]:
    """The places in a series: the last number of each name, {} unless each has one of its own."""
    copied = {name: COPIED.fullmatch(Path(name).name) for name in names}
    if all(copied.values()):
        order = {name: int(one[2]) for name, one in copied.items() if one and one[2]}
    else:
        found = {name: NUMBER_IN_NAME.search(Path(name).name.split(".")[0]) for name in names}
        order = {name: int(one[1]) for name, one in found.items() if one}
    return order if len(order) == len(names) == len(set(order.values())) else {}


def copy_name(file_id: str, moment: np.datetime64 | None, place: int | None, name: str) -> str:
    """The name in a de-identified copy: the keyed id, and the moved date or the place in the series, from which time is read."""
    text = "" if moment is None else "-" + str(moment.astype("datetime64[s]")).replace("-", "").replace(":", "")
    if moment is None and place is not None:
        text = f"-{place:04d}"
    return f"{file_id}{text}{'.nii.gz' if name.lower().endswith('.gz') else '.nii'}"
