"""A segmenter over whole rasters, tile by tile: class and confidence of every pixel; and its scores of labelled pixels.

Shapes: T dates, C variables, K classes, H rows, W columns, P labels. A tile sees its whole halo, so tiles are the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr

from pipelines.errors import RequestError
from pipelines.inference.tiling import window_of
from pipelines.learning.class_metrics import Predicted
from pipelines.progress import Progress
from pipelines.samples.class_samples import ClassSamples, SpanImages, common_steps, read_span, series_features
from pipelines.samples.labels import Span
from pipelines.samples.variables import Variable
from pipelines.tiles import Box

if TYPE_CHECKING:
    from torch import Tensor  # products, which need no torch, read this module

NOT_OBSERVED = 0  # code of a pixel without a usable date; class k has the code k + 1


class SegmentModel(Protocol):
    """What is called of a segmenter."""

    @property
    def stride_px(self) -> tuple[int, ...]: ...
    def halo_px(self, steps: int) -> tuple[int, ...] | None: ...
    def probability(self, i: int, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor: ...
    def predict_members(self, x_TCHW: Tensor, valid_THW: Tensor, years_T: Tensor) -> Tensor: ...


class Reference(Protocol):
    """A model of rows of features; `predict_probability` is there only for those that have one."""

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> Reference: ...
    def predict(self, features_PF: np.ndarray) -> np.ndarray: ...


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


def predict_map(
    dataset: xr.Dataset, span: Span, variables: tuple[Variable, ...], model: SegmentModel, tile_px: int, folder: Path,
    progress: Progress | None = None,
) -> ClassMap:  # fmt: skip
    """The map of a span; a window of the cube is in memory at a time. Raises RequestError where the span has no date."""
    dates = int(span.holds(dataset["time"].values).sum())
    if not dates:
        raise RequestError(f"the cube has no date from {span.text}; set prediction.from and prediction.until")
    shape = dataset.sizes["y"], dataset.sizes["x"]
    folder.mkdir(parents=True, exist_ok=True)
    class_HW = np.lib.format.open_memmap(folder / "class.npy", "w+", np.uint8, shape)
    confidence_HW = np.lib.format.open_memmap(folder / "confidence.npy", "w+", np.float32, shape)
    tiles, halo_px, counts = Box.whole(shape).cut(tile_px), model.halo_px(dates), []
    for done, tile in enumerate(tiles):
        window = _window(tile, halo_px, shape, model.stride_px)
        images = read_span(dataset, span, variables, window)
        p_MKHW = model.predict_members(*_tensors(images, Box.whole(window.shape))).numpy()
        p_MKHW = p_MKHW[:, :, *tile.within(window)]
        is_seen_HW, classes = np.isfinite(p_MKHW[0, 0]), p_MKHW.shape[1]
        filled_KHW = np.where(is_seen_HW, p_MKHW.mean(axis=0), 0)
        counts.append([np.bincount(p_KHW.argmax(axis=0)[is_seen_HW], minlength=classes) for p_KHW in p_MKHW])
        class_HW[tile.slices] = np.where(is_seen_HW, filled_KHW.argmax(axis=0) + 1, NOT_OBSERVED)
        confidence_HW[tile.slices] = np.where(is_seen_HW, filled_KHW.max(axis=0), np.nan)
        if progress is not None:
            progress(done + 1, len(tiles))
    return ClassMap(span, dates, class_HW, confidence_HW, np.sum(counts, axis=0))


def held_out_scores(samples: ClassSamples, model: SegmentModel, tile_px: int, cut: int | None = None) -> Predicted:
    """Every label by the member that has not seen its fold; `cut`: only the first dates count as seen."""
    found_PK = np.zeros((len(samples.labels), len(samples.labels.classes)), np.float32)
    for fold in range(samples.folds):
        for s, images in enumerate(samples.images):
            test_P = np.flatnonzero((samples.fold_P == fold) & (samples.labels.span_P == s))
            if test_P.size:
                found_PK[test_P] = _score_pixels(samples, images, test_P, model, fold, tile_px, cut)
    return Predicted(found_PK.argmax(axis=1), found_PK)


def _score_pixels(
    samples: ClassSamples, images: SpanImages, p: np.ndarray, model: SegmentModel, member: int, tile_px: int, cut: int | None
) -> np.ndarray:
    """Probabilities (P, K) of the labels `p`, of one span, by one member; tiles without any of them are left out."""
    row_P, column_P = samples.labels.row_P[p], samples.labels.column_P[p]
    found_PK = np.zeros((len(p), len(samples.labels.classes)), np.float32)
    halo_px = model.halo_px(len(images.years_T))
    for tile in Box.whole(images.shape_yx).cut(tile_px):
        here = (row_P >= tile.rows.start) & (row_P < tile.rows.stop) & (column_P >= tile.columns.start)
        here &= column_P < tile.columns.stop
        if not here.any():
            continue
        window = _window(tile, halo_px, images.shape_yx, model.stride_px)
        x_TCHW, valid_THW, years_T = _tensors(images, window)
        if cut is not None:
            valid_THW[cut:] = False
        p_KHW = model.probability(member, x_TCHW[None], valid_THW[None], years_T[None])[0].numpy()
        found_PK[here] = p_KHW[:, row_P[here] - window.start[0], column_P[here] - window.start[1]].T
    return found_PK


def _window(tile: Box, halo_px: tuple[int, ...] | None, shape: tuple[int, ...], stride_px: tuple[int, ...]) -> Box:
    """Raises RequestError for a network without a finite halo, unless one tile is the whole raster."""
    if halo_px is None and tile.shape != tuple(shape):
        raise RequestError(f"this network needs the whole raster at once: set prediction.tile_px to at least {max(shape)}")
    return window_of(tile, halo_px or (0, 0), shape, stride_px)


def _tensors(images: SpanImages, window: Box) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    x_TCHW, valid_THW = images.x_TCHW[:, :, *window.slices], images.valid_THW[:, *window.slices]
    return torch.from_numpy(x_TCHW.copy()), torch.from_numpy(valid_THW.copy()), torch.from_numpy(images.years_T)


def held_out_references(
    samples: ClassSamples, builders: Mapping[str, Callable[[], Reference]], cut: int | None = None
) -> dict[str, Predicted]:
    """Name -> what a reference says of every label, fitted on all labels of the other folds (the networks' validation too)."""
    everything, class_P = np.arange(len(samples.labels)), samples.labels.class_P
    steps_K = common_steps(samples)
    features_PF = series_features(samples.series(everything, cut), steps_K if cut is None else steps_K[:cut])
    found = {}
    for name, build in builders.items():
        said_P = np.zeros(len(class_P), np.int64)
        p_PK: np.ndarray | None = np.zeros((len(class_P), len(samples.labels.classes)))
        for fold in range(samples.folds):
            test_P = samples.fold_P == fold
            fitted = build().fit(features_PF[~test_P], class_P[~test_P])
            said_P[test_P] = fitted.predict(features_PF[test_P])
            votes = getattr(fitted, "predict_probability", None)
            if votes is None or p_PK is None:
                p_PK = None
            else:
                p_PK[test_P] = votes(features_PF[test_P])
        found[name] = Predicted(said_P, p_PK)
    return found


def metadata_of(samples: ClassSamples) -> dict[str, np.ndarray]:
    """What is known of each label beside its images, for the shortcut audit; (P,) or (P, 2) float64.

    Size is the number of dates and the raster's sides; a run over one cube has one site.
    """
    labels, images = samples.labels, samples.images
    start_S = np.array([span.start.astype("datetime64[D]").astype(np.int64) for span in labels.spans], np.float64)
    of_year_S = np.array(
        [(span.start.astype("datetime64[D]") - span.start.astype("datetime64[Y]")).astype(np.int64) for span in labels.spans]
    )
    size_S = np.array([(len(one.years_T), *one.shape_yx) for one in images], np.float64)
    missing_P = [1 - valid_T.mean() if len(valid_T) else 1.0 for _, valid_T, _ in samples.series(np.arange(len(labels)))]
    return {
        "date": start_S[labels.span_P],
        "season": of_year_S[labels.span_P],
        "position": np.stack([labels.row_P, labels.column_P], axis=1).astype(np.float64),
        "size": size_S[labels.span_P],
        "missing share": np.array(missing_P),
        "site": np.zeros(len(labels)),
    }


def cuts_of(samples: ClassSamples, most: int = 8) -> Sequence[int]:
    """Numbers of first dates at which accuracy is measured, evenly spread, the last one all."""
    dates = max(len(one.years_T) for one in samples.images)
    return sorted({round(n) for n in np.linspace(1, dates, min(most, dates))})
