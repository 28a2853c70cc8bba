import json

from pipelines.learning.choice import Choice
from pipelines.learning.intervals import Interval
from pipelines.learning.result import Verdict, detection_verdict, forecast_verdict


def skill(value: float, low: float, high: float) -> Interval:
    return Interval(value, low, high, "dates", 25, independent=11.3)


def verdict_on(one: Interval, published: str = "model") -> Verdict:
    choice = Choice(published, "one", "on the validation part it is better", {"model": 0.5, "one": 1.0, "other": 2.0})
    return forecast_verdict(
        {"one": one, "other": skill(0.2, 0.1, 0.3)}, {"one": 1.0, "other": 2.0}, choice, margin=0.01, confidence=0.95
    )


def test_a_smaller_error_that_may_be_chance():
    assert verdict_on(skill(0.03, -0.04, 0.11)).sentence == (
        "Published is the network: on the validation part it is better. On the test part: the network's error is 3.0 % smaller "
        "than that of one (95 % interval -4.0 % to 11.0 %, 25 dates counted as 11 independent ones): not distinguishable. "
        "It beats other (20.0 % smaller error). The best baseline there is one."
    )


def test_a_baseline_is_published_by_name():
    verdict = verdict_on(skill(-0.1, -0.2, -0.05), "one")
    assert (verdict.is_publishable, verdict.published) == (True, "one")
    assert verdict.sentence.startswith("Published is the baseline one: ")


def test_a_tie_is_called_equal():
    tie = verdict_on(skill(1e-9, 1e-10, 2e-9))
    assert tie.outcomes["one"] == "equal"
    assert "within 0.1 % of that of one" in tie.sentence


def test_the_verdict_is_plain_json_with_unit_margin_and_confidence():
    content = json.loads(json.dumps(verdict_on(skill(0.1, 0.05, 0.15)).to_json()))
    assert (content["unit"], content["margin"], content["confidence"], content["best_baseline"]) == ("dates", 0.01, 0.95, "one")


METHODS = {
    name: {"pooled": {"f1": f1, "precision": 0.5, "recall": 0.4}, "f1_interval": Interval(f1, 0.2, 0.6, "sites", 5).to_json()}
    for name, f1 in (("net", 0.412), ("rule", 0.41))
}


def detector_verdict(difference: Interval) -> Verdict:
    return detection_verdict("net", METHODS, {"rule": difference}, ["rule"], margin=0.01, confidence=0.95)


def test_the_sentence_on_a_detector_says_what_was_left_out():
    verdict = detector_verdict(Interval(0.002, -0.011, 0.016, "sites", 5))
    assert verdict.unit == "sites"
    assert verdict.sentence == (
        "net finds change on sites that it has not seen with F1 0.412 (95 % interval 0.200 to 0.600, 5 sites), precision 0.500, "
        "recall 0.400. rule: F1 0.410, difference +0.002 (95 % interval -0.011 to +0.016, 5 sites): not distinguishable. "
        "Not to be published: it must beat rule by at least 0.01 in F1 (evaluation.must_beat). "
        "--even-if-worse publishes it all the same."
    )
    assert verdict.gate.startswith("Not to be published: it must beat rule")


def test_a_detector_on_one_or_two_sites_claims_nothing_of_others():
    blocks = {
        "net": {**METHODS["net"], "f1_interval": Interval(0.4, 0.3, 0.5, "blocks", 96, sites=2).to_json()},
        "rule": METHODS["rule"],
    }
    difference = Interval(0.1, 0.05, 0.2, "blocks", 96, sites=2)
    verdict = detection_verdict("net", blocks, {"rule": difference}, ["rule"], margin=0.01, confidence=0.95, are_strips=True)
    assert verdict.is_publishable
    assert "The intervals hold for these sites only" in verdict.sentence
    assert "not seen" not in verdict.sentence
