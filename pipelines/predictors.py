"""Protocols of the predictors that the pipelines call. Networks and baselines in `models` implement them.

Pipelines and models do not import each other, so each package states here, as a protocol, what it calls (compare
`models.contract`). Shapes: N dates, T context steps, K target dates, C variables, H rows, W columns; B batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Values = TypeVar("Values", Tensor, np.ndarray)


class Forecaster(Protocol):
    """Maps context to physical values of the target dates. Networks and baselines share it (docs/design/001-spine.md)."""

    @property
    def stride_px(self) -> tuple[int, ...]:
        """Windows start at multiples of this, per axis (y, x), from the raster's first row and column."""

    def halo_px(self, steps: int) -> tuple[int, ...] | None:
        """Radius of the receptive field per axis (y, x) over `steps` = T + K; None: unbounded, so tiles are blended."""

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values. Forecasters that state `uses_covariates` take `covariates` too; see `given_to`."""


def given_to(forecaster: Forecaster, covariates: Mapping[str, Tensor]) -> dict[str, Any]:
    """The further argument of `forecast` for a forecaster that uses covariates, else none."""
    return {"covariates": covariates} if covariates and getattr(forecaster, "uses_covariates", False) else {}


@dataclass(frozen=True)
class InSpace:
    """A forecaster that reaches equally far along every axis, on images (`axes` 2) or volumes (3)."""

    of_images: Forecaster
    axes: int

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (self.of_images.stride_px[0],) * self.axes

    def halo_px(self, steps: int) -> tuple[int, ...] | None:
        halo_px = self.of_images.halo_px(steps)
        return halo_px and (halo_px[0],) * self.axes

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        given = given_to(self.of_images, covariates or {})
        return self.of_images.forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K, **given)

    @property
    def uses_covariates(self) -> bool:
        return bool(getattr(self.of_images, "uses_covariates", False))


@dataclass(frozen=True)
class Combination:
    """The mean of several forecasts, by name: where they err differently it is better than each (docs/design/024).

    It needs what any member needs of a window, and has no finite halo where one of them has none.
    """

    members: Mapping[str, Forecaster]

    @property
    def stride_px(self) -> tuple[int, ...]:
        return tuple(math.lcm(*of_axis) for of_axis in zip(*(one.stride_px for one in self.members.values()), strict=True))

    def halo_px(self, steps: int) -> tuple[int, ...] | None:
        halos = [one.halo_px(steps) for one in self.members.values()]
        known = [halo_px for halo_px in halos if halo_px is not None]
        return tuple(map(max, zip(*known, strict=True))) if len(known) == len(halos) else None

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        arguments = x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K
        return mean_of([one.forecast(*arguments, **given_to(one, covariates or {})) for one in self.members.values()])

    @property
    def uses_covariates(self) -> bool:
        return any(getattr(one, "uses_covariates", False) for one in self.members.values())


def networks_of(forecaster: Forecaster) -> Iterator[nn.Module]:
    """The networks that a forecaster consists of; baselines have none."""
    from torch import nn

    if isinstance(forecaster, nn.Module):
        yield forecaster
    elif isinstance(forecaster, InSpace):
        yield from networks_of(forecaster.of_images)
    elif isinstance(forecaster, Combination):
        for one in forecaster.members.values():
            yield from networks_of(one)


def mean_of(forecasts: Sequence[Values]) -> Values:
    """What a `Combination` forecasts, from the forecasts of its members."""
    return reduce(add, forecasts) / len(forecasts)


class Trainable(Protocol):
    """What training needs of a model: its networks, and the output of network i for a batch.

    `compute_member` must use `members[i]` itself (not a copy). A model that is an nn.Module is moved to the device as a whole.
    """

    @property
    def members(self) -> Sequence[nn.Module] | nn.ModuleList: ...

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor: ...


@runtime_checkable
class HasAuxiliaryLoss(Protocol):
    """A member that may add to the training loss what it has inside; see `models.contract.Network.auxiliary_loss`."""

    def auxiliary_loss(self) -> Tensor | None: ...


class ChangeIndex(Protocol):
    """An index that says of each pixel how much two or more dates differ, without having been trained."""

    @property
    def stride_px(self) -> tuple[int, ...]: ...
    def halo_px(self, steps: int) -> tuple[int, ...] | None: ...
    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        """score_HW >= 0, float32; NaN: not seen."""


class ChangeDetector(Trainable, Protocol):
    """Labelled change: networks and a change index, each calibrated, fused into one probability with a threshold."""

    @property
    def fuse_with(self) -> str:
        """The index's name, or "none"."""

    @property
    def threshold(self) -> float: ...
    @property
    def stride_px(self) -> tuple[int, ...]: ...
    def halo_px(self, steps: int) -> tuple[int, ...] | None: ...
    def member_logit(self, i: int, x_TCHW: Tensor, valid_THW: Tensor, days_T: Tensor) -> Tensor: ...
    def calibrate_member(self, i: int, scale: float, bias: float) -> None: ...
    def calibrate_index(self, scale: float, bias: float) -> None: ...
    def calibrate_fusion(self, scale: float, bias: float) -> None: ...
    def member_probability(self, i: int, logit: Tensor) -> Tensor: ...
    def index_probability(self, score: Tensor) -> Tensor: ...
    def fuse(self, network_p_HW: Tensor, index_p_HW: Tensor | None = None) -> Tensor: ...
    def set_threshold(self, threshold: float) -> None: ...
    def eval(self) -> object:
        """Evaluation mode, in place."""
