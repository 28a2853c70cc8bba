"""Motion and cycles of regions against curves whose period, change and displacement are known."""

import numpy as np
import pytest
from scipy import signal

from pipelines.tracking.cycle import Period, find_period
from pipelines.tracking.motion import motion_of
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime
from pipelines.tracking.table import as_tables
from pipelines.tracking.tracks import track_objects

FRAME_S = 1 / 30


def beat(time: np.ndarray, period: float, phase: float = 0.0) -> np.ndarray:
    """A curve with a second harmonic, as a chamber has."""
    angle = 2 * np.pi * time / period + phase
    return 10 + np.cos(angle) + 0.35 * np.cos(2 * angle + 1)


@pytest.mark.parametrize(("count", "period", "noise"), [(30, 0.41, 0.1), (60, 0.86, 0.4), (120, 1.11, 0.3)])
def test_the_period_is_found_and_its_interval_covers_it(count: int, period: float, noise: float) -> None:
    rng, time = np.random.default_rng(3), FRAME_S * np.arange(count)
    found = [find_period(time, beat(time, period, rng.uniform(0, 6)) + rng.normal(0, noise, count)) for _ in range(40)]
    periods = [one for one in found if isinstance(one, Period)]
    assert len(periods) >= 38
    assert sum(one.low <= period <= one.high for one in periods) >= 34
    assert np.median([one.high - one.low for one in periods]) < 0.15 * period
    assert all(one.cycles == pytest.approx(count * FRAME_S / one.period) for one in periods)


@pytest.mark.parametrize("follow", [0.0, 0.6, 0.9, 0.98])
def test_noise_has_no_period(follow: float) -> None:
    rng, alarms = np.random.default_rng(5), 0
    for count in (30, 60, 120):
        for _ in range(20):
            noise = signal.lfilter([1.0], [1.0, -follow], rng.normal(size=count + 200))[200:]
            alarms += isinstance(find_period(np.arange(float(count)), noise), Period)
    assert alarms <= 7  # of 60; 3 are expected


def test_one_cycle_a_line_and_few_points_say_why_there_is_no_period() -> None:
    time = FRAME_S * np.arange(30)
    assert find_period(time, beat(time, 0.9)) == "no curve that repeats: less than two cycles, or none"
    assert find_period(time, 3 + 2 * time) == "the curve is a straight line"
    assert find_period(time[:11], beat(time[:11], 0.1)) == "11 points, fewer than 12"


def test_a_region_that_beats_and_moves() -> None:
    """An ellipse whose area falls to 0.36, moved by 6 pixels of 0.5 mm where it is smallest; a second region stands still."""
    row, column = np.mgrid[:100, :160]
    times = [np.datetime64("1800-01-01", "ns") + np.timedelta64(40 * t, "ms") for t in range(50)]  # seconds, no date
    masks = np.zeros((50, 100, 160), bool)
    for t in range(50):
        down = np.sin(np.pi * t / 20) ** 2  # a cycle of 20 frames
        scale = 1 - 0.4 * down
        masks[t] = ((row - 50 - 6 * down) / (32 * scale)) ** 2 + ((column - 50) / (24 * scale)) ** 2 < 1
    masks[:, 40:60, 120:140] = True
    space = Space.of_spacing((0.5, 0.25))
    objects, events, _ = as_tables(track_objects(masks, times, space), space)
    motion = motion_of(objects, SeriesTime.of(objects, events), space)
    beating, still = (motion.cycles.iloc[k] for k in range(2))
    assert beating.period_seconds == pytest.approx(0.8, rel=0.01)
    assert beating.period_seconds_low < 0.8 < beating.period_seconds_high
    assert beating.fractional_change == pytest.approx(1 - 0.36, abs=0.01)
    assert beating.fractional_change_low < 0.64 < beating.fractional_change_high
    assert beating.displaced_mm_at_smallest == pytest.approx(3, abs=0.1)
    assert (beating.largest_at_seconds, beating.smallest_at_seconds) == (0, pytest.approx(0.4))
    assert (still.fractional_change, still.largest_displaced_mm) == (0, 0)
    assert np.isnan(still.period_seconds)
    assert still.period_note == "the curve is a straight line"
    frames = motion.frames[motion.frames.track_id == 1]
    assert frames.columns.tolist() == ["seconds", "track_id", "area_mm2", "share_of_largest", "x", "y", "displaced_mm", "phase"]
    np.testing.assert_allclose(frames.seconds, 0.04 * np.arange(50), atol=1e-9)
    np.testing.assert_allclose(frames.phase[10:20], np.arange(10, 20) / 20, atol=0.02)
    assert motion.facts() == {"regions": 2, "with_period": 1, "unit": "seconds"}
    assert "motion of track 1: (largest - smallest) / largest 63.6 % (" in motion.lines()[0]


def test_frames_that_were_not_seen_are_left_out() -> None:
    masks = np.zeros((40, 30, 30), bool)
    for t in range(40):
        masks[t, 5 : 15 + round(5 * np.sin(2 * np.pi * t / 10)), 5:20] = True
    seen = np.ones(masks.shape, bool)
    seen[[7, 22]] = False
    space = Space.of_spacing((1.0, 1.0), "px")
    objects, events, _ = as_tables(track_objects(masks, list(map(float, range(40))), space, seen=list(seen)), space)
    motion = motion_of(objects, SeriesTime.of(objects, events), space)
    assert len(motion.frames) == 38
    assert motion.cycles.period_steps[0] == pytest.approx(10, rel=0.01)
