"""Where the visits of a patient lie in the common space, which of them fit, and the grid that all are put on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.registration.figures import Fit, measure_fit, motion_of, plain_information
from pipelines.registration.resampling import Interpolation, is_copy, resample
from pipelines.registration.rigid import register_rigid
from pipelines.registration.volumes import Volume, foreground, surface_points

How = Literal["given", "rigid", "none"]
MIRROR_MARGIN = 0.02  # of mutual information, by which the mirror image must fit better
TURNED_MARGIN = 0.02  # of mutual information, by which transforms must fit better the other way round to be called turned round


@dataclass(frozen=True)
class Limits:
    """A visit beyond one of these is badly registered; docs/follow-up.md has the measurements."""

    max_residual_mm: float = 1.0
    min_edge_overlap: float = 0.5
    min_information: float = 1.06
    min_field: float = 0.9


@dataclass(frozen=True)
class RegistrationSettings:
    """how: where transforms come from. to_common: given ones map a point of the visit to the common space, not the other way."""

    how: How
    to_common: bool = False
    interpolation: Interpolation = "linear"
    limits: Limits = Limits()


@dataclass(frozen=True)
class Placed:
    """A visit in the common space. matrix: sixteen numbers, row by row: a point of the common space to the visit's, mm, LPS.

    fit: None of the reference visit, and of one that could not be measured. problem: why it is not used; "".
    """

    name: str
    matrix: tuple[float, ...]
    fit: Fit | None = None
    problem: str = ""

    @property
    def matrix_44(self) -> np.ndarray:
        return np.array(self.matrix, float).reshape(4, 4)

    def to_json(self) -> dict[str, Any]:
        fit = {} if self.fit is None else {"figures": self.fit.to_json()}
        return {"visit": self.name, "matrix": list(self.matrix), **fit, **({"problem": self.problem} if self.problem else {})}


@dataclass(frozen=True)
class Placement:
    """All visits of a patient, in order; `reference` is the name of the one that the others are compared with. notes: doubts."""

    grid: Grid
    reference: str
    visits: tuple[Placed, ...]
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> int:
        return sum(not one.problem for one in self.visits)

    @property
    def is_on_usable(self) -> bool:
        """Whether the reference is used itself."""
        return any(one.name == self.reference and not one.problem for one in self.visits)


def place_visits(
    volumes: Mapping[str, Volume],
    given: Mapping[str, np.ndarray],
    grid: Grid | None,
    brain_on: Callable[[Grid], np.ndarray | None],
    settings: RegistrationSettings,
    log: Callable[[str], None] = lambda line: None,
) -> Placement:
    """Every visit (name -> volume, in order) with its matrix and figures. The reference is the first one.

    given: matrices as files have them, for `how: given`. grid: the common one; None: that of the reference, where it lies in the
    common space. brain_on: the brain on that grid; None: none is known, and the head of the reference counts. If most visits do
    not fit the first one, or it cannot be used itself, it is probably the first one that is wrong, and the next is tried.

    Raises RequestError where nothing can be registered.
    """
    names = list(volumes)
    best: Placement | None = None
    failed: RequestError | None = None
    for reference in names if len(names) > 2 else names[:1]:
        try:
            found = _place_on(reference, volumes, given, grid, brain_on, settings)
        except RequestError as e:
            failed = e
            log(f"visit {reference} cannot be the reference ({e})")
            continue
        if best is None or (found.is_on_usable, found.good) > (best.is_on_usable, best.good):
            best = found
        if best.is_on_usable and 2 * (best.good - 1) >= len(names) - 1:  # of the others
            break
        log(f"most visits do not fit visit {reference}, or it cannot be used; the next one is tried as the reference")
    if best is None:
        raise failed or RequestError("there is no visit to register")
    return best


def copies_among(volumes: Mapping[str, Volume]) -> Iterator[str]:
    """A line for each visit that has the voxels of an earlier one."""
    names = list(volumes)
    for k, name in enumerate(names):
        for other in names[:k]:
            if np.array_equal(volumes[name].values_ZYX, volumes[other].values_ZYX, equal_nan=True):
                yield f"WARNING: visits {other} and {name} have the same voxels: one file is a copy of the other"


def _place_on(
    reference: str,
    volumes: Mapping[str, Volume],
    given: Mapping[str, np.ndarray],
    grid: Grid | None,
    brain_on: Callable[[Grid], np.ndarray | None],
    settings: RegistrationSettings,
) -> Placement:
    own = _matrix(reference, reference, volumes, given, settings, None)
    common = _in_common_space(volumes[reference].grid, own) if grid is None else grid
    on_grid = Volume(_on(volumes[reference], own, common), common)
    if not np.isfinite(on_grid.values_ZYX).any():
        raise RequestError(f"visit {reference} lies outside of the common grid; correct source.grid or the transforms")
    brain_ZYX = brain_on(common)
    brain_ZYX = foreground(on_grid) if brain_ZYX is None else brain_ZYX
    placed, notes = list[Placed](), list[str]()
    for name in volumes:
        if name == reference:
            shown = float(np.isfinite(on_grid.values_ZYX)[brain_ZYX].mean()) if brain_ZYX.any() else 0.0
            problem = "" if shown >= settings.limits.min_field else _shows_little(shown, settings.limits)
            placed.append(Placed(name, _numbers(own), None, problem))
            continue
        try:
            matrix = _matrix(name, reference, volumes, given, settings, brain_ZYX if grid is None else None)
            fit = measure_fit(on_grid, _on(volumes[name], matrix, common), brain_ZYX)
        except RequestError as e:
            placed.append(Placed(name, _numbers(np.eye(4)), None, str(e)))
            continue
        if settings.how == "given":
            fit = replace(fit, turned_round=_turned(volumes[reference], own, volumes[name], matrix, common, brain_ZYX))
        placed.append(Placed(name, _numbers(matrix), fit, problem_of(fit, settings)))
        if not placed[-1].problem and _fits_both_ways(fit, (own, matrix), on_grid, brain_ZYX, settings):
            notes.append(
                f"the figures of visit {name} cannot tell which way the transforms map (mutual information "
                f"{fit.information:.3f}, the other way round {fit.turned_round:.3f}): make sure that registration.maps is right"
            )
    return Placement(common, reference, tuple(placed), tuple(notes))


def problem_of(fit: Fit, settings: RegistrationSettings) -> str:
    """Why a visit of these figures is not used, "" for one that is."""
    limits = settings.limits
    if fit.mirrored > max(fit.settled, fit.information) + MIRROR_MARGIN:
        return f"the mirror image fits better: left and right are exchanged in this visit or in the reference ({fit.words})"
    beyond = [
        text
        for text, is_beyond in (
            (f"a second registration still moves it by {fit.residual_mm:.1f} mm (limit {limits.max_residual_mm:g})",
             not fit.residual_mm <= limits.max_residual_mm),
            (f"edges overlap by {fit.edge_overlap:.2f} (limit {limits.min_edge_overlap:g})",
             fit.edge_overlap < limits.min_edge_overlap),
            (f"mutual information is {fit.information:.3f} (limit {limits.min_information:g})",
             fit.information < limits.min_information),
            (_shows_little(fit.field, limits), fit.field < limits.min_field),
        )
        if is_beyond
    ]  # fmt: skip
    if beyond and fit.turned_round is not None and fit.turned_round > fit.information + TURNED_MARGIN:
        other = "to_visit" if settings.to_common else "to_common"
        return (
            f"the given transforms fit better the other way round (mutual information {fit.turned_round:.3f}, as stated "
            f"{fit.information:.3f}): set registration.maps: {other}"
        )
    return f"{'; '.join(beyond)}: {fit.words}" if beyond else ""


def _shows_little(field: float, limits: Limits) -> str:
    return f"it shows {field:.0%} of the brain (limit {limits.min_field:.0%})"


def _fits_both_ways(
    fit: Fit, matrices: Sequence[np.ndarray], reference: Volume, brain_ZYX: np.ndarray, settings: RegistrationSettings
) -> bool:
    """Whether transforms fit the other way round, too, and lie elsewhere then: so do like ones of both visits."""
    if fit.turned_round is None or fit.turned_round < settings.limits.min_information:
        return False
    points = surface_points(brain_ZYX, reference.grid)
    return max(motion_of(one @ one, points)[0] for one in matrices) > settings.limits.max_residual_mm


def _numbers(matrix: np.ndarray) -> tuple[float, ...]:
    return tuple(matrix.ravel().tolist())


def _in_common_space(grid: Grid, matrix: np.ndarray) -> Grid:
    """The grid of a visit where the visit lies in the common space; its axes stay at right angles, its spacings as they are.

    matrix (4, 4): a point of the common space to the visit's.
    """
    if is_copy(grid, matrix, grid):
        return grid
    back, rows = np.linalg.inv(matrix), grid.matrix_of_centres
    left, _, right = np.linalg.svd(back[:3, :3])
    axes, middle = left @ right @ rows[:, :3], (np.array(grid.shape[::-1]) - 1) / 2
    centre = back[:3, :3] @ (rows[:, :3] @ middle + rows[:, 3]) + back[:3, 3]
    return Grid.from_centres(grid.frame, np.column_stack([axes, centre - axes @ middle]), grid.shape)


def _matrix(
    name: str,
    reference: str,
    volumes: Mapping[str, Volume],
    given: Mapping[str, np.ndarray],
    settings: RegistrationSettings,
    brain_ZYX: np.ndarray | None,
) -> np.ndarray:
    """(4, 4): a point of the common space to the visit's. brain_ZYX: on the reference's grid, where that is the common one."""
    if settings.how == "given":
        if name not in given:
            raise RequestError(f"there is no transform of visit {name} (source.transforms)")
        return np.linalg.inv(given[name]) if settings.to_common else given[name]
    if settings.how == "none" or name == reference:
        return np.eye(4)
    return register_rigid(volumes[reference], volumes[name], brain_ZYX)


def _on(volume: Volume, matrix: np.ndarray, grid: Grid) -> np.ndarray:
    return resample(volume.values_ZYX, volume.grid, matrix, grid, "linear")


def _turned(reference: Volume, own: np.ndarray, visit: Volume, matrix: np.ndarray, grid: Grid, brain_ZYX: np.ndarray) -> float:
    """Mutual information with the inverses of both transforms."""
    one, other = _on(reference, np.linalg.inv(own), grid), _on(visit, np.linalg.inv(matrix), grid)
    seen_ZYX = brain_ZYX & np.isfinite(one) & np.isfinite(other)
    if np.count_nonzero(seen_ZYX) < 1000:
        return 1.0
    return plain_information(Volume(one, grid), other, seen_ZYX)
