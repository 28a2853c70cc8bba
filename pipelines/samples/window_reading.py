"""Windows of a cube, read by several workers: each reads the samples of one part of the cube into a file of its own.

Samples come back in the order in which they were asked for, whoever read them; one process writes them into the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from pipelines.compute import Compute, carry_out
from pipelines.errors import RequestError, SceneRefused
from pipelines.samples.cube_windows import CubeWindows, Place
from pipelines.samples.decoded_sites import key_of
from pipelines.samples.labels import Span
from pipelines.samples.sample_frames import FrameSettings, shape_frames
from pipelines.sources.samples import Frames
from pipelines.stored_files import absolute
from pipelines.tiles import Box

AT_ONCE = 4096  # windows in a file

Refused = dict[int, tuple[str, str]]  # number in the piece -> reason, detail


@dataclass(frozen=True)
class WindowPiece:
    """Some samples (`names`, `places`) of one part of the cube in one span, and the number of their file."""

    number: int
    span: Span
    box: Box
    names: tuple[str, ...]
    places: tuple[Place, ...]

    def __str__(self) -> str:
        return f"windows {self.names[0]} to {self.names[-1]}"


@dataclass(frozen=True)
class ReadWork:
    """Windows to be read into files in `folder`, as work for `compute`. The cube is opened by its URI and version."""

    windows: CubeWindows
    frames: FrameSettings
    folder: Path
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return key_of(cube=self.windows.snapshot, windows=repr(self.windows.settings), folder=str(self.folder))

    def open(self) -> Callable[[WindowPiece], tuple[int, Refused]]:
        if not self.folder.is_dir():
            raise RequestError(f"this worker does not see {self.folder}: the run's folder must be one that all of them share")
        _ = self.windows.dataset  # before threads ask for it at once
        return self.read

    def read(self, piece: WindowPiece) -> tuple[int, Refused]:
        """The piece's number, and which of its samples are refused. Its file holds a row for each of the others."""
        part, found, refused = self.windows.read_part(piece.span, piece.box), list[Frames](), Refused()
        for number, (name, place) in enumerate(zip(piece.names, piece.places, strict=True)):
            try:
                found.append(shape_frames(self.windows.frames_of(name, place, part), self.frames, name))
            except SceneRefused as e:
                refused[number] = (e.reason, e.detail)
        if found:
            np.savez(
                file_of(self.folder, piece.number),
                image=np.stack([one.image_TCHW for one in found]),
                valid=np.stack([one.valid_T for one in found]),
                seconds=np.stack([one.seconds_T for one in found]),
                names=np.array(list(found[0].facts)),
                facts=np.array([list(one.facts.values()) for one in found]),
            )
        return piece.number, refused

    def limit(self, threads: int) -> None:
        """NumPy and zarr alone."""

    def __getstate__(self) -> dict[str, object]:
        windows = replace(self.windows, uri=absolute(self.windows.uri), labels=None, span=None, _parts={})
        return {**self.__dict__, "windows": windows, "folder": self.folder.absolute()}


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def cut_pieces(windows: CubeWindows, names: Sequence[str]) -> list[WindowPiece]:
    """The samples in their order, of one part and span at a time, at most `AT_ONCE`."""
    pieces = list[WindowPiece]()
    for (span, box), group in groupby(names, lambda name: (windows.places[name].span, windows.box_of(windows.places[name]))):
        members = tuple(group)
        for start in range(0, len(members), AT_ONCE):
            some = members[start : start + AT_ONCE]
            pieces.append(WindowPiece(len(pieces), span, box, some, tuple(windows.places[name] for name in some)))
    return pieces


def read_pieces(
    windows: CubeWindows, pieces: Sequence[WindowPiece], frames: FrameSettings, folder: Path, compute: Compute
) -> Iterator[Frames | SceneRefused]:
    """The samples of the pieces in their order; `folder` is emptied first, and removed in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    read, expected = dict[int, Refused](), 0
    try:
        for number, refused in carry_out(ReadWork(windows, frames, folder), pieces, compute):
            read[number] = refused
            while expected in read:
                yield from _found(folder, pieces[expected], read.pop(expected))
                expected += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(folder: Path, piece: WindowPiece, refused: Refused) -> Iterator[Frames | SceneRefused]:
    path, row = file_of(folder, piece.number), 0
    if len(refused) < len(piece.names):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        path.unlink()
        facts = arrays["names"].tolist()
    for number, name in enumerate(piece.names):
        if number in refused:
            yield SceneRefused(name, *refused[number])
            continue
        known = dict(zip(facts, arrays["facts"][row].tolist(), strict=True))
        yield Frames(arrays["image"][row], arrays["seconds"][row], arrays["valid"][row][:, None, None], known)
        row += 1
