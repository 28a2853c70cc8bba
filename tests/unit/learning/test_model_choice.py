"""The search for a network: what wins, what is given up, where it ends."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from pipelines.learning.model_choice import Candidate, Score, Space, Trial, pick, race, search

SPACE = Space(("persistence", "climatology", "none"), (3, 6, 12), (((8,), 3), ((16,), 3), ((32,), 3)), ("convlstm", "convgru"))


def trial(errors: Sequence[float], **changes: object) -> Trial:
    return Trial(replace(Candidate("persistence", 6), **changes), tuple(Score(error, 1.0, 10, 5) for error in errors))  # type: ignore[arg-type]


def attempt_with(error_of: Callable[[Candidate], float]) -> Callable[[Candidate, Trial | None], Trial]:
    """Attempts whose errors are those of `error_of`, a little larger at each older origin."""

    def attempt(candidate: Candidate, leader: Trial | None) -> Trial:
        scores = race(lambda origin: Score(error_of(candidate) * (1 + 0.02 * origin), 1.0, 10, 5), 3, leader)
        return Trial(candidate, scores)

    return attempt


def test_each_property_is_searched_with_what_was_chosen_before() -> None:
    def error_of(one: Candidate) -> float:
        gain = 0.3 * (one.baseline == "climatology") + 0.1 * (one.context == 12) + 0.05 * (one.hidden == (16,))
        return 1.0 - gain - 0.001 * len(one.kind)

    found = search(SPACE, attempt_with(error_of), origins=3, tries=100)
    assert found.chosen == Candidate("climatology", 12, (16,), 3, "convlstm"), "the wider and the other one are no better"
    assert len(found.trials) == SPACE.most() == 8
    assert found.untried == ()
    given_up = {one.candidate.baseline for one in found.trials if len(one.scores) == 1}
    assert "none" in given_up, "30 % behind at the first origin"
    assert "8 candidates at 3 origins" in found.sentence
    assert found.to_json()["trials"][1]["baseline"] == "climatology"


def test_a_limit_ends_the_search_and_names_what_was_not_tried() -> None:
    found = search(SPACE, attempt_with(lambda one: 1 - 0.1 * (one.baseline == "climatology")), origins=3, tries=3)
    assert (found.chosen.baseline, len(found.trials)) == ("climatology", 3)
    assert {one.context for one in found.untried} == {3, 6, 12}.difference({found.chosen.context}) | {found.chosen.context}


@pytest.mark.parametrize(
    ("cheap", "dear", "is_dear"),
    [
        ((0.10, 0.11, 0.10), (0.09, 0.10, 0.09), True),
        ((0.10, 0.11, 0.10), (0.08, 0.12, 0.10), False),  # better in the mean, within the spread
        ((0.10, 0.11, 0.10), (0.0998, 0.1098, 0.0998), False),  # always better, by too little
        ((0.10,), (0.098,), False),  # a single origin has no spread
        ((0.10,), (0.09,), True),
        ((0.10, math.inf), (0.2, 0.2), True),
    ],
)
def test_the_cheaper_one_wins_unless_the_other_is_better_beyond_the_spread(
    cheap: tuple[float, ...], dear: tuple[float, ...], is_dear: bool
) -> None:
    trials = [trial(cheap, hidden=(8,)), trial(dear, hidden=(32,))]
    assert pick(trials, len(cheap), Candidate("none", 1)).hidden == ((32,) if is_dear else (8,))


def test_where_nothing_can_be_scored_the_first_candidate_stays() -> None:
    broken = search(SPACE, lambda one, _: Trial(one, (Score(math.inf, problem="no window"),)), origins=3, tries=20)
    assert broken.chosen == SPACE.first
    assert broken.to_json()["trials"][0]["scores"][0] == {
        "error": None, "cpu_seconds": 0.0, "learnt": 0, "scored": 0, "problem": "no window",
    }  # fmt: skip
