import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RequestError
from pipelines.samples.block_folds import assign_folds, blocks_of, validation_part


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_no_block_and_so_no_pixel_is_in_two_parts(seed, block_px, folds):
    rng = np.random.default_rng(seed)
    row_P, column_P = rng.integers(0, 40, (2, 300))
    class_P = rng.integers(0, 3, 300)
    block_P = blocks_of((row_P, column_P), block_px)
    fold_P = assign_folds(block_P, class_P, folds, seed % 1000)
    for block in np.unique(block_P):
        assert len(set(fold_P[block_P == block])) == 1
    for fold in range(folds):
        is_validation_P = validation_part(block_P, class_P, fold_P, fold, 0)
        assert is_validation_P.any()
        assert not is_validation_P[fold_P == fold].any()
        assert not set(block_P[is_validation_P]) & set(block_P[~is_validation_P & (fold_P != fold)])


def test_blocks_are_squares_of_pixels():
    assert blocks_of((np.array([0, 6, 7, 0]), np.array([0, 6, 0, 7])), 7).tolist() == [0, 0, 2, 1]
    slices = np.array([0, 9, 0, 9])
    assert blocks_of((slices, np.array([0, 6, 7, 0]), np.array([0, 6, 0, 7])), 7).tolist() == [0, 2, 1, 3]


def test_rare_classes_are_spread_over_the_folds():
    block_P, class_P = np.arange(100), np.array([1] * 5 + [0] * 95)
    assert sorted(assign_folds(block_P, class_P, 5, 0)[:5]) == [0, 1, 2, 3, 4]


def test_too_few_blocks_are_refused():
    with pytest.raises(RequestError, match=r"labels lie in 2 blocks, too few for 5 folds; set a smaller split.block_px"):
        assign_folds(np.array([0, 0, 1]), np.array([0, 1, 1]), 5, 0)
