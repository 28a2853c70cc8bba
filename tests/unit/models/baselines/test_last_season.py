import pytest
import torch

from models.baselines.last_season import MedianAnomaly, SameDateLastYear, value_near
from models.baselines.pointwise import TROPICAL_YEAR_DAYS, Climatology, DecayingAnomaly


def test_the_same_date_last_year_is_interpolated_and_falls_back_to_climatology(make_window):
    window = make_window(cloud=0.0, shape_yx=(1, 4))
    day = float(window.target_days_K[0]) - TROPICAL_YEAR_DAYS
    after = int(torch.searchsorted(window.days_N, day))
    before_day, after_day = window.days_N[after - 1 : after + 1].tolist()
    for dates, column in (([after], 1), ([after - 1], 2), (slice(after - 2, after + 2), 3)):
        window.valid_NHW[dates, :, column] = False
    y_CW = SameDateLastYear(Climatology(10.0), tolerance_days=16.0).forecast(**window.arguments())[0, :, 0]
    share = (day - before_day) / (after_day - before_day)
    torch.testing.assert_close(y_CW[:, 0], torch.lerp(window.x_NCHW[after - 1, :, 0, 0], window.x_NCHW[after, :, 0, 0], share))
    assert torch.equal(y_CW[:, 1], window.x_NCHW[after - 1, :, 0, 1]), "after it nothing within the tolerance"
    assert torch.equal(y_CW[:, 2], window.x_NCHW[after, :, 0, 2])
    assert torch.equal(y_CW[:, 3], Climatology(10.0).forecast(**window.arguments())[0, :, 0, 3])


def test_dates_that_are_not_usable_have_no_value(make_window):
    window = make_window()
    value_CHW, seen_HW = value_near(
        window.x_NCHW, window.valid_NHW, window.days_N, window.usable_N, float(window.target_days_K[1]), 10.0
    )
    assert not seen_HW.any()
    assert not value_CHW.any()


def test_fitting_recovers_the_share_of_the_median_anomaly(make_window):
    window = make_window(cloud=0.0, dates=120, shape_yx=(12, 12))
    window.x_NCHW[105:111] += torch.randn(2, 12, 12)
    window.target_KCHW = MedianAnomaly(width_days=10.0, share=0.6).forecast(**window.arguments())
    window.target_valid_KHW = torch.ones(3, 12, 12, dtype=torch.bool)
    found = MedianAnomaly().fit([window])
    assert (found.width_days, found.share) == (10.0, pytest.approx(0.6))
    slow = DecayingAnomaly(width_days=10.0, decay_days=1e7, share=0.6)
    torch.testing.assert_close(found.forecast(**window.arguments()), slow.forecast(**window.arguments()), atol=1e-4, rtol=0)
    assert MedianAnomaly().fit([]) == MedianAnomaly()
