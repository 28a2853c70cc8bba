"""What became of each lesion between consecutive visits: new, enlarging, shrinking, stable, disappearing, merging, splitting.

Lesions of two visits are linked where they overlap, or lie close (`match_mm`); lesions that are linked with each other, also
through a third one, are one row. A row with more lesions before than after is merging, with fewer splitting, whatever the volumes
do; all else is judged by the change of volume.

What is left of a lesion, or was there before it, is none if it has less than a tenth of the volume and less than 0.03 ml (a
sphere of 4 mm): such a lesion is disappearing, or new.

A change of volume counts if it is larger than `change_share` (30 %) and than what the outline of a lesion leaves open: each voxel
at its edge is cut by the outline, and is counted as a whole or not at all. That is an error of up to half a voxel, of variance
1/12 (a uniform distribution), independent from voxel to voxel; two standard deviations of the sum over both visits, and at least
one voxel, are `floor`. It matters for lesions of a few voxels. An outline that is shifted as a whole (another scanner, another
reader) is not covered by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipelines.errors import RequestError
from pipelines.follow_up.measures import Measures, axial_axis, axial_diameters, measure
from pipelines.grid import Grid
from pipelines.tracking.objects import Space, describe_objects, label_objects
from pipelines.tracking.tracks import TrackSettings, match_objects, overlaps

EVENTS = ("new", "enlarging", "shrinking", "stable", "disappearing", "merging", "splitting")
BOUNDARY_DEVIATIONS = 2.0
REMNANT, REMNANT_ML = 0.1, 0.03  # of the volume at the other visit, and at most


@dataclass(frozen=True)
class EventSettings:
    """`change_share`: change of volume above which a lesion is enlarging or shrinking. `least_mm`: lesions are at least this long
    (axial) at one of the visits, and parts are, to count in a merger or a split. `match_mm`: how far apart the centroids of
    lesions that do not overlap may be to be one; `least_overlap`: share of the smaller one that counts as overlap."""

    change_share: float = 0.3
    least_mm: float = 3.0
    match_mm: float = 2.0
    least_overlap: float = 0.1

    def __post_init__(self) -> None:
        if not self.change_share > 0:
            raise RequestError(f"lesions.change_share is {self.change_share:g}; it is a share of the volume, such as 0.3")


@dataclass(frozen=True)
class LesionChange:
    """A row: a lesion, or lesions that merged or split, between visit `interval` and the next one.

    `number` is the lesion's through all visits (of several, that of the largest after, or before). `change`: of the volume,
    relative to before; `floor`: the change that edge voxels explain; None where there is nothing to compare. `is_confluent`: it
    consists of several lesions before and after, which touch or share a neighbour.
    """

    number: int
    interval: int
    event: str
    before: Measures | None
    after: Measures | None
    numbers_before: tuple[int, ...]
    numbers_after: tuple[int, ...]
    change: float | None = None
    floor: float | None = None
    is_confluent: bool = False

    @property
    def largest(self) -> Measures:
        """The measures of the visit at which it is larger."""
        return max((one for one in (self.before, self.after) if one is not None), key=lambda one: one.voxels)

    @property
    def latest(self) -> Measures:
        """The measures of the later visit, of what is gone those of the earlier one."""
        found = self.after if self.after is not None else self.before
        assert found is not None, "a row has a lesion at one visit at least"
        return found

    @property
    def place_mm(self) -> tuple[float, float, float]:
        return self.latest.place_mm


@dataclass(frozen=True)
class FollowedLesions:
    """All rows, and the number of each voxel's lesion at each visit, (T, Z, Y, X) int32, 0: none."""

    changes: tuple[LesionChange, ...]
    numbers_TZYX: np.ndarray

    def masks(self, change: LesionChange) -> tuple[np.ndarray, np.ndarray]:
        """The voxels of a row at the earlier and at the later visit, bool (Z, Y, X)."""
        before, after = self.numbers_TZYX[change.interval : change.interval + 2]
        return np.isin(before, change.numbers_before), np.isin(after, change.numbers_after)

    def paint(self, codes: Mapping[int, int], interval: int) -> np.ndarray:
        """A code for each voxel that is lesion at either visit of an interval, uint8; `codes`: position in `changes` -> code."""
        before, after = self.numbers_TZYX[interval : interval + 2]
        tables = np.zeros((2, int(self.numbers_TZYX.max()) + 1), np.uint8)
        for position, code in codes.items():
            change = self.changes[position]
            if change.interval == interval:
                tables[0][list(change.numbers_before)] = code
                tables[1][list(change.numbers_after)] = code
        return np.asarray(np.maximum(tables[0][before], tables[1][after]))


def follow_lesions(codes_TZYX: np.ndarray, grid: Grid, settings: EventSettings) -> FollowedLesions:
    """Rows for every pair of consecutive visits, of at least two.

    `codes_TZYX`: bool, or codes of lesions (0: none); touching lesions with codes of their own are lesions of their own. Raises
    RequestError for other numbers.
    """
    if codes_TZYX.dtype.kind not in "bui" or len(codes_TZYX) < 2:
        raise RequestError(
            f"lesions are codes of two visits or more, whole numbers; got {codes_TZYX.dtype}, {len(codes_TZYX)} visits"
        )
    labels = [label_objects(codes) for codes in codes_TZYX]
    last = int(labels[0].max())
    visits = [LabelledVisit(labels[0], tuple(range(1, last + 1)))]
    changes: list[LesionChange] = []
    for interval, label in enumerate(labels[1:]):
        follows, links = link(visits[-1].label_ZYX, label, grid, settings)
        own = []
        for c in range(int(label.max())):
            last += c not in follows
            own.append(visits[-1].numbers[follows[c]] if c in follows else last)
        visits.append(LabelledVisit(label, tuple(own)))
        changes += Rows(grid, settings, visits[-2], visits[-1], interval).of(links)
    return FollowedLesions(tuple(changes), np.stack([visit.numbered for visit in visits]))


@dataclass(frozen=True)
class LabelledVisit:
    """The lesions of a visit: labels 1, 2, ... and the number of each."""

    label_ZYX: np.ndarray
    numbers: tuple[int, ...]

    @property
    def numbered(self) -> np.ndarray:
        """The label image with the lesions' numbers, int32."""
        image: np.ndarray = np.array([0, *self.numbers], np.int32)[self.label_ZYX]
        return image

    @cached_property
    def voxels(self) -> np.ndarray:
        """Of each lesion, (N,)."""
        return np.bincount(self.label_ZYX.ravel(), minlength=len(self.numbers) + 1)[1:]

    @cached_property
    def boxes(self) -> list[tuple[slice, ...]]:
        """The part of the grid that holds each lesion."""
        return list(ndimage.find_objects(self.label_ZYX))

    def measure(self, members: Sequence[int], grid: Grid) -> Measures | None:
        """Of several lesions (zero-based) together; None for none."""
        if not members:
            return None
        boxes = [self.boxes[n] for n in members]
        box = tuple(slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in zip(*boxes, strict=True))
        mask = np.isin(self.label_ZYX[box], np.array(members) + 1)
        return measure(mask, grid, tuple(part.start for part in box))

    def are_long(self, grid: Grid, least_mm: float) -> list[bool]:
        """Whether each lesion's longest axial diameter is at least `least_mm`."""
        spacing, axis, least = np.array(grid.spacing), axial_axis(grid), least_mm * (1 - 1e-9)
        own = (np.argwhere(self.label_ZYX[box] == n) for n, box in enumerate(self.boxes, start=1))
        return [axial_diameters(index_ND, spacing, axis)[0] >= least for index_ND in own]


def link(
    before_ZYX: np.ndarray, after_ZYX: np.ndarray, grid: Grid, settings: EventSettings
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """(after -> before of lesions that keep their number, all pairs (before, after) that are linked), zero-based.

    By overlap and closeness, as `pipelines.tracking` matches objects.
    """
    space = Space.of_grid(grid)
    before, after = (describe_objects(label, space) for label in (before_ZYX, after_ZYX))
    asked = TrackSettings(farthest=settings.match_mm, least_overlap=settings.least_overlap)
    follows = match_objects(before, after, before_ZYX, after_ZYX, asked).follows
    pairs_K2, shared_K = overlaps(before_ZYX, after_ZYX)
    smaller_K = np.minimum(before.pixels_N[pairs_K2[:, 0]], after.pixels_N[pairs_K2[:, 1]])
    overlapping = pairs_K2[shared_K >= settings.least_overlap * smaller_K].tolist()
    return follows, [*((p, c) for c, p in follows.items()), *((p, c) for p, c in overlapping)]


@dataclass(frozen=True)
class Rows:
    """What the rows of an interval are made from."""

    grid: Grid
    settings: EventSettings
    before: LabelledVisit
    after: LabelledVisit
    interval: int

    def of(self, links: Sequence[tuple[int, int]]) -> list[LesionChange]:
        """A row for each group of linked lesions of which one is long enough, by number."""
        long_before, long_after = (visit.are_long(self.grid, self.settings.least_mm) for visit in (self.before, self.after))
        rows = []
        for before, after in groups_of(links, len(self.before.numbers), len(self.after.numbers)):
            parts = sum(long_before[p] for p in before), sum(long_after[c] for c in after)
            if any(parts):
                rows.append(self.row(before, after, parts))
        return sorted(rows, key=lambda row: row.number)

    def row(self, before: list[int], after: list[int], parts: tuple[int, int]) -> LesionChange:
        """The row of the lesions `before` and `after` (zero-based), of which so many `parts` are long enough to count."""
        sizes = self.before.measure(before, self.grid), self.after.measure(after, self.grid)
        numbers = tuple(self.before.numbers[p] for p in before), tuple(self.after.numbers[c] for c in after)
        visit = self.after if after else self.before
        main = visit.numbers[max(after or before, key=lambda n: int(visit.voxels[n]))]
        row = LesionChange(main, self.interval, "", *sizes, *numbers)
        if sizes[0] is None or sizes[1] is None:
            return replace(row, event="new" if sizes[0] is None else "disappearing")
        change, floor = sizes[1].voxels / sizes[0].voxels - 1, boundary_floor(sizes[0], sizes[1])
        event = judge(change, floor, parts, self.settings.change_share)
        is_remnant = min(sizes[0].volume_ml, sizes[1].volume_ml) < REMNANT_ML
        if is_remnant and not REMNANT <= change + 1 <= 1 / REMNANT:
            event = "new" if change > 0 else "disappearing"
        is_confluent = min(len(before), len(after)) > 1
        return replace(row, event=event, change=change, floor=floor, is_confluent=is_confluent)


def groups_of(links: Sequence[tuple[int, int]], count_before: int, count_after: int) -> list[tuple[list[int], list[int]]]:
    """(lesions before, lesions after) of each group of lesions that are linked, directly or through others; zero-based."""
    total = count_before + count_after
    rows, columns = [p for p, _ in links], [count_before + c for _, c in links]
    graph = coo_matrix((np.ones(len(links), bool), (rows, columns)), (total, total))
    count, group_N = connected_components(graph, directed=False)
    groups: list[tuple[list[int], list[int]]] = [([], []) for _ in range(count)]
    for n, group in enumerate(group_N.tolist()):
        groups[group][n >= count_before].append(n - count_before if n >= count_before else n)
    return groups


def boundary_floor(before: Measures, after: Measures) -> float:
    """The relative change of volume that the voxels at the edge explain; see the module."""
    error = BOUNDARY_DEVIATIONS * float(np.sqrt((before.edge_voxels + after.edge_voxels) / 12))
    return max(error, 1.0) / before.voxels


def judge(change: float, floor: float, parts: tuple[int, int], change_share: float) -> str:
    """The event of lesions that are there at both visits; `parts`: how many of them, before and after, are long enough.

    >>> judge(0.4, 0.1, (1, 1), 0.3), judge(0.4, 0.5, (1, 1), 0.3), judge(0.0, 0.1, (2, 1), 0.3)
    ('enlarging', 'stable', 'merging')
    """
    before, after = (max(count, 1) for count in parts)
    if before != after:
        return "merging" if before > after else "splitting"
    if abs(change) <= max(change_share, floor) + 1e-9:
        return "stable"
    return "enlarging" if change > 0 else "shrinking"


def lesions_by_change(base_ZYX: np.ndarray, bright_TZYX: np.ndarray, changes_IZYX: np.ndarray) -> np.ndarray:
    """Lesions of each visit, (T, Z, Y, X) bool, that differ only where change was found: I = T - 1 maps of -1, 0, 1.

    `base_ZYX`: bright lesions of the first visit; `bright_TZYX`: what is still bright enough to be the rest of a lesion at each
    visit. Two guesses made visit by visit would differ by
    noise alone, and all lesions would change. What becomes darker was a lesion before, unless it is still bright; what becomes
    brighter is one from then on.
    """
    darker = [(change < 0) & ~bright for change, bright in zip(changes_IZYX, bright_TZYX[1:], strict=True)]
    brighter = [change > 0 for change in changes_IZYX]
    first, was_brighter = base_ZYX.copy(), np.zeros_like(base_ZYX)
    for gone, came in zip(darker, brighter, strict=True):
        first |= gone & ~was_brighter
        was_brighter |= came
    masks = [first]
    for gone, came in zip(darker, brighter, strict=True):
        masks.append((masks[-1] & ~gone) | came)
    return np.stack(masks)


def count_events(changes: Iterable[LesionChange]) -> dict[str, int]:
    """How many rows have each event, all events in the order of `EVENTS`."""
    found = Counter(change.event for change in changes)
    return {event: found[event] for event in EVENTS}
