"""A finished prediction on a small UTM grid, and an evaluation in the form that learning writes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.grid import Grid
from pipelines.inference.regions import Regions
from pipelines.inference.staging import Field, Staged
from pipelines.products.cog import Lineage
from pipelines.tiles import Box

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))  # made_dicom: importlib mode does not add test folders

DATES = [np.datetime64("2020-06-15", "ns"), np.datetime64("2020-06-25T10:05", "ns")]


@pytest.fixture
def dates():
    return list(DATES)


@pytest.fixture
def lineage():
    return Lineage("SNAP", "MODEL", "CONFIG", "0.1.0", "2020-06-05T00:00:00Z", ("scene a", "scene <b>"))


@pytest.fixture
def make_staged(tmp_path):
    """`make_staged((rows, columns))` is (staged, grid) with fields forecast, lower, upper at two dates."""

    def make(shape_yx=(40, 60), crs="EPSG:32635"):
        folder, whole = tmp_path / "staging", Box.whole(shape_yx)
        fields = tuple(Field(k, "ndvi", role) for k in range(2) for role in ("forecast", "lower", "upper"))
        staged = Staged(Regions(str(folder), "key", tuple(field.plane for field in fields), shape_yx, (whole,)), fields)
        staged.regions.begin()
        rng = np.random.default_rng(0)
        blocks = {}
        for number, field in enumerate(fields):
            blocks[field.plane] = rng.random(shape_yx).astype(np.float32) * 0.1 + number
            blocks[field.plane][:3, :5] = np.nan
        with staged.regions.writing(whole) as writer:
            writer.write(whole, blocks)
        return staged, Grid(crs, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), shape_yx)

    return make


def scores(value: float) -> dict:
    return {"mae": value, "rmse": value * 1.3, "bias": -value / 10, "ssim": 1 - value, "pixels": 1000}


def series(first: float) -> dict:
    return {"overall": scores(first), "by_lead": [{"lead": k, **scores(first + k / 100)} for k in (1, 2, 3)]}


def skill(value: float) -> dict:
    outcome = "beats" if value > 0.05 else "not distinguishable"
    one = {"skill": value, "low": value - 0.05, "high": value + 0.05, "dates": 12, "outcome": outcome}
    return {"overall": one, "by_lead": [{"lead": k, **one} for k in (1, 2, 3)]}


@pytest.fixture
def evaluation():
    lead = {"coverage": 0.88, "coverage_mean_of_dates": 0.87, "missed_above": 0.06, "mean_width": 0.3, "pixels": 1000}
    return {
        "model": "model",
        "metrics": {"model": series(0.05), "persistence": series(0.1), "climatology": series(0.055)},
        "skill": {"persistence": skill(0.4), "climatology": skill(0.02)},
        "verdict": {
            "outcomes": {"persistence": "beats", "climatology": "not distinguishable"},
            "must_beat": ["persistence"],
            "best_baseline": "climatology",
            "is_publishable": True,
            "sentence": "The model beats persistence and cannot be told apart from climatology.",
        },
        "intervals": {
            "nominal": 0.9,
            "calibration_dates": 18,
            "is_bounded": True,
            "overall": lead,
            "by_lead": [{"lead": k, **lead} for k in (1, 2, 3)],
        },
        "protocol": "how it was measured",
    }
