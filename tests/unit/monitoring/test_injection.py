"""Simulated breaks are where, when and as large as requested."""

import numpy as np

from pipelines.monitoring.injection import assign_break_days, break_choices, inject, patch_numbers


def test_patches_are_squares():
    assert patch_numbers((3, 5), 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_a_patch_breaks_on_one_day_at_a_time_and_the_same_seed_deals_the_same():
    patch = patch_numbers((16, 16)) * 7  # numbers need not be dense
    days = assign_break_days(patch, np.arange(100.0), repeats=3, seed=3)
    assert days.shape == (3, 16, 16)
    assert all(len(np.unique(days[r][patch == number])) == 1 for r in range(3) for number in np.unique(patch))
    assert days.tolist() == assign_break_days(patch, np.arange(100.0), repeats=3, seed=3).tolist()
    assert days.tolist() != assign_break_days(patch, np.arange(100.0), repeats=3, seed=4).tolist()


def test_every_date_comes_up_equally_often_and_a_patch_never_gets_one_twice():
    patch = patch_numbers((80, 80))  # 100 patches
    days = assign_break_days(patch, np.array([5.0, 6, 7, 8, 9]), repeats=2, seed=0)
    assert np.unique(days[0, ::8, ::8], return_counts=True)[1].tolist() == [20] * 5
    assert (days[0] != days[1]).all()


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
