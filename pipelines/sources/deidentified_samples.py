"""Samples of a de-identified copy: which files are copied, and what is known of them under keyed names."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.files import write_text
from pipelines.privacy.folder import NO_SERIES, Manifest, copies_in
from pipelines.privacy.keys import Key
from pipelines.privacy.other_kinds import LABELS
from pipelines.sources.answers import table_rows
from pipelines.sources.folder import list_files, take_text_names
from pipelines.sources.opening import check_inside
from pipelines.sources.sample_files import SampleFiles
from pipelines.sources.samples import Sample, SampleListing

UNUSABLE = "the table of labels cannot be read as it is (its lines are not repeated here: they may name patients)"


@dataclass(frozen=True)
class Originals:
    """Samples and their files, by names that are never written: sample -> its files, with / below the source."""

    source: SampleFiles
    of_sample: Mapping[str, Sequence[str]]
    refused: tuple[str, ...] = ()  # files that are links out of the folder, or have names that are not text

    @property
    def files(self) -> set[Path]:
        root = self.source.path.resolve()
        return {root / name for own in self.of_sample.values() for name in own}

    def numbered(self) -> SampleListing:
        """The samples under numbers."""
        root, ordered = self.source.path, sorted(self.of_sample.items())
        return SampleListing([Sample(f"sample-{n:05d}", tuple(root / one for one in own)) for n, (_, own) in enumerate(ordered)])


def find_originals(source: SampleFiles) -> Originals:
    """The samples that a copy is made of. Raises RequestError where there is none, without any name."""
    try:
        listed = list_files(source.path)
    except MissingInput:
        raise MissingInput("there is no folder where source.path says, or it cannot be read") from None
    paths, misnamed = take_text_names(listed)
    matching, outside = [], []
    for path in source.matching(paths):
        try:
            check_inside(source.path, source.path / path, "")
            matching.append(path)
        except SceneRefused:
            outside.append(path)
    chosen = source.folders(matching) if source.unit == "folder" else {path: [path] for path in matching}
    if not chosen:
        raise RequestError("no file below source.path fits source.pattern and source.unit, and is of a kind that is read")
    return Originals(source, chosen, (*outside, *(one.scene_id for one in misnamed)))


@dataclass
class CopiedSamples:
    """What became of the samples: `names` original -> in the copy; `refused` by keyed ids; `notes` without any name."""

    names: dict[str, str] = field(default_factory=dict, repr=False)
    refused: list[SceneRefused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def name_samples(originals: Originals, copy: Path, manifest: Manifest, key: Key) -> CopiedSamples:
    """The samples by their names in the copy. Copies of samples that are not whole are removed, so that nothing reads them."""
    targets = {manifest.names[one]: name for one, name in copies_in(copy).items() if one in manifest.names}
    faults = {manifest.names[one.scene_id]: one for one in manifest.refused if one.reason not in NO_SERIES}
    homes = {name: _homes(originals, own, targets) for name, own in originals.of_sample.items()}
    shared = Counter(home for several in homes.values() for home in several)
    found, without_image = CopiedSamples(), 0
    for name, own in originals.of_sample.items():
        problem = _problem(name, own, faults, homes[name], shared, is_folder=originals.source.unit == "folder")
        if problem:
            found.refused.append(SceneRefused(_id_of(originals, name, key), *problem))
            for one in {targets[file] for file in own if file in targets}:
                (copy / one).unlink(missing_ok=True)
        elif homes[name]:
            found.names[name] = homes[name].pop()
        else:
            without_image += 1
    detail = "it is a link out of the folder, or its name is no text"
    found.refused += [SceneRefused(key.name("file", one), "unreadable", detail) for one in originals.refused]
    if without_image:
        found.notes.append(
            f"{without_image} files or folders hold no image of their own (reports, directories, copies of others)"
        )
    return found


def _homes(originals: Originals, own: Sequence[str], targets: Mapping[str, str]) -> set[str]:
    """Names in the copy: of a file its copy, of a folder those in which the copies of its files are."""
    copied = {targets[file] for file in own if file in targets}
    return copied if originals.source.unit == "file" else {str(PurePosixPath(one).parent) for one in copied}


def _id_of(originals: Originals, name: str, key: Key) -> str:
    return key.name("file" if originals.source.unit == "file" else "folder", name)


def _problem(
    name: str,
    own: Sequence[str],
    faults: Mapping[str, SceneRefused],
    homes: set[str],
    shared: Mapping[str, int],
    *,
    is_folder: bool,
) -> tuple[str, str] | None:
    """(reason, detail) of a sample that is not whole."""
    wrong = [faults[file] for file in own if file in faults]
    if wrong:
        return wrong[0].reason, f"{len(wrong)} of its {len(own)} files: {wrong[0].detail}" if is_folder else wrong[0].detail
    if len(homes) > 1:
        return "several-series", f"the folder holds {len(homes)} series or kinds of files; give each a folder of its own"
    if any(shared[home] > 1 for home in homes):
        return "several-series", "its series lies in several folders; put it into one"
    return None


# ---------------------------------------------------------------- what is known of them


def write_labels(copied: CopiedSamples, copy: Path, key: Key, columns: Mapping[str, str], table: Path | None = None) -> list[str]:
    """Writes LABELS into the copy: the lines of `table` with keyed names and groups; returns notes without any name.

    columns: field (file, answer, group, part, ...) -> its name in the table; other columns are left out. Without `table` the
    folder that holds a sample names its class. DICOM samples without a group have their patient's pseudonym.
    Raises RequestError, MissingInput, without what is in the table.
    """
    lines = list(_lines(copied, columns, table)) if table is not None else _of_folders(copied, columns)
    for line in lines:
        group, name = line.get(columns["group"], ""), line[columns["file"]]
        if group:
            line[columns["group"]] = key.group(group)
        elif ((copy / name).is_dir() and any((copy / name).glob("*.dcm"))) or name.endswith(".dcm"):
            line[columns["group"]] = name.split("/")[0]
    if table is not None and not lines:
        raise RequestError("no line of the table of labels names a sample; see labels.columns.file")
    there = [name for name in columns.values() if any(name in line for line in lines)] or [columns["file"], columns["answer"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, there, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: line[columns["file"]]))
    write_text(copy / LABELS, text.getvalue())
    unknown = set(copied.names.values()) - {line[columns["file"]] for line in lines}
    return [f"{len(unknown)} samples are not in the table of labels"] if table and unknown else []


def _lines(copied: CopiedSamples, columns: Mapping[str, str], table: Path) -> Iterator[dict[str, str]]:
    """The lines of each sample, found by its path or else by its name, as `Answers.of` finds them."""
    of_file: dict[str, list[dict[str, str]]] = {}
    try:
        for _, row in table_rows(table, (columns["file"], columns["answer"])):
            name = str(PurePosixPath((row.get(columns["file"]) or "").strip().replace("\\", "/")))
            kept = {column: (row.get(column) or "").strip() for column in columns.values() if column in row}
            of_file.setdefault(name, []).append(kept)
    except MissingInput:
        raise MissingInput("there is no file where labels.path says") from None
    except RequestError:
        raise RequestError(f"{UNUSABLE}: a CSV file in UTF-8 with the columns that labels.columns names is expected") from None
    for name, in_copy in copied.names.items():
        for line in of_file.get(name) or of_file.get(PurePosixPath(name).name) or ():
            yield {**line, columns["file"]: in_copy}


def _of_folders(copied: CopiedSamples, columns: Mapping[str, str]) -> list[dict[str, str]]:
    held = {in_copy: PurePosixPath(name).parts[:-1] for name, in_copy in copied.names.items()}
    return [{columns["file"]: one, columns["answer"]: parents[-1]} for one, parents in held.items() if parents]
