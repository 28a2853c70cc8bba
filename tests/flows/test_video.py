"""A clip through a whole run, and labels of its frames through tracking."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.stage import carry_out
from flows.task import open_invocation
from flows.track import track
from pipelines.cube.export import export_zarr
from pipelines.cube.history import describe
from pipelines.cube.store import open_cube
from pipelines.errors import MissingInput
from pipelines.sources.proposal import propose_run

pytest.importorskip("av")
_spec = importlib.util.spec_from_file_location("clips", Path(__file__).parents[1] / "unit" / "sources" / "clips.py")
clips = sys.modules.setdefault("clips", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(clips)


def test_a_clip_goes_in_and_its_next_frames_come_out_without_a_position(tmp_path: Path) -> None:
    clips.make_clip(tmp_path / "clip.mkv", 24)
    proposed = propose_run(tmp_path / "clip.mkv", "clip", written_as="clip.mkv")
    proposed = proposed.replace("[16]", "[4]").replace("epochs: 10", "epochs: 1").replace(", gradient_boosting]", "]")
    proposed = proposed.replace("  # mask: [{box: [0, 0, 2, 64]}]", "  mask: [{box: [0, 0, 2, 64]}]")
    config = tmp_path / "run.yaml"
    config.write_text(f"{proposed}runs: {tmp_path / 'runs'}\n")
    result = carry_out(open_invocation(str(config), [], even_if_worse=True), "run")
    folder = tmp_path / "runs" / "clip"
    cube = open_cube(str(folder / "cube"))
    assert not cube["valid"][:, :2].any()
    assert cube["valid"][:, 2:].all()
    assert (cube["source"].values[5], cube["scene_id"].values[5]) == ("frame 5", "f00005")
    assert describe(str(folder / "cube"))["grid"]["image_plane"] == "px"
    export_zarr(str(folder / "cube"), tmp_path / "clip.zarr")
    assert result["target_utc"] == ["0.96 s"]
    index = json.loads((folder / "products" / "index.json").read_text())
    assert {one["file"] for one in index["files"]} == {path.name for path in (folder / "products").iterdir()} - {"index.json"}
    with Image.open(folder / "products" / "forecast_gray.tif") as stack:
        forecast = np.asarray(stack)
        assert not {33550, 33922, 34735} & set(stack.tag_v2)  # no tag of a position on Earth
    assert forecast.shape == clips.SHAPE_YX
    assert np.isnan(forecast[:2]).all()
    assert np.nanmean(np.abs(forecast - cube["image"].values[-1, 0])) < 30
    evaluation = json.loads((folder / "evaluation.json").read_text())["details"]["metrics"]
    assert {"model", "persistence", "optical_flow"} <= set(evaluation)
    assert (folder / "quicklook.png").exists()
    with pytest.raises(MissingInput, match=r"has no archived forecast; .* or no file states a date"):
        carry_out(open_invocation(str(config), []), "verify")


def test_labels_of_frames_are_tracked_in_pixels(tmp_path: Path) -> None:
    for number in range(4):
        labels = np.zeros((30, 40), np.uint8)
        labels[10:20, 2 + 3 * number : 12 + 3 * number] = 1
        Image.fromarray(labels).save(tmp_path / f"label_{number:02d}.png")
    record = track([tmp_path], tmp_path / "out", pattern="label_{frame}.png")
    assert "sizes are in pixels" in record["lines"][1]
    assert record["events"] == {"stable": 3, "first seen": 1}
    rows = [line.split(",") for line in (tmp_path / "out" / "objects.csv").read_text().splitlines()]
    steps, area, moved = (rows[0].index(name) for name in ("step", "area_px2", "moved_px"))
    assert [(row[steps], row[area], row[moved]) for row in rows[2:]] == [(str(n), "100", "3") for n in (1, 2, 3)]
