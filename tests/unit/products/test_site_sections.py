"""What a person reads of labelled change in one sentence."""

from pipelines.learning.result import Evaluation, Verdict
from pipelines.products.site_sections import change_sentence

SITE = {"from_utc": "2018-06-01T00:00:00Z", "to_utc": "2019-06-01T00:00:00Z", "patches": 1, "area_m2": 6400.0}


def evaluation(precision: float | None) -> Evaluation:
    verdict = Verdict({}, (), True, "", "sites", 0.01, 0.95)
    return Evaluation("net", {}, verdict, details={"methods": {"net": {"pooled": {"precision": precision, "recall": 0.5}}}})


def test_the_sentence_says_what_where_when_and_how_sure():
    assert change_sentence("oscd", {"paris": SITE}, evaluation(0.75)) == (
        "In the site paris 1 patch (0.64 ha) has changed between 2018-06-01 and 2019-06-01; on labelled sites that the model had "
        "not seen, 75 % of the pixels that it maps as changed have changed, and it finds 50 % of those that have."
    )
    later = {**SITE, "to_utc": "2020-01-01T00:00:00Z", "patches": 2}
    found = change_sentence("oscd", {"paris": SITE, "rennes": later}, None)
    assert found == "In 2 sites 3 patches (1.28 ha) have changed between 2018-06-01 and 2020-01-01."


def test_a_sentence_without_products_or_figures_says_no_more_than_is_known():
    assert change_sentence("oscd", {}, evaluation(None)) == "No change is published for oscd."
