"""Fixtures of `small_forecasts`, which needs torch: pytest reads this file before it can skip what needs it."""

import numpy as np
import pytest


@pytest.fixture
def run(tmp_path):
    """`run(dataset, forecaster, tile_px=..., name=...)` predicts with fixed arguments and returns (staged, y_FHW)."""
    from pipelines.compute import Compute
    from pipelines.inference.predict import predict
    from tests.unit.inference.small_forecasts import prediction_of

    def start(dataset, forecaster, name="staging", workers=1, progress=None, **changes):
        prediction = prediction_of(dataset, forecaster, tmp_path / name, **changes)
        staged = predict(prediction, Compute(workers=workers), progress)
        return staged, np.stack([staged.read(field, slice(None)) for field in staged.fields])

    return start


@pytest.fixture
def cube():
    from tests.unit.inference.small_forecasts import make_cube

    return make_cube


@pytest.fixture
def conv():
    from tests.unit.inference.small_forecasts import ConvForecaster

    return ConvForecaster(3, 2)


@pytest.fixture
def unbounded():
    from tests.unit.inference.small_forecasts import GlobalForecaster

    return GlobalForecaster(3, 2)


@pytest.fixture
def pooled():
    from tests.unit.inference.small_forecasts import PooledForecaster

    return PooledForecaster()


@pytest.fixture
def predict_into():
    from tests.unit.inference.small_forecasts import prediction_of

    return prediction_of


@pytest.fixture
def default_arguments():
    from tests.unit.inference.small_forecasts import ARGUMENTS

    return dict(ARGUMENTS)
