"""Sentences about patches: what the attributes say, and never surer than the product."""

import itertools
import re

import pytest

from pipelines.learning.result import Criterion, Evaluation, Verdict
from pipelines.products.patch_sentences import (
    NOT_CHECKED,
    Basis,
    Certainty,
    Told,
    certainty_of,
    compared_basis,
    monitored_basis,
    patch_sentence,
    position,
    told_table,
)

BOUNDS = [25.0, 45.0, 26.0, 46.0]
ROW = {
    "id": "20190612-r12-c7", "pixels": 126, "area_m2": 12_600.0, "lon": 25.9, "lat": 45.95, "direction": "decrease",
    "magnitude": -0.316, "confidence": 0.998, "first_date": "2019-06-12T00:00:00Z", "last_date": "2019-07-02T00:00:00Z",
    "detected": "2019-07-12T00:00:00Z", "recovered_px": 4,
}  # fmt: skip
SURER = {  # a word -> the class of certainty that it claims
    "may": 0, "possibl": 0, "appears": Certainty.TESTED, "tested": Certainty.TESTED, "likely": Certainty.LIKELY,
    "probably": Certainty.LIKELY, "very likely": Certainty.VERY_LIKELY, "certain": 9, "sure": 9, "definit": 9, "confirmed": 9,
    "proven": 9, "has changed": 9, "has fallen": 9,
}  # fmt: skip


def evaluation_of(rate: float | None) -> Evaluation:
    criteria = () if rate is None else (Criterion("false alarms per 1000 stable pixels and year", rate, 10.0, "at most"),)
    return Evaluation("harmonic_cusum", {}, Verdict({}, (), True, "", "blocks", 0.0, 0.95), criteria)


def test_a_monitored_patch_is_told_by_its_attributes() -> None:
    told = Told(monitored_basis(evaluation_of(5.31)), BOUNDS, "NDVI")
    assert patch_sentence(ROW, told) == (
        "In the north-east of the map (45.95000° N, 25.90000° E), NDVI appears to have fallen by 0.32 on average on 1.26 ha "
        "(126 pixels), first seen between 2019-06-12 and 2019-07-02, alarm on 2019-07-12; 4 of the pixels are as expected again; "
        "tested, 5.31 false alarms per 1000 stable pixels and year."
    )
    too_many = patch_sentence(ROW, Told(monitored_basis(evaluation_of(30.0)), BOUNDS, "NDVI"))
    assert "NDVI may have fallen" in too_many
    assert too_many.endswith("30 false alarms per 1000 stable pixels and year, more than asked for.")
    for unmeasured in (None, evaluation_of(None)):
        unchecked = patch_sentence(ROW, Told(monitored_basis(unmeasured), BOUNDS, "NDVI"))
        assert "NDVI may have fallen" in unchecked
        assert unchecked.endswith("; not checked.")


@pytest.mark.parametrize(
    ("precision", "is_own", "passed", "most"),
    [
        (0.95, True, True, Certainty.VERY_LIKELY),
        (0.71, True, True, Certainty.LIKELY),
        (0.5, True, True, Certainty.POSSIBLE),
        (0.95, False, True, Certainty.POSSIBLE),
        (0.95, True, False, Certainty.POSSIBLE),
        (None, True, True, Certainty.UNCHECKED),
    ],
)
def test_labelled_change_is_as_sure_as_its_precision(
    precision: float | None, is_own: bool, passed: bool, most: Certainty
) -> None:
    details = {"methods": {"net": {"pooled": {"precision": precision}}}, "note": ""}
    evaluation = Evaluation("net", {}, Verdict({}, (), passed, "", "blocks", 0.0, 0.95), details=details)
    assert compared_basis(evaluation, is_own=is_own).most == most
    assert compared_basis(None, is_own=is_own) == NOT_CHECKED


@pytest.mark.parametrize("precision", [None, 0.3, 0.66, 0.95])
@pytest.mark.parametrize("probability", [None, 0.2, 0.7, 0.99])
@pytest.mark.parametrize("most", list(Certainty))
def test_no_sentence_is_surer_than_its_product(most: Certainty, precision: float | None, probability: float | None) -> None:
    basis = Basis(most, "", "as measured", precision) if most else NOT_CHECKED
    allowed = int(most) if basis.precision is None else min(int(most), int(certainty_of(probability or 0.0)))
    variants = itertools.product(("decrease", "increase", "mixed", "unknown"), ("", "NDVI"), (None, ("2019-01-01", "2020-01-01")))
    for direction, variable, between in variants:
        row = {**ROW, "direction": direction, "probability": probability}
        text = patch_sentence(row, Told(basis, BOUNDS, variable, between=between)).replace("not checked", "")
        claimed = max((int(level) for word, level in SURER.items() if re.search(rf"\b{word}", text)), default=0)
        assert claimed <= allowed, text
        assert "1.26 ha" in text


def test_the_words_of_probabilities_are_those_of_the_guidance_note() -> None:
    assert [certainty_of(p) for p in (0.659, 0.66, 0.899, 0.9)] == [
        Certainty.POSSIBLE, Certainty.LIKELY, Certainty.LIKELY, Certainty.VERY_LIKELY,
    ]  # fmt: skip


def test_places_are_told_across_the_180th_meridian() -> None:
    assert position(-179.5, 0.0, [178.0, -1.0, -179.0, 1.0], "the map") == "in the east of the map"
    assert position(178.5, 0.0, [178.0, -1.0, -179.0, 1.0], "the map") == "in the west of the map"


def test_dates_that_are_not_known_are_not_told() -> None:
    rows = [{**ROW, "site": "a", "first_date": None, "detected": None}]
    table = told_table(rows, {"a": Told(NOT_CHECKED, BOUNDS, between=("", ""), of="a")})
    assert "between the two images, whose dates are not known" in table.rows[0]["sentence"]
    assert "at a time that is not known" in patch_sentence(rows[0], Told(NOT_CHECKED, BOUNDS))
    assert "by rule" in table.note
