"""A small recurrent forecaster and windows of drifting noise with gaps, for tests of what training shows it."""

import torch

from models.networks.encoder_forecaster import ConvLSTMSettings
from models.networks.predrnn_forecaster import PredRNNSettings
from models.residual_forecaster import ResidualForecaster, Scaling, build_forecaster
from pipelines.learning.epoch_batches import Batch

CONTEXT, HORIZON, SIDE = 4, 3, 8
NETWORKS = {
    "predrnn": PredRNNSettings((4, 4), frame_dropout=0.1),
    "feedback": ConvLSTMSettings((4,), dropout=0.2, feedback=True),
    "without": ConvLSTMSettings((4,)),
}


def build(network: str) -> ResidualForecaster:
    scaling = Scaling((0.0,), (1.0,), ("none",), 1.0)
    return build_forecaster(None, scaling, context=CONTEXT, horizon=HORIZON, network=NETWORKS[network])


class FrameWindows:
    """`count` windows; a tenth of all pixels is missing, in the targets as NaN."""

    def __init__(self, forecaster: ResidualForecaster, count: int, seed: int):
        self.forecaster, self.count, self.seed = forecaster, count, seed

    @property
    def shapes(self) -> list[int]:
        return [0] * self.count

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None: ...

    def gather(self, indices: list[int]) -> Batch:
        windows = [self.window(i) for i in indices]
        return {name: torch.stack([one[name] for one in windows]) for name in windows[0]}

    def window(self, index: int) -> Batch:
        generator, steps = torch.Generator().manual_seed(1000 * self.seed + index), CONTEXT + HORIZON
        first = torch.randn(1, SIDE, SIDE, generator=generator)
        x_NCHW = torch.stack([first.roll(t, dims=-1) for t in range(steps)])
        valid_NHW, days_N = torch.rand(steps, SIDE, SIDE, generator=generator) > 0.1, torch.arange(steps).double()
        known, usable = torch.arange(CONTEXT), torch.ones(steps, dtype=torch.bool)
        batch = self.forecaster.prepare(x_NCHW, valid_NHW, days_N, known, usable, days_N[CONTEXT:])
        target = torch.where(valid_NHW[CONTEXT:, None], x_NCHW[CONTEXT:], torch.nan)
        return {**batch, "target_KCHW": target, "target_valid_KHW": valid_NHW[CONTEXT:]}
