from types import SimpleNamespace

import pytest
import torch

from models.baselines.boosting_features import means_around
from models.baselines.gradient_boosting import GradientBoosting
from models.baselines.pointwise import DecayingAnomaly


def error_of(forecaster, window) -> float:
    return float((forecaster.forecast(**window.arguments()) - window.target_KCHW).abs().mean())


@pytest.mark.parametrize("formulation", ["change", "residual"])
def test_both_formulations_learn_what_the_simple_forecast_misses(formulation, make_window):
    windows = [make_window(seed=s) for s in range(4)]
    for window in windows:
        window.target_KCHW = window.target_KCHW + 0.3
    boosting = GradientBoosting(iterations=100, formulation=formulation).fit(windows[:3])
    assert error_of(boosting, windows[3]) < 0.3 * error_of(boosting.corrected, windows[3])
    chosen = {way["formulation"] for channel in boosting.describe()["channels"] for way in channel["ways"]}
    assert chosen == {formulation}


def windows_of(shift_N, make_window) -> list[SimpleNamespace]:
    """Windows of 24 issue dates, of pixels that keep their level, to which `shift_N` of a date is added."""
    window = make_window(cloud=0.0, dates=60, channels=1, shape_yx=(8, 8))
    x_NCHW = (window.x_NCHW[0] + shift_N[:, None, None, None]).float()
    series = {"x_NCHW": x_NCHW, "valid_NHW": window.valid_NHW, "days_N": window.days_N}
    made = []
    for issue in range(30, 54):
        target, context_T = slice(issue + 1, issue + 2), torch.arange(issue - 5, issue + 1)
        truth = {"target_KCHW": x_NCHW[target], "target_valid_KHW": window.valid_NHW[target]}
        dates = {"context_T": context_T, "usable_N": torch.arange(60) <= issue, "target_days_K": window.days_N[target]}
        made.append(SimpleNamespace(**series, **dates, **truth))
    return made


def test_a_drift_is_learnt_as_a_change_and_haze_of_single_dates_is_not_learnt(make_window):
    """Decided on the later dates: every change is 0.2; or what earlier dates add to all their pixels, later ones take away."""
    drift = windows_of(0.2 * torch.arange(60), make_window)
    (way,) = GradientBoosting(iterations=60).fit(drift).choices[0].ways
    assert (way.formulation, way.is_centred) == ("change", False)
    haze = windows_of(torch.zeros(60), make_window)
    for number, window in enumerate(haze):
        window.target_KCHW = 0.5 * window.target_KCHW + (1 if number < 18 else -1)
    assert all(way.is_centred for way in GradientBoosting(iterations=60).fit(haze).choices[0].ways)


def test_a_season_that_was_not_seen_gets_the_simple_forecast(make_window):
    window = make_window()
    boosting = GradientBoosting(iterations=30, formulation="residual").fit([window])
    half_a_year_later = window.arguments(target_days_K=window.target_days_K + 183)
    torch.testing.assert_close(
        boosting.forecast(**half_a_year_later), boosting.corrected.forecast(**half_a_year_later), atol=0, rtol=0
    )


def test_the_fit_is_seeded_and_bounded(make_window):
    windows = [make_window(seed=s) for s in range(3)]
    one, other = (GradientBoosting(iterations=10, samples=100).fit(windows) for _ in range(2))
    arguments = windows[0].arguments()
    assert torch.equal(one.forecast(**arguments), other.forecast(**arguments))
    assert torch.isfinite(one.forecast(**arguments)).all()


def test_unusable_dates_are_ignored(make_window):
    window = make_window()
    boosting = GradientBoosting(iterations=10).fit([window])
    changed = window.x_NCHW.clone()
    changed[~window.usable_N] = 1e6
    assert torch.equal(boosting.forecast(**window.arguments()), boosting.forecast(**window.arguments(x_NCHW=changed)))


def test_lags_that_are_never_valid_and_contexts_without_observations_give_a_forecast(make_window):
    window = make_window(dates=14)
    boosting = GradientBoosting(DecayingAnomaly(), iterations=5).fit([window])
    for changed in ({}, {"context_T": torch.full((6,), -1)}, {"valid_NHW": torch.zeros_like(window.valid_NHW)}):
        y_KCHW = boosting.forecast(**window.arguments(**changed))
        assert y_KCHW.shape == window.target_KCHW.shape
        assert y_KCHW.dtype == torch.float32
        assert torch.isfinite(y_KCHW).all()


@pytest.mark.parametrize("space", [(20, 18), (9, 16, 15)], ids=["image", "volume"])
def test_a_tile_with_its_halo_equals_the_whole(space, make_window):
    window = make_window()
    generator = torch.Generator().manual_seed(1)
    window.valid_NHW = torch.rand(60, *space, generator=generator) > 0.4
    window.x_NCHW = torch.rand(60, 2, *space, generator=generator) * window.valid_NHW[:, None]
    window.target_KCHW, window.target_valid_KHW = window.x_NCHW[51:54], window.valid_NHW[51:54]
    boosting = GradientBoosting(iterations=10).fit([window])
    halo_px = boosting.halo_px(9)
    assert len(halo_px) == len(boosting.stride_px) == len(space)
    inner = tuple(slice(halo + 1, halo + 3) for halo in halo_px)
    outer = tuple(slice(1, part.stop + halo) for part, halo in zip(inner, halo_px, strict=True))
    tile = window.arguments(x_NCHW=window.x_NCHW[..., *outer], valid_NHW=window.valid_NHW[..., *outer])
    cropped = tuple(slice(halo, halo + 2) for halo in halo_px)
    whole = boosting.forecast(**window.arguments())[..., *inner]
    assert torch.equal(boosting.forecast(**tile)[..., *cropped], whole)


def test_means_of_a_neighbourhood_are_over_valid_pixels():
    x_CHW = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 9.0, 9.0], [9.0, 9.0, 8.0]]])
    seen_HW = x_CHW[0] < 9
    seen_HW[2, 2] = False
    three_CHW, seven_CHW = means_around(x_CHW, seen_HW)
    assert three_CHW[0, 0, 0] == three_CHW[0, 1, 1] == seven_CHW[0, 2, 2] == 2.0
    assert three_CHW[0, 2, 2].isnan()


def test_without_a_fit_or_a_valid_target_it_is_refused(make_window):
    window = make_window()
    with pytest.raises(ValueError, match=r"fitted for 0 channels, got 2: call fit\(windows\) first"):
        GradientBoosting().forecast(**window.arguments())
    window.target_valid_KHW = torch.zeros_like(window.target_valid_KHW)
    with pytest.raises(ValueError, match="the training windows have no valid target pixel"):
        GradientBoosting().fit([window])
