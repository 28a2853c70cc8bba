import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_forecaster import Constant, truth_window

from pipelines.errors import RequestError, StateError
from pipelines.learning.conformal import Intervals
from pipelines.learning.evaluation import EvaluationSettings, evaluate
from pipelines.learning.forecast_intervals import Calibrated

SETTINGS = EvaluationSettings(variables=("ndvi",))


def evaluated(forecasters, windows, settings=SETTINGS, progress=None, **options):
    """As `evaluate`, where the network is the best on the validation part."""
    return evaluate(
        forecasters, windows, settings, progress, validation=dict.fromkeys(forecasters, 1.0) | {"model": 0.5}, **options
    )


class Perfect:
    """Knows the truth of every window by its first target day."""

    def __init__(self, windows):
        self.truth = {float(window.target_days_K[0]): window.target_KCHW for window in windows}

    def forecast(self, target_days_K, **_):
        return self.truth[float(target_days_K[0])]


def some_windows(count=6, leads=2, channels=1):
    rng = np.random.default_rng(0)
    return [
        truth_window(rng.normal(size=(leads, channels, 8, 8)), [10.0 * d + k for k in range(leads)], tile=8 * (d % 2))
        for d in range(count)
    ]


def test_a_perfect_forecaster_makes_no_error_and_has_skill_one():
    windows = some_windows()
    found = evaluated({"model": Perfect(windows), "one": Constant(1.0)}, windows, SETTINGS)
    overall = found.details["metrics"]["model"]["overall"]
    assert (overall["mae"], overall["rmse"], overall["bias"], overall["ssim"]) == (0, 0, 0, pytest.approx(1))
    skill = found.details["skill"]["one"]["overall"]
    assert (skill["skill"], skill["low"], skill["high"], skill["dates"], skill["outcome"]) == (1, 1, 1, 12, "beats")
    assert found.verdict.is_publishable
    assert found.details["counts"] == {"windows": 6, "dates": 12, "pixels": 6 * 2 * 64}


def test_of_identical_forecasters_the_baseline_is_published():
    validation = {"model": 1.0, "one": 1.0}
    found = evaluate({"model": Constant(1.0), "one": Constant(1.0)}, some_windows(), SETTINGS, validation=validation)
    skill = found.details["skill"]["one"]["overall"]
    assert skill["skill"] == 0
    assert skill["outcome"] == "equal"
    assert "equal, the difference is immaterial (margin 1 %)" in found.verdict.sentence
    assert (found.shipped, found.verdict.is_publishable) == ("one", True)
    assert found.verdict.sentence.startswith("Published is the baseline one: ")


def test_errors_written_out_by_lead_and_date():
    windows = [
        truth_window(np.array([[[[1.0]]], [[[3.0]]]]), [0.0, 1.0]),
        truth_window(np.array([[[[1.0]]], [[[5.0]]]]), [1.0, 2.0]),
    ]
    found = evaluated({"model": Constant(1.0), "one": Constant(0.0)}, windows, SETTINGS)
    assert [lead["mae"] for lead in found.details["metrics"]["model"]["by_lead"]] == [0.0, 3.0]
    assert [lead["mae"] for lead in found.details["metrics"]["one"]["by_lead"]] == [1.0, 4.0]
    assert found.details["metrics"]["one"]["overall"]["mae"] == 2.5
    assert found.details["metrics"]["one"]["overall"]["bias"] == -2.5
    assert found.details["skill"]["one"]["overall"]["skill"] == pytest.approx(1 - 6 / 10)
    assert found.details["by_date"] == {
        "date": ["1970-01-01T00:00:00", "1970-01-02T00:00:00", "1970-01-03T00:00:00"],
        "pixels": [1, 2, 1],
        "mae": {"model": [0.0, 1.0, 4.0], "one": [1.0, 2.0, 5.0]},
    }


def test_several_variables_are_also_told_one_by_one():
    found = evaluated(
        {"model": Constant(0.0), "one": Constant(1.0)}, some_windows(channels=2), replace(SETTINGS, variables=("a", "b"))
    )
    assert set(found.details["metrics"]["model"]["by_variable"]) == {"a", "b"}
    assert "standard deviations" in found.protocol


def test_it_comes_as_every_task_states_it():
    intervals = Intervals(0.9, ((9.0,),) * 2, ((9.0,),) * 2, 30)
    windows = some_windows()
    of_each = {"model": Calibrated(intervals), "one": Calibrated(intervals)}
    found = evaluated({"model": Constant(0.0), "one": Constant(1.0)}, iter(windows), SETTINGS, intervals=of_each)
    content = json.loads(json.dumps(found.to_json()))
    details = content["details"]
    assert details["intervals"]["overall"]["coverage"] == 1.0
    intervals_of = {"intervals", "intervals_of", "calibration", "calibrations"}
    assert set(details) == {"metrics", "skill", "choice", "by_date", "counts", *intervals_of}
    assert Intervals.from_json(details["calibration"]) == intervals
    assert content["methods"]["one"] == details["metrics"]["one"]["overall"]
    (criterion,) = content["criteria"]
    assert criterion["name"] == "error of network over that of the best baseline on the test part, one"
    assert criterion["is_met"]


@pytest.mark.parametrize(("value", "published"), [(0.5, "model"), (0.999, "one"), (1.5, "one")])
def test_what_is_published_is_no_worse_than_the_best_baseline(value, published):
    """The test part takes back a network that loses there; `beyond_doubt` asks that it beats every baseline."""
    windows, errors = some_windows(20), {"model": 0.5, "one": 1.0}
    settings = replace(SETTINGS, publish="beyond_doubt")
    found = evaluate({"model": Constant(value), "one": Constant(1.0)}, windows, settings, validation=errors)
    assert (found.shipped, found.verdict.published) == (published, published)
    assert all(criterion.is_met for criterion in found.criteria)
    assert found.verdict.is_publishable


def test_the_verdict_names_the_best_baseline_and_every_outcome():
    windows = some_windows(20)
    forecasters = {"model": Constant(0.5), "one": Constant(3.0), "perfect": Perfect(windows), "same": Constant(0.5)}
    verdict = evaluated(forecasters, windows, SETTINGS).verdict
    assert verdict.best_baseline == "perfect"
    assert verdict.outcomes == {"one": "beats", "perfect": "loses", "same": "equal"}
    loses = evaluated({"model": Constant(3.0), "one": Constant(0.5)}, windows, SETTINGS).verdict
    assert loses.outcomes == {"one": "loses"}
    assert "the network loses to it" in loses.sentence


def test_progress_counts_windows():
    seen = []
    evaluated({"model": Constant(0.0), "one": Constant(1.0)}, some_windows(3), SETTINGS, lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_no_valid_target_is_a_mistake_of_the_request():
    cloudy = truth_window(np.zeros((1, 1, 4, 4)), [0.0], np.zeros((1, 4, 4), bool))
    with pytest.raises(RequestError, match="none of the 1 test windows has a valid target pixel"):
        evaluated({"model": Constant(0.0), "one": Constant(1.0)}, [cloudy], SETTINGS)


def test_a_forecast_that_is_not_finite_is_told_with_its_place():
    with pytest.raises(
        StateError, match=r"one forecast 64 values that are not finite, tile r000000-000008_c000000-000008, lead 1 \(1970-01-01\)"
    ):
        evaluated({"model": Constant(0.0), "one": Constant(float("nan"))}, some_windows(1, leads=1), SETTINGS)


def test_forecasts_may_be_arrays():
    class Array(Constant):
        def forecast(self, **arguments):
            return super().forecast(**arguments).numpy()

    found = evaluated({"model": Array(0.0), "one": Constant(0.0)}, some_windows(2), SETTINGS)
    assert found.details["metrics"]["model"] == found.details["metrics"]["one"]
    assert torch.is_grad_enabled()
