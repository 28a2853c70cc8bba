from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.scene import Band

RED, NIR = Band("red", scale=0.1, offset=-1.0, nodata=0), Band("nir", scale=0.1, offset=-1.0, nodata=0)


def image(red: Sequence[float], nir: Sequence[float], dtype: str = "uint16") -> np.ndarray:
    """(1, 2, 1, X)."""
    return np.array([[[red], [nir]]], dtype)


def all_valid(width: int) -> np.ndarray:
    return np.ones((1, 1, width), bool)


def test_a_band_is_scaled_and_offset():
    x, valid = decode(image([20, 30], [0, 0]), all_valid(2), (RED, NIR), (Variable("red", "band", ("red",)),))
    np.testing.assert_allclose(x, [[[[1.0, 2.0]]]], rtol=1e-6)
    assert x.dtype == np.float32
    assert valid.all()


def test_normalized_difference_is_of_physical_values():
    x, valid = decode(image([20], [40]), all_valid(1), (RED, NIR), (Variable("ndvi", "normalized_difference", ("nir", "red")),))
    np.testing.assert_allclose(x, [[[[(3 - 1) / (3 + 1)]]]], rtol=1e-6)
    assert valid.all()


def test_ratio():
    x, _ = decode(image([20], [40]), all_valid(1), (RED, NIR), (Variable("r", "ratio", ("nir", "red")),))
    np.testing.assert_allclose(x, 3.0, rtol=1e-6)


@pytest.mark.parametrize("formula", ["normalized_difference", "ratio"])
def test_a_zero_denominator_is_invalid(formula):
    bands = Band("red"), Band("nir")
    red = [0, 2] if formula == "ratio" else [-3, 2]
    x, valid = decode(image(red, [3, 4], "int16"), all_valid(2), bands, (Variable("v", formula, ("nir", "red")),))
    assert valid.tolist() == [[[False, True]]]
    assert x[0, 0, 0, 0] == 0


def test_invalid_pixels_are_zero_and_free_of_nan():
    bands = Band("red"), Band("nir")
    stored = image([1, np.nan, np.inf, 1], [np.nan, 1, 1, 1], "float32")
    x, valid = decode(stored, all_valid(4), bands, (Variable("ndvi", "normalized_difference", ("nir", "red")),))
    assert valid.tolist() == [[[False, False, False, True]]]
    assert np.isfinite(x).all()
    assert (x[0, 0][~valid[0]] == 0).all()


def test_nodata_and_both_valid_ranges_clear_valid():
    red = Band("red", scale=0.1, nodata=7, valid_range=(0, 100))
    variable = Variable("red", "band", ("red",), valid_range=(0.5, 8.0))
    stored = np.array([[[[7, 101, 4, 5, 80, 81]]]], "int16")
    _, valid = decode(stored, all_valid(6), (red,), (variable,))
    assert valid.tolist() == [[[False, False, False, True, True, False]]]


def test_invalid_pixels_stay_invalid_and_the_argument_is_unchanged():
    given = np.array([[[False, True]]])
    x, valid = decode(image([20, 0], [20, 20]), given, (RED, NIR), (Variable("red", "band", ("red",)),))
    assert valid.tolist() == [[[False, False]]]
    assert given.tolist() == [[[False, True]]]
    assert (x == 0).all()


def test_valid_is_shared_by_all_variables():
    variables = Variable("red", "band", ("red",)), Variable("nir", "band", ("nir",))
    x, valid = decode(image([20, 0], [20, 20]), all_valid(2), (RED, NIR), variables)
    assert valid.tolist() == [[[True, False]]]
    assert x.shape == (1, 2, 1, 2)
    assert (x[..., 1] == 0).all()


def test_bands_that_no_variable_uses_are_left_out():
    assert used_bands((RED, Band("blue"), NIR), (Variable("v", "ratio", ("nir", "red")),)) == (0, 2)


def test_mistakes_are_reported():
    with pytest.raises(RequestError, match=r"no band 'B8', only red, nir: correct samples\.variables"):
        used_bands((RED, NIR), (Variable("ndvi", "normalized_difference", ("B8", "red")),))
    with pytest.raises(RequestError, match="ndvi: formula normalized_difference takes 2 bands, got 1"):
        Variable("ndvi", "normalized_difference", ("nir",))
    with pytest.raises(RequestError, match="unknown formula 'difference'"):
        Variable("d", "difference", ("nir", "red"))
