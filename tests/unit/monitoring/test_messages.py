"""The sentence at the top of the summary, for a person who knows none of the terms."""

import pytest

from pipelines.learning.result import Criterion
from pipelines.monitoring.messages import Monitored, summary_sentence

FOUND = {"objects": 45, "area_m2": 129_300.0, "pixels_recovered": 386, "last_date": "2020-09-12T00:00:00Z"}
NOTHING = {"objects": 0, "area_m2": 0.0}
SEEN = Criterion("change that the images show found", 5 / 438, 0.5)


def rate(value: float) -> Criterion:
    return Criterion("false alarms per 1000 stable pixels and year", value, 10.0, "at most")


@pytest.mark.parametrize(
    ("found", "share", "criteria", "sentence"),
    [
        (
            FOUND,
            1.0,
            [rate(5.27), Criterion("drops of 0.4 found", 1.0, 0.5)],
            "raised alarms in 45 patches (12.9 ha; 386 of the pixels are as expected again) since 2019-01-01, the latest "
            "change on 2020-09-12; where nothing changed, about 5 of 1000 pixels raise a false alarm per year.",
        ),
        ({"objects": 1, "area_m2": 900.0}, 1.0, [], "raised alarms in 1 patch (0.1 ha) since 2019-01-01."),
        (
            NOTHING,
            0.4,
            [rate(0.2), SEEN],
            "raised no alarm in any patch from 2019-01-01 to 2021-01-01; 60 % of the pixels are not monitored; where nothing "
            "changed, fewer than 1 of 1000 pixels raise a false alarm per year; of the change that the images show "
            "only 1 % was found.",
        ),
        (
            NOTHING,
            1.0,
            [rate(9741.2)],
            "raised no alarm in any patch from 2019-01-01 to 2021-01-01; this cannot be trusted: 9741 false alarms per 1000 "
            "stable pixels and year were measured, at most 10 were requested.",
        ),
    ],
)
def test_it_says_what_changed_where_when_and_how_sure(
    found: dict[str, object], share: float, criteria: list[Criterion], sentence: str
) -> None:
    monitored = Monitored("forest", "NDVI", "2019-01-01", "2021-01-01", share, 12)
    assert summary_sentence(monitored, found, criteria) == f"forest: NDVI {sentence}"


@pytest.mark.parametrize(
    ("until", "share", "why"), [("2021-01-01", 0.0, "no pixel has the 12"), ("2018-01-01", 1.0, "there is no")]
)
def test_where_nothing_is_monitored_it_does_not_say_that_nothing_has_changed(until: str, share: float, why: str) -> None:
    sentence = summary_sentence(Monitored("lm", "ndvi", "2019-01-01", until, share, 12), NOTHING, [])
    assert sentence.startswith(f"lm: nothing can be said about change in ndvi: {why}")
