"""An encoder-forecaster of ConvGRU layers: as `models.networks.encoder_forecaster`, with one state map per layer, not two.

The dates are constant input channels (season, elapsed, offset), since the cell has no input of its own for them; invalid
pixels keep their state. Shapes as in `models.blocks.forecast`.
"""

from dataclasses import dataclass

from models.blocks.forecast import TIME_FEATURES, Channels, described
from models.blocks.time_as_channels import TimeAsChannels
from models.cells.conv_gru import ConvGRU
from models.contract import Description


@dataclass(frozen=True)
class ConvGRUSettings:
    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    frame_dropout: float = 0.0  # fraction of context frames hidden in training
    feedback: bool = False  # the part that forecasts reads its last forecast

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "ConvGRUForecaster":
        return ConvGRUForecaster(ConvGRUForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class ConvGRUForecasterConfig(ConvGRUSettings, Channels):
    """What is needed to rebuild the network."""


class ConvGRUForecaster(TimeAsChannels):
    def __init__(self, config: ConvGRUForecasterConfig):
        encoder = ConvGRU(config.frame_channels + 1 + TIME_FEATURES, config.hidden, config.kernel, config.axes)
        known = config.future_channels + (config.outputs if config.feedback else 0)
        forecaster = ConvGRU(known + TIME_FEATURES, config.hidden, config.kernel, config.axes)
        super().__init__(encoder, forecaster, config.hidden[-1], config, config.frame_dropout, feedback=config.feedback)
        self.config = config

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target. Exact for `steps` = T + K.

        Every step from date to date and from layer to layer adds two convolutions (the candidate reads the output of the reset
        gate), except the first frame's into the first layer, where there is no state yet. A network that reads its forecasts adds
        those of all layers at every step, at most.
        """
        layers = len(self.config.hidden)
        radius = (self.config.kernel // 2) * (2 * layers * steps if self.config.feedback else 2 * (steps + layers) - 3)
        return (radius,) * self.axes

    def describe(self) -> Description:
        return {"kind": "convgru", **described(self.config)}
