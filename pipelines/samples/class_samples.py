"""Labels with the images of their time spans: what a class map is learnt from and scored on.

Shapes: T dates of a span, C variables, H rows, W columns, P labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of
from pipelines.errors import RequestError
from pipelines.progress import Progress
from pipelines.samples.block_folds import assign_folds, blocks_of
from pipelines.samples.labels import Labels, Span
from pipelines.samples.variables import Variable, decode
from pipelines.tiles import Box

DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class SpanImages:
    """All dates of a span: `x_TCHW` float32, physical values, 0 where not `valid_THW`; `years_T` float32 since its start."""

    span: Span
    x_TCHW: np.ndarray
    valid_THW: np.ndarray
    years_T: np.ndarray

    @property
    def shape_yx(self) -> tuple[int, int]:
        height, width = self.valid_THW.shape[-2:]
        return height, width


@dataclass(frozen=True)
class ClassSamples:
    """Labels, the images of each of their spans, and the block and fold of each label."""

    labels: Labels
    images: tuple[SpanImages, ...]
    block_P: np.ndarray
    fold_P: np.ndarray

    @property
    def folds(self) -> int:
        return int(self.fold_P.max()) + 1

    def series(self, p: np.ndarray, cut: int | None = None) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(x_TC, valid_T, years_T) of the labels with these indices; `cut`: the first dates only count as seen."""
        found = []
        for i in p:
            images = self.images[self.labels.span_P[i]]
            row, column = self.labels.row_P[i], self.labels.column_P[i]
            valid_T = images.valid_THW[:, row, column]
            if cut is not None:
                valid_T = valid_T & (np.arange(len(valid_T)) < cut)
            found.append((images.x_TCHW[:, :, row, column], valid_T, images.years_T))
        return found


def read_span(dataset: xr.Dataset, span: Span, variables: tuple[Variable, ...], box: Box | None = None) -> SpanImages:
    """The images of a span, of the whole raster or of `box`. T may be 0."""
    at = np.flatnonzero(span.holds(dataset["time"].values))
    part = dataset.isel(time=at)
    if box is not None:
        part = part.isel(y=box.rows, x=box.columns)
    x_TCHW, valid_THW = decode(part["image"].values, part["valid"].values, bands_of(dataset), variables)
    days_T = (dataset["time"].values[at] - span.start.astype("datetime64[ns]")) / np.timedelta64(1, "D")
    return SpanImages(span, x_TCHW, valid_THW, (days_T / DAYS_A_YEAR).astype(np.float32))


def open_samples(
    dataset: xr.Dataset, labels: Labels, variables: tuple[Variable, ...], *, min_dates: int, block_px: int, folds: int, seed: int,
    progress: Progress | None = None,
) -> ClassSamples:  # fmt: skip
    """Reads the images of every span and drops labels without enough dates. Raises RequestError if nothing is left."""
    used = np.unique(labels.span_P)
    labels = replace(labels, spans=tuple(labels.spans[s] for s in used), span_P=np.searchsorted(used, labels.span_P))
    images = []
    for done, span in enumerate(labels.spans):
        images.append(read_span(dataset, span, variables))
        if progress is not None:
            progress(done + 1, len(labels.spans))
    has_dates_S = np.array([len(one.years_T) > 0 for one in images])
    labels = labels.keep(has_dates_S[labels.span_P], "no dates")
    seen_P = np.array(
        [
            np.count_nonzero(images[s].valid_THW[:, r, c])
            for s, r, c in zip(labels.span_P, labels.row_P, labels.column_P, strict=True)
        ]
    )
    labels = labels.keep(seen_P >= min_dates, "missing data")
    if len(np.unique(labels.class_P)) < 2:
        raise RequestError(
            f"{labels.sentence}; labels of two classes are needed: check labels, quality mask and labels.min_dates"
        )
    block_P = blocks_of(labels.row_P, labels.column_P, block_px)
    return ClassSamples(labels, tuple(images), block_P, assign_folds(block_P, labels.class_P, folds, seed))


def series_features(series: list[tuple[np.ndarray, np.ndarray, np.ndarray]], steps_K: np.ndarray) -> np.ndarray:
    """features (P, K C) float32: every variable at the times `steps_K` (years), linear between usable dates, constant beyond.

    A pixel without any usable date is 0 everywhere.
    """
    features = np.zeros((len(series), len(steps_K) * series[0][0].shape[1] if series else 0), np.float32)
    for p, (x_TC, valid_T, years_T) in enumerate(series):
        if valid_T.any():
            columns = [np.interp(steps_K, years_T[valid_T], x_T[valid_T]) for x_T in x_TC.T]
            features[p] = np.concatenate(columns)
    return features


def common_steps(samples: ClassSamples) -> np.ndarray:
    """steps_K: times in years at which series of all spans are compared: those of the span with the most dates."""
    most = max(samples.images, key=lambda one: len(one.years_T))
    return most.years_T
