"""A segmenter: networks that each left a fold of blocks out, standardised inputs, calibrated by one temperature each.

Member i has the mean and standard deviation of its own training pixels, and softmax(logit / temperature) (Guo et al. 2017,
arXiv:1706.04599), fitted on blocks that it did not learn from. The segmenter's probability is the members' mean.

Shapes: B batch, T dates, C variables, K classes, H rows, W columns, M members.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.blocks.segment import SegmentNetwork
from models.checkpoint import Checkpoint
from models.contract import Description, Ensemble, seeded
from models.networks.l_tae import LTAE, LTAEConfig
from models.networks.pixel_recurrent import PixelRecurrent, PixelRecurrentConfig
from models.networks.recurrent_unet import RecurrentUNet, RecurrentUNetConfig
from models.networks.u_tae import UTAE, UTAEConfig

KINDS = ("gru", "lstm", "l_tae", "u_tae", "unet_convgru", "unet_convlstm")


class Segmenter(Ensemble):
    """See the module's docstring. All members have one architecture."""

    mean_MC: Tensor
    std_MC: Tensor
    temperature_M: Tensor

    def __init__(self, members: Sequence[SegmentNetwork], classes: Sequence[str]):
        super().__init__(members)
        bands = {member.config.bands for member in members}
        if len(bands) != 1 or {member.config.classes for member in members} != {len(classes)}:
            raise ValueError(f"expected members for the same variables and {len(classes)} classes")
        self.classes, self.bands = tuple(classes), bands.pop()
        self.register_buffer("mean_MC", torch.zeros(len(members), self.bands))
        self.register_buffer("std_MC", torch.ones(len(members), self.bands))
        self.register_buffer("temperature_M", torch.ones(len(members)))

    @property
    def networks(self) -> tuple[SegmentNetwork, ...]:
        return tuple(member for member in self.members if isinstance(member, SegmentNetwork))

    def describe(self) -> Description:
        return {"classes": list(self.classes), "members": self.describe_members()}

    def set_statistics(self, i: int, mean_C: Tensor, std_C: Tensor) -> None:
        """Mean and standard deviation of the variables on the training pixels of member i."""
        self.mean_MC[i], self.std_MC[i] = mean_C, std_C

    def set_temperature(self, i: int, temperature: float) -> None:
        """Raises ValueError for a temperature that is not above 0."""
        if not temperature > 0:
            raise ValueError(f"a temperature must be above 0, got {temperature}")
        self.temperature_M[i] = temperature

    def logits(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """logit_BKHW of member i, not calibrated; `x_BTCHW` in physical values."""
        mean, std = self.mean_MC[i][:, None, None], self.std_MC[i][:, None, None]
        logit_BKHW: Tensor = self.members[i]((x_BTCHW - mean) / std, valid_BTHW, years_BT)
        return logit_BKHW

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """For training: logit_BKHW from `x_TCHW`, `valid_THW`, `years_T`, each with a leading B."""
        return self.logits(i, batch["x_TCHW"], batch["valid_THW"], batch["years_T"])

    @torch.no_grad()
    def probability(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """p_BKHW of member i, calibrated."""
        return torch.softmax(self.logits(i, x_BTCHW, valid_BTHW, years_BT) / self.temperature_M[i], dim=1)

    @torch.no_grad()
    def predict_members(self, x_TCHW: Tensor, valid_THW: Tensor, years_T: Tensor) -> Tensor:
        """p_MKHW of every member, calibrated; NaN where no date is valid. What is mapped is their mean."""
        inputs = x_TCHW[None], valid_THW[None], years_T[None]
        p_MKHW = torch.cat([self.probability(i, *inputs) for i in range(len(self.members))])
        return torch.where(valid_THW.any(0), p_MKHW, torch.nan)


def build_segmenter(description: Description, classes: Sequence[str], members: int, seed: int) -> Segmenter:
    """Untrained members of one `description` (of a network), determined by the arguments alone."""
    full = {**description, "classes": len(classes)}
    return Segmenter([seeded(seed * 1000 + i, lambda: rebuild_network(full)) for i in range(members)], classes)


def join_members(learners: Sequence[Segmenter]) -> Segmenter:
    """One segmenter with the members of all `learners`, and their statistics and temperatures."""
    joined = Segmenter([member for one in learners for member in one.networks], learners[0].classes)
    for name in ("mean_MC", "std_MC", "temperature_M"):
        getattr(joined, name).copy_(torch.cat([getattr(one, name) for one in learners]))
    return joined.eval()


def rebuild_network(description: Description) -> SegmentNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    fields = {**description, **({"widths": tuple(description["widths"])} if "widths" in description else {})}
    match fields["kind"]:
        case "gru" | "lstm":
            return PixelRecurrent(PixelRecurrentConfig(**fields))
        case "l_tae":
            return LTAE(LTAEConfig(**fields))
        case "u_tae":
            return UTAE(UTAEConfig(**fields))
        case "unet_convgru" | "unet_convlstm":
            return RecurrentUNet(RecurrentUNetConfig(**fields))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the network {fields['kind']!r}")


def rebuild_segmenter(description: Description) -> Segmenter:
    return Segmenter([rebuild_network(member) for member in description["members"]], description["classes"])


SEGMENTER = Checkpoint[Segmenter]("segmenter", rebuild_segmenter)
