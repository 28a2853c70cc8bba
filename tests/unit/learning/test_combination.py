"""The mean of several forecasts: what it forecasts, when it is a candidate, when it is published, and how it is told."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from tiny_forecaster import Constant, truth_window

from pipelines.learning.choice import choose, choose_members, tally_errors
from pipelines.learning.conformal import forecast_by_all
from pipelines.learning.evaluation import EvaluationSettings, evaluate
from pipelines.learning.intervals import Interval
from pipelines.learning.result import equal_text
from pipelines.learning.verification import Rules, Scored, Target, rows_by_date, standing
from pipelines.predictors import Combination, InSpace

WINS = Interval(0.1, 0.05, 0.15, "dates", 25, independent=11.0)
FAILS = Interval(-0.1, -0.2, -0.05, "dates", 25, independent=11.0)
UNSURE = Interval(0.1, -0.05, 0.25, "dates", 25, independent=11.0)


class Reaching(Constant):
    """Reaches `halo` pixels, starts at multiples of `stride`, takes covariates, and counts how often it is asked."""

    def __init__(self, value: float, halo: tuple[int, int] | None = (2, 2), stride: int = 1, uses_covariates: bool = False):
        super().__init__(value)
        self.halo, self.stride_px, self.uses_covariates, self.asked = halo, (stride, stride), uses_covariates, 0

    def halo_px(self, steps: int) -> tuple[int, int] | None:
        return self.halo

    def forecast(self, *arguments, covariates: Mapping[str, torch.Tensor] | None = None, **named):  # type: ignore[no-untyped-def]
        self.asked += 1
        rain = covariates["rain"] if covariates else 0.0
        return super().forecast(*arguments, **named) + rain


def window():  # type: ignore[no-untyped-def]
    return truth_window(np.zeros((2, 1, 4, 4)), [0.0, 1.0])


def test_it_is_the_mean_of_its_members_and_reaches_as_far_as_they_do() -> None:
    one, two = Reaching(1.0, (2, 8), stride=4), Reaching(4.0, (5, 3), stride=6, uses_covariates=True)
    both = Combination({"one": one, "two": two})
    found = both.forecast(**window().arguments(), covariates={"rain": torch.tensor(2.0)})
    assert found.shape == (2, 1, 4, 4)
    assert torch.all(found == (1.0 + 4.0 + 2.0) / 2)
    assert (both.stride_px, both.halo_px(6), both.uses_covariates) == ((12, 12), (5, 8), True)
    assert Combination({"one": one, "far": Reaching(0.0, None)}).halo_px(6) is None
    in_volumes = Combination({name: InSpace(member, 3) for name, member in both.members.items()})
    assert (in_volumes.stride_px, in_volumes.halo_px(6)) == ((12, 12, 12), (5, 5, 5))


def test_beside_its_members_it_asks_none_of_them_again() -> None:
    members = {"one": Reaching(1.0), "two": Reaching(4.0)}
    found = forecast_by_all({"combination": Combination(members), **members}, window())
    assert [float(y.max()) for y in found.values()] == [2.5, 1.0, 4.0]
    assert [one.asked for one in members.values()] == [1, 1]
    alone = forecast_by_all({"combination": Combination(members), "one": Constant(9.0)}, window())
    assert float(alone["combination"].max()) == 2.5, "another forecaster of a member's name is not taken for it"


def test_equals_are_combined_and_a_bad_method_is_not() -> None:
    errors = {"model": 0.100, "gradient_boosting": 0.103, "climatology": 0.108, "boosting_without_covariates": 0.100}
    assert choose_members(errors, 25) == ("model", "gradient_boosting", "climatology")
    assert choose_members(errors, 100) == ("model", "gradient_boosting"), "more dates tell more"
    assert choose_members({"model": 0.1, "gradient_boosting": 0.13, "climatology": 0.15}, 2) == ()
    assert choose_members({"model": 0.1, "persistence": 0.1}, 25) == (), "with one baseline it is one of the two"
    moving = {"model": 0.1, "moving_field": 0.104, "persistence": 0.2}
    assert choose_members(moving, 25, corrected="persistence") == ("model", "moving_field")
    assert choose_members(moving, 25, corrected="moving_field") == (), "the mean would be half of the network's correction"
    assert choose_members(moving, 25, {"optical_flow": "moving_field"}, corrected="optical_flow") == ()
    without = {"model": 0.2, "gradient_boosting": 0.105, "persistence": 0.1}
    assert choose_members(without, 25, corrected="persistence") == ("gradient_boosting", "persistence")


def test_methods_that_forecast_the_same_count_once_as_the_simplest() -> None:
    same = {"model": 0.5, "gradient_boosting": 0.5009, "climatology": 0.5, "boosting_without_covariates": 0.5}
    found = tally_errors({name: Constant(value) for name, value in {**same, "persistence": 0.51}.items()}, [window()])
    assert found.equal == {"gradient_boosting": "climatology", "model": "climatology"}, "they differ by 0.2 % of their error"
    errors = {**same, "persistence": 0.51, "harmonic": 0.51}
    assert choose_members(errors, 25, found.equal) == ("climatology", "persistence", "harmonic")
    assert choose_members({**same, "persistence": 0.51}, 25, found.equal) == (), "two methods are too few to choose from"
    said = "climatology, gradient_boosting and network forecast the same: a combination counts climatology alone."
    assert equal_text(found.equal) == f"On the validation part {said}"


BOTH = ("model", "climatology")


@pytest.mark.parametrize(
    ("publish", "combination", "members", "network_on_test", "on_test", "published"),
    [
        ("best", 0.90, BOTH, WINS, WINS, "combination"),
        ("best", 0.97, BOTH, WINS, UNSURE, "combination"),  # a single method is better on so few dates, which says nothing
        ("best", 0.90, BOTH, WINS, FAILS, "model"),  # the test part may take it back
        ("best", 0.90, BOTH, FAILS, FAILS, "climatology"),
        ("network", 0.90, BOTH, FAILS, WINS, "model"),
        ("beyond_doubt", 0.90, BOTH, WINS, WINS, "combination"),
        ("beyond_doubt", 0.90, BOTH, WINS, UNSURE, "model"),
        ("beyond_doubt", 0.90, BOTH, UNSURE, UNSURE, "climatology"),
        ("beyond_doubt", 0.90, ("climatology", "harmonic"), UNSURE, WINS, "climatology"),  # the network has no part in it
    ],
)
def test_when_it_is_published(
    publish: str, combination: float, members: tuple[str, ...], network_on_test: Interval, on_test: Interval, published: str
) -> None:
    errors = {"model": 0.95, "climatology": 1.0, "harmonic": 1.02, "combination": combination}
    skills = {"model": dict.fromkeys(("climatology", "harmonic"), network_on_test)}
    skills["combination"] = dict.fromkeys(("climatology", "harmonic", "model"), on_test)
    choice = choose(errors, skills, "model", publish, 0.01, members)  # type: ignore[arg-type]
    assert (choice.published, choice.baseline, choice.members) == (published, "climatology", members)
    assert choice.reason


def test_the_evaluation_compares_it_with_every_baseline_and_says_what_it_is_the_mean_of() -> None:
    rng = np.random.default_rng(0)
    windows = [truth_window(rng.normal(size=(2, 1, 8, 8)), [10.0 * d, 10.0 * d + 1]) for d in range(20)]
    members = {"model": Constant(0.8), "climatology": Constant(-0.8)}
    methods = {**members, "persistence": Constant(3.0), "combination": Combination(members)}
    validation = {"model": 0.5, "climatology": 0.6, "persistence": 1.0, "combination": 0.4}
    found = evaluate(methods, windows, EvaluationSettings(variables=("ndvi",)), validation=validation)
    assert (found.shipped, found.verdict.published, found.verdict.best_baseline) == ("combination", "combination", "climatology")
    assert list(found.details["skill"]) == ["climatology", "persistence"]
    assert list(found.details["combined_skill"]) == ["model", "climatology", "persistence"]
    assert found.details["choice"]["members"] == BOTH
    assert found.verdict.outcomes == {"climatology": "beats", "persistence": "beats"}
    assert found.verdict.sentence.startswith(
        "Published is the combination, the mean of network and climatology: on the validation part its error is 20.0 % smaller "
        "than that of the best single method, the network. On the test part: the combination's error is "
    )
    assert "the combination beats it" in found.verdict.sentence
    (criterion,) = found.criteria
    assert criterion.name == "error of combination over that of the best baseline on the test part, climatology"
    assert criterion.is_met


def test_once_it_is_worse_than_its_baseline_it_loses_and_no_other_pair_counts() -> None:
    rules = Rules("combination of network and harmonic", np.datetime64("2020-01-01"), dates=8, confidence=0.95, margin=0.01)

    def scored(month: int, ours: str, error: float, *, gave_way: bool = False) -> Scored:
        date, rows = f"2020-{month:02d}-01T00:00:00Z", {ours: 100 * error, "climatology": 100.0 + month % 2}
        sums = {name: {"ndvi": [100.0, absolute, 0.0, 90.0, 0.0, 0.0]} for name, absolute in rows.items()}
        target = Target(1, date, date, "", sums)
        method, rival = ("climatology", ours) if gave_way else (ours, "climatology")
        return Scored(f"2019-{month:02d}-20T00:00:00Z", date, method, rival, "a", 0.9, ("ndvi",), (target,))

    others = [scored(month, name, 0.5) for month in range(1, 9) for name in ("model", "combination of network and persistence")]
    assert standing(others, "a", rules) is None
    ours = [scored(month, rules.network, 1.2, gave_way=month > 4) for month in range(1, 9)]
    found = standing([*others, *ours], "a", rules)
    assert found is not None
    assert (found.loses, found.baseline) == (True, "climatology")
    assert found.sentence(0.95).startswith("Over the last 8 target dates the combination's error was 19.4 % larger than that of ")
    row = rows_by_date(ours[-1:], "model", rules.since)[0]
    assert (row["network"], row["baseline"], row["published"]) == (1.2, 1.0, "climatology")
