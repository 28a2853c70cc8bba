"""What `auto` stands for before anything is chosen: sizes of blocks, and the halo that they follow."""

from typing import Any

import pytest

from configs.networks import ConvGRUModel, ConvLSTMModel, FrameModel, HistoryModel, build_network, halo_px
from configs.tasks.forecast import ForecastRun
from configs.tasks.forecast_auto import asked, build_space, has_open_split, with_split
from pipelines.samples.windows import assign_blocks

RUN: dict[str, Any] = {
    "name": "a",
    "source": {"kind": "folder", "path": "x", "pattern": "{date:%Y}.tif", "bands": ["v"]},
    "samples": {"variables": [{"name": "v", "bands": ["v"]}]},
    "split": {"validation_from": "2019-01-01", "test_from": "2020-01-01"},
}


@pytest.mark.parametrize("model", [ConvLSTMModel(hidden=[4, 4], kernel=5), ConvGRUModel(kind="convgru", hidden=[4, 4])])
def test_the_halo_is_that_of_the_network(model: FrameModel) -> None:
    network = build_network(model, 5, 2).build(1, 2, 2, 2)
    assert network.halo_px(7) == (halo_px(model, 7),) * 2


def test_the_halo_of_histories_is_that_of_their_means() -> None:
    from models.blocks.pixel_history import HALO_PX

    assert halo_px(HistoryModel(kind="history"), 7) == HALO_PX


@pytest.mark.parametrize(
    ("shape", "stated", "found"),
    [
        ((255, 147), {}, (36, 2)),
        ((40, 40), {}, (10, 0)),
        ((12, 14), {}, (8, 0)),
        ((10, 64, 64), {}, (16, 1)),
        ((4000, 4000), {}, (256, 15)),  # as wide as the halo of 10 + 5 steps
        ((400, 400), {"block_px": 30}, (30, 2)),
        ((400, 400), {"buffer_px": 7}, (100, 7)),
        ((400, 400), {"block_px": 64, "buffer_px": 2}, (64, 2)),
    ],
)
def test_blocks_follow_the_raster_and_buffers_the_halo(
    shape: tuple[int, ...], stated: dict[str, int], found: tuple[int, int]
) -> None:
    run = ForecastRun.model_validate({**RUN, "split": {**RUN["split"], **stated}})
    assert has_open_split(run) == (len(stated) < 2)
    split = with_split(run, shape).split
    assert (split.block_px, split.buffer_px) == found


@pytest.mark.parametrize(("model", "buffer_px"), [({"kernel": 1}, 0), ({"kernel": 1, "baseline": "moving_field"}, 6)])
def test_a_network_without_halo_needs_no_buffer_and_a_moving_field_the_widest(model: dict[str, Any], buffer_px: int) -> None:
    run = ForecastRun.model_validate({**RUN, "model": model})
    assert with_split(run, (400, 400)).split.buffer_px == buffer_px


def test_what_a_choice_is_made_without_does_not_make_it_anew() -> None:
    changes: list[dict[str, Any]] = [
        {"model": {"kind": "auto", "members": 3}},
        {"training": {"epochs": 7, "batch": 4, "refit": False}},
        {"split": {**RUN["split"], "test_from": "2020-02-01"}},
        {"evaluation": {"margin": 0.02}},
    ]
    runs = [ForecastRun.model_validate({**RUN, "model": "auto", **change}) for change in ({}, *changes)]
    assert all(asked(run) == asked(runs[0]) for run in runs)
    assert asked(ForecastRun.model_validate({**RUN, "model": "auto", "training": {"loss": "mae"}})) != asked(runs[0])


def test_with_covariates_a_moving_field_is_no_candidate() -> None:
    driver = {"name": "rain", "path": "rain.csv", "known": "future"}
    runs = [ForecastRun.model_validate({**RUN, "model": "auto", **more}) for more in ({}, {"covariates": {"drivers": [driver]}})]
    assert [build_space(run, [6], 100.0).baselines for run in runs] == [("persistence", "moving_field"), ("persistence",)]
    assert asked(runs[0]) != asked(runs[1])


def test_three_quarters_of_the_pixels_of_training_blocks_learn_whatever_the_raster() -> None:
    from configs.tasks.forecast import build_samples

    for side in range(12, 140, 7):
        run = with_split(ForecastRun.model_validate({**RUN, "model": "auto"}), (side, side + 3))
        split = build_samples(run).split
        tiles = assign_blocks((side, side + 3), split)
        whole = sum((tile.shape[0] + 2 * split.buffer_px) * (tile.shape[1] + 2 * split.buffer_px) for tile in tiles["train"])
        assert sum(tile.shape[0] * tile.shape[1] for tile in tiles["train"]) >= 0.65 * whole, side
