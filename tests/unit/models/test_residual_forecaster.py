import pytest
import torch

from models.baselines.pointwise import Climatology, DecayingAnomaly, Persistence
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster, last_seen_age
from models.residual_scale import cautious_share, scale_of_least_error

BASELINES = [None, Persistence(), Climatology(), DecayingAnomaly()]
EVERY = pytest.mark.parametrize(
    "baseline", BASELINES, ids=lambda baseline: "none" if baseline is None else type(baseline).__name__
)


def scaling(*transforms: str) -> Scaling:
    channels = len(transforms)
    return Scaling((0.4, 0.6)[:channels], (0.3, 0.2)[:channels], transforms, 16.0)


def build(baseline, transforms=("none", "none"), *, moved: bool = False, members: int = 2, **network):
    made = build_forecaster(
        baseline, scaling(*transforms), context=6, horizon=3, members=members, network=ConvLSTMSettings(hidden=(4,), **network)
    )
    if moved:
        torch.manual_seed(5)
        for member in made.members:
            torch.nn.init.normal_(member.head.weight, std=0.5)
    return made


def batch_of(prepared: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values[None] for name, values in prepared.items()}


@EVERY
@pytest.mark.parametrize("transforms", [("none", "none"), ("log1p", "none"), ("log1p",)])
def test_an_untrained_forecaster_equals_its_baseline(baseline, transforms, make_window):
    window = make_window(channels=len(transforms))
    made = build(baseline, transforms)
    y = made.forecast(**window.arguments())
    assert y.shape == (3, len(transforms), 9, 8)
    assert torch.equal(y, made.prepare(**window.arguments())["baseline_KCHW"])
    if baseline is not None:
        assert torch.equal(y, baseline.forecast(**window.arguments()))
    elif transforms == ("none", "none"):
        assert torch.equal(y[:, 1], torch.full_like(y[:, 1], 0.6))


@EVERY
def test_prepare_gives_finite_float32_and_zeros_where_invalid(baseline, make_window):
    window = make_window()
    prepared = build(baseline, ("log1p", "none")).prepare(**window.arguments())
    for name, values in prepared.items():
        assert values.dtype == torch.float32, name
        assert torch.isfinite(values).all(), name
    assert prepared["valid_THW"][2].sum() == 0, "the third step of the context has no observation"
    assert (prepared["x_TCHW"] * (1 - prepared["valid_THW"])[:, None]).abs().sum() == 0


@EVERY
def test_forecast_is_prepare_then_compute(baseline, make_window):
    window = make_window()
    made = build(baseline, moved=True)
    y = made.forecast(**window.arguments())
    batch = batch_of(made.prepare(**window.arguments()))
    torch.testing.assert_close(made.compute(batch)[0].detach(), y, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(y, batch["baseline_KCHW"][0], atol=1e-3)


@EVERY
def test_unusable_dates_and_invalid_values_are_ignored(baseline, make_window):
    window = make_window()
    made = build(baseline, moved=True)
    hidden = ~(window.usable_N[:, None, None] & window.valid_NHW)
    changed = torch.where(hidden[:, None], 50.0, window.x_NCHW)
    torch.testing.assert_close(
        made.forecast(**window.arguments(x_NCHW=changed)), made.forecast(**window.arguments()), atol=1e-6, rtol=1e-6
    )


def test_the_ensemble_is_the_scaled_mean_of_its_members(make_window):
    made = build(DecayingAnomaly(), moved=True, members=3)
    made.residual_scale_K.copy_(torch.tensor([1.0, 0.5, 0.0]))
    batch = batch_of(made.prepare(**make_window().arguments()))
    baseline = batch["baseline_KCHW"]
    alone = [made.compute_member(m, batch) - baseline for m in range(3)]
    want = baseline + made.residual_scale_K.view(-1, 1, 1, 1) * (alone[0] + alone[1] + alone[2]) / 3
    torch.testing.assert_close(made.compute(batch), want, atol=1e-6, rtol=0)
    assert torch.equal(made.compute(batch)[:, 2], baseline[:, 2])
    assert torch.equal(made.of_leads([2, 9, 2]).compute(batch), baseline)


def test_members_differ_and_keep_the_global_random_state():
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    one, other = build(None).members
    assert torch.equal(torch.rand(1), before)
    assert not torch.equal(one.encoder.cells[0].gates.weight, other.encoder.cells[0].gates.weight)
    assert torch.equal(build(None).members[0].encoder.cells[0].gates.weight, one.encoder.cells[0].gates.weight)


def test_rain_is_never_negative(make_window):
    window = make_window(channels=1)
    made = build(Persistence(), ("log1p",), moved=True)
    for member in made.members:
        torch.nn.init.constant_(member.head.bias, -30.0)
    y = made.forecast(**window.arguments(x_NCHW=window.x_NCHW.clamp(min=0)))
    assert float(y.min()) >= 0


def test_correct_inverts_normalise():
    made = build(None, ("log1p", "none"))
    baseline, truth = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(made.correct(baseline, made.normalise(truth) - made.normalise(baseline)), truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("true_share", "found"), [(0.7, 0.7), (1.8, 1.0), (-0.5, 0.0)])
def test_the_residual_scale_is_least_squares_if_all_dates_agree(make_window, true_share, found):
    made, prepared, residual = residual_of_a_window(make_window)
    prepared["target_KCHW"] = made.correct(prepared["baseline_KCHW"], true_share * residual)
    prepared["target_KCHW"][..., 0, 0] = float("nan")
    prepared["target_valid_KHW"][..., 0, 0] = False
    torch.testing.assert_close(made.fit_residual_scale([prepared, prepared]), torch.full((3,), found), atol=1e-4, rtol=0)


def test_the_residual_scale_is_small_if_dates_disagree(make_window):
    made, prepared, residual = residual_of_a_window(make_window)
    share = torch.tensor([1.6, -0.6, 0.5]).view(-1, 1, 1, 1)
    prepared["target_KCHW"] = made.correct(prepared["baseline_KCHW"], share * residual)
    shrunk = made.fit_residual_scale([prepared])
    assert len(set(shrunk.tolist())) == 1
    assert float(shrunk[0]) < 0.3  # 0.5 on average, but two dates of three disagree


@pytest.mark.parametrize(("true_share", "found"), [(0.7, 0.7), (1.8, 1.0), (-0.5, 0.0)])
def test_the_scale_of_least_error_ignores_a_pixel_that_is_off(make_window, true_share, found):
    made, prepared, residual = residual_of_a_window(make_window)
    prepared["target_KCHW"] = made.correct(prepared["baseline_KCHW"], true_share * residual)
    prepared["target_KCHW"][..., 0, 0] += 50
    assert scale_of_least_error(made, [prepared]) == found


def test_the_cautious_share_by_hand():
    sums = torch.tensor([[2.0, 4.0], [4.0, 4.0]], dtype=torch.float64)  # shares 0.5 and 1: 0.75 together, standard error 0.25
    assert cautious_share(sums) == pytest.approx(0.5)
    assert cautious_share(sums[:1]) == pytest.approx(0.5)


def residual_of_a_window(make_window):
    """(forecaster, its prepared window with every target pixel valid and three dates, its residual)."""
    made = build(DecayingAnomaly(), moved=True)
    prepared = batch_of(made.prepare(**make_window(cloud=0.0).arguments()))
    with torch.no_grad():
        residual = made.residual(prepared)
    prepared["target_valid_KHW"] = torch.ones(1, 3, 9, 8, dtype=torch.bool)
    prepared["target_seconds_K"] = torch.tensor([[10, 20, 30]])
    return made, prepared, residual


def test_without_a_valid_target_the_baseline_is_used_alone(make_window):
    window = make_window()
    made = build(DecayingAnomaly(), moved=True)
    prepared = batch_of(made.prepare(**window.arguments()))
    prepared |= {"target_KCHW": torch.zeros(1, 3, 2, 9, 8), "target_valid_KHW": torch.zeros(1, 3, 9, 8, dtype=torch.bool)}
    prepared["target_seconds_K"] = torch.zeros(1, 3, dtype=torch.int64)
    made.fit_residual_scale([prepared])
    assert torch.equal(made.forecast(**window.arguments()), prepared["baseline_KCHW"][0])


@EVERY
def test_every_parameter_is_trained_after_the_first_step(baseline, make_window):
    made = build(baseline, moved=True, members=1, peepholes=True)
    batch = batch_of(made.prepare(**make_window().arguments()))
    made.compute_member(0, batch).square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_forecast_disables_dropout_and_restores_it(make_window):
    window = make_window()
    made = build(Climatology(), moved=True, dropout=0.5).train()
    assert torch.equal(made.forecast(**window.arguments()), made.forecast(**window.arguments()))
    assert made.training
    assert made.members[0].training


def test_targets_beyond_the_horizon_use_the_last_scale(make_window):
    window = make_window()
    made = build(Climatology(), moved=True)
    made.residual_scale_K.copy_(torch.tensor([1.0, 1.0, 0.0]))
    targets = torch.cat([window.target_days_K, window.target_days_K + 48])
    y = made.forecast(**window.arguments(target_days_K=targets))
    assert y.shape[0] == 6
    assert torch.equal(y[2:], Climatology().forecast(**window.arguments(target_days_K=targets))[2:])
    assert made.halo_px(6 + 6) == tuple(side + 3 for side in made.halo_px(made.context + made.horizon))


def test_time_is_in_usual_steps(make_window):
    months = build(None).prepare(**make_window(step_days=16.0).arguments())
    quick = build_forecaster(None, Scaling((0.4, 0.6), (0.3, 0.2), ("none", "none"), 5 / 1440), context=6, horizon=3)
    minutes = quick.prepare(**make_window(step_days=5 / 1440).arguments())
    for name in ("elapsed_T", "elapsed_K"):
        torch.testing.assert_close(months[name], minutes[name], atol=1e-4, rtol=0)
    assert months["elapsed_T"].tolist() == [0, 1, 1, 1, 1, 1]


def test_age_of_the_last_valid_value():
    valid = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 3)
    age = torch.expm1(last_seen_age(valid, torch.tensor([[0.0, 2.0, 5.0]])))
    torch.testing.assert_close(age.flatten(), torch.tensor([5.0, 7.0, 7.0]))


def test_invalid_scaling_is_refused():
    with pytest.raises(ValueError, match="one value per channel"):
        Scaling((0.0,), (1.0, 1.0), ("none",), 1.0)
    with pytest.raises(ValueError, match=r"'none' or 'log1p', got \['sqrt'\]"):
        Scaling((0.0,), (1.0,), ("sqrt",), 1.0)
    with pytest.raises(ValueError, match="every std must be positive"):
        Scaling((0.0,), (0.0,), ("none",), 1.0)
    with pytest.raises(ValueError, match="step_days must be positive"):
        Scaling((0.0,), (1.0,), ("none",), 0.0)
