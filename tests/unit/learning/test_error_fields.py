"""Correlated errors: what is drawn with a correlation is measured to have it, and sums of pixels have the right spread."""

import numpy as np
import pytest
from tiny_forecaster import truth_window

from pipelines.inference.members import BLOCK_ROWS, member_values, noise
from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution
from pipelines.learning.error_fields import SCALES_PX, ErrorFields, fit_fields, weights

STANDARD = ErrorDistribution(((0.0,), (0.0,)), (((tuple(norm := np.log(PROBABILITIES / (1 - PROBABILITIES)) * 0.6),)),) * 2)
KNOWN = ErrorFields(((0.2, 0.0, 0.5, 0.3, 0.0, 0.0), (0.0, 0.0, 0.0, 0.4, 0.6, 0.0)), (0.0, 0.7))
SIDE = 64


class Zero:
    """Forecasts 0."""

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        return np.zeros((len(target_days_K), 1, SIDE, SIDE), np.float32)


def errors(member):
    """The errors of two leads, (K, H, W), as a member of the ensemble has them."""
    zero, rows = np.zeros((SIDE, SIDE), np.float32), slice(0, SIDE)
    return np.stack([member_values(zero, k, rows, STANDARD, KNOWN, seed=9, member=member) for k in (0, 1)])


def correlation(fields, k):
    r = np.array([1, 2, 4, 8, 16])
    shares = zip(fields.weight_KJ[k], SCALES_PX, strict=True)
    return sum(weight * (np.exp(-((r / (2 * scale)) ** 2)) if scale else 0.0 * r) for weight, scale in shares)


def test_the_correlation_that_errors_have_is_found():
    windows = [truth_window(errors(m)[:, None].astype(np.float32), [m, m + 0.5]) for m in range(25)]
    found = fit_fields(Zero(), STANDARD, windows)
    for k in (0, 1):
        assert sum(found.weight_KJ[k]) == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(correlation(found, k), correlation(KNOWN, k), atol=0.08)
    assert found.along_K[0] == 0
    assert ErrorFields.from_json(found.to_json()) == found


def test_the_mean_of_an_area_spreads_as_its_correlated_errors_do():
    of_area, truth_m = (np.array([errors(first + m)[1, 8:24, 8:24].mean() for m in range(80)]) for first in (0, 1000))
    assert of_area.std() == pytest.approx(truth_m.std(), rel=0.25)
    assert of_area.std() > 5 * np.std(errors(0)[1]) / 16  # 16 x 16 independent pixels
    assert (truth_m >= 0.5).mean() == pytest.approx((of_area >= 0.5).mean(), abs=0.15)


def test_rows_are_those_of_the_whole_and_seeds_repeat():
    whole = noise(KNOWN, 1, slice(0, BLOCK_ROWS + 60), 40, seed=3, member=2)
    parts = [noise(KNOWN, 1, rows, 40, seed=3, member=2) for rows in (slice(0, 17), slice(17, 250), slice(250, BLOCK_ROWS + 60))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for other in ({"seed": 3, "member": 1}, {"seed": 4, "member": 2}):
        assert np.abs(noise(KNOWN, 1, slice(0, 20), 40, **other) - whole[:20]).max() > 0.5


def test_noise_is_standard_and_goes_on_from_lead_to_lead():
    same = ErrorFields(((0.4, 0.6, 0.0, 0.0, 0.0, 0.0),) * 2, (0.0, 0.7))
    first, second = (noise(same, k, slice(0, 150), 150, seed=1, member=0) for k in (0, 1))
    np.testing.assert_allclose([first.std(), second.std()], 1, atol=0.05)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(0.7, abs=0.05)


def test_leads_that_are_apart_are_correlated_through_those_between_and_few_pairs_show_nothing():
    chain = ErrorFields(((1.0, 0, 0, 0, 0, 0),) * 4, (0.0, 0.9, 0.8, 0.5))
    assert chain.of_leads(np.array([0, 3])).along_K == (0.0, pytest.approx(0.36))
    assert weights(np.ones((33, 2))) == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
