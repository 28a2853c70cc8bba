"""What is copied of a run's images, and what a copy holds beside the copies of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.build import build_source
from configs.privacy import build_privacy, settings_of
from configs.run import CubeRun
from configs.sources import DicomSource, NiftiSource, PicturesSource, VideoSource
from configs.visits import VisitsSource, build_visit_kinds
from pipelines.errors import MissingInput, RequestError

if TYPE_CHECKING:
    from pipelines.privacy.other_kinds import KindsOf
    from pipelines.sources.image_folder import Found


def original_of(run: Any) -> tuple[Path, KindsOf | None]:
    """(what is copied: of videos the one clip; what `path_to_read` needs to know of it). Raises RequestError, MissingInput."""
    from pipelines.sources.deidentifying import kinds_of

    match run.source:
        case NiftiSource() as source:
            return Path(source.path), kinds_of(["nifti"], pattern=source.pattern or "", is_series=True)
        case VisitsSource() as source:
            return Path(source.path), build_visit_kinds(run)
        case VideoSource() as source:
            from pipelines.sources.video import choose_clip

            clip = choose_clip(Path(source.path), source.clip, shows_names=run.privacy is None)
            return clip, kinds_of(["video"], stream=source.stream)
        case PicturesSource() as source:
            root, frames = Path(source.path).resolve(), frames_of(run)
            is_numbered = "{frame}" in source.pattern
            named = {root / path: number if is_numbered else moment for moment, number, path in frames}
            return Path(source.path), kinds_of(["picture"], frames=named, is_patient=run.privacy is not None)
        case DicomSource() as source:
            return Path(source.path), None
    raise RequestError(f"source.kind: {run.source.kind} is not read from a copy")


def frames_of(run: CubeRun) -> Sequence[Found]:
    """The pictures of a folder in order. Raises RequestError, MissingInput; with a section `privacy`, without a name."""
    from pipelines.sources.image_folder import ImageFolderSource

    originals = build_source(run)
    assert isinstance(originals, ImageFolderSource)
    try:
        return originals.find_frames()[0]
    except (RequestError, MissingInput):
        if run.privacy is None:
            raise
        problem = "there are no pictures below source.path whose names fit source.pattern and give each a time of its own"
        raise RequestError(f"{problem} (frame_time, times); names are not repeated here: they may name a patient") from None


def finish_copy(run: CubeRun, copy: Path) -> None:
    """What a copy holds beside the copies of its files: of pictures with a file of times a new one."""
    from pipelines.calendar import UNKNOWN_ORIGIN
    from pipelines.sources.deidentifying_pictures import name_of, write_times

    settings = build_privacy(settings_of(run))
    if not isinstance(run.source, PicturesSource) or not run.source.times or settings is None:
        return
    days = 0 if run.privacy is None else settings.key.shift_days(name_of(Path(run.source.path)), settings.shift_days)
    moments = {settings.key.name("file", path): moment for moment, _, path in frames_of(run)}
    write_times(copy, moments, UNKNOWN_ORIGIN if run.source.start is None else np.datetime64(run.source.start, "ns"), days)
