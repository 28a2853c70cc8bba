"""What a watch says of itself: silence alone is no merit, and what its threshold hangs on is told."""

from types import SimpleNamespace

from flows.stages.monitor_evaluate import doubts, seen_of, sentence_of
from flows.stages.monitor_report import criteria_of

RUN = SimpleNamespace(
    monitoring=SimpleNamespace(test=SimpleNamespace(false_alarms=10.0)), evaluation=SimpleNamespace(drops=[0.2, 0.4])
)


def evaluation(found: float, seen: dict[str, dict[str, float]]) -> dict:
    figures = {"false_alarms": 0.0, "found_0.2": 0.1, "delay_0.2": 90.0, "found_0.4": found, "delay_0.4": 30.0}
    return {"shipped": "a", "methods": {"a": figures}, "details": {"methods": {"a": {"seen_in_images": seen}}}}


def test_a_watch_that_finds_nothing_does_not_meet_its_marks() -> None:
    insensitive = criteria_of(
        RUN, evaluation(0.3, {"2011": {"pixels": 118, "found": 0.0254}, "2012": {"pixels": 52, "found": 0.0}})
    )
    assert [criterion.is_met for criterion in insensitive] == [True, False, False]
    assert insensitive[2].value == 3 / 170
    assert [criterion.is_met for criterion in criteria_of(RUN, evaluation(0.99, {"2011": {"pixels": 19, "found": 0.0}}))] == [
        True,
        True,
    ]


def test_the_sentence_tells_what_the_images_show() -> None:
    scores = {"seen_in_images": {"2011": {"pixels": 118, "found": 0.0254}, "2012": {"pixels": 0, "found": None}}}
    figures = evaluation(0.5, {})["methods"]["a"]
    assert seen_of(scores) == {"pixels": 118, "found": 3}
    assert sentence_of(figures, [0.2], seen_of(scores)) == (
        "0 false alarms per 1000 stable pixels and year; drops of 0.2: 10% found, median delay 90 days; "
        "3 of the 118 pixels whose change the images show: found."
    )


def test_an_odd_year_and_few_stable_pixels_are_told() -> None:
    rests_on = {"years": {"2010-04-06": 28.8, "2009-04-06": 8.9, "2008-04-06": 8.0}}
    notes = doubts(rests_on, {"stable_pixels": 149, "monitored_pixels": 999})
    assert "hangs on the year from 2010-04-06, which alone reaches 28.8, all others at most 8.9" in notes[0]
    assert "only 149 of 999 pixels look stable" in notes[1]
    assert doubts({"years": {"2010": 11.9, "2009": 6.0}}, {"stable_pixels": 590, "monitored_pixels": 999}) == []
    assert doubts({}, {}) == []
