"""`--dry-run` says what ingest would say, and refuses what it would refuse."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from configs.load import load_run
from flows.planning import make_plan, plan_lines
from pipelines.errors import RequestError

CONFIG = """
name: r
task: monitor
source: {kind: folder, path: data, pattern: "s_{date:%Y%m%d}.tif", bands: [v]}
variable: {name: v, bands: [v]}
monitoring: {start: 2020-08-01, test: {kind: cusum, threshold: 9}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config beside twelve scenes, the last three with another offset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 8, "width": 8, "crs": "EPSG:32633"}
    for month in range(1, 13):
        path = tmp_path / "data" / f"s_2020{month:02d}05.tif"
        with rasterio.open(path, "w", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile) as file:
            file.write(np.full((8, 8), 3000, "uint16"), 1)
            file.scales, file.offsets = [1e-4], [-0.1 if month > 9 else 0.0]
    (tmp_path / "data" / "notes.txt").write_text("hello")
    (tmp_path / "r.yaml").write_text(CONFIG)
    return tmp_path / "r.yaml"


def test_a_plan_says_what_is_converted_not_used_and_widened(config: Path) -> None:
    grid = "grid={crs: 'EPSG:32633', resolution: 30, bounds: [500000, 4999920, 500080, 5000000]}"
    plan = make_plan(load_run(config, [grid, "cube.on_other_grid=reproject"]), "ingest")
    assert plan["notes"] == [
        "not used: 1 files, folders or variables: notes.txt",
        "grid.bounds: 80 x 80 is no multiple of the resolution 30; the grid has the bounds 500000, 4999910, 500090, 5000000",
        "band v: 3 of 12 scenes (first s_20201005) have scale 0.0001 and offset -0.1, the cube 0.0001 and 0: converted; values "
        "that do not fit are missing",
    ]
    assert "  note: not used: 1 files, folders or variables: notes.txt" in plan_lines(plan)


def test_a_plan_counts_what_is_refused_and_ends_where_all_is(config: Path) -> None:
    overrides = ["grid={crs: 'EPSG:32633', resolution: 20, bounds: [500000, 4999920, 500080, 5000000]}"]
    with pytest.raises(RequestError, match="all 12 scenes would be refused"):
        make_plan(load_run(config, overrides), "ingest")
    (config.parent / "data" / "s_20200605.tif").write_text("hello")
    plan = make_plan(load_run(config), "ingest")
    assert plan["extent"]["dates"] == 11
    assert any(note.startswith("1 scene would be refused; the first: s_20200605: driver") for note in plan["notes"])
