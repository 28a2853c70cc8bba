"""Patches of a monitoring run, and how the changed area grew."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.grid import Grid
from pipelines.inference.regions import Plane, Regions
from pipelines.monitoring.layers import Layers
from pipelines.products.found_changes import facts_of, growth, outline_layers
from pipelines.products.polygons import read_patches, write_polygons
from pipelines.tiles import Box

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
    values = {Plane(name, plane.dtype.str): plane for name, plane in planes.items()}
    regions = Regions(str(tmp_path / "layers"), "k" * 64, tuple(values), GRID.shape_yx, (Box.whole((4, 6)),))
    regions.begin()
    with regions.writing(regions.parts[0]) as writer:
        writer.write(regions.parts[0], values)
    layers = Layers.open(regions)
    frame = outline_layers(layers, GRID, min_area_px=2)
    change_N, detected_N, area_N = growth(layers, GRID, frame, min_area_px=2)
    assert list(change_N) == [18_000, 18_020, 18_040]
    assert list(detected_N - change_N) == [50] * 3
    assert np.datetime64(int(change_N.min()), "D") == frame["first_date"].min().to_datetime64()
    assert area_N.sum() == pytest.approx(frame["area_m2"].sum())
    written = tmp_path / "products"
    written.mkdir()
    write_polygons(frame, written, "changes")
    facts, (row,) = read_patches(written)
    assert (facts["first_date"], facts["last_date"]) == ("2019-04-14T00:00:00Z", "2019-05-24T00:00:00Z")
    assert row["pixels"] == 3
    assert "geometry" not in row
    dates = {"first_change": facts["first_date"], "last_change": facts["last_date"]}
    assert facts_of(frame) == {"patches": 1, "area_m2": round(facts["area_m2"], 1), **dates}
    assert facts_of(frame[:0]) == {"patches": 0, "area_m2": 0.0}
