"""The model contract: what every network states about itself, and what pipelines may call.

`forward` returns predictions only: no loss, no sampling, no state. `halo_px`, `stride_px`, `flops` and `describe` are abstract,
so a network that lacks one cannot be instantiated, and `Ensemble` accepts no other module. A new network is a class with these
four and a `case` where descriptions are rebuilt; see docs/design/007-model-contract.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

Description = dict[str, Any]  # plain JSON
Built = TypeVar("Built")
Halo = tuple[int, ...] | None  # pixels per axis, (y, x); None: unbounded


class Network(nn.Module, ABC):
    """A module that states its halo, stride, cost and description; see the top of this file."""

    @abstractmethod
    def halo_px(self, steps: int) -> Halo:
        """Radius of the receptive field of the last output, pixels per axis, for `steps` dates (context plus targets).

        A tile with this halo, clipped to the raster, has the values of the whole. None: every pixel depends on all of the raster
        (a layer over the whole image), so tiles are blended and their disagreement is measured.
        """

    @property
    @abstractmethod
    def stride_px(self) -> tuple[int, ...]:
        """Windows equal the whole only if they start at multiples of this, per axis; 1: anywhere."""

    @abstractmethod
    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Floating point operations of the convolutions and matrix products in one forward pass, two per multiply and add.

        `shape` is that of `forward`'s first argument, usually (B, T, C, H, W); `targets` the number of target dates, for
        networks with targets.
        """

    @abstractmethod
    def describe(self) -> Description:
        """What `models.checkpoint` needs to rebuild the same network untrained; plain JSON."""

    def auxiliary_loss(self) -> torch.Tensor | None:
        """A scalar of the last forward pass in training, weighted, that is added to the training loss; None: there is none.

        For losses on what a network has inside. It can be taken once; validation and predictions do not use it.
        """
        return None


class Pointwise:
    """The spatial half of the contract, for models of images whose value at a pixel depends on that pixel alone."""

    @property
    def stride_px(self) -> tuple[int, ...]:
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        return 0, 0


class Ensemble(Network):
    """Networks side by side: the widest halo, the common stride, the sum of the operations. `axes` of space: 2 or 3."""

    def __init__(self, members: Iterable[nn.Module], axes: int = 2):
        super().__init__()
        self.members, self.axes = nn.ModuleList(networks_of(members)), axes

    def halo_px(self, steps: int) -> Halo:
        """The largest halo of the members per axis; None if one of them has none; 0 without members."""
        halos = [network.halo_px(steps) for network in networks_of(self.members)]
        finite = [halo for halo in halos if halo is not None]
        if len(finite) < len(halos):
            return None
        return tuple(max(axis) for axis in zip(*finite, strict=True)) if finite else (0,) * self.axes

    @property
    def stride_px(self) -> tuple[int, ...]:
        """The least common multiple of the members' strides per axis; 1 without members."""
        strides = [network.stride_px for network in networks_of(self.members)]
        return tuple(math.lcm(*axis) for axis in zip(*strides, strict=True)) if strides else (1,) * self.axes

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        return sum(network.flops(shape, targets) for network in networks_of(self.members))

    def describe_members(self) -> list[Description]:
        return [network.describe() for network in networks_of(self.members)]


def over_space(values: torch.Tensor, axes: int) -> torch.Tensor:
    """`values` with `axes` further axes of length 1, to be broadcast over images (2) or volumes (3)."""
    return values[(..., *[None] * axes)]


def seeded(seed: int, build: Callable[[], Built]) -> Built:
    """What `build` makes with the random state of `seed`; the global one is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def networks_of(members: Iterable[nn.Module]) -> list[Network]:
    """`members` as networks. Raises TypeError for a module that is not a Network."""
    networks = []
    for member in members:
        if not isinstance(member, Network):
            raise TypeError(
                f"{type(member).__name__} states no halo, stride, flops and description: derive it from models.contract.Network"
            )
        networks.append(member)
    return networks


def layer_flops(module: nn.Module, pixels: int, rows: int = 0) -> int:
    """Operations of one call of `module`: its convolutions at `pixels` output positions, its linear layers on `rows` vectors.

    For modules that call each of their layers once and at one scale.

    >>> layer_flops(nn.Conv2d(2, 3, 5, padding=2), pixels=100)  # 2 x 100 pixels x 2 x 3 channels x 25
    30000
    """
    convolutions = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
    products = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))
    return 2 * (pixels * convolutions + rows * products)
