"""Text that is not in elements of text: burned into pixels, in overlays within pixels, in compressed frames, behind pixels."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pipelines.privacy.compressed import blank_text
from pipelines.privacy.settings import Mask, PrivacyRefusal, PrivacySettings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pipelines.privacy.clean import Cleaning

# modalities whose machines write name, date and hospital into the picture, and those that photograph; "" if the file does not say
BURNS_IN = {"US", "IVUS", "XC", "ES", "GM", "OP", "OPT", "OT", "SC", "DG", "BI", "ECG", "HC", "DOC", ""}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
FLOAT_PIXELS = {"FloatPixelData": 4, "DoubleFloatPixelData": 8}
MOST_DECODED_BYTES = 4 << 30
OCR_LETTERS = 4  # so many letters or digits in a frame are text
OCR_SURE = 50  # of 100, how sure tesseract is of a word
OCR_PX = 960  # smaller frames are enlarged


def suspected_text(source: Dataset) -> str | None:
    """Why an image may show text, in words without any of its values; None if nothing points to it."""
    stated = str(source.get("BurnedInAnnotation", "") or "").strip().upper()
    if stated == "NO":
        return None
    if stated == "YES":
        return "BurnedInAnnotation (0028,0301) is YES"
    unsaid = "and BurnedInAnnotation (0028,0301) is absent"
    if str(source.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE):
        return f"it is a secondary capture {unsaid}"
    if str(source.get("Modality", "") or "").strip().upper() in BURNS_IN:
        return f"its modality writes text into its pictures {unsaid}"
    if "ConversionType" in source:
        return f"it was captured or digitised (ConversionType) {unsaid}"
    if int(source.get("SamplesPerPixel", 1) or 1) > 1:
        return f"it is in colour {unsaid}"
    return None


def masks_of(source: Dataset, settings: PrivacySettings) -> tuple[Mask, ...]:
    """The masks of the config that are for images of this modality."""
    modality = str(source.get("Modality", "") or "").strip().upper()
    return tuple(mask for mask in settings.masks if mask.modality in (None, modality))


def check_burned_in(source: Dataset, masks: tuple[Mask, ...], cleaning: Cleaning) -> None:
    """Raises PrivacyRefusal for an image that may show text which nobody has masked or checked."""
    if masks or cleaning.settings.burned_in == "checked":
        return
    reason = suspected_text(source)
    if reason is not None:
        stated = "state that none shows any (privacy.burned_in: checked, --checked)"
        remedy = f"look at the images; then name a rectangle (privacy.masks, --mask), or {stated}"
        raise cleaning.refuse("burned-in", f"may show text: {reason}; {remedy}")


def apply_masks(cleaned: Dataset, masks: Iterable[Mask], cleaning: Cleaning) -> None:
    """Sets the rectangles to 0 in all frames. Compressed pixels are stored uncompressed after it, YBR as RGB.

    Raises PrivacyRefusal if a rectangle is not within the image, and for pixels that cannot be decoded.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    frames = decode(cleaned, cleaning)  # (frame, row, column[, sample])
    if 8 * frames.dtype.itemsize != cleaned.get("BitsAllocated") or "PixelData" not in cleaned:
        raise cleaning.refuse("mask-outside", "pixels of this form cannot be masked")
    for mask in masks:
        if mask.rows[1] > frames.shape[1] or mask.columns[1] > frames.shape[2]:
            size = f"{frames.shape[1]} rows and {frames.shape[2]} columns"
            raise cleaning.refuse("mask-outside", f"a rectangle of privacy.masks is not within its {size}")
        frames[:, slice(*mask.rows), slice(*mask.columns)] = 0
    if str(cleaned.get("PhotometricInterpretation", "")).startswith("YBR"):
        cleaned.PhotometricInterpretation = "RGB"
    if frames.ndim == 4:
        cleaned.PlanarConfiguration = 0
    data = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    cleaned.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    cleaned.add_new(0x7FE00010, "OW" if frames.dtype.itemsize > 1 else "OB", data + bytes(len(data) % 2))
    cleaned["PixelData"].is_undefined_length = False
    cleaning.done["7fe00010", str(cleaned["PixelData"].VR), "masked"] += 1


def decode(cleaned: Dataset, cleaning: Cleaning) -> np.ndarray:
    """Pixels as (frame, row, column[, sample]); colours as RGB. Raises PrivacyRefusal."""
    from pydicom.pixels.utils import pixel_array

    _require_bounded(cleaned, cleaning)
    try:
        frames = np.array(pixel_array(cleaned))
    except Exception:  # the library's message may quote values
        raise cleaning.refuse("unreadable", "its pixels cannot be decoded") from None
    one = 3 if int(cleaned.get("SamplesPerPixel", 1) or 1) > 1 else 2
    return frames[None] if frames.ndim == one else frames


def clean_pixels(source: Dataset, cleaned: Dataset, cleaning: Cleaning) -> None:
    """Cuts what stands behind the pixels, and overwrites overlays in unused bits and text in compressed frames.

    Raises PrivacyRefusal for pixels that are missing, cut off, or of a form whose text cannot be found.
    """
    offsets = [bytes(cleaned.pop(tag).value or b"") for tag in OFFSET_TABLES if tag in cleaned]
    present = [name for name in ("PixelData", *FLOAT_PIXELS) if name in cleaned]
    if len(present) != 1:
        raise cleaning.refuse("truncated", "its pixels are missing: the file is cut off, or holds no image")
    element = cleaned[present[0]]
    if cleaned.file_meta.TransferSyntaxUID.is_compressed and not cleaned.file_meta.TransferSyntaxUID.is_deflated:
        _clean_frames(source, cleaned, offsets, cleaning)
        return
    expected = _expected_bytes(cleaned, present[0], cleaning)
    data = element.value
    if len(data) < expected:
        raise cleaning.refuse("truncated", f"its pixels end after {len(data)} of {expected} bytes")
    if present[0] == "PixelData" and is_more_image(cleaned, data[expected:]):
        raise cleaning.refuse("truncated", f"it has {len(data)} bytes of pixels, rows, columns and frames make {expected}")
    if any(data[expected:]):
        cleaning.done["7fe00010", str(element.VR), "rest cut"] += 1
    if len(data) > expected or expected % 2:
        element.value = data[:expected] + bytes(expected % 2)
    if _has_embedded_overlay(source):
        element.value = _without_unused_bits(cleaned, element.value)
        cleaning.done["7fe00010", str(element.VR), "overlay in pixels cleared"] += 1


def is_more_image(content: Dataset, rest: bytes) -> bool:
    """Whether what stands behind uncompressed pixels is whole rows or columns of an image, so that the stated size is wrong.

    Zeros are padding, and other bytes are no image: both are cut off.
    """
    sample = int(content.get("SamplesPerPixel", 1) or 1) * int(content.BitsAllocated) // 8
    lines = [sample * int(content.Rows), sample * int(content.Columns)]
    return any(rest) and any(line > 0 and min(len(rest) % line, (len(rest) - 1) % line) == 0 for line in lines)


def _require_bounded(cleaned: Dataset, cleaning: Cleaning) -> None:
    """Raises PrivacyRefusal for a small file that states so many pixels that decoding them would fill the memory."""
    name = next((one for one in FLOAT_PIXELS if one in cleaned), "PixelData")
    if _expected_bytes(cleaned, name, cleaning) > MOST_DECODED_BYTES:
        raise cleaning.refuse("too-large", f"its pixels would take more than {MOST_DECODED_BYTES >> 30} GiB to decode")


def _expected_bytes(cleaned: Dataset, name: str, cleaning: Cleaning) -> int:
    try:
        rows, columns, samples = (int(cleaned[key].value) for key in ("Rows", "Columns", "SamplesPerPixel"))
        bits = 8 * FLOAT_PIXELS[name] if name in FLOAT_PIXELS else int(cleaned.BitsAllocated)
        count = rows * columns * samples * int(cleaned.get("NumberOfFrames", 1) or 1)
    except Exception:
        raise cleaning.refuse("unreadable", "the size of its pixels is not stated") from None
    if cleaned.get("PhotometricInterpretation") == "YBR_FULL_422":
        count = count // 3 * 2
    return -(-count * bits // 8)


def _has_embedded_overlay(source: Dataset) -> bool:
    """Whether an overlay is in unused bits of the pixels: it has a position among the bits and no data of its own (retired)."""
    groups = {tag.group for tag in sorted(source.keys()) if tag >> 24 == 0x60}
    return any((group, 0x3000) not in source for group in groups)


def _without_unused_bits(cleaned: Dataset, data: bytes) -> bytes:
    """The pixels with the bits outside of the stored ones as zero, or as the sign in signed pixels."""
    allocated, stored, high = int(cleaned.BitsAllocated), int(cleaned.BitsStored), int(cleaned.HighBit)
    if allocated not in (8, 16, 32) or stored == allocated:
        return data
    order = "<" if cleaned.file_meta.TransferSyntaxUID.is_little_endian else ">"
    signed = bool(cleaned.PixelRepresentation)
    pixels = np.frombuffer(data, f"{order}{'i' if signed else 'u'}{allocated // 8}")
    above, below = allocated - 1 - high, high + 1 - stored
    cut = np.left_shift(np.right_shift(np.left_shift(pixels, above), above + below), below)
    return bytes(cut.astype(pixels.dtype).tobytes())


def _clean_frames(source: Dataset, cleaned: Dataset, tables: list[bytes], cleaning: Cleaning) -> None:
    """Compressed frames: what no decoder reads becomes zero, one fragment each, with a new offset table."""
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import RLELossless

    if _has_embedded_overlay(source):
        raise cleaning.refuse("overlay", "an overlay may be within its compressed pixels; store it uncompressed first")
    expected = int(cleaned.get("NumberOfFrames", 1) or 1)
    try:
        if cleaned.file_meta.TransferSyntaxUID == RLELossless:  # bytes between its segments are read by nobody: stored plainly
            _require_bounded(cleaned, cleaning)
            cleaned.decompress(as_rgb=False, generate_instance_uid=False)
            return
        offsets = (tables[0], tables[1]) if len(tables) == 2 else None
        frames = list(generate_frames(cleaned.PixelData, number_of_frames=expected, extended_offsets=offsets))
        blanked = [blank_text(frame) for frame in frames]
    except PrivacyRefusal:
        raise
    except Exception:  # the library's message may quote values
        raise cleaning.refuse("unreadable", "a compressed frame is damaged, cut off or of an unknown form") from None
    if len(frames) != expected:
        raise cleaning.refuse("truncated", f"it has {len(frames)} frames of pixels, expected {expected}")
    if any(size for _, size in blanked):
        cleaning.done["7fe00010", "OB", "text in frames blanked"] += 1
    cleaned.PixelData = encapsulate([frame for frame, _ in blanked], has_bot=expected > 1)
    cleaned["PixelData"].is_undefined_length = True


def check_ocr(cleaned: Dataset, cleaning: Cleaning) -> None:
    """Raises PrivacyRefusal if text is read in the first, middle or last frame; what is read is not shown."""
    try:
        require_no_text([frame for _, frame in first_middle_last(decode(cleaned, cleaning))])
    except PrivacyRefusal as e:
        raise cleaning.refuse(e.reason, e.detail) from None


def first_middle_last(frames: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(number, frame) of up to three frames along the first axis."""
    return [(index, frames[index]) for index in sorted({0, len(frames) // 2, len(frames) - 1})]


def require_no_text(frames: Iterable[np.ndarray]) -> None:
    """Raises PrivacyRefusal if `tesseract` reads text in one of the frames (row, column[, RGB]), or is not installed.

    Small frames are enlarged: it misses letters of 8 pixels otherwise. Words of which it is not sure do not count.
    """
    program = shutil.which("tesseract")
    if program is None:
        problem = "privacy.ocr needs the program `tesseract`; install it, or take privacy.ocr out"
        raise PrivacyRefusal("image", "no-ocr", problem)
    for frame in frames:
        try:
            command = [program, "stdin", "stdout", "--psm", "11", "tsv"]
            done = subprocess.run(command, input=_picture(frame), capture_output=True, timeout=120, check=True)
        except (OSError, subprocess.SubprocessError):
            raise PrivacyRefusal("image", "no-ocr", "`tesseract` failed on a frame") from None
        if sum(map(len, _words(done.stdout.decode("utf-8", "replace")))) >= OCR_LETTERS:
            raise PrivacyRefusal("image", "burned-in", "tesseract reads text in it; name a rectangle in privacy.masks")


def _picture(frame: np.ndarray) -> bytes:
    """The frame as PNG, stretched to 8 bits, its longer side at least about OCR_PX."""
    from PIL import Image

    values = frame.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    image = Image.fromarray(np.uint8((values - low) * (255 / max(high - low, 1e-9))))
    times = max(1, round(OCR_PX / max(image.size)))
    png = io.BytesIO()
    image.resize((times * image.width, times * image.height), Image.Resampling.LANCZOS).save(png, "PNG")
    return png.getvalue()


def _words(table: str) -> list[str]:
    """Letters and digits of the words that tesseract is sure of, from its table; single ones are noise."""
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    sure = ["".join(filter(str.isalnum, row[11])) for row in rows if len(row) == 12 and float(row[10]) >= OCR_SURE]
    return [word for word in sure if len(word) > 1]
