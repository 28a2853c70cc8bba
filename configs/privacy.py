"""How medical images are de-identified on the way in: on by default, off only with a stated reason."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import Field

from configs.paths import WRITE
from configs.schema import Finding, LocalPath, Sections, Strict
from pipelines.errors import RequestError
from pipelines.progress import Progress

if TYPE_CHECKING:
    from configs.run import CubeRun, Run
    from configs.tasks import AnyRun
    from configs.tasks.pair import PairRun
    from pipelines.privacy.folder import Manifest
    from pipelines.privacy.other_kinds import KindsOf
    from pipelines.privacy.settings import PrivacySettings

OF_PLACES = ("netcdf", "folder", "stack", "memory", "sites")  # kinds of source
OF_NOBODY = ("idx", "moving_digits", "windows")  # of samples: digits, and windows of a cube
COPIED: dict[str, dict[str, object]] = {  # kinds that are read from a copy; what of their keys is of the originals alone
    "dicom": {},
    "nifti": {"pattern": None},
    "video": {"clip": "", "stream": None},
}
METADATA_ALONE = "read from a copy without metadata; nobody has stated whether the pictures show text"
NAMES_OF_FILES = ("path", "clip", "pattern", "times", "mask_file", "series")  # keys of a source that may name a patient
COPY = "deidentified"  # folder of the de-identified copy in that of a run
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
        yield from self._check_frames(sections)
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

    def _check_frames(self, sections: Sections) -> Iterator[Finding]:
        """Of clips and pictures: what would stay although the section says that they are of a patient."""
        source = sections.get("source")
        kind = getattr(source, "kind", None)
        if not self.deidentify or kind not in ("video", "images"):
            return
        if kind == "images":
            remedy = "write them as a video or as DICOM files, or state `deidentify: false` and a reason"
            yield Finding(("privacy",), "pictures are not de-identified: their names and texts stay", remedy)
        if getattr(source, "start", None) is not None:
            problem = "would keep the date of the scan, and the images are de-identified"
            yield Finding(("source", "start"), problem, "take it out: times then count from the first frame")


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
) -> tuple[Path, Manifest | None]:
    """(the path that a reader may open, what was done): the de-identified copy, which is brought up to date first.

    kinds: of NIfTI and video files (see `kinds_to_copy`); None: DICOM. The original only where the config says so, with a reason.
    Raises RequestError, with the reasons, if no image could be passed on, and what `deidentify_folder` raises.
    """
    from pipelines.privacy.folder import deidentify_folder
    from pipelines.privacy.other_kinds import none_other
    from pipelines.sources.deidentified import deidentify_in_workers

    settings = build_privacy(config or PrivacyConfig())
    if settings is None:
        return source, None
    manifest = deidentify_folder(
        source, copy, settings, progress, kinds or none_other, run=deidentify_in_workers, with_dicom=kinds is None
    )
    if not (manifest.copied or manifest.unchanged):
        reasons = Counter(f"{one.reason}: {one.detail}" for one in manifest.refused)
        listed = "".join(f"\n  {count} x {reason}" for reason, count in reasons.most_common())
        remedy = "`driftline deidentify FOLDER --audit --names` shows which files these are"
        raise RequestError(f"no image could be de-identified{': ' + listed if listed else ', there is no such file'}\n{remedy}")
    return copy, manifest


def settings_of(run: CubeRun) -> PrivacyConfig:
    """The section `privacy`, or what counts without one: of videos, which may show anything, only the metadata go."""
    return run.privacy or PrivacyConfig(burned_in="checked" if run.source.kind == "video" else "quarantine")


def original_of(run: CubeRun) -> tuple[Path, KindsOf | None]:
    """(what is copied: of videos the one clip; what `path_to_read` needs to know of it). Raises RequestError, MissingInput."""
    from configs.sources import DicomSource, NiftiSource, VideoSource
    from pipelines.sources.deidentifying import kinds_of

    match run.source:
        case NiftiSource() as source:
            return Path(source.path), kinds_of(["nifti"], pattern=source.pattern or "", is_series=True)
        case VideoSource() as source:
            from pipelines.sources.video import choose_clip

            clip = choose_clip(Path(source.path), source.clip, shows_names=run.privacy is None)
            return clip, kinds_of(["video"], stream=source.stream)
        case DicomSource() as source:
            return Path(source.path), None
    raise RequestError(f"source.kind: {run.source.kind} is not read from a copy")


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
    if source.kind in ("images", "files"):
        return "not de-identified: the files are read as they are"
    return METADATA_ALONE if source.kind == "video" and privacy is None else "read from a de-identified copy"


def without_originals(run: OfRun) -> OfRun:
    """The run as its files state it: reading the de-identified copy, since names of folders and files may name a patient."""
    privacy = getattr(run, "privacy", None) or PrivacyConfig()
    kind = getattr(getattr(run, "source", None), "kind", None)
    if kind not in COPIED or not privacy.deidentify:
        return run
    source = run.source.model_copy(update={"path": str(copy_of(run)), **COPIED[kind]})  # type: ignore[union-attr]
    return cast("OfRun", run.model_copy(update={"source": source}))
