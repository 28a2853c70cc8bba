"""What the networks of class maps share: their input, and the skeletons of those per pixel and of those with scales.

`forward(x_BTCHW, valid_BTHW, years_BT) -> logit_BKHW`. Time is years since the begin of the span: the calendar year would name
the season. What is not valid is 0 and marked, and a date without valid pixels has no effect, so sequences can be cut short.

Shapes: B batch, T dates, C variables, E = C + 1 channels with the mark, K classes, P pixels, D hidden, H rows, W columns (of
volumes slices, rows, columns).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from models.blocks.change import Decoder, Encoder, UNetShaped, padded, pooled
from models.contract import Description, Network

YEAR_DAYS = 365.25


@dataclass(frozen=True)
class SegmentConfig:
    """What every network of class maps needs to be rebuilt; `kind` names the network.

    axes: of space, 3 of volumes. year_days: how many days are a year to the network; of series of seconds and minutes their
    length, since in a true year all their times would be 0.
    """

    kind: str
    bands: int
    classes: int
    dropout: float = 0.1
    axes: int = field(default=2, kw_only=True)
    year_days: float = field(default=YEAR_DAYS, kw_only=True)


class SegmentNetwork(Network):
    """A network with a config of its own class; see the top of this file."""

    def __init__(self, config: SegmentConfig):
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """logit_BKHW. `x_BTCHW` is standardised, `valid_BTHW` bool, `years_BT` since the begin of the span."""

    def describe(self) -> Description:
        """See `models.segmenter.rebuild_network`. Of images in years without the two keys that came later."""
        usual = {"axes": 2, "year_days": YEAR_DAYS}
        return {name: value for name, value in asdict(self.config).items() if name not in usual or value != usual[name]}


def marked_frames(x_BTCHW: Tensor, valid_BTHW: Tensor) -> Tensor:
    """(B, T, E, H, W): the variables, 0 where not valid, and 1 where valid."""
    seen_BT1HW = valid_BTHW[:, :, None]
    return torch.cat([torch.where(seen_BT1HW, x_BTCHW, 0), seen_BT1HW.to(x_BTCHW.dtype)], dim=2)


class PixelNetwork(SegmentNetwork):
    """Every pixel by itself: `classify` gets rows of pixels."""

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.config.axes

    def halo_px(self, steps: int) -> tuple[int, ...]:
        return (0,) * self.config.axes

    @abstractmethod
    def classify(self, frames_PTE: Tensor, seen_PT: Tensor, years_PT: Tensor) -> Tensor:
        """logit_PK."""

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        batch, dates, _, *space = x_BTCHW.shape
        frames_PTE = marked_frames(x_BTCHW, valid_BTHW).movedim((1, 2), (-2, -1)).flatten(0, -3)
        seen_PT = valid_BTHW.movedim(1, -1).flatten(0, -2)
        years_PT = years_BT[:, None].expand(batch, math.prod(space), dates).flatten(0, 1).to(x_BTCHW.dtype)
        logit_PK = self.classify(frames_PTE, seen_PT, years_PT)
        logit_BHWK: Tensor = logit_PK.unflatten(0, (batch, *space))
        return logit_BHWK.movedim(-1, 1)


@dataclass(frozen=True)
class ScaledConfig(SegmentConfig):
    widths: tuple[int, ...] = (16, 32, 64)  # channels of each scale, finest first


class ScaledNetwork(UNetShaped, SegmentNetwork):
    """An encoder for every date, something that joins the dates at every scale, and a decoder (`models.blocks.change`)."""

    config: ScaledConfig

    def __init__(self, config: ScaledConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout, config.axes)
        self.decoder = Decoder(config.widths, config.widths, config.dropout, config.classes, config.axes)

    @abstractmethod
    def join_dates(self, features: Sequence[Tensor], seen: Sequence[Tensor], years_BT: Tensor) -> Sequence[Tensor]:
        """(B, D, H, W) per scale, finest first, from features (B, T, D, H, W) and seen (B, T, 1, H, W) per scale."""

    @abstractmethod
    def joining_flops(self, pixels: int, dates: int) -> int:
        """Operations of `join_dates` for one sample of `pixels` pixels at the finest scale."""

    @property
    def scales(self) -> int:
        return len(self.config.widths)

    @property
    def axes(self) -> int:
        return self.config.axes

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, dates, pixels = *shape[:2], self.padded_pixels(shape[3:])
        each = dates * self.encoder.flops(pixels) + self.joining_flops(pixels, dates) + self.decoder.flops(pixels)
        return batch * each

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        batch, dates, (height, width) = *x_BTCHW.shape[:2], x_BTCHW.shape[-2:]
        frames = marked_frames(padded(x_BTCHW, self.stride_px), padded(valid_BTHW, self.stride_px)).flatten(0, 1)
        features = [one.unflatten(0, (batch, dates)) for one in self.encoder(frames)]
        seen, mark = [], frames[:, -1:]
        for scale in range(len(features)):
            mark = mark if scale == 0 else pooled(mark)
            seen.append(mark.unflatten(0, (batch, dates)))
        logit_BKHW: Tensor = self.decoder(self.join_dates(features, seen, years_BT.to(x_BTCHW.dtype)))
        return logit_BKHW[..., :height, :width]


def mean_of_seen(features_BTDHW: Tensor, seen_BT1HW: Tensor) -> Tensor:
    """(B, D, H, W): the mean over dates on which a cell is seen; 0 where it never is."""
    return (features_BTDHW * seen_BT1HW).sum(1) / seen_BT1HW.sum(1).clamp(min=1)


# ---------------------------------------------------------------- attention over time


class TimeAttention(nn.Module):
    """The lightweight temporal attention of L-TAE: one learnt query a head instead of one per date.

    Garnot & Landrieu 2020, "Lightweight temporal self-attention for classifying satellite images time series",
    arXiv:2007.00586, section 2. Time enters as sines and cosines of the years since the begin of the span.
    """

    def __init__(self, inputs: int, width: int, heads: int, key: int = 8):
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"the width must be even and a multiple of the heads, got {width} and {heads}")
        self.heads, self.key, self.width = heads, key, width
        self.embed = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.keys = nn.Linear(width, heads * key)
        self.query_GD = nn.Parameter(torch.randn(heads, key) * math.sqrt(2 / key))

    def forward(self, x_PTE: Tensor, seen_PT: Tensor, years_PT: Tensor) -> tuple[Tensor, Tensor]:
        """(values_PTD, attention_PTG): what the dates hold, and the weight of each date for each head; sums over T are 1."""
        embedded_PTD = self.norm(self.embed(x_PTE))
        rate_F = math.pi * 2.0 ** torch.linspace(0, 6, self.width // 2, dtype=x_PTE.dtype, device=x_PTE.device)
        angle_PTF = years_PT[..., None] * rate_F
        timed_PTD = embedded_PTD + torch.cat([angle_PTF.sin(), angle_PTF.cos()], dim=-1)
        key_PTGD = self.keys(timed_PTD).unflatten(-1, (self.heads, self.key))
        score_PTG = (key_PTGD * self.query_GD).sum(-1) / math.sqrt(self.key)
        score_PTG = score_PTG.masked_fill(~seen_PT[..., None], -1e4)
        return embedded_PTD, torch.softmax(score_PTG, dim=1) * seen_PT[..., None]

    def linear_flops(self) -> int:
        """Operations for one pixel and date."""
        return 2 * (self.embed.weight.numel() + self.keys.weight.numel())
