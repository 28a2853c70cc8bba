"""The plan of all windows: frozen values with the position, dates and part of each, and their JSON form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN, from_days, is_elapsed, to_days
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.tiles import Box

PARTS = ("train", "validation", "test")
UNSEEN_AFTER_TARGET_DAYS = 183.0  # a training baseline may not use the half year after its target: same season, same change
FORMAT = 1
PIECE_PIXELS = 256  # rolling origins cut blocks into pieces of about so many
MOST_WINDOWS = 320  # that rolling origins keep of a part


@dataclass(frozen=True)
class Split:
    """How spatial blocks and time ranges are assigned to the parts. Lengths in pixels and days, dates in UTC."""

    block_px: int
    buffer_px: int
    validation_from: np.datetime64
    test_from: np.datetime64
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    gap_days: float = 0.0
    seed: int = 0
    margin_px: int = 0  # around its tile a window sees these pixels too, and is not scored on them

    def __post_init__(self) -> None:
        for name in ("validation_from", "test_from"):
            object.__setattr__(self, name, as_utc(getattr(self, name)))
        if self.validation_until_day <= self.validation_from_day:
            raise RequestError(
                f"no time is left for validation: split.validation_from is {self.validation_from}, split.test_from is "
                f"{self.test_from} and split.gap_days {self.gap_days:g}; move one of the dates or shorten the gap"
            )
        if self.test_fraction + self.validation_fraction >= 1:
            raise RequestError(
                f"nothing is left to train on: split.test_fraction {self.test_fraction:g} + split.validation_fraction "
                f"{self.validation_fraction:g} must be below 1"
            )

    def from_first(self, first: np.datetime64) -> Split:
        """This split with dates where it counts seconds since the first frame, and the images, from `first` on, have dates."""
        if not is_elapsed(self.validation_from) or is_elapsed(first):
            return self
        dates = {name: first + (getattr(self, name) - UNKNOWN_ORIGIN) for name in ("validation_from", "test_from")}
        return replace(self, **dates)

    @property
    def validation_from_day(self) -> float:
        return float(to_days(np.asarray(self.validation_from)))

    @property
    def test_from_day(self) -> float:
        return float(to_days(np.asarray(self.test_from)))

    @property
    def train_until_day(self) -> float:
        """Exclusive end of the training period, days since 1970."""
        return self.validation_from_day - self.gap_days

    @property
    def validation_until_day(self) -> float:
        """Exclusive end of the validation targets, days since 1970."""
        return self.test_from_day - self.gap_days

    @property
    def train_until(self) -> np.datetime64:
        """The end of the training period as a date in UTC, exclusive."""
        until: np.datetime64 = from_days(np.array([self.train_until_day]))[0]
        return until

    @property
    def validation_until(self) -> np.datetime64:
        """The same as a date in UTC: what lies before is known when the test begins."""
        until: np.datetime64 = from_days(np.array([self.validation_until_day]))[0]
        return until


@dataclass(frozen=True)
class Sampling:
    """How irregular dates become time steps.

    `observed`: every observed date is a step. `regular`: steps are `every_days` apart from the first date on (default: the
    median interval of the dates) and take the nearest date within `tolerance_days` (default: half a step).
    """

    mode: str = "observed"
    every_days: float | None = None
    tolerance_days: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("observed", "regular"):
            raise RequestError(f"samples.steps.mode is {self.mode!r}; expected observed or regular")


@dataclass(frozen=True)
class Window:
    """One sample: a tile of pixels, the context steps and the target steps.

    `context_T` and `target_K` are indices into the plan's `times`, -1 for a step without an observation; the last context step
    is the issue date and always observed. `target_days_K` are days since 1970-01-01: of the observation if there is one, else
    of the step.
    """

    part: str
    tile: Box
    context_T: tuple[int, ...]
    target_K: tuple[int, ...]
    target_days_K: tuple[float, ...]

    @property
    def issue(self) -> int:
        """Index of the issue date."""
        return self.context_T[-1]


@dataclass(frozen=True)
class WindowPlan:
    """All windows of a cube: `times` (N,) datetime64[ns] sorted, the raster's `shape`, the split and sampling, the windows."""

    times: np.ndarray = field(compare=False)
    shape: tuple[int, ...]
    split: Split
    steps: Sampling
    context: int
    horizon: int
    stride: int
    windows: tuple[Window, ...]

    @property
    def days_N(self) -> np.ndarray:
        """Days since 1970-01-01 UTC, float64."""
        return to_days(self.times)

    def box_of(self, tile: Box) -> Box:
        """What the windows of `tile` see: the tile with the split's margin, clipped to the raster."""
        return tile.grown(self.split.margin_px, self.shape)

    def of_part(self, part: str) -> tuple[Window, ...]:
        check_part(part)
        return tuple(window for window in self.windows if window.part == part)

    def train_dates(self) -> np.ndarray:
        """Which dates belong to the training period, bool (N,)."""
        return self.days_N < self.split.train_until_day

    def usable(self, window: Window) -> np.ndarray:
        """Which dates a forecaster may use, bool (N,).

        Validation and test: every date up to the issue date. Training: the training period without the time from the issue
        date to half a year after the last target, so that a baseline fitted on it has not used the target.
        """
        days = self.days_N
        issue: float = days[window.issue]
        if window.part != "train":
            return days <= issue
        return self.train_dates() & ((days <= issue) | (days > max(window.target_days_K) + UNSEEN_AFTER_TARGET_DAYS))


def check_part(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"no part {part!r}; parts are {', '.join(PARTS)}")
    return part


def as_utc(date: object) -> np.datetime64:
    """datetime64[ns] in UTC of a datetime (naive = UTC), datetime64 or ISO string."""
    if isinstance(date, datetime) and date.tzinfo is not None:
        date = date.astimezone(UTC).replace(tzinfo=None)
    utc: np.datetime64 = np.datetime64(date, "ns")  # type: ignore[call-overload]  # numpy checks it
    return utc


def to_json(plan: WindowPlan) -> str:
    """The plan as JSON text; tiles and steps are listed once, windows refer to them by number. Equal plans give equal text."""
    tiles: dict[Box, int] = {}
    steps: dict[tuple[object, ...], int] = {}
    windows = []
    for window in plan.windows:
        when = (window.context_T, window.target_K, window.target_days_K)
        windows.append([PARTS.index(window.part), tiles.setdefault(window.tile, len(tiles)), steps.setdefault(when, len(steps))])
    margin = {"margin_px": plan.split.margin_px} if plan.split.margin_px else {}  # without one as in plans of before
    rule = {name: value for name, value in asdict(plan.split).items() if name != "margin_px"} | margin
    split = {**rule, "validation_from": str(plan.split.validation_from), "test_from": str(plan.split.test_from)}
    content = {
        "format": FORMAT,
        "times": [str(time) for time in plan.times.astype("datetime64[ns]")],
        "shape_yx": plan.shape,
        "rule": split,
        "steps": asdict(plan.steps),
        **{name: getattr(plan, name) for name in ("context", "horizon", "stride")},
        "tiles": [tile.edges for tile in tiles],
        "when": list(steps),
        "windows": windows,
    }
    return json.dumps(content, separators=(",", ":"))


def from_json(text: str) -> WindowPlan:
    """The plan that `to_json` wrote. Raises ArtefactDamaged if the text is not one."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ArtefactDamaged(f"window plan of format {content['format']}, expected {FORMAT}: build the samples again")
        tiles = [Box.from_edges(edges) for edges in content["tiles"]]
        when = [(tuple(context), tuple(target), tuple(days)) for context, target, days in content["when"]]
        return WindowPlan(
            times=np.array(content["times"], "datetime64[ns]"),
            shape=tuple(map(int, content["shape_yx"])),
            split=Split(**content["rule"]),
            steps=Sampling(**content["steps"]),
            **{name: content[name] for name in ("context", "horizon", "stride")},
            windows=tuple(Window(PARTS[part], tiles[tile], *when[number]) for part, tile, number in content["windows"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise ArtefactDamaged(f"not a window plan ({type(e).__name__}: {e}): build the samples again") from e
