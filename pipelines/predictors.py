"""What pipelines ask of a predictor; the networks and baselines of `models` fit, and so does any other class that does.

Pipelines and models do not import each other, so the contract of `models.contract` is written here from the user's side, as
protocols: each package names the one that it needs. Shapes: N dates, T context steps, K target dates, C variables, H rows,
W columns; B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class Forecaster(Protocol):
    """Context in, physical values of the target dates out. Networks and baselines answer alike (docs/design/001-spine.md)."""

    @property
    def stride_px(self) -> tuple[int, ...]:
        """Windows start at multiples of this, per axis (y, x), counted from the raster's first row and column."""

    def halo_px(self, steps: int) -> tuple[int, ...] | None:
        """How far a pixel sees per axis (y, x) over `steps` = T + K; None: no finite distance, so tiles are blended."""

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values."""


class Trainable(Protocol):
    """What training knows of a model: its networks, and how network i turns a batch into what the loss is taken of.

    `compute_member` must use `members[i]` itself (not a copy). A model that is a module is moved to the device as a whole.
    """

    @property
    def members(self) -> Sequence[nn.Module] | nn.ModuleList: ...

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor: ...


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
