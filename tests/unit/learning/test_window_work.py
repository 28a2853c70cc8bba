"""What tallies are told of windows does not depend on who answers them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from deadly_forecaster import Deadly
from tiny_forecaster import Constant, truth_window

from models.baselines.pointwise import Climatology, Persistence
from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError, StateError
from pipelines.learning.choice import ErrorSums
from pipelines.learning.error_fields import FieldTally
from pipelines.learning.evaluation import EvaluationSettings, MethodErrors, evaluate
from pipelines.learning.forecast_intervals import Calibrated, calibrate
from pipelines.learning.interval_scores import IntervalTally
from pipelines.learning.neighbourhood import Neighbourhood
from pipelines.learning.past_errors import Errors, ErrorsTally
from pipelines.learning.probability_scores import ProbabilityTally
from pipelines.learning.threshold_scores import Thresholds, ThresholdTally
from pipelines.learning.window_work import Pass, WindowTally, tell_all
from pipelines.predictors import Combination
from pipelines.samples.cache import build_samples
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.sampling import SampleCache, StoredCube
from pipelines.samples.stored_windows import reader_of
from pipelines.samples.variables import Variable
from pipelines.samples.windows import plan_windows

KINDS = [
    Compute(workers=3),
    Compute("processes", workers=2),
    pytest.param(Compute("dask", workers=2), marks=pytest.mark.exhaustive),
]
VARIABLES = Variable("red", "band", ("red",)), Variable("nir", "band", ("nir",))
PIXELS = 60  # of a frame of up to 300: random ones are drawn


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    """Two bands, a tenth of the pixels invalid."""
    rng, shape = np.random.default_rng(0), (60, 62)
    image = rng.integers(1, 10_000, (44, 2, *shape)).astype(np.uint16)
    valid = rng.random((44, *shape)) > 0.1
    times = (np.datetime64("2015-01") + np.arange(44)).astype("datetime64[ns]")
    coords = {"time": times, "band": ["red", "nir"]}
    cube = xr.Dataset({"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)}, coords=coords)
    cube["image"].attrs["bands"] = json.dumps(
        [{"name": name, "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": ""} for name in coords["band"]]
    )
    return cube


@pytest.fixture(scope="module")
def cache(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> SampleCache:
    """Windows of two variables in blocks of 16 and fewer pixels."""
    split = Split(16, 1, np.datetime64("2017-01-01"), np.datetime64("2017-10-01"))
    plan = plan_windows(cube["time"].values, (60, 62), split, Sampling(), context=3, horizon=2)
    return build_samples(cube, "snapshot", tmp_path_factory.mktemp("samples"), plan, VARIABLES)


def methods_of(cache: SampleCache, folder: Path) -> dict:
    usual, last = Climatology().fit(list(cache.windows("train"))[:20]), Persistence()
    both = Combination({"climatology": usual, "persistence": last})
    return {"model": Deadly(folder), "combination": both, "climatology": usual, "persistence": last}


def passes_over(cache: SampleCache, methods: dict) -> list[Pass]:
    """All tallies of an evaluation, over all parts."""
    parts = {part: cache.windows(part) for part in ("train", "validation", "test")}
    thresholds, around = Thresholds((0.3, 0.6)), Neighbourhood((0.3, 0.6))
    how = {"pixels_per_frame": PIXELS, "with_distribution": True, "others": [around]}
    intervals: dict[str, Calibrated] = calibrate(methods, ["climatology"], parts["train"], parts["validation"], **how)
    distributions = {name: one.distribution for name, one in intervals.items() if one.distribution}
    rng = np.random.default_rng(3)
    usual = {"climatology": methods["climatology"]}
    on_validation = [
        ErrorSums(),
        Neighbourhood((0.5,)),
        ErrorsTally({name: Errors() for name in methods}, PIXELS, rng),
    ]
    on_test = [
        MethodErrors(methods),
        IntervalTally(intervals, "model", pixels_per_frame=PIXELS),
        ThresholdTally(thresholds),
        ProbabilityTally(distributions, thresholds, around),
    ]
    fields = FieldTally(distributions["climatology"])
    return [
        Pass(methods, parts["validation"], on_validation),
        Pass(usual, parts["train"], [ErrorsTally({"climatology": Errors()}, PIXELS, rng)], most=40),
        Pass(methods, parts["test"], on_test),
        Pass({FieldTally.method: methods["climatology"]}, parts["validation"], [fields], most=10),
    ]


def content(value: object) -> object:
    """All that a tally holds, with the state of its generator, as plain values: floats as they are."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, dict):
        return {str(sorted(key) if isinstance(key, frozenset) else key): content(one) for key, one in value.items()}
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [content(one) for one in value]
    return content(vars(value)) if hasattr(value, "__dict__") else value


def told(passes: list[Pass]) -> list[object]:
    found = [content(tally) for one in passes for tally in one.tallies]
    for tally in found:
        assert isinstance(tally, dict)
        tally.pop("_range_of_tile", None)  # kept by whoever measures
    return found


@pytest.mark.slow
@pytest.mark.parametrize("compute", KINDS, ids=lambda compute: compute.kind)
def test_whoever_answers_the_windows_the_tallies_are_the_same(
    cache: SampleCache, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a worker is lost."""
    torch.set_num_threads(1)
    monkeypatch.setattr("pipelines.learning.window_work.LITTLE_S", 0)
    methods = methods_of(cache, tmp_path)
    here, there, shown = passes_over(cache, methods), passes_over(cache, methods), []
    tell_all(here)
    if not compute.is_local:
        (tmp_path / "kill").touch()
    tell_all(there, compute, lambda done, total: shown.append((done, total)))
    assert not (tmp_path / "kill").exists()
    assert told(there) == told(here)
    counts = [sum(1 for _ in one.read()) for one in here]
    assert counts[0] > 20
    assert counts[1] < len(cache.windows("train"))
    assert shown[-1][0] == sum(counts)


def test_a_tally_draws_what_it_measures_with(cache: SampleCache, tmp_path: Path) -> None:
    """Else a piece would begin with other random numbers than those of a run that is not divided."""
    methods = methods_of(cache, tmp_path)
    drawing = 0
    for measuring, passing in zip(passes_over(cache, methods), passes_over(cache, methods), strict=True):
        tell_all([measuring])
        for told_of, tally in zip(measuring.tallies, passing.tallies, strict=True):
            before = content(tally.rng)
            for window in passing.read():
                tally.draw(window, list(passing.forecasters))
            assert content(tally.rng) == content(told_of.rng)
            drawing += content(tally.rng) != before
    assert drawing == 5


def test_an_error_says_at_which_windows_it_happened(cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.learning.window_work.WINDOWS_OF_PIECE", 4)
    bad, settings = {"model": Constant(float("nan"))}, EvaluationSettings(variables=("red", "nir"))
    with pytest.raises(StateError, match=r"model forecast .* not finite") as caught:
        evaluate(bad, cache.windows("test"), settings, validation={"model": 1.0}, compute=Compute(workers=2))
    assert caught.value.__notes__[0].startswith("at test windows ")


def test_workers_that_do_not_see_the_windows_say_so(cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = cache.windows("test")
    monkeypatch.setattr(Path, "is_file", lambda path: path.name != "valid.npy")
    with pytest.raises(RequestError, match=r"this worker does not see .*valid\.npy: keep the run's folder"):
        tell_all([Pass({"one": Constant(1.0)}, windows, [ErrorSums()])], Compute(workers=2))


def test_windows_that_are_decoded_again_are_those_of_the_cache(
    cube: xr.Dataset, cache: SampleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a worker sees the cube, and not the run's folder."""
    monkeypatch.setattr("pipelines.samples.stored_windows.open_cube", lambda uri, snapshot: cube if uri == "there" else None)
    windows = replace(cache, cube=StoredCube("there", "snapshot", VARIABLES)).windows("validation")
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    some = [0, 1, len(windows) - 1, 5]
    for one, other in zip(reader_of(windows)(some), windows.at(some), strict=True):
        assert (one.tile, one.part) == (other.tile, other.part)
        for name in (*one.arguments(), "target_KCHW", "target_valid_KHW"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_windows_of_no_cache_are_answered_here() -> None:
    class Count(WindowTally):
        seen = 0

        def measure(self, window, forecasts, rng) -> int:
            return len(forecasts)

        def include(self, measured: int) -> None:
            self.seen += measured

    for compute in (HERE, Compute("processes", workers=2)):
        count = Count()
        tell_all([Pass({"one": Constant(1.0)}, [truth_window(np.ones((1, 1, 4, 4)), [0.0])] * 3, [count])], compute)
        assert count.seen == 3
