"""The sequences, scores and tables of `benchmarks.results_forecasters`; the rows themselves take minutes."""

import json
from dataclasses import asdict

import numpy as np
from pydantic import TypeAdapter

from benchmarks.moving_mnist import CONTEXT, DIGIT, HORIZON, SIDE, SequenceSet, draw_sequences, scores_of
from benchmarks.results_forecasters import MEMBERS, REDUCED, kept_row, lines_of, slug
from configs.networks import Model
from models.residual_forecaster import Scaling, build_forecaster

DIGITS = np.full((2, DIGIT, DIGIT), 255, np.uint8)


def corners(frames_TYX: np.ndarray) -> np.ndarray:
    """First row and column with ink in every frame, (T, 2)."""
    return np.array([[np.flatnonzero(frame.any(axis=axis))[0] for axis in (1, 0)] for frame in frames_TYX])


def test_digits_move_straight_by_a_tenth_of_their_room_and_are_reflected():
    (frames,) = draw_sequences(DIGITS, 1, seed=3)
    assert frames.shape == (CONTEXT + HORIZON, SIDE, SIDE)
    assert frames.dtype == np.uint8
    one = np.zeros_like(DIGITS[:1])
    one[0, 0, 0] = 255  # a single pixel: both digits are the same, the first of the two in a frame is the higher one
    for sequence in draw_sequences(one, 20, seed=1):
        assert sequence.reshape(len(sequence), -1).max(axis=1).min() == 255
        inside = np.argwhere(sequence)[:, 1:]
        assert inside.max() <= SIDE - DIGIT
    moved = np.abs(np.diff(corners(frames), axis=0))
    assert moved.max() <= 4  # 3.6 pixels, whole ones


def test_sequences_are_those_of_their_seed():
    first, again, other = (draw_sequences(DIGITS, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_scores_are_sums_over_pixels_and_means_over_frames():
    frames = np.zeros((2, CONTEXT + HORIZON, SIDE, SIDE), np.uint8)
    frames[0, CONTEXT:, 0, :4] = 255
    scores = scores_of(np.zeros((2, HORIZON, SIDE, SIDE), np.float32), frames)
    assert (scores["mse"], scores["mae"]) == (2, 2)
    assert 0.9 < scores["ssim"] < 1
    assert scores_of(frames[:, CONTEXT:].astype(np.float32) / 255, frames) == {"mse": 0, "mae": 0, "ssim": 1}


def test_windows_are_what_the_forecaster_would_prepare():
    import torch

    scaling = Scaling((0.1,), (0.2,), ("none",), 1.0)
    forecaster = build_forecaster(None, scaling, context=CONTEXT, horizon=HORIZON)
    windows = SequenceSet(forecaster, DIGITS, 2, seed=0)
    batch = windows.gather([1])
    frames = torch.from_numpy(windows.frames_NTYX[1]).float()[:, None] / 255
    steps, days = CONTEXT + HORIZON, torch.arange(CONTEXT + HORIZON).double()
    known, usable = torch.arange(CONTEXT), torch.ones(steps, dtype=torch.bool)
    prepared = forecaster.prepare(frames, torch.ones(steps, SIDE, SIDE) > 0, days, known, usable, days[CONTEXT:])
    for name, values in prepared.items():
        torch.testing.assert_close(batch[name][0], values, atol=1e-6, rtol=0)
    assert torch.equal(batch["target_KCHW"][0], frames[CONTEXT:])


def test_every_member_is_a_config():
    for name, model in MEMBERS.items():
        TypeAdapter(Model).validate_python({**model, "baseline": "none"})
        assert slug(name).replace("-", "").isalnum()


def test_a_row_is_kept_for_its_own_settings_only(tmp_path):
    row = {"protocol": asdict(REDUCED), "model": MEMBERS["ConvGRU"], "mse": 1.0}
    (tmp_path / "convgru.json").write_text(json.dumps(row))
    assert kept_row("ConvGRU", REDUCED, MEMBERS, tmp_path) == row
    assert kept_row("ConvGRU", REDUCED, {"ConvGRU": {"kind": "convgru", "hidden": [64]}}, tmp_path) is None
    assert kept_row("ConvLSTM", REDUCED, MEMBERS, tmp_path) is None


def test_the_table_shows_rows_references_and_what_is_missing():
    row = {"mse": 100.0, "mae": 200.0, "ssim": 0.5, "epochs": 2, "parameters": 7, "cpu_seconds": 61.0, "peak_gb": 0.8}
    row |= {"measured": "2026-11-29", "went_on": True}
    lines = lines_of(REDUCED, MEMBERS, {"ConvGRU": row}, {"last frame (persistence)": row})
    model = "kind convgru, hidden [32], patch_px 4"
    assert f"| ConvGRU | {model} | 100.0 | 200.0 | 0.500 | 2 | 7 | at least 61 | 0.80 |" in lines
    assert "| *last frame (persistence)* | | 100.0 | 200.0 | 0.500 | | | | |" in lines
    assert any(line.startswith("Not run yet: ConvLSTM; ConvLSTM, peepholes; TrajGRU") for line in lines)
    assert "| ConvLSTM-S | 15.0M | 29.80 | 90.64 | 0.9288 |" in lines
