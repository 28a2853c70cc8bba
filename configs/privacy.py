"""How medical images are de-identified on the way in: on by default, off only with a stated reason."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from configs.paths import WRITE, is_uri
from configs.schema import Finding, LocalPath, Sections, Strict
from pipelines.errors import RequestError
from pipelines.progress import Progress

if TYPE_CHECKING:
    from configs.run import CubeRun, Run
    from configs.sequences import SampleRun
    from configs.tasks import AnyRun
    from configs.tasks.pair import PairRun
    from pipelines.privacy.folder import Manifest
    from pipelines.privacy.other_kinds import KindsOf
    from pipelines.privacy.settings import PrivacySettings

OF_PLACES = ("netcdf", "folder", "stack", "memory", "sites")  # kinds of source
OF_VOLUMES = ("nifti", "dicom")  # those that can have volumes
OF_NOBODY = ("idx", "moving_digits", "windows")  # of samples: digits, and windows of a cube
COPIED: dict[str, dict[str, object]] = {  # kinds that are read from a copy; what of their keys is of the originals alone
    "dicom": {},
    "nifti": {"pattern": None},
    "visits": {},  # see `configs.visits.values_of_copy`
    "video": {"clip": "", "stream": None},
    "images": {},
    "files": {"pattern": "*"},
}
UNSTATED = ("video", "images")  # kinds that may show anything: without a section `privacy` only metadata and names go
METADATA_ALONE = "read from a copy without metadata; nobody has stated whether the pictures show text"
AS_THEY_ARE = "read as they are, with their names: nobody has stated whether they are of patients"
NAMES_OF_FILES = (  # keys of a source that may name a patient
    "path", "clip", "pattern", "times", "mask_file", "series", "patients", "grid", "transforms", "brain",
)  # fmt: skip
COPY = "deidentified"  # folder of the de-identified copy in that of a run
LABEL_VOLUME = "labels.nii.gz"  # copy of the labels of volumes in the folder of a run
Bounds = tuple[int, int]
OfRun = TypeVar("OfRun", bound="Run | PairRun")


class MaskConfig(Strict):
    """A rectangle of pixels that is set to 0 in every frame, because it shows text."""

    rows: Bounds = Field(description="first row, and the row after the last one, counted from 0 at the top")
    columns: Bounds = Field(description="first column, and the column after the last one, counted from 0 at the left")
    modality: str | None = Field(None, description="only in images of this modality, e.g. US; default: in every image")


class PrivacyConfig(Strict):
    """How the images of patients are de-identified before anything else reads them (DICOM PS3.15 Annex E)."""

    deidentify: bool = Field(True, description="false reads the originals, and needs `reason`")
    reason: str | None = Field(None, description="of `deidentify: false`: why; it is recorded, e.g. public data without names")
    key_file: Annotated[LocalPath | None, WRITE] = Field(
        None, description="the secret key, made at first use; default: driftline/privacy.key in the data folder of your account"
    )
    burned_in: Literal["quarantine", "checked"] = Field(
        "quarantine",
        description="images that may show text and that no mask covers: left out, or read because a person has looked at all",
    )
    masks: list[MaskConfig] = Field([], description="rectangles that are set to 0")
    ocr: bool = Field(False, description="leave out images in which the program `tesseract` reads text")
    keep: list[Literal["age", "sex", "size", "weight"]] = Field(
        [], description="what is kept of the patient; an age of more than 89 years becomes 89"
    )
    shift_days: Bounds = Field(
        (-3650, -1), description="all dates of a patient move by the same number of whole days between these bounds"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if getattr(sections.get("source"), "kind", None) in OF_PLACES:
            yield Finding(("privacy",), "is for images of patients, and the source has images of places", "take it out")
        if getattr(sections.get("source"), "kind", None) in OF_NOBODY:
            yield Finding(("privacy",), "is for images of patients, and the samples show none", "take it out")
        source = sections.get("source")
        is_of_frames = getattr(source, "kind", None) in (*UNSTATED, "files")
        if self.deidentify and is_of_frames and getattr(source, "start", None) is not None:
            problem = "would keep the date of the scan, and the images are de-identified"
            yield Finding(("source", "start"), problem, "take it out: times then count from the first frame")
        if not self.deidentify and not (self.reason or "").strip():
            remedy = "state why nothing in them identifies anybody: reason: ..."
            yield Finding(("privacy", "deidentify"), "the originals may only be read with a reason", remedy)
        if self.deidentify and self.reason is not None:
            yield Finding(("privacy", "reason"), "is for `deidentify: false`, and the images are de-identified", "take it out")
        low, high = self.shift_days
        if low > high or low <= 0 <= high:
            problem = f"{list(self.shift_days)} is no range of days without 0"
            yield Finding(("privacy", "shift_days"), problem, "smaller number first, both before or both after 0: [-3650, -1]")
        for index, mask in enumerate(self.masks):
            for name, (first, after) in (("rows", mask.rows), ("columns", mask.columns)):
                if not 0 <= first < after:
                    remedy = f"the first of the {name}, then the one after the last: [0, 40]"
                    yield Finding(("privacy", "masks", index, name), f"{[first, after]} holds no pixel", remedy)


def build_privacy(config: PrivacyConfig, *, makes_key: bool = True) -> PrivacySettings | None:
    """The settings of `deidentify_folder`; None where the config says, with a reason, that originals are read.

    The key file is made at first use; `makes_key=False` takes a key that is forgotten, where there is none. Raises RequestError
    for a key that others may read.
    """
    from pipelines.privacy.keys import Key, default_key_file, load_key
    from pipelines.privacy.settings import Mask, PrivacySettings

    if not config.deidentify:
        return None
    path = Path(config.key_file) if config.key_file else default_key_file()
    key = load_key(path) if makes_key or path.exists() else Key(secrets.token_bytes(32))
    masks = tuple(Mask(mask.rows, mask.columns, mask.modality) for mask in config.masks)
    return PrivacySettings(key, config.burned_in, masks, config.ocr, tuple(config.keep), config.shift_days)


def path_to_read(
    config: PrivacyConfig | None,
    source: Path,
    copy: Path,
    progress: Progress | None = None,
    kinds: KindsOf | None = None,
    *,
    only: Collection[Path] | None = None,
) -> tuple[Path, Manifest | None]:
    """(the path that a reader may open, what was done): the de-identified copy, which is brought up to date first.

    kinds: of NIfTI files, videos, pictures; None: DICOM. only: these files below `source`, DICOM among them. The original only
    where the config says so, with a reason.

    Raises RequestError, with the reasons, if no image could be passed on, and what `deidentify_folder` raises.
    """
    from pipelines.privacy.folder import deidentify_folder
    from pipelines.privacy.other_kinds import none_other
    from pipelines.sources.deidentified import deidentify_in_workers

    settings = build_privacy(config or PrivacyConfig())
    if settings is None:
        return source, None
    manifest = deidentify_folder(
        source, copy, settings, progress, kinds or none_other, run=deidentify_in_workers,
        with_dicom=kinds is None or only is not None, only=only,
    )  # fmt: skip
    if not (manifest.copied or manifest.unchanged):
        reasons = Counter(f"{one.reason}: {one.detail}" for one in manifest.refused)
        listed = "".join(f"\n  {count} x {reason}" for reason, count in reasons.most_common())
        remedy = "`driftline deidentify FOLDER --audit --names` shows which files these are"
        raise RequestError(f"no image could be de-identified{': ' + listed if listed else ', there is no such file'}\n{remedy}")
    return copy, manifest


def settings_of(run: CubeRun | SampleRun) -> PrivacyConfig:
    """The section `privacy`, or what counts without one: of videos and pictures only the metadata go."""
    return run.privacy or PrivacyConfig(burned_in="checked" if run.source.kind in UNSTATED else "quarantine")


def is_copied(run: AnyRun | Run) -> bool:
    """Whether the run reads a copy of its images. Samples of files that nobody has called a patient's are read as they are."""
    kind, privacy = getattr(getattr(run, "source", None), "kind", None), getattr(run, "privacy", None)
    return kind in COPIED and (privacy or PrivacyConfig()).deidentify and (kind != "files" or privacy is not None)


def check_stored(sections: Sections) -> Iterator[Finding]:
    """A finding for what cannot be in a run that is stored in S3."""
    runs = sections.get("runs")
    if isinstance(runs, str) and is_uri(runs) and is_copied(cast("Any", SimpleNamespace(**sections))):
        problem = f"is {runs}, and the de-identified copy of the images lies in the run's folder, on a disk"
        yield Finding(("runs",), problem, "name a folder; cube.uri and prediction.staging may be s3://bucket/prefix all the same")


def copy_of(run: AnyRun | Run) -> Path:
    """The folder of the de-identified copy of a run's images."""
    return Path(run.runs) / run.name / COPY


def privacy_of(run: AnyRun | Run) -> str:
    """What a cube and a summary state of the privacy of patients' images; "" for images of places."""
    source, privacy = getattr(run, "source", None), getattr(run, "privacy", None)
    if source is None or source.kind in (*OF_PLACES, *OF_NOBODY):
        return ""
    if privacy is not None and not privacy.deidentify:
        return f"not de-identified: {privacy.reason}"
    if source.kind == "files" and privacy is None:
        return AS_THEY_ARE
    return METADATA_ALONE if source.kind in UNSTATED and privacy is None else "read from a de-identified copy"


def without_originals(run: OfRun) -> OfRun:
    """The run as its files state it: reading the de-identified copy, since names of folders and files may name a patient."""
    if not is_copied(run):
        return run
    from pipelines.privacy.other_kinds import DATED, LABELS, NUMBERED, TIMES

    source, labels, copy = cast("Any", run).source, getattr(run, "labels", None), copy_of(run)
    own, changed = dict(COPIED[source.kind]), dict[str, object]()
    if source.kind == "visits":
        from configs.visits import values_of_copy

        others = values_of_copy(run)
        own |= others.pop("source")
        changed |= {name: getattr(run, name).model_copy(update=values) for name, values in others.items()}
    if source.kind == "images":
        own |= {"pattern": NUMBERED if "{frame}" in source.pattern else DATED, "times": TIMES if source.times else None}
    changed["source"] = source.model_copy(update={"path": str(copy), **own})
    if source.kind in OF_VOLUMES and labels is not None:
        changed["labels"] = labels.model_copy(update={"path": str(copy.with_name(LABEL_VOLUME))})
    if source.kind == "files" and labels is not None:
        changed["labels"] = labels.model_copy(update={"kind": "table", "path": str(copy / LABELS)})
    return cast("OfRun", run.model_copy(update=changed))
