"""What is expected or has changed, where, when and how sure, in a sentence without a technical term."""

from dataclasses import replace

import pytest

from pipelines.learning.result import Evaluation, Verdict
from pipelines.products.sentences import Course, change_sentence, scale_notes, summary_sentence

SITE = {"from_utc": "2018-06-01T00:00:00Z", "to_utc": "2019-06-01T00:00:00Z", "patches": 1, "area_m2": 6400.0}
FOREST = Course("NDVI", "", "2020-08-01T00:00:00Z", 0.7101, "2020-10-15T00:00:00Z", 0.6302)


@pytest.mark.parametrize(
    ("course", "mae", "expected"),
    [
        (
            FOREST,
            0.0631,
            "Mean NDVI (forest) is expected to fall from 0.71 to 0.63 between 2020-08-01 and 2020-10-15; "
            "the forecast's mean absolute error on dates and blocks it had not seen is 0.0631.",
        ),
        (replace(FOREST, observed=0.6299), None, "to stay at 0.63 between 2020-08-01 and 2020-10-15; "
         "the forecast's mean absolute error is not measured."),
        (replace(FOREST, observed=None, unit="mm"), 1.0, "Mean NDVI (forest) is expected to be 0.63 mm on 2020-10-15; "),
        (replace(FOREST, observed=None, expected=None), 1.0, "expected to be what the maps show on 2020-10-15; "),
        (Course("rain", "mm", "2010-08-26T04:55:00Z", 0.04, "2010-08-26T05:25:00Z", 0.03), 0.0482,
         "to fall from 0.04 mm to 0.03 mm between 04:55 and 05:25 UTC on 2010-08-26; "
         "the forecast's mean absolute error on dates and blocks it had not seen is 0.0482 mm."),
        (Course("grey", "", "2010-08-26T04:55:00.967Z", 8.0, "2010-08-26T04:55:01.033Z", 8.0), 1.0,
         "to stay at 8 between 04:55:00.967 and 04:55:01.033 UTC on 2010-08-26; "),
        (None, 2.0, "No forecast of forest is published; the model's mean absolute error on dates and blocks it had not "),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_expected_when_and_how_sure(course: Course | None, mae: float | None, expected: str) -> None:
    assert expected in summary_sentence("forest", course, mae, course.unit if course else "")


@pytest.mark.parametrize(
    ("baseline", "scale_K", "expected"),
    [
        (
            "decaying_anomaly",
            [0.0, 0.0],
            ["this forecast is the baseline (decaying_anomaly) itself, as fitted on the training dates"],
        ),
        ("persistence", [0.25, 0.25], ["residual scaling s = 0.25, from the validation windows; on the test windows"]),
        ("none", [1.0], []),
    ],
)
def test_a_note_says_how_much_is_the_network_and_how_much_the_baseline(
    baseline: str, scale_K: list[float], expected: list[str]
) -> None:
    notes = scale_notes(baseline, scale_K, -0.02)
    assert len(notes) == len(expected)
    assert all(text in note for text, note in zip(expected, notes, strict=True))


def evaluation(precision: float | None, note: str = "") -> Evaluation:
    verdict = Verdict({}, (), True, "", "sites", 0.01, 0.95)
    details = {"note": note, "methods": {"net": {"pooled": {"precision": precision, "recall": 0.5}}}}
    return Evaluation("net", {}, verdict, details=details)


def test_the_sentence_says_what_where_when_and_how_sure():
    assert change_sentence("oscd", {"paris": SITE}, evaluation(0.75)) == (
        "In the site paris 1 patch (0.64 ha) is mapped as changed between 2018-06-01 and 2019-06-01; on labelled sites that the "
        "model had not seen, 75 % of the pixels that it maps as changed have changed, and it finds 50 % of those that have."
    )
    strips = change_sentence("oscd", {"paris": SITE}, evaluation(0.75, "one site, cut into strips"))
    assert "; on strips of these sites that the model had not seen, 75 %" in strips
    later = {**SITE, "to_utc": "2020-01-01T00:00:00Z", "patches": 2}
    found = change_sentence("oscd", {"paris": SITE, "rennes": later}, None)
    assert found == "In 2 sites 3 patches (1.28 ha) are mapped as changed between 2018-06-01 and 2020-01-01; not checked."


def test_a_sentence_without_products_or_figures_says_no_more_than_is_known():
    assert change_sentence("oscd", {}, evaluation(None)) == "No change is published for oscd."
