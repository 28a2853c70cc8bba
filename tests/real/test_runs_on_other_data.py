"""The ready-made runs on other people's data, whole, through the command line: MODIS over Mato Grosso and rain radar."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from pipelines.cube.store import open_cube

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("training.epochs=1", "model.hidden=[4]", "samples.stride=3")
QUICK += ("evaluation.baselines=[persistence, climatology]",)
pytestmark = pytest.mark.slow


def start(verb: str, name: str, source: Path, folder: Path, *options: str) -> dict:
    """`driftline VERB configs/NAME.yaml --json` with a training of a few seconds; what it printed."""
    changes = [f"source.path={source}", f"runs={folder}", *QUICK]
    command = [sys.executable, "-m", "flows.cli", verb, str(ROOT / "configs" / f"{name}.yaml"), "--json", *options]
    for change in changes:
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_summary(run: Path, name: str, leads: int, *moving: str) -> dict:
    """What people and programs find in `runs/NAME`; moving: baselines that joined by themselves."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["name"] == name
    methods = set(summary["methods"]) - {"combination"}  # which is there where validation finds several equal
    assert methods == {"model", "persistence", "climatology", *moving}
    assert [lead["lead"] for lead in summary["evaluation"]["metrics"]["model"]["by_lead"]] == list(range(1, leads + 1))
    assert {"outcomes", "must_beat", "is_publishable", "sentence", "margin"} <= set(summary["verdict"])
    assert json.loads((run / "split.json").read_text())["ok"]
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "train", "evaluate", "predict"]
    assert 0 <= summary["evaluation"]["intervals"]["overall"]["coverage"] <= 1
    for file in ("report.html", "quicklook.png", "products/collection.json", "model/model.safetensors"):
        assert (run / file).stat().st_size > 0
    return summary


def test_ndvi_of_modis(shared_data, tmp_path):
    source = shared_data("satellite/modis-sinop-by-date")
    printed = start("run", "sinop", source, tmp_path, "--even-if-worse")
    run = tmp_path / "sinop"
    check_summary(run, "sinop", leads=2)
    with rasterio.open(source / "TERRA_MODIS_NDVI_2014-08-29.jp2") as file:
        last, crs, transform = file.read(1).view("int16") * 1e-4, file.crs, file.transform
    cogs = sorted((run / "products").glob("*.tif"))
    assert all(cog_validate(path, quiet=True)[0] for path in cogs)
    assert [path.name for path in cogs] == ["forecast_2014-09-14.tif", "forecast_2014-09-30.tif"]
    with rasterio.open(cogs[0]) as file:
        assert file.crs == crs
        assert file.transform.almost_equals(transform)
        assert file.descriptions == ("ndvi", "ndvi_lower", "ndvi_upper")
        value, lower, upper = file.read()
    assert np.isfinite(value).all()
    assert (lower <= value).all()
    assert (value <= upper).all()
    assert upper.max() <= 1
    assert np.corrcoef(value.ravel(), last.ravel())[0, 1] > 0.9  # sixteen days after a dry season's day
    cube = open_cube(str(run / "cube"))
    np.testing.assert_array_equal(cube["image"].sel(band="NDVI").values[-1], np.round(last * 1e4))
    again = start("run", "sinop", source, tmp_path, "--even-if-worse")
    assert again["skipped"]
    assert again["snapshot"] == printed["snapshot"]


@pytest.mark.exhaustive
def test_rain_of_radar(shared_data, tmp_path):
    source = shared_data("satellite/radar-netherlands")
    start("run", "radar", source, tmp_path, "--even-if-worse")
    run = tmp_path / "radar"
    summary = check_summary(run, "radar", 6, "translation", "optical_flow", "moving_field")
    assert summary["products"]["issued_utc"] == "2010-08-26T04:55:00Z"
    cogs = sorted((run / "products").glob("forecast_*.tif"))
    assert [path.stem[-4:] for path in cogs] == ["0500", "0505", "0510", "0515", "0520", "0525"]
    item = json.loads(cogs[1].with_suffix(".json").read_text())
    assert item["properties"]["datetime"] == "2010-08-26T05:05:00Z"
    assert item["properties"]["forecast:horizon"] == "PT10M"
    with h5py.File(source / "RAD_NL25_RAP_5min_201008260455.h5") as file:
        stored = file["image1/image_data"][218:638, 160:580]  # the config's bounds, in the files' pixels
    means = np.where(stored == 65535, np.nan, stored).reshape(210, 2, 210, 2).mean(axis=(1, 3)) * 0.01
    with rasterio.open(cogs[0]) as file:
        assert file.units[0] == "mm"
        assert file.crs.to_dict()["proj"] == "stere"
        assert tuple(file.bounds) == (160000, -4288000, 580000, -3868000)
        rain, lower, _ = file.read()
    seen = np.isfinite(rain) & np.isfinite(means)
    assert seen.sum() == np.isfinite(means).sum()
    assert lower[seen].min() >= 0
    moved = np.roll(means, (-1, 4), (0, 1))  # the rain of five minutes ago, 8 km on to the east
    both = np.isfinite(rain) & np.isfinite(moved)
    assert np.corrcoef(rain[both], moved[both])[0, 1] > 0.95 > np.corrcoef(rain[seen], means[seen])[0, 1]
    cube = open_cube(str(run / "cube"))
    stored = cube["image"].isel(band=0).values[-1] * 0.01
    assert np.abs(stored - means)[seen].max() <= 0.0051  # the mean of four pixels, rounded to what the files store
