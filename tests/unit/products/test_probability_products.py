"""Maps of probability and members of an ensemble as files, and what the report says of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution
from pipelines.learning.error_fields import ErrorFields
from pipelines.learning.threshold_scores import Thresholds
from pipelines.products.probability_products import Chances, draw_chances, write_chances
from pipelines.products.probability_section import probability_section

ERRORS = (tuple((PROBABILITIES - 0.5).tolist()),)
CHANCES = Chances(
    ErrorDistribution(((0.0,), (0.0,)), (ERRORS, ERRORS), "none", (-1.0, 3.5)),
    Thresholds((0.0, 30.0), 10.0, "dm"),
    ErrorFields(((0.5, 0.0, 0.5, 0.0, 0.0, 0.0),) * 2, (0.0, 0.5)),
    members=3,
)


def test_each_threshold_and_each_member_is_a_band(make_staged: Any, dates: Any, lineage: Any, tmp_path: Path) -> None:
    staged, grid = make_staged()
    found = write_chances(CHANCES, staged, grid, dates, "ndvi", "1", lineage, tmp_path)
    assert [list(assets) for assets in found] == [["probability", "members"]] * 2
    assert [band["name"] for band in found[0]["probability"]["bands"]] == ["ndvi_ge_0", "ndvi_ge_30"]
    with rasterio.open(tmp_path / found[0]["probability"]["href"]) as raster:
        assert raster.descriptions == ("ndvi_ge_0", "ndvi_ge_30")
        said = raster.read()
    assert np.isnan(said[:, :3, :5]).all()
    y = staged.read(staged.fields[0], slice(None))
    np.testing.assert_allclose(said[0][5:], np.clip(0.5 + y[5:], 0, 1), atol=0.02)
    assert (said[1][5:] == 0).all()
    with rasterio.open(tmp_path / found[1]["members"]["href"]) as raster:
        assert (raster.count, raster.descriptions[0]) == (3, "member_1")
        members = raster.read()
    assert np.isnan(members[:, :3, :5]).all()
    assert np.nanmax(members) <= 3.5
    assert np.abs(members[0] - members[1])[5:].max() > 0.1
    whole = CHANCES.member(staged, staged.fields[3], 0, slice(0, 40))
    parts = [CHANCES.member(staged, staged.fields[3], 0, rows) for rows in (slice(0, 13), slice(13, 40))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(whole, members[0])
    draw_chances(CHANCES, staged, grid, dates, "ndvi", tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000


@pytest.fixture
def scores() -> dict[str, Any]:
    one = {"brier": 0.1, "skill": 0.5, "events": 9}
    method = [{"threshold": 2.0, "overall": {**one, "skill_low": 0.4, "skill_high": None}, "by_lead": [{"lead": 1, **one}]}]
    figures = {"crps": 0.1, "mae": 0.2, "spread_over_error": None}
    curve = [[{"pixels": 99, "said": 0.2, "came": 0.3}, {"pixels": 3, "said": 0.9, "came": 0.0}]]
    return {
        "unit": "mm/h", "scale": 12.0, "thresholds": [2.0], "dates": 9, "neighbourhood_px": [1.0],
        "references": {"frequency": "usual", "neighbourhood": "neighbourhood"},
        "methods": {"neighbourhood": method, "model": method}, "reliability": {"neighbourhood": curve, "model": curve},
        "distributions": {"model": {"overall": figures, "by_lead": [{"lead": 1, **figures}]}}, "ranks": {"model": [0.1] * 10},
    }  # fmt: skip


def test_the_report_shows_scores_beside_references(scores: dict[str, Any], tmp_path: Path) -> None:
    section = probability_section(scores, "model", tmp_path / "quicklook.png", tmp_path)
    drawn = (tmp_path / "probability_reliability.png").read_bytes()
    probability_section({**scores, "ranks": {"model": [0.0] * 9 + [1.0]}}, "model", tmp_path / "quicklook.png", tmp_path)
    assert (tmp_path / "probability_reliability.png").read_bytes() != drawn, "the ranks are drawn"
    assert [table.title for table in section.tables] == [
        "Probability of at least 2 mm/h", "Brier skill of at least 2 mm/h by steps ahead",
        "Distribution around the forecast", "Distribution around network by steps ahead",
    ]  # fmt: skip
    assert [row["method"] for row in section.tables[0].rows] == ["network", "neighbourhood"]
    assert "within 1 pixels by lead" in section.tables[0].note
    assert [picture.path.name for picture in section.pictures] == ["probability_reliability.png"]
    assert section.pictures[0].path.exists()
    assert probability_section(None, "model", tmp_path / "quicklook.png", tmp_path).is_empty
