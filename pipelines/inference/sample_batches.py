"""Batches of samples as work for `compute`: what a network says of one is kept in a file (docs/design/033).

Whoever answers samples afterwards finds the files, and combines them in the order of samples and networks.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.compute import Compute, carry_out
from pipelines.errors import StateError
from pipelines.files import replacing
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import key_of
from pipelines.slices import Slice, SliceDone

if TYPE_CHECKING:  # maps of windows, which are read without torch, use this module
    from pipelines.inference.sample_labels import SampleModel
    from pipelines.samples.sample_windows import SampleArrays

Answered = tuple[Path, np.ndarray]
MOST_NAMED = 5


class Answer(Protocol):
    """What some networks of a model say of samples; picklable."""

    def __call__(self, model: SampleModel, members: Sequence[int], arrays: SampleArrays, index_P: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """The samples `index_P` (numbers in the store), the networks that answer together, and the file of the answer."""

    members: tuple[int, ...]
    index_P: np.ndarray
    path: Path

    def __str__(self) -> str:
        networks = ", ".join(str(member + 1) for member in self.members)
        return f"samples {self.index_P[0]} to {self.index_P[-1]}, network {networks}"


@dataclass(frozen=True)
class Kept:
    """Where finished batches are kept; `key` names the model and the samples. Batches of another key are removed."""

    folder: Path
    key: str


def place_of(kept: Kept, members: str, index_P: np.ndarray) -> Path:
    """The folder of the batches of one member, or of several."""
    name = hashlib.sha256(f"{kept.key}{members}".encode() + index_P.tobytes()).hexdigest()[:16]
    place = kept.folder / kept.key[:16] / name
    for other in kept.folder.iterdir() if kept.folder.is_dir() else ():
        if other.name != kept.key[:16]:
            shutil.rmtree(other, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    return place


def batches_of(kept: Kept, members: Sequence[int], index_P: np.ndarray, stored: int) -> list[Batch]:
    """The samples in their order, `stored` of them in a file, for networks that answer together."""
    place = place_of(kept, str(list(members)), index_P)
    starts = range(0, len(index_P), stored)
    return [Batch(tuple(members), index_P[start : start + stored], place / f"{start:09d}.npy") for start in starts]


@dataclass(frozen=True)
class BatchWork:
    """Model and samples travel once to each worker; frames that lie in a file by its name."""

    model: SampleModel
    arrays: SampleArrays
    answer: Answer
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return key_of(samples=len(self.arrays.valid_NT), networks=len(self.model.members))

    def open(self) -> Callable[[Batch], Answered]:
        return lambda batch: (batch.path, self.answer(self.model, batch.members, self.arrays, batch.index_P))

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)


def answer_batches(work: BatchWork, batches: Sequence[Batch], compute: Compute, progress: Progress) -> None:
    """Answers those whose file is not there. With a single worker nothing: whoever asks for a batch answers it."""
    if compute.is_local and compute.at_once == 1:
        return
    missing = [batch for batch in batches if len(batch.index_P) and not batch.path.is_file()]
    for done, (path, answer) in enumerate(carry_out(work, missing, compute), start=1):
        save(path, answer)
        progress(done, len(missing))


def save(path: Path, answer: np.ndarray) -> None:
    """Keeps an answer, with a SHA-256 behind the array, which `np.load` does not read; two slices may write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, flush=False, mark=secrets.token_hex(4)) as draft, draft.open("wb") as file:
        np.save(file, answer)
        file.write(digest_of(answer))


def is_whole(path: Path) -> bool:
    """Whether an answer is there, every byte as it was written."""
    try:
        with path.open("rb") as file:
            answer = np.load(file, allow_pickle=False)
            return file.read() == digest_of(answer)
    except (OSError, ValueError, EOFError):
        return False


def digest_of(answer: np.ndarray) -> bytes:
    return hashlib.sha256(f"{answer.dtype.str}{answer.shape}".encode() + answer.tobytes()).digest()


# ---------------------------------------------------------------- slices (docs/design/048)


def answer_share(
    work: BatchWork, batches: Sequence[Batch], share: Slice, compute: Compute, progress: Progress,
    then: Callable[[Path], None] | None = None,
) -> SliceDone:  # fmt: skip
    """Answers those of a slice that are not there as a whole; `then` is called with each file. Others may work beside it."""
    own = share.of(batches)
    missing = [batch for batch in own if not is_whole(batch.path)]
    for done, (path, answer) in enumerate(carry_out(work, missing, compute) if missing else (), start=1):
        save(path, answer)
        if then is not None:
            then(path)
        progress(len(own) - len(missing) + done, len(own))
    return SliceDone(len(missing), len(own))


def require_batches(batches: Sequence[Batch], folder: str) -> None:
    """Raises StateError that names batches that are missing, or are not as they were written."""
    missing = [str(batch) for batch in batches if not is_whole(batch.path)]
    if not missing:
        return
    named = "; ".join(missing[:MOST_NAMED]) + (f"; and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else "")
    remedy = "do the slices again that were to answer them, or predict without --finish"
    raise StateError(f"{folder}: {len(missing)} of {len(batches)} batches are missing or damaged: {named}; {remedy}")
