"""What a run reads of images that may be of patients: a de-identified copy in its folder, which is brought up to date first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import build
from configs.privacy import COPIED, UNSTATED, build_privacy, copy_of, is_copied, path_to_read, settings_of, without_originals
from flows.steps import Steps
from pipelines.errors import RequestError, SceneRefused
from pipelines.wording import counted

if TYPE_CHECKING:
    from configs.sequences import SampleRun
    from pipelines.privacy.folder import Manifest
    from pipelines.sources.deidentified_samples import Originals
    from pipelines.sources.samples import SampleSource
    from pipelines.sources.source import Source

ORIGINALS = "the originals are read, as privacy.deidentify says: they are not de-identified"
ALONE = "read from the de-identified copy alone: this config does not name the originals"
NAMES_STAY = (
    "the files are read as they are, and their names and groups stand in what the run writes: if they are of patients, write "
    "a section `privacy` (docs/medical.md)"
)


def source_to_read(run: Any, steps: Steps, given: Source | None = None) -> tuple[Source, list[str]]:
    """(the source, what de-identification did): of images that may be of patients the copy in the run's folder.

    given: scenes that are in memory. Raises RequestError if no image could be passed on.
    """
    if given is not None or run.source.kind not in COPIED:
        return given or build.build_source(run), []
    from configs.originals import finish_copy, original_of
    from pipelines.privacy.folder import NO_SERIES, clip_in

    copy, of_copy = copy_of(run), without_originals(run)
    if is_read_alone(run):
        return build.build_source(of_copy, clip_in(copy)), [ALONE]
    if not is_copied(run):
        return build.build_source(run), [ORIGINALS]
    source, kinds = original_of(run)
    work = partial(path_to_read, settings_of(run), source, copy, kinds=kinds)
    _, manifest = steps.do("ingest", "de-identify the images", lambda progress: work(progress))
    assert manifest is not None
    finish_copy(run, copy)
    counts = Counter(one.reason for one in manifest.refused if one.reason in NO_SERIES)
    left = [f"de-identification left out {counted(n, 'file')}, {reason}" for reason, n in counts.items()]
    left += (
        [f"{counted(manifest.duplicates, 'further copy', 'further copies')} of a file not read"] if manifest.duplicates else []
    )
    made = f"read from a de-identified copy of {counted(manifest.copied + manifest.unchanged, 'file')}"
    left_out: tuple[SceneRefused, ...] = tuple(manifest.left_out)
    if run.source.kind in UNSTATED and run.privacy is None:
        made += ": its metadata are removed. If it shows a patient, write a section `privacy` (docs/medical.md)"
        left_out = tuple(SceneRefused(manifest.names.get(e.scene_id, e.scene_id), e.reason, e.detail) for e in left_out)
    built = build.build_source(of_copy, clip_in(copy), left_out)
    try:
        built.native_grid()
    except RequestError as e:  # a series may lack what de-identification left out
        lines = [*(f"  note: {one}" for one in left), *format_refusals(left_out, None)]
        raise RequestError("\n".join([str(e), *lines])) from e
    return built, [made, *left]


def is_read_alone(run: Any) -> bool:
    """Whether the config names the copy, as the config that a run leaves does. Raises RequestError if it is not finished."""
    from pipelines.privacy.folder import MANIFEST, UNFINISHED

    copy = copy_of(run)
    if Path(run.source.path).resolve() != copy.resolve() or not (copy / MANIFEST).is_file():
        return False
    if (copy / UNFINISHED).exists():
        raise RequestError(f"the de-identified copy {copy} is not finished: run the config once more that names the originals")
    return True


# ---------------------------------------------------------------- samples


def samples_to_read(run: SampleRun, steps: Steps) -> tuple[SampleSource, list[str]]:
    """(the source of samples, what de-identification did); of files that the config calls a patient's the copy.

    Raises RequestError if no sample could be passed on, or if nobody has stated whether DICOM and NIfTI files are of patients.
    """
    from configs.samples import AnswersConfig
    from pipelines.sources.deidentified_samples import name_samples, write_labels

    if (at_hand := samples_at_hand(run)) is not None:
        return at_hand
    copy, settings, originals = copy_of(run), build_privacy(settings_of(run)), samples_to_copy(run)
    assert settings is not None, "read as they are otherwise"
    manifest = steps.do("ingest", "de-identify the samples", lambda progress: _copy_samples(run, originals, copy, progress))
    found = name_samples(originals, copy, manifest, settings.key)
    if not found.names:
        raise RequestError("\n".join(["no sample could be passed on", *format_refusals(found.refused, None)]))
    notes = [f"read from a de-identified copy of {counted(len(found.names), 'sample')}, which have keyed names", *found.notes]
    labels = run.labels
    if isinstance(labels, AnswersConfig):
        table = Path(labels.path) if labels.kind == "table" and labels.path is not None else None
        notes += write_labels(found, copy, settings.key, labels.read_columns, table)
    return _samples_of_copy(run, tuple(found.refused)), notes


def samples_to_copy(run: SampleRun) -> Originals:
    """The samples of the originals. Raises RequestError, MissingInput, without a name."""
    from configs.samples import build_sample_source
    from pipelines.sources.deidentified_samples import find_originals
    from pipelines.sources.sample_files import SampleFiles

    source = build_sample_source(run.source, None, run.frames)
    assert isinstance(source, SampleFiles)
    return find_originals(source)


def samples_at_hand(run: SampleRun) -> tuple[SampleSource, list[str]] | None:
    """As `samples_to_read`; None if a copy must be made first."""
    from configs.samples import build_sample_source
    from pipelines.sources.sample_files import SampleFiles

    if is_copied(run):
        return (_samples_of_copy(run), [ALONE]) if is_read_alone(run) else None
    source = build_sample_source(run.source, run.labels, run.frames)
    if not isinstance(source, SampleFiles):
        return source, []
    return replace(source, is_stated=run.privacy is not None), [NAMES_STAY if run.privacy is None else ORIGINALS]


def _samples_of_copy(run: SampleRun, left_out: tuple[SceneRefused, ...] = ()) -> SampleSource:
    from configs.samples import build_sample_source
    from pipelines.sources.sample_files import SampleFiles

    of_copy = without_originals(run)
    source = build_sample_source(of_copy.source, of_copy.labels, of_copy.frames)
    assert isinstance(source, SampleFiles)
    return replace(source, left_out=left_out)


def _copy_samples(run: SampleRun, originals: Originals, copy: Path, progress: Any) -> Manifest:
    from pipelines.sources.deidentifying import kinds_of

    kinds, source = kinds_of(is_ordered=originals.source.unit == "folder"), originals.source.path
    _, manifest = path_to_read(settings_of(run), source, copy, progress, kinds, only=originals.files)
    assert manifest is not None
    return manifest


# ---------------------------------------------------------------- messages


def format_refusals(refused: Sequence[SceneRefused], listed_in: Path | None) -> Iterator[str]:
    """A line for each reason, with the first scene as an example."""
    by_reason: dict[str, list[SceneRefused]] = {}
    for refusal in refused:
        by_reason.setdefault(refusal.reason, []).append(refusal)
    for reason, group in by_reason.items():
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        yield f"  refused, {reason}: {group[0].scene_id}{more}: {group[0].detail}"
    if refused and listed_in:
        yield f"  all refusals: {listed_in} (what they mean: docs/validation.md)"
