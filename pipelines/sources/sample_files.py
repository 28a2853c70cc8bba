"""Files or folders as samples with an answer each: videos, NIfTI and DICOM files, pictures, folders of pictures, DICOM series."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from pipelines.errors import DriftlineError, MissingInput, RequestError, SceneRefused
from pipelines.privacy.folder import copies_in
from pipelines.scene import Band, Scene
from pipelines.sources.answers import Answer, Answers
from pipelines.sources.containers import SUFFIXES as VIDEOS
from pipelines.sources.dicom_files import is_dicom
from pipelines.sources.folder import list_files, take_text_names
from pipelines.sources.image_bands import ImageRequest, grey_of
from pipelines.sources.opening import check_inside
from pipelines.sources.pictures import SUFFIXES as PICTURES
from pipelines.sources.pictures import read_picture
from pipelines.sources.samples import Frames, Sample, SampleListing, evenly_spread
from pipelines.sources.source import DecodesFiles, Source

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")  # and files whose endings are no words, with the preamble
OTHERS = (*VIDEOS, *NIFTI, *PICTURES)
READ = (*OTHERS, *DICOM)
UNSTATED = (
    "source.path holds DICOM or NIfTI files, which are images of patients: write `privacy: {}`, which reads a de-identified copy "
    "and gives samples and groups keyed names, or `privacy: {deidentify: false, reason: ...}`, which reads the files as they are"
)
DIGITS = re.compile(r"\d{1,18}")
Unit = Literal["file", "folder"]
UNKNOWN = Answer("")


@dataclass(frozen=True)
class SampleFiles(DecodesFiles):
    """Samples below `path`: each file that `pattern` fits (`unit: file`), or each folder of pictures or DICOM (`unit: folder`).

    A sample is named by its path below `path` without the ending. `most_frames`: so many of a sample are read, evenly chosen.
    `frame_time`: seconds between frames, in place of what files say. `table`: the file of answers. Samples without an answer are
    listed too: they can be predicted. Of a de-identified copy those are listed whose originals are still there. `left_out`:
    samples that are refused before this reads them. `is_stated`: somebody has stated whether the files are of patients; else
    DICOM and NIfTI files are refused.
    """

    path: Path
    requested: ImageRequest
    answers: Answers = field(default=Answers(), hash=False)
    pattern: str = "*"
    unit: Unit = "file"
    most_frames: int | None = None
    frame_time: float | None = None
    table: Path | None = None
    left_out: tuple[SceneRefused, ...] = field(default=(), repr=False, hash=False)
    is_stated: bool = field(default=True, repr=False, hash=False)

    @property
    def bands(self) -> tuple[Band, ...]:
        return self.requested.bands

    def list_samples(self) -> SampleListing:
        """Raises MissingInput, RequestError (nothing to read, two samples of one name)."""
        if not self.path.is_dir():
            raise MissingInput(f"no such folder: {self.path}")
        copies = copies_in(self.path)
        there = [path for path in sorted(copies.values()) if (self.path / path).is_file()]
        paths, misnamed = take_text_names(there if copies else list_files(self.path))
        self.answers.require_files(paths)
        matching = self.matching(paths)
        chosen = self.folders(matching) if self.unit == "folder" else {name_of(path): [path] for path in matching}
        if self.unit == "file" and len(chosen) < len(matching):
            twice = next(name for name, count in Counter(map(name_of, matching)).items() if count > 1)
            raise RequestError(f"{self.path} holds two files named {twice} with different endings; set source.pattern")
        if not chosen:
            endings = ", ".join(sorted({PurePosixPath(path).suffix for path in paths})[:5]) or "no file"
            problem = f"{self.path} holds no {self._noun} that fits {self.pattern!r} (there: {endings})"
            raise RequestError(f"{problem}; read are {', '.join(READ)}")
        if not self.is_stated and any(path.lower().endswith(NIFTI) or self._is_dicom(path) for path in matching):
            raise RequestError(UNSTATED)
        samples, refused = [], [*misnamed, *self.left_out]
        for name, own in sorted(chosen.items()):
            known = self.answers.of(own[0] if self.unit == "file" else name) or UNKNOWN
            files = tuple(self.path / path for path in own)
            try:
                for file in files:
                    check_inside(self.path, file, name)
            except SceneRefused as e:
                refused.append(e)
                continue
            samples.append(Sample(name, files, known.answer, known.group, known.part))
        used = {path for own in chosen.values() for path in own}
        unused = [path for path in paths if path not in used and self.path / path != self.table]
        return SampleListing(samples, refused, unused, list(self._notes(samples)))

    def read(self, sample: Sample) -> Frames:
        """Raises SceneRefused."""
        size = float(sum(path.stat().st_size for path in sample.paths))
        try:
            image, valid, seconds_T, count, step = self._frames(sample)
        except SceneRefused as e:
            raise SceneRefused(sample.id, e.reason, e.detail) from e
        except DriftlineError as e:
            raise SceneRefused(sample.id, "unreadable", str(e)) from e
        facts = {"rows": float(image.shape[-2]), "columns": float(image.shape[-1]), "frames": float(count)}
        return Frames(image, seconds_T, valid, {**facts, "frame_s": step, "bytes": size})

    # ------------------------------------------------------------ what there is

    @property
    def _noun(self) -> str:
        return "file" if self.unit == "file" else "folder of pictures or of a DICOM series"

    def matching(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths below `path` that are read, and that the pattern fits."""
        fitting = [path for path in paths if fnmatch(path, self.pattern) or fnmatch(PurePosixPath(path).name, self.pattern)]
        return [path for path in fitting if path.lower().endswith(OTHERS) or self._is_dicom(path)]

    def folders(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Folder -> its pictures, or DICOM files, in natural order."""
        found: dict[str, list[str]] = {}
        for path in paths:
            if not path.lower().endswith((*VIDEOS, *NIFTI)) and "/" in path:
                found.setdefault(str(PurePosixPath(path).parent), []).append(path)
        return {folder: sorted(own, key=_natural) for folder, own in found.items()}

    def _is_dicom(self, path: str) -> bool:
        """By the preamble, of a file whose ending is that of DICOM files or says nothing."""
        one = PurePosixPath(path)
        may_be = path.lower().endswith(DICOM) or not one.suffix[1:].isalpha()
        return may_be and one.name.upper() != "DICOMDIR" and is_dicom(self.path / path)

    def _notes(self, samples: Sequence[Sample]) -> Iterator[str]:
        unknown = [sample.id for sample in samples if not sample.answer]
        if unknown and len(unknown) < len(samples):
            yield f"{len(unknown)} of {len(samples)} samples have no answer: {', '.join(unknown[:3])}; they can only be predicted"
        if not self.answers.from_folders:
            named = {path.relative_to(self.path).as_posix() for sample in samples for path in sample.paths}
            named |= {PurePosixPath(one).name for one in named} | {sample.id for sample in samples}
            lost = [name for name in self.answers.of_file if name not in named]
            if lost:
                yield f"{len(lost)} of {len(self.answers.of_file)} lines of the table name no sample: {', '.join(lost[:3])}"

    # ------------------------------------------------------------ frames

    def _frames(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, int, float]:
        """(image_TCHW, valid_THW, seconds_T from the first frame of the file, frames that there are, seconds between them)."""
        path, pictures = sample.paths[0], [one for one in sample.paths if one.name.lower().endswith(PICTURES)]
        if pictures and len(pictures) < len(sample.paths):
            raise SceneRefused(sample.id, "several-series", "the folder holds pictures and DICOM files; set source.pattern")
        if pictures:
            kept = evenly_spread(len(sample.paths), self.most_frames)
            images = [self._picture(sample.paths[n], sample.id) for n in kept]
            sizes = {image.shape for image in images} | {image.dtype for image in images}
            if len(sizes) > 2:
                raise SceneRefused(sample.id, "wrong-grid", f"its pictures differ in size or type: {', '.join(map(str, sizes))}")
            step = self.frame_time or np.nan
            return *_unmasked([self.requested.mask.apply(image) for image in images]), kept * step, len(sample.paths), step
        source = self._source(sample)
        listing = source.list_scenes()
        if listing.refused and self._reads_dicom(path):
            raise SceneRefused(sample.id, listing.refused[0].reason, listing.refused[0].detail)
        scenes = listing.scenes
        kept = evenly_spread(len(scenes), self.most_frames)
        grid, names = source.native_grid(), tuple(band.name for band in source.bands)
        read = [source.read(scenes[n], grid, names, "nearest") for n in kept]
        if not path.name.lower().endswith(VIDEOS):
            read = [self._physical(stored, source.bands[0], sample) for stored in read]
        seconds = _seconds(scenes)
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else np.nan
        return *_unmasked(read), seconds[kept], len(scenes), step

    def _reads_dicom(self, path: Path) -> bool:
        return not path.name.lower().endswith(OTHERS)

    def _physical(self, stored: np.ndarray, band: Band, sample: Sample) -> np.ndarray:
        """(1, [z,] y, x) values that can be compared with those of other samples: files state scales, offsets and nodata.

        float32 where they are scaled, and of DICOM files of more than 8 bits, whose types differ from vendor to vendor.
        """
        asked, values = self.requested.bands[0], stored
        missing = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
        if band.nodata is not None:
            missing = missing | (stored == band.nodata)
        is_deep = self._reads_dicom(sample.paths[0]) and stored.dtype.itemsize > 1
        if is_deep or (band.scale, band.offset) != (asked.scale, asked.offset):
            scale, offset = (band.scale, band.offset) if asked.scale == 1 and asked.offset == 0 else (1, 0)
            values = (stored * scale + offset).astype(np.float32)
        if not self.requested.mask.is_empty:
            if values.ndim > 3:
                raise SceneRefused(sample.id, "wrong-grid", "source.mask is of frames, and the sample holds volumes")
            missing = missing | np.ma.getmaskarray(self.requested.mask.apply(values))
        return np.ma.MaskedArray(np.where(missing, values.dtype.type(0), values), missing) if missing.any() else values

    def _source(self, sample: Sample) -> Source:
        path = sample.paths[0]
        if self._reads_dicom(path):
            from pipelines.sources.dicom import DicomSource
            from pipelines.sources.dicom_files import list_dicom_files

            whole = path.parent if self.unit == "folder" else path
            if not set(list_dicom_files(whole)) <= set(sample.paths):
                raise SceneRefused(sample.id, "wrong-grid", "folders within it hold DICOM files too; give each series a folder")
            return DicomSource(whole, self.requested.bands[0], "", self.frame_time)
        if path.name.lower().endswith(NIFTI):
            from pipelines.sources.nifti import NiftiSource

            return NiftiSource(path, self.requested.bands[0], "", self.frame_time)
        from pipelines.sources.video import VideoSource

        return VideoSource(path, self.requested, frame_time=self.frame_time)

    def _picture(self, path: Path, name: str) -> np.ndarray:
        """The planes that are asked for."""
        picture = read_picture(path, name)
        planes, held = picture.planes_BYX, picture.components
        if "gray" in self.requested.components and "gray" not in held:
            planes, held = np.concatenate([planes, grey_of(planes)[None]]), (*held, "gray")
        if missing := [one for one in self.requested.components if one not in held]:
            raise SceneRefused(name, "missing-band", f"{path.name} has {', '.join(held)}, not {', '.join(missing)}")
        return planes[[held.index(one) for one in self.requested.components]]


def name_of(path: str) -> str:
    """The path without its ending.

    >>> name_of("a/visit.1.nii.gz"), name_of("clip.avi")
    ('a/visit.1', 'clip')
    """
    ending = next((one for one in NIFTI[::-1] if path.lower().endswith(one)), PurePosixPath(path).suffix)
    return path[: len(path) - len(ending)]


def _natural(path: str) -> tuple[str | int, ...]:
    """Sort key: numbers in names by their value."""
    parts: list[str | int] = []
    at = 0
    for found in DIGITS.finditer(path):
        parts += [path[at : found.start()], int(found.group())]
        at = found.end()
    return (*parts, path[at:])


def _seconds(scenes: Sequence[Scene]) -> np.ndarray:
    moments = np.array([scene.observed_utc for scene in scenes], "datetime64[ns]")
    seconds: np.ndarray = (moments - moments[0]) / np.timedelta64(1, "s")
    return seconds


def _unmasked(planes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """(image_TCHW, valid_THW or None) of frames that may be masked arrays."""
    if not any(isinstance(one, np.ma.MaskedArray) for one in planes):
        return np.stack(planes), None
    valid = np.stack([~np.ma.getmaskarray(one).any(axis=0) for one in planes])
    return np.stack([np.ma.filled(one, 0) for one in planes]), valid
