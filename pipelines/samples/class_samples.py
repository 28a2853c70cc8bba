"""Labels with the images of their time spans: what a class map is learnt from and scored on.

Images are memory maps, decoded once: what is in memory does not grow with the cube.

Shapes: T dates of a span, C variables, H rows, W columns (of volumes slices, rows, columns), P labels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of, space_dims
from pipelines.errors import RequestError
from pipelines.files import making, map_file, path_of, replace_folder
from pipelines.progress import Progress
from pipelines.samples.block_folds import assign_folds, blocks_of
from pipelines.samples.decoded_sites import ABOUT, LabelledSite, about_site, write_images
from pipelines.samples.label_codes import UNKNOWN
from pipelines.samples.labels import Instant, Labels, Span
from pipelines.samples.pairs import square_px
from pipelines.samples.site_groups import Grouping
from pipelines.samples.variables import Variable, decode
from pipelines.tiles import Box

DAYS_A_YEAR = 365.25
LABELS_THAT_LEARN = 5  # of few labels one in so many chooses the epoch
AT_ONCE = 10_000  # labels whose series are in memory


@dataclass(frozen=True)
class SpanImages:
    """All dates of a span: `x_TCHW` float32, physical values, 0 where not `valid_THW`; `years_T` float32 since its start."""

    span: Span
    x_TCHW: np.ndarray
    valid_THW: np.ndarray
    years_T: np.ndarray
    site: str = ""

    def __reduce__(self) -> tuple[Callable[..., SpanImages], tuple[object, ...]]:
        """Memory maps of whole files travel by their names."""
        arrays = (path_of(array) or array for array in (self.x_TCHW, self.valid_THW))
        return _reopened, (self.span, *arrays, self.years_T, self.site)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), of volumes (slices, rows, columns)."""
        return self.valid_THW.shape[1:]

    def part(self, box: Box) -> SpanImages:
        """The window of `box`, in memory."""
        x_TCHW, valid_THW = self.x_TCHW[:, :, *box.slices], self.valid_THW[:, *box.slices]
        return replace(self, x_TCHW=np.array(x_TCHW), valid_THW=np.array(valid_THW))


def _reopened(span: Span, x: np.ndarray | Path, valid: np.ndarray | Path, years_T: np.ndarray, site: str) -> SpanImages:
    """Raises RequestError where the files are not seen."""
    if unseen := [path for path in (x, valid) if isinstance(path, Path) and not path.is_file()]:
        raise RequestError(f"this worker does not see {unseen[0]}: keep the run's folder where all workers find it")
    x_TCHW, valid_THW = (map_file(one) if isinstance(one, Path) else one for one in (x, valid))
    return SpanImages(span, x_TCHW, valid_THW, years_T, site)


@dataclass(frozen=True)
class Few:
    """How many of the labels that are not tested may be learnt from: so many of each class, in so many blocks; None: all.

    Draws are nested: those of a smaller number are among those of a larger one with the same seed.
    """

    labels: int | None = None
    blocks: int | None = None
    seed: int = 0

    def choose(self, known_P: np.ndarray, class_P: np.ndarray, block_P: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(indices that may be learnt from, bool of those that choose the epoch), of the indices `known_P`.

        One in five labels of a class, and one of the blocks, chooses; of fewer than five labels, or of one block, all do both.
        """
        rng = np.random.default_rng([self.seed, fold])
        blocks, order = rng.permutation(np.unique(block_P[known_P])), rng.permutation(known_P)
        if self.blocks is not None:
            order = order[np.isin(block_P[order], blocks[: self.blocks])]
        taken = [order[class_P[order] == k][: self.labels] for k in np.unique(class_P[order])]
        chosen_P = np.sort(np.concatenate(taken)) if taken else known_P[:0]
        if self.labels is not None:
            choosing = [own[: len(own) // LABELS_THAT_LEARN] for own in taken]
            return chosen_P, np.isin(chosen_P, np.concatenate(choosing)) if taken else np.zeros(0, bool)
        assert self.blocks is not None
        return chosen_P, (block_P[chosen_P] == blocks[0]) & (min(self.blocks, len(blocks)) > 1)


@dataclass(frozen=True)
class ClassSamples:
    """Labels, the images of each of their spans, and the block and fold of each label.

    is_comparable: the images were made comparable (`pipelines.samples.pairs`): networks see them as they are.
    """

    labels: Labels
    images: tuple[SpanImages, ...]
    block_P: np.ndarray
    fold_P: np.ndarray
    is_comparable: bool = False
    few: Few | None = None  # what networks and references may learn from; None: all that they are not tested on

    @property
    def folds(self) -> int:
        return int(self.fold_P.max()) + 1

    def folds_digest(self) -> str:
        """SHA-256 (hex) of the places of all labels, each with its fold: equal where networks of a fold may begin from those of
        the same fold and know no place that is tested."""
        sites = sorted({one.site for one in self.images})
        number_S = np.array([sites.index(one.site) for one in self.images], np.int64)
        rows_XK = np.unique(
            np.stack([number_S[self.labels.span_P], *self.labels.place(), self.fold_P], axis=1).astype("<i8"), axis=0
        )
        return hashlib.sha256(json.dumps(sites).encode() + rows_XK.tobytes()).hexdigest()

    @property
    def axes(self) -> int:
        """Of space: 2, of volumes 3."""
        return len(self.images[0].shape)

    @property
    def year_days(self) -> float:
        """Days of what networks read as one year: 365.25; of series within a day, as long as the longest of them."""
        return year_days_of(self.images)

    def series(self, p: np.ndarray, cut: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(x_TC, valid_T, years_T) of the labels with these indices; `cut`: the first dates only count as seen."""
        for i in p:
            images = self.images[self.labels.span_P[i]]
            place = tuple(int(axis_P[i]) for axis_P in self.labels.place())
            valid_T = images.valid_THW[:, *place]
            if cut is not None:
                valid_T = valid_T & (np.arange(len(valid_T)) < cut)
            yield images.x_TCHW[:, :, *place], valid_T, images.years_T

    def known(self, fold: int) -> np.ndarray:
        """Indices of the labels outside a fold that may be learnt from."""
        outside_P = np.flatnonzero(self.fold_P != fold)
        return outside_P if self.few is None else self.few.choose(outside_P, self.labels.class_P, self.block_P, fold)[0]

    def at_most(self, p: np.ndarray, most: int, seed: int) -> np.ndarray:
        """Of these indices at most so many of each class, drawn at random, in their order."""
        return at_most(self.labels.class_P, p, most, seed)


def year_days_of(images: Sequence[SpanImages]) -> float:
    """As `ClassSamples.year_days`."""
    longest = DAYS_A_YEAR * max((float(one.years_T[-1]) for one in images if len(one.years_T)), default=0.0)
    return longest if 0 < longest < 1 else DAYS_A_YEAR


def at_most(class_P: np.ndarray, p: np.ndarray, most: int, seed: int) -> np.ndarray:
    """As `ClassSamples.at_most`."""
    rng, (names, counts) = np.random.default_rng(seed), np.unique(class_P[p], return_counts=True)
    crowded = names[counts > most]
    kept = [p[~np.isin(class_P[p], crowded)], *(rng.choice(p[class_P[p] == k], most, replace=False) for k in crowded)]
    return np.sort(np.concatenate(kept))


# ---------------------------------------------------------------- images


def read_span(dataset: xr.Dataset, span: Span, variables: tuple[Variable, ...], box: Box | None = None) -> SpanImages:
    """The images of a span, of the whole raster or of `box`, in memory. T may be 0."""
    at = np.flatnonzero(span.holds(dataset["time"].values))
    part = dataset.isel(time=at)
    if box is not None:
        part = part.isel(dict(zip(space_dims(dataset), box.slices, strict=True)))
    x_TCHW, valid_THW = decode(part["image"].values, part["valid"].values, bands_of(dataset), variables)
    return SpanImages(span, x_TCHW, valid_THW, years_since(span, dataset["time"].values[at]))


def years_since(span: Span, times_T: np.ndarray) -> np.ndarray:
    """years_T float32 since the begin of the span."""
    days_T = (times_T - span.start.astype("datetime64[ns]")) / np.timedelta64(1, "D")
    years_T: np.ndarray = (days_T / DAYS_A_YEAR).astype(np.float32)
    return years_T


def decode_span(
    dataset: xr.Dataset, span: Span, variables: tuple[Variable, ...], folder: Path, made_from: Mapping[str, object],
    site: str = "",
) -> SpanImages:  # fmt: skip
    """`read_span` of the whole raster as memory maps in `folder`, written where it was not made from the same. StorageFull."""
    times_T = dataset["time"].values
    times_T = times_T[span.holds(times_T)]
    about = {**made_from, "span": span.text, "variables": [repr(one) for one in variables]}
    shape = len(times_T), len(variables), *(dataset.sizes[dim] for dim in space_dims(dataset))
    if not len(times_T):
        return read_span(dataset, span, variables)

    def read(tile: Box) -> tuple[np.ndarray, np.ndarray]:
        images = read_span(dataset, span, variables, tile)
        return images.x_TCHW, images.valid_THW

    with making(folder):
        if about_site(folder) != about:
            draft = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            tile_px = square_px(*shape[:2])
            write_images(draft, shape, read, tile_px if len(shape) == 4 else round(tile_px ** (2 / 3)))
            (draft / ABOUT).write_text(json.dumps({"about": about}), encoding="utf-8")
            replace_folder(draft, folder)
        x_TCHW, valid_THW = (map_file(folder / f"{name}.npy") for name in ("x", "valid"))
    return SpanImages(span, x_TCHW, valid_THW, years_since(span, times_T), site)


def whole_span(times_T: np.ndarray) -> Span:
    """The span of all dates of a cube, from its first one to a second after its last one."""
    first, last = (time.astype("datetime64[s]") for time in (times_T[0], times_T[-1]))
    return Span(Instant(first), Instant(last + np.timedelta64(1, "s")))


def images_of_site(site: LabelledSite) -> SpanImages:
    """A decoded site (`pipelines.samples.decoded_sites`), all of its dates."""
    times_T = (site.days_T * 86400).astype("datetime64[s]").astype("datetime64[ns]")
    span = whole_span(times_T)
    return SpanImages(span, site.x_TCHW, site.valid_THW, years_since(span, times_T), site.name)


# ---------------------------------------------------------------- samples


def open_samples(
    dataset: xr.Dataset, labels: Labels, variables: tuple[Variable, ...], *, min_dates: int, block_px: int, folds: int, seed: int,
    folder: Path, made_from: Mapping[str, object], progress: Progress | None = None,
) -> ClassSamples:  # fmt: skip
    """Labels of one cube with the images of their spans, below `folder`. Raises RequestError if too few labels are left."""
    used = np.unique(labels.span_P)
    labels = replace(labels, spans=tuple(labels.spans[s] for s in used), span_P=np.searchsorted(used, labels.span_P))
    images = []
    for done, span in enumerate(labels.spans):
        images.append(decode_span(dataset, span, variables, folder / f"span-{done}", made_from))
        if progress is not None:
            progress(done + 1, len(labels.spans))
    has_dates_S = np.array([len(one.years_T) > 0 for one in images])
    labels = labels.keep(has_dates_S[labels.span_P], "no dates")
    labels = labels.keep(seen_dates(labels, images) >= min_dates, "missing data")
    require_two_classes(labels)
    block_P = blocks_of(labels.place(), block_px)
    return ClassSamples(labels, tuple(images), block_P, assign_folds(block_P, labels.class_P, folds, seed))


def samples_of_sites(
    images: Sequence[SpanImages], rasters: Mapping[str, np.ndarray], classes: tuple[str, ...], grouping: Grouping, *,
    min_dates: int, is_comparable: bool,
) -> ClassSamples:  # fmt: skip
    """Labelled pixels of sites: every group of sites (or strips of them) is a block, and a fold of its own.

    `rasters`: site -> label_HW uint8, the number of the class, UNKNOWN: none. Raises RequestError if too few labels are left.
    """
    found, group_of = [], {region: g for g, group in enumerate(grouping.groups) for region in group}
    for s, one in enumerate(images):
        group_HW = np.full(one.shape, -1, np.int64)
        for region, g in group_of.items():
            if region.site == one.site:
                group_HW[region.tile.slices] = g
        label_HW = rasters[one.site]
        rows, columns = np.nonzero(label_HW != UNKNOWN)
        found.append(np.stack([rows, columns, np.full(len(rows), s), label_HW[rows, columns], group_HW[rows, columns]]))
    row_P, column_P, span_P, class_P, group_P = np.concatenate(found, axis=1).astype(np.int64)
    labels = Labels(classes, tuple(one.span for one in images), row_P, column_P, span_P, class_P, len(row_P))
    is_inside_P = group_P >= 0
    labels, group_P = labels.keep(is_inside_P, "between strips"), group_P[is_inside_P]
    is_seen_P = seen_dates(labels, images) >= min_dates
    labels, group_P = labels.keep(is_seen_P, "missing data"), group_P[is_seen_P]
    require_two_classes(labels)
    return ClassSamples(labels, tuple(images), group_P, group_P, is_comparable)


def seen_dates(labels: Labels, images: Sequence[SpanImages]) -> np.ndarray:
    """How many usable dates each label has, int64."""
    seen_P = np.zeros(len(labels), np.int64)
    for s, one in enumerate(images):
        members = np.flatnonzero(labels.span_P == s)
        for p in np.split(members, np.arange(AT_ONCE, len(members), AT_ONCE)):
            seen_P[p] = np.count_nonzero(one.valid_THW[:, *labels.place(p)], axis=0)
    return seen_P


def require_two_classes(labels: Labels) -> None:
    """Raises RequestError where there are labels of fewer than two classes."""
    if len(np.unique(labels.class_P)) < 2:
        raise RequestError(
            f"{labels.sentence}; labels of two classes are needed: check labels, quality mask and labels.min_dates"
        )


# ---------------------------------------------------------------- features


def series_features(samples: ClassSamples, p: np.ndarray, steps_K: np.ndarray, cut: int | None = None) -> np.ndarray:
    """features (P, K C) float32: every variable at the times `steps_K` (years), linear between usable dates, constant beyond.

    A pixel without any usable date is 0 everywhere.
    """
    features = np.zeros((len(p), len(steps_K) * samples.images[0].x_TCHW.shape[1]), np.float32)
    for i, (x_TC, valid_T, years_T) in enumerate(samples.series(p, cut)):
        if valid_T.any():
            columns = [np.interp(steps_K, years_T[valid_T], x_T[valid_T]) for x_T in x_TC.T]
            features[i] = np.concatenate(columns)
    return features


def common_steps(samples: ClassSamples) -> np.ndarray:
    """steps_K: times in years at which series of all spans are compared: those of the span with the most dates."""
    most = max(samples.images, key=lambda one: len(one.years_T))
    return most.years_T
