"""Images of 0 and 1 from the samples of a store, and their parts: what networks of single pixels learn from.

Shapes: N samples of the store, P of a part, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.samples.labelled import SplitSettings, group_folds, part_folds
from pipelines.samples.sample_store import SampleTable

Seen = Literal["no", "yes", "unknown"]


@dataclass(frozen=True)
class Binarisation:
    """How grey values become 0 and 1.

    sampled: a pixel is 1 with the probability value / `white`, drawn once from `seed` and the sample's id, so that every epoch
    and every stage sees the same image, whatever else is in the store (Salakhutdinov & Murray 2008). threshold: 1 where
    value / `white` is above `threshold`. white: the stored value that is surely 1; None: the largest of the type, of floats 1.
    """

    how: Literal["sampled", "threshold"] = "sampled"
    threshold: float = 0.5
    white: float | None = None
    seed: int = 0

    def white_of(self, dtype: np.dtype) -> float:
        if self.white is not None:
            return self.white
        return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def binarise(image_NTCHW: np.ndarray, id_N: Sequence[str] | np.ndarray, how: Binarisation) -> np.ndarray:
    """x_NHW uint8, 0 or 1. Raises RequestError for samples of several frames or bands, and for volumes.

    >>> binarise(np.full((1, 1, 1, 1, 2), 200, np.uint8), ["a"], Binarisation("threshold"))
    array([[[1, 1]]], dtype=uint8)
    """
    if image_NTCHW.ndim != 5 or image_NTCHW.shape[1:3] != (1, 1):
        found = f"{image_NTCHW.shape[1]} frames of {image_NTCHW.shape[2]} bands" if image_NTCHW.ndim == 5 else "volumes"
        raise RequestError(
            f"task: generate reads single images of one band, the samples are {found}: frames.count: 1, one of source.bands"
        )
    white, size = how.white_of(image_NTCHW.dtype), image_NTCHW.shape[3:]
    largest = float(image_NTCHW.max(initial=0))
    if how.white is None and image_NTCHW.dtype != np.uint8 and not white / 2 <= largest <= white:  # NaN too
        raise RequestError(
            f"the largest value of the images is {largest:g}, and white of {image_NTCHW.dtype} is taken to be {white:g}; say "
            "what is white, for example binarise.white: 255"
        )
    x_NHW = np.empty((len(image_NTCHW), *size), np.uint8)
    for n, name in enumerate(id_N):
        share_HW = image_NTCHW[n, 0, 0] / white
        level = how.threshold if how.how == "threshold" else _generator(how.seed, str(name)).random(size)
        x_NHW[n] = share_HW > level
    return x_NHW


def _generator(seed: int, name: str) -> np.random.Generator:
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key)))


@dataclass(frozen=True)
class ImageParts:
    """Numbers of the samples of each part; no group is in two of them."""

    train_P: np.ndarray
    validation_P: np.ndarray
    test_P: np.ndarray
    group_N: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Images of each part."""
        return {"train": len(self.train_P), "validation": len(self.validation_P), "test": len(self.test_P)}

    @property
    def sentence(self) -> str:
        shown = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{len(self.group_N)} images in {len(np.unique(self.group_N))} groups: {shown}"

    def digests(self, x_NHW: np.ndarray) -> dict[str, str]:
        """SHA-256 (hex) of the images (0 or 1) of each part, in whatever order; `known`: train and validation together.

        The same images in another store have the same.
        """
        parts = {"train": self.train_P, "validation": self.validation_P, "test": self.test_P}
        found = {}
        for name, part_P in {**parts, "known": np.concatenate([self.train_P, self.validation_P])}.items():
            each = sorted(hashlib.sha256(np.packbits(x_NHW[n]).tobytes()).digest() for n in part_P)
            found[name] = hashlib.sha256(b"".join([repr(x_NHW.shape[1:]).encode(), *each])).hexdigest()
        return found


def seen_of(digests: Mapping[str, str], trained: Mapping[str, Any]) -> Seen:
    """Whether a model has learnt from, or was chosen by, the test images whose parts have these `digests`.

    trained: `digests` of the parts of its own training, {} where that does not say. What is not one of these parts as a whole is
    "unknown".

    >>> [seen_of({"test": tested}, {"train": "a", "test": "b"}) for tested in "abc"]
    ['yes', 'no', 'unknown']
    """
    name = next((name for name, digest in trained.items() if digest == digests["test"]), "")
    return "unknown" if not name else "no" if name == "test" else "yes"


def divide_images(table: SampleTable, split: SplitSettings) -> ImageParts:
    """The part that the data set names tests, else one of `folds` of whole groups; of the others one in `validation_parts`
    validates. Raises RequestError where groups cannot be divided so.
    """
    _, group_N = np.unique(table.group_N.astype(str), return_inverse=True)
    alike_N = np.zeros(len(table), np.int64)
    if split.test is None:
        is_test_N = group_folds(group_N, alike_N, split.folds, split.seed) == 0
    else:
        is_test_N = part_folds(table.part_N, group_N, split.test) == 0
    others = np.flatnonzero(~is_test_N)
    parts = min(split.validation_parts, len(np.unique(group_N[others])))
    if parts < 2:
        raise RequestError("one group alone is left to learn from and to validate; two at least are needed: see split")
    is_validation = group_folds(group_N[others], alike_N[others], parts, split.seed) == 0
    return ImageParts(others[~is_validation], others[is_validation], np.flatnonzero(is_test_N), group_N)


class ImageWindows:
    """The images of a part as a `WindowSet`: `x_HW` float32 and `weight` 1, each with a leading B.

    `per_epoch`: so many an epoch, drawn anew from (`seed`, epoch); None: all.
    """

    def __init__(self, x_NHW: np.ndarray, part_P: np.ndarray, seed: int = 0, per_epoch: int | None = None):
        self.x_NHW, self.part_P, self.seed = x_NHW, part_P, seed
        self.count = len(part_P) if per_epoch is None else min(per_epoch, len(part_P))
        self.set_epoch(0)

    @property
    def shapes(self) -> list[int]:
        return [0] * self.count

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.shown = self.part_P
        if self.count < len(self.part_P):
            self.shown = np.random.default_rng([self.seed, epoch]).choice(self.part_P, self.count, replace=False)

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        x_BHW = torch.from_numpy(self.x_NHW[self.shown[indices]].astype(np.float32))
        return {"x_HW": x_BHW, "weight": torch.ones(len(x_BHW))}
