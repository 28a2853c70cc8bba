"""NIfTI and video files without what their headers say of people: copies whose voxels or pictures are the same, bit for bit.

Neither has a field for a name, and both have free text into which programs write names: descriptions, file names, comments, whole
DICOM headers as extensions.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

from pipelines.errors import RequestError
from pipelines.files import replacing, write_bytes
from pipelines.privacy.settings import PrivacyRefusal

# (size of the header, offset of dim, its format, offset of bitpix, offset of vox_offset, its format)
NIFTI_1 = (348, 40, "8h", 72, 108, "f")
NIFTI_2 = (540, 16, "8q", 14, 168, "q")
# (offset, bytes): data_type and db_name, extents, session_error, glmax and glmin, descrip, aux_file, intent_name; unused_str
TEXT_1 = ((4, 10), (14, 18), (32, 4), (36, 2), (140, 8), (148, 80), (228, 24), (328, 16))
TEXT_2 = ((240, 80), (320, 24), (508, 16), (525, 15))
EXTENSION_FLAG = 4
# messages of the encoder, free text among them
SEI = {"h264": "filter_units=remove_types=6", "hevc": "filter_units=remove_types=39|40"}


def clean_nifti(source: Path, target: Path) -> None:
    """Writes `source` (.nii or .nii.gz) to `target` without free text and extensions: header fields of text are empty.

    Dimensions, affines, units, scale and voxels stay as they are. The copy is compressed if `target` ends with .gz; then neither
    the original's name nor its time is in it. Raises PrivacyRefusal for what is no NIfTI file of one part, or cut off.
    """
    try:
        data = source.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        content = _clean_nifti(data)
    except (OSError, EOFError, struct.error, ValueError, OverflowError) as e:
        raise PrivacyRefusal("NIfTI", "unreadable", f"{type(e).__name__}: no NIfTI file of one part, or cut off") from None
    write_bytes(target, gzip.compress(content, 6, mtime=0) if target.suffix == ".gz" else content)


def _clean_nifti(data: bytes) -> bytes:
    is_second = data[4:7] == b"n+2"
    if not is_second and data[344:347] != b"n+1":
        raise ValueError("no NIfTI file")
    size, at_dim, dim, at_bits, at_offset, of_offset = NIFTI_2 if is_second else NIFTI_1
    order = "<" if struct.unpack_from("<i", data)[0] == size else ">"
    count, *extent = struct.unpack_from(order + dim, data, at_dim)
    (bits,) = struct.unpack_from(f"{order}h", data, at_bits)
    start = int(struct.unpack_from(order + of_offset, data, at_offset)[0])
    length = -(-math.prod(extent[:count]) * bits // 8)
    if not 1 <= count <= 7 or min(extent[:count]) < 1 or start < size or len(data) < start + length:
        raise ValueError("cut off")
    header = bytearray(data[:size])
    for at, width in TEXT_2 if is_second else TEXT_1:
        header[at : at + width] = bytes(width)
    first = -(-(size + EXTENSION_FLAG) // 16) * 16
    struct.pack_into(order + of_offset, header, at_offset, first)
    return bytes(header) + bytes(first - size) + data[start : start + length]


def clean_video(source: Path, target: Path) -> None:
    """Writes the pictures of a video to `target` (same container by its suffix) without anything else of the file.

    Packets are copied, not coded again. Title, comment, location, chapters, sound, subtitles, attached pictures and data, and the
    encoder's messages within H.264 and HEVC are left out. Text in the pictures themselves stays: mask it. Raises PrivacyRefusal.
    """
    try:
        import av
    except ModuleNotFoundError as e:
        raise RequestError("videos need PyAV: install the extra, `pip install 'driftline[video]'`") from e
    try:
        with (
            replacing(target, mark=f"partial{target.suffix}") as draft,
            av.open(str(source)) as given,
            av.open(str(draft), "w", options={"fflags": "+bitexact"}) as copy,
        ):
            stream = next(one for one in given.streams.video if not one.disposition & av.stream.Disposition.attached_pic)
            new = copy.add_stream_from_template(stream)
            new.metadata.clear()
            copy.metadata.clear()
            name = SEI.get(stream.codec_context.name)
            messages = av.bitstream.BitStreamFilterContext(name, stream, new) if name else None
            for packet in given.demux(stream):
                if packet.dts is None:
                    continue
                for one in messages.filter(packet) if messages else [packet]:
                    one.stream = new
                    copy.mux(one)
    except (av.FFmpegError, StopIteration, ValueError, OSError) as e:
        raise PrivacyRefusal(
            "video", "unreadable", f"{type(e).__name__}: no video that can be copied without its texts"
        ) from None
