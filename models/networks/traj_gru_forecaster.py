"""An encoder-forecaster of TrajGRU layers: as `models.networks.conv_gru_forecaster`, but a layer's state moves.

Every layer estimates from its input and state where each of its links comes from (Shi et al. 2017, arXiv:1706.03458), so what
drifts is carried along instead of being convolved away. Shapes as in `models.blocks.forecast`.
"""

import math
from dataclasses import dataclass

from models.blocks.forecast import TIME_FEATURES, Channels, described
from models.blocks.time_as_channels import TimeAsChannels
from models.cells.traj_gru import FLOW_RADIUS, TrajGRU
from models.contract import Description


@dataclass(frozen=True)
class TrajGRUSettings:
    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    links: int = 5
    max_flow: float = 4.0  # pixels per step along each axis
    frame_dropout: float = 0.0  # fraction of context frames hidden in training
    feedback: bool = False  # the part that forecasts reads its last forecast

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "TrajGRUForecaster":
        return TrajGRUForecaster(TrajGRUForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class TrajGRUForecasterConfig(TrajGRUSettings, Channels):
    """What is needed to rebuild the network."""


class TrajGRUForecaster(TimeAsChannels):
    def __init__(self, config: TrajGRUForecasterConfig):
        encoder, forecaster = (
            TrajGRU(
                inputs + TIME_FEATURES, config.hidden, config.kernel, config.axes, links=config.links, max_flow=config.max_flow
            )
            for inputs in (config.frame_channels + 1, config.future_channels + (config.outputs if config.feedback else 0))
        )
        super().__init__(encoder, forecaster, config.hidden[-1], config, config.frame_dropout, feedback=config.feedback)
        self.config = config

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target, for `steps` = T + K.

        From step to step a state reaches as far as the flow is long or as its two convolutions see, from layer to layer as far as
        these or the gates' convolution. A network that reads its forecasts goes through all layers at every step, at most.
        """
        in_time = max(FLOW_RADIUS, math.ceil(self.config.max_flow))
        in_depth = max(FLOW_RADIUS, self.config.kernel // 2)
        layers = len(self.config.hidden)
        if self.config.feedback:
            return (steps * (max(in_time, in_depth) + (layers - 1) * in_depth),) * self.config.axes
        return (in_time * (steps - 1) + in_depth * layers,) * self.config.axes

    def describe(self) -> Description:
        return {"kind": "trajgru", **described(self.config)}
