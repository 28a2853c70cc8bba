"""Covariates of networks and of gradient boosting: what they are given, that it counts, and that checkpoints say so."""

import json

import pytest
import torch

from models.baselines.boosting_features import features_of
from models.baselines.gradient_boosting import GradientBoosting
from models.baselines.pointwise import ARGUMENTS, DecayingAnomaly, Persistence
from models.checkpoint import rebuild_forecaster
from models.covariates import CovariateScaling
from models.history_forecaster import build_history_forecaster
from models.networks.conv_gru_forecaster import ConvGRUSettings
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.networks.pixel_history import PixelHistorySettings
from models.residual_forecaster import Scaling, build_forecaster

SCALING = CovariateScaling(("elevation",), ("rain", "sun"), ("sun",), (100.0, 5.0, 2.0), (50.0, 2.0, 1.0))
STEPS, TARGETS, SHAPE = 6, 3, (9, 8)


def given(seed: int = 0, space: tuple[int, int] = (1, 1)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "static_SHW": 100 + 50 * torch.randn(1, *SHAPE, generator=generator),
        "past_TDHW": torch.randn(STEPS, 2, *space, generator=generator),
        "future_KEHW": torch.randn(TARGETS, 1, *space, generator=generator),
    }


def build(network=None, covariates=SCALING):
    scaling = Scaling((0.4, 0.6), (0.3, 0.2), ("none", "none"), 16.0)
    network = network or ConvLSTMSettings(hidden=(4,))
    make = build_history_forecaster if isinstance(network, PixelHistorySettings) else build_forecaster
    made = make(Persistence(), scaling, context=STEPS, horizon=TARGETS, network=network, covariates=covariates)
    torch.manual_seed(5)
    for member in made.members:
        torch.nn.init.normal_(member.head.weight, std=0.5)
    return made.eval()


NETWORKS = {
    "convlstm": ConvLSTMSettings(hidden=(4,)),
    "convgru": ConvGRUSettings(hidden=(4,)),
    "history": PixelHistorySettings((4,), 7),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_group_counts_and_a_description_builds_the_same_network(network, make_window):
    window, made = make_window(), build(network)
    y = made.forecast(**window.arguments(), covariates=given())
    for name, values in given(1).items():
        other = made.forecast(**window.arguments(), covariates=given() | {name: values})
        assert not torch.equal(other, y), name
    again = rebuild_forecaster(json.loads(json.dumps(made.describe())))
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.eval().forecast(**window.arguments(), covariates=given()), y)
    without = build(network, None)
    assert "covariates" not in without.describe()
    assert not rebuild_forecaster(without.describe()).uses_covariates


def test_a_tile_with_its_halo_has_the_values_of_the_whole(make_window):
    made, whole = build(), make_window(shape_yx=(40, 8))
    covariates = given(space=(40, 8)) | {"static_SHW": torch.randn(1, 40, 8)}
    y = made.forecast(**whole.arguments(), covariates=covariates)
    halo = made.halo_px(STEPS + TARGETS)[0]
    rows = slice(0, 20 + halo)
    cut = {name: values[..., rows, :] for name, values in covariates.items()}
    arguments = whole.arguments(x_NCHW=whole.x_NCHW[..., rows, :], valid_NHW=whole.valid_NHW[:, rows])
    assert torch.allclose(made.forecast(**arguments, covariates=cut)[..., :20, :], y[..., :20, :], atol=1e-6)


def test_missing_values_are_the_mean_and_marked_and_a_missing_group_is_refused():
    values = given()
    values["past_TDHW"][2, 0] = torch.nan
    inputs = SCALING.standardise(values)
    assert inputs["past_TDHW"].shape == (STEPS, 3, 1, 1)
    assert inputs["past_TDHW"][:, 2].ravel().tolist() == [1, 1, 0, 1, 1, 1]
    assert inputs["past_TDHW"][2, 0] == 0
    assert inputs["static_SHW"][0].mean().abs() < 0.5
    with pytest.raises(ValueError, match="expected 1 channels of covariates in future_KEHW, got the shape None"):
        SCALING.standardise({name: values[name] for name in ("static_SHW", "past_TDHW")})


def test_trees_see_static_layers_lags_and_the_future_of_each_target(make_window):
    window, covariates = make_window(), given()
    arguments = [getattr(window, name) for name in ARGUMENTS]
    rule = DecayingAnomaly()
    for k, (plain, more) in enumerate(
        zip(features_of(arguments, rule, 3), features_of(arguments, rule, 3, covariates), strict=True)
    ):
        added = more.features_FCHW[len(plain.features_FCHW) :, 0]
        assert torch.equal(added[0], covariates["static_SHW"][0])
        assert added[1:4, 0, 0].tolist() == covariates["past_TDHW"][-3:, 0].ravel().tolist()
        assert added[9, 0, 0] == covariates["future_KEHW"][k].item(), "the interval of the target"
        assert torch.isnan(added[10]).all() if k == 0 else added[10, 0, 0] == covariates["future_KEHW"][k - 1].item()


def test_boosting_learns_what_the_weather_does_and_only_if_it_may(make_window):
    windows = []
    for seed in range(40):
        window = make_window(dates=24, channels=1, seed=seed, cloud=0.1)
        window.covariates = given(seed)
        window.target_KCHW = window.target_KCHW + 0.3 * window.covariates["future_KEHW"]
        windows.append(window)
    errors = {}
    for uses in (True, False):
        made = GradientBoosting(iterations=60, uses_covariates=uses).fit(windows[:30])
        y = torch.stack(
            [made.forecast(**one.arguments(), **({"covariates": one.covariates} if uses else {})) for one in windows[30:]]
        )
        truth, valid = (torch.stack([getattr(one, name) for one in windows[30:]]) for name in ("target_KCHW", "target_valid_KHW"))
        errors[uses] = float((y - truth)[:, :, 0][valid].abs().mean())
    assert errors[True] < 0.5 * errors[False]
