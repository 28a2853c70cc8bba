"""A series that rain and elevation drive, as a run: with them the error falls to the noise, without them it does not."""

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from pipelines.errors import RequestError
from tests.flows.small_runs import carry_out, read_json

NOISE = 0.01
FIRST, DAYS, DATES, SIDE = np.datetime64("2018-01-01"), 1100, 180, 24
COVARIATES = {
    "static": [{"name": "elevation", "path": "dem.tif", "unit": "m"}],
    "drivers": [
        {"name": "rain", "path": "rain.csv", "summary": "sum", "known": "future", "unit": "mm"},
        {"name": "herd", "path": "rain.csv", "value_column": "herd", "known": "past"},
    ],
}
DRIVEN = {
    "name": "driven",
    "source": {"kind": "netcdf", "path": "driven.nc", "bands": ["red"], "scale": 0.0001, "crs": "EPSG:32635",
               "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0]},
    "cube": {"chunk_px": 32, "workers": 1},
    "samples": {"variables": [{"name": "red", "bands": ["red"]}], "context": 3, "horizon": 1},
    "covariates": COVARIATES,
    "split": {"block_px": 8, "buffer_px": 3, "validation_from": "2019-09-01", "test_from": "2020-03-01"},
    "model": {"hidden": [8], "kernel": 1, "members": 1, "baseline": "none"},
    "training": {"epochs": 10, "batch": 32, "learning_rate": 0.03, "accelerator": "cpu", "patience": 30},
    "evaluation": {"baselines": ["persistence", "gradient_boosting"]},
    "prediction": {"tile_px": 32},
}  # fmt: skip


def write_rain(rain: np.ndarray, days: int) -> None:
    with Path("rain.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "value", "herd"])
        rows.writerows([FIRST + day, f"{rain[day]:.3f}", day % 7] for day in range(days))


def write_driven() -> np.ndarray:
    """The daily rain. Values: 0.3 + 0.004 x (rain since the date before) x (1.5 - elevation in km), and noise."""
    rng = np.random.default_rng(0)
    rain = rng.uniform(0, 20, DAYS)
    elevation = np.add.outer(np.linspace(0, 1, SIDE), np.linspace(0, 0.4, SIDE))
    at = np.cumsum(rng.choice([3, 5, 8], DATES)) + 8  # irregular
    sums = np.array([rain[start:stop].sum() for start, stop in zip([at[0] - 8, *at[:-1]], at, strict=True)])
    image = 0.1 + 0.004 * sums[:, None, None] * (1.5 - elevation) + rng.normal(0, NOISE, (DATES, SIDE, SIDE))
    times = (FIRST + at.astype("timedelta64[D]")).astype("datetime64[ns]")
    axes = {name: at * 10 * (np.arange(SIDE) + 0.5) + start for name, at, start in (("y", -1, 5e6), ("x", 1, 5e5))}
    data = xr.Dataset({"red": (("time", "y", "x"), (image * 10000).astype("uint16"))}, {"time": times, **axes})
    data.to_netcdf("driven.nc", engine="h5netcdf")
    shape = {"height": SIDE, "width": SIDE, "count": 1, "dtype": "float32"}
    transform = Affine(10, 0, 500000, 0, -10, 5000000)
    with rasterio.open("dem.tif", "w", driver="GTiff", crs="EPSG:32635", transform=transform, **shape) as file:
        file.write((1000 * elevation).astype("float32"), 1)
    write_rain(rain, DAYS)
    return rain


@pytest.mark.slow
def test_with_what_drives_a_series_the_error_falls_to_the_noise(here: Path) -> None:
    rain = write_driven()
    carry_out("run", DRIVEN)
    evaluation = read_json("evaluation.json", "driven")
    errors = {name: one["overall"]["mae"] for name, one in evaluation["details"]["metrics"].items()}
    floor = NOISE * np.sqrt(2 / np.pi)
    assert errors["model"] < 1.5 * floor, errors
    assert errors["gradient_boosting"] < 0.65 * errors["boosting_without_covariates"], errors
    assert errors["boosting_without_covariates"] > 4 * floor, errors
    trained = read_json("stages/train.json", "driven")
    assert [(one["name"], one["kind"], one["missing"]) for one in trained["covariates"]] == [
        ("elevation", "static", 0.0), ("rain", "future", 0.0), ("herd", "past", 0.0)
    ]  # fmt: skip
    report = (Path("runs/driven") / "report.md").read_text()
    assert "With covariates the mean absolute error of gradient boosting is on the validation part" in report
    assert "with rain as recorded up to each target date" in report
    assert "rain (sum of each step, known future)" in read_json("summary.json", "driven")["computed"]["covariates"]

    check_weather_that_is_added_trains_nothing(rain)
    check_a_future_that_is_missing(rain)
    check_another_model_is_refused()
    check_a_method_that_needs_no_future_is_published_without(rain)


def check_a_method_that_needs_no_future_is_published_without(rain: np.ndarray) -> None:
    write_rain(rain, DAYS)
    asked = {"baselines": ["persistence"], "margin": 0.99}
    assert carry_out("run", DRIVEN, evaluation=asked)["method"] == "persistence"
    last = xr.open_dataset("driven.nc", engine="h5netcdf")["time"].values[-1]
    write_rain(rain, int((last - FIRST) / np.timedelta64(1, "D")) + 3)
    done = carry_out("predict", DRIVEN, evaluation=asked)
    assert (done["method"], done["skipped"]) == ("persistence", False)
    assert "as recorded up to each target date" not in (Path("runs/driven") / "report.md").read_text()


def check_weather_that_is_added_trains_nothing(rain: np.ndarray) -> None:
    before = read_json("stages/train.json", "driven")["model_hash"]
    write_rain(rain, DAYS - 20)
    assert carry_out("run", DRIVEN)["skipped"] is False, "predicted again"
    assert read_json("stages/train.json", "driven")["model_hash"] == before


def check_a_future_that_is_missing(rain: np.ndarray) -> None:
    last = xr.open_dataset("driven.nc", engine="h5netcdf")["time"].values[-1]
    write_rain(rain, int((last - FIRST) / np.timedelta64(1, "D")) + 3)
    with pytest.raises(RequestError, match=r"the driver rain has no value for the target .* `missing: climatology`"):
        carry_out("predict", DRIVEN)
    drivers = [COVARIATES["drivers"][0] | {"missing": "climatology"}, COVARIATES["drivers"][1]]
    carry_out("predict", DRIVEN, covariates=COVARIATES | {"drivers": drivers})
    notes = read_json("stages/predict.json", "driven")["notes"]
    assert [note for note in notes if "the driver rain ends on" in note and "scores and intervals" in note]


def check_another_model_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"trained with the covariates elevation, rain, herd, the config's .* names elevation, rain"
    ):
        carry_out(
            "run",
            DRIVEN,
            name="other",
            model={"use": "runs/driven"},
            covariates=COVARIATES | {"drivers": COVARIATES["drivers"][:1]},
        )
