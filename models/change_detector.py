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
from torch import Tensor

from models.blocks.change import ChangeNetwork, NetworkConfig
from models.contract import Description, Ensemble, seeded
from models.networks.fully_convolutional import FCEF, FCSiamConc, FCSiamDiff
from models.networks.l_unet import LUNet, LUNetConfig
from models.networks.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig

KINDS = ("siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef")
SMALLEST_SCORE = 1e-6  # lower bound of a score of the change index: the logarithm of 0 is not finite
SHORTEST_SERIES = 2  # minimum number of valid dates of a pixel


def elapsed_days(days_T: Tensor) -> Tensor:
    """Days since the previous date, 0 for the first; float32, any leading shape."""
    return torch.diff(days_T, prepend=days_T[..., :1], dim=-1).float()


class ChangeDetector(Ensemble):
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
        super().__init__(members)
        if not members:
            raise ValueError("a detector needs at least one member")
        if len({member.config for member in members}) > 1:
            raise ValueError(f"the members differ in their config: {sorted({str(member.config) for member in members})}")
        self.fuse_with = fuse_with
        self.register_buffer("scale_M", torch.ones(len(members), dtype=torch.float64))
        self.register_buffer("bias_M", torch.zeros(len(members), dtype=torch.float64))
        self.register_buffer("index_scale_bias", torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.register_buffer("fusion_scale_bias", torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.register_buffer("threshold_value", torch.tensor(0.5, dtype=torch.float64))

    def describe(self) -> Description:
        return {"fuse_with": self.fuse_with, "members": self.describe_members()}

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """logit_B1HW of member i from `x_TCHW`, `valid_THW`, `elapsed_T`, each with a leading B; for training."""
        logit_B1HW: Tensor = self.members[i](batch["x_TCHW"], batch["valid_THW"], batch["elapsed_T"])
        return logit_B1HW

    @torch.no_grad()
    def member_logit(self, i: int, x_TCHW: Tensor, valid_THW: Tensor, days_T: Tensor) -> Tensor:
        """logit_HW of member i, float32; NaN where fewer than two dates are valid."""
        logit_HW = self.members[i](x_TCHW[None], valid_THW[None], elapsed_days(days_T)[None])[0, 0]
        return torch.where(valid_THW.sum(0) >= SHORTEST_SERIES, logit_HW, torch.nan)

    # ------------------------------------------------------------ calibration: logistic regressions of labels

    def member_probability(self, i: int, logit: Tensor) -> Tensor:
        """Calibrated probability of change, of the logit's shape, float32; NaN stays NaN."""
        return torch.sigmoid(self.scale_M[i] * logit.double() + self.bias_M[i]).float()

    def calibrate_member(self, i: int, scale: float, bias: float) -> None:
        """Sets the probability of member i to sigmoid(scale x logit + bias), fitted on sites that it was not trained on.

        Raises ValueError for a negative or non-finite scale, as do the two others.
        """
        _check_calibration(scale, bias, f"member {i}")
        self.scale_M[i], self.bias_M[i] = scale, bias

    def index_probability(self, score: Tensor) -> Tensor:
        """Calibrated probability of change from a score of the change index (>= 0), of its shape, float32; NaN stays NaN."""
        scale, bias = self.index_scale_bias
        return torch.sigmoid(scale * log_score(score).double() + bias).float()

    def calibrate_index(self, scale: float, bias: float) -> None:
        """Sets the probability of the index to sigmoid(scale x log_score + bias)."""
        _check_calibration(scale, bias, "the change index")
        self.index_scale_bias.copy_(torch.tensor([scale, bias]))

    def calibrate_fusion(self, scale: float, bias: float) -> None:
        """Sets the fused probability to sigmoid(scale x logit_of(sqrt(network x index)) + bias)."""
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


# ---------------------------------------------------------------- networks by name


def build_network(
    kind: str, *, bands: int, widths: Sequence[int] = (16, 32, 64), recurrence: str = "convlstm", dropout: float = 0.1,
    seed: int = 0,
) -> ChangeNetwork:  # fmt: skip
    """An untrained network, determined by its arguments alone; the global random state is not changed.

    `recurrence` applies to siamese_dcrn only. Raises ValueError for an unknown kind or recurrence.
    """
    chosen = {"recurrence": recurrence} if kind == "siamese_dcrn" else {}
    description = {"kind": kind, "bands": bands, "widths": widths, "dropout": dropout, **chosen}
    return seeded(seed, lambda: rebuild_network(description))


def rebuild_network(description: Description) -> ChangeNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    fields = dict(description)
    kind = fields.pop("kind")
    fields["widths"] = tuple(fields["widths"])
    if not fields["widths"] or min(fields["widths"]) < 1:
        raise ValueError(f"widths need at least one scale of at least one channel, got {fields['widths']}")
    match kind:
        case "siamese_dcrn":
            return SiameseDCRN(SiameseDCRNConfig(**fields))
        case "l_unet":
            return LUNet(LUNetConfig(**fields))
        case "fc_siam_diff":
            return FCSiamDiff(NetworkConfig(**fields))
        case "fc_siam_conc":
            return FCSiamConc(NetworkConfig(**fields))
        case "fc_ef":
            return FCEF(NetworkConfig(**fields))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the change network {kind!r}")


def rebuild_detector(description: Description) -> ChangeDetector:
    return ChangeDetector([rebuild_network(member) for member in description["members"]], fuse_with=description["fuse_with"])
