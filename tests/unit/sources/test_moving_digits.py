"""Clips of moving digits: what is said of them is what they show."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.samples.caption_words import slots_of, words_of
from pipelines.sources.moving_digits import CAPTION_SLOTS, DIRECTION_WORDS, DIRECTIONS, INK, MovingDigits
from tests.unit.sources.test_samples import write_idx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = np.zeros((count, 12, 12), np.uint8)
        images[:, 2:9, 4:8] = rng.integers(100, 255, (count, 7, 4))
        write_idx(tmp_path, part, images, (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def centre(image_YX: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image_YX > INK)
    return np.array([rows.mean(), columns.mean()])


def test_the_direction_is_the_one_that_is_stated(folder: Path) -> None:
    source = MovingDigits(folder, "direction", clips=400, test_clips=8, frames=4, side=20)
    for sample in source.list_samples().samples:
        image_TCHW = source.read(sample).image_TCHW
        row, column = centre(image_TCHW[-1, 0]) - centre(image_TCHW[0, 0])
        found = round(np.degrees(np.arctan2(-row, column)) / 45) % 8
        assert DIRECTIONS[found] == sample.answer


def test_a_caption_says_what_a_clip_shows(folder: Path) -> None:
    source = MovingDigits(folder, "caption", clips=200, test_clips=8, frames=6, side=22)
    speeds: dict[str, list[float]] = {"slowly": [], "fast": []}
    for sample in source.list_samples().samples:
        image_TCHW = source.read(sample).image_TCHW
        row, column = centre(image_TCHW[-1, 0]) - centre(image_TCHW[0, 0])
        said = slots_of(words_of(sample.answer), CAPTION_SLOTS)
        assert said["direction"] == DIRECTION_WORDS[round(np.degrees(np.arctan2(-row, column)) / 45) % 8]
        speeds[said["speed"]].append(float(np.hypot(row, column)))
    assert max(speeds["slowly"]) < min(speeds["fast"])
    with pytest.raises(RequestError, match=r"slow and fast digits differ by 1\.1 px over the clip"):
        MovingDigits(folder, "caption", clips=2, test_clips=2, frames=4, side=17).list_samples()


@pytest.mark.parametrize("digits", [1, 2])
def test_boxes_hold_all_of_the_digits(folder: Path, digits: int) -> None:
    source = MovingDigits(folder, "boxes", clips=10, test_clips=3, frames=9, side=30, digits=digits)
    for sample in source.list_samples().samples:
        image_TCHW = source.read(sample).image_TCHW
        covered = np.zeros(image_TCHW[:, 0].shape, bool)
        for t, top, left, bottom, right, digit in json.loads(sample.answer):
            covered[t, top : bottom + 1, left : right + 1] = True
            assert digit in "0123456789"
            assert 0 <= top <= bottom < 30
            assert (bottom - top, right - left) == (6, 3)
        assert not (image_TCHW[:, 0] > INK)[~covered].any()


def test_a_clip_does_not_depend_on_how_many_there_are(folder: Path) -> None:
    few, many = (MovingDigits(folder, clips=count, test_clips=2) for count in (3, 9))
    one, other = (source.list_samples().samples[1] for source in (few, many))
    assert (one.id, one.answer, one.part) == (other.id, other.answer, other.part)
    np.testing.assert_array_equal(few.read(one).image_TCHW, many.read(other).image_TCHW)
    parts = [sample.part for sample in few.list_samples().samples]
    assert (parts.count("train"), parts.count("test")) == (3, 2)


def test_too_little_room_is_said(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"larger source\.side"):
        MovingDigits(folder, clips=1, test_clips=1, frames=30, side=16).list_samples()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [({"digits": 2}, r"source\.digits: 1"), ({"answer": "direction", "frames": 3}, r"source\.frames to 4 or more")],
)
def test_an_answer_that_the_clips_would_not_show_is_refused(folder: Path, settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(RequestError, match=remedy):
        MovingDigits(folder, side=32, clips=1, test_clips=1, **settings).list_samples()
