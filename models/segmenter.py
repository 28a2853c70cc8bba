"""A segmenter: networks that each left a fold of blocks out, standardised inputs, calibrated by one temperature each.

A pixel gets the class of the largest `decision_MK` x probability, averaged over members: the most likely one, unless the weights
of the decision were chosen otherwise. With two classes they are a threshold: 1 and (1 - t) / t.

Member i has the mean and standard deviation of its own training pixels, and softmax(logit / temperature + bias) (Guo et al. 2017,
arXiv:1706.04599; the bias is 0 unless a decision is chosen), both fitted on blocks that it did not learn from. The segmenter's
probability is the members' mean.

Shapes: B batch, T dates, C variables, K classes, H rows, W columns (of volumes slices, rows, columns), M members.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.blocks.segment import YEAR_DAYS, SegmentNetwork
from models.change_detector import KINDS as CHANGE_KINDS
from models.checkpoint import Checkpoint
from models.contract import Description, Ensemble, over_space, seeded
from models.networks.change_as_classes import ChangeAsClasses, ChangeAsClassesConfig
from models.networks.l_tae import LTAE, LTAEConfig
from models.networks.pixel_recurrent import PixelRecurrent, PixelRecurrentConfig
from models.networks.recurrent_unet import RecurrentUNet, RecurrentUNetConfig
from models.networks.u_tae import UTAE, UTAEConfig

KINDS = ("gru", "lstm", "rnn", "l_tae", "u_tae", "unet_convgru", "unet_convlstm", "unet_dcrn", *CHANGE_KINDS)


class Segmenter(Ensemble):
    """See the module's docstring. All members have one architecture."""

    mean_MC: Tensor
    std_MC: Tensor
    temperature_M: Tensor
    bias_MK: Tensor
    decision_MK: Tensor

    def __init__(self, members: Sequence[SegmentNetwork], classes: Sequence[str]):
        super().__init__(members, members[0].config.axes)
        bands = {member.config.bands for member in members}
        if len(bands) != 1 or {member.config.classes for member in members} != {len(classes)}:
            raise ValueError(f"expected members for the same variables and {len(classes)} classes")
        self.classes, self.bands = tuple(classes), bands.pop()
        self.register_buffer("mean_MC", torch.zeros(len(members), self.bands))
        self.register_buffer("std_MC", torch.ones(len(members), self.bands))
        self.register_buffer("temperature_M", torch.ones(len(members)))
        self.register_buffer("bias_MK", torch.zeros(len(members), len(classes)))
        self.register_buffer("decision_MK", torch.ones(len(members), len(classes)))

    @property
    def networks(self) -> tuple[SegmentNetwork, ...]:
        return tuple(member for member in self.members if isinstance(member, SegmentNetwork))

    def describe(self) -> Description:
        return {"classes": list(self.classes), "members": self.describe_members()}

    def set_statistics(self, i: int, mean_C: Tensor, std_C: Tensor) -> None:
        """Mean and standard deviation of the variables on the training pixels of member i."""
        self.mean_MC[i], self.std_MC[i] = mean_C, std_C

    def deviations(self, i: int) -> Tensor:
        """std_C of member i."""
        return self.std_MC[i]

    def set_calibration(self, i: int, temperature: float, bias_K: np.ndarray) -> None:
        """The probability is softmax(logit / temperature + bias). Raises ValueError for a temperature of 0 or less."""
        if not temperature > 0:
            raise ValueError(f"a temperature must be above 0, got {temperature}")
        self.temperature_M[i], self.bias_MK[i] = temperature, torch.as_tensor(np.asarray(bias_K, np.float32))

    def set_decision(self, i: int, weight_K: np.ndarray) -> None:
        """Raises ValueError for weights that are not above 0."""
        if not (np.asarray(weight_K) > 0).all():
            raise ValueError(f"the weights of a decision must be above 0, got {weight_K}")
        self.decision_MK[i] = torch.as_tensor(np.asarray(weight_K, np.float32))

    def logits(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """logit_BKHW of member i, not calibrated; `x_BTCHW` in physical values, `years_BT` of 365.25 days."""
        mean, std = (over_space(one[i], self.axes).to(x_BTCHW.device) for one in (self.mean_MC, self.std_MC))
        if (year_days := self.networks[i].config.year_days) != YEAR_DAYS:
            years_BT = years_BT * (YEAR_DAYS / year_days)
        logit_BKHW: Tensor = self.members[i]((x_BTCHW - mean) / std, valid_BTHW, years_BT)
        return logit_BKHW

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """For training: logit_BKHW from `x_TCHW`, `valid_THW`, `years_T`, each with a leading B."""
        return self.logits(i, batch["x_TCHW"], batch["valid_THW"], batch["years_T"])

    @torch.no_grad()
    def member_logits(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """`logits` for prediction."""
        return self.logits(i, x_BTCHW, valid_BTHW, years_BT)

    def calibrated(self, i: int, logit: np.ndarray) -> np.ndarray:
        """Probabilities of member i from its logits (..., K), float32."""
        p: np.ndarray = torch.softmax(torch.from_numpy(logit) / self.temperature_M[i] + self.bias_MK[i], dim=-1).numpy()
        return p

    def decision_of(self, i: int) -> np.ndarray:
        """weight_K of member i."""
        return self.decision_MK[i].numpy()


def build_segmenter(description: Description, classes: Sequence[str], members: int, seed: int) -> Segmenter:
    """Untrained members of one `description` (of a network), determined by the arguments alone."""
    full = {**description, "classes": len(classes)}
    return Segmenter([seeded(seed * 1000 + i, lambda: rebuild_network(full)) for i in range(members)], classes)


def join_members(learners: Sequence[Segmenter]) -> Segmenter:
    """One segmenter with the members of all `learners`, and their statistics and temperatures."""
    joined = Segmenter([member for one in learners for member in one.networks], learners[0].classes)
    for name in ("mean_MC", "std_MC", "temperature_M", "bias_MK", "decision_MK"):
        getattr(joined, name).copy_(torch.cat([getattr(one, name) for one in learners]))
    return joined.eval()


def rebuild_network(description: Description) -> SegmentNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    fields = {**description, **({"widths": tuple(description["widths"])} if "widths" in description else {})}
    match fields["kind"]:
        case "gru" | "lstm" | "rnn":
            return PixelRecurrent(PixelRecurrentConfig(**fields))
        case "l_tae":
            return LTAE(LTAEConfig(**fields))
        case "u_tae":
            return UTAE(UTAEConfig(**fields))
        case "unet_convgru" | "unet_convlstm" | "unet_dcrn":
            return RecurrentUNet(RecurrentUNetConfig(**fields))
        case kind if kind in CHANGE_KINDS:
            return ChangeAsClasses(ChangeAsClassesConfig(**fields))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the network {fields['kind']!r}")


def rebuild_segmenter(description: Description) -> Segmenter:
    return Segmenter([rebuild_network(member) for member in description["members"]], description["classes"])


SEGMENTER = Checkpoint[Segmenter]("segmenter", rebuild_segmenter)
