"""A folder of pictures (PNG, JPEG, BMP, TIFF) as scenes without a position; dates or frame numbers stand in their names."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.privacy.folder import copies_in
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.dates import parse_date
from pipelines.sources.file_names import FilePattern, show_some
from pipelines.sources.folder import list_files, not_searched, take_text_names
from pipelines.sources.image_bands import ImageRequest, check_times, grey_of, interval_notes
from pipelines.sources.isolation import isolated
from pipelines.sources.opening import check_inside
from pipelines.sources.pictures import SUFFIXES, read_picture
from pipelines.sources.source import DecodesFiles, Listing, Resampling, resolve_dates

SECOND_NS = 1_000_000_000
Found = tuple[np.datetime64, int, str]  # time, frame number (or -1), path below the folder


@dataclass(frozen=True)
class FirstPicture:
    """What the first picture says of all."""

    shape_yx: tuple[int, int]
    dtype: np.dtype
    components: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImageFolderSource(DecodesFiles):
    """One scene for every picture below `path` that `pattern` fits; the pattern has {date:...} or {frame}, the number of a frame.

    Frames follow each other by `frame_time` seconds (frame n lies n steps from the first), or at the times in the text file
    `times` below `path`, one a line in the order of the frames: seconds, or dates. Of a de-identified copy those are read whose
    originals are still there.
    """

    path: Path
    requested: ImageRequest
    pattern: str
    frame_time: float | None = None
    times: str = ""
    left_out: tuple[SceneRefused, ...] = field(default=(), repr=False)  # files that are refused before this reads them

    @property
    def bands(self) -> tuple[Band, ...]:
        return self.requested.bands

    def dtype(self) -> np.dtype:
        return self._first.dtype

    def native_grid(self) -> Grid:
        return self.requested.grid(self._first.shape_yx)

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.native_grid()  # `read` refuses a picture of another size

    def list_scenes(self) -> Listing:
        """The pictures. Raises MissingInput, RequestError (nothing fits, a frame twice, no times)."""
        frames, unused, refused = self.find_frames()
        first = self._first
        notes = [*first.notes, *self._notes(frames), *self.requested.mask.notes(first.shape_yx)]
        digits = max(5, len(str(max((number for _, number, _ in frames), default=0))))
        scenes = []
        for n, (moment, number, path) in enumerate(frames):
            asset = Asset(str(self.path / path), "", n)
            try:
                check_inside(self.path, self.path / path, path)
            except SceneRefused as e:
                refused.append(e)
                continue
            scenes.append(self.requested.scene(number if number >= 0 else n, moment, asset, digits))
        return resolve_dates(scenes, refused, "refuse", unused, notes)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) as `Source.read` specifies; masked pixels are missing. Raises SceneRefused."""
        path = Path(scene.assets[self.bands[0].name].path)
        picture = read_picture(path, scene.id)
        if picture.planes_BYX.dtype != self.dtype():
            detail = f"{path.name} holds {picture.planes_BYX.dtype}, the first picture {self.dtype()}; convert it"
            raise SceneRefused(scene.id, "wrong-dtype", detail)
        planes_BYX, held = picture.planes_BYX, picture.components
        if "gray" in self.requested.components and "gray" not in held:
            planes_BYX, held = np.concatenate([planes_BYX, grey_of(planes_BYX)[None]]), (*held, "gray")
        return self.requested.choose(planes_BYX, held, names, scene, grid)[:, rows or slice(None)]

    # ------------------------------------------------------------ what there is

    @functools.cached_property
    def _first(self) -> FirstPicture:
        frames, _, _ = self.find_frames()
        try:
            path = self.path / frames[0][2]
            picture = isolated(read_picture, path, label=path.name, paths=(path,))
        except SceneRefused as e:
            raise RequestError(f"the first picture of {self.path} cannot be read: {e.detail}") from e
        height, width = picture.planes_BYX.shape[1:]
        return FirstPicture((height, width), picture.planes_BYX.dtype, picture.components, picture.notes)

    def _notes(self, frames: Sequence[Found]) -> list[str]:
        moments = [int((moment - frames[0][0]) / np.timedelta64(1, "ns")) for moment, _, _ in frames]
        notes, numbers = interval_notes(moments), [number for _, number, _ in frames if number >= 0]
        if numbers and (missing := numbers[-1] - numbers[0] + 1 - len(numbers)):
            notes.append(f"{missing} numbers between {numbers[0]} and {numbers[-1]} have no picture")
        if "gray" in self.requested.components and "gray" not in self._first.components:
            notes.append("the pictures have colours: gray is their luma (ITU-R BT.601); `bands: [red, green, blue]` keeps them")
        return notes

    def find_frames(self) -> tuple[list[Found], list[str], list[SceneRefused]]:
        """(frames in order of time, files that are not used, refusals)."""
        copies = sorted(copies_in(self.path, "picture").values())
        paths, misnamed = take_text_names(copies or list_files(self.path))
        named = self._numbered(paths) if "{frame}" in self.pattern else self._dated(paths, misnamed)
        used = {path for _, _, path in named} | {self.times}
        unused = [] if copies else [*not_searched(self.path), *(path for path in paths if path not in used)]
        return named, unused, [*misnamed, *self.left_out]

    def _dated(self, paths: Sequence[str], refused: list[SceneRefused]) -> list[Found]:
        pattern = FilePattern(self.pattern, ())
        found: list[Found] = []
        for path in paths:
            if match := pattern.match(path):
                if (moment := parse_date(match.date_text, pattern.date_format)) is None:
                    refused.append(
                        SceneRefused(path, "no-date", f"{match.date_text!r} is no date of the form {pattern.date_format!r}")
                    )
                else:
                    found.append((moment.astype("datetime64[ns]"), -1, path))
        if not found:
            raise RequestError(self._nothing(paths))
        return sorted(found)

    def _numbered(self, paths: Sequence[str]) -> list[Found]:
        pattern = FilePattern(self.pattern.replace("{frame}", "{step}"), ("step",))
        by_number = [(int(match.step), path) for path in paths if (match := pattern.match(path)) and match.step.isdigit()]
        if not by_number:
            raise RequestError(self._nothing(paths))
        by_number.sort()
        twice = [number for number, count in Counter(number for number, _ in by_number).items() if count > 1]
        if twice:
            names = ", ".join(path for number, path in by_number if number == twice[0])
            raise RequestError(f"{self.path}: {names} are both frame {twice[0]}; write a pattern that fits one of them")
        origin, first = self.requested.origin, by_number[0][0]
        if self.times:
            moments = read_times(self.path / self.times, len(by_number), origin)
        elif self.frame_time is not None:
            step = Fraction(str(self.frame_time)) * SECOND_NS
            moments = [origin + np.timedelta64(round((number - first) * step), "ns") for number, _ in by_number]
        else:
            raise RequestError(
                "frames with numbers need source.frame_time, in seconds, or source.times, a file with one time a line"
            )
        return [(moment, number, path) for moment, (number, path) in zip(moments, by_number, strict=True)]

    def _nothing(self, paths: Sequence[str]) -> str:
        return (
            f"the pattern {self.pattern!r} fits none of the files below {self.path}, such as {show_some(paths)}; write {{frame}} "
            f"where the number of the frame is, or {{date:%Y%m%d}}, and * for what varies; pictures are {', '.join(SUFFIXES)}"
        )


def read_times(path: Path, count: int, origin: np.datetime64) -> list[np.datetime64]:
    """The moments in a text file, one a line: seconds from the first frame, or dates. Raises MissingInput, RequestError."""
    if not path.is_file():
        raise MissingInput(f"no file of times at {path} (source.times is below source.path)")
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len(lines) != count:
        raise RequestError(f"{path.name} has {len(lines)} times, there are {count} pictures; expected one a line for each")
    try:
        seconds_ns = [round(Fraction(line) * SECOND_NS) for line in lines]
        moments = [origin + np.timedelta64(at - seconds_ns[0], "ns") for at in seconds_ns]
    except (ValueError, ZeroDivisionError):
        try:
            moments = [np.datetime64(line.removesuffix("Z"), "ns") for line in lines]
        except ValueError as e:
            raise RequestError(f"{path.name}: {e}; write seconds (0.04) or dates (2024-05-01T10:00:00), one a line") from e
    check_times([int(moment.astype(np.int64)) for moment in moments], path.name, "the lines follow the order of the frames")
    return moments
