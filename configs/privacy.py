"""How medical images are de-identified on the way in: on by default, off only with a stated reason."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.paths import WRITE
from configs.schema import Finding, LocalPath, Sections, Strict
from pipelines.errors import RequestError
from pipelines.progress import Progress

if TYPE_CHECKING:
    from configs.run import Run
    from configs.tasks import AnyRun
    from pipelines.privacy.folder import Manifest
    from pipelines.privacy.settings import PrivacySettings

OF_PLACES = ("netcdf", "folder", "stack", "memory", "sites")  # kinds of source
NAMES_OF_FILES = ("path", "clip", "pattern", "times", "mask_file", "series")  # keys of a source that may name a patient
Bounds = tuple[int, int]


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
    config: PrivacyConfig | None, source: Path, copy: Path, progress: Progress | None = None
) -> tuple[Path, Manifest | None]:
    """(the path that a reader of DICOM may open, what was done): the de-identified copy, which is brought up to date first.

    The original only where the config says so, with a reason. Raises RequestError, with the reasons, if no image could be passed
    on, and what `deidentify_folder` raises.
    """
    from pipelines.privacy.folder import deidentify_folder
    from pipelines.sources.deidentified import deidentify_in_workers

    settings = build_privacy(config or PrivacyConfig())
    if settings is None:
        return source, None
    manifest = deidentify_folder(source, copy, settings, progress, deidentify_in_workers)
    if not (manifest.copied or manifest.unchanged):
        reasons = Counter(f"{one.reason}: {one.detail}" for one in manifest.refused)
        listed = "".join(f"\n  {count} x {reason}" for reason, count in reasons.most_common())
        remedy = "`driftline deidentify FOLDER --audit --names` shows which files these are"
        raise RequestError(f"no image could be de-identified{': ' + listed if listed else ', there is no DICOM file'}\n{remedy}")
    return copy, manifest


def copy_of(run: AnyRun) -> Path:
    """The folder of the de-identified copy of a run's images."""
    return Path(run.runs) / run.name / "deidentified"


def privacy_of(run: AnyRun | Run) -> str:
    """What a cube and a summary state of the privacy of patients' images; "" for images of places."""
    source, privacy = getattr(run, "source", None), getattr(run, "privacy", None) or PrivacyConfig()
    if source is None or source.kind in OF_PLACES:
        return ""
    if not privacy.deidentify:
        return f"not de-identified: {privacy.reason}"
    return "read from a de-identified copy" if source.kind == "dicom" else f"not de-identified: {source.kind} is read as it is"


def without_originals(run: AnyRun) -> AnyRun:
    """The run as its files state it: reading the de-identified copy, since names of folders and files may name a patient."""
    privacy = getattr(run, "privacy", None) or PrivacyConfig()
    if getattr(getattr(run, "source", None), "kind", None) != "dicom" or not privacy.deidentify:
        return run
    source = run.source.model_copy(update={"path": str(copy_of(run))})  # type: ignore[union-attr]
    return run.model_copy(update={"source": source})
