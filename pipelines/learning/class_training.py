"""A network for each fold of blocks, trained on blocks outside it and calibrated on others outside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.learning.training import Loss, TrainingSettings, train
from pipelines.predictors import Trainable
from pipelines.progress import Progress
from pipelines.samples.block_folds import validation_part
from pipelines.samples.class_samples import ClassSamples
from pipelines.samples.class_windows import Augmentation, ClassWindows, WindowSettings, training_statistics

Result = TypeVar("Result")
Learner = TypeVar("Learner")
Learner_contra = TypeVar("Learner_contra", contravariant=True)


class ClassLearner(Trainable, Protocol):
    """A segmenter of one network."""

    def set_statistics(self, i: int, mean_C: torch.Tensor, std_C: torch.Tensor) -> None: ...
    def deviations(self, i: int) -> torch.Tensor: ...
    def eval(self) -> object: ...


class Do(Protocol):
    """Carries out a named step and returns its result; `work` is given a progress callback."""

    def __call__(self, name: str, work: Callable[[Progress], Result]) -> Result: ...


@dataclass(frozen=True)
class ClassRecipe:
    """How the network of a fold is made; all that its weights depend on beside the samples and the caller's key."""

    loss: Loss
    training: Callable[[int], TrainingSettings]
    windows: WindowSettings
    augment: Augmentation
    seed: int
    networks: int = 1  # of each fold
    is_begun: bool = False  # learners come with the weights and the statistics of a trained model


@dataclass(frozen=True)
class Parts:
    """Indices of the labels of a fold: what its network learns from, what chooses its epoch and temperature, what tests it."""

    train_P: np.ndarray
    validation_P: np.ndarray
    test_P: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """How many each part has."""
        return {"train": len(self.train_P), "validation": len(self.validation_P), "test": len(self.test_P)}


class TrainOne(Protocol[Learner_contra]):
    """Trains network `turn` of a fold, the one of that number, and says how."""

    def __call__(self, fold: int, turn: int, number: int, learner: Learner_contra, progress: Progress) -> dict[str, Any]: ...


def train_each(
    folds: int, networks: int, build: Callable[[int], Learner], train_one: TrainOne[Learner], do: Do
) -> tuple[list[Learner], list[dict[str, Any]]]:
    """(the learner of each fold and turn, how each was trained)."""
    learners, reports = [], []
    for number in range(folds * networks):
        learner, (fold, turn) = build(number), divmod(number, networks)
        which = f" without fold {fold + 1} of {folds}" if folds > 1 else ""
        again = f", network {turn + 1} of {networks}" if networks > 1 else ""
        reports.append(do(f"train{which}{again}", partial(train_one, fold, turn, number, learner)))
        learners.append(learner)
    return learners, reports


def parts_of_fold(samples: ClassSamples, fold: int, seed: int, turn: int = 0) -> Parts:
    """Those of network number `turn` of the fold. Raises RequestError where nothing is left to learn from."""
    labels, is_test_P = samples.labels, samples.fold_P == fold
    if samples.few is None:
        is_validation_P = validation_part(samples.block_P, labels.class_P, samples.fold_P, fold, seed, turn)
        train_P, validation_P = np.flatnonzero(~is_test_P & ~is_validation_P), np.flatnonzero(is_validation_P)
    else:
        known_P, chooses_P = samples.few.choose(np.flatnonzero(~is_test_P), labels.class_P, samples.block_P, fold)
        train_P, validation_P = (known_P[~chooses_P], known_P[chooses_P]) if chooses_P.any() else (known_P, known_P)
    if len(np.unique(labels.class_P[train_P])) < 2:
        blocks = len(np.unique(samples.block_P))
        raise RequestError(
            f"fold {fold + 1} leaves labels of fewer than two classes to learn from ({blocks} blocks in all); set a smaller "
            "split.block_px, or other split.folds"
        )
    return Parts(train_P, validation_P, np.flatnonzero(is_test_P))


def train_folds(
    samples: ClassSamples, build: Callable[[int], Learner], recipe: ClassRecipe, folder: Path, do: Do, key: str
) -> tuple[list[Learner], list[dict[str, Any]]]:
    """(the learner of each fold, how each was trained); goes on where an interrupted call stopped. Raises as `train`."""
    train_one = partial(_train_fold, samples, recipe, folder, key)
    return train_each(samples.folds, recipe.networks, build, train_one, do)


def _train_fold(
    samples: ClassSamples, recipe: ClassRecipe, folder: Path, key: str, fold: int, turn: int, number: int, learner: ClassLearner,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    parts, seed = parts_of_fold(samples, fold, recipe.seed, turn), recipe.seed + fold + turn * samples.folds
    if recipe.is_begun:
        std_C = learner.deviations(0).numpy()
    else:
        mean_C, std_C = training_statistics(samples, parts.train_P, seed)
        learner.set_statistics(0, torch.from_numpy(mean_C), torch.from_numpy(std_C))
    windows = ClassWindows(samples, parts.train_P, recipe.windows, std_C, recipe.augment, seed)
    fixed = ClassWindows(samples, parts.validation_P, recipe.windows, std_C, None, seed)
    place = folder / f"fold-{number + 1}"
    report = train(learner, windows, fixed, recipe.loss, recipe.training(seed), place, progress, key=key)
    learner.eval()
    return {"fold": fold + 1, "labels": parts.counts, **report.to_json()["members"][0]}


def describe_parts(samples: ClassSamples, seed: int) -> Sequence[dict[str, int]]:
    """Labels and blocks of every fold, rows of a table."""
    rows = []
    for fold in range(samples.folds):
        parts = parts_of_fold(samples, fold, seed)
        figures = {"fold": fold + 1, "blocks": len(np.unique(samples.block_P[parts.test_P]))}
        rows.append({**figures, **parts.counts})
    return rows
