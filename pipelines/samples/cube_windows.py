"""Samples cut out of a cube: the window around each labelled place, through the dates of its span.

A sample has a frame for each step of its span (or for each date), in stored values. A frame is the mean of the dates in its step
on which a pixel is valid, rounded where the cube holds whole numbers; it is valid where the centre pixel is. Of a valid frame,
pixels that are never valid in the step, and those outside the cube, have the centre's value.

Shapes: N windows, T frames, C bands, H rows and W columns of a part of the cube, D dates of a span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of, grid_of, head_snapshot, open_cube
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.samples.class_samples import whole_span
from pipelines.samples.labels import Labels, Span
from pipelines.samples.variables import physical
from pipelines.scene import Band
from pipelines.sources.answers import spans_as_text
from pipelines.sources.samples import Frames, Sample, SampleListing
from pipelines.tiles import Box

TILE_PX = 128  # side of the parts of a cube that are in memory
KEPT_PARTS = 4


@dataclass(frozen=True)
class WindowSettings:
    """How windows are cut: see `configs.cube_windows.WindowsSource`. `steps`: None for dates as they are."""

    window_px: int = 1
    block_px: int = 8
    steps: int | None = None
    every_px: int = 1
    min_frames: int = 1


@dataclass(frozen=True)
class Place:
    """A pixel of the cube, a span of time, and what is known of both."""

    row: int
    column: int
    span: Span
    answer: str = ""

    @property
    def name(self) -> str:
        """`y00012-x00034-20180101-20190101`; with the time of day where a span does not begin and end at midnight."""
        ends = [str(end.astype("datetime64[s]")).removesuffix("T00:00:00") for end in (self.span.start, self.span.stop)]
        return "-".join([f"y{self.row:05d}-x{self.column:05d}", *(end.replace("-", "").replace(":", "") for end in ends)])


@dataclass(frozen=True)
class Part:
    """The frames of a part of the cube: `image_TCHW` in the cube's dtype, 0 where not `valid_THW`; `seconds_T` from the first.

    `corner`: row and column of its first pixel, which may lie outside the cube.
    """

    corner: tuple[int, int]
    image_TCHW: np.ndarray
    valid_THW: np.ndarray
    seconds_T: np.ndarray


@dataclass(frozen=True)
class Cut:
    """Windows: `image_NTCHW`, `valid_NT`."""

    image_NTCHW: np.ndarray
    valid_NT: np.ndarray


@dataclass(frozen=True)
class CubeWindows:
    """Windows of the cube at `uri`, of its bands `names`. A source of samples.

    `labels`: what is known; None: every `every_px`-th pixel is a sample without an answer. `span`: that of such samples.
    `per_step`: a labelled pixel is one sample through `span` (None: all dates), whose steps have the labels of their spans.
    """

    uri: str
    names: tuple[str, ...]
    settings: WindowSettings
    snapshot: str
    labels: Labels | None = None
    span: Span | None = None
    per_step: bool = False
    _parts: dict[tuple[Span, Box], Part] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The cube, its bands in the order of `names`."""
        whole = open_cube(self.uri, self.snapshot)
        there = [band.name for band in bands_of(whole)]
        if missing := [name for name in self.names if name not in there]:
            raise RequestError(f"the cube {self.uri} has no band {missing[0]!r}, only {', '.join(there)}; correct source.bands")
        return whole

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        by_name = {band.name: band for band in bands_of(self.dataset)}
        return tuple(by_name[name] for name in self.names)

    @cached_property
    def grid(self) -> Grid:
        return grid_of(self.dataset).require_2d("windows of a cube")

    @property
    def description(self) -> Mapping[str, Any]:
        """What all samples of a store must share beside bands."""
        chosen = self.settings
        begin = {"begin": str(self.begin)} if self.per_step or self.labels is None else {}
        return {"windows": {"window_px": chosen.window_px, "steps": chosen.steps, "block_px": chosen.block_px, **begin}}

    @property
    def begin(self) -> np.datetime64:
        """When the first frame begins, to the second, of samples that all have one span."""
        (span,) = self.spans
        times_T = self.dataset["time"].values
        moment = times_T[span.holds(times_T)][0] if self.settings.steps is None else span.start
        begin: np.datetime64 = moment.astype("datetime64[s]")
        return begin

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of samples, ascending."""
        if self.labels is None or self.per_step:
            return (self.span or whole_span(self.dataset["time"].values),)
        return tuple(self.labels.spans[s] for s in np.unique(self.labels.span_P))

    # ------------------------------------------------------------ a source of samples

    def list_samples(self) -> SampleListing:
        """In parts of the cube, one span after the other. Raises RequestError where spans differ in their number of dates."""
        dates = {span: int(span.holds(self.dataset["time"].values).sum()) for span in self.spans}
        if empty := [span for span, count in dates.items() if not count]:
            raise RequestError(f"the cube {self.uri} has no date from {empty[0].text}; correct the spans of the labels")
        if self.settings.steps is None and len(set(dates.values())) > 1:
            least, most = min(dates, key=lambda one: dates[one]), max(dates, key=lambda one: dates[one])
            raise RequestError(
                f"the spans have different numbers of dates ({dates[least]} from {least.text}, {dates[most]} from {most.text}); "
                "set source.steps, so that all have as many steps"
            )
        samples = [self._sample(name, place) for name, place in self.places.items()]
        notes = [f"labels: {self.labels.sentence}", *self.labels.notes] if self.labels is not None else []
        return SampleListing(samples, (), (), [*notes, self.sentence(dates)])

    def sentence(self, dates: Mapping[Span, int]) -> str:
        """How dates become frames."""
        chosen, counts = self.settings, sorted(set(dates.values()))
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        if chosen.steps is None:
            return f"windows of {chosen.window_px} x {chosen.window_px} pixels through {span} dates as they are"
        return f"windows of {chosen.window_px} x {chosen.window_px} pixels; {span} dates become {chosen.steps} even steps"

    def read(self, sample: Sample) -> Frames:
        """Raises SceneRefused(few-usable)."""
        place = self.places[sample.id]
        return self.frames_of(sample.id, place, self.part(place.span, self.box_of(place)))

    def frames_of(self, name: str, place: Place, part: Part) -> Frames:
        """The window around a place, of the part that holds it. Raises SceneRefused(few-usable)."""
        found = cut(part, np.array([place.row]), np.array([place.column]), self.settings.window_px)
        image_TCHW, valid_T = found.image_NTCHW[0], found.valid_NT[0]
        if (seen := int(valid_T.sum())) < self.settings.min_frames:
            detail = f"{seen} of {len(valid_T)} frames are valid; source.min_frames asks for {self.settings.min_frames}"
            raise SceneRefused(name, "few-usable", detail)
        year = place.span.start.astype("datetime64[Y]").astype(int) + 1970
        known = {"row": place.row, "column": place.column, "year": year, "missing": 1 - seen / len(valid_T)}
        valid_THW = np.broadcast_to(valid_T[:, None, None], (len(valid_T), *image_TCHW.shape[2:]))
        return Frames(image_TCHW, part.seconds_T, valid_THW, {key: float(value) for key, value in known.items()})

    @cached_property
    def places(self) -> dict[str, Place]:
        """Sample -> its place; those of one part of the cube follow each other."""
        in_parts = sorted(
            self._places(), key=lambda one: (one.span, one.row // TILE_PX, one.column // TILE_PX, one.row, one.column)
        )
        return {one.name: one for one in in_parts}

    def _places(self) -> Iterator[Place]:
        if self.labels is None:
            height, width = self.grid.shape_yx
            first, step, span = (self.settings.every_px - 1) // 2, self.settings.every_px, self.spans[0]
            yield from (Place(row, column, span) for row in range(first, height, step) for column in range(first, width, step))
            return
        columns = (self.labels.row_P, self.labels.column_P, self.labels.span_P, self.labels.class_P)
        of_pixel: dict[tuple[int, int], list[tuple[float, float, str]]] = {}
        for row, column, s, k in zip(*(one.tolist() for one in columns), strict=True):
            span, name = self.labels.spans[s], self.labels.classes[k]
            if not self.per_step:
                yield Place(row, column, span, name)
                continue
            of_pixel.setdefault((row, column), []).append((*self._moments(span), name))
        for (row, column), spans in of_pixel.items():
            yield Place(row, column, self.spans[0], spans_as_text(sorted(spans), "seconds"))

    def _moments(self, span: Span) -> tuple[float, float]:
        """Seconds of a label's span from the first frame; of steps from its middle, so that they have the label that it has."""
        (whole,), steps = self.spans, self.settings.steps
        shift = 0.0 if steps is None else (whole.stop - whole.start) / np.timedelta64(1, "s") / steps / 2
        start, stop = ((end - self.begin) / np.timedelta64(1, "s") - shift for end in (span.start, span.stop))
        return float(start), float(stop)

    def _sample(self, name: str, place: Place) -> Sample:
        block = block_name(place.row, place.column, self.settings.block_px)
        return Sample(name, (), place.answer, block, state=f"{self.snapshot} {self.settings.min_frames}")

    # ------------------------------------------------------------ parts of the cube

    def boxes(self) -> list[Box]:
        """The parts that hold all pixels, each once."""
        return Box.whole(self.grid.shape_yx).cut(TILE_PX)

    def box_of(self, place: Place) -> Box:
        """The part that holds a place."""
        start, shape = (place.row // TILE_PX * TILE_PX, place.column // TILE_PX * TILE_PX), self.grid.shape_yx
        return Box(start, (min(start[0] + TILE_PX, shape[0]), min(start[1] + TILE_PX, shape[1])))

    def part(self, span: Span, box: Box) -> Part:
        """The frames of a box and of what windows around its pixels reach; the last few are kept."""
        if (span, box) not in self._parts:
            while len(self._parts) >= KEPT_PARTS:
                self._parts.pop(next(iter(self._parts)))
            self._parts[span, box] = self.read_part(span, box)
        return self._parts[span, box]

    def read_part(self, span: Span, box: Box) -> Part:
        """`part`, of which nothing is kept."""
        times_D, reach = self.dataset["time"].values, self.settings.window_px // 2
        at_D, inside = np.flatnonzero(span.holds(times_D)), box.grown(reach, self.grid.shape_yx)
        step_D, seconds_T = frame_times(times_D[at_D], span, self.settings.steps)
        dtype, corner = self.dataset["image"].dtype, (box.start[0] - reach, box.start[1] - reach)
        shape = len(seconds_T), box.shape[0] + 2 * reach, box.shape[1] + 2 * reach
        image_TCHW = np.zeros((shape[0], len(self.names), *shape[1:]), dtype)
        valid_THW = np.zeros(shape, bool)
        within = tuple(slice(a - c, b - c) for a, b, c in zip(inside.start, inside.stop, corner, strict=True))
        for step in np.unique(step_D).tolist():
            mean_CHW, valid_HW = self._mean(at_D[step_D == step], inside)
            image_TCHW[step, :, *within] = np.rint(mean_CHW) if dtype.kind in "iu" else mean_CHW
            valid_THW[step, *within] = valid_HW
        return Part(corner, image_TCHW, valid_THW, seconds_T)

    def _mean(self, at_D: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """(mean_CHW float64 of the valid dates, 0 where none is; valid_HW)."""
        names = [band.name for band in bands_of(self.dataset)]
        chosen = [names.index(name) for name in self.names]
        total_CHW, count_HW = np.zeros((len(chosen), *box.shape)), np.zeros(box.shape, np.int64)
        for date in at_D.tolist():
            one = self.dataset.isel(time=date, y=box.rows, x=box.columns)
            image_CHW, valid_1HW = one["image"].values[chosen], one["valid"].values[None].astype(bool)
            for stored_HW, band in zip(image_CHW, self.bands, strict=True):
                valid_1HW &= np.isfinite(physical(stored_HW[None], band, valid_1HW))
            total_CHW += np.where(valid_1HW, image_CHW, 0)
            count_HW += valid_1HW[0]
        return np.divide(total_CHW, count_HW, out=total_CHW, where=count_HW > 0), count_HW > 0


def frame_times(times_D: np.ndarray, span: Span, steps: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(the frame of each date, seconds of each frame from the first one): of steps their begin, else the dates themselves."""
    if steps is None:
        return np.arange(len(times_D)), (times_D - times_D[0]) / np.timedelta64(1, "s")
    length = (span.stop - span.start) / np.timedelta64(1, "s")
    passed_D = (times_D - span.start.astype("datetime64[ns]")) / np.timedelta64(1, "s")
    return np.floor(passed_D * steps / length).astype(int), np.arange(steps) * length / steps


def block_name(row: int, column: int, block_px: int) -> str:
    """The block of `block_px` pixels that holds a pixel, as the group of a sample.

    >>> block_name(12, 3, 5)
    'block 00002-00000'
    """
    return f"block {row // block_px:05d}-{column // block_px:05d}"


def cut(part: Part, row_N: np.ndarray, column_N: np.ndarray, window_px: int) -> Cut:
    """The windows around pixels of the cube, whose windows lie in the part as far as they lie in the cube."""
    reach, (top, left) = window_px // 2, part.corner
    offset = np.arange(window_px)
    row_NH1 = (row_N - top - reach)[:, None, None] + offset[None, :, None]
    column_N1W = (column_N - left - reach)[:, None, None] + offset[None, None, :]
    image_NTCHW = np.moveaxis(part.image_TCHW[:, :, row_NH1, column_N1W], 2, 0)
    valid_NTHW = np.moveaxis(part.valid_THW[:, row_NH1, column_N1W], 1, 0)
    valid_NT = valid_NTHW[:, :, reach, reach]
    centre_NTC11 = image_NTCHW[..., reach, reach][..., None, None]
    filled = np.where(valid_NTHW[:, :, None], image_NTCHW, centre_NTC11)
    return Cut(np.where(valid_NT[:, :, None, None, None], filled, image_NTCHW.dtype.type(0)), valid_NT)


def open_windows(uri: str, names: Sequence[str], settings: WindowSettings, snapshot: str | None = None) -> CubeWindows:
    """Windows without labels of the newest version of a cube, or of `snapshot`. Raises MissingInput, RequestError."""
    windows = CubeWindows(uri, tuple(names), settings, snapshot or head_snapshot(uri))
    _ = windows.grid
    return windows
