"""Objects through time: who is who from date to date, and what became of each.

Feed one mask per date, oldest first; a date costs the same whatever lies before it. What is not seen keeps its last state (as
everywhere in driftline): an object under cloud is "not seen", never gone, and a cloud that cuts it in two splits nothing.

Events: `first seen` (there when its place was looked at for the first time), `new`, `grown`, `shrunk`, `stable`, `not seen`,
`gone`, `merged` (others ended in it), `split` (others came out of it). Grown and shrunk compare with the size when one of the
events but `stable` and `not seen` last happened to it, so slow growth is told too; pixels that had never been looked at since
then are not growth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipelines.errors import RequestError
from pipelines.tracking.objects import Shapes, Space, describe_objects, label_objects

When = np.datetime64 | float


@dataclass(frozen=True)
class TrackSettings:
    """`least_size` in units of the space (m2, mm2, mm3): smaller objects are left out on that date. `tolerance`: relative change
    of size up to which an object is stable. `farthest`: how far a centroid may move between dates, in m or mm; None: only objects
    that overlap are matched. `least_overlap`: share of the smaller object's pixels that counts as overlap. `least_seen`: an
    object of which a smaller share is seen is not judged.
    """

    least_size: float = 0.0
    tolerance: float = 0.1
    farthest: float | None = None
    least_overlap: float = 0.1
    least_seen: float = 0.5
    corners: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise RequestError(
                f"tolerance (--grow) is {self.tolerance:g}; it is a relative change of size between 0 and 1, such as 0.1"
            )
        if not 0 < self.least_overlap <= 1 or not 0 < self.least_seen <= 1:
            raise RequestError(f"least_overlap {self.least_overlap} and least_seen {self.least_seen} are shares above 0, up to 1")
        if self.farthest is not None and not self.farthest > 0:
            raise RequestError(
                f"farthest (--farthest) is {self.farthest:g}; it is a distance larger than 0, or left out where nothing moves"
            )
        if not self.least_size >= 0:
            raise RequestError(f"least_size (--min-size) is {self.least_size:g}; it is an area or volume of 0 or more")


@dataclass(frozen=True)
class Event:
    """What happened to a track at a date. `others`: the tracks that ended in it (merged) or came out of it (split). `change`:
    size relative to what it was compared with, minus 1; None where there is nothing to compare."""

    when: When
    track_id: int
    kind: str
    others: tuple[int, ...] = ()
    change: float | None = None


@dataclass(frozen=True)
class TrackedDate:
    """One date: N objects, their tracks, what each one did, and the label array (values 1..N) that they come from."""

    when: When
    shapes: Shapes
    track_id_N: tuple[int, ...]
    event_N: tuple[str, ...]
    parents_N: tuple[tuple[int, ...], ...]
    change_N: tuple[float | None, ...]
    moved_N: np.ndarray  # of the centroid since the date before, in the space's unit; NaN where there is no date before
    events: tuple[Event, ...]
    label: np.ndarray

    @property
    def track_of_pixel(self) -> np.ndarray:
        """The number of the track of each pixel, 0: none; unsigned integers."""
        numbers = np.array([0, *self.track_id_N])
        return np.asarray(numbers.astype(np.min_scalar_type(int(numbers.max())))[self.label])


class Tracker:
    """Carries identities from date to date; holds the last state of every pixel and nothing older."""

    def __init__(self, space: Space, settings: TrackSettings | None = None):
        self.space, self.settings = space, settings or TrackSettings()
        self._number = -1  # of the last date
        self._when: When | None = None
        self._next_id = 1
        self._tracks: tuple[int, ...] = ()
        self._compared: dict[int, tuple[float, int]] = {}  # track -> the size that its size is compared with, number of its date

    def advance(self, mask: np.ndarray, when: When, seen: np.ndarray | None = None) -> TrackedDate:
        """One date. `mask`: bool, or integer codes of objects (0: none; touching codes are objects of their own); `seen`: bool.
        Raises RequestError: floats, another shape or kind than before, a date that is not later."""
        self._check(mask, when, seen)
        if self._number < 0:
            self._held: np.ndarray = np.zeros(mask.shape, np.bool_ if mask.dtype == bool else np.int64)
            self._last_seen = np.full(mask.shape, -1, np.int32)
            self._label = np.zeros(mask.shape, np.int32)
            self._shapes = describe_objects(self._label, self.space)
        self._number, self._when = self._number + 1, when
        self._held = hold(mask, self._held, seen, self.settings.corners)
        label = label_objects(self._held, corners=self.settings.corners)
        label = drop_small(label, self.space, self.settings.least_size)
        shapes = describe_objects(label, self.space, seen)
        tracked = self._follow(when, shapes, label, match_objects(self._shapes, shapes, self._label, label, self.settings), seen)
        self._label, self._shapes, self._tracks = label, shapes, tracked.track_id_N
        self._last_seen[... if seen is None else seen] = self._number
        return tracked

    def _check(self, mask: np.ndarray, when: When, seen: np.ndarray | None) -> None:
        if mask.dtype.kind not in "bui":
            raise RequestError(
                f"the mask of {when} holds {mask.dtype}: that is an image, not a mask; compare it with a threshold"
            )
        if mask.ndim != self.space.axes or (self._number >= 0 and mask.shape != self._held.shape):
            expected = self._held.shape if self._number >= 0 else f"{self.space.axes} axes"
            raise RequestError(f"the mask of {when} has shape {mask.shape}, expected {expected}; bring all masks onto one grid")
        if self._number >= 0 and (mask.dtype == bool) != (self._held.dtype == bool):
            raise RequestError(f"the mask of {when} holds {mask.dtype}, those before were of another kind; use one kind for all")
        if seen is not None and (seen.shape != mask.shape or seen.dtype != bool):
            raise RequestError(f"seen of {when} is {seen.dtype} {seen.shape}; expected bool {mask.shape}")
        if self._when is not None and not when > self._when:
            text = "is there twice" if when == self._when else f"comes after {self._when}"
            raise RequestError(f"the date {when} {text}; give every date once, oldest first")

    def _follow(self, when: When, shapes: Shapes, label: np.ndarray, matches: Matches, seen: np.ndarray | None) -> TrackedDate:
        ids = self._identify(len(shapes), matches)
        merged_in: dict[int, list[int]] = defaultdict(list)
        split_off: dict[int, list[int]] = defaultdict(list)
        for p, c in matches.merged.items():
            merged_in[c].append(self._tracks[p])
        for c, p in matches.split.items():
            split_off[self._tracks[p]].append(ids[c])
        first_share = _share(label, self._last_seen < 0, len(shapes))
        kinds, parents, changes, events = [], [], [], []
        for c, track in enumerate(ids):
            ended, born = tuple(sorted(merged_in[c])), tuple(sorted(split_off[track]))
            came_from = (self._tracks[matches.split[c]],) if c in matches.split else ()
            if c in matches.follows:
                grown = self._grow(track, shapes, c, label, seen)
                kind, change = self._judge(grown, float(shapes.seen_share_N[c]), bool(ended), bool(born))
            else:
                kind, change = ("split" if came_from else "first seen" if first_share[c] > 0.5 else "new"), None
            if kind not in ("stable", "not seen"):
                self._compared[track] = float(shapes.size_N[c]), self._number
            kinds.append(kind)
            parents.append(came_from + ended)
            changes.append(change)
            events += [Event(when, track, "merged", ended, change)] if ended else []
            events += [Event(when, track, "split", born, change)] if born else []
            events += [] if ended or born or came_from else [Event(when, track, kind, (), change)]
        followed = set(matches.follows.values()) | matches.merged.keys()
        events += [Event(when, track, "gone", (), -1.0) for p, track in enumerate(self._tracks) if p not in followed]
        for track in set(self._tracks) - set(ids):
            self._compared.pop(track, None)
        moved_N = np.full(len(shapes), np.nan)
        for c, p in matches.follows.items():
            moved_N[c] = distance(self._shapes, p, shapes, c)
        of_objects = (tuple(ids), tuple(kinds), tuple(parents), tuple(changes))
        return TrackedDate(when, shapes, *of_objects, moved_N, tuple(events), label)

    def _identify(self, count: int, matches: Matches) -> list[int]:
        ids = []
        for c in range(count):
            ids.append(self._tracks[matches.follows[c]] if c in matches.follows else self._next_id)
            self._next_id += c not in matches.follows
        return ids

    def _grow(self, track: int, shapes: Shapes, c: int, label: np.ndarray, seen: np.ndarray | None) -> float:
        """Size relative to what it is compared with, minus 1. What is seen now, and was not once since then, may have been there
        all along: it is added to the size that is compared with."""
        size, number = self._compared[track]
        box = tuple(slice(start, stop) for start, stop in shapes.box_ND2[c])
        revealed = (label[box] == c + 1) & (self._last_seen[box] < number)
        if seen is not None:
            revealed &= seen[box]
        size += float(shapes.size_N[c] / shapes.pixels_N[c]) * np.count_nonzero(revealed)
        self._compared[track] = size, number
        return float(shapes.size_N[c] / size - 1)

    def _judge(self, change: float, seen_share: float, has_merged: bool, has_split: bool) -> tuple[str, float | None]:
        """(event, change of size) of a track that was there before."""
        if seen_share < self.settings.least_seen:
            return "not seen", None
        if has_merged or has_split:
            return ("merged" if has_merged else "split"), change
        if abs(change) <= self.settings.tolerance * (1 + 1e-9):
            return "stable", change
        return ("grown" if change > 0 else "shrunk"), change


def _share(label: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """Share of each object's pixels where `where` is True, (N,)."""
    inside = np.bincount(label[where], minlength=count + 1)[1:]
    return inside / np.maximum(np.bincount(label.ravel(), minlength=count + 1)[1:], 1)


def drop_small(label: np.ndarray, space: Space, least_size: float) -> np.ndarray:
    """The labels with objects of less than `least_size` left out, and numbered anew without gaps."""
    if least_size <= 0:
        return label
    is_large = describe_objects(label, space).size_N >= least_size * (1 - 1e-9)
    number = np.zeros(len(is_large) + 1, np.int32)
    number[1:][is_large] = np.arange(1, np.count_nonzero(is_large) + 1)
    renumbered: np.ndarray = number[label]
    return renumbered


def hold(mask: np.ndarray, held: np.ndarray, seen: np.ndarray | None, corners: bool = True) -> np.ndarray:
    """The mask where it was seen, elsewhere what was held before. Codes may differ from date to date: held pixels take the code
    of the object that the rest of their object is now part of; where nothing of it is seen, a code of their own."""
    if seen is None or seen.all():
        return mask if mask.dtype == bool else mask.astype(np.int64)
    if mask.dtype == bool:
        return np.where(seen, mask, held)
    result = np.where(seen, mask, 0).astype(np.int64)
    hidden = ~seen & (held != 0)
    if not hidden.any():
        return result
    label = label_objects(held, corners=corners)
    count = int(label.max())
    code_of = result.max(initial=0) + 1 + np.arange(count + 1)
    both = (label > 0) & (result != 0)
    pairs, first, shared = np.unique(np.stack([label[both], result[both]], axis=1), axis=0, return_index=True, return_counts=True)
    for k in np.lexsort((-first, shared)):  # the largest share comes last and stays; of equal ones the one nearest to the start
        code_of[pairs[k, 0]] = pairs[k, 1]
    result[hidden] = code_of[label[hidden]]
    return result


def track_objects(
    masks: Iterable[np.ndarray],
    dates: Iterable[When],
    space: Space,
    seen: Iterable[np.ndarray | None] | None = None,
    settings: TrackSettings | None = None,
) -> list[TrackedDate]:
    """Every date of a sequence (T, Y, X) or (T, Z, Y, X), oldest first; see `Tracker.advance`. For long ones use it directly."""
    tracker = Tracker(space, settings or TrackSettings())
    masks, dates = list(masks), list(dates)
    acquisitions = [None] * len(masks) if seen is None else list(seen)
    if not len(masks) == len(dates) == len(acquisitions):
        raise RequestError(
            f"{len(masks)} masks, {len(dates)} dates and {len(acquisitions)} of what was seen; give one of each per date"
        )
    return [tracker.advance(mask, when, acquisition) for mask, when, acquisition in zip(masks, dates, acquisitions, strict=True)]


# ---------------------------------------------------------------- matching: P objects before, C objects now, zero-based


@dataclass(frozen=True)
class Matches:
    """`follows[c] = p`: object c now is object p before, one to one. `merged[p] = c`: p ended and lies in c.
    `split[c] = p`: c is new and lies where p was. What is in none of them is new, or gone."""

    follows: dict[int, int]
    merged: dict[int, int]
    split: dict[int, int]


def match_objects(
    before: Shapes, now: Shapes, label_before: np.ndarray, label_now: np.ndarray, settings: TrackSettings
) -> Matches:
    """The assignment with the largest total overlap in pixels; with `farthest`, the one with the least squared movement. Not to
    be matched costs as much as a movement by `farthest`. Overlapping objects may be matched beyond it, at its price."""
    pairs, overlap = overlaps(label_before, label_now)
    smaller = np.minimum(before.pixels_N[pairs[:, 0]], now.pixels_N[pairs[:, 1]])
    is_linked = overlap >= settings.least_overlap * smaller
    links = {(int(p), int(c)): float(n) for (p, c), n in zip(pairs[is_linked], overlap[is_linked], strict=True)}
    gain = links
    if settings.farthest is not None:
        near = dict(_near(before, now, settings.farthest))
        # 1 % of the price keeps an overlapping pair that moved farther just above not being matched
        gain = {pair: max(1 - near.get(pair, 1.0) ** 2, 0.01) for pair in {*links, *near}}
    follows = _assign(gain, len(before), len(now))
    taken = set(follows.values())
    largest_last = sorted(links, key=lambda pair: (links[pair], pair))  # the largest overlap comes last and stays
    merged = {p: c for p, c in largest_last if p not in taken}
    return Matches(follows, merged, {c: p for p, c in largest_last if c not in follows})


def overlaps(label_before: np.ndarray, label_now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((K, 2) pairs of zero-based object numbers that share pixels, (K,) how many), sorted."""
    both = (label_before > 0) & (label_now > 0)
    stride = int(label_now.max(initial=0)) + 1
    code, count = np.unique(label_before[both].astype(np.int64) * stride + label_now[both], return_counts=True)
    return np.stack([code // stride, code % stride], axis=1) - 1, count


def distance(before: Shapes, p: int, now: Shapes, c: int) -> float:
    """How far the centroid moved, in the space's unit."""
    moved_D = (now.centroid_ND[c] - before.centroid_ND[p]) * (before.steps_ND[p] + now.steps_ND[c]) / 2
    return float(np.linalg.norm(moved_D))


def _near(before: Shapes, now: Shapes, farthest: float) -> Iterator[tuple[tuple[int, int], float]]:
    """((p, c), movement / farthest) of the pairs whose centroids are at most `farthest` apart."""
    if not len(before) or not len(now):
        return
    radius = farthest / min(before.steps_ND.min(), now.steps_ND.min())  # in pixels: never too small
    for p, close in enumerate(cKDTree(before.centroid_ND).query_ball_tree(cKDTree(now.centroid_ND), radius)):
        for c in close:
            if (moved := distance(before, p, now, c)) <= farthest:
                yield (p, c), moved / farthest


def _assign(gain: dict[tuple[int, int], float], count_before: int, count_now: int) -> dict[int, int]:
    """now -> before with the largest total gain; solved for each group of objects that are linked at all."""
    if not gain:
        return {}
    pairs = np.array(sorted(gain))
    p, c = pairs.T
    total = count_before + count_now
    graph = coo_matrix((np.ones(len(pairs), bool), (p, count_before + c)), (total, total))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[p], kind="stable")
    follows = {}
    for members in np.split(order, np.flatnonzero(np.diff(group[p][order])) + 1):
        rows, row = np.unique(p[members], return_inverse=True)
        columns, column = np.unique(c[members], return_inverse=True)
        dense = np.zeros((len(rows), len(columns)))
        dense[row, column] = [gain[int(p[k]), int(c[k])] for k in members]
        for i, j in zip(*linear_sum_assignment(dense, maximize=True), strict=True):
            if dense[i, j] > 0:
                follows[int(columns[j])] = int(rows[i])
    return follows
