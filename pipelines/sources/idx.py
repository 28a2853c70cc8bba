"""IDX files, the format of MNIST: images and their labels as one file each, plain or compressed with gzip.

Four bytes (0, 0, type, number of axes), the sizes of the axes as big-endian 32-bit integers, the values; see the description on
the data set's page (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import functools
import gzip
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Band
from pipelines.sources.samples import Frames, Sample, SampleListing

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
GRAY = Band("gray")
MOST_BYTES = 1 << 31
IMAGES = re.compile(r"(?P<part>[A-Za-z0-9]+)[-_.]images[-_.]idx3[-_.]ubyte(?:\.gz)?")


@dataclass(frozen=True)
class IdxSource:
    """Every image of `PART-images-idx3-ubyte[.gz]` in `path` is a sample; its answer stands in `PART-labels-idx1-ubyte[.gz]`.

    A sample's id is its part and its number, such as train-00017. `most`: images of each part that are taken, from the first on.
    """

    path: Path
    band: Band = GRAY
    most: int | None = None

    @property
    def bands(self) -> tuple[Band, ...]:
        return (self.band,)

    def list_samples(self) -> SampleListing:
        """Raises MissingInput (no such files), RequestError (images and labels do not belong together, damaged files)."""
        if not self.path.is_dir():
            raise MissingInput(f"no such folder: {self.path}")
        parts = sorted(match["part"] for one in self.path.iterdir() if (match := IMAGES.fullmatch(one.name)))
        if not parts:
            raise MissingInput(f"{self.path} holds no IDX images (PART-images-idx3-ubyte or PART-images-idx3-ubyte.gz)")
        samples: list[Sample] = []
        used: set[Path] = set()
        for part in parts:
            images, labels = self._file(part, "images-idx3"), self._file(part, "labels-idx1")
            number, answers_N = len(_read(images)), _read(labels)
            used |= {images, labels}
            if answers_N.shape != (number,):
                raise RequestError(f"{images.name} holds {number} images, {labels.name} {len(answers_N)} labels; copy both again")
            width = len(str(number - 1))
            taken = range(min(number, self.most or number))
            ids = [f"{part}-{n:0{width}d}" for n in taken]
            samples += [Sample(ids[n], (images,), str(answers_N[n]), ids[n], part, n) for n in taken]
        unused = sorted(one.name for one in self.path.iterdir() if one not in used)
        return SampleListing(samples, (), unused, [])

    def read(self, sample: Sample) -> Frames:
        """(1, 1, y, x). Raises SceneRefused(unreadable)."""
        (path,) = sample.paths
        try:
            images_NYX = _read(path)
        except RequestError as e:
            raise SceneRefused(sample.id, "unreadable", str(e)) from e
        if images_NYX.ndim != 3 or sample.index >= len(images_NYX):
            raise SceneRefused(sample.id, "unreadable", f"{path.name} has changed while it was read; ingest it again")
        image_YX = images_NYX[sample.index]
        facts = {"rows": float(image_YX.shape[0]), "columns": float(image_YX.shape[1]), "frames": 1.0}
        return Frames(image_YX[None, None], np.zeros(1), facts=facts)

    def _file(self, part: str, kind: str) -> Path:
        names = [f"{part}{mark}{kind}{dot}ubyte{end}" for mark in "-_." for dot in "-_." for end in ("", ".gz")]
        found = [self.path / name for name in names if (self.path / name).is_file()]
        if not found:
            raise MissingInput(f"{self.path} holds no {part}-{kind}-ubyte[.gz]")
        return found[0]


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, in the machine's byte order. Raises RequestError: no such file, another format, damaged."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
                raise RequestError(f"{path.name} is no IDX file: it begins with {head.hex()}")
            dtype, axes = np.dtype(TYPES[head[2]]), head[3]
            declared = file.read(4 * axes)
            if len(declared) != 4 * axes:
                raise RequestError(f"{path.name} ends within its header; copy it again")
            sizes = np.frombuffer(declared, ">u4")
            count = math.prod(int(size) for size in sizes)
            if count * dtype.itemsize > MOST_BYTES:
                raise RequestError(f"{path.name} declares {count} values; at most {MOST_BYTES // dtype.itemsize} are read")
            content = file.read(count * dtype.itemsize + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise RequestError(f"{path.name} cannot be read ({e}); copy it again") from e
    if len(content) != count * dtype.itemsize:
        problem = "fewer" if len(content) < count * dtype.itemsize else "more"
        raise RequestError(f"{path.name} holds {problem} values than its header declares ({count}); copy it again")
    values: np.ndarray = np.frombuffer(content, dtype).reshape(sizes.astype(int)).astype(dtype.newbyteorder("="), copy=False)
    return values


def _read(path: Path) -> np.ndarray:
    stat = path.stat()
    return _read_state(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _read_state(path: Path, mtime_ns: int, size: int) -> np.ndarray:
    return read_idx(path)
