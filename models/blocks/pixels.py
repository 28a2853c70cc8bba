"""What the networks of single pixels of binary images share: each pixel is 0 or 1, given those before it in raster order.

    p(x) = product over i of p(x_i | x_1 ... x_{i-1})

(rows from the top, in a row from the left), so the probability of an image is known, and images can be drawn and completed
pixel by pixel without an approximation. Larochelle & Murray 2011, "The neural autoregressive distribution estimator"; van den
Oord et al. 2016, "Pixel recurrent neural networks", arXiv:1601.06759.

`forward(x_BHW) -> logit_BHW` reads whole images, in training; `logit_at` is the same at one pixel, in drawing. Shapes: B images,
H rows, W columns; x is float, 0 or 1.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from models.contract import Description, Halo, Network

PixelState = tuple[Tensor, ...]  # what a network keeps of the pixels before


@dataclass(frozen=True)
class PixelConfig:
    """What every network of pixels needs to be rebuilt; `kind` names the network."""

    kind: str
    height: int
    width: int


class PixelNetwork(Network):
    """The logit of every pixel depends on those before it alone."""

    def __init__(self, config: PixelConfig):
        super().__init__()
        self.config = config

    @abstractmethod
    def logits(self, x_BHW: Tensor) -> Tensor:
        """logit_BHW of images that have the size of the config."""

    @abstractmethod
    def start(self, x_BHW: Tensor) -> PixelState:
        """The state before the first pixel."""

    @abstractmethod
    def logit_at(self, x_BHW: Tensor, y: int, x: int, state: PixelState) -> tuple[Tensor, PixelState]:
        """(logit_B of that pixel, state for the next one); called at every pixel in raster order, and reads earlier ones only."""

    def forward(self, x_BHW: Tensor) -> Tensor:
        """logit_BHW. Raises ValueError for images of another size."""
        expected = self.config.height, self.config.width
        if x_BHW.ndim != 3 or tuple(x_BHW.shape[1:]) != expected:
            raise ValueError(f"expected images of {expected[0]} x {expected[1]} pixels (B, H, W), got {tuple(x_BHW.shape)}")
        return self.logits(x_BHW)

    @property
    def stride_px(self) -> tuple[int, ...]:
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        return None

    def describe(self) -> Description:
        return asdict(self.config)

    @abstractmethod
    def image_flops(self) -> int:
        """Operations of `forward` for one image."""

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        return shape[0] * self.image_flops()
