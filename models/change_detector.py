"""A detector of labelled change: calibrated networks, fused with a calibrated change index, and a threshold.

A member's logit becomes a probability by sigmoid(scale x logit + bias) (Platt 1999), with two numbers per member fitted on
sites that the member was not trained on; the network's probability is the members' mean. The score of the change index becomes
one by a logistic curve of its logarithm, which keeps its order. The caller fits them, since that needs all sites, part by part.

Fusion is the geometric mean of the two, sqrt(p_network x p_index): high only where both are, which suppresses haze in the
index and errors of the network on unknown sites. It ranks pixels but is too small where the two disagree, so it is calibrated
once more, by two numbers on its logit that keep its order.

Shapes: B batch, T dates, C bands, H rows, W columns, M members.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.blocks.change import ChangeNetwork
from models.contract import Description, Halo, Network, common_stride, networks_of, total_flops, widest_halo

SMALLEST_SCORE = 1e-6  # lower bound of a score of the change index: the logarithm of 0 is not finite
SHORTEST_SERIES = 2  # minimum number of valid dates of a pixel


def elapsed_days(days_T: Tensor) -> Tensor:
    """Days since the previous date, 0 for the first; float32, any leading shape."""
    return torch.diff(days_T, prepend=days_T[..., :1], dim=-1).float()


class ChangeDetector(Network):
    """See the module's docstring. All members have one architecture; `fuse_with` names the change index, or is "none".

    Until `calibrate_member`, `calibrate_index` and `calibrate_fusion` the scales are 1 and the biases 0; until
    `set_threshold` the threshold is 0.5.
    """

    scale_M: Tensor
    bias_M: Tensor
    index_scale_bias: Tensor
    fusion_scale_bias: Tensor
    threshold_value: Tensor

    def __init__(self, members: Sequence[ChangeNetwork], *, fuse_with: str = "change_vector"):
        super().__init__()
        if not members:
            raise ValueError("a detector needs at least one member")
        self.members = nn.ModuleList(networks_of(members))
        if len({member.config for member in members}) > 1:
            raise ValueError(f"the members differ in their config: {sorted({str(member.config) for member in members})}")
        self.fuse_with = fuse_with
        self.register_buffer("scale_M", torch.ones(len(members), dtype=torch.float64))
        self.register_buffer("bias_M", torch.zeros(len(members), dtype=torch.float64))
        self.register_buffer("index_scale_bias", torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.register_buffer("fusion_scale_bias", torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.register_buffer("threshold_value", torch.tensor(0.5, dtype=torch.float64))

    # ------------------------------------------------------------ networks

    @property
    def stride_px(self) -> tuple[int, ...]:
        """Windows start at multiples of this, from the raster's first row and column."""
        return common_stride(self.members)

    def halo_px(self, steps: int) -> Halo:
        """Radius of the receptive field for a series of `steps` dates, a multiple of `stride_px`."""
        return widest_halo(self.members, steps)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations of all members on one series of `shape` (B, T, C, H, W)."""
        return total_flops(self.members, shape, targets)

    def describe(self) -> Description:
        """The architecture; calibration and threshold are among the tensors."""
        return {"fuse_with": self.fuse_with, "members": [member.describe() for member in networks_of(self.members)]}

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """logit_B1HW of member i from `x_TCHW`, `valid_THW`, `elapsed_T`, each with a leading B; for training."""
        logit_B1HW: Tensor = self.members[i](batch["x_TCHW"], batch["valid_THW"], batch["elapsed_T"])
        return logit_B1HW

    @torch.no_grad()
    def member_logit(self, i: int, x_TCHW: Tensor, valid_THW: Tensor, days_T: Tensor) -> Tensor:
        """logit_HW of member i, float32; NaN where fewer than two dates are valid."""
        logit_HW = self.members[i](x_TCHW[None], valid_THW[None], elapsed_days(days_T)[None])[0, 0]
        return torch.where(valid_THW.sum(0) >= SHORTEST_SERIES, logit_HW, torch.nan)

    # ------------------------------------------------------------ calibration

    def member_probability(self, i: int, logit: Tensor) -> Tensor:
        """Calibrated probability of change, of the logit's shape, float32; NaN stays NaN."""
        return torch.sigmoid(self.scale_M[i] * logit.double() + self.bias_M[i]).float()

    def calibrate_member(self, i: int, scale: float, bias: float) -> None:
        """Sets the probability of member i to sigmoid(scale x logit + bias): a logistic regression of labels on `member_logit`,
        fitted on sites that the member was not trained on. Raises ValueError for a negative or non-finite scale.
        """
        _check_calibration(scale, bias, f"member {i}")
        self.scale_M[i], self.bias_M[i] = scale, bias

    def index_probability(self, score: Tensor) -> Tensor:
        """Calibrated probability of change from a score of the change index (>= 0), of its shape, float32; NaN stays NaN."""
        scale, bias = self.index_scale_bias
        return torch.sigmoid(scale * log_score(score).double() + bias).float()

    def calibrate_index(self, scale: float, bias: float) -> None:
        """Sets the probability of the index to sigmoid(scale x log_score + bias): a logistic regression of labels on `log_score`.

        Raises ValueError for a negative or non-finite scale.
        """
        _check_calibration(scale, bias, "the change index")
        self.index_scale_bias.copy_(torch.tensor([scale, bias]))

    def calibrate_fusion(self, scale: float, bias: float) -> None:
        """Sets the fused probability to sigmoid(scale x logit(sqrt(network x index)) + bias): a logistic regression of labels on
        `logit_of` the fusion. Raises ValueError for a negative or non-finite scale.
        """
        _check_calibration(scale, bias, "the fusion")
        self.fusion_scale_bias.copy_(torch.tensor([scale, bias]))

    # ------------------------------------------------------------ decision

    def fuse(self, network_p_HW: Tensor, index_p_HW: Tensor | None = None) -> Tensor:
        """p_HW float32: sqrt(network x index), calibrated; the network's own if `fuse_with` is "none". NaN if one is NaN.

        Raises ValueError if the index's probability is missing.
        """
        if self.fuse_with == "none":
            return network_p_HW
        if index_p_HW is None:
            raise ValueError(f"this detector is fused with {self.fuse_with}: its probability is required too")
        scale, bias = self.fusion_scale_bias
        return torch.sigmoid(scale * logit_of(torch.sqrt(network_p_HW * index_p_HW)) + bias).float()

    @property
    def threshold(self) -> float:
        """A fused probability of at least this is changed."""
        return float(self.threshold_value)

    def set_threshold(self, threshold: float) -> None:
        """Sets the threshold. Raises ValueError outside 0..1."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold must be in 0..1, got {threshold}")
        self.threshold_value.fill_(threshold)


def logit_of(p: Tensor) -> Tensor:
    """log(p / (1 - p)), float64 of p's shape; p is clipped to [1e-9, 1 - 1e-9]; NaN stays NaN."""
    return torch.logit(p.double(), eps=1e-9)


def log_score(score: Tensor) -> Tensor:
    """Natural logarithm of a score, float32 of its shape; scores below 1e-6 count as 1e-6; NaN stays NaN."""
    return torch.log(score.float().clamp(min=SMALLEST_SCORE))


def _check_calibration(scale: float, bias: float, target: str) -> None:
    if not (math.isfinite(scale) and math.isfinite(bias) and scale >= 0):
        raise ValueError(
            f"the calibration of {target} needs a finite scale >= 0 and a finite bias, got {scale} and {bias}: "
            "a higher score must not give a lower probability"
        )
