"""`evaluation.probabilities` and `prediction.members`: what they cannot mean."""

from typing import Any

import pytest

from configs.tasks.forecast import EvaluationConfig, PredictionConfig, SamplesConfig

RAIN = {"name": "rain", "bands": ["v"], "transform": "log1p", "valid_range": [0, 100]}


def keys_of(section: Any, **sections: Any) -> list[str]:
    return [".".join(map(str, finding.key)) for finding in section.check(sections)]


@pytest.mark.parametrize(("variable", "thresholds", "wrong"), [
    (RAIN, [0.5, 2, 5], []),
    (RAIN, [1200], []),
    (RAIN, [1201], ["evaluation.thresholds.0"]),
    (RAIN, [0, 2], ["evaluation.thresholds.0"]),
    (RAIN | {"valid_range": None}, [-1, 2000], ["evaluation.thresholds.0"]),
    (RAIN | {"valid_range": None, "transform": "none"}, [-1, 2000], []),
    (RAIN, [], ["evaluation.probabilities"]),
    (RAIN, [5, 2], ["evaluation.thresholds"]),
    (RAIN, [2, 2], ["evaluation.thresholds"]),
])  # fmt: skip
def test_thresholds_of_probabilities_rise_and_lie_within_the_range(
    variable: dict[str, Any], thresholds: list[float], wrong: list[str]
) -> None:
    samples = SamplesConfig.model_validate({"variables": [variable]})
    evaluation = EvaluationConfig(probabilities=True, thresholds=thresholds, threshold_scale=12)
    assert keys_of(evaluation, samples=samples) == wrong
    assert keys_of(EvaluationConfig(thresholds=thresholds), samples=samples) == []  # as before


def test_members_need_probabilities_and_nothing_is_written_out_without() -> None:
    members = PredictionConfig(members=12)
    assert keys_of(members, evaluation=EvaluationConfig()) == ["prediction.members"]
    assert keys_of(members, evaluation=EvaluationConfig(probabilities=True, thresholds=[1])) == []
    assert "probabilities" not in EvaluationConfig().model_dump()
    assert "members" not in PredictionConfig().model_dump()
