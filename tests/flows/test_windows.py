"""Numbers and labels of windows of a cube, from config to map: made series whose truth is known, of another run's cube."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.warp import transform

from flows.planning import make_plan
from flows.task import open_invocation
from pipelines.errors import ConfigError, MissingInput
from tests.flows.small_runs import assert_the_curve_is_shown, carry_out, read_json, rows_of

SIDE, DATES, BLOCK = 24, 14, 4
AFFINE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
SCENES: dict[str, Any] = {
    "name": "scenes",
    "task": "segment",
    "source": {"kind": "netcdf", "path": "tiny.nc", "bands": ["red", "nir"], "scale": 0.001, "nodata": 0, "crs": "EPSG:32635",
               "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0]},
    "labels": {"kind": "points", "path": "points.csv"},
}  # fmt: skip
REGRESS: dict[str, Any] = {
    "name": "tiny",
    "task": "regress",
    "source": {"kind": "windows", "cube": "runs/scenes/cube", "bands": ["nir", "red"], "window_px": 3, "block_px": BLOCK,
               "start": "2020-01-01", "stop": "2021-01-01", "steps": 10, "every_px": 2},
    "labels": {"kind": "raster", "path": "height.tif"},
    "number": {"name": "height", "unit": "m", "valid_range": [0, 30]},
    "split": {"folds": 2},
    "model": {"kind": "cnn_gru", "hidden": 16, "widths": [8], "dropout": 0.0},
    "training": {"epochs": 16, "batch": 16, "learning_rate": 0.02, "accelerator": "cpu"},
    "evaluation": {"references": ["mean"], "min_r2": 0.6},
    "prediction": {"explain": 2, "map": True},
}  # fmt: skip
CLASSIFY = {
    **REGRESS, "task": "classify", "labels": {"kind": "points", "path": "points.csv"},
    "evaluation": {"references": ["commonest"]},
    "source": {**REGRESS["source"], "window_px": 1}, "training": {**REGRESS["training"], "epochs": 8},
}  # fmt: skip
del CLASSIFY["number"]


@pytest.fixture
def truth(here: Path) -> np.ndarray:
    """`tiny.nc`, ingested, `height.tif` and `points.csv` in the working folder; the true height of every pixel.

    The height is the amplitude of the season, not the level, so that no single date shows it; one pixel is never seen.
    """
    rng = np.random.default_rng(0)
    height = np.kron(rng.uniform(2, 28, (SIDE // 2, SIDE // 2)), np.ones((2, 2)))
    times = np.datetime64("2020-01-05", "ns") + np.arange(DATES) * np.timedelta64(25, "D")
    wave = np.cos(np.linspace(0, 4 * np.pi, DATES))[:, None, None]
    clouded = rng.random((DATES, SIDE, SIDE)) < 0.2
    clouded[:, 8, 12] = True
    bands = {}
    for band, sign in (("red", -1), ("nir", 1)):
        values = 600 + sign * 12 * height * wave + rng.normal(0, 20, (DATES, SIDE, SIDE))
        bands[band] = (("time", "y", "x"), np.where(clouded, 0, values.clip(1)).astype("uint16"))
    axes = {"y": 5e6 - 10 * (np.arange(SIDE) + 0.5), "x": 5e5 + 10 * (np.arange(SIDE) + 0.5)}
    xr.Dataset(bands, {"time": times, **axes}).to_netcdf("tiny.nc", engine="h5netcdf")
    known = height.astype("float32").copy()
    known[:, SIDE - BLOCK :] = -1  # a strip of whole blocks of which nothing is known
    with rasterio.open("height.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="float32", crs="EPSG:32635",
                       transform=AFFINE, nodata=-1) as raster:  # fmt: skip
        raster.write(known, 1)
    rows, columns = rng.integers(0, SIDE, (2, 200))
    lon, lat = transform("EPSG:32635", "EPSG:4326", 5e5 + 10 * (columns + 0.5), 5e6 - 10 * (rows + 0.5))
    names = ["high" if height[r, c] > 15 else "low" for r, c in zip(rows, columns, strict=True)]
    lines = [f"{x},{y},2020-01-01,2021-01-01,{name}" for x, y, name in zip(lon, lat, names, strict=True)]
    Path("points.csv").write_text("\n".join(["longitude,latitude,from,to,label", *lines]))
    carry_out("ingest", SCENES)
    return height


def test_numbers_of_a_made_cube_are_found_and_the_map_is_the_table(truth: np.ndarray) -> None:
    carry_out("run", REGRESS)
    evaluation = read_json("evaluation.json")
    assert evaluation["methods"]["model"]["r2"] > 0.8
    assert_the_curve_is_shown("mean_absolute_error", "mean absolute error")
    assert evaluation["details"]["methods"]["model"]["r2"]["basis"] == "30 blocks"
    assert "30 blocks of 4 x 4 pixels" in evaluation["protocol"]
    assert "2 folds of whole blocks" in evaluation["protocol"]
    assert "Windows reach 1 pixel into neighbouring blocks" in evaluation["protocol"]
    assert {clue["name"] for clue in evaluation["details"]["audit"]["clues"]} >= {"position", "missing share", "year"}
    for network in json.loads(Path("runs/tiny/model/model.json").read_text())["metadata"]["split"]["audit"]["networks"]:
        assert not set(network["test"]) & (set(network["train"]) | set(network["validation"]))
    with rasterio.open("runs/tiny/products/answer.tif") as raster:
        answer, tags, unit = raster.read(1), raster.tags(), raster.units[0]
        assert raster.transform == AFFINE
        assert raster.crs.to_epsg() == 32635
    with rasterio.open("runs/tiny/products/held_out.tif") as raster:
        held_out = raster.read(1)
    assert np.isnan(answer[8, 12])
    assert held_out[8, 12] == 255
    assert np.isfinite(np.delete(answer.ravel(), 8 * SIDE + 12)).all()
    assert (held_out[:, SIDE - BLOCK :] == 0).all()
    assert unit == "m"
    assert tags["DRIFTLINE_CUBE_SNAPSHOT"]
    rows = rows_of()
    assert len(rows) == SIDE * (SIDE - BLOCK) // 4 - 1
    for row in rows:
        at = int(row["sample"][1:6]), int(row["sample"][8:13])
        assert float(row["height"]) == pytest.approx(answer[at], abs=1e-3)
        assert float(row["known"]) == pytest.approx(truth[at], abs=1e-4)
        assert held_out[at] == 1
    unknown = np.abs(answer - truth)[:, SIDE - BLOCK :].mean()
    assert unknown < np.abs(truth - truth.mean()).mean() / 2  # where nothing was known
    item = json.loads(Path("runs/tiny/products/map.json").read_text())
    assert item["properties"]["proj:code"] == "EPSG:32635"
    assert set(item["assets"]) == {"answer", "held_out"}
    assert read_json("summary.json")["found"]["map"]["answered"] == pytest.approx(1 - 1 / SIDE**2)
    assert carry_out("run", REGRESS)["skipped"] is True
    used = {"name": "other", "labels": None, "model": {"use": "runs/tiny"}, "evaluation": {}}
    source = {key: REGRESS["source"][key] for key in ("kind", "cube", "bands", "start", "stop")}
    carry_out("run", {**REGRESS, **used, "source": {**source, "every_px": 5}})
    assert len(rows_of("other")) == 25
    assert {row["known"] for row in rows_of("other")} == {""}
    with rasterio.open("runs/other/products/answer.tif") as raster:
        np.testing.assert_allclose(raster.read(1)[:, SIDE - BLOCK :], answer[:, SIDE - BLOCK :], atol=1e-3)


def test_labels_of_points_are_found_and_mapped_with_their_confidence(truth: np.ndarray) -> None:
    carry_out("run", CLASSIFY)
    methods = read_json("evaluation.json")["methods"]
    assert methods["model"]["accuracy"] > max(0.8, methods["commonest"]["accuracy"])
    with rasterio.open("runs/tiny/products/class.tif") as raster, rasterio.open("runs/tiny/products/confidence.tif") as other:
        codes, confidence = raster.read(1), other.read(1)
    assert codes[8, 12] == 0
    assert np.isnan(confidence[8, 12])
    assert ((codes == 1) == (truth > 15))[codes > 0].mean() > 0.8  # high, low
    for row in rows_of():
        at = int(row["sample"][1:6]), int(row["sample"][8:13])
        assert ["high", "low"][codes[at] - 1] == row["label"]
        assert confidence[at] == pytest.approx(float(row["confidence"]), abs=1e-4)
    assert make_plan(open_invocation("tiny.yaml").run, "run")["steps"][0]["stage"] == "ingest"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": {"window_px": 4}}, "has no middle"),
        ({"source": {"scale": 0.1}}, "is what the cube states"),
        ({"source": {"bands": [{"name": "nir", "scale": 2.0}]}}, "described by the cube"),
        ({"source": {"start": None, "stop": None}}, "no dates of its own"),
        ({"frames": {"count": 3}}, "not for windows of a cube"),
        ({"split": {"test": "t10k"}}, "have no parts"),
        ({"labels": {"kind": "folders"}}, "does not fit windows of a cube"),
        ({"labels": {"kind": "raster", "path": "height.tif", "codes": {1: "a", 2: "b"}}}, "are of classes"),
        ({"source": {"kind": "files", "path": "."}}, "labels.kind: is of places"),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(here: Path, changes: dict[str, Any], said: str) -> None:
    Path("height.tif").touch()
    content = {**REGRESS, **changes}
    if "kind" not in changes.get("source", {"kind": ""}):
        content["source"] = {**REGRESS["source"], **changes["source"]}
    elif "source" in changes:
        content |= {"source": {**changes["source"], "bands": ["gray"]}, "prediction": {}}
    with pytest.raises(ConfigError, match=said):
        carry_out("run", content)


def test_a_cube_that_is_not_there_is_named(here: Path) -> None:
    Path("height.tif").touch()
    with pytest.raises(MissingInput, match=r"runs/scenes/cube.*driftline ingest"):
        carry_out("run", REGRESS)
