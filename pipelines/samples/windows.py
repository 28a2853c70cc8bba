"""Where and when windows lie: blocks of pixels and issue dates, and the part of the split that each belongs to.

Blocks are assigned at random by seed. Training windows stay `buffer_px` inside their block and end before validation; the
targets of validation and test are in their own periods. `audit` verifies this from the finished list of windows alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, product

import numpy as np

from pipelines.calendar import elapsed_text, from_days, is_elapsed, median_step_days, nearest_observations, regular_steps, to_days
from pipelines.errors import RequestError
from pipelines.samples.plan import PARTS, Sampling, Split, Window, WindowPlan, as_utc
from pipelines.tiles import SMALLEST_BLOCK_PX, Box

REACH = 1.5  # horizons: dates farther ahead are not forecast
MAX_STEPS = 1_000_000
LOWER = "lower samples.context or samples.horizon"  # a remedy; they belong to a model that was trained before


def plan_windows(
    times: np.ndarray, shape: tuple[int, ...], split: Split, steps: Sampling, context: int, horizon: int, stride: int = 1
) -> WindowPlan:
    """The plan of every window, by block and issue date. Raises RequestError with a setting that works if there are too few."""
    times = np.asarray(times).astype("datetime64[ns]")
    assigned = assign_blocks(shape, split)
    issues = assign_issues(times, split, steps, context, horizon, stride)
    windows = tuple(
        Window(part, tile, issue.context_T, issue.target_K, issue.target_days_K)
        for part in PARTS
        for tile in assigned[part]
        for issue in issues[part]
    )
    return WindowPlan(times, tuple(map(int, shape)), split, steps, context, horizon, stride, windows)


def cut_blocks(shape: tuple[int, ...], block_px: int) -> list[Box]:
    """Blocks of about `block_px` on every axis that cover every pixel once, row by row.

    An edge narrower than half a block is merged with its neighbour.

    >>> [block.shape for block in cut_blocks((9, 6), 4)]
    [(4, 4), (4, 2), (5, 4), (5, 2)]
    """
    axes = []
    for length in shape:
        edges = [*range(0, length, block_px), length]
        if len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < block_px:
            del edges[-2]
        axes.append(list(pairwise(edges)))
    return [Box.from_edges(tuple(chain(*edges))) for edges in product(*axes)]


def assign_blocks(shape: tuple[int, ...], split: Split) -> dict[str, list[Box]]:
    """Tiles by part, at least one each: whole blocks for validation and test, blocks without their buffer for training.

    Validation and test get the rounded fractions of the blocks, at least one each, and leave at least one for training.
    """
    if not is_divisible(shape, split.block_px, split.buffer_px):
        raise RequestError(explain_blocks(shape, split))
    blocks = cut_blocks(shape, split.block_px)
    order = np.random.default_rng(split.seed).permutation(len(blocks))
    test, validation = (max(1, round(share * len(blocks))) for share in (split.test_fraction, split.validation_fraction))
    while test + validation > len(blocks) - 1:
        test, validation = (test - 1, validation) if test >= validation else (test, validation - 1)
    return {
        "test": [blocks[number] for number in sorted(order[:test])],
        "validation": [blocks[number] for number in sorted(order[test : test + validation])],
        "train": [blocks[number].shrunk(split.buffer_px) for number in sorted(order[test + validation :])],
    }


def is_divisible(shape: tuple[int, ...], block_px: int, buffer_px: int) -> bool:
    """True if there are at least three blocks, all larger than their buffer."""
    blocks = cut_blocks(shape, block_px)
    return len(blocks) >= 3 and all(min(block.shape) > 2 * buffer_px for block in blocks)


def explain_blocks(shape: tuple[int, ...], split: Split) -> str:
    """Message for a raster that cannot be divided, with a block size that works."""
    blocks, px, buffer_px = cut_blocks(shape, split.block_px), split.block_px, split.buffer_px
    problem = f"{len(blocks)} block{'s' * (len(blocks) != 1)} of {px} pixels, too few for training, validation and test"
    if len(blocks) >= 3:
        smallest = min(min(block.shape) for block in blocks)
        problem = f"blocks as narrow as {smallest} pixels, of which split.buffer_px {buffer_px} on both sides leaves nothing"
    if (fitting := largest_block(shape, buffer_px, px)) is not None:
        remedy = f"set split.block_px to {fitting}"
    elif buffer_px > 0 and largest_block(shape, 0, max(shape)) is not None:
        remedy = f"no block size leaves room for split.buffer_px {buffer_px}: lower it"
    else:
        remedy = "it is too small to be divided: use a larger area"
    return f"a raster of {' x '.join(map(str, shape))} pixels gives {problem}: {remedy}"


def largest_block(shape: tuple[int, ...], buffer_px: int, requested_px: int) -> int | None:
    """The largest block size up to `requested_px`, else the smallest above it, that divides the raster; None if none does."""
    if math.prod(shape) < 3:
        return None
    start = min(requested_px, max(shape))
    candidates = [*range(start, SMALLEST_BLOCK_PX - 1, -1), *range(max(start + 1, SMALLEST_BLOCK_PX), max(shape) + 1)]
    return next((px for px in candidates if is_divisible(shape, px, buffer_px)), None)


# ---------------------------------------------------------------- issue dates


@dataclass(frozen=True)
class Issue:
    """The steps around one issue date: as in `Window`, without the tile."""

    context_T: tuple[int, ...]
    target_K: tuple[int, ...]
    target_days_K: tuple[float, ...]


def resolve_steps(times: np.ndarray, steps: Sampling) -> tuple[float, float]:
    """(every_days, tolerance_days), with defaults computed from the dates."""
    if steps.every_days is None and len(times) < 2:
        raise RequestError("the cube has one date, which gives no interval of steps: set samples.steps.every_days")
    every = steps.every_days if steps.every_days is not None else median_step_days(times)
    return every, steps.tolerance_days if steps.tolerance_days is not None else every / 2


def nearest_steps(times: np.ndarray, steps: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """(index into `times` of each step, int64, -1 = no observation; day of each step, float64 days since 1970)."""
    if steps.mode == "observed":
        return np.arange(len(times)), to_days(times)
    every, tolerance = resolve_steps(times, steps)
    if (span := float(np.ptp(to_days(times)))) > MAX_STEPS * every:
        least = f"set at least {span / MAX_STEPS:.2g}"
        raise RequestError(f"samples.steps.every_days {every:g} makes more than {MAX_STEPS} steps of {span:g} days: {least}")
    placed_times = regular_steps(times[0], times[-1], every)
    index = nearest_observations(times, placed_times, tolerance)
    return index, np.where(index >= 0, to_days(times)[np.maximum(index, 0)], to_days(placed_times))


def list_issues(times: np.ndarray, steps: Sampling, context: int, horizon: int) -> list[Issue]:
    """Every issue date with a full context before it and a full horizon after it.

    The issue step and at least one target step are observed: a window without truth cannot train or evaluate.
    """
    index, days = nearest_steps(times, steps)
    issues = []
    for end in range(context, len(index) - horizon + 1):
        seen, target = index[end - context : end], index[end : end + horizon]
        if seen[-1] >= 0 and target.max() >= 0:
            issues.append(Issue(tuple(seen.tolist()), tuple(target.tolist()), tuple(days[end : end + horizon].tolist())))
    return issues


def part_of(issue: Issue, days_N: np.ndarray, split: Split) -> str | None:
    """The part whose period contains the issue, or None if it spans two."""
    first, last = min(issue.target_days_K), max(issue.target_days_K)
    if max(last, days_N[issue.context_T[-1]]) < split.train_until_day:
        return "train"
    if first >= split.validation_from_day and last < split.validation_until_day:
        return "validation"
    return "test" if first >= split.test_from_day else None


def assign_issues(
    times: np.ndarray, split: Split, steps: Sampling, context: int, horizon: int, stride: int
) -> dict[str, list[Issue]]:
    """Issues by part, of training every `stride`-th. Raises RequestError, with the settings to change, if a part has none."""
    if len(times) > 1 and not (np.diff(times) > np.timedelta64(0)).all():
        raise ValueError("the cube's times are not sorted and unique")
    count = len(times) if len(times) < 2 else len(nearest_steps(times, steps)[0])
    if count < context + horizon or len(times) < 2:
        raise RequestError(
            f"a window needs samples.context + samples.horizon = {context} + {horizon} = {context + horizon} steps, "
            f"but the cube's {len(times)} dates give {count}: {LOWER}, or ingest more scenes"
        )
    days_N, assigned = to_days(times), {part: list[Issue]() for part in PARTS}
    for issue in list_issues(times, steps, context, horizon):
        if (part := part_of(issue, days_N, split)) is not None:
            assigned[part].append(issue)
    for part, issues in assigned.items():
        if not issues:
            raise RequestError(explain_no_issue(part, times, split, steps, context, horizon))
    return {**assigned, "train": assigned["train"][::stride]}


def explain_no_issue(part: str, times: np.ndarray, split: Split, steps: Sampling, context: int, horizon: int) -> str:
    """Message for a part without an issue date: what it needs, what there is, what to change."""
    index, days = nearest_steps(times, steps)
    lower, needed = f"or {LOWER}", horizon
    if part == "train":
        inside, needed = int((days < split.train_until_day).sum()), context + horizon
        requested = days[context + horizon] if len(days) > context + horizon else days[-1]
        change = f"move split.validation_from to {day_text(requested + split.gap_days)} or later, {lower}"
        period = f"before {day_text(split.train_until_day)} (split.validation_from - split.gap_days)"
    elif part == "validation":
        inside = int(((days >= split.validation_from_day) & (days < split.validation_until_day)).sum())
        change = f"move split.validation_from earlier or split.test_from later, shorten split.gap_days, {lower}"
        until = f"{day_text(split.validation_until_day)} (split.test_from - split.gap_days)"
        period = f"from {day_text(split.validation_from_day)} to {until}"
    else:
        inside = int((days >= split.test_from_day).sum())
        change = f"move split.test_from to {day_text(days[-horizon] if len(days) >= horizon else days[0])} or earlier, {lower}"
        period = f"from {day_text(split.test_from_day)} on (split.test_from)"
    seen = f"{np.count_nonzero(index >= 0)} of {len(days)} observed"
    noun = "observed dates" if steps.mode == "observed" else f"regular steps ({seen})"
    return (
        f"no {part} window fits: it needs {needed} {noun} {period} with {context} steps of context before its targets, there are "
        f"{inside}; the cube covers {day_text(days[0])} to {day_text(days[-1])}: {change}"
    )


def day_text(day: float) -> str:
    """ISO date of days since 1970, with the time unless it is midnight.

    >>> day_text(0.5)
    '1970-01-01T12:00'
    """
    moment = from_days(np.array([day]))[0]
    return elapsed_text(moment) if is_elapsed(moment) else str(np.datetime_as_string(moment, unit="m")).removesuffix("T00:00")


# ---------------------------------------------------------------- forecasts


@dataclass(frozen=True)
class ForecastSteps:
    """Context and targets of a forecast from one issue date: the forecaster's arguments of the same names."""

    context_T: np.ndarray  # int64, -1 = no observation
    usable_N: np.ndarray  # bool
    target_days_K: np.ndarray  # float64 days since 1970
    issue: int
    lead_K: np.ndarray | None = None  # int64: the lead, from 0, whose errors are those of each target; None: in their order


def steps_from(
    times: np.ndarray, steps: Sampling, context: int, horizon: int, issue: object = None, dates: Sequence[object] | None = None,
    step_days: float | None = None,
) -> ForecastSteps:  # fmt: skip
    """Context and targets of a forecast issued at the last date not after `issue` (default: the last date).

    Targets are `dates`, else the next `horizon` observed dates (mode observed, as far as the cube has them), continued at the
    median interval of the dates; or the next regular steps. step_days: the step of training, for a cube of one date.

    Raises RequestError if there is no date to issue from, `dates` do not rise, are not later or are out of reach, or nothing
    states the step.
    """
    days = to_days(times)
    last = len(times) - 1 if issue is None else int(np.searchsorted(times, as_utc(issue), side="right")) - 1
    if last < 0:
        raise RequestError(f"prediction.issue is {issue}, but the cube begins at {day_text(days[0])}: choose a later date")
    every, lead_K = forecast_step(times, steps, step_days if dates is not None else None), None
    if dates is not None:
        target = to_days(np.array([as_utc(date) for date in dates], "datetime64[ns]"))
        lead_K = leads_of(target, days[last], every, horizon)
    elif steps.mode == "observed":
        known = days[last + 1 : last + 1 + horizon]
        start = known[-1] if len(known) else days[last]
        target = np.concatenate([known, start + every * np.arange(1, horizon - len(known) + 1)])
    else:
        target = days[last] + every * np.arange(1, horizon + 1)
    return ForecastSteps(context_before(times, steps, context, last), np.arange(len(times)) <= last, target, last, lead_K)


def forecast_step(times: np.ndarray, steps: Sampling, step_days: float | None) -> float:
    """Days from one target to the next; of a single date `step_days`. Raises RequestError where nothing states it."""
    if steps.mode == "regular" and (len(times) > 1 or steps.every_days is not None or step_days is None):
        return resolve_steps(times, steps)[0]
    if len(times) > 1:
        return median_step_days(times)
    if step_days is None:
        raise RequestError(
            "there is one date with data, which states no step: give more dates, or say what to forecast (dates, in a config "
            "prediction.dates)"
        )
    return step_days


def leads_of(target_days_K: np.ndarray, issue_day: float, every_days: float, horizon: int) -> np.ndarray:
    """The lead, from 0, that is nearest in time to each target, int64. Raises RequestError for dates that cannot be forecast.

    >>> leads_of(np.array([104.0, 121.0]), 100.0, 10.0, 3)
    array([0, 1])
    """
    if target_days_K.size == 0 or target_days_K[0] <= issue_day:
        raise RequestError(f"the dates to forecast (prediction.dates) must be later than the issue date {day_text(issue_day)}")
    if (np.diff(target_days_K) <= 0).any():
        shown = ", ".join(map(day_text, target_days_K))
        raise RequestError(f"the dates to forecast (prediction.dates) must rise and not repeat, they are {shown}: sort them")
    if (ahead := target_days_K[-1] - issue_day) > REACH * horizon * every_days:
        raise RequestError(
            f"{day_text(target_days_K[-1])} is {ahead:g} days after the issue date {day_text(issue_day)}; the model forecasts "
            f"{horizon} steps of {every_days:g} days: choose dates up to {day_text(issue_day + REACH * horizon * every_days)}"
        )
    return np.clip(np.rint((target_days_K - issue_day) / every_days), 1, horizon).astype(np.int64) - 1


def context_before(times: np.ndarray, steps: Sampling, context: int, last: int) -> np.ndarray:
    """The `context` steps that end at date `last`, int64 indices, -1 = no observation."""
    if steps.mode == "observed":
        requested = np.arange(last + 1 - context, last + 1)
        return np.where(requested >= 0, requested, -1)
    every, tolerance = resolve_steps(times, steps)
    placed_times = from_days(to_days(times[last]) + every * np.arange(1 - context, 1))
    index = nearest_observations(times[: last + 1], placed_times, tolerance)
    index[-1] = last
    return index
