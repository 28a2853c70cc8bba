"""Breaks put in by hand are where, when and as large as said."""

import numpy as np

from pipelines.change.injection import break_choices, draw_break_days, inject, patch_numbers


def test_patches_are_squares():
    assert patch_numbers((3, 5), 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_a_patch_breaks_on_one_day_and_the_same_seed_draws_the_same():
    patch = patch_numbers((16, 16))
    days = draw_break_days(patch, np.arange(100.0), seed=3)
    assert all(len(np.unique(days[patch == number])) == 1 for number in range(4))
    assert len(np.unique(days)) > 1
    assert days.tolist() == draw_break_days(patch, np.arange(100.0), seed=3).tolist()


def test_the_step_begins_on_the_break_day_and_stays():
    x = np.zeros((4, 1, 2), np.float32)
    broken = inject(x, np.array([10.0, 20, 30, 40]), np.array([[20.0, 35]]), -0.5)
    assert broken[:, 0].tolist() == [[0, 0], [-0.5, 0], [-0.5, 0], [-0.5, -0.5]]
    assert broken.dtype == np.float32
    assert not x.any()


def test_breaks_fall_on_dates_that_saw_something_and_leave_time():
    days, valid = np.array([0.0, 100, 200, 300]), np.ones((4, 2, 2), bool)
    valid[1] = False
    assert break_choices(days, valid, within_days=100).tolist() == [0, 200]


def test_of_a_short_series_the_first_half_breaks():
    days, valid = np.array([0.0, 10, 20, 30]), np.ones((4, 1, 1), bool)
    assert break_choices(days, valid, within_days=365).tolist() == [0, 10]
    assert break_choices(days, ~valid, within_days=365).tolist() == []
