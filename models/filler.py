"""Networks that fill hidden dates of series: those of class maps and change with a decoder of dates in place of their logits.

A network reads what is visible of a window and gives features of every pixel; the decoder is asked for a date and gives the
variables at that date. Filling by one decoder for all dates, told by their position, is that of masked autoencoders (He et al.
2022, arXiv:2111.06377; for satellite series Cong et al. 2022, arXiv:2207.08051), here with convolutions and recurrence.

Shapes: B batch, T dates, C variables, E features, D hidden, F frequencies, H rows, W columns (of volumes slices, rows, columns).
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.blocks.segment import YEAR_DAYS
from models.cells.recurrent_stack import CONVOLUTIONS
from models.change_detector import rebuild_network as rebuild_change_network
from models.checkpoint import Checkpoint
from models.contract import Description, Ensemble, Halo, Network, layer_flops, over_space, seeded
from models.networks.change_as_classes import ChangeAsClasses
from models.segmenter import rebuild_network

CHANGE_KINDS = ("siamese_dcrn", "l_unet")  # those of `models.change_detector` that read the dates one by one
FREQUENCIES = 8  # sines and cosines of the date, from half a turn in a year to 64 times that


class DateDecoder(nn.Module):
    """The variables at the dates that are asked for, from features of the pixels."""

    def __init__(self, features: int, variables: int, width: int, axes: int = 2):
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.of_features = convolution(features, width, 1)
        self.of_date = nn.Linear(1 + 2 * FREQUENCIES, width)
        self.body, self.out = nn.Linear(width, width), nn.Linear(width, variables)

    def forward(self, features_BEHW: Tensor, years_BT: Tensor) -> Tensor:
        """value_BTCHW."""
        rate_F = math.pi * 2.0 ** torch.linspace(0, 6, FREQUENCIES, dtype=years_BT.dtype, device=years_BT.device)
        angle_BTF = years_BT[..., None] * rate_F
        date_BTD = self.of_date(torch.cat([years_BT[..., None], angle_BTF.sin(), angle_BTF.cos()], dim=-1))
        pixel_BHWD = self.of_features(features_BEHW).movedim(1, -1)
        asked_BTD = date_BTD.reshape(*date_BTD.shape[:2], *[1] * (pixel_BHWD.ndim - 2), date_BTD.shape[-1])
        value_BTHWC: Tensor = self.out(torch.relu(self.body(torch.relu(pixel_BHWD[:, None] + asked_BTD))))
        return value_BTHWC.movedim(-1, 2)


class FillingNetwork(Network):
    """`trunk`: the network that is pretrained, whose last layer gives `features` in place of logits."""

    def __init__(self, description: Mapping[str, object], features: int):
        super().__init__()
        self.description, self.features = dict(description), features
        self.axes, self.bands = int(cast(int, description.get("axes", 2))), int(cast(int, description["bands"]))
        self.trunk = build_trunk(self.description, features)
        self.decoder = DateDecoder(features, self.bands, 2 * features, self.axes)

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        """value_BTCHW, standardised as `x_BTCHW`, at all the dates; `valid_BTHW` says what is visible."""
        value_BTCHW: Tensor = self.decoder(self.trunk(x_BTCHW, valid_BTHW, years_BT), years_BT)
        return value_BTCHW

    @property
    def stride_px(self) -> tuple[int, ...]:
        return self.trunk.stride_px

    def halo_px(self, steps: int) -> Halo:
        return self.trunk.halo_px(steps)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, dates, _, *space = shape
        rows = batch * math.prod(space)
        return self.trunk.flops(shape) + layer_flops(self.decoder, rows, rows * dates)

    def describe(self) -> Description:
        return {"network": self.description, "features": self.features}


def build_trunk(description: Mapping[str, object], features: int) -> Network:
    """A network of class maps or of change, untrained, that gives so many features. Raises ValueError, TypeError, KeyError."""
    if description["kind"] not in CHANGE_KINDS:
        return rebuild_network({**description, "classes": features})
    trunk = rebuild_change_network(dict(description))
    head = trunk.decoder.head
    trunk.decoder.head = nn.Conv2d(head.in_channels, features, 1)
    return trunk


class Filler(Ensemble):
    """Filling networks with the mean and standard deviation of the variables that they were trained with."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, members: Sequence[FillingNetwork]):
        super().__init__(members, members[0].axes)
        self.register_buffer("mean_C", torch.zeros(members[0].bands))
        self.register_buffer("std_C", torch.ones(members[0].bands))

    def describe(self) -> Description:
        return {"members": self.describe_members()}

    def set_statistics(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Mean and standard deviation of the variables on the training part."""
        self.mean_C.copy_(mean_C)
        self.std_C.copy_(std_C)

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """value_BTCHW of member i, in standard deviations, from `x_TCHW` (physical), `valid_THW`, `years_T` with a leading B."""
        years_BT = batch["years_T"]
        mean, std = (over_space(one, self.axes) for one in (self.mean_C, self.std_C))
        description = cast(FillingNetwork, self.members[i]).description
        years_BT = years_BT * (YEAR_DAYS / cast(float, description.get("year_days", YEAR_DAYS)))
        value_BTCHW: Tensor = self.members[i]((batch["x_TCHW"] - mean) / std, batch["valid_THW"], years_BT)
        return value_BTCHW


def build_filler(description: Description, features: int, seed: int, members: int = 1) -> Filler:
    """Untrained networks of one `description` (of a network without classes), determined by the arguments alone."""
    return Filler([seeded(seed * 1000 + i, lambda: FillingNetwork(description, features)) for i in range(members)])


def rebuild_filler(description: Description) -> Filler:
    return Filler([FillingNetwork(_with_tuples(one["network"]), one["features"]) for one in description["members"]])


def _with_tuples(description: Description) -> Description:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}


FILLER = Checkpoint[Filler]("filler", rebuild_filler)


# ---------------------------------------------------------------- layers that are handed on


def plain_network(network: nn.Module) -> nn.Module:
    """What a network of any task has in common with those of others: without the decoder of dates or the frame of classes."""
    while isinstance(network, FillingNetwork | ChangeAsClasses):
        network = network.trunk if isinstance(network, FillingNetwork) else network.network
    return network


def copy_layers(own: nn.Module, other: nn.Module) -> dict[str, list[str]]:
    """Copies into `own` what has the same name and shape in `other`: {"copied": names, "untrained": names, "ignored": names}.

    `untrained` are those of `own` that the other has not, or has in another shape; `ignored` those of the other that were not
    taken. Both are `plain_network`s.
    """
    mine, theirs = own.state_dict(), other.state_dict()
    copied = [name for name, value in mine.items() if name in theirs and theirs[name].shape == value.shape]
    own.load_state_dict({**mine, **{name: theirs[name] for name in copied}})
    taken = set(copied)
    return {
        "copied": copied,
        "untrained": [name for name in mine if name not in taken],
        "ignored": [name for name in theirs if name not in taken],
    }
