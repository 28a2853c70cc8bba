import json

import numpy as np
import pytest
import torch
import xarray as xr

from configs.tasks.forecast_baselines import describe_baselines, fitted_baseline, fitted_baselines, sentence_of
from models.baselines.pointwise import HarmonicRegression
from pipelines.errors import RequestError
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.prepare import SampleSettings
from pipelines.samples.variables import Variable

SPLIT = Split(9, 1, np.datetime64("2016-06-01"), np.datetime64("2017-01-01"))
SETTINGS = SampleSettings((Variable("red", "band", ("red",)),), SPLIT, Sampling(), context=3, horizon=2)
BEFORE = SPLIT.validation_until


def make_cube() -> xr.Dataset:
    """Monthly dates from 2015 on, 20 % of the pixels invalid."""
    rng = np.random.default_rng(0)
    image, valid = rng.integers(1, 10_000, (30, 1, 18, 18)).astype(np.uint16), rng.random((30, 18, 18)) > 0.2
    times = (np.datetime64("2015-01") + np.arange(30)).astype("datetime64[ns]")
    arrays = {"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)}
    cube = xr.Dataset(arrays, coords={"time": times, "band": ["red"]})
    bands = [{"name": "red", "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": ""}]
    cube["image"].attrs["bands"] = json.dumps(bands)
    return cube


def arguments(cube: xr.Dataset) -> dict[str, torch.Tensor]:
    days_N = torch.arange(30).double() * 30.4 + 16436
    issue = {"days_N": days_N, "context_T": torch.tensor([21, 22, 23]), "usable_N": torch.arange(30) <= 23}
    image = torch.from_numpy(cube["image"].values.astype(np.float32) * 1e-4)
    return {"x_NCHW": image, "valid_NHW": torch.from_numpy(cube["valid"].values), "target_days_K": days_N[24:26], **issue}


def test_what_comes_after_the_date_has_no_effect_on_the_fit_and_what_was_chosen_is_described():
    cube, changed = make_cube(), make_cube()
    changed["image"][changed["time"] >= BEFORE] = 9999
    names = ("climatology", "same_date_last_year", "median_anomaly", "gradient_boosting")
    fitted, again = (fitted_baselines(names, one, SETTINGS, BEFORE, seed=1) for one in (cube, changed))
    found = json.loads(json.dumps(describe_baselines(fitted)))
    assert found == json.loads(json.dumps(describe_baselines(again)))
    (channel,) = found["gradient_boosting"]["channels"]
    assert set(channel["ways"][0]) == {"formulation", "is_centred", "trees", "error"}
    assert "trees on the" in sentence_of(found["gradient_boosting"])
    for name in names:
        y_KCHW = fitted[name].forecast(**arguments(cube))
        assert torch.isfinite(y_KCHW).all(), name
        assert torch.equal(y_KCHW, again[name].forecast(**arguments(cube))), name


def test_what_needs_no_fit_needs_no_windows():
    early = np.datetime64("2015-02-01", "ns")
    assert fitted_baseline("harmonic", make_cube(), SETTINGS, early) == HarmonicRegression()
    with pytest.raises(RequestError, match="no baseline can be fitted"):
        fitted_baseline("climatology", make_cube(), SETTINGS, early)
