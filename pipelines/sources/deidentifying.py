"""De-identification of NIfTI files with their sidecars, and of videos: what `pipelines.privacy.folder` copies beside DICOM.

Pictures: `deidentifying_pictures`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.files import replacing, write_bytes
from pipelines.privacy.nifti import clean_nifti, clean_sidecar, read_sidecar
from pipelines.privacy.other_kinds import Copied, KindsOf, OtherKind
from pipelines.privacy.pixels import require_no_text
from pipelines.privacy.settings import Mask, PrivacyRefusal, PrivacySettings
from pipelines.privacy.video import Count, clean_video
from pipelines.sources.containers import SUFFIXES, examine_container, suffix_of
from pipelines.sources.deidentifying_pictures import PictureFiles, name_of
from pipelines.sources.isolation import isolated
from pipelines.sources.nifti_names import MOST_APART, copy_name, dates_in, is_nifti, numbers_in

SUBJECT = re.compile(r"(?:^|[/_])sub-([A-Za-z0-9]+)")  # of BIDS


@dataclass(frozen=True)
class NiftiFiles:
    """The NIfTI files of a folder, or one file. is_series: they are those of one patient, and refused otherwise.

    is_ordered: names of copies hold the moved date or the place in the series.
    """

    source: Path
    paths: tuple[Path, ...]
    settings: PrivacySettings
    pattern: str = ""
    is_series: bool = False
    is_ordered: bool = True
    name: str = "nifti"

    def takes(self, path: Path) -> bool:
        return path in self._names

    def parts(self, path: Path) -> tuple[Path, ...]:
        return (path, *(one for one in (b_values_of(path), sidecar_of(path)) if one))

    def depends_on(self, path: Path) -> str:
        name = self._names[path]
        return f"{self._patient(path)} {self._dates.get(name)} {self._places.get(name)}"

    def copy(self, path: Path, file_id: str, target: Path, settings: PrivacySettings) -> Copied:
        name, patient = self._names[path], self._patient(path)
        moment = self._dates.get(name)
        if moment is not None:
            moment += np.timedelta64(settings.key.shift_days(patient, settings.shift_days), "D")
        copied = f"{settings.key.pseudonym(patient)}/{copy_name(file_id, moment, self._places.get(name), name)}"
        (target / copied).parent.mkdir(parents=True, exist_ok=True)
        masks = tuple(mask for mask in settings.masks if mask.modality is None)
        done = clean_nifti(path, target / copied, masks, checks_text=settings.burned_in == "quarantine", ocr=settings.ocr)
        done["name", "text", "new name" if moment is None else "date moved"] += 1
        beside = {}
        if (sidecar := self._sidecars.get(path)) is not None:
            beside["json"] = clean_sidecar(sidecar, done)
        if (b_values := b_values_of(path)) is not None:  # the source refuses volumes of several
            beside["bval"] = clean_b_values(b_values, file_id)
        stem = copied.removesuffix(".gz").removesuffix(".nii")
        for suffix, content in beside.items():
            write_bytes(target / f"{stem}.{suffix}", content, flush=False, mark="partial")
        return Copied(copied, tuple(f"{stem}.{suffix}" for suffix in beside), done)

    # ------------------------------------------------------------ whose images, and when

    @cached_property
    def _names(self) -> dict[Path, str]:
        """Of the files that are copied: those that the pattern fits."""
        folder = self.source if self.source.is_dir() else self.source.parent
        names = {path: path.relative_to(folder).as_posix() for path in self.paths if is_nifti(path)}
        if self.pattern and self.source.is_dir():
            fitting = dates_in(list(names.values()), self.pattern)
            return {path: name for path, name in names.items() if name in fitting}
        return names

    @cached_property
    def _dates(self) -> dict[str, np.datetime64]:
        return dates_in(list(self._names.values()), self.pattern) if self.source.is_dir() and self.is_ordered else {}

    @cached_property
    def _places(self) -> dict[str, int]:
        """Places in the series, from 0. Numbers that lie far apart are no places: they may be those of patients."""
        order = numbers_in(list(self._names.values())) if len(self._names) > 1 and self.is_ordered and not self._dates else {}
        first = min(order.values(), default=0)
        return {name: n - first for name, n in order.items()} if max(order.values(), default=0) - first <= MOST_APART else {}

    @cached_property
    def _sidecars(self) -> dict[Path, dict[str, object] | None]:
        """None: there is a sidecar that cannot be read."""
        found: dict[Path, dict[str, object] | None] = {}
        for path in self._names:
            if (sidecar := sidecar_of(path)) is not None:
                try:
                    found[path] = read_sidecar(sidecar)
                except PrivacyRefusal:
                    found[path] = None
        return found

    @cached_property
    def _stated(self) -> dict[Path, str]:
        """Whom the files state: the PatientID of the sidecar, else the subject in a BIDS name."""
        stated = {}
        for path, name in self._names.items():
            of_sidecar = str((self._sidecars.get(path) or {}).get("PatientID", "") or "").strip()
            subject = SUBJECT.search(name)
            if of_sidecar or subject:
                stated[path] = of_sidecar or (subject[1] if subject else "")
        return stated

    def _patient(self, path: Path) -> str:
        """What identifies the patient: stated by the file; else by others of the folder, if it is one; else the folder's name.

        Where the source is one file, its name takes the place of the folder's.
        """
        if path in self._sidecars and self._sidecars[path] is None:
            read_sidecar(self.parts(path)[-1])  # raises again
        patients = set(self._stated.values())
        if self.is_series and len(patients) > 1:
            problem = f"the files state {len(patients)} patients, and one series is of one patient; name the folder of one"
            raise PrivacyRefusal("NIfTI", "several-patients", problem)
        if len(patients) == 1:
            return next(iter(patients))
        return self._stated.get(path, name_of(self.source))


def sidecar_of(path: Path) -> Path | None:
    """The JSON file of the same name beside a NIfTI file."""
    return _beside(path, ".json")


def b_values_of(path: Path) -> Path | None:
    """The file of b-values (FSL, BIDS) of the same name beside a NIfTI file."""
    return _beside(path, ".bval")


def _beside(path: Path, suffix: str) -> Path | None:
    found = path.with_name(re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE) + suffix)
    return found if found.is_file() else None


def clean_b_values(path: Path, file_id: str) -> bytes:
    """The numbers of a file of b-values, s/mm2. Raises PrivacyRefusal if it holds anything else."""
    try:
        values = [float(text) for text in path.read_text("ascii").split()]
    except (ValueError, OSError):
        raise PrivacyRefusal(file_id, "unreadable", "its file of b-values (.bval) holds something that is no number") from None
    return (" ".join(f"{value:g}" for value in values) + "\n").encode("ascii")


@dataclass(frozen=True)
class VideoFiles:
    """The video files of a folder, or one file. stream: which of several video streams."""

    source: Path
    stream: int | None = None
    name: str = "video"

    def takes(self, path: Path) -> bool:
        return path.suffix.lower() in SUFFIXES

    def parts(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def depends_on(self, path: Path) -> str:
        return f"{name_of(self.source)} {self.stream}"

    def copy(self, path: Path, file_id: str, target: Path, settings: PrivacySettings) -> Copied:
        masks = tuple(mask for mask in settings.masks if mask.modality is None)
        if settings.burned_in == "quarantine" and not masks:
            stated = "state that none shows any (privacy.burned_in: checked, --checked)"
            remedy = f"look at it; then name a rectangle (privacy.masks, --mask), or {stated}"
            raise PrivacyRefusal(file_id, "burned-in", f"may show text: a video does not say whether text is in it; {remedy}")
        copied = f"{settings.key.pseudonym(name_of(self.source))}/{file_id}{'.mp4' if masks else suffix_of(path)}"
        (target / copied).parent.mkdir(parents=True, exist_ok=True)
        try:
            done = isolated(copy_video, path, target / copied, self.stream, masks, settings.ocr, label=file_id, paths=(path,))
        except PrivacyRefusal as e:
            raise PrivacyRefusal(file_id, e.reason, e.detail) from None
        except SceneRefused:  # its message has the name of the file
            raise PrivacyRefusal(file_id, "unreadable", "its decoder failed, or needed too much time or memory") from None
        except (RequestError, MissingInput) as e:
            raise PrivacyRefusal(file_id, "truncated", without_name(str(e), path)) from None
        return Copied(copied, done=done)


def copy_video(path: Path, target: Path, stream: int | None, masks: tuple[Mask, ...], ocr: bool) -> Count:
    """As `clean_video`, for a file that is whole. Raises RequestError, MissingInput for one that is not."""
    whole = examine_container(path)
    with replacing(target, flush=False, mark=f"checked{target.suffix}") as draft:
        done = clean_video(path, draft, demuxer=whole.demuxer, frames=whole.frames, stream=stream, masks=masks)
        if examine_container(draft).is_untimed != whole.is_untimed:
            raise PrivacyRefusal("video", "unreadable", "its container cannot keep the times of the frames")
        if ocr:
            require_no_text(_some_frames(draft))
    return done


def _some_frames(path: Path) -> Iterator[np.ndarray]:
    """The first, middle and last frame (row, column, RGB)."""
    import av

    with av.open(str(path)) as container:
        count = sum(bool(packet.size) for packet in container.demux(container.streams.video[0]))
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in (0, count // 2, count - 1):
                yield frame.to_ndarray(format="rgb24")


def without_name(message: str, path: Path) -> str:
    """A message on a file without its path and its name."""
    for text in (str(path.absolute()), str(path), path.name):
        message = message.replace(text, "the file")
    return message


def kinds_of(
    names: Sequence[str] = ("nifti", "video", "picture"),
    *,
    pattern: str = "",
    is_series: bool = False,
    stream: int | None = None,
    is_ordered: bool = True,
    frames: Mapping[Path, np.datetime64 | int] | None = None,
    is_patient: bool = True,
) -> KindsOf:
    """What makes the kinds for a folder; arguments as of NiftiFiles, VideoFiles and PictureFiles."""

    def kinds(source: Path, paths: Sequence[Path], settings: PrivacySettings) -> Sequence[OtherKind]:
        of_paths = source, tuple(paths), settings
        made: dict[str, OtherKind] = {
            "nifti": NiftiFiles(*of_paths, pattern, is_series, is_ordered),
            "video": VideoFiles(source, stream),
            "picture": PictureFiles(*of_paths, frames, is_ordered, is_patient),
        }
        return [kind for name, kind in made.items() if name in names]

    return kinds
