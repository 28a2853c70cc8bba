"""Small clips that tests make with PyAV: one moving square, whose grey value is 5 x (number of the frame)."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

SHAPE_YX = (48, 64)
CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".mov": "mjpeg", ".mkv": "ffv1", ".webm": "libvpx-vp9", ".gif": "gif"}
FORMATS = {"mjpeg": "yuvj420p", "ffv1": "gray", "gif": "rgb8", "rawvideo": "bgr24"}


def frame_of(number: int, colours: bool = False) -> np.ndarray:
    """(rows, columns, 3) uint8."""
    pixels = np.full((*SHAPE_YX, 3), 5 * number, np.uint8)
    pixels[10:20, 2 * number : 2 * number + 12] = (200, 30, 90) if colours else 250
    return pixels


def make_clip(
    path: Path, frames: int = 20, *, codec: str = "", format: str = "", pts: Sequence[int] = (), colours: bool = False,
    time_base: Fraction = Fraction(1, 25), options: dict[str, str] | None = None, turned: int = 0, streams: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes a clip whose frame n is shown at `pts[n] * time_base` (default: n)."""
    import av

    codec = codec or CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        made = []
        for _ in range(streams):
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = SHAPE_YX
            stream.pix_fmt = format or FORMATS.get(codec, "yuv420p")
            stream.codec_context.time_base = time_base
            if turned:
                stream.set_display_rotation(turned)
            made.append(stream)
        for number in range(frames):
            for stream in made:
                frame = av.VideoFrame.from_ndarray(frame_of(number, colours), format="rgb24")
                frame.pts, frame.time_base = (pts[number] if pts else number), time_base
                container.mux(stream.encode(frame))
        for stream in made:
            container.mux(stream.encode())
    return path
