"""A class map from config to result on a made series with a rare class, without a server: points, polygons and a raster."""

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
import yaml
from rasterio.warp import transform
from shapely.geometry import box

from flows.planning import make_plan
from flows.task import open_invocation
from pipelines.errors import NotPublished, RequestError
from tests.flows.small_runs import perform

LEAVES = ("summary.json", "report.html", "report.md", "quicklook.png", "evaluation.json", "model/model.safetensors",
          "products/collection.json", "products/class.tif", "products/class.tif.aux.xml", "products/confidence.tif",
          "products/classes.gpkg", "products/classes.geojson")  # fmt: skip
NAMES = ("forest", "crop", "pond")
SIDE, DATES = 40, 10
AFFINE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "segment",
    "source": {"kind": "netcdf", "path": "tiny.nc", "bands": ["red", "nir"], "scale": 0.001, "nodata": 0, "crs": "EPSG:32635",
               "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0]},
    "cube": {"chunk_px": 32, "workers": 1},
    "labels": {"kind": "points", "path": "points.csv"},
    "split": {"block_px": 5, "folds": 3},
    "model": {"kind": "l_tae", "hidden": 8, "heads": 2},
    "training": {"epochs": 8, "windows": 128, "accelerator": "cpu", "learning_rate": 0.02},
    "evaluation": {"margin": 0.05},
}  # fmt: skip
ALONE: dict[str, Any] = {"references": [], "must_equal": []}  # forests for each number of dates cost more than the network


def truth_of(rng: np.random.Generator) -> np.ndarray:
    """Patches of 4 x 4 pixels: forest and crop everywhere, ponds on 4 % of them."""
    patches = rng.choice(3, (SIDE // 4, SIDE // 4), p=[0.5, 0.46, 0.04])
    patches[1, 1] = patches[5, 7] = patches[8, 3] = patches[4, 2] = 2
    return np.kron(patches, np.ones((4, 4), int))


@pytest.fixture
def made(here: Path) -> np.ndarray:
    """`tiny.nc`, `points.csv`, `fields.gpkg`, `classes.tif` in the working folder; the true class of every pixel."""
    rng = np.random.default_rng(0)
    truth = truth_of(rng)
    phase = np.linspace(0, 2 * np.pi, DATES)[:, None, None]
    flat, wave = 0 * phase, np.cos(phase)
    courses = {"red": [300 + flat, 400 + 100 * wave, 200 + flat], "nir": [800 + flat, 500 - 300 * wave, 150 + flat]}
    times = np.datetime64("2020-03-01", "ns") + np.arange(DATES) * np.timedelta64(20, "D")
    clouded = rng.random((DATES, SIDE, SIDE)) < 0.15
    bands = {}
    for band, curves in courses.items():
        values = np.choose(truth, [np.broadcast_to(curve, (DATES, SIDE, SIDE)) for curve in curves])
        values = values + rng.normal(0, 60, values.shape)
        bands[band] = (("time", "y", "x"), np.where(clouded, 0, values.clip(1)).astype("uint16"))
    axes = {"y": 5e6 - 10 * (np.arange(SIDE) + 0.5), "x": 5e5 + 10 * (np.arange(SIDE) + 0.5)}
    xr.Dataset(bands, {"time": times, **axes}).to_netcdf("tiny.nc", engine="h5netcdf")
    rows, columns = rng.integers(0, SIDE, (2, 260))
    lon, lat = transform("EPSG:32635", "EPSG:4326", 5e5 + 10 * (columns + 0.5), 5e6 - 10 * (rows + 0.5))
    lines = [f"{x},{y},2020-01-01,2021-01-01,{NAMES[truth[r, c]]}" for x, y, r, c in zip(lon, lat, rows, columns, strict=True)]
    Path("points.csv").write_text("\n".join(["longitude,latitude,from,to,label", *lines, "0,0,2020-01-01,2021-01-01,crop"]))
    squares = [(r, c) for r in range(0, SIDE, 4) for c in range(0, SIDE, 8)]
    shapes = [box(5e5 + 10 * c, 5e6 - 10 * (r + 4), 5e5 + 10 * (c + 4), 5e6 - 10 * r) for r, c in squares]
    fields = {"label": [NAMES[truth[r, c]] for r, c in squares]}
    geopandas.GeoDataFrame(fields, geometry=shapes, crs="EPSG:32635").to_file("fields.gpkg")
    with rasterio.open("classes.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint8", crs="EPSG:32635",
                       transform=AFFINE) as raster:  # fmt: skip
        raster.write((truth + 1).astype("uint8"), 1)
    return truth


def write_config(**changes: Any) -> Path:
    path = Path("tiny.yaml")
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return path


def carry_out(verb: str, config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    return perform(open_invocation(config, overrides, **options), verb)


def read(name: str) -> Any:
    return json.loads((Path("runs/tiny") / name).read_text())


def test_a_run_maps_the_classes_the_rare_one_too_and_a_second_one_does_nothing(made: np.ndarray) -> None:
    config = write_config()
    carry_out("run", config)
    assert [name for name in LEAVES if not (Path("runs/tiny") / name).exists()] == []
    with rasterio.open("runs/tiny/products/class.tif") as raster:
        mapped, colours, tags = raster.read(1), raster.colormap(1), raster.tags()
    said = [sorted(NAMES)[code - 1] for code in mapped.ravel()]
    assert np.mean([name == NAMES[k] for name, k in zip(said, made.ravel(), strict=True)]) > 0.9
    assert tags["CLASS_3"] == "pond"
    assert colours[1] == (0xE6, 0x9F, 0x00, 255)
    evaluation, summary = read("evaluation.json"), read("summary.json")
    assert list(evaluation["methods"]) == ["model", "random_forest", "nearest_mean_curve"]
    assert evaluation["details"]["labels"]["dropped"].keys() >= {"outside", "duplicate"}
    areas = {row["class"]: row for row in summary["found"]["areas"]}
    assert areas["pond"]["low"] < 100 * np.count_nonzero(made == 2) < areas["pond"]["high"]
    patches = geopandas.read_file("runs/tiny/products/classes.gpkg")
    assert set(patches["class"]) == set(NAMES)
    assert patches["id"].is_unique
    report = Path("runs/tiny/report.html").read_text()
    for text in ("Accuracy by dates seen", "Class map", "metadata alone", "outside the grid", "cannot show"):
        assert text in report, text
    assert carry_out("run", config)["skipped"]


@pytest.mark.parametrize(
    "labels",
    [
        {"kind": "polygons", "path": "fields.gpkg"},
        pytest.param(
            {"kind": "raster", "path": "classes.tif", "codes": {1: "forest", 2: "crop", 3: "pond"}}, marks=pytest.mark.exhaustive
        ),
    ],
)
def test_polygons_and_rasters_teach_networks_over_space(made: np.ndarray, labels: dict[str, Any]) -> None:
    model = {"kind": "unet_convgru", "widths": [4, 8]}
    training = {**TINY["training"], "windows": 96, "batch": 8, "window_px": 12, "epochs": 6, "loss": "focal"}
    config = write_config(
        labels={**labels, "start": "2020-01-01", "stop": "2021-01-01"},
        model=model,
        training=training,
        split={"block_px": 8, "folds": 2},
        evaluation=ALONE,
    )
    steps = make_plan(open_invocation(config).run, "run")["steps"]
    assert [step["stage"] for step in steps] == ["ingest", "train", "evaluate", "predict"]
    shorter = make_plan(open_invocation(config, ["labels.stop=2020-05-01"]).run, "run")
    assert (shorter["extent"]["dates"], shorter["steps"][1]["what"]) == (DATES, "at most 2 x 6 epochs of 4 dates")
    assert shorter["steps"][1]["seconds"] < steps[1]["seconds"]
    carry_out("ingest", config)
    carry_out("train", config)
    carry_out("evaluate", config)
    assert read("evaluation.json")["methods"]["model"]["accuracy"] > 0.6


@pytest.mark.exhaustive
def test_labels_that_the_year_gives_away_are_confounded_until_the_user_insists(made: np.ndarray) -> None:
    lines = Path("points.csv").read_text().splitlines()
    years = {"forest": ("2020-02-01", "2020-06-15"), "crop": ("2020-06-15", "2021-01-01"), "pond": ("2020-06-15", "2021-01-01")}
    dated = [line.replace("2020-01-01", years[name][0]).replace("2021-01-01", years[name][1])
             for line in lines[1:] if (name := line.split(",")[-1])]  # fmt: skip
    Path("points.csv").write_text("\n".join([lines[0], *dated]))
    training = {**TINY["training"], "epochs": 4}
    config = write_config(labels={**TINY["labels"], "classes": ["forest", "crop"]}, evaluation=ALONE, training=training)
    with pytest.raises(NotPublished, match="--even-if-confounded publishes it and says so"):
        carry_out("run", config)
    verdict = read("summary.json")["verdict"]
    assert "date" in verdict["confounded_by"]
    assert not verdict["is_publishable"]
    assert not Path("runs/tiny/products").exists()
    with pytest.raises(NotPublished):
        carry_out("run", config, even_if_worse=True)
    carry_out("run", config, even_if_confounded=True)
    assert read("summary.json")["products"]["even_if_confounded"]
    assert "CONFOUNDED: date" in Path("runs/tiny/report.html").read_text()


def test_a_changed_label_file_asks_for_another_training(made: np.ndarray) -> None:
    config = write_config(training={**TINY["training"], "epochs": 1})
    carry_out("ingest", config)
    carry_out("train", config)
    Path("points.csv").write_text("\n".join(Path("points.csv").read_text().splitlines()[:-20]))
    with pytest.raises(RequestError, match=r"points.csv has changed since the model was trained"):
        carry_out("evaluate", config)


@pytest.mark.exhaustive
def test_a_search_scores_the_labels_of_the_blocks_that_validate(made: np.ndarray) -> None:
    pytest.importorskip("optuna", reason="needs driftline[sweep]")
    config = write_config(sweep={"space": {"training.window_px": [4]}, "trials": 1})
    result = carry_out("sweep", config)
    figures = result["best"]["figures"]
    assert list(figures) == ["accuracy", "mean_f1", "validation_loss"]
    assert figures["accuracy"] > 0.7
