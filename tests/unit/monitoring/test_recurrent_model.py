"""The curve corrected by a network: bounded, exact by tiles, held under cloud, trained the same twice."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks.residual_gru import MEAN_LIMIT, SIGMA_RANGE, ResidualEnsemble, ResidualGRU, ResidualGRUConfig, laplace_loss
from pipelines.errors import RequestError
from pipelines.learning.training import TrainingSettings
from pipelines.monitoring.calibration import left_out_years
from pipelines.monitoring.detector import Calibration, Detector, Observations, monitoring
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.recurrent_model import RecurrentModel, network_inputs, window_sum
from pipelines.monitoring.residual_training import (
    Learning,
    YearWindows,
    merge_years,
    residual_years,
    smallest_supported,
    supported_shares,
    train_ensemble,
)
from pipelines.monitoring.sequential_test import Cusum

START = 17897.0  # 2019-01-01
QUICK = TrainingSettings(epochs=3, batch=8, learning_rate=0.01, weight_decay=0.0, accelerator="cpu")


def series(shape_yx=(10, 12), years=3, step=12.0, anomaly=0.0, seed=0):
    """(x, valid, days) of `years` before START and one after: a season, noise, clouds, and an anomaly that lasts for months."""
    rng = np.random.default_rng(seed)
    days = np.arange(START - years * 365.25, START + 365.25, step)
    slow = np.zeros((len(days), *shape_yx))
    for n in range(1, len(days)):
        slow[n] = 0.9 * slow[n - 1] + math.sqrt(1 - 0.81) * rng.normal()  # one for all pixels
    season = 0.5 + 0.2 * np.cos(2 * math.pi * days / 365.2422)
    x = season[:, None, None] + anomaly * slow + 0.02 * rng.normal(size=slow.shape)
    valid = rng.random(slow.shape) > 0.3
    return np.where(valid, x, 0).astype(np.float32), valid, days


def random_network(seed=0, inputs=1, hidden=8, size=3.0):
    """A network that says something: large random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResidualGRU(ResidualGRUConfig(inputs, hidden))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=size)
    return network.eval()


def value_model(radius=0, networks=2, shares=(1.0, 1.0), size=3.0):
    inputs = 1 if radius == 0 else 3
    left_out = tuple((START - (i + 1) * 365.25, START - i * 365.25) for i in range(networks))
    members = tuple(random_network(i, inputs, size=size) for i in range(networks))
    return RecurrentModel(HarmonicModel(), members, left_out, shares, "test", radius)


def fitted_and_new(expected, x, valid, days):
    past = days < START
    return expected.fit(x[past], valid[past], days[past]), x[~past], valid[~past], days[~past]


def advanced(expected, fitted, x, valid, days):
    state = expected.begin(fitted)
    for x_YX, valid_YX, day in zip(x, valid, days, strict=True):
        state = expected.advance(fitted, state, x_YX, valid_YX, float(day))
    return state


def test_an_untrained_network_and_one_that_is_not_believed_are_the_curve_itself():
    x, valid, days = series()
    untrained = RecurrentModel(HarmonicModel(), (ResidualGRU(ResidualGRUConfig(1)),), ((0.0, 1.0),), (1.0, 1.0), "u")
    for expected in (untrained, value_model(shares=(0.0, 0.0))):
        fitted, *new = fitted_and_new(expected, x, valid, days)
        state = advanced(expected, fitted, *new)
        curve = HarmonicModel().predict(fitted, {}, START + 370)
        for found, requested in zip(expected.predict(fitted, state, START + 370), curve, strict=True):
            np.testing.assert_array_equal(found, requested)


def test_what_a_network_says_is_bounded_whatever_its_memory():
    network = random_network(size=50.0)
    memory, age = torch.randn(500, 8) * 100, torch.rand(500) * 2000
    mean, log_sigma = network.predict(memory, age)
    assert float(mean.detach().abs().max()) <= MEAN_LIMIT
    sigma = log_sigma.detach().exp()
    assert float(sigma.min()) >= SIGMA_RANGE[0] * 0.999
    assert float(sigma.max()) <= SIGMA_RANGE[1] * 1.001
    assert (6 - MEAN_LIMIT) / SIGMA_RANGE[1] > 4, "a break of six spreads is never less than four"


@pytest.mark.parametrize("seed", range(3))
def test_a_break_of_six_spreads_is_still_more_than_four_after_ten_dates(seed):
    x, valid, days = series(seed=seed)
    expected = value_model(size=10.0)
    fitted, x, valid, days = fitted_and_new(expected, x, valid, days)
    valid[:] = True
    detector = Detector(expected, Cusum(), Calibration(9.0))
    curve = [HarmonicModel().predict(fitted, {}, float(day)) for day in days]
    broken = np.stack([mean - 6 * spread for mean, spread in curve])
    state = monitoring(detector, fitted, broken[:10], valid[:10], days[:10])
    _, z = detector.residual(fitted, state, broken[10], float(days[10]))
    assert float(z.max()) < -4


def test_one_step_a_date_is_the_whole_sequence():
    x, valid, days = series()
    expected = value_model(radius=0, networks=1)
    fitted, x, valid, days = fitted_and_new(expected, x, valid, days)
    network, state, stepwise, inputs = expected.networks[0], expected.begin(fitted), [], []
    for x_YX, valid_YX, day in zip(x, valid, days, strict=True):
        stepwise.append(np.stack(expected.answer(fitted, state, float(day))))
        inputs.append(expected.inputs(fitted, x_YX, valid_YX, float(day)).reshape(1, -1).T)
        state = expected.advance(fitted, state, x_YX, valid_YX, float(day))
    with torch.no_grad():
        whole = network(
            torch.from_numpy(np.stack(inputs))[None], torch.from_numpy(valid.reshape(1, len(days), -1)), torch.tensor(days)[None]
        )
    np.testing.assert_allclose(np.stack(stepwise).reshape(len(days), 2, -1), whole[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("radius", [0, 2])
def test_a_tile_with_its_halo_is_the_whole_to_the_last_digit(radius):
    x, valid, days = series((20, 24))
    expected = value_model(radius=radius)
    fitted, *new = fitted_and_new(expected, x, valid, days)
    whole = expected.predict(fitted, advanced(expected, fitted, *new), START + 370)
    rows, columns = slice(5, 16), slice(8, 24)  # the last column is the raster's edge
    halo = expected.halo_px
    assert halo == radius
    outer = slice(rows.start - halo, rows.stop + halo), slice(columns.start - halo, columns.stop)
    inner = slice(halo, halo + 11), slice(halo, halo + 16)
    fitted, *new = fitted_and_new(expected, x[:, *outer], valid[:, *outer], days)
    tile = expected.predict(fitted, advanced(expected, fitted, *new), START + 370)
    for of_tile, of_whole in zip(tile, whole, strict=True):
        np.testing.assert_allclose(of_tile[inner], of_whole[rows, columns], rtol=1e-6)


def test_memory_is_held_under_cloud():
    x, valid, days = series()
    expected = value_model()
    fitted, x, valid, days = fitted_and_new(expected, x, valid, days)
    before = advanced(expected, fitted, x[:5], valid[:5], days[:5])
    seen = np.zeros_like(valid[5])
    seen[:, :4] = True
    after = expected.advance(fitted, before, x[5], seen, float(days[5]))
    for name in before:
        np.testing.assert_array_equal(after[name][..., 4:], before[name][..., 4:])
        assert not np.array_equal(after[name][..., :4], before[name][..., :4])
    assert np.array_equal(expected.advance(fitted, before, x[5], seen & False, float(days[5]))["memory"], before["memory"])


def test_only_networks_that_have_not_seen_a_missing_year_are_asked():
    x, valid, days = series(years=3)
    expected, past = value_model(networks=3), days < START
    first, last = expected.left_out[1]
    lacks = past & ~((days >= first) & (days < last))
    assert set(expected.fit(x[past], valid[past], days[past])["asked"].ravel()) == {0b111}
    assert set(expected.fit(x[lacks], valid[lacks], days[lacks])["asked"].ravel()) == {0b010}
    early = days < START - 2 * 365.25  # two years are missing: every network has seen one of them
    assert set(expected.fit(x[early], valid[early], days[early])["asked"].ravel()) == {0}


def test_inputs_are_clipped_and_the_mean_is_over_what_was_seen():
    z = np.array([[9.0, -9.0, 0.5], [0.0, 1.0, 0.0]], np.float32)
    seen = np.array([[True, True, True], [False, True, False]])
    own, around, share = network_inputs(z, seen, 1)
    np.testing.assert_array_equal(own, [[1.5, -1.5, 0.5], [0, 1, 0]])
    np.testing.assert_allclose(around[0], [(1.5 - 1.5 + 1) / 3, (1.5 - 1.5 + 0.5 + 1) / 4, (-1.5 + 0.5 + 1) / 3], atol=1e-7)
    np.testing.assert_allclose(share[0], [3 / 9, 4 / 9, 3 / 9])
    np.testing.assert_array_equal(window_sum(np.ones((3, 3)), 1), [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


# ---------------------------------------------------------------- training


def years_of(x, valid, days, **chosen):
    return residual_years(Observations(x, valid, days), START, Learning(HarmonicModel(), 12, **chosen))


def test_years_are_those_of_the_calibration_and_see_nothing_of_what_is_monitored():
    x, valid, days = series()
    years = years_of(x, valid, days)
    folds = left_out_years(days[days < START], START)
    assert [year.first_day for year in years] == [first for first, _ in folds]
    assert max(year.days_T.max() for year in years) < START
    after = days >= START
    x[after], valid[after] = 99.0, True
    for found, requested in zip(years_of(x, valid, days), years, strict=True):
        np.testing.assert_array_equal(found.inputs_TPF, requested.inputs_TPF)


def trained(folder: Path, years, settings=QUICK, seed=0):
    ensemble = ResidualEnsemble(ResidualGRUConfig(1, 4), len(years), seed)
    report = train_ensemble(ensemble, years, laplace_loss, settings, folder)
    return ensemble, report


def test_training_is_the_same_twice_and_goes_on_after_a_kill(tmp_path):
    years = years_of(*series(anomaly=0.05))
    first, report = trained(tmp_path / "a", years)
    calls = 0

    def kill(done, total):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    ensemble = ResidualEnsemble(ResidualGRUConfig(1, 4), len(years))
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(ensemble, years, laplace_loss, QUICK, tmp_path / "b", progress=kill)
    second, again = trained(tmp_path / "b", years)
    assert report == again
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_anomaly_that_lasts_is_predicted(tmp_path):
    years = years_of(*series((16, 16), years=4, anomaly=0.05))
    ensemble, report = trained(tmp_path, years, replace(QUICK, epochs=8, batch=2))
    assert float(ensemble.shares[0]) > 0.5
    assert sum(report["loss_trained"]) < sum(report["loss_untrained"])


def test_what_the_left_out_years_contradict_gets_no_share():
    years = years_of(*series())
    ensemble = ResidualEnsemble(ResidualGRUConfig(1, 4), len(years))
    for member in ensemble.members:
        torch.nn.init.constant_(member.head.bias, 3.0)  # always off by one spread
    assert supported_shares(ensemble, years)[0] == 0


def test_the_smallest_share_within_one_standard_error():
    assert smallest_supported(np.array([[1.0, 3.0], [0.9, 3.05]])) == 0  # better on average, but not surely
    assert smallest_supported(np.array([[1.0, 3.0], [0.8, 2.8], [0.5, 2.5]])) == 2
    assert smallest_supported(np.array([[1.0], [0.5]])) == 1


def test_windows_hide_other_dates_each_epoch_and_keep_them_as_targets():
    years = years_of(*series())
    windows = YearWindows(years, hide=0.5)
    assert len(windows) == len(windows.shapes) == sum(year.z_TP.shape[1] // 64 for year in years)
    windows.set_epoch(1)
    first = windows.gather([0])
    windows.set_epoch(2)
    second = windows.gather([0])
    assert not torch.equal(first["seen_TP"], second["seen_TP"])
    assert torch.equal(first["weight"], second["weight"])
    assert (first["seen_TP"] <= first["weight"][:, :, 0]).all()


def test_years_of_two_places_lie_side_by_side():
    years = years_of(*series())
    both = merge_years([years, years])
    assert both[0].z_TP.shape[1] == 2 * years[0].z_TP.shape[1]
    np.testing.assert_array_equal(both[1].days_T, years[1].days_T)


def test_too_short_a_history_says_the_way_out():
    x, valid, days = series(years=1)
    with pytest.raises(RequestError, match=r"needs two years of history.*found \d before.*kind: harmonic"):
        years_of(x, valid, days)
    x, valid, days = series()
    with pytest.raises(RequestError, match=r"found 0 stable pixels with 12 usable dates.*min_history"):
        years_of(x, valid & False, days)


def test_the_loss_is_the_laplace_likelihood_of_what_was_seen():
    answer = torch.tensor([[0.5, math.log(2.0)]]).reshape(1, 1, 2, 1, 1)
    target, seen = torch.full((1, 1, 1, 1, 1), 2.5), torch.ones(1, 1, 1, 1, 1)
    assert float(laplace_loss(answer, target, seen)) == pytest.approx(math.sqrt(2) * 2 / 2 + math.log(2.0))
    assert float(laplace_loss(answer, target, seen * 0)) == 0
