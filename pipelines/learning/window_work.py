"""Windows that all methods answer, and what tallies keep of the answers: here, or by the workers of `compute` (docs/design/046).

    tell_all([Pass(forecasters, windows, tallies)], compute)

A tally measures a window without changing itself, and includes what was measured in the order of windows. So its sums are added
in the same order, and depend neither on the kind of worker nor on their number. What is measured is small: sums of a window and
errors of some of its pixels, no fields.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipelines.compute import HERE, Compute, carry_out
from pipelines.learning.conformal import forecast_by_all
from pipelines.memory import TRIMMED_EVERY, give_back
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import PartWindows, WindowArrays

if TYPE_CHECKING:  # it opens cubes, which scores alone do not
    from pipelines.samples.stored_windows import Read

WINDOWS_OF_PIECE = 16
LITTLE_S = 10.0  # about what it takes to start processes and end them
ANSWER_S, PIXEL_DATE_S = 5e-3, 1e-7  # a window by one method with its scores: roughly; and for every pixel and date of its block


class WindowTally(Protocol):
    """What is kept of windows and of the y_KCHW that all methods forecast of them; picklable.

    `rng`: of a tally that draws random numbers, which depend on the windows before.
    """

    rng: np.random.Generator | None = None

    def measure(self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: np.random.Generator | None) -> Any:
        """What a window adds. Changes nothing but `rng`."""

    def include(self, measured: Any) -> None:
        """Adds what was measured of the next window."""

    def draw(self, window: WindowArrays, names: Sequence[str]) -> None:
        """Draws from `rng` what `measure` of a window draws where these methods answer."""
        return None

    def add(self, window: WindowArrays, forecasts: Mapping[str, np.ndarray]) -> None:
        """Measures the next window and includes it."""
        self.include(self.measure(window, forecasts, self.rng))


@dataclass(frozen=True)
class Pass:
    """Windows, who answers them, and what is told of it; of many windows about `most`, evenly spread."""

    forecasters: Mapping[str, Forecaster]
    windows: Iterable[WindowArrays]
    tallies: Sequence[WindowTally]
    most: int | None = None

    def __len__(self) -> int:
        count = length_hint(self.windows)
        return count if self.most is None else min(count, self.most)

    def positions(self) -> list[int]:
        count = length_hint(self.windows)
        return [number for number in range(count) if self.most is None or is_chosen(number, count, self.most)]

    def read(self) -> Iterator[WindowArrays]:
        return iter(self.windows) if self.most is None else spread_out(self.windows, self.most)


def tell_all(passes: Sequence[Pass], compute: Compute = HERE, progress: Progress | None = None) -> None:
    """Tells the tallies of each pass about all of its windows, in their order. `progress` counts windows of all passes.

    Workers read the windows of a `SampleCache`; others are answered in this process. Raises what a tally or forecaster raises.
    """
    total = sum(map(len, passes))
    if (compute.is_local and compute.at_once == 1) or not all(isinstance(one.windows, PartWindows) for one in passes):
        _tell_here(passes, total, progress)
        return
    pieces, found, done, following = list(_cut(passes)), dict[int, Measured](), 0, 0
    work = WindowWork(tuple(passes))
    for measured in carry_out(work, pieces, compute, is_little=_seconds(passes) < LITTLE_S):
        found[measured.number] = measured
        while following in found:
            _include(passes[pieces[following].of_pass].tallies, found.pop(following).of_windows)
            following += 1
        done += len(pieces[measured.number].positions)
        if progress:
            progress(done, max(done, total))


def _tell_here(passes: Sequence[Pass], total: int, progress: Progress | None) -> None:
    done = 0
    for one in passes:
        for window in one.read():
            forecasts = forecast_by_all(one.forecasters, window)
            for tally in one.tallies:
                tally.add(window, forecasts)
            done += 1
            if done % TRIMMED_EVERY == 0:
                give_back()
            if progress:
                progress(done, max(done, total))


def _include(tallies: Sequence[WindowTally], of_windows: Sequence[tuple[Any, ...]]) -> None:
    for of_tallies in of_windows:
        for tally, measured in zip(tallies, of_tallies, strict=True):
            tally.include(measured)


def is_chosen(number: int, count: int, most: int) -> bool:
    """Whether window `number` is among about `most` of `count`, evenly over tiles and issue dates, whatever their order.

    True where the fraction of number x golden ratio is small (Kronecker's sequence), which is in step with no period.
    """
    return number * (math.sqrt(5) - 1) / 2 % 1 < most / max(count, 1)


def spread_out(windows: Iterable[WindowArrays], most: int) -> Iterator[WindowArrays]:
    """About `most` of the windows; see `is_chosen`."""
    count = length_hint(windows)
    if isinstance(windows, PartWindows):
        yield from windows.at([number for number in range(count) if is_chosen(number, count, most)])
        return
    for number, window in enumerate(windows):
        if is_chosen(number, count, most):
            yield window


# ---------------------------------------------------------------- by workers


@dataclass(frozen=True)
class Piece:
    """Some windows of a pass, by their position, and the random generators of its tallies as the windows before leave them."""

    number: int
    of_pass: int
    part: str
    positions: tuple[int, ...]
    rngs: tuple[np.random.Generator | None, ...]

    def __str__(self) -> str:
        return f"{self.part} windows {self.positions[0] + 1} to {self.positions[-1] + 1}"


class Measured(NamedTuple):
    """What each tally of the pass measured of each window of a piece."""

    number: int
    of_windows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class WindowWork:
    """Passes as work for `compute`: methods and empty tallies travel once to each worker, windows as the files of their cache."""

    passes: tuple[Pass, ...]
    key: str = "windows"
    on_gpu: bool = False

    def open(self) -> Callable[[Piece], Measured]:
        from pipelines.samples.stored_windows import reader_of

        readers = [reader_of(_of_cache(one)) for one in self.passes]
        return lambda piece: self.measure(piece, readers[piece.of_pass])

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def measure(self, piece: Piece, read: Read) -> Measured:
        one, of_windows = self.passes[piece.of_pass], []
        rngs = copy.deepcopy(piece.rngs)  # a piece may be done twice
        for window in read(piece.positions):
            forecasts = forecast_by_all(one.forecasters, window)
            pairs = zip(one.tallies, rngs, strict=True)
            of_windows.append(tuple(tally.measure(window, forecasts, rng) for tally, rng in pairs))
        give_back()
        return Measured(piece.number, of_windows)


def _of_cache(one: Pass) -> PartWindows:
    assert isinstance(one.windows, PartWindows)
    return one.windows


def _cut(passes: Sequence[Pass]) -> Iterator[Piece]:
    """Pieces of `WINDOWS_OF_PIECE`, whoever does them. Advances the tallies' generators, as measuring here would."""
    number = 0
    for of_pass, one in enumerate(passes):
        windows, positions = _of_cache(one), one.positions()
        part = windows.groups[0].part if windows.groups else ""
        for start in range(0, len(positions), WINDOWS_OF_PIECE):
            some = tuple(positions[start : start + WINDOWS_OF_PIECE])
            yield Piece(number, of_pass, part, some, tuple(copy.deepcopy(tally.rng) for tally in one.tallies))
            number += 1
            drawing = [tally for tally in one.tallies if tally.rng is not None]
            for window in windows.at(some) if drawing else ():
                for tally in drawing:
                    tally.draw(window, list(one.forecasters))


def _seconds(passes: Sequence[Pass]) -> float:
    """About how long one process takes."""
    total = 0.0
    for one in passes:
        groups, share = _of_cache(one).groups, len(one) / max(length_hint(one.windows), 1)
        each = sum(len(group.numbers) * (ANSWER_S + PIXEL_DATE_S * group.values[0, :, 0].size) for group in groups)
        total += each * share * len(one.forecasters)
    return total
