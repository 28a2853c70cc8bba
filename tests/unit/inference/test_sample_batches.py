"""Answers to samples by threads and processes are those of one process; a batch that fails is named."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.compute import Compute
from pipelines.inference import sample_labels
from pipelines.inference.sample_batches import Kept
from pipelines.inference.sample_labels import answer_all
from pipelines.samples.sample_windows import SampleArrays
from pipelines.scene import Band

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from map_driver import Mean

COUNT = 10


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """Ten samples in batches of three; frames in a file, as a store decodes them."""
    monkeypatch.setattr(sample_labels, "STORED_SAMPLES", 3)
    path = tmp_path / "frames.npy"
    np.save(path, np.random.default_rng(0).integers(0, 9, (COUNT, 2, 1, 3, 3)).astype(np.uint8))
    image = np.load(path, mmap_mode="r")
    return SampleArrays(image, np.ones((COUNT, 2), bool), [Band("red")], np.zeros((COUNT, 1), np.float32), np.ones(COUNT))


@pytest.mark.parametrize(
    "compute", [Compute(workers=2), pytest.param(Compute("processes", workers=2), marks=pytest.mark.exhaustive)]
)
def test_answers_do_not_depend_on_where_they_are_given(arrays, tmp_path, compute):
    expected = answer_all(Mean(), arrays, np.arange(COUNT), Kept(tmp_path / "here", "key"))
    found = answer_all(Mean(), arrays, np.arange(COUNT), Kept(tmp_path / "there", "key"), compute=compute)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 1
    assert len(list((tmp_path / "there").rglob("*.npy"))) == 8  # four batches of two networks


def test_a_batch_that_fails_is_named(arrays, tmp_path):
    with pytest.raises(ValueError, match="no such luck") as error:
        answer_all(Mean(fails=True), arrays, np.arange(COUNT), Kept(tmp_path, "key"), compute=Compute(workers=2))
    assert any(note.startswith("at samples ") for note in error.value.__notes__)


def test_frames_in_a_file_travel_by_its_name_and_a_part_of_them_by_value(arrays):
    part = SampleArrays(arrays.image_NTCHW[2:4], arrays.valid_NT[2:4], arrays.bands, arrays.target_NK[2:4], arrays.weight_N[2:4])
    for one in (arrays, part):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).image_NTCHW, one.image_NTCHW)
    assert pickle.loads(pickle.dumps(arrays)).image_NTCHW.filename
