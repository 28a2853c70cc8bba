import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from models.baselines.change_indices import (
    ChangeVector,
    ImageDifference,
    IrMad,
    PlainChangeVector,
    chi_square_threshold,
    first_and_last,
    masked_mean,
    otsu_threshold,
    unchanged_probability,
)

BASELINES = [ImageDifference(), PlainChangeVector(), ChangeVector(), ChangeVector(9, 3, (0.5, 1.0, 2.0)), IrMad()]


def pair(shape=(90, 100), bands=3, seed=0, noise=0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two dates of correlated noise, all valid."""
    rng = torch.Generator().manual_seed(seed)
    first = torch.randn(bands, *shape, generator=rng)
    return torch.stack([first, first + noise * torch.randn(bands, *shape, generator=rng)]), torch.ones(
        2, *shape, dtype=torch.bool
    )


# ---------------------------------------------------------------- dates


def test_a_pixel_s_last_date_is_compared_with_its_first():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None, None].expand(4, 1, 1, 5).clone()
    valid = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool).T[:, None]
    x[~valid[:, None]] = 0
    first, last, seen = first_and_last(x, valid)
    assert first.flatten().tolist() == [1, 2, 1, 0, 0]
    assert last.flatten().tolist() == [8, 4, 2, 0, 0]
    assert seen.flatten().tolist() == [True, True, True, False, False]
    score = ImageDifference().score(x, valid).flatten()
    assert score[:3].tolist() == [7, 2, 1]
    assert torch.isnan(score[3:]).all()


def test_one_date_is_refused():
    with pytest.raises(ValueError, match="change needs two dates, got 1"):
        PlainChangeVector().score(torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool))


# ---------------------------------------------------------------- every index


@pytest.mark.parametrize("rule", BASELINES, ids=str)
def test_scores_are_finite_where_valid_and_nan_elsewhere(rule):
    x, valid = pair()
    valid[0, :10], valid[1, :, :10] = False, False
    x = torch.where(valid[:, None], x, 0)
    score = rule.score(x, valid)
    assert (score.dtype, score.shape) == (torch.float32, valid.shape[1:])
    seen = valid.all(0)
    assert torch.isfinite(score[seen]).all()
    assert (score[seen] >= 0).all()
    assert torch.isnan(score[~seen]).all()


@pytest.mark.parametrize("rule", BASELINES, ids=str)
def test_values_under_clouds_are_ignored(rule):
    x, valid = pair()
    valid[1, 30:60, 20:70] = False
    other = torch.where(valid[:, None], x, 1e6)
    clean = torch.where(valid[:, None], x, 0)
    torch.testing.assert_close(rule.score(other, valid), rule.score(clean, valid), equal_nan=True)


@pytest.mark.parametrize("rule", BASELINES, ids=str)
def test_every_index_fitted_to_a_site_scores_windows(rule):
    x, valid = pair()
    fitted = rule.fit(x, valid)
    down, across = fitted.halo_px(2)
    whole = fitted.score(x, valid)
    part = fitted.score(x[:, :, : 20 + down, : 30 + across], valid[:, : 20 + down, : 30 + across])
    torch.testing.assert_close(part[:20, :30], whole[:20, :30])


@pytest.mark.parametrize("rule", BASELINES, ids=str)
def test_equal_dates_are_no_change(rule):
    x, valid = pair()
    score = rule.score(x[:1].expand(2, -1, -1, -1), valid)
    assert float(score.max()) < 1e-6


@pytest.mark.parametrize("rule", BASELINES, ids=str)
def test_a_changed_patch_scores_higher_than_the_rest(rule):
    x, valid = pair(noise=0.3)
    x[1, :, 40:50, 40:50] += torch.tensor([3.0, 3.0, -1.0])[:, None, None]
    score = rule.score(x, valid)
    patch = score[42:48, 42:48].median()
    score[35:55, 35:55] = torch.nan
    assert patch > 2 * score.nanmedian()


@pytest.mark.parametrize("rule", [r for r in BASELINES if r.halo_px(2) is not None], ids=str)
@pytest.mark.parametrize("dates", [2, 4])
def test_a_tile_with_its_halo_equals_the_whole(rule, dates):
    x, valid = pair((150, 160))
    x = torch.cat([x, x.flip(-1)])[:dates]
    valid = torch.rand(dates, 150, 160, generator=torch.Generator().manual_seed(1)) > 0.2
    x = torch.where(valid[:, None], x, 0)
    whole = rule.score(x, valid)
    for rows, columns in ((slice(0, 60), slice(0, 50)), (slice(60, 110), slice(50, 120)), (slice(110, 150), slice(120, 160))):
        down, across = rule.halo_px(dates)
        top, left = max(rows.start - down, 0), max(columns.start - across, 0)
        window = slice(top, rows.stop + down), slice(left, columns.stop + across)
        part = rule.score(x[:, :, *window], valid[:, *window])
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        torch.testing.assert_close(part[inner], whole[rows, columns], equal_nan=True, rtol=1e-5, atol=1e-6)


def test_a_fitted_ir_mad_scores_windows_as_the_whole():
    x, valid = pair()
    fitted = IrMad().fit(x, valid)
    assert fitted.halo_px(2) == (0, 0)
    whole = IrMad().score(x, valid)
    torch.testing.assert_close(fitted.score(x[:, :, 10:30, 5:9], valid[:, 10:30, 5:9]), whole[10:30, 5:9])


# ---------------------------------------------------------------- change vectors


def test_plain_change_vectors_on_numbers():
    x = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]], [[[4.0, 1.0]], [[6.0, 1.0]]]])
    score = PlainChangeVector().score(x, torch.ones(2, 1, 2, dtype=torch.bool))
    torch.testing.assert_close(score, torch.tensor([[math.sqrt((9 + 16) / 2), 1.0]]))


def test_masked_means_on_numbers():
    x = torch.arange(9.0).view(1, 3, 3)
    seen = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    expected = [[(0 + 1 + 3) / 3, (0 + 1 + 2 + 3 + 5) / 5, (1 + 2 + 5) / 3], [1.0 + 1 / 3, 11 / 5, 8 / 3], [3.0, 4.0, 5.0]]
    torch.testing.assert_close(masked_mean(x, seen, 3)[0], torch.tensor(expected))
    assert not masked_mean(x, torch.zeros(3, 3, dtype=torch.bool), 3).any()


def test_low_frequency_haze_is_no_change():
    x, valid = pair((200, 200), noise=0.01)
    haze = torch.linspace(0, 3, 200)[None, :] + torch.linspace(0, 2, 200)[:, None]
    x[1] += haze
    inner = slice(60, 140), slice(60, 140)
    assert float(PlainChangeVector().score(x, valid)[inner].median()) > 1
    assert float(ChangeVector().score(x, valid)[inner].max()) < 0.1


def test_scores_in_own_deviations_are_comparable_across_sites():
    x, valid = pair()
    rule = ChangeVector(cap=None)
    louder = torch.stack([x[0], x[0] + 5 * (x[1] - x[0])])
    calm, loud = (rule.fit(one, valid).score(one, valid) for one in (x, louder))
    torch.testing.assert_close(calm, loud, rtol=1e-4, atol=1e-5)
    assert float(rule.score(louder, valid).mean()) > 4 * float(rule.score(x, valid).mean())


def test_the_cap_is_on_each_band_s_deviations():
    x, valid = torch.zeros(2, 2, 9, 9), torch.ones(2, 9, 9, dtype=torch.bool)
    x[1, 0, 4, 4] = 100.0
    rule = ChangeVector(9, 1, (2.0, 1.0), 4.0)
    assert float(rule.score(x, valid)[4, 4]) == pytest.approx(math.sqrt(4.0**2 / 2))
    free = ChangeVector(9, 1, (2.0, 1.0), None)
    assert float(free.score(x, valid)[4, 4]) == pytest.approx(50 * (1 - 1 / 81) / math.sqrt(2))


def test_a_band_without_differences_stays_zero():
    x, valid = pair()
    x[1, 2] = x[0, 2]
    assert ChangeVector().fit(x, valid).spread_C[2] == 1.0
    assert ChangeVector().fit(x, torch.zeros_like(valid)).spread_C == (1.0, 1.0, 1.0)


def test_even_widths_have_no_centre():
    with pytest.raises(ValueError, match="expected odd widths, got 60 and 5"):
        ChangeVector(60)


# ---------------------------------------------------------------- IR-MAD, Otsu


def test_ir_mad_is_invariant_to_gain_and_offset():
    x, valid = pair()
    other = x.clone()
    mix = torch.tensor([[2.0, 0.3, 0.0], [0.0, -1.5, 0.4], [0.2, 0.0, 3.0]])
    other[1] = torch.einsum("ij,jhw->ihw", mix, x[1]) + torch.tensor([5.0, -2.0, 100.0])[:, None, None]
    torch.testing.assert_close(IrMad().score(other, valid), IrMad().score(x, valid), rtol=1e-3, atol=1e-3)


def test_without_change_the_score_is_chi_square():
    x, valid = pair((300, 300))
    score = IrMad(rounds=0).score(x, valid).numpy().ravel()
    assert np.mean(score > chi_square_threshold(3, 0.05)) == pytest.approx(0.05, abs=0.005)
    assert score.mean() == pytest.approx(3, rel=0.03)
    assert chi_square_threshold(3, 0.05) == pytest.approx(7.815, abs=1e-3)


def test_reweighting_finds_the_unchanged_relation_despite_much_change():
    x, valid = pair((100, 100), noise=0.1)
    x[1, :, :40] = torch.randn(3, 40, 100, generator=torch.Generator().manual_seed(5))
    once, often = (IrMad(rounds=r).fit(x, valid) for r in (0, 30))
    assert (once.rho_C < 0.8).all()
    assert (often.rho_C > 0.98).all()
    score = often.score(x, valid)
    assert (
        score[45:] < chi_square_threshold(3, 0.001)
    ).float().mean() > 0.9  # reweighting suppresses the tails: the variance is underestimated
    assert (score[:40] > chi_square_threshold(3, 0.001)).float().mean() > 0.9


def test_chi_square_probability_is_scipy_s():
    values = torch.tensor([0.1, 1.0, 5.0, 30.0], dtype=torch.float64)
    np.testing.assert_allclose(unchanged_probability(values, 4), chi2.sf(values.numpy(), 4), rtol=1e-9)


def test_ir_mad_needs_pixels():
    x, valid = pair((5, 5), bands=6)
    with pytest.raises(ValueError, match="25 pixels are valid twice, IR-MAD with 6 bands needs 26"):
        IrMad().fit(x, valid)


def test_ir_mad_ignores_a_constant_band():
    x, valid = pair()
    x[:, 1] = 4.0
    assert torch.isfinite(IrMad().score(x, valid)).all()


def test_otsu_separates_two_modes_and_is_infinite_for_one_value():
    score = torch.cat([torch.full((50,), 1.0), torch.full((50,), 9.0), torch.tensor([torch.nan])])
    assert 1.0 <= otsu_threshold(score) < 9.0
    assert otsu_threshold(torch.full((4,), 2.0)) == math.inf
    assert otsu_threshold(torch.tensor([torch.nan])) == math.inf
