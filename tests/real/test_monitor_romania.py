"""The criteria of monitoring without labels, on the Romanian forest: threshold from the history alone, drops injected into stable
pixels, and the felling that the images show. What is measured and how: docs/monitoring.md."""

import numpy as np
import pytest
import xarray as xr

from pipelines.monitoring.calibration import calibrate
from pipelines.monitoring.detector import CHANGED, Calibration, Detector, Observations, monitoring
from pipelines.monitoring.evaluation import EvaluationSettings, evaluate_monitor
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum
from pipelines.sources.quality import SclMask

FILE = "satellite/sentinel2-romania/sentinel2_cube_subset_romania_10m.nc"
START = float(np.datetime64("2019-01-01", "D").astype(int))
WEST, EAST, ALL = slice(0, 50), slice(50, 100), slice(0, 100)


@pytest.fixture(scope="module")
def forest(shared_data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(NDVI, valid, days): SCL 4 and 5 only, 2 pixels away from all other classes, as in configs/demo.yaml."""
    settings = SclMask((4, 5), away_px=2)
    with xr.open_dataset(shared_data(FILE), engine="h5netcdf", mask_and_scale=False) as file:
        bands = {name: file[name].values for name in ("B2", "B3", "B4", "B8")}
        valid = np.stack([settings.usable(scl) for scl in file["SCL"].values])
        days = file["time"].values.astype("datetime64[s]").astype(np.float64) / 86400
    valid &= np.all([band > 0 for band in bands.values()], axis=0)
    near, red = bands["B8"].astype(np.float32), bands["B4"].astype(np.float32)
    ndvi = np.divide(near - red, near + red, out=np.zeros_like(near), where=valid)
    return ndvi, valid, days


def calibrated(forest, columns: slice) -> Detector:
    x, valid, days = forest
    detector = Detector(HarmonicModel(), Cusum(), Calibration(float("inf")), "down")
    return calibrate(detector, Observations(x[..., columns], valid[..., columns], days), false_alarms=10, start_day=START)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calibrated_on", "evaluated_on", "delay_of_large"),
    [(WEST, EAST, 56), (ALL, ALL, 56), (EAST, EAST, 61)],  # the east's own history asks for caution: 60 days, 2 false alarms
    ids=["west-east", "all", "east"],
)
def test_the_criteria_are_met(forest, calibrated_on, evaluated_on, delay_of_large):
    x, valid, days = forest
    result = evaluate_monitor(
        {"cusum": calibrated(forest, calibrated_on)},
        Observations(x[..., evaluated_on], valid[..., evaluated_on], days),
        START,
        EvaluationSettings(direction="down"),
    )
    found = result["methods"]["cusum"]
    assert result["stable_pixels"] > 2500
    assert found["false_alarms"]["per_1000_px_year"] <= 10
    assert found["drops"]["0.2"]["found"] >= 0.95
    assert found["drops"]["0.2"]["delay_days"][1] <= 75
    assert found["drops"]["0.4"]["found"] >= 0.99
    assert found["drops"]["0.4"]["delay_days"][1] <= delay_of_large
    for year in ("2019", "2020"):
        assert found["seen_in_images"][year]["pixels"] > 200
        assert found["seen_in_images"][year]["found"] >= 0.95


def test_felling_is_dated_and_the_hazy_date_that_was_labelled_clear_is_not(forest):
    """2020-09-03 is haze over half the raster; at most a date among others, it must not be where runs of evidence begin."""
    x, valid, days = forest
    detector = Detector(HarmonicModel(), Cusum(), Calibration(9.0), "down")
    past = days < START
    fitted = detector.fit(x[past], valid[past], days[past])
    layers = detector.layers(fitted, monitoring(detector, fitted, x[~past], valid[~past], days[~past]))
    is_changed = layers["status"] == CHANGED
    assert 500 < is_changed.sum() < 1500
    assert np.median(layers["magnitude"][is_changed]) < -0.15
    assert (layers["change_day"][is_changed] >= START).all()
    assert (layers["change_day"][is_changed] <= layers["detected_day"][is_changed]).all()
    hazy = float(np.datetime64("2020-09-03", "D").astype(int))
    assert (np.floor(layers["detected_day"][is_changed]) == hazy).mean() < 0.1
