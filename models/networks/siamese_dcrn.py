"""Siamese DCRN: one encoder for every date, a recurrent layer across the dates at every scale, a decoder to full resolution.

The recurrence over convolutional features is that of ReCNN (Mou, Bruzzone & Zhu 2018, arXiv:1803.02642) and SiamCRNN (Chen, Wu,
Du & Zhang 2019, arXiv:1908.06632): there a patch gives one vector per date and one decision, so their recurrent layer is fully
connected; here every cell of every scale is such a vector, which is the same layer as a 1 x 1 convolution
(`kernel` 1, the default), and the decoder joins the scales. With `kernel` 3 the states of adjacent cells are read too.

The recurrent layer is a ConvLSTM, a ConvGRU or the DCRN layer. Cells without valid pixels keep their state: a date without
valid pixels has no effect.

The days between the dates are not used: with few labelled sites they would identify the site.

Shapes: B batch, T >= 2 dates, C bands, H rows, W columns, D channels of a scale.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig, padded, seen_by_scale, series_frames
from models.cells.conv_gru import ConvGRU
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN
from models.contract import Description

Date = tuple[list[Tensor], list[Tensor]]  # per scale, finest first: features_BDHW, seen_B1HW


@dataclass(frozen=True)
class SiameseDCRNConfig(NetworkConfig):
    """What is needed to rebuild the network."""

    recurrence: str = "convlstm"  # "convlstm" | "convgru" | "dcrn"
    kernel: int = 1  # of the recurrent layer, odd


class SiameseDCRN(ChangeNetwork):
    """See the module's docstring. Works on images of any size; windows must start at multiples of `stride_px`."""

    config: SiameseDCRNConfig

    def __init__(self, config: SiameseDCRNConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.recurrences = nn.ModuleList(recurrent_layer(config.recurrence, width, config.kernel) for width in config.widths)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def lateral_cells(self, dates: int) -> int:
        """Radius in cells; with `kernel` 1 independent of `dates`."""
        return recurrent_radius(self.config.recurrence, self.config.kernel, dates)

    def lateral_layers(self) -> Sequence[nn.Module]:
        """One recurrent layer per scale."""
        return tuple(self.recurrences)

    def describe(self) -> Description:
        """See `models.change_networks.rebuild_network`."""
        return {"kind": "siamese_dcrn", **asdict(self.config)}

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
        """logit_B1HW of change between the first and the last date, float32.

        `x_BTCHW` float32, normalised per site, ignored where `valid_BTHW` (bool) is False; `elapsed_BT` days since the previous
        date. Raises ValueError for fewer than two dates.
        """
        frames_BTEHW = padded(series_frames(x_BTCHW, valid_BTHW, "siamese_dcrn"), self.stride_px)
        dates: Iterable[Date] = (self._encode(frames_BTEHW[:, t]) for t in range(frames_BTEHW.shape[1]))
        ends = self._read(dates)  # one date in memory at a time without gradients
        logit_B1HW: Tensor = self.decoder(ends)
        return logit_B1HW[..., : x_BTCHW.shape[-2], : x_BTCHW.shape[-1]]

    def _encode(self, frame_BEHW: Tensor) -> Date:
        return self.encoder(frame_BEHW), seen_by_scale(frame_BEHW[:, -1:], len(self.config.widths))

    def _read(self, dates: Iterable[Date]) -> list[Tensor]:
        """The recurrent layers' output h_BDHW at every scale after the last of `dates`."""
        recurrences: list[Any] = list(self.recurrences)
        scales = range(len(recurrences))
        ends: list[Any] = [None for _ in scales]
        states: list[Any] = [None for _ in scales]
        for features, seen in dates:
            for s in scales:
                ends[s], states[s] = recurrences[s].step(features[s], states[s], valid_B1HW=seen[s])
        return ends


def recurrent_layer(kind: str, width: int, kernel: int) -> ConvLSTM | ConvGRU | DCRN:
    """One layer of `width` channels in and out. Raises ValueError for an unknown kind."""
    match kind:
        case "convlstm":
            return ConvLSTM(width, [width], kernel)
        case "convgru":
            return ConvGRU(width, [width], kernel)
        case "dcrn":
            return DCRN(width, [width], kernel)
    raise ValueError(f"expected the recurrence 'convlstm', 'convgru' or 'dcrn', got {kind!r}")


def recurrent_radius(kind: str, kernel: int, dates: int) -> int:
    """Radius, in cells, of a layer's last output in the first of `dates`.

    Every date adds one convolution; two for a GRU, whose candidate reads the states selected by its reset gate, except the
    first date, before which there is no state.
    """
    return (kernel // 2) * (2 * dates - 1 if kind == "convgru" else dates)
