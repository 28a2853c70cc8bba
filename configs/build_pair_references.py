"""Rules for pairs of images as references of a watch: one season against the next, with the thresholds of their literature."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from configs import build_monitor
from configs.tasks.change import ChangeIndexName
from configs.tasks.change_detectors import automatic_threshold, build_change_index
from configs.tasks.monitor import MonitorRun

AREA_PX = 512  # of a large raster one square is compared: a rule looks around a pixel
PAIR_INDICES: tuple[ChangeIndexName, ...] = ("image_difference", "change_vector_plain", "change_vector", "ir_mad")


def evaluate_pairs(run: MonitorRun, dataset: Any) -> dict[str, dict[str, Any]]:
    """What each rule finds between the best seasons of two years (pipelines.monitoring.yearly_pairs), on all bands of the cube.

    Empty where the cube has one band: then they are the differences that the watch itself has among its references.
    """
    from pipelines.cube.store import bands_of
    from pipelines.monitoring.blocks import Block, BlockReader
    from pipelines.monitoring.updates import dates_of
    from pipelines.monitoring.yearly_pairs import evaluate_year_pairs
    from pipelines.samples.variables import Variable, decode
    from pipelines.tiles import Tile

    bands = bands_of(dataset)
    if len(bands) < 2:
        return {}
    tile = Tile(0, min(dataset.sizes["y"], AREA_PX), 0, min(dataset.sizes["x"], AREA_PX))
    reader = BlockReader(dataset, build_monitor.build_variable(run), Block(tile, (tile,)), 0)
    dates = dates_of(dataset)
    monitored = [reader.read(date) for date in dates]
    part = dataset.isel(y=tile.rows, x=tile.columns)
    variables = tuple(Variable(band.name, "band", (band.name,)) for band in bands)
    bands_NCYX = np.stack(
        [
            decode(part["image"].isel(time=[d.index]).values, part["valid"].isel(time=[d.index]).values, bands, variables)[0][0]
            for d in dates
        ]
    )
    limit = build_monitor.build_evaluation_settings(run).limit
    return evaluate_year_pairs(
        {name: partial(score_pair, name) for name in PAIR_INDICES},
        bands_NCYX,
        np.stack([x for x, _ in monitored]),
        np.stack([valid for _, valid in monitored]),
        np.array([date.day for date in dates]),
        build_monitor.start_ns(run) / 86_400e9,
        limit,
        run.monitoring.test.direction,
    )


def score_pair(name: ChangeIndexName, x_TCYX: np.ndarray, valid_TYX: np.ndarray) -> tuple[np.ndarray, float]:
    """(score_YX, threshold) of a rule on two dates, each brought to mean 0 and deviation 1 over what both show."""
    import torch

    seen_YX = valid_TYX.all(axis=0)
    inside = x_TCYX[:, :, seen_YX]
    mean, deviation = inside.mean(axis=2), np.maximum(inside.std(axis=2), 1e-9)
    z_TCYX = np.where(seen_YX, (x_TCYX - mean[..., None, None]) / deviation[..., None, None], 0).astype(np.float32)
    x, valid = torch.from_numpy(z_TCYX), torch.from_numpy(np.broadcast_to(seen_YX, valid_TYX.shape).copy())
    score_YX = build_change_index(name).fit(x, valid).score(x, valid).numpy()
    return score_YX, automatic_threshold(name, score_YX, x_TCYX.shape[1])[1]
