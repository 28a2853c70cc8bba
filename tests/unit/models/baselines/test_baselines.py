from dataclasses import replace

import pytest
import torch

from models.baselines.last_season import MedianAnomaly, SameDateLastYear
from models.baselines.own_series import ContextMean, ContextTrend
from models.baselines.pointwise import (
    ARGUMENTS,
    WIDTHS_DAYS,
    Climatology,
    DecayingAnomaly,
    HarmonicRegression,
    Persistence,
    climatologies_at,
    climatology_at,
    context_days,
    last_values,
    median_of_seen,
    season_distance_days,
)

BASELINES = [Persistence(), Climatology(), SameDateLastYear(), MedianAnomaly(), DecayingAnomaly(), HarmonicRegression(),
             ContextMean(), ContextTrend()]  # fmt: skip
EVERY = pytest.mark.parametrize("rule", BASELINES, ids=lambda rule: type(rule).__name__)


# ---------------------------------------------------------------- all baselines


@EVERY
def test_unusable_dates_are_ignored(rule, make_window):
    window = make_window()
    later = ~window.usable_N
    changed = window.x_NCHW.clone()
    changed[later] = 1e6
    assert torch.equal(rule.forecast(**window.arguments()), rule.forecast(**window.arguments(x_NCHW=changed)))


@EVERY
def test_invalid_values_are_ignored(rule, make_window):
    window = make_window()
    changed = torch.where(window.valid_NHW[:, None], window.x_NCHW, 1e6)
    torch.testing.assert_close(rule.forecast(**window.arguments(x_NCHW=changed)), rule.forecast(**window.arguments()))


@EVERY
@pytest.mark.parametrize("channels", [1, 4])
def test_shape_dtype_and_no_nan_without_observations(rule, channels, make_window):
    window = make_window(channels=channels)
    window.valid_NHW[:, 0, 0] = False
    window.x_NCHW[:, :, 0, 0] = 0
    y_KCHW = rule.forecast(**window.arguments())
    assert y_KCHW.shape == (3, channels, 9, 8)
    assert y_KCHW.dtype == torch.float32
    assert torch.isfinite(y_KCHW).all()
    assert (y_KCHW[:, :, 0, 0].abs() < 1e-6).all()


@EVERY
def test_nothing_usable_at_all_gives_zeros(rule, make_window):
    window = make_window()
    y_KCHW = rule.forecast(
        **window.arguments(valid_NHW=torch.zeros_like(window.valid_NHW), x_NCHW=torch.zeros_like(window.x_NCHW))
    )
    assert torch.equal(y_KCHW.abs(), torch.zeros_like(y_KCHW))


@EVERY
def test_a_context_without_observations_gives_a_forecast(rule, make_window):
    window = make_window()
    y_KCHW = rule.forecast(**window.arguments(context_T=torch.full((6,), -1)))
    assert torch.isfinite(y_KCHW).all()


@EVERY
def test_a_constant_series_stays_constant(rule, make_window):
    window = make_window()
    x_NCHW = torch.full_like(window.x_NCHW, 0.7) * window.valid_NHW[:, None]
    y_KCHW = rule.forecast(**window.arguments(x_NCHW=x_NCHW))
    torch.testing.assert_close(y_KCHW, torch.full_like(y_KCHW, 0.7), atol=1e-4, rtol=0)


@EVERY
def test_minutes_and_months_work_alike(rule, make_window):
    window = make_window(step_days=5 / 1440)
    y_KCHW = rule.forecast(**window.arguments())
    assert torch.isfinite(y_KCHW).all()
    assert float(y_KCHW.min()) > -0.6
    assert float(y_KCHW.max()) < 1.6


@EVERY
def test_pixels_are_independent(rule, make_window):
    window = make_window(shape_yx=(80, 70))
    part = window.arguments(x_NCHW=window.x_NCHW[:, :, 11:40, 5:50], valid_NHW=window.valid_NHW[:, 11:40, 5:50])
    whole = rule.forecast(**window.arguments())[:, :, 11:40, 5:50]
    tolerance = 1e-6 if isinstance(rule, HarmonicRegression) else 0.0
    torch.testing.assert_close(rule.forecast(**part), whole, atol=tolerance, rtol=0)


# ---------------------------------------------------------------- one by one


def test_persistence_is_the_last_valid_value_then_the_usable_mean():
    x = torch.tensor([[1.0, 10.0, 5.0], [2.0, 0.0, 7.0], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])[:, None, None]
    valid = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]).bool()[:, None]
    y = Persistence().forecast(
        x,
        valid,
        torch.arange(4.0).double(),
        torch.tensor([1, 2]),
        torch.tensor([True, True, True, False]),
        torch.tensor([5.0, 6.0]),
    )
    assert y.shape == (2, 1, 1, 3)
    assert y[0].flatten().tolist() == [2.0, 10.0, 7.0], "the second pixel is invalid in the context: the mean of 10"


def test_distance_in_the_year_wraps_at_new_year():
    distance = season_distance_days(
        torch.tensor([364.0]), torch.tensor([1.0, 364.0, 182.0, 364.0 + 2 * 365.2422], dtype=torch.float64)
    )
    torch.testing.assert_close(distance, torch.tensor([[2.2422, 0.0, 182.0, 0.0]]).double(), atol=1e-6, rtol=0)


def test_climatology_is_the_weighted_mean_of_its_docstring(make_window):
    window = make_window(shape_yx=(3, 2))
    distance = season_distance_days(window.target_days_K, window.days_N)
    weight = torch.exp(-((distance / 15) ** 2) / 2) + 0.01 * torch.exp(-((distance / 45) ** 2) / 2) + 1e-5
    weight_KNHW = weight[:, :, None, None] * (window.valid_NHW & window.usable_N[:, None, None])
    want = torch.einsum("knhw,nchw->kchw", weight_KNHW, window.x_NCHW.double()) / weight_KNHW.sum(dim=1)[:, None]
    torch.testing.assert_close(Climatology(15.0).forecast(**window.arguments()).double(), want, atol=1e-6, rtol=0)


def test_climatology_of_a_pixel_valid_once_is_that_value(make_window):
    window = make_window()
    window.valid_NHW[:, 4, 4] = False
    window.valid_NHW[3, 4, 4] = True
    window.x_NCHW[3, :, 4, 4] = 0.25
    y = Climatology().forecast(**window.arguments())
    torch.testing.assert_close(y[:, :, 4, 4], torch.full((3, 2), 0.25))


def test_the_median_is_over_valid_values():
    values = torch.tensor([[9.0, 5.0, 0.0, 0.0], [1.0, 7.0, 4.0, 0.0], [2.0, 0.0, 0.0, 0.0]])[:, None, None]
    seen = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()[:, None]
    assert median_of_seen(values, seen).flatten().tolist() == [2.0, 6.0, 4.0, 0.0]


def test_last_values_are_the_latest_with_their_days():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None, None]
    valid = torch.tensor([True, True, False, True])[:, None, None]
    values, days, seen = last_values(x, valid, torch.tensor([10.0, 20.0, 30.0, 40.0]).double(), 3)
    assert values.flatten().tolist() == [1.0, 2.0, 4.0]
    assert days.flatten().tolist() == [10.0, 20.0, 40.0]
    assert seen.all()


def test_a_step_without_observation_is_dated_between_its_neighbours():
    days = torch.tensor([0.0, 10.0, 20.0, 50.0]).double()
    assert context_days(days, torch.tensor([1, -1, -1, 3])).tolist() == pytest.approx([10.0, 70 / 3, 110 / 3, 50.0])
    assert context_days(days, torch.tensor([-1, 1, 2, -1])).tolist() == [0.0, 10.0, 20.0, 30.0]


def test_the_anomaly_decays_with_its_age(make_window):
    window = make_window(cloud=0.0)
    rule = DecayingAnomaly(decay_days=40.0, share=0.5)
    parts = rule.parts(**window.arguments())
    lasting = (parts.y_KCHW - parts.background_KCHW) / parts.anomaly_CHW
    assert int(window.context_T[-1]) == 50
    ages = window.target_days_K - window.days_N[torch.tensor([48, 49, 50])].mean()
    want = 0.5 * torch.exp(-ages / 40.0)
    torch.testing.assert_close(lasting.mean(dim=(1, 2, 3)).double(), want, atol=1e-3, rtol=0)


def test_fitting_recovers_share_and_decay(make_window):
    window = make_window(cloud=0.0, dates=120, shape_yx=(12, 12))
    made = DecayingAnomaly(decay_days=55.0, share=0.6)
    window.x_NCHW[105:111] += torch.randn(2, 12, 12)
    window.target_KCHW = made.forecast(**window.arguments())
    window.target_valid_KHW = torch.ones(3, 12, 12, dtype=torch.bool)
    found = DecayingAnomaly().fit([window])
    assert found.width_days == pytest.approx(made.width_days, rel=0.5)
    assert found.share == pytest.approx(0.6, abs=0.15)
    assert float((found.forecast(**window.arguments()) - window.target_KCHW).abs().mean()) < 0.01


def test_fitting_a_climatology_recovers_the_width(make_window):
    window = make_window(shape_yx=(70, 70))
    window.target_KCHW = Climatology(30.0).forecast(**window.arguments())
    assert Climatology().fit([window]) == Climatology(30.0)
    window.target_valid_KHW = torch.zeros_like(window.target_valid_KHW)
    assert Climatology(9.0).fit([window]) == Climatology(9.0)


def test_fitting_without_a_valid_target_changes_nothing(make_window):
    window = make_window()
    window.target_valid_KHW = torch.zeros_like(window.target_valid_KHW)
    assert DecayingAnomaly().fit([window]) == DecayingAnomaly()
    assert DecayingAnomaly().fit([]) == DecayingAnomaly()


def test_targets_that_are_not_valid_may_be_nan_in_fitting(make_window):
    window = make_window()
    clean = DecayingAnomaly().fit([window])
    window.target_KCHW = torch.where(window.target_valid_KHW[:, None], window.target_KCHW, float("nan"))
    assert DecayingAnomaly().fit([window]) == clean


def test_harmonic_regression_recovers_season_and_trend():
    days_N = 17000 + 10 * torch.arange(200, dtype=torch.float64)
    years_N = days_N / 365.2422
    truth_N = (
        0.5 + 0.05 * (years_N - years_N[0]) + 0.2 * torch.sin(2 * torch.pi * years_N) + 0.1 * torch.cos(4 * torch.pi * years_N)
    ).float()
    x_NCHW = truth_N[:, None, None, None].expand(200, 1, 2, 2)
    y = HarmonicRegression(ridge=1e-3).forecast(
        x_NCHW, torch.ones(200, 2, 2).bool(), days_N, torch.arange(140, 150), torch.arange(200) < 150, days_N[150:160]
    )
    torch.testing.assert_close(y[:, 0, 0, 0], truth_N[150:160], atol=1e-3, rtol=0)


def test_a_date_requested_twice_gets_the_same_climatology(make_window):
    window = make_window(dates=400, channels=1, shape_yx=(80, 80))
    at = torch.cat([window.days_N[:20], window.days_N[:20]])
    twice = climatology_at(window.x_NCHW, window.valid_NHW, window.days_N, window.usable_N, at, 15.0)
    assert torch.equal(twice[:20], twice[20:])


def test_widths_at_once_give_what_each_gives_alone(make_window):
    window = make_window(channels=2, shape_yx=(70, 70))  # more pixels than a block has
    about = (window.x_NCHW, window.valid_NHW, window.days_N, window.usable_N, window.target_days_K)
    alone = [climatology_at(*about, width_days) for width_days in WIDTHS_DAYS]
    assert torch.equal(climatologies_at(*about, WIDTHS_DAYS), torch.stack(alone))
    rule, arguments = DecayingAnomaly(share=0.4), window.arguments()
    at_once = rule.parts_of_widths(tuple(arguments[name] for name in ARGUMENTS), WIDTHS_DAYS)
    for width_days, parts in zip(WIDTHS_DAYS, at_once, strict=True):
        assert all(map(torch.equal, parts, replace(rule, width_days=width_days).parts(**arguments)))
