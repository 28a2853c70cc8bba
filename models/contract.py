"""The model contract: what every network states about itself, and what pipelines may ask of a model.

    network.halo_px(steps)        how far a pixel sees over so many steps, per axis (y, x); None: no finite distance
    network.stride_px             windows start at multiples of it, per axis; inputs are padded to multiples of it
    network.flops(shape)          floating point operations of one forward pass
    network.describe()            what a checkpoint needs to build the network again, plain JSON

`forward` returns predictions only: no loss, no sampling, no state. Nothing is guessed: all four are abstract, so a network that
lacks one cannot be built, and what holds networks (an ensemble, a detector) takes no other module (`networks_of`).

A new network is a class with these four and a `case` in `models.checkpoint`. Inheritance is used here, and only here, because
Python then refuses an incomplete network by itself; see docs/design/007-model-contract.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

Description = dict[str, Any]  # plain JSON
Halo = tuple[int, ...] | None  # pixels per axis, (y, x); None: no finite distance


class Network(nn.Module, ABC):
    """A module that states its halo, stride, cost and description; see the top of this file."""

    @abstractmethod
    def halo_px(self, steps: int) -> Halo:
        """How far a pixel of the last output sees, in pixels per axis, where `steps` dates go in and out (context plus targets).

        A tile with this halo, cut at the raster's edges, has the values of the whole. None: every pixel sees all of the raster
        (a layer over the whole image), so tiles are blended and how well they agree is measured.
        """

    @property
    @abstractmethod
    def stride_px(self) -> tuple[int, ...]:
        """Windows give the values of the whole only where they start at multiples of this, per axis; 1: anywhere."""

    @abstractmethod
    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Floating point operations of the convolutions and matrix products in one forward pass, two per multiply and add.

        `shape` is that of `forward`'s first argument, usually (B, T, C, H, W); `targets` the number of target dates, for those
        networks that have any.
        """

    @abstractmethod
    def describe(self) -> Description:
        """What `models.checkpoint` needs to build the same network untrained; plain JSON."""


class Pointwise:
    """The spatial half of the contract, for baselines whose value at a pixel depends on that pixel alone."""

    @property
    def stride_px(self) -> tuple[int, ...]:
        """Windows may start anywhere."""
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        """No pixel sees another."""
        return 0, 0


def networks_of(members: Iterable[nn.Module]) -> list[Network]:
    """`members` as networks. Raises TypeError for a module that is none: its halo and description would be guesses."""
    networks = []
    for member in members:
        if not isinstance(member, Network):
            raise TypeError(
                f"{type(member).__name__} states no halo, stride, flops and description: derive it from models.contract.Network"
            )
        networks.append(member)
    return networks


def widest_halo(members: Iterable[nn.Module], steps: int) -> Halo:
    """The halo that suits all of `members`: the largest per axis; None where one of them has none; (0, 0) for no member."""
    halos = [network.halo_px(steps) for network in networks_of(members)]
    finite = [halo for halo in halos if halo is not None]
    if len(finite) < len(halos):
        return None
    return tuple(max(axis) for axis in zip(*finite, strict=True)) if finite else (0, 0)


def common_stride(members: Iterable[nn.Module]) -> tuple[int, ...]:
    """The stride that suits all of `members`: the least common multiple per axis; (1, 1) for no member."""
    strides = [network.stride_px for network in networks_of(members)]
    return tuple(math.lcm(*axis) for axis in zip(*strides, strict=True)) if strides else (1, 1)


def total_flops(members: Iterable[nn.Module], shape: Sequence[int], targets: int = 1) -> int:
    """Operations of all of `members` on one input of `shape`."""
    return sum(network.flops(shape, targets) for network in networks_of(members))


def layer_flops(module: nn.Module, pixels: int, rows: int = 0) -> int:
    """Operations of one call of `module`: its convolutions at `pixels` output positions, its linear layers on `rows` vectors.

    For modules that call each of their layers once and at one scale.

    >>> layer_flops(nn.Conv2d(2, 3, 5, padding=2), pixels=100)  # 2 x 100 pixels x 2 x 3 channels x 25
    30000
    """
    convolutions = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
    products = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))
    return 2 * (pixels * convolutions + rows * products)
