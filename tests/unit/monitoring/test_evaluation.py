"""Judging a monitor: on series in which all is known, and the words where something cannot be measured."""

import json
import math

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.monitoring.calibration import calibrate
from pipelines.monitoring.detector import Calibration, Detector, Observations
from pipelines.monitoring.evaluation import (
    EvaluationSettings,
    assign_break_days,
    break_choices,
    calibrate_references,
    evaluate_monitor,
    inject,
    patch_numbers,
)
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.references import build_references
from pipelines.monitoring.sequential_test import Cusum

FIRST = float(np.datetime64("2014-01-01", "D").astype(int))
DAYS = np.arange(FIRST, FIRST + 6 * 365.25, 12)
START = float(np.datetime64("2018-01-01", "D").astype(int))


def forest(shape_yx=(24, 24), noise=0.03):
    rng = np.random.default_rng(0)
    x = 0.6 - 0.2 * np.cos(2 * np.pi * DAYS / 365.2422)[:, None, None] + rng.normal(0, noise, (len(DAYS), *shape_yx))
    valid = rng.random(x.shape) > 0.2
    return np.where(valid, x, 0).astype(np.float32), valid


def monitor(threshold=8.0, direction="down"):
    return Detector(HarmonicModel(), Cusum(), Calibration(threshold), direction)


def judge(detectors, x, valid, **settings):
    return evaluate_monitor(detectors, Observations(x, valid, DAYS), START, EvaluationSettings(direction="down", **settings))


def test_breaks_in_quiet_series_are_all_found_at_once_and_nothing_else():
    x, valid = forest()
    result = judge({"monitor": monitor()}, x, valid)
    found = result["methods"]["monitor"]
    assert found["false_alarms"]["per_1000_px_year"] == 0
    assert found["false_alarms"]["pixels"] == result["stable_pixels"] > 500
    for drop in (0.2, 0.4):
        scores = found["drops"][f"{drop:g}"]
        assert scores["found"] == 1
        assert 36 <= scores["delay_days"][1] <= 72  # the fourth look, 15 days apart, on or after the break
        assert scores["change_day_error_days"][1] <= 12
        assert scores["magnitude"][1] == pytest.approx(-drop, abs=0.02)
    assert found["seen_in_images"] == {}
    assert result["notes"] == []
    json.dumps(result, allow_nan=False)


def test_alarms_where_nothing_changes_are_counted_with_their_exposure():
    x, valid = forest()
    scores = judge({"monitor": monitor(threshold=0.5)}, x, valid)["methods"]["monitor"]
    rate = scores["false_alarms"]
    assert rate["low"] <= rate["per_1000_px_year"] <= rate["high"]
    assert rate["alarms"] > 100
    assert rate["per_1000_px_year"] == pytest.approx(1000 * rate["alarms"] / rate["pixel_years"], rel=1e-2)
    assert scores["drops"]["0.2"]["alarmed_before"] > 0
    assert scores["drops"]["0.2"]["breaks"] + scores["drops"]["0.2"]["alarmed_before"] == 4 * rate["pixels"]
    at = scores["at_wanted_rate"]
    assert at["threshold"] > 0.5
    assert at["drops"]["0.2"]["alarmed_before"] < scores["drops"]["0.2"]["alarmed_before"]


def test_change_that_the_images_show_is_found_in_its_year():
    x, valid = forest()
    felled = float(np.datetime64("2018-09-10", "D").astype(int))
    x[felled <= DAYS, :6] -= 0.35 * valid[felled <= DAYS, :6]
    result = judge({"monitor": monitor(), "insensitive": monitor(1e9)}, x, valid)
    seen = result["methods"]["monitor"]["seen_in_images"]
    assert seen == {"2019": {"pixels": 6 * 24, "found": 1.0, "alarmed_before": 0}}
    assert result["methods"]["insensitive"]["seen_in_images"]["2019"]["found"] == 0
    assert result["stable_pixels"] <= 18 * 24


def test_references_are_calibrated_and_judged_alike():
    x, valid = forest(noise=0.05)
    references = build_references(["difference", "three_low", "harmonic_mosum"], "down", 12)
    references = calibrate_references(references, Observations(x, valid, DAYS), START, 30.0)
    assert all(math.isfinite(d.calibration.threshold) for d in references.values())
    result = judge(references, x, valid, pixels=200)
    assert set(result["methods"]) == {"difference", "three_low", "harmonic_mosum"}
    for found in result["methods"].values():
        assert found["false_alarms"]["pixels"] == 200
        assert found["drops"]["0.4"]["found"] > 0.9


def test_a_detector_that_looks_around_is_judged_on_the_whole_raster():
    x, valid = forest((12, 12))
    near = Detector(HarmonicModel(halo_px=2), Cusum(), Calibration(8.0), "down")
    a, b = judge({"alone": monitor(), "near": near}, x, valid)["methods"].values()
    assert a["drops"] == b["drops"]
    assert a["false_alarms"] == b["false_alarms"]


def test_too_few_stable_pixels_are_said_and_the_rest_is_judged():
    x, valid = forest((12, 12))
    x[START + 200 <= DAYS] -= 0.35
    result = judge({"monitor": monitor()}, np.where(valid, x, 0).astype(np.float32), valid)
    assert "expected at least 30 stable pixels, found 0 of 144 monitored" in result["notes"][0]
    assert "drops" not in result["methods"]["monitor"]
    assert result["methods"]["monitor"]["seen_in_images"]


def test_a_start_outside_the_dates_is_refused():
    x, valid = forest((3, 3))
    for start in (FIRST - 1, FIRST + 9999):
        with pytest.raises(RequestError, match=r"dates before and from monitoring.start .* found 2014-01-01 to 20"):
            evaluate_monitor({}, Observations(x, valid, DAYS), start, EvaluationSettings())


def test_a_short_watch_is_said():
    x, valid = forest((9, 9))
    series, start = Observations(x, valid, DAYS), float(DAYS[-1]) - 100
    result = evaluate_monitor({"m": monitor()}, series, start, EvaluationSettings(direction="down"))
    assert any("only 0.27 years are monitored" in note for note in result["notes"])
    assert result["methods"]["m"]["drops"]["0.4"]["breaks"] > 0


def test_a_calibrated_monitor_can_be_judged_directly():
    x, valid = forest()
    found, _ = calibrate(monitor(), Observations(x, valid, DAYS), false_alarms=30, start_day=START)
    assert judge({"monitor": found}, x, valid)["methods"]["monitor"]["threshold"] == found.calibration.threshold


def test_a_detector_that_monitors_nothing_is_judged_on_nothing():
    class Shy(HarmonicModel):
        def fit(self, x_NYX, valid_NYX, days_N):
            fitted = super().fit(x_NYX, valid_NYX, days_N)
            return fitted | {"count": np.zeros_like(fitted["count"])}

    x, valid = forest((9, 9))
    scores = judge({"shy": Detector(Shy(), Cusum(), Calibration(8.0), "down")}, x, valid)["methods"]["shy"]
    assert "drops" not in scores
    assert "false_alarms" not in scores


# ---------------------------------------------------------------- simulated breaks


def test_patches_are_squares():
    assert patch_numbers((3, 5), 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_a_patch_breaks_on_one_day_at_a_time_and_the_same_seed_deals_the_same():
    patch = patch_numbers((16, 16)) * 7  # numbers need not be dense
    days = assign_break_days(patch, np.arange(100.0), repeats=3, seed=3)
    assert days.shape == (3, 16, 16)
    assert all(len(np.unique(days[r][patch == number])) == 1 for r in range(3) for number in np.unique(patch))
    assert days.tolist() == assign_break_days(patch, np.arange(100.0), repeats=3, seed=3).tolist()
    assert days.tolist() != assign_break_days(patch, np.arange(100.0), repeats=3, seed=4).tolist()


def test_every_date_comes_up_equally_often_and_a_patch_never_gets_one_twice():
    patch = patch_numbers((80, 80))  # 100 patches
    days = assign_break_days(patch, np.array([5.0, 6, 7, 8, 9]), repeats=2, seed=0)
    assert np.unique(days[0, ::8, ::8], return_counts=True)[1].tolist() == [20] * 5
    assert (days[0] != days[1]).all()


def test_the_step_begins_on_the_break_day_and_stays():
    x = np.zeros((4, 1, 2), np.float32)
    broken = inject(Observations(x, x > -1, np.array([10.0, 20, 30, 40])), np.array([[20.0, 35]]), -0.5)
    assert broken[:, 0].tolist() == [[0, 0], [-0.5, 0], [-0.5, 0], [-0.5, -0.5]]
    assert broken.dtype == np.float32
    assert not x.any()


def test_breaks_fall_on_dates_that_saw_something_and_leave_time():
    days, valid = np.array([0.0, 100, 200, 300]), np.ones((4, 2), bool)
    valid[1] = False
    assert break_choices(days, valid, within_days=100).tolist() == [0, 200]


def test_of_a_short_series_the_first_half_breaks():
    days, valid = np.array([0.0, 10, 20, 30]), np.ones((4, 1), bool)
    assert break_choices(days, valid, within_days=365).tolist() == [0, 10]
    assert break_choices(days, ~valid, within_days=365).tolist() == []


def test_breaks_in_other_units_than_the_values_are_said():
    x, valid = forest((9, 9))
    notes = {scale: judge({"m": monitor()}, (x * scale).astype(np.float32), valid)["notes"] for scale in (1, 10_000)}
    assert not any("do not fit" in note for note in notes[1])
    assert any("the injected breaks (0.2, 0.4) do not fit the values" in note for note in notes[10_000])
