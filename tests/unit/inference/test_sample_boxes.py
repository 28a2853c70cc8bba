"""Boxes in many samples: kept batches are not computed again, members are averaged, hidden frames have no box."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.blocks.centre_points import decode_boxes
from pipelines.inference import sample_boxes
from pipelines.inference.sample_batches import Kept
from pipelines.inference.sample_boxes import find_boxes
from pipelines.samples.sample_windows import SampleArrays
from pipelines.scene import Band

COUNT, FRAMES, SIDE = 7, 3, 16
DECODE = partial(decode_boxes, shape_yx=(SIDE, SIDE), most=4, least=0.5)


class Marks:
    """Finds a box of 4 pixels at the cell that the first pixel of a frame names; member 1 is as sure that there is none."""

    is_number, outputs = False, ("a",)
    members = (torch.nn.Identity(), torch.nn.Identity())

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, i: int, x_BTCHW: torch.Tensor, valid_BT: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y_BTDHW = torch.full((*x_BTCHW.shape[:2], 5, 4, 4), -6.0)
        y_BTDHW[:, :, 1:3], y_BTDHW[:, :, 3:] = 1.0, 0.5
        cell_BT = x_BTCHW[:, :, 0, 0, 0].long()
        y_BTDHW[:, :, 0].flatten(2).scatter_(2, cell_BT[..., None], 3.0 if i == 0 else -3.0)
        return y_BTDHW

    def calibrated(self, i: int, raw: np.ndarray) -> np.ndarray:
        raise AssertionError("scores of boxes are not calibrated")

    def set_calibration(self, i: int, temperature: float) -> None:
        raise AssertionError("scores of boxes are not calibrated")


@pytest.fixture
def arrays() -> SampleArrays:
    image = np.zeros((COUNT, FRAMES, 1, SIDE, SIDE), np.uint8)
    image[:, :, 0, 0, 0] = np.arange(COUNT)[:, None] + np.arange(FRAMES)
    valid = np.ones((COUNT, FRAMES), bool)
    valid[2, 1] = False
    return SampleArrays(image, valid, (Band("gray"),), np.zeros((COUNT, 1, 6), np.float32), np.ones(COUNT, np.float32))


def test_every_sample_has_its_own_boxes_and_hidden_frames_none(arrays: SampleArrays) -> None:
    found = find_boxes(Marks(), [0], DECODE, arrays, np.array([6, 2, 3]))
    assert list(zip(found.sample_X.tolist(), found.frame_X.tolist(), strict=True)) == [
        (6, 0), (6, 1), (6, 2), (2, 0), (2, 2), (3, 0), (3, 1), (3, 2),
    ]  # fmt: skip
    cell = found.sample_X + found.frame_X
    np.testing.assert_allclose(found.edges_X4[:, :2], 4 * np.stack([cell // 4, cell % 4], axis=1))
    np.testing.assert_allclose(found.edges_X4[:, 2:] - found.edges_X4[:, :2], 4)
    assert len(find_boxes(Marks(), [0, 1], DECODE, arrays, np.arange(COUNT))) == COUNT * FRAMES - 1  # as sure as not: 0.5
    assert len(find_boxes(Marks(), [1], DECODE, arrays, np.arange(COUNT))) == 0


def test_a_call_goes_on_where_a_killed_one_stopped(arrays: SampleArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_boxes, "STORED_SAMPLES", 3)
    every, kept = np.arange(COUNT), Kept(tmp_path, "model and samples")
    whole = find_boxes(Marks(), [0], DECODE, arrays, every)

    def killed(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_boxes(Marks(), [0], DECODE, arrays, every, kept, killed)
    model = Marks()
    again = find_boxes(model, [0], DECODE, arrays, every, kept)
    assert model.calls == 1  # of three batches two were kept
    np.testing.assert_array_equal(again.table(), whole.table())
    other = Marks()
    find_boxes(other, [0], DECODE, arrays, every, Kept(tmp_path, "another model"))
    assert other.calls == 3
