"""Drivers on their own time axis: what a step is given of them, what is known when, and what stands in where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.calendar import from_days
from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.products.covariates_section import covariates_section
from pipelines.samples.cache import build_samples, decoded_blocks
from pipelines.samples.covariates import Covariates, Driver, Static, context_days, summarise
from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.tiles import Box

GRID = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (6, 4))
TILE = Box((2, 0), (6, 4))
CONTEXT, TARGETS = np.array([2.0, 4.0, 8.0]), np.array([10.0, 13.0])


def driver(values, days=None, **changes) -> Driver:
    values_LG = np.array(values, np.float32).reshape(len(values), -1)
    days_L = np.arange(1.0, len(values) + 1) if days is None else np.array(days, float)
    return replace(Driver("rain", "sum", "future", "refuse", days_L, values_LG, None, "mm"), **changes)


@pytest.mark.parametrize(("summary", "expected"), [
    ("mean", [1.5, 3.5, 6.5]), ("sum", [3, 7, 26]), ("min", [1, 3, 5]), ("max", [2, 4, 8]), ("last", [2, 4, 8]),
])  # fmt: skip
def test_a_step_has_the_interval_since_the_step_before(summary, expected):
    made = driver(range(1, 9), summary=summary)
    assert summarise(made, (0.0, 2.0, 4.0, 8.0)).ravel().tolist() == expected


def test_lost_days_are_no_drought_and_half_of_the_days_must_be_there():
    made = driver([1, np.nan, 3, 4, np.nan, np.nan, np.nan, 8])
    assert summarise(made, (0.0, 4.0, 8.0)).ravel().tolist() == pytest.approx([4 * 8 / 3, np.nan], nan_ok=True)


def test_steps_shorter_than_those_of_the_driver_have_its_last_value_for_a_while():
    made = driver([10, 20], days=[10, 20], summary="mean")
    assert summarise(made, (10.0, 12.0, 14.0, 21.0, 34.0, 38.0)).ravel().tolist() == pytest.approx(
        [10, 10, 20, 20, np.nan], nan_ok=True
    )
    assert summarise(replace(made, summary="sum"), (10.0, 12.0)).item() == pytest.approx(2.0)


def test_nothing_after_the_issue_date_is_in_the_past():
    values = np.arange(1.0, 21.0)
    later = np.where(values > CONTEXT[-1], 1e6, values)
    clean, poisoned = (
        Covariates(GRID, drivers=(driver(rain, known="past"), driver(values, name="sun"))) for rain in (values, later)
    )
    given, after = (one.of(TILE, CONTEXT, TARGETS) for one in (clean, poisoned))
    assert sorted(given) == ["future_KEHW", "past_TDHW"]
    assert all(torch.equal(given[name], after[name]) for name in given)
    assert given["future_KEHW"].ravel().tolist() == [19, 36], "rain, which is past, has no channel of the targets"
    assert given["past_TDHW"][:, 0].ravel().tolist() == [4.5, 7, 26], "the first interval is as long as the median of the others"
    assert clean.key(8.0) == poisoned.key(8.0) != poisoned.key(9.0)


def test_cells_of_a_grid_in_degrees_round_the_globe_and_static_layers_lie_where_the_tile_lies():
    pixels = Grid("EPSG:4326", (0.5, 0.0, -2.0, 0.0, -0.5, 50.0), (4, 8))  # longitudes -2 to 2, latitudes 50 to 48
    cells = Grid("EPSG:4326", (90.0, 0.0, 0.0, 0.0, -1.0, 50.0), (2, 4))  # longitudes 0 to 360
    made = driver(np.arange(16.0).reshape(2, 8), grid=cells, summary="last")
    elevation = Static("elevation", ("elevation",), np.arange(32, dtype=np.float32).reshape(1, 4, 8), False, "m", "")
    given = Covariates(pixels, (elevation,), (made,)).of(Box((1, 2), (3, 6)), np.array([1.0]), np.array([2.0]))
    assert given["past_TDHW"][0, 0].tolist() == [[3, 3, 0, 0], [7, 7, 4, 4]]
    assert given["future_KEHW"][0, 0].tolist() == [[11, 11, 8, 8], [15, 15, 12, 12]]
    assert given["static_SHW"][0, 0].tolist() == [10, 11, 12, 13]


def test_a_future_that_is_not_there_is_refused_or_the_climatology_and_said():
    days = np.arange(16000.0, 16000 + 3 * 365)
    rain = driver(10 + np.sin(2 * np.pi * days / 365.2422), days, summary="mean")
    targets = days[-1] + np.array([10.0, 20.0])
    issued = Covariates(GRID, drivers=(rain,))
    with pytest.raises(
        RequestError, match=r"rain has no value for the target 2016-1.*its last one is of 2016-10-2.*weather forecast"
    ):
        issued.ready(days[-3:], targets, days[-1])
    with pytest.raises(RequestError, match="for the target 2016-10-24"):  # three of four days are not all
        issued.ready(days[-10:-5], days[-1:] - 4 + [0.0, 8.0], days[-1])
    known = Covariates(GRID, drivers=(replace(rain, missing="climatology"),)).ready(days[-3:], targets, days[-1])
    expected = 10 + np.sin(2 * np.pi * (targets - 4.5) / 365.2422)
    assert known.of(TILE, days[-3:], targets)["future_KEHW"].ravel().numpy() == pytest.approx(expected, abs=0.02)
    assert "rain ends on 2016-10-2" in known.notes[0]
    late = Covariates(GRID, drivers=(driver(days, days, known="past"),)).ready(days[-1] + [0.0, 10.0], targets, days[-1])
    assert "no value for 1 of the 2 steps of context" in late.notes[0]


def test_a_driver_that_ends_before_the_dates_of_the_scores_is_refused():
    days = np.arange(17000.0, 18000.0)
    split = Split(8, 0, np.datetime64("2018-01-01"), np.datetime64("2018-10-01"))
    times = from_days(np.arange(17000.0, 18000.0, 10))
    plan = WindowPlan(times, (8, 8), split, Sampling(), 2, 1, 1, ())
    Covariates(GRID, drivers=(driver(days, days),)).require_for_scores(plan)
    for kept, part in ((600, "validation"), (850, "test")):
        ended = Covariates(GRID, drivers=(driver(days[:kept], days[:kept]),))
        with pytest.raises(RequestError, match=rf"rain .* of the intervals between {part} dates \(2018-"):
            ended.require_for_scores(plan)


def test_a_layer_that_is_the_same_everywhere_deviates_by_nothing_in_the_report(plan):
    flat = Static("flat", ("flat",), np.full((1, *plan.shape), 7, np.float32), False, "m", "")
    measured = Covariates(GRID, (flat,)).measure(plan)
    assert measured[0]["std"] == 1, "by which networks divide"
    (table,) = covariates_section(measured, {}).tables
    assert (table.rows[0]["mean"], table.rows[0]["std"]) == (7, 0)


def test_steps_without_an_observation_have_a_date():
    days_N, context_T = np.array([0.0, 10.0, 40.0]), np.array([-1, 0, 1, -1, -1, 2, -1])
    assert context_days(days_N, context_T).tolist() == [-10, 0, 10, 20, 30, 40, 50]


def test_augmentation_turns_static_layers_with_the_frames(cube, plan, ndvi, tmp_path):
    def prepare(x_NCHW, valid_NHW, *dates, covariates):
        return {"x_HW": x_NCHW[0, 0], "static_SHW": covariates["static_SHW"], "past_TDHW": covariates["past_TDHW"]}

    whole = next(decoded_blocks(cube, [Box.whole(plan.shape)], ndvi))
    layer = Static("ndvi", ("ndvi",), whole.x_NCHW[0], False, "", "")
    grid = Grid("EPSG:32635", GRID.transform, plan.shape)
    covariates = Covariates(grid, (layer,), (driver(plan.days_N, plan.days_N, known="past", summary="last"),))
    samples = build_samples(cube, "s", tmp_path, plan, ndvi, prepare, prepare_key="k", covariates=covariates).part(
        "train", augment=True
    )
    samples.set_epoch(3)
    assert len(set(samples.symmetry_W)) > 4
    for index in range(len(samples)):
        batch = samples.gather([index])
        assert torch.equal(batch["static_SHW"][:, 0], batch["x_HW"])
    window = plan.windows[samples.groups[0].numbers[0]]
    known = samples.groups[0].prepared["past_TDHW"][0].ravel()
    assert known.tolist() == plan.days_N[list(window.context_T)].astype("float32").tolist(), "known on its own date"
