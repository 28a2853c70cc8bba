"""Clips made from handwritten digits that move over a dark square: known labels, directions and boxes.

After Srivastava et al. 2015, "Unsupervised learning of video representations using LSTMs", arXiv:1502.04681, section 3.1. A
digit never leaves the frame: it moves along a straight line (one digit), or is reflected at the border (several). It stands in
for recordings of actions; nothing of a clip is real but the digits.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.idx import GRAY, IdxSource
from pipelines.sources.samples import Frames, Sample, SampleListing

AnswerKind = Literal["digit", "direction", "digit_and_direction", "boxes", "caption"]
DIRECTIONS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")
SPEED_PX = (0.6, 1.8)  # a frame
LEAST_SHIFT_PX = math.sqrt(2)  # along a diagonal a whole pixel of each axis: of less, rounding may leave one of them
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTION_WORDS = (
    "to the right", "up and to the right", "up", "up and to the left", "to the left", "down and to the left", "down",
    "down and to the right",
)  # fmt: skip
SPEED_WORDS = ("slowly", "fast")
CAPTION_SLOTS = {"digit": DIGIT_WORDS, "direction": DIRECTION_WORDS, "speed": SPEED_WORDS}
INK = 32  # values above it belong to the digit, for its box


@dataclass(frozen=True)
class Drawn:
    """A digit of a clip: number of its image, its upper left corner in every frame (T, 2), its direction, whether it is fast."""

    image: int
    corner_T2: np.ndarray
    direction: int
    is_fast: bool


@dataclass(frozen=True)
class MovingDigits:
    """`clips` from the IDX file in `path` with most images (the part `train`), `test_clips` from every other one (`test`).

    Drawn from (`seed`, part, number of the clip), so a clip does not depend on how many there are. `answer`: what is asked of a
    clip; boxes: a JSON list of [frame, first row, first column, last row, last column, digit], rows and columns of the outermost
    pixels of the digit; caption: the one sentence of `caption_of`. Speeds of clips with a caption are of the slowest or the
    fastest third of those that fit the frame, so that the word is no matter of a fraction of a pixel.
    """

    path: Path
    answer: AnswerKind = "digit"
    clips: int = 2000
    test_clips: int = 500
    frames: int = 12
    side: int = 48
    digits: int = 1
    seed: int = 0
    band: Band = GRAY

    @property
    def bands(self) -> tuple[Band, ...]:
        return (self.band,)

    def list_samples(self) -> SampleListing:
        """Raises MissingInput, RequestError (also for an answer that the clips would not show)."""
        self._require_decidable()
        ordered = parts_of(self.path)
        samples: list[Sample] = []
        for number, own in enumerate(ordered):
            count, part = (self.clips, "train") if number == 0 else (self.test_clips, "test")
            for n in range(count):
                drawn = self._drawn(own, number, n)
                name = f"{part}-{number}-{n:05d}" if len(ordered) > 2 else f"{part}-{n:05d}"
                samples.append(Sample(name, own[0].paths, self._answer(own, drawn), name, part, number << 32 | n))
        return SampleListing(samples)

    def read(self, sample: Sample) -> Frames:
        """(frames, 1, side, side) uint8."""
        number, n = sample.index >> 32, sample.index & 0xFFFFFFFF
        own = parts_of(self.path)[number]
        return Frames(self._draw(own, self._drawn(own, number, n)), np.arange(self.frames) * 1.0)

    def _require_decidable(self) -> None:
        """Raises RequestError."""
        if self.answer != "boxes" and self.digits > 1:
            raise RequestError(f"a clip of {self.digits} digits does not show which is meant: source.digits: 1, or answer: boxes")
        shift = SPEED_PX[0] * (self.frames - 1)
        if self.answer in ("direction", "digit_and_direction", "caption") and shift < LEAST_SHIFT_PX:
            least = math.ceil(LEAST_SHIFT_PX / SPEED_PX[0]) + 1
            problem = f"in {self.frames} frames the slowest digits move by {shift:.1f} px, too little to show the direction"
            raise RequestError(f"{problem}: set source.frames to {least} or more")

    def _drawn(self, own: Sequence[Sample], number: int, n: int) -> list[Drawn]:
        """The digits of a clip."""
        rng = np.random.default_rng([self.seed, number, n])
        found = []
        for _ in range(self.digits):
            chosen = int(rng.integers(len(own)))
            room = self.side - image_of(own[chosen]).shape[0]
            if room < SPEED_PX[0] * (self.frames - 1):
                problem = f"digits cannot move for {self.frames} frames within {self.side} pixels"
                raise RequestError(f"{problem}: set a larger source.side, or fewer source.frames")
            direction, most = int(rng.integers(len(DIRECTIONS))), min(SPEED_PX[1], room / (self.frames - 1))
            speed = rng.uniform(SPEED_PX[0], most)
            is_fast = speed > (SPEED_PX[0] + most) / 2
            if self.answer == "caption":
                speed = self._without_middle(speed, most, is_fast=is_fast)
            angle = direction * np.pi / 4
            step = speed * np.array([-np.sin(angle), np.cos(angle)])  # rows grow downwards
            way = np.arange(self.frames)[:, None] * step
            if self.digits == 1:
                low, high = np.maximum(0, -way.min(axis=0)), room - np.maximum(0, way.max(axis=0))
                corner = rng.uniform(low, high) + way
            else:
                corner = np.abs((rng.uniform(0, room, 2) + way + room) % (2 * room) - room)
            found.append(Drawn(chosen, np.round(corner).astype(int), direction, is_fast))
        return found

    def _without_middle(self, speed: float, most: float, *, is_fast: bool) -> float:
        """The speed moved out of the third in the middle of those up to `most`. Raises RequestError where that is too narrow."""
        third = (most - SPEED_PX[0]) / 3
        if (apart := third * (self.frames - 1)) < LEAST_SHIFT_PX:
            problem = f"slow and fast digits differ by {apart:.1f} px over the clip, too little to tell them apart"
            raise RequestError(f"{problem}: set a larger source.side, or fewer source.frames")
        return SPEED_PX[0] + (speed - SPEED_PX[0]) * 2 / 3 + third * is_fast

    def _draw(self, own: Sequence[Sample], drawn: Sequence[Drawn]) -> np.ndarray:
        image_TCHW = np.zeros((self.frames, 1, self.side, self.side), np.uint8)
        for one in drawn:
            digit_YX = image_of(own[one.image])
            height, width = digit_YX.shape
            for t, (row, column) in enumerate(one.corner_T2):
                part = image_TCHW[t, 0, row : row + height, column : column + width]
                np.maximum(part, digit_YX, out=part)
        return image_TCHW

    def _answer(self, own: Sequence[Sample], drawn: Sequence[Drawn]) -> str:
        first, digit = drawn[0], own[drawn[0].image].answer
        match self.answer:
            case "digit":
                return digit
            case "direction":
                return DIRECTIONS[first.direction]
            case "digit_and_direction":
                return f"{digit} {DIRECTIONS[first.direction]}"
            case "caption":
                return caption_of(int(digit), first.direction, is_fast=first.is_fast)
        boxes = []
        for one in drawn:
            rows, columns = np.nonzero(image_of(own[one.image]) > INK)
            edges = [int(edge) for edge in (rows.min(), columns.min(), rows.max(), columns.max())]
            for t, (row, column) in enumerate(one.corner_T2.tolist()):
                boxes.append([t, edges[0] + row, edges[1] + column, edges[2] + row, edges[3] + column, own[one.image].answer])
        return json.dumps(boxes, separators=(",", ":"))


def caption_of(digit: int, direction: int, *, is_fast: bool) -> str:
    """The sentence of a clip; every clip has one, so that it can be matched word by word.

    >>> caption_of(3, 1, is_fast=False)
    'the digit three moves slowly up and to the right'
    """
    return f"the digit {DIGIT_WORDS[digit]} moves {SPEED_WORDS[is_fast]} {DIRECTION_WORDS[direction]}"


@functools.lru_cache(maxsize=2)
def parts_of(path: Path) -> tuple[tuple[Sample, ...], ...]:
    """The digits of each IDX file, the largest file first."""
    of_part: dict[str, list[Sample]] = {}
    for sample in IdxSource(path).list_samples().samples:
        of_part.setdefault(sample.part, []).append(sample)
    return tuple(sorted(map(tuple, of_part.values()), key=len, reverse=True))


def image_of(sample: Sample) -> np.ndarray:
    """(y, x) uint8."""
    image: np.ndarray = IdxSource(sample.paths[0].parent).read(sample).image_TCHW[0, 0]
    return image
