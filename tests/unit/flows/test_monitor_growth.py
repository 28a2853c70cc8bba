"""How the changed area of a watch grew."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.stages.monitor_products import growth, outline
from pipelines.grid import Grid
from pipelines.monitoring.layers import Layers
from pipelines.tiles import Tile

GRID = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), (4, 6))


def test_pixels_are_added_up_and_agree_with_the_patches(tmp_path: Path) -> None:
    """One patch of three dates and a speck below the least size: the curve has three steps, begins and ends as the patch does."""
    change = np.full(GRID.shape_yx, np.nan)
    change[1, 1:4] = 18_000.0, 18_020.0, 18_040.0
    change[3, 5] = 17_000.0
    planes = {
        "change_day": change, "detected_day": change + 50, "recovered_day": np.full(GRID.shape_yx, np.nan),
        "status": np.where(np.isfinite(change), 2, 1).astype(np.uint8),
    }  # fmt: skip
    layers = Layers.create(tmp_path / "layers", GRID.shape_yx, {name: plane.dtype for name, plane in planes.items()})
    layers.write([(Tile(0, 4, 0, 6), planes, "test")])
    run = SimpleNamespace(monitoring=SimpleNamespace(min_area_px=2))
    frame = outline(run, layers, GRID)
    change_N, detected_N, area_N = growth(run, layers, GRID, frame)
    assert list(change_N) == [18_000, 18_020, 18_040]
    assert list(detected_N - change_N) == [50] * 3
    assert np.datetime64(int(change_N.min()), "D") == frame["first_date"].min().to_datetime64()
    assert area_N.sum() == pytest.approx(frame["area_m2"].sum())
