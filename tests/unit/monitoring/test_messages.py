"""The sentence at the top of the summary, for a person who knows none of the terms."""

import pytest

from pipelines.monitoring.messages import summary_sentence

FOUND = {"objects": 45, "area_m2": 129_300.0, "last_date": "2020-09-12T00:00:00Z"}


@pytest.mark.parametrize(
    ("found", "rate", "sentence"),
    [
        (
            FOUND,
            9.3,
            "forest: NDVI has changed in 45 patches (12.9 ha) since 2019-01-01, the latest on 2020-09-12; "
            "where nothing changed, about 9 of 1000 pixels raise a false alarm per year.",
        ),
        ({"objects": 1, "area_m2": 900.0}, None, "forest: NDVI has changed in 1 patch (0.1 ha) since 2019-01-01."),
        (
            {"objects": 0, "area_m2": 0.0},
            0.2,
            "forest: NDVI has not changed in any patch from 2019-01-01 to 2021-01-01; "
            "where nothing changed, fewer than 1 of 1000 pixels raise a false alarm per year.",
        ),
    ],
)
def test_it_says_what_changed_where_when_and_how_sure(found: dict[str, object], rate: float | None, sentence: str) -> None:
    assert summary_sentence("forest", "NDVI", "2019-01-01", "2021-01-01T00:00:00Z", found, rate) == sentence
