"""The methods a monitor is compared with."""

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.monitoring.references import REFERENCES, SameSeason, build_references


def test_the_same_season_is_the_median_of_near_days_of_other_years():
    days = np.array([100.0, 110, 120, 300, 100 + 365.2422])
    x = np.array([0.1, 0.3, 0.9, 0.5, 0.2], np.float32)[:, None, None]
    season = SameSeason(window_days=15)
    fitted = season.fit(x, np.ones(x.shape, bool), days)
    assert float(season.predict(fitted, {}, 103.0 + 2 * 365.2422)[0][0, 0]) == pytest.approx(0.2)  # of 0.1, 0.3, 0.2
    assert float(season.predict(fitted, {}, 300.0)[0][0, 0]) == pytest.approx(0.5)
    assert float(season.predict(fitted, {}, 250.0)[0][0, 0]) == pytest.approx(0.5)  # nothing near: a wider look
    assert float(season.predict(fitted, {}, 250.0)[1][0, 0]) == 1


def test_new_year_is_no_wall():
    x = np.array([0.4], np.float32)[:, None, None]
    fitted = SameSeason().fit(x, np.ones(x.shape, bool), np.array([360.0]))
    assert float(SameSeason().predict(fitted, {}, 366.0)[0][0, 0]) == pytest.approx(0.4)


def test_what_was_never_seen_is_zero_and_has_no_count():
    fitted = SameSeason().fit(np.ones((0, 2, 2), np.float32), np.ones((0, 2, 2), bool), np.empty(0))
    assert not fitted["season"].any()
    assert not fitted["count"].any()


def test_all_names_are_built_and_others_refused():
    assert tuple(build_references(REFERENCES, "down", 12)) == REFERENCES
    assert len({d.key for d in build_references(REFERENCES, "down", 12).values()}) == len(REFERENCES)
    with pytest.raises(RequestError, match=r"unknown cusum; known: difference, three_low"):
        build_references(["cusum"], "down", 12)
