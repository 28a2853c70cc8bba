"""A small cube in memory, a small network with an exact halo, and one with an unbounded receptive field."""

import json

import numpy as np
import torch
import xarray as xr

from pipelines.inference.job import Prediction, plan_job
from pipelines.samples.variables import Variable
from pipelines.samples.windows import ForecastSteps

NDVI = Variable("ndvi", "normalized_difference", ("B8", "B4"), valid_range=(-1, 1))
RED = Variable("red", "band", ("B4",))


def make_cube(height: int, width: int, dates: int = 6, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    image = rng.integers(200, 6000, (dates, 3, height, width)).astype(np.uint16)
    valid = rng.random((dates, height, width)) > 0.3
    valid[:, 2, 3] = False  # one pixel is never valid
    time = np.datetime64("2020-01-01", "ns") + np.arange(dates) * np.timedelta64(10, "D")
    bands = [{"name": name, "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": "1"} for name in ("B3", "B4", "B8")]
    dataset = xr.Dataset(
        {"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)},
        coords={"time": time, "band": ["B3", "B4", "B8"], "y": -np.arange(height) * 10.0, "x": np.arange(width) * 10.0},
    )
    dataset["image"].attrs["bands"] = json.dumps(bands)
    dataset["image"].encoding["chunks"] = (1, 3, 16, 16)
    return dataset


class ConvForecaster(torch.nn.Module):
    """Two 3x3 convolutions over the context, one step ahead each; the halo is exact."""

    def __init__(self, context: int, targets: int, channels: int = 2, halo: tuple[int, int] | None = (2, 2)):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(context * channels, 16, 3, padding=1)
        self.second = torch.nn.Conv2d(16, targets * channels, 3, padding=1)
        self.targets, self.channels, self.halo, self.stride_px = targets, channels, halo, (1, 1)

    def halo_px(self, steps):
        return self.halo

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        seen_TCHW = torch.where((context_T >= 0)[:, None, None, None], x_NCHW[context_T.clamp(min=0)], 0)
        y = self.second(torch.tanh(self.first(seen_TCHW.flatten(0, 1)[None])))
        return y.unflatten(1, (self.targets, self.channels))[0]


class GlobalForecaster(ConvForecaster):
    """As ConvForecaster, plus the window's mean: its values depend on the size of the window."""

    def __init__(self, context: int, targets: int):
        super().__init__(context, targets, halo=None)

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        y = super().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        return y + x_NCHW.mean()


class PooledForecaster(ConvForecaster):
    """Pools by 4 and repeats: its cells are at multiples of 4, and a pixel depends on its own cell and the adjacent ones."""

    def __init__(self):
        super().__init__(3, 2, halo=(8, 8))
        self.stride_px = 4, 4

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        height, width = x_NCHW.shape[-2:]
        seen_CHW = x_NCHW[context_T.clamp(min=0)].flatten(0, 1)
        cells = torch.nn.functional.max_pool2d(torch.nn.functional.pad(seen_CHW, (0, -width % 4, 0, -height % 4)), 4)
        mixed = self.second(torch.tanh(torch.nn.functional.conv2d(cells[None], self.first.weight[:, :, 1:2, 1:2])))
        whole = mixed.repeat_interleave(4, -1).repeat_interleave(4, -2)[..., :height, :width]
        return whole.unflatten(1, (self.targets, self.channels))[0]


class Plus:
    """Intervals of a fixed half width."""

    def __init__(self, half: float):
        self.half = half

    def bounds(self, y_KCHW):
        return y_KCHW - self.half, y_KCHW + self.half


ARGUMENTS = {
    "snapshot": "SNAP",
    "variables": (NDVI, RED),
    "context_T": np.array([1, -1, 3]),
    "usable_N": np.array([True, True, False, True, False, False]),
    "target_days_K": np.array([18300.0, 18310.0]),
    "intervals": Plus(0.1),
}


def prediction_of(dataset, forecaster, folder, **changes) -> Prediction:
    """The prediction with `ARGUMENTS`, changed, into `folder`."""
    known = {**ARGUMENTS, **changes}
    steps = ForecastSteps(*(known.pop(name) for name in ("context_T", "usable_N", "target_days_K")), issue=3)
    job = plan_job(dataset, forecaster=forecaster, steps=steps, **known)
    return Prediction(job, dataset, forecaster, known["intervals"], folder)
