"""A segmenter over whole rasters, tile by tile: class and confidence of every pixel.

Shapes: T dates, C variables, K classes, H rows, W columns, M members. A tile sees its whole halo, so tiles are the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from pipelines.errors import RequestError
from pipelines.inference.tiling import window_of
from pipelines.progress import Progress
from pipelines.samples.class_samples import SpanImages, read_span, whole_span
from pipelines.samples.labels import Labels, Span
from pipelines.samples.variables import Variable
from pipelines.tiles import Box

if TYPE_CHECKING:
    from torch import Tensor, nn  # products, which need no torch, read this module

NOT_OBSERVED = 0  # code of a pixel without a usable date; class k has the code k + 1


class SegmentModel(Protocol):
    """What is called of a segmenter."""

    @property
    def members(self) -> Sequence[nn.Module] | nn.ModuleList: ...
    @property
    def stride_px(self) -> tuple[int, ...]: ...
    def halo_px(self, steps: int) -> tuple[int, ...] | None: ...
    def member_logits(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor: ...
    def calibrated(self, i: int, logit_PK: np.ndarray) -> np.ndarray: ...
    def decision_of(self, i: int) -> np.ndarray: ...
    def set_calibration(self, i: int, temperature: float, bias_K: np.ndarray) -> None: ...
    def set_decision(self, i: int, weight_K: np.ndarray) -> None: ...


@dataclass(frozen=True)
class ClassMap:
    """`class_HW` uint8 (codes, NOT_OBSERVED where no date is usable), `confidence_HW` float32 (NaN there), as memory maps.

    `pixels_MK`: how many pixels each member alone gives to each class.
    """

    span: Span
    dates: int
    class_HW: np.ndarray
    confidence_HW: np.ndarray
    pixels_MK: np.ndarray


@dataclass(frozen=True)
class Mapped:
    """What is mapped: a span of a cube, whose `read(window)` has its images of a window, in memory."""

    span: Span
    dates: int
    shape_yx: tuple[int, int]
    read: Callable[[Box], SpanImages]


def mapped_span(dataset: xr.Dataset, asked: Span | None, labels: Labels | None, variables: tuple[Variable, ...]) -> Mapped:
    """The span that is asked for, else the latest one of the labels, else all dates of the cube."""
    times_T = dataset["time"].values
    span = asked or (labels.latest if labels else whole_span(times_T))
    shape_yx = dataset.sizes["y"], dataset.sizes["x"]
    return Mapped(span, int(span.holds(times_T).sum()), shape_yx, partial(read_span, dataset, span, variables))


def predict_map(mapped: Mapped, model: SegmentModel, tile_px: int, folder: Path, progress: Progress | None = None) -> ClassMap:
    """The map of a span by all members; a window is in memory at a time. Raises RequestError where the span has no date."""
    if not mapped.dates:
        raise RequestError(f"the cube has no date from {mapped.span.text}; set prediction.start and prediction.stop")
    folder.mkdir(parents=True, exist_ok=True)
    members = range(len(model.members))
    class_HW = np.lib.format.open_memmap(folder / "class.npy", "w+", np.uint8, mapped.shape_yx)
    confidence_HW = np.lib.format.open_memmap(folder / "confidence.npy", "w+", np.float32, mapped.shape_yx)
    tiles, halo_px, counts = Box.whole(mapped.shape_yx).cut(tile_px), model.halo_px(mapped.dates), []
    weight_MK11 = np.stack([model.decision_of(i) for i in members])[:, :, None, None]
    for done, tile in enumerate(tiles):
        window = window_around(tile, halo_px, mapped.shape_yx, model.stride_px)
        images = mapped.read(window)
        inside, is_seen_HW = tile.within(window), images.valid_THW[:, *tile.within(window)].any(axis=0)
        arrays = [one[None] for one in tensors_of(images.x_TCHW, images.valid_THW, images.years_T)]
        logits = [model.member_logits(i, arrays[0], arrays[1], arrays[2])[0].numpy()[:, *inside] for i in members]
        p_MKHW = np.stack([_calibrated_image(model, i, logit_KHW) for i, logit_KHW in zip(members, logits, strict=True)])
        weighted_MKHW = p_MKHW * weight_MK11
        chosen_HW, classes = weighted_MKHW.mean(axis=0).argmax(axis=0), p_MKHW.shape[1]
        alone = [one_KHW.argmax(axis=0)[is_seen_HW] for one_KHW in weighted_MKHW]
        counts.append([np.bincount(one, minlength=classes) for one in alone])
        confidence = np.take_along_axis(p_MKHW.mean(axis=0), chosen_HW[None], axis=0)[0]
        class_HW[tile.slices] = np.where(is_seen_HW, chosen_HW + 1, NOT_OBSERVED)
        confidence_HW[tile.slices] = np.where(is_seen_HW, confidence, np.nan)
        if progress is not None:
            progress(done + 1, len(tiles))
    return ClassMap(mapped.span, mapped.dates, class_HW, confidence_HW, np.sum(counts, axis=0))


def _calibrated_image(model: SegmentModel, member: int, logit_KHW: np.ndarray) -> np.ndarray:
    """p_KHW."""
    p_HWK: np.ndarray = model.calibrated(member, np.moveaxis(logit_KHW, 0, -1))
    return np.moveaxis(p_HWK, -1, 0)


def window_around(tile: Box, halo_px: tuple[int, ...] | None, shape: tuple[int, ...], stride_px: tuple[int, ...]) -> Box:
    """Raises RequestError for a network without a finite halo, unless one tile is the whole raster."""
    if halo_px is None and tile.shape != tuple(shape):
        raise RequestError(f"this network needs the whole raster at once: set prediction.tile_px to at least {max(shape)}")
    return window_of(tile, halo_px or (0, 0), shape, stride_px)


def tensors_of(x_TCHW: np.ndarray, valid_THW: np.ndarray, years_T: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The three as tensors of their own."""
    import torch

    return torch.from_numpy(np.array(x_TCHW)), torch.from_numpy(np.array(valid_THW)), torch.from_numpy(np.array(years_T))
