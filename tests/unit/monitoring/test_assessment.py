"""What a monitoring run says of itself: few alarms alone are no merit, and what its threshold depends on is noted."""

from pipelines.monitoring.assessment import criteria_of, doubts, flat_figures, seen_of, sentence_of
from pipelines.monitoring.evaluation import EvaluationSettings

SETTINGS = EvaluationSettings(drops=(0.2, 0.4), false_alarms=10.0)


def figures(found: float) -> dict[str, float | None]:
    drops = {
        "0.2": {"found": 0.1, "delay_days": [60.0, 90.0, 95.0]},
        "0.4": {"found": found, "delay_days": [20.0, 30.0, 31.0]},
    }
    return flat_figures({"threshold": 9.0, "false_alarms": {"per_1000_px_year": 0.0}, "drops": drops})


def test_monitoring_that_finds_nothing_does_not_meet_its_criteria() -> None:
    seen = seen_of({"seen_in_images": {"2011": {"pixels": 118, "found": 0.0254}, "2012": {"pixels": 52, "found": 0.0}}})
    insensitive = criteria_of(figures(0.3), SETTINGS, seen)
    assert [criterion.is_met for criterion in insensitive] == [True, False, False]
    assert insensitive[2].value == 3 / 170
    assert [criterion.is_met for criterion in criteria_of(figures(0.99), SETTINGS, {"pixels": 19, "found": 0})] == [True, True]
    assert criteria_of(flat_figures({"threshold": 9.0}), SETTINGS, seen) == (), "nothing was measured"


def test_the_sentence_says_what_the_images_show() -> None:
    seen = seen_of({"seen_in_images": {"2011": {"pixels": 118, "found": 0.0254}, "2012": {"pixels": 0, "found": None}}})
    assert seen == {"pixels": 118, "found": 3}
    assert sentence_of(figures(0.5), [0.2], seen) == (
        "0 false alarms per 1000 stable pixels and year; drops of 0.2: 10 % found, median delay 90 days; "
        "3 of 118 pixels whose change the images show are found."
    )
    assert "drops of 0.4: 99.6 % found" in sentence_of(figures(0.996), [0.4], seen)
    assert "too few stable pixels" in sentence_of({"false_alarms": None}, [0.2], seen)


def test_an_odd_year_and_few_stable_pixels_are_noted() -> None:
    rests_on = {"years": {"2010-04-06": 28.8, "2009-04-06": 8.9, "2008-04-06": 8.0}}
    notes = doubts(rests_on, {"stable_pixels": 149, "monitored_pixels": 999})
    assert "depends on the year from 2010-04-06, which alone reaches 28.8, all others at most 8.9" in notes[0]
    assert "only 149 of 999 pixels look stable" in notes[1]
    assert doubts({"years": {"2010": 11.9, "2009": 6.0}}, {"stable_pixels": 590, "monitored_pixels": 999}) == []
    assert doubts({}, {}) == []
