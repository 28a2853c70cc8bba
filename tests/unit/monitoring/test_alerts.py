"""What is new since the last time: patches are known by their pixels, alerts are raised once."""

from dataclasses import replace

import geopandas
import numpy as np
import pytest
import shapely

from pipelines.errors import ArtefactDamaged, StateError
from pipelines.grid import Grid
from pipelines.monitoring.alerts import (
    AlertLog,
    AlertSettings,
    Patch,
    flat_indices,
    mark_sent,
    open_alert_log,
    patches_of,
    read_alert_log,
    update_alert_log,
    write_alert_log,
)

RULE = AlertSettings(notify=("custom-webhook/ops",))


def patch(*pixels: int, area_m2: float = 100.0, confidence: float | None = 0.99) -> Patch:
    facts = {"id": f"p{pixels[0]}", "pixels": len(pixels), "area_m2": area_m2, "confidence": confidence}
    return Patch(np.array(pixels, np.int64), facts)


def run_number(alert_log: AlertLog, *patches: Patch, settings: AlertSettings = RULE, stray: tuple[int, ...] = ()):
    """A run that is published: what it found is told."""
    alert_log, updates = killed_run(alert_log, *patches, settings=settings, stray=stray)
    return replace(alert_log, unreported={}), updates


def killed_run(alert_log: AlertLog, *patches: Patch, settings: AlertSettings = RULE, stray: tuple[int, ...] = ()):
    changed = np.array(sorted({*stray, *(int(p) for one in patches for p in one.pixels)}), np.int64)
    return update_alert_log(alert_log, changed, patches, settings, "SNAP")


def test_what_a_run_found_that_was_killed_before_it_published_is_told_by_the_next(tmp_path):
    alert_log, _ = run_number(AlertLog.empty(), patch(1, 2, 3))
    alert_log, _ = killed_run(alert_log, patch(1, 2, 3, 4), patch(7, 8))
    write_alert_log(tmp_path / "alerts.json", tmp_path / "alerts", alert_log)
    found = read_alert_log(tmp_path / "alerts.json", tmp_path / "alerts")
    _, updates = run_number(found, patch(1, 2, 3, 4), patch(7, 8), patch(9))
    assert (updates.pixels_new, updates.objects_new, [alert["number"] for alert in updates.alerts]) == (4, 2, [2, 3])


def test_a_patch_is_news_once_and_growing_is_not_a_new_one():
    alert_log, updates = run_number(AlertLog.empty(), patch(1, 2, 3), stray=(90,))
    assert (updates.pixels, updates.pixels_new, updates.objects, updates.objects_new, len(updates.alerts)) == (4, 4, 1, 1, 1)
    alert_log, updates = run_number(alert_log, patch(1, 2, 3), stray=(90,))
    assert (updates.pixels_new, updates.objects_new, updates.alerts) == (0, 0, ())
    alert_log, updates = run_number(alert_log, patch(*range(1, 40)), stray=(90,))
    assert (updates.pixels_new, updates.objects_new, updates.alerts) == (36, 0, ())
    assert [(alert["number"], alert["pixels"]) for alert in alert_log.alerts] == [(1, 39)]


def test_an_alert_knows_the_look_that_raised_it():
    alert_log, _ = run_number(AlertLog.empty(), patch(1, 2, 3), patch(7, 8))
    alert_log, _ = run_number(alert_log, patch(1, 2, 3), patch(7, 8))
    alert_log, updates = run_number(alert_log, patch(1, 2, 3), patch(7, 8), patch(50))
    assert [(alert["number"], alert["look"]) for alert in alert_log.alerts] == [(1, 1), (2, 1), (3, 2)]
    assert updates.alerts[0]["look"] == 2


def test_a_neighbour_that_takes_one_pixel_over_is_new_all_the_same():
    alert_log, _ = run_number(AlertLog.empty(), patch(*range(10)))
    _, updates = run_number(alert_log, patch(*range(9)), patch(9, *range(50, 70)))
    assert updates.objects_new == 1
    assert [alert["id"] for alert in updates.alerts] == ["p9"]


def test_two_that_merge_are_the_older_one_and_both_parts_of_a_split_are_known():
    alert_log, _ = run_number(AlertLog.empty(), patch(1, 2, 3), patch(7, 8))
    alert_log, updates = run_number(alert_log, patch(*range(1, 9)))
    assert updates.objects_new == 0
    assert [alert["is_standing"] for alert in alert_log.alerts] == [True, False]
    _, updates = run_number(alert_log, patch(1, 2), patch(6, 7, 8))
    assert (updates.objects, updates.objects_new, updates.alerts) == (2, 0, ())


def test_one_that_vanishes_for_a_night_is_not_alerted_again():
    alert_log, _ = run_number(AlertLog.empty(), patch(1, 2, 3))
    alert_log, updates = run_number(alert_log)
    assert (updates.objects, alert_log.alerts[0]["is_standing"]) == (0, False)
    alert_log, updates = run_number(alert_log, patch(1, 2, 3))
    assert (updates.objects_new, updates.alerts, alert_log.alerts[0]["is_standing"]) == (0, (), True)


def test_a_patch_below_the_rule_raises_its_alert_when_it_has_grown():
    settings = AlertSettings(min_area_m2=250, min_confidence=0.9)
    alert_log, updates = run_number(AlertLog.empty(), patch(1), patch(9, area_m2=900, confidence=0.5), settings=settings)
    assert (updates.objects_new, updates.alerts) == (2, ())
    alert_log, updates = run_number(
        alert_log, patch(1, 2, 3, area_m2=300), patch(9, area_m2=900, confidence=None), settings=settings
    )
    assert (updates.objects_new, [alert["id"] for alert in updates.alerts]) == (0, ["p1", "p9"])


def test_a_block_that_is_named_later_is_told_of_later_alerts_only():
    alert_log, _ = run_number(AlertLog.empty(), patch(1))
    alert_log = mark_sent(alert_log, "custom-webhook/ops", "2026-01-01T00:00:00Z")
    both = AlertSettings(notify=("custom-webhook/ops", "slack-webhook/forest"))
    alert_log, _ = run_number(alert_log, patch(1), patch(9), settings=both)
    assert [alert["id"] for alert in alert_log.unsent("slack-webhook/forest")] == ["p9"]
    assert [alert["id"] for alert in alert_log.unsent("custom-webhook/ops")] == ["p9"]


def test_the_alert_log_comes_back_as_it_was_and_damage_is_named(tmp_path):
    path, folder = tmp_path / "alerts.json", tmp_path / "alerts"
    assert read_alert_log(path, folder).alerts == ()
    alert_log, _ = run_number(AlertLog.empty(), patch(4, 5), patch(1))
    write_alert_log(path, folder, alert_log)
    found = read_alert_log(path, folder)
    assert (found.alerts, found.snapshot) == (alert_log.alerts, "SNAP")
    for name in ("changed", "pixel", "number"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alert_log, name))
    (pixels,) = folder.iterdir()
    write_alert_log(path, folder, run_number(found, patch(7))[0])
    assert pixels not in set(folder.iterdir())
    path.write_text('{"alerts"')
    with pytest.raises(ArtefactDamaged, match="is not a list of alerts"):
        read_alert_log(path, folder)
    path.write_text('{"format": 99}')
    with pytest.raises(StateError, match="has format 99, this version reads 1"):
        open_alert_log(path, folder)
    assert path.exists(), "not put aside"


def test_outlines_are_the_pixels_that_they_were_drawn_around():
    grid = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (6, 8))
    outline = shapely.union(
        shapely.box(500_020, 4_999_970, 500_050, 4_999_990), shapely.box(500_050, 4_999_960, 500_060, 4_999_970)
    )
    dates = np.array(["2019-05-01", "NaT"], "datetime64[ms]")
    frame = geopandas.GeoDataFrame(
        {"id": ["a", "b"], "pixels": [7, 1], "detected": dates, "confidence": [0.5, np.nan]},
        geometry=[outline, shapely.box(500_000, 4_999_990, 500_010, 5_000_000)],
        crs="EPSG:32635",
    )
    one, other = patches_of(frame, grid)
    assert one.pixels.tolist() == [10, 11, 12, 18, 19, 20, 29]
    assert one.facts == {"id": "a", "pixels": 7, "detected": "2019-05-01T00:00:00Z", "confidence": 0.5}
    assert other.pixels.tolist() == [0]
    assert (other.facts["detected"], other.facts["confidence"]) == (None, None)


def test_pixels_of_a_code_in_strips():
    status = np.array([[2, 0], [1, 2], [2, 2]], np.uint8)
    assert flat_indices(status, 2, strip=2).tolist() == [0, 3, 4, 5]
    assert flat_indices(status, 7).tolist() == []
