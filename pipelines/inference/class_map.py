"""A segmenter over whole rasters, tile by tile: class and confidence of every pixel (docs/design/033).

Of volumes the probability of every class is kept, too. Shapes: T dates, C variables, K classes, H rows, W columns (of volumes
slices, rows, columns), M members. A tile sees its whole halo, so tiles are the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from pipelines.cube.store import open_cube, space_dims
from pipelines.errors import RequestError
from pipelines.inference.regions import Plane, Record, Regions
from pipelines.inference.staged_work import Piece, check_worker, cut_regions, to_file
from pipelines.inference.tiling import window_of
from pipelines.samples.class_samples import SpanImages, images_of_site, read_span, whole_span
from pipelines.samples.decoded_sites import key_of, open_site
from pipelines.samples.labels import Labels, Span
from pipelines.samples.variables import Variable
from pipelines.stored_files import absolute
from pipelines.tiles import Box

if TYPE_CHECKING:
    from torch import Tensor, nn  # products, which need no torch, read this module

VERSION = 1  # of the meaning of the staged bytes; part of the key
CLASS, CONFIDENCE = Plane("class", "|u1"), Plane("confidence", "<f4")
NOT_OBSERVED = 0  # code of a pixel without a usable date; class k has the code k + 1
VOLUME_TILE_PX = 40  # as many voxels as a tile of 256 of an image has pixels


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

    `pixels_MK`: how many pixels each member alone gives to each class. `probability_KHW`: of volumes, that of each class.
    """

    span: Span
    dates: int
    class_HW: np.ndarray
    confidence_HW: np.ndarray
    pixels_MK: np.ndarray
    probability_KHW: tuple[np.ndarray, ...] = ()


Read = Callable[[Box], SpanImages]  # the images of a window, in memory


class SpanSource(Protocol):
    """Where the images of a span lie: plain values, so that other processes can open it."""

    def open(self) -> Read: ...
    def describe(self) -> dict[str, object]:
        """What the images depend on, JSON values."""


@dataclass(frozen=True)
class CubeSpan:
    """A span of a cube's version, as variables."""

    uri: str
    snapshot: str
    span: Span
    variables: tuple[Variable, ...]

    def open(self) -> Read:
        return partial(read_span, open_cube(self.uri, self.snapshot), self.span, self.variables)

    def describe(self) -> dict[str, object]:
        return {"snapshot": self.snapshot, "span": self.span.text, "variables": [repr(one) for one in self.variables]}


@dataclass(frozen=True)
class DecodedSpan:
    """All dates of a site, decoded to `folder` (`pipelines.samples.decoded_sites`) from `made_from`."""

    folder: str
    made_from: Mapping[str, object]

    def open(self) -> Read:
        if not Path(self.folder).exists():
            raise RequestError(f"this worker does not see {self.folder}: the run's folder must be one that all of them share")
        return images_of_site(open_site(Path(self.folder))[0]).part

    def describe(self) -> dict[str, object]:
        return {"decoded": dict(self.made_from)}


@dataclass(frozen=True)
class Mapped:
    """What is mapped: a span, its number of dates, the raster's shape, and where the images lie."""

    span: Span
    dates: int
    shape: tuple[int, ...]
    source: SpanSource


def mapped_span(
    dataset: xr.Dataset, cube: tuple[str, str], asked: Span | None, labels: Labels | None, variables: tuple[Variable, ...]
) -> Mapped:
    """The span that is asked for, else the latest one of the labels, else all dates of the cube (URI, snapshot).

    Raises RequestError where the span has no date.
    """
    times_T = dataset["time"].values
    span = asked or (labels.latest if labels else whole_span(times_T))
    shape, dates = tuple(dataset.sizes[dim] for dim in space_dims(dataset)), int(span.holds(times_T).sum())
    if not dates:
        raise RequestError(f"the cube has no date from {span.text}; set prediction.start and prediction.stop")
    return Mapped(span, dates, shape, CubeSpan(absolute(cube[0]), cube[1], span, variables))


def tile_side(shape: tuple[int, ...], tile_px: int) -> int:
    """The side of tiles where `tile_px` is asked for: of volumes at most `VOLUME_TILE_PX`."""
    return min(tile_px, VOLUME_TILE_PX) if len(shape) == 3 else tile_px


@dataclass(frozen=True)
class MapWork:
    """Class maps of one or several rasters as work (`pipelines.inference.staged_work`); the model travels by value.

    `mapped`: name ("" of the only one of a run) -> what is mapped. `made_by` names the model. `folder`: on a disk or
    `s3://bucket/prefix`. `device`: "" = the CPU.
    """

    mapped: Mapping[str, Mapped]
    model: SegmentModel
    made_by: str
    tile_px: int
    folder: str
    device: str = ""

    @property
    def on_gpu(self) -> bool:
        return bool(self.device)

    @property
    def key(self) -> str:
        return key_of(rasters=[regions.key for regions in self.rasters.values()])

    @cached_property
    def rasters(self) -> dict[str, Regions]:
        about = {"version": VERSION, "model": self.made_by, "tile_px": self.tile_px, "device": self.device}
        found = {}
        for name, one in self.mapped.items():
            key = key_of(**about, shape=one.shape, **one.source.describe())
            folder, parts = f"{self.folder}/maps/{name or 'map'}", cut_regions(one.shape, self.side_of(one))
            found[name] = Regions(folder, key, self.planes_of(one), one.shape, parts)
        return found

    def side_of(self, mapped: Mapped) -> int:
        return tile_side(mapped.shape, self.tile_px)

    def planes_of(self, mapped: Mapped) -> tuple[Plane, ...]:
        classes = range(len(self.model.decision_of(0))) if len(mapped.shape) == 3 else ()
        return CLASS, CONFIDENCE, *(Plane(f"probability_{k}", "<f4") for k in classes)

    def open(self) -> Callable[[Piece], Record]:
        check_worker(self, self.device)
        for member in self.model.members:
            member.to(self.device or "cpu")
        opened: dict[str, Read] = {}

        def make(piece: Piece) -> Record:
            if piece.raster not in opened:
                opened[piece.raster] = self.mapped[piece.raster].source.open()
            return map_region(self, piece, opened[piece.raster])

        return make

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"folder": absolute(self.folder)}


def map_region(work: MapWork, piece: Piece, read: Read) -> Record:
    """Maps one region by all members and writes it; idempotent. A window is in memory at a time."""
    mapped, model, regions = work.mapped[piece.raster], work.model, work.rasters[piece.raster]
    halo_px = model.halo_px(mapped.dates)
    with regions.writing(piece.region) as writer:
        for tile in piece.region.cut(work.side_of(mapped)):
            window = window_around(tile, halo_px, mapped.shape, model.stride_px)
            images, inside = read(window), tile.within(window)
            p_MKHW = probabilities(model, images, inside, work.device)
            class_HW, confidence_HW, pixels_MK = decide(model, p_MKHW, images, inside)
            planes = {CLASS: class_HW, CONFIDENCE: confidence_HW}
            is_seen_HW = class_HW != NOT_OBSERVED
            for plane, p_HW in zip(regions.planes[2:], p_MKHW.mean(axis=0), strict=False):
                planes[plane] = np.where(is_seen_HW, p_HW, np.nan)
            writer.write(tile, planes)
            writer.add({f"pixels {m} {k}": int(count) for (m, k), count in np.ndenumerate(pixels_MK)})
    return regions.record(piece.region)


def map_tile(
    model: SegmentModel, images: SpanImages, inside: tuple[slice, ...], device: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(class_HW, confidence_HW, pixels_MK), as `ClassMap` has them, of the part `inside` of a window's images."""
    return decide(model, probabilities(model, images, inside, device), images, inside)


def probabilities(model: SegmentModel, images: SpanImages, inside: tuple[slice, ...], device: str = "") -> np.ndarray:
    """p_MKHW float32, calibrated, by each member of the part `inside`."""
    members = range(len(model.members))
    arrays = [one[None].to(device or "cpu") for one in tensors_of(images.x_TCHW, images.valid_THW, images.years_T)]
    logits = [model.member_logits(i, arrays[0], arrays[1], arrays[2])[0].cpu().numpy()[:, *inside] for i in members]
    return np.stack([_calibrated_image(model, i, logit_KHW) for i, logit_KHW in zip(members, logits, strict=True)])


def decide(
    model: SegmentModel, p_MKHW: np.ndarray, images: SpanImages, inside: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `map_tile`, from the probabilities of the members."""
    is_seen_HW, axes = images.valid_THW[:, *inside].any(axis=0), p_MKHW.ndim - 2
    weight_MK = np.stack([model.decision_of(i) for i in range(len(model.members))])
    weighted_MKHW = p_MKHW * weight_MK.reshape(*weight_MK.shape, *[1] * axes)
    chosen_HW, classes = weighted_MKHW.mean(axis=0).argmax(axis=0), p_MKHW.shape[1]
    alone = [one_KHW.argmax(axis=0)[is_seen_HW] for one_KHW in weighted_MKHW]
    confidence_HW = np.take_along_axis(p_MKHW.mean(axis=0), chosen_HW[None], axis=0)[0]
    class_HW = np.where(is_seen_HW, chosen_HW + 1, NOT_OBSERVED).astype(np.uint8)
    pixels_MK = np.stack([np.bincount(one, minlength=classes) for one in alone])
    return class_HW, np.where(is_seen_HW, confidence_HW, np.nan).astype(np.float32), pixels_MK


def finished_maps(work: MapWork, folder: Path) -> dict[str, ClassMap]:
    """The maps as files below `folder`. Raises StateError where a region is missing."""
    found = {}
    for name, regions in work.rasters.items():
        records = regions.records()
        names = [(m, k) for m in range(len(work.model.members)) for k in range(len(work.model.decision_of(0)))]
        pixels_MK = np.zeros((len(work.model.members), len(work.model.decision_of(0))), np.int64)
        for m, k in names:
            pixels_MK[m, k] = sum(int(record.facts[f"pixels {m} {k}"]) for record in records)
        planes = [to_file(regions, plane, folder / "maps" / (name or "map")) for plane in regions.planes]
        class_HW, confidence_HW, *probability_KHW = planes
        mapped = work.mapped[name]
        found[name] = ClassMap(mapped.span, mapped.dates, class_HW, confidence_HW, pixels_MK, tuple(probability_KHW))
    return found


def _calibrated_image(model: SegmentModel, member: int, logit_KHW: np.ndarray) -> np.ndarray:
    """p_KHW."""
    p_HWK: np.ndarray = model.calibrated(member, np.moveaxis(logit_KHW, 0, -1))
    return np.moveaxis(p_HWK, -1, 0)


def window_around(tile: Box, halo_px: tuple[int, ...] | None, shape: tuple[int, ...], stride_px: tuple[int, ...]) -> Box:
    """Raises RequestError for a network without a finite halo, unless one tile is the whole raster."""
    if halo_px is None and tile.shape != tuple(shape):
        raise RequestError(f"this network needs the whole raster at once: set prediction.tile_px to at least {max(shape)}")
    return window_of(tile, halo_px or (0,) * len(shape), shape, stride_px)


def tensors_of(x_TCHW: np.ndarray, valid_THW: np.ndarray, years_T: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The three as tensors of their own."""
    import torch

    return torch.from_numpy(np.array(x_TCHW)), torch.from_numpy(np.array(valid_THW)), torch.from_numpy(np.array(years_T))
