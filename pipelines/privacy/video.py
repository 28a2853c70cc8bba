"""Video files without anything but their pictures: no metadata, no other streams, no messages within the stream of pictures.

Packets are copied, not coded again, so pictures are the same, bit for bit; only masked clips are coded again, without loss.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipelines.errors import RequestError
from pipelines.files import replacing
from pipelines.privacy.compressed import blank_text
from pipelines.privacy.settings import Mask, PrivacyRefusal

if TYPE_CHECKING:
    import numpy as np
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# messages of the encoder and of the camera, free text among them: SEI, user data, metadata OBU
MESSAGES = {
    "h264": "filter_units=remove_types=6",
    "hevc": "filter_units=remove_types=39|40",
    "mpeg2video": "filter_units=remove_types=178",
    "av1": "filter_units=remove_types=5",
}
JPEGS = ("mjpeg", "jpeg2000")
WITHOUT_TEXT = ("mpeg4", "vp8", "vp9", "ffv1", "huffyuv", "ffvhuff", "rawvideo", "gif", "msmpeg4v3", "prores", "utvideo")
USER_DATA = re.compile(rb"\x00\x00\x01\xb2([^\x00]*)")  # of MPEG-4 part 2 (ISO 14496-2, 6.2.2)
ENCODERS = re.compile(rb"(Lavc|FFmpeg|FFmpe|DivX|XviD)[0-9a-z.]{0,24}\s*")
KNOWN_KEYS = {  # of metadata, as libav calls them; others may be text themselves, and are counted without their name
    "title", "artist", "album", "comment", "description", "synopsis", "copyright", "date", "creation_time", "location", "encoder",
    "genre", "subject", "software", "keywords", "make", "model", "handler_name", "language", "timecode", "major_brand",
    "minor_version", "compatible_brands", "vendor_id", "duration", "encoded_by", "performer", "publisher", "author",
}  # fmt: skip
PLANAR = (
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuvj422p",
    "yuv444p",
    "yuvj444p",
    "gray",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
    "gray10le",
)
PACKED = {"rgb24": 3, "bgr24": 3, "bgr0": 4}  # samples of a pixel
LOSSLESS = {"qp": "0", "preset": "veryfast", "bf": "0"}
Count = Counter[tuple[str, str, str]]


def clean_video(
    source: Path,
    target: Path,
    *,
    demuxer: str | None = None,
    frames: Sequence[int] = (),
    stream: int | None = None,
    masks: Sequence[Mask] = (),
) -> Count:
    """Writes the pictures of a video to `target` (same container by its suffix; .mp4 of masked ones) without anything else.

    Title, comment, location, dates, chapters, sound, subtitles, data, attached pictures and messages within the stream are left
    out; what was, is counted: (path, kind, action). Text in the pictures stays unless a mask covers it. The frames keep their
    distances in time, which is checked. frames: how many there must be, by the structure of the file; else its header counts.
    stream: which of several video streams.

    Raises PrivacyRefusal, and RequestError if PyAV is missing. What is refused leaves no file.
    """
    try:
        import av
    except ModuleNotFoundError as e:
        raise RequestError("videos need PyAV: install the extra, `pip install 'driftline[video]'`") from e
    options = {"protocol_whitelist": "file"}
    try:
        with replacing(target, mark=f"partial{target.suffix}") as draft:
            with (
                av.open(
                    f"file:{source.absolute()}", format=demuxer, container_options=options, metadata_errors="ignore"
                ) as given,
                av.open(str(draft), "w", options={"fflags": "+bitexact"}) as copy,
            ):
                chosen = _chosen(given, stream)
                done = _left_out(given, chosen)
                found = _code_again(given, chosen, copy, masks) if masks else _copy_packets(given, chosen, copy)
                listed = frames or [one for one in [chosen.frames] if one]
                if listed and len(found) not in listed:
                    raise _refusal("truncated", f"it declares {max(listed)} frames, {len(found)} are there; copy the file again")
            _require_same_times(found, draft)
    except (av.FFmpegError, ValueError, OverflowError) as e:
        raise _refusal("unreadable", f"{type(e).__name__}: no video that can be copied without its texts") from None
    done["video", "pictures", "masked" if masks else "kept"] += 1
    return done


def _refusal(reason: str, detail: str) -> PrivacyRefusal:
    return PrivacyRefusal("video", reason, detail)


def _chosen(given: InputContainer, number: int | None) -> VideoStream:
    from av.stream import Disposition

    videos = [one for one in given.streams.video if not one.disposition & Disposition.attached_pic]
    if not videos or (number or 0) >= len(videos):
        raise _refusal("unreadable", f"it has {len(videos)} video streams")
    if number is None and len(videos) > 1:
        raise _refusal(
            "unreadable", f"it has {len(videos)} video streams; choose one (source.stream), or write them to two files"
        )
    return videos[number or 0]


def _left_out(given: InputContainer, chosen: VideoStream) -> Count:
    """What the copy will not hold, by kind."""
    done = Count()
    for key in (*given.metadata, *(key for one in given.streams for key in one.metadata)):
        name = key.lower() if key.lower() in KNOWN_KEYS else "unknown"
        done[f"video/{name}", "text", "removed"] += 1
    for one in given.streams:
        if one is not chosen:
            done["video/stream", str(one.type), "removed"] += 1
    done["video/chapters", "text", "removed"] += len(given.chapters())
    return +done


def _copy_packets(given: InputContainer, chosen: VideoStream, copy: OutputContainer) -> list[Fraction]:
    """The times of the frames; the packets are in `copy`."""
    import av

    codec = chosen.codec_context.codec.canonical_name
    if codec not in (*MESSAGES, *JPEGS, *WITHOUT_TEXT):
        raise _refusal("unreadable", "its codec may hold text that cannot be found; write it anew with ffmpeg (H.264 or FFV1)")
    _require_no_user_data(codec, chosen.codec_context.extradata or b"")
    new = copy.add_stream_from_template(chosen)
    new.metadata.clear()
    copy.metadata.clear()
    messages = av.bitstream.BitStreamFilterContext(MESSAGES[codec], chosen, new) if codec in MESSAGES else None
    times = []
    for packet in given.demux(chosen):
        if packet.dts is None and packet.pts is None and not packet.size:
            continue
        _require_whole(packet)
        times.append(_time_of(packet))
        for one in messages.filter(packet) if messages else [_without_text(packet, codec)]:
            one.stream = new
            copy.mux(one)
    if messages:
        for one in messages.filter(None):
            one.stream = new
            copy.mux(one)
    return times


def _require_whole(packet: Packet[VideoStream]) -> None:
    if packet.is_corrupt:
        raise _refusal("truncated", "a packet is not whole; copy the file again")
    if packet.is_discard:
        raise _refusal("unreadable", "an edit list cuts frames off, which a copy would show; write it anew with ffmpeg")


def _time_of(packet: Packet[VideoStream]) -> Fraction:
    if packet.pts is None or packet.time_base is None:
        raise _refusal("unreadable", "a frame has no time; write the clip anew with ffmpeg")
    return packet.pts * Fraction(packet.time_base)


def _without_text(packet: Packet[VideoStream], codec: str) -> Packet[VideoStream]:
    """The packet; of a JPEG with its comments and application data overwritten, their bytes stay as many."""
    data = bytes(packet)
    if codec in JPEGS:
        packet.update(blank_text(data)[0])
    else:
        _require_no_user_data(codec, data)
    return packet


def _require_no_user_data(codec: str, data: bytes) -> None:
    """Raises PrivacyRefusal for user data in MPEG-4 that is not the name of a known encoder, by which decoders go."""
    if codec == "mpeg4" and not all(ENCODERS.fullmatch(text.strip()) for text in USER_DATA.findall(data)):
        raise _refusal("unreadable", "its stream holds user data, which may be text; write it anew with ffmpeg (H.264 or FFV1)")


def _require_same_times(expected: Sequence[Fraction], path: Path) -> None:
    """Raises PrivacyRefusal unless the copy has as many frames, as far from each other."""
    import av

    with av.open(str(path)) as copy:
        times = [_time_of(packet) for packet in copy.demux(copy.streams.video[0]) if packet.size]
    if not times or _from_first(times) != _from_first(expected):
        raise _refusal("unreadable", "its container cannot keep the times of the frames; write it anew with ffmpeg (MP4)")


def _from_first(times: Sequence[Fraction]) -> list[Fraction]:
    return sorted(one - min(times) for one in times)


# ---------------------------------------------------------------- masks


def _code_again(given: InputContainer, chosen: VideoStream, copy: OutputContainer, masks: Sequence[Mask]) -> list[Fraction]:
    """The times of the frames; `copy` has them with black rectangles, in H.264 without loss."""

    name = chosen.codec_context.pix_fmt or ""
    codec = "libx264rgb" if name in PACKED else "libx264" if name in PLANAR else None
    if codec is None or chosen.time_base is None:
        raise _refusal("mask-outside", "pixels of this form cannot be masked; write it anew with ffmpeg (-pix_fmt yuv444p)")
    chosen.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode", "ec": "0"}
    new, times = None, []
    for packet in given.demux(chosen):
        _require_whole(packet)
        for frame in packet.decode():
            if frame.pts is None or frame.is_corrupt or frame.rotation:
                raise _refusal("mask-outside", "it is damaged, turned or has no times: masks need it upright; write it anew")
            new = new or _coded_as(frame, codec, chosen, copy)
            times.append(frame.pts * Fraction(chosen.time_base))
            masked = _masked(frame, masks)
            masked.pts, masked.time_base = frame.pts, chosen.time_base
            copy.mux(new.encode(masked))
    if new is None:
        raise _refusal("truncated", "it holds no frame")
    copy.mux(new.encode())
    return times


def _coded_as(frame: VideoFrame, codec: str, chosen: VideoStream, copy: OutputContainer) -> VideoStream:
    """A stream of `copy` for such frames: colours, shape of pixels and clock are those of the original."""
    new = cast("VideoStream", copy.add_stream(codec, options=LOSSLESS))
    new.width, new.height, new.pix_fmt = frame.width, frame.height, frame.format.name
    if chosen.time_base is not None:
        new.time_base = new.codec_context.time_base = chosen.time_base
    for key in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(new.codec_context, key, getattr(chosen.codec_context, key))
    if chosen.sample_aspect_ratio is not None:
        new.codec_context.sample_aspect_ratio = chosen.sample_aspect_ratio
    return new


def _masked(frame: VideoFrame, masks: Sequence[Mask]) -> VideoFrame:
    """A copy of the frame whose rectangles are black; the frame itself stays, since later ones are predicted from it."""
    import numpy as np
    from av.video.frame import VideoFrame

    for mask in masks:
        if mask.rows[1] > frame.height or mask.columns[1] > frame.width:
            size = f"{frame.height} rows and {frame.width} columns"
            raise _refusal("mask-outside", f"a rectangle of privacy.masks is not within its {size}")
    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    for number, (plane, new) in enumerate(zip(frame.planes, copy.planes, strict=True)):
        dtype, samples, black = _layout(frame, number)
        held = samples * dtype.itemsize * plane.width
        bytes_YX = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, :held].copy()
        pixels_YXS = bytes_YX.view(dtype).reshape(plane.height, plane.width, samples)
        down, across = -(-frame.height // plane.height), -(-frame.width // plane.width)  # of chroma that is sampled less densely
        for mask in masks:
            rows, columns = mask.rows, mask.columns
            pixels_YXS[rows[0] // down : -(-rows[1] // down), columns[0] // across : -(-columns[1] // across)] = black
        padded = np.zeros((plane.height, new.line_size), np.uint8)
        padded[:, :held] = bytes_YX
        new.update(padded.tobytes().ljust(new.buffer_size, b"\0"))
    copy.color_range, copy.colorspace = frame.color_range, frame.colorspace
    return copy


def _layout(frame: VideoFrame, plane: int) -> tuple[np.dtype, int, int]:
    """(dtype, samples of a pixel, what black is) of a plane: planar YUV and grey, packed RGB."""
    import numpy as np
    from av.video.reformatter import ColorRange

    name, bits = frame.format.name, frame.format.components[0].bits
    if name in PACKED:
        return np.dtype("uint8"), PACKED[name], 0
    is_full = name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    black = 1 << (bits - 1) if plane else 0 if is_full else 16 << (bits - 8)
    return np.dtype("uint8" if bits <= 8 else "<u2"), 1, black
