"""Frames of a video file as scenes: presentation times, colours as bands, no position (docs/video.md)."""

from __future__ import annotations

import functools
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.containers import SUFFIXES, examine_container
from pipelines.sources.image_bands import ImageRequest, check_times, interval_notes
from pipelines.sources.isolation import isolate, isolated
from pipelines.sources.source import DecodesFiles, Listing, Resampling
from pipelines.sources.video_frames import (
    NEUTRAL,
    UNSPECIFIED,
    Clip,
    bits_of,
    decode,
    greyness,
    is_grey_format,
    open_clip,
    open_container,
    reader_of,
    require_av,
)

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

SECOND_NS = 1_000_000_000
FRAME_TIME = "state source.frame_time, in seconds, if the frames are evenly spaced"
Key = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class FirstFrame:
    """What the first frame says of all: rows and columns upright, quarter turns to get there, dtype, whether it is stored grey.

    `start_ns`: when it is shown, on the clock of the stream; None: not stated.
    """

    shape_yx: tuple[int, int]
    turn: int
    dtype: np.dtype
    is_grey: bool
    start_ns: int | None


@dataclass(frozen=True)
class Survey:
    """What a pass over all frames found: times from the first frame in ns (None: not stated), and what a person must know.

    `greyness`: how far the colours are from grey, see `video_frames.greyness`.
    """

    times_ns: tuple[int | None, ...]
    notes: tuple[str, ...]
    greyness: int


@dataclass(frozen=True)
class VideoSource(DecodesFiles):
    """One scene per frame of a video file, or of the clip named `clip` in a folder. It holds no open file.

    `stream`: the number among the video streams; None: the only one. `frame_time`: seconds between two frames, in place of what
    the file says. Every frame is decoded before the first is written: a clip that is damaged anywhere is refused.
    """

    path: Path
    requested: ImageRequest
    clip: str = ""
    stream: int | None = None
    frame_time: float | None = None

    @property
    def bands(self) -> tuple[Band, ...]:
        return self.requested.bands

    def dtype(self) -> np.dtype:
        return first_frame(self._clip).dtype

    def native_grid(self) -> Grid:
        return self.requested.grid(first_frame(self._clip).shape_yx)

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.native_grid()

    def list_scenes(self) -> Listing:
        """The frames. Raises MissingInput, RequestError (damaged, truncated, times that do not ascend, several clips)."""
        clip = self._clip
        first, found = first_frame(clip), survey(clip)
        times_ns, notes = self._times(clip, found), list(found.notes)
        if self.frame_time is not None:
            notes.append(f"frames are {self.frame_time:g} s apart, as source.frame_time says; the times in the file are not used")
        notes += [*interval_notes(times_ns), *self._notes_on_bands(first, found), *self.requested.mask.notes(first.shape_yx)]
        asset = str(clip.path)
        scenes = [
            self.requested.scene(
                number, self.requested.origin + np.timedelta64(at, "ns"), Asset(asset, f"video {clip.stream}", number)
            )
            for number, at in enumerate(times_ns)
        ]
        unused = [one.name for one in clips_in(self.path) if one != clip.path] if self.path.is_dir() else []
        return Listing(scenes, [], unused, notes, is_of_place=False)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) as `Source.read` specifies; masked pixels are missing. Raises SceneRefused."""
        clip, index = self._clip, scene.assets[self.bands[0].name].index
        held = tuple(dict.fromkeys(self.requested.components))
        try:
            seconds, planes_BYX = reader_of(clip, held, first_frame(clip).turn).read(index)
            chosen = self.requested.choose(planes_BYX, held, names, scene, grid)
        except IndexError as e:
            raise SceneRefused(scene.id, "unreadable", "the clip has fewer frames than before; ingest it again") from e
        except RequestError as e:
            raise SceneRefused(scene.id, "unreadable", str(e)) from e
        if self.frame_time is None:
            expected, start_ns = scene.observed_utc - self.requested.origin, first_frame(clip).start_ns or 0
            if seconds is None or expected != np.timedelta64(to_ns(seconds) - start_ns, "ns"):
                raise SceneRefused(scene.id, "unreadable", "the clip has changed while it was read; ingest it again")
        return chosen[:, rows or slice(None)]

    @property
    def _clip(self) -> Clip:
        require_av()
        path = choose_clip(self.path, self.clip)
        return Clip(path, choose_stream(path, self.stream))

    def _times(self, clip: Clip, found: Survey) -> list[int]:
        """ns from the first frame. Raises RequestError where times are missing, repeat or go back."""
        if self.frame_time is not None:
            step = Fraction(str(self.frame_time)) * SECOND_NS
            return [round(number * step) for number in range(len(found.times_ns))]
        times_ns = [at for at in found.times_ns if at is not None]
        if missing := len(found.times_ns) - len(times_ns):
            raise RequestError(
                f"{clip.path.name}: {missing} of {len(found.times_ns)} frames have no presentation time; {FRAME_TIME}"
            )
        check_times(times_ns, clip.path.name, FRAME_TIME)
        return times_ns

    def _notes_on_bands(self, first: FirstFrame, found: Survey) -> list[str]:
        distance = found.greyness
        wants_colours = bool(set(self.requested.components) - {"gray"})
        if wants_colours and distance <= NEUTRAL:
            return ["all frames are grey: red, green and blue are equal (within rounding), and `bands: [gray]` stores a third"]
        if not wants_colours and not first.is_grey:
            if distance <= NEUTRAL:
                return ["the frames are stored in colours and are grey: red, green and blue are equal (within rounding)"]
            return ["the frames have colours: gray is their luma (ITU-R BT.601); `bands: [red, green, blue]` keeps them"]
        return []


def to_ns(seconds: Fraction) -> int:
    """The nearest nanosecond; exact in most containers, whose clocks divide a second into fewer parts."""
    return round(seconds * SECOND_NS)


# ---------------------------------------------------------------- which clip


def clips_in(folder: Path) -> list[Path]:
    """The video files directly in a folder, sorted."""
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file() and one.name[0] != ".")


def choose_clip(path: Path, wanted: str, *, shows_names: bool = True) -> Path:
    """The file, or the clip of a folder that is asked for, by its name or its place in their order (`#2`).

    Raises MissingInput, RequestError (several; they are listed, without names of files if `shows_names` is false).
    """
    if not path.exists():
        raise MissingInput(f"no such file or folder: {path}" if shows_names else "no file or folder where source.path says")
    if path.is_file():
        return path
    clips = clips_in(path)
    if not clips:
        raise MissingInput(f"{path if shows_names else 'source.path'} holds no video ({', '.join(SUFFIXES)})")
    found = [one for n, one in enumerate(clips, 1) if wanted in (one.name, one.stem, f"#{n}")]
    if len(found) == 1:
        return found[0]
    if not wanted and len(clips) == 1:
        return clips[0]
    if not shows_names:
        problem = "source.clip is none of them" if wanted else "they are not put one after the other"
        remedy = "choose one by its place in the order of their names, for example source.clip: '#1'"
        raise RequestError(f"source.path holds {len(clips)} clips, and {problem}: {remedy}")
    listed = "\n".join(f"  {describe_clip(one)}" for one in clips[:40]) + ("\n  ..." if len(clips) > 40 else "")
    problem = f"source.clip {wanted!r} is none of them" if wanted else "they are not put one after the other"
    remedy = f"choose one, for example source.clip: {clips[0].name}; each clip is a series, with a run of its own"
    raise RequestError(f"{path} holds {len(clips)} clips, and {problem}: {remedy}\n{listed}")


@isolate
def describe_clip(path: Path) -> str:
    """Name, size and length of a clip, or what is wrong with it."""
    try:
        with open_clip(Clip(path)) as (container, stream):
            seconds = f", {container.duration / 1_000_000:.2f} s" if container.duration else ""
            frames = f", {stream.frames} frames" if stream.frames else ""
            return f"{path.name}: {stream.codec_context.height} x {stream.codec_context.width}{frames}{seconds}"
    except (RequestError, MissingInput) as e:
        return str(e)


def choose_stream(path: Path, wanted: int | None) -> int:
    """The number of the video stream. Raises RequestError where there is none, or several and no choice."""
    kinds = _stream_kinds(path, path.stat().st_mtime_ns, path.stat().st_size)
    videos = kinds.count("video")
    if wanted is None and videos > 1:
        raise RequestError(f"{path.name} has {videos} video streams; choose one: source.stream: 0 (to {videos - 1})")
    if not videos:
        raise RequestError(f"{path.name} has no video stream, only {', '.join(kinds) or 'nothing'}")
    return wanted or 0


@functools.lru_cache(maxsize=64)
def _stream_kinds(path: Path, mtime_ns: int, size: int) -> tuple[str, ...]:
    return stream_kinds(path)


@isolate
def stream_kinds(path: Path) -> tuple[str, ...]:
    """The kind of each stream of a file, such as video and audio."""
    with open_container(path) as container:
        return tuple(stream.type for stream in container.streams)


# ---------------------------------------------------------------- what a pass finds


def first_frame(clip: Clip) -> FirstFrame:
    """What the first frame says. Raises RequestError where there is none, or it is turned by other than quarters."""
    return _first_frame(clip, clip.key)


def survey(clip: Clip) -> Survey:
    """A pass over all frames, made once for each state of the file. Raises RequestError (damaged, truncated, mixed formats)."""
    return _survey(clip, clip.key)


@functools.lru_cache(maxsize=16)
def _first_frame(clip: Clip, key: Key) -> FirstFrame:
    return isolated(read_first_frame, clip, label=clip.path.name, paths=(clip.path,))


@functools.lru_cache(maxsize=4)
def _survey(clip: Clip, key: Key) -> Survey:
    return isolated(read_all_frames, clip, label=clip.path.name, paths=(clip.path,))


def read_first_frame(clip: Clip) -> FirstFrame:
    with closing(decode(clip)) as frames:
        timed = next(frames, None)
    if timed is None:
        raise RequestError(f"{clip.path.name} holds no frame; copy it again")
    frame, turn = timed.frame, _quarter_turns(timed.frame, clip.path.name)
    shape = (frame.height, frame.width) if turn % 2 == 0 else (frame.width, frame.height)
    dtype = np.dtype("uint8" if bits_of(frame) <= 8 else "uint16")
    return FirstFrame(shape, turn, dtype, is_grey_format(frame), None if timed.seconds is None else to_ns(timed.seconds))


def _quarter_turns(frame: av.VideoFrame, name: str) -> int:
    """How often the frame is turned counter-clockwise by 90 degrees to be upright, as its display matrix says."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, "=i4")[:5].tolist()
        if a * d - b * c < 0:
            raise RequestError(f"{name} is to be shown mirrored; write it upright with ffmpeg")
    if frame.rotation % 90:
        raise RequestError(f"{name} is to be shown turned by {frame.rotation} degrees; only quarter turns are applied")
    return int(frame.rotation // 90) % 4


def read_all_frames(clip: Clip) -> Survey:
    first, times_ns, distance, formats, last = first_frame(clip), list[int | None](), 0, dict[str, None](), None
    is_interlaced, is_untimed = False, examine_container(clip.path).is_untimed
    for last in decode(clip):
        times_ns.append(None if last.seconds is None or is_untimed else to_ns(last.seconds) - (first.start_ns or 0))
        distance = max(distance, greyness(last.frame))
        is_interlaced |= bool(last.frame.interlaced_frame)
        formats[last.frame.format.name] = None
    assert last is not None, "first_frame has found one"
    if len(formats) > 1:
        raise RequestError(f"{clip.path.name} changes its pixel format between frames ({', '.join(formats)}); write it anew")
    with open_clip(clip) as (container, stream):
        _require_all(clip, len(times_ns), stream)
        others = [str(one.type) for one in container.streams if one is not stream]
        ratio = stream.codec_context.sample_aspect_ratio
    notes = _notes_on_frames(first, last.frame, others, None if not ratio or ratio == 1 else str(ratio), distance > NEUTRAL)
    if is_interlaced:
        notes.append("frames are interlaced: odd and even rows are of different moments")
    return Survey(tuple(times_ns), tuple(notes), distance)


def _notes_on_frames(
    first: FirstFrame, frame: av.VideoFrame, others: list[str], ratio: str | None, has_colours: bool
) -> list[str]:
    bits, kinds = bits_of(frame), dict.fromkeys(others)
    is_assumed = has_colours and frame.format.name.startswith("yuv") and frame.colorspace == UNSPECIFIED
    notes = {
        f"frames are turned by {90 * first.turn} degrees counter-clockwise, as the file asks for": first.turn,
        f"pixels are not square (width : height = {ratio}); frames are kept as they are stored": ratio,
        f"the first frame is shown at {(first.start_ns or 0) / SECOND_NS:.6g} s of the clip; times count from it": first.start_ns,
        f"values are kept with {bits} bits, 0 to {(1 << bits) - 1}": bits > 8,
        "the file does not state the matrix of its colours: ITU-R BT.601 is assumed": is_assumed,
        "transparency is ignored": any(component.is_alpha for component in frame.format.components),
        f"not used: {', '.join(f'{others.count(kind)} stream of {kind}' for kind in kinds)}": others,
    }
    return [text for text, is_so in notes.items() if is_so]


def _require_all(clip: Clip, decoded: int, stream: VideoStream) -> None:
    """Raises RequestError if there are fewer frames than the header or the structure of the file says."""
    listed = examine_container(clip.path).frames or ((stream.frames,) if stream.frames else ())
    if listed and decoded not in listed:
        raise RequestError(
            f"{clip.path.name} declares {max(listed)} frames, {decoded} can be decoded: it is truncated, or holds frames that "
            "are dropped or cut off by an edit list; copy it again, or write it anew with ffmpeg"
        )
