"""Scores of probabilities on frames that are written out, and the neighbourhood as a reference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_forecaster import truth_window

from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution
from pipelines.learning.neighbourhood import Neighbourhood, shares, smooth
from pipelines.learning.probability_scores import FREQUENCY, NEIGHBOURHOOD, ProbabilityTally, as_certain
from pipelines.learning.threshold_scores import Thresholds

CERTAIN = ErrorDistribution(((0.0,),), ((tuple(np.zeros(len(PROBABILITIES))),),), "log1p", (0.0, 100.0))
SPREAD = replace(CERTAIN, error_KVQ=((tuple(PROBABILITIES - 0.5),),))
SIDE = 16


def window(truth_HW, day, past_HW):
    made = truth_window(np.asarray(truth_HW, np.float32)[None, None], [day])
    frames = torch.as_tensor(np.stack([past_HW, past_HW]).astype(np.float32))[:, None]
    return replace(made, x_NCHW=frames, valid_NHW=torch.ones(2, SIDE, SIDE, dtype=torch.bool))


def tallied(distributions, windows, forecasts, reference=None):
    tally = ProbabilityTally(distributions, Thresholds((6.0,), 12.0, "mm/h"), reference)
    for one, y_HW in zip(windows, forecasts, strict=True):
        y_KCHW = np.asarray(y_HW, np.float32)[None, None]
        tally.add(one, {"model": y_KCHW, "persistence": np.zeros_like(y_KCHW)})
    return tally.to_json("model", 0.9)


def test_what_is_certain_and_right_scores_nought_and_wrong_one():
    truth, past = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    truth[:4], past[:8] = 1.0, 1.0
    found = tallied({"model": CERTAIN}, [window(truth, day, past) for day in range(6)], [truth] * 6)
    (ours,), (usual,) = found["methods"]["model"], found["methods"][FREQUENCY]
    assert (ours["overall"]["brier"], ours["overall"]["skill"]) == (0, 1)
    assert ours["overall"]["events"] == 6 * 4 * SIDE
    assert usual["overall"]["brier"] == pytest.approx(0.25)  # the second quarter always came, and never does now
    assert (usual["overall"]["skill"], ours["overall"]["skill_low"]) == (0, 1)
    assert found["methods"][as_certain("persistence")][0]["overall"]["skill"] == 0
    figures = found["distributions"]["model"]["overall"]
    assert (figures["crps"], figures["mae"], figures["spread_over_error"]) == (0, 0, None)
    assert set(found["methods"]) == {"model", FREQUENCY, as_certain("model"), as_certain("persistence")}


def test_truths_drawn_from_the_distribution_have_even_ranks_a_spread_of_one_and_a_smaller_crps_than_the_mae():
    rng, windows, forecasts = np.random.default_rng(0), [], []
    for day in range(30):
        y = rng.random((SIDE, SIDE)) + 0.2
        truth = np.expm1(np.log1p(y) + rng.uniform(-0.5, 0.5, size=y.shape))
        windows.append(window(np.maximum(truth, 0), day, y))
        forecasts.append(y)
    found = tallied({"model": SPREAD}, windows, forecasts)
    figures = found["distributions"]["model"]["overall"]
    assert figures["spread_over_error"] == pytest.approx(1, abs=0.05)
    assert figures["crps"] < 0.75 * figures["mae"]
    np.testing.assert_allclose(found["ranks"]["model"], 0.1, atol=0.02)
    for point in found["reliability"]["model"][0]:
        assert point["came"] == pytest.approx(point["said"], abs=0.06)


def test_the_neighbourhood_grows_with_the_error_of_place():
    rng, found = np.random.default_rng(1), []
    for shift in (0, 6):
        reference, windows, fields = Neighbourhood((0.5,)), [], []
        for day in range(12):
            field = np.zeros((SIDE, 3 * SIDE))
            at = rng.integers(SIDE, 2 * SIDE - 4)
            field[5:9, at : at + 4] = 1
            moved = np.roll(field, int(rng.integers(-shift, shift + 1)), axis=1)
            windows.append(window(moved[:, SIDE : 2 * SIDE], day, field[:, SIDE : 2 * SIDE]))
            fields.append(field[None, None, :, SIDE : 2 * SIDE].astype(np.float32))
            reference.add(windows[-1], {"persistence": fields[-1]})
        found.append(reference.width_K[0])
        said = reference.exceedance(windows[0], {"persistence": fields[0]})
        assert said.shape == (1, 1, SIDE, SIDE)
        assert 0 <= said.min() <= said.max() <= 1
    assert found[0] == 0.5
    assert found[1] >= 2


def test_pixels_without_data_are_no_part_of_a_neighbourhood():
    event, valid = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    valid[:, :4] = True
    np.testing.assert_allclose(shares(event, valid, smooth(valid, 1.0), 1.0)[:, :6], 1)
    assert Neighbourhood((0.5,)).exceedance(window(np.zeros((SIDE, SIDE)), 0, np.zeros((SIDE, SIDE))), {}) is None
    tally = ProbabilityTally({}, Thresholds((6.0,), 12.0), Neighbourhood((0.5,)))
    tally.add(window(np.zeros((SIDE, SIDE)), 0, np.zeros((SIDE, SIDE))), {"model": np.zeros((1, 1, SIDE, SIDE), np.float32)})
    assert NEIGHBOURHOOD not in tally.to_json("model", 0.9)["methods"]
