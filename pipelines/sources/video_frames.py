"""Frames of a video file in the order of time, decoded strictly: an error of the stream is an error, not a repaired picture.

Frames are decoded one after the other, from the first on: seeking by number silently gives other frames (PyAV, libav). A reader
stays open between two reads, so that asking for frames in order decodes each of them once.
"""

from __future__ import annotations

import atexit
import math
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.sources.containers import examine_container

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAME_PX = 1 << 26  # 8192 x 8192
MAX_FRAMES = 1_000_000
MAX_CLIP_PX = 10**11  # of all frames: an hour of 1080p at 15 frames a second
KEPT_BYTES = 64 << 20  # decoded frames that a reader keeps, for those who ask a little out of order,
FEWEST_KEPT = 4
MOST_KEPT = 64
NEUTRAL = 2  # how far chroma of a grey video may be from 128, by rounding and compression
UNSPECIFIED = 2  # matrix (ISO 23091-2)


@dataclass(frozen=True)
class Clip:
    """One video stream of a file. `stream`: the number among the video streams, from 0."""

    path: Path
    stream: int = 0

    @property
    def key(self) -> tuple[str, int, int, int, int]:
        """What is read again when the file changes."""
        status = self.path.stat()
        return str(self.path), self.stream, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class Timed:
    """A decoded frame and its presentation time, from the origin of the stream; None where the file states none."""

    frame: av.VideoFrame
    seconds: Fraction | None


def require_av() -> None:
    """Raises RequestError if PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as e:
        raise RequestError("video files are read with PyAV, which is not installed: pip install 'driftline[video]'") from e


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A whole video file. Raises MissingInput, RequestError (truncated, another format).

    Only the demuxer that the first bytes name is tried, and only this one file is opened.
    """
    require_av()
    import av

    whole = examine_container(path)
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(
            f"file:{path.absolute()}", format=whole.demuxer, container_options=options, metadata_errors="ignore", timeout=60
        )
    except av.FFmpegError as e:
        raise RequestError(f"{path.name} cannot be opened as video ({_reason(e)}); copy it again") from e
    with container:
        yield container


@contextmanager
def open_clip(clip: Clip) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream, ready to be decoded. Raises MissingInput, RequestError (truncated, too large, no stream)."""
    name = clip.path.name
    with open_container(clip.path) as container:
        streams = container.streams.video
        if clip.stream >= len(streams):
            raise RequestError(f"{name} has {len(streams)} video streams, none with the number {clip.stream} (source.stream)")
        stream = streams[clip.stream]
        codec = stream.codec_context
        if codec is None:
            raise RequestError(f"{name}: no decoder for the stream is there; convert it with ffmpeg")
        if not codec.width or codec.width * codec.height > MAX_FRAME_PX:
            raise RequestError(
                f"{name} declares frames of {codec.height} x {codec.width}, the limit is {MAX_FRAME_PX:.1e} pixels"
            )
        frames = stream.frames or _frames_by_duration(container, stream)
        if frames > MAX_FRAMES or frames * codec.width * codec.height > MAX_CLIP_PX:
            size = f"{frames} frames of {codec.height} x {codec.width} pixels"
            raise RequestError(
                f"{name} declares {size}; the limits are {MAX_FRAMES:.0e} frames and {MAX_CLIP_PX:.0e} pixels: cut it"
            )
        codec.options = {"err_detect": "crccheck+bitstream+buffer+explode", "ec": "0", "max_pixels": str(MAX_FRAME_PX)}
        codec.thread_count = 1  # errors belong to their frame, and workers share the machine
        yield container, stream


def _frames_by_duration(container: InputContainer, stream: VideoStream) -> int:
    rate, seconds = stream.average_rate or 0, (container.duration or 0) / 1_000_000
    return math.ceil(float(rate) * seconds)


def decode(clip: Clip) -> Generator[Timed]:
    """Every frame in the order of presentation. Raises RequestError for the first error of the file."""
    import av

    with open_clip(clip) as (container, stream):
        name, count, time_base = clip.path.name, 0, stream.time_base
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise RequestError(
                        f"{name} is damaged or truncated after frame {count}: a packet is not whole; copy it again"
                    )
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise RequestError(f"{name} is damaged at frame {count}: it does not decode; copy it again")
                    if (frame.width, frame.height) != (stream.codec_context.width, stream.codec_context.height):
                        raise RequestError(f"{name} changes the size of its frames at frame {count}; cut it there")
                    base = frame.time_base or time_base
                    yield Timed(frame, None if frame.pts is None or base is None else frame.pts * Fraction(base))
                    count += 1
                    if count > MAX_FRAMES:
                        raise RequestError(f"{name} holds more than {MAX_FRAMES} frames; cut it")
        except av.FFmpegError as e:
            raise RequestError(f"{name} is damaged at frame {count} ({_reason(e)}); copy it again, or cut it before that") from e


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", "") or type(error).__name__)


# ---------------------------------------------------------------- values


def bits_of(frame: av.VideoFrame) -> int:
    """Bits of a sample, of an alpha channel not counted."""
    return max(component.bits for component in frame.format.components if not component.is_alpha)


def is_grey_format(frame: av.VideoFrame) -> bool:
    return frame.format.name.startswith(("gray", "mono", "ya"))


def planes_of(frame: av.VideoFrame, components: tuple[str, ...], turn: int) -> np.ndarray:
    """(components, rows, columns) of a frame: gray (luma), red, green, blue in full range; uint8, or uint16 with the file's bits.

    libswscale converts range and matrix. `turn`: quarter turns counter-clockwise that set the frame upright.
    """
    bits = bits_of(frame)
    dtype = np.dtype("uint8" if bits <= 8 else "uint16")
    planes: dict[str, np.ndarray] = {}
    if "gray" in components:
        grey = _plane(_converted(frame, "gray" if bits <= 8 else f"gray{bits}le"), 0, dtype)
        planes["gray"] = _full_range(grey, bits) if is_limited_grey(frame) else grey
    if set(components) - {"gray"}:
        colours = _converted(frame, "gbrp" if bits <= 8 else f"gbrp{bits}le")
        planes |= {name: _plane(colours, n, dtype) for n, name in enumerate(("green", "blue", "red"))}
    stacked = np.stack([planes[name] for name in components])
    return np.ascontiguousarray(np.rot90(stacked, turn, axes=(1, 2)))


def _converted(frame: av.VideoFrame, name: str) -> av.VideoFrame:
    from av.video.reformatter import ColorRange

    if frame.format.name == name:
        return frame
    return frame.reformat(format=name, dst_color_range=ColorRange.JPEG)


def is_limited_grey(frame: av.VideoFrame) -> bool:
    """True for grey pixels that state limited range (16 to 235), which libswscale passes on as they are."""
    from av.video.reformatter import ColorRange

    return is_grey_format(frame) and frame.color_range == ColorRange.MPEG


def _full_range(grey_YX: np.ndarray, bits: int) -> np.ndarray:
    """Limited range to full range (ITU-R BT.601, 2.5.3)."""
    most, step = (1 << bits) - 1, 1 << max(bits - 8, 0)
    full = np.round((grey_YX.astype(np.float32) - 16 * step) * (most / (219 * step)))
    limited: np.ndarray = np.clip(full, 0, most).astype(grey_YX.dtype)
    return limited


def _plane(frame: av.VideoFrame, number: int, dtype: np.dtype) -> np.ndarray:
    plane = frame.planes[number]
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    values: np.ndarray = rows[:, : plane.width]
    return values


def greyness(frame: av.VideoFrame) -> int:
    """How far the colours of the frame are from grey, in 8-bit steps of chroma or of difference between two colours."""
    if is_grey_format(frame):
        return 0
    if frame.format.name.startswith("yuv"):
        shift = bits_of(frame) - 8
        dtype = np.dtype("uint8" if shift <= 0 else "uint16")
        worst = 0
        for number in (1, 2):
            values = _plane(frame, number, dtype).astype(np.int32)
            worst = max(worst, int(np.abs(values - (128 << shift)).max()) >> shift)
        return worst
    red, green, blue = planes_of(frame, ("red", "green", "blue"), 0).astype(np.int32)
    return int(max(np.abs(red - green).max(), np.abs(red - blue).max())) >> max(bits_of(frame) - 8, 0)


# ---------------------------------------------------------------- in order


class FrameReader:
    """Decodes the frames of a clip in order and keeps the last ones, for several threads that ask almost in order."""

    def __init__(self, clip: Clip, components: tuple[str, ...], turn: int):
        self._clip, self._components, self._turn = clip, components, turn
        self._lock = threading.Lock()
        self._frames: Generator[Timed] | None = None
        self._next = 0
        self._kept: OrderedDict[int, tuple[Fraction | None, np.ndarray]] = OrderedDict()

    def read(self, index: int) -> tuple[Fraction | None, np.ndarray]:
        """(seconds, planes_BYX) of the frame with this number. Raises RequestError, IndexError behind the last frame."""
        with self._lock:
            if index in self._kept:
                return self._kept[index]
            if index < self._next or self._frames is None:
                self._stop()
                self._frames, self._next = decode(self._clip), 0
            for timed in self._frames:
                number, self._next = self._next, self._next + 1
                if number > index - MOST_KEPT:  # somebody who asks a little later may want those before
                    self._keep(number, timed)
                if number == index:
                    return self._kept[number]
            self._stop()
            raise IndexError(index)

    def _keep(self, number: int, timed: Timed) -> None:
        planes_BYX = planes_of(timed.frame, self._components, self._turn)
        planes_BYX.setflags(write=False)
        self._kept[number] = timed.seconds, planes_BYX
        most = max(FEWEST_KEPT, min(MOST_KEPT, KEPT_BYTES // planes_BYX.nbytes))
        while len(self._kept) > most:
            self._kept.popitem(last=False)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self._frames = None


_readers: OrderedDict[tuple[Any, ...], FrameReader] = OrderedDict()
_readers_lock = threading.Lock()


def reader_of(clip: Clip, components: tuple[str, ...], turn: int) -> FrameReader:
    """The reader of a clip in this process; of two clips at most, the older one is closed."""
    key = (*clip.key, components, turn)
    with _readers_lock:
        if key not in _readers:
            _readers[key] = FrameReader(clip, components, turn)
        _readers.move_to_end(key)
        while len(_readers) > 2:
            _readers.popitem(last=False)[1].close()
        return _readers[key]


@atexit.register
def close_readers() -> None:
    """Closes the files that readers keep open between two reads."""
    with _readers_lock:
        while _readers:
            _readers.popitem()[1].close()
