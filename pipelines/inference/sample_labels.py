"""What trained networks say of samples: in batches that are kept, so that a killed call goes on; held out, or by all networks.

Shapes: N samples of the store, P some of them, K classes or numbers, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch

from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError
from pipelines.inference.sample_batches import Batch, BatchWork, Kept, answer_batches, place_of, save
from pipelines.learning.class_metrics import fit_temperature
from pipelines.learning.sample_training import parts_of_fold
from pipelines.learning.validation_scores import mean_of_steps
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.labelled import LabelledSamples
from pipelines.samples.sample_windows import SampleArrays
from pipelines.samples.stepped_samples import SteppedSamples

BATCH_BYTES = 64 << 20  # of frames in physical values
STORED_SAMPLES = 4096  # in a file


class SampleModel(Protocol):
    """A model of sequences, see `models.sequence_model`."""

    is_number: bool

    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def members(self) -> Sequence[torch.nn.Module] | torch.nn.ModuleList: ...
    def predict(self, i: int, x_BTCHW: torch.Tensor, valid_BT: torch.Tensor) -> torch.Tensor: ...
    def calibrated(self, i: int, raw: np.ndarray) -> np.ndarray: ...
    def set_calibration(self, i: int, temperature: float) -> None: ...


def score_samples(
    model: SampleModel, member: int, arrays: SampleArrays, index_P: np.ndarray, kept: Kept | None = None,
    progress: Progress = ignore_progress, *, each_step: bool = False,
) -> np.ndarray:  # fmt: skip
    """raw_PK float32 of one member; of networks that answer after every frame the mean over valid frames, or all: raw_PTK."""
    found = []
    place = None if kept is None else place_of(kept, f"{member}{' steps' if each_step else ''}", index_P)
    for start in range(0, len(index_P), STORED_SAMPLES):
        path = None if place is None else place / f"{start:09d}.npy"
        if path is not None and path.is_file():
            found.append(np.load(path))
        else:
            found.append(_score(model, member, arrays, index_P[start : start + STORED_SAMPLES], each_step=each_step))
            if path is not None:
                save(path, found[-1])
        progress(min(start + STORED_SAMPLES, len(index_P)), len(index_P))
    steps = arrays.valid_NT.shape[1:] if each_step else ()
    return np.concatenate(found) if found else np.zeros((0, *steps, len(model.outputs)), np.float32)


def answer_members(
    model: SampleModel, arrays: SampleArrays, asked: Mapping[int, np.ndarray], kept: Kept, compute: Compute,
    progress: Progress, *, each_step: bool = False,
) -> None:  # fmt: skip
    """Answers what `score_samples` is to find in files: `asked` is member -> index_P. Where `compute` has several workers."""
    batches = list_batches(asked, kept, each_step=each_step)
    answer_batches(work_of(model, arrays, each_step=each_step), batches, compute, progress)


def list_batches(asked: Mapping[int, np.ndarray], kept: Kept, *, each_step: bool = False) -> list[Batch]:
    """The files in which `score_samples` looks for what is `asked`: member -> index_P."""
    batches = []
    for member, index_P in asked.items():
        place = place_of(kept, f"{member}{' steps' if each_step else ''}", index_P)
        for start in range(0, len(index_P), STORED_SAMPLES):
            batches.append(Batch((member,), index_P[start : start + STORED_SAMPLES], place / f"{start:09d}.npy"))
    return batches


def work_of(model: SampleModel, arrays: SampleArrays, *, each_step: bool = False) -> BatchWork:
    """What answers such batches."""
    return BatchWork(model, arrays, partial(_score_batch, each_step=each_step))


def tested_by(samples: LabelledSamples) -> dict[int, np.ndarray]:
    """member -> index_P of the tested samples whose group it has not seen."""
    tested_P, networks = samples.tested_P, samples.split.networks
    own_F = [samples.known_P[tested_P[samples.fold_P[tested_P] == fold]] for fold in range(samples.folds)]
    return {fold * networks + turn: own_P for fold, own_P in enumerate(own_F) for turn in range(networks)}


def _score_batch(
    model: SampleModel, members: Sequence[int], arrays: SampleArrays, index_P: np.ndarray, *, each_step: bool
) -> np.ndarray:
    return _score(model, members[0], arrays, index_P, each_step=each_step)


def _score(model: SampleModel, member: int, arrays: SampleArrays, index_P: np.ndarray, *, each_step: bool) -> np.ndarray:
    each = max(1, min(1024, BATCH_BYTES // max(1, int(np.prod(arrays.image_NTCHW.shape[1:])) * 4)))
    found = []
    for start in range(0, len(index_P), each):
        rows = index_P[start : start + each]
        valid_PT = torch.from_numpy(np.ascontiguousarray(arrays.valid_NT[rows]))
        y = model.predict(member, arrays.physical(rows), valid_PT).float()
        if each_step and y.shape[1:-1] != valid_PT.shape[1:]:
            needed = "answers of frames (labels.spans, prediction.per_step) need one that was trained with model.per_step: true"
            raise RequestError(f"the model answers once for a sample, {needed}")
        found.append((y if each_step else mean_of_steps(y, valid_PT)).numpy())
    return np.concatenate(found)


def calibrate(samples: LabelledSamples, model: SampleModel, progress: Progress = ignore_progress) -> list[float]:
    """Sets the temperature of each member, fitted on the groups that validated it, and returns them."""
    temperatures, class_of = [], samples.class_PT if isinstance(samples, SteppedSamples) else samples.class_P
    for member in range(len(model.members)):
        part_P = parts_of_fold(samples, *divmod(member, samples.split.networks)).validation_P
        own = class_of[part_P]
        raw = score_samples(model, member, samples.arrays, samples.known_P[part_P], each_step=own.ndim == 2)
        temperatures.append(fit_temperature(raw[own >= 0], own[own >= 0]))
        model.set_calibration(member, temperatures[-1])
        progress(member + 1, len(model.members))
    return temperatures


def held_out(
    samples: LabelledSamples, model: SampleModel, progress: Progress = ignore_progress, *, each_step: bool | None = None,
    kept: Kept | None = None, compute: Compute = HERE,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(answer_PK of the tested samples by the mean of the networks that have not seen their group, answer_MPK of each turn).

    Answers are probabilities of classes, or numbers; with `each_step` (None: where steps have the labels) answer_PTK and
    answer_MPTK.
    """
    tested_P, networks = samples.tested_P, samples.split.networks
    each_step = isinstance(samples, SteppedSamples) if each_step is None else each_step
    steps = samples.arrays.valid_NT.shape[1:] if each_step else ()
    single_MPK = np.zeros((networks, len(tested_P), *steps, len(model.outputs)), np.float32)
    if kept is not None:
        answer_members(model, samples.arrays, tested_by(samples), kept, compute, progress, each_step=each_step)
    for fold in range(samples.folds):
        own = np.flatnonzero(samples.fold_P[tested_P] == fold)
        for turn in range(networks):
            member = fold * networks + turn
            raw_PK = score_samples(model, member, samples.arrays, samples.known_P[tested_P[own]], kept, each_step=each_step)
            single_MPK[turn, own] = model.calibrated(member, raw_PK)
            progress(member + 1, samples.folds * networks)
    return single_MPK.mean(axis=0), single_MPK


def answer_all(
    model: SampleModel, arrays: SampleArrays, index_P: np.ndarray, kept: Kept, progress: Progress = ignore_progress, *,
    each_step: bool = False, compute: Compute = HERE,
) -> np.ndarray:  # fmt: skip
    """answer_PK by the mean of all networks; with `each_step` answer_PTK."""
    steps = arrays.valid_NT.shape[1:] if each_step else ()
    answer_members(model, arrays, dict.fromkeys(range(len(model.members)), index_P), kept, compute, progress, each_step=each_step)
    total_PK = np.zeros((len(index_P), *steps, len(model.outputs)), np.float32)
    for member in range(len(model.members)):
        raw_PK = score_samples(model, member, arrays, index_P, kept, each_step=each_step)
        total_PK += model.calibrated(member, raw_PK) / len(model.members)
        progress(member + 1, len(model.members))
    return total_PK
