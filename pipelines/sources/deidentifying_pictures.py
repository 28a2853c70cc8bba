"""De-identification of pictures (PNG, JPEG, BMP, TIFF): copies that hold pixels and nothing else, under keyed names."""

from __future__ import annotations

import io
import struct
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, SceneRefused
from pipelines.files import publish, write_text
from pipelines.privacy.compressed import strip_jpeg
from pipelines.privacy.folder import copies_in
from pipelines.privacy.keys import Key
from pipelines.privacy.other_kinds import TIMES, Copied
from pipelines.privacy.pixels import require_no_text
from pipelines.privacy.settings import Mask, PrivacyRefusal, PrivacySettings
from pipelines.sources.file_names import natural_key
from pipelines.sources.isolation import isolated
from pipelines.sources.pictures import ORIENTATION, SUFFIXES, TURNS, read_picture

REFUSALS = {  # in place of messages that name the file, or quote what is in it
    "truncated": ("truncated", "it is cut off; copy it again"),
    "too-large": ("too-large", "it declares more pixels than a picture may have"),
    "wrong-dtype": ("unreadable", "its pixels are of a kind that is not read; convert it to grey or RGB"),
    "missing-band": ("unreadable", "it holds other bands than grey or red, green, blue, or several images; convert it"),
    "driver": ("unreadable", "it is no upright picture in PNG, JPEG, BMP or TIFF, whatever its name says"),
}
UNREADABLE = ("unreadable", "it cannot be decoded; copy it again")


@dataclass(frozen=True)
class PictureFiles:
    """The pictures below a folder.

    frames: pictures of a series -> moment, or number of the frame, which their names then hold; other pictures are left out.
    None: names hold the place in the natural order of the names of their folder, or nothing (`is_ordered`). is_patient: moments
    move, and numbers count from the first.
    """

    source: Path
    paths: tuple[Path, ...]
    settings: PrivacySettings
    frames: Mapping[Path, np.datetime64 | int] | None = None
    is_ordered: bool = True
    is_patient: bool = True
    name: str = field(default="picture", init=False)

    def takes(self, path: Path) -> bool:
        return path in self._labels

    def parts(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def depends_on(self, path: Path) -> str:
        return f"{self._patient} {self._labels[path]} {self.is_patient}"

    def copy(self, path: Path, file_id: str, target: Path, settings: PrivacySettings) -> Copied:
        masks = tuple(mask for mask in settings.masks if mask.modality is None)
        if settings.burned_in == "quarantine" and not masks:
            stated = "state that none shows any (privacy.burned_in: checked, --checked)"
            remedy = f"look at it; then name a rectangle (privacy.masks, --mask), or {stated}"
            raise PrivacyRefusal(file_id, "burned-in", f"may show text: a picture does not say whether text is in it; {remedy}")
        draft = target / f".{file_id}.partial.picture"
        try:
            arguments = path, draft, masks, settings.ocr
            suffix, done = isolated(clean_picture, *arguments, label=file_id, paths=(path,))
            copied = self._copied(path, file_id, settings.key) + suffix
            (target / copied).parent.mkdir(parents=True, exist_ok=True)
            publish(draft, target / copied, flush=False)
        except PrivacyRefusal as e:
            raise PrivacyRefusal(file_id, e.reason, e.detail) from None
        except SceneRefused as e:
            raise PrivacyRefusal(file_id, *REFUSALS.get(e.reason, UNREADABLE)) from None
        except MissingInput:
            raise PrivacyRefusal(file_id, "unreadable", "it is gone since the folder was listed") from None
        finally:
            draft.unlink(missing_ok=True)
        done["name", "text", "date moved" if self._moves_date(path) else "new name"] += 1
        return Copied(copied, done=done)

    def _copied(self, path: Path, file_id: str, key: Key) -> str:
        """The name of the copy without its ending."""
        label = self._labels[path]
        folder = key.pseudonym(self._patient)
        if self.frames is None and self.is_ordered:
            folder += "/" + folder_id(key, path.parent.relative_to(self._root).as_posix())
        return f"{folder}/{file_id}{label}"

    # ------------------------------------------------------------ whose pictures, and when

    @property
    def _root(self) -> Path:
        return self.source if self.source.is_dir() else self.source.parent

    @property
    def _patient(self) -> str:
        return name_of(self.source)

    def _moves_date(self, path: Path) -> bool:
        return self.is_patient and isinstance((self.frames or {}).get(path), np.datetime64)

    @cached_property
    def _labels(self) -> dict[Path, str]:
        """What the name of a copy holds beside the id, from which time or order are read; the keys are the pictures."""
        found = [path for path in self.paths if path.suffix.lower() in SUFFIXES]
        if self.frames is None:
            if not self.is_ordered:
                return dict.fromkeys(found, "")
            places = Counter[Path]()
            labels = {}
            for path in sorted(found, key=lambda path: natural_key(path.relative_to(self._root).as_posix())):
                labels[path] = f"-{places[path.parent]:05d}"
                places[path.parent] += 1
            return labels
        timed = {path: self.frames[path] for path in found if path in self.frames}
        numbers = [one for one in timed.values() if isinstance(one, int)]
        first = min(numbers, default=0) if self.is_patient else 0
        move = np.timedelta64(self.settings.key.shift_days(self._patient, self.settings.shift_days) * self.is_patient, "D")
        return {path: f"-{one - first:05d}" if isinstance(one, int) else dated(one + move) for path, one in timed.items()}


def name_of(source: Path) -> str:
    """The name of a folder, or of a file without what follows its first dot."""
    return source.resolve().name if source.is_dir() else source.name.split(".")[0]


def dated(moment: np.datetime64) -> str:
    """`-20190301T101112`: what a name holds of a moment, which `other_kinds.DATED` reads."""
    return "-" + str(moment.astype("datetime64[s]")).replace("-", "").replace(":", "")


def folder_id(key: Key, name: str) -> str:
    """What stands for the name of a folder below the source."""
    return key.name("folder", name)


def clean_picture(path: Path, draft: Path, masks: tuple[Mask, ...], ocr: bool) -> tuple[str, Counter[tuple[str, str, str]]]:
    """Writes a picture without anything but its pixels to `draft`; returns (ending of its name, what was done).

    A JPEG that is not masked keeps its coded pixels; all else is stored as PNG, and as TIFF what PNG cannot hold, without loss,
    upright, without transparency. The copy is read again, and has the same pixels.

    Raises PrivacyRefusal, and as `read_picture`. It may leave the draft.
    """
    planes_BYX = read_picture(path, "picture").planes_BYX
    done = Counter({("picture/metadata", "bytes", "removed"): 1, ("picture/pixels", "numbers", "masked" if masks else "kept"): 1})
    if ocr or masks:
        planes_BYX = _masked(planes_BYX, masks)
    if ocr:
        require_no_text([planes_BYX[0] if len(planes_BYX) == 1 else np.moveaxis(planes_BYX, 0, 2)])
    if not masks and _strip(path, draft) and np.array_equal(read_picture(draft, "picture").planes_BYX, planes_BYX):
        return ".jpg", done
    suffix = _store(planes_BYX, draft)
    stored_BYX = read_picture(draft, "picture").planes_BYX
    if stored_BYX.dtype != planes_BYX.dtype or not np.array_equal(stored_BYX, planes_BYX, equal_nan=planes_BYX.dtype.kind == "f"):
        raise PrivacyRefusal("picture", "unexpected", "its copy has other pixels; it is not passed on")
    return suffix, done


def _masked(planes_BYX: np.ndarray, masks: tuple[Mask, ...]) -> np.ndarray:
    rows, columns = planes_BYX.shape[1:]
    masked_BYX = planes_BYX.copy()
    for mask in masks:
        if mask.rows[1] > rows or mask.columns[1] > columns:
            problem = f"a rectangle of privacy.masks is not within its {rows} rows and {columns} columns"
            raise PrivacyRefusal("picture", "mask-outside", problem)
        masked_BYX[:, slice(*mask.rows), slice(*mask.columns)] = 0
    return masked_BYX


def _strip(path: Path, draft: Path) -> bool:
    """Whether `draft` is the JPEG file at `path` without its metadata, but for how it is turned."""
    from PIL import Image

    data = path.read_bytes()
    if data[:2] != b"\xff\xd8":
        return False
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        turn = image.getexif().get(ORIENTATION, 1)
    try:
        draft.write_bytes(strip_jpeg(data, turn if turn in TURNS else 1))
    except (ValueError, IndexError, struct.error):  # no JPEG, or one with more than the segments of its pixels
        return False
    return True


def _store(planes_BYX: np.ndarray, draft: Path) -> str:
    """Writes PNG, or TIFF; the ending of its name."""
    if planes_BYX.dtype == np.uint8 or (planes_BYX.dtype == np.uint16 and len(planes_BYX) == 1):
        from PIL import Image

        values = planes_BYX[0] if len(planes_BYX) == 1 else np.ascontiguousarray(np.moveaxis(planes_BYX, 0, 2))
        Image.fromarray(values).save(draft, "PNG", compress_level=4)
        return ".png"
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    count, height, width = planes_BYX.shape
    how = {"driver": "GTiff", "compress": "deflate", "count": count, "height": height, "width": width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(draft, "w", dtype=planes_BYX.dtype, **how) as file:
            file.write(planes_BYX)
    return ".tif"


def write_times(copy: Path, moments: Mapping[str, np.datetime64], origin: np.datetime64, days: int) -> None:
    """The file of times of a copy: a line for each picture that is there, in order.

    moments: keyed id of each original -> its moment (ns), in order; seconds from the first are written of those that count from
    `origin`, dates of others, moved by `days`.
    """
    there = copies_in(copy, "picture")
    known = [moment for file_id, moment in moments.items() if file_id in there]
    if next(iter(moments.values()), None) == origin:
        lines = [f"{int((moment - origin) / np.timedelta64(1, 'ns'))}e-9" for moment in known]
    else:
        lines = [str((moment + np.timedelta64(days, "D")).astype("datetime64[ns]")) for moment in known]
    write_text(copy / TIMES, "".join(f"{line}\n" for line in lines))
