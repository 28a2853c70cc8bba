import pytest
import torch

from models.baselines.pointwise import Climatology, DecayingAnomaly, Persistence
from models.blocks.pixel_history import HALO_PX
from models.checkpoint import FORECASTER
from models.history_forecaster import HistoryForecaster, build_history_forecaster
from models.networks.pixel_history import PixelHistorySettings
from models.residual_forecaster import Scaling

BASELINES = [None, Persistence(), Climatology(), DecayingAnomaly()]
EVERY = pytest.mark.parametrize("baseline", BASELINES, ids=lambda b: type(b).__name__)


def build(baseline, *, moved: bool = True) -> HistoryForecaster:
    scaling = Scaling((0.4, 0.6), (0.3, 0.2), ("log1p", "none"), 16.0)
    made = build_history_forecaster(
        baseline, scaling, context=6, horizon=3, members=2, network=PixelHistorySettings((8,), lags=7, dropout=0.3)
    )
    for member in made.members if moved else ():
        torch.nn.init.normal_(member.head.weight, std=0.5, generator=torch.Generator().manual_seed(5))
    return made


@EVERY
def test_an_untrained_forecaster_equals_its_baseline(baseline, make_window):
    window, made = make_window(), build(baseline, moved=False)
    assert torch.equal(made.forecast(**window.arguments()), made.prepare(**window.arguments())["baseline_KCHW"])


@EVERY
def test_what_may_not_be_known_has_no_effect(baseline, make_window):
    window, made = make_window(), build(baseline)
    prepared = made.prepare(**window.arguments())
    assert all(values.dtype == torch.float32 and torch.isfinite(values).all() for values in prepared.values())
    hidden = ~(window.usable_N[:, None, None] & window.valid_NHW)
    changed = made.forecast(**window.arguments(x_NCHW=torch.where(hidden[:, None], 50.0, window.x_NCHW)))
    torch.testing.assert_close(changed, made.forecast(**window.arguments()), atol=1e-6, rtol=1e-6)


def test_the_lags_are_the_last_valid_values_even_before_the_context(make_window):
    window, made = make_window(cloud=0.5), build(Persistence())
    prepared = made.prepare(**window.arguments())
    issue = int(window.context_T[-1])
    seen = torch.nonzero(window.valid_NHW[: issue + 1, 4, 4]).flatten()[-7:]
    assert int(seen[0]) < int(window.context_T[0])
    wanted = made.normalise(window.x_NCHW[seen])[:, :, 4, 4]
    torch.testing.assert_close(prepared["lags_LFHW"][:, :2, 4, 4], wanted)
    torch.testing.assert_close(prepared["lags_LFHW"][:, -1, 4, 4], torch.log1p(issue - seen.float()))


def test_a_tile_with_its_halo_has_the_values_of_the_whole(make_window):
    window, made = make_window(shape_yx=(24, 20)), build(DecayingAnomaly())
    rows, columns = slice(10 - HALO_PX, 14 + HALO_PX), slice(8 - HALO_PX, 12 + HALO_PX)
    assert made.halo_px(9) == (HALO_PX, HALO_PX)
    tile = {name: getattr(window, name)[..., rows, columns] for name in ("x_NCHW", "valid_NHW")}
    part = made.forecast(**window.arguments(**tile))[..., HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
    torch.testing.assert_close(part, made.forecast(**window.arguments())[..., 10:14, 8:12], atol=1e-5, rtol=1e-5)


def test_other_target_dates_and_volumes(make_window):
    window, made = make_window(), build(Climatology())
    later = torch.cat([window.target_days_K, window.target_days_K[-1:] + 100])
    y = made.forecast(**window.arguments(target_days_K=later))
    torch.testing.assert_close(y[:3], made.forecast(**window.arguments()), atol=1e-6, rtol=1e-6)
    deep = build_history_forecaster(None, Scaling((0.4,), (0.3,), ("none",), 16.0), context=2, horizon=1, axes=3)
    prepared = deep.prepare(
        torch.rand(4, 1, 3, 5, 6), torch.ones(4, 3, 5, 6, dtype=torch.bool), torch.arange(4.0, dtype=torch.float64) * 16,
        torch.tensor([1, 2]), torch.tensor([True, True, True, False]), torch.tensor([48.0], dtype=torch.float64),
    )  # fmt: skip
    assert deep.compute({name: values[None] for name, values in prepared.items()}).shape == (1, 1, 1, 3, 5, 6)


def test_a_saved_forecaster_is_loaded(make_window, tmp_path):
    window, made = make_window(), build(DecayingAnomaly())
    FORECASTER.save(made, tmp_path, {"of": "a test"})
    loaded, metadata = FORECASTER.load(tmp_path)
    assert (type(loaded), metadata) == (HistoryForecaster, {"of": "a test"})
    assert torch.equal(loaded.forecast(**window.arguments()), made.eval().forecast(**window.arguments()))
