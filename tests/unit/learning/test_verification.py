"""When a network gives way to its baseline, from sums by target date."""

import numpy as np
import pytest

from pipelines.learning.verification import Rules, Scored, Target, dated_errors, rows_by_date, standing

RULES = Rules("model", np.datetime64("2020-01-01"), dates=8, confidence=0.95, margin=0.01)


def scored(month: int, network: float, *, method: str = "model", model_hash: str = "a", year: int = 2020) -> Scored:
    """A forecast of one date, 100 pixels; `network`: its mean absolute error, that of climatology is 1."""
    date = f"{year}-{month:02d}-01T00:00:00Z"
    sums = {"model": [100, 100 * network, 0, 90, 0, 0], "climatology": [100, 100 + month % 2 / 10, 0, 80, 0, 0]}
    target = Target(1, date, date, "", {name: {"ndvi": list(map(float, row))} for name, row in sums.items()})
    rival = "climatology" if method == "model" else "model"
    return Scored(f"{year - 1}-{month:02d}-20T00:00:00Z", date, method, rival, model_hash, 0.9, ("ndvi",), (target,))


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [([1.2] * 10, "loses"), ([0.8] * 10, "beats"), ([1.0] * 10, "equal"), ([1.5, 0.5] * 5, "not distinguishable"),
     ([0.5] * 2 + [1.2] * 8, "loses"), ([1.2] * 2 + [1.0] * 8, "equal")],
)  # fmt: skip
def test_only_the_newest_dates_count(errors: list[float], outcome: str) -> None:
    found = standing([scored(month, error) for month, error in enumerate(errors, start=1)], "a", RULES)
    assert found is not None
    assert (found.outcome, found.skill.count, found.first_utc[:7]) == (outcome, 8, "2020-03")
    assert found.loses == (outcome == "loses")


def test_a_baseline_in_the_networks_place_keeps_the_comparison() -> None:
    mixed = [scored(month, 1.2, method="model" if month < 4 else "climatology") for month in range(1, 9)]
    found = standing(mixed, "a", RULES)
    assert found is not None
    assert found.outcome == "loses"
    assert found.sentence(0.95).startswith("Over the last 8 target dates the network's error was 19.9 % larger than that of clim")
    assert [row["published"] for row in rows_by_date(mixed, "model", RULES.since)] == ["model"] * 3 + ["climatology"] * 5


def test_other_networks_earlier_time_and_few_dates_decide_nothing() -> None:
    enough = [scored(month, 1.2) for month in range(1, 7)]
    assert standing(enough, "a", RULES) is not None
    assert standing(enough[:5], "a", RULES) is None
    assert standing(enough, "b", RULES) is None
    assert standing([scored(month, 1.2, year=2019) for month in range(1, 7)], "a", RULES) is None


def test_a_forecast_made_again_counts_once_and_several_variables_by_their_spread() -> None:
    first, again = scored(1, 1.0), scored(1, 9.0)
    again = Scored(**{**vars(again), "archived_utc": "2021-01-01T00:00:00Z"})
    assert rows_by_date([again, first], "model", RULES.since)[0]["network"] == pytest.approx(1.0)
    sums = {"a": [4.0, 4.0, 0, 4, 0, 16.0], "b": [4.0, 40.0, 0, 4, 0, 1600.0]}  # spreads 2 and 20
    target = Target(1, "", "2020-01-01T00:00:00Z", "", {"model": sums})
    two = Scored("2019-12-01T00:00:00Z", "", "model", "", "a", 0.9, ("a", "b"), (target,))
    errors = dated_errors([(two, target)], "model")
    assert (errors.network_D[0], errors.pixels_D[0], errors.inside_D[0]) == (4.0, 8.0, 8.0)
    assert np.isnan(errors.baseline_D[0]), "without a rival"
