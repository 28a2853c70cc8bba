"""A network (or several) for each fold of groups of samples, trained and calibrated on groups outside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.learning.class_training import Do, Parts, train_each
from pipelines.learning.training import Loss, Score, TrainingSettings, train
from pipelines.predictors import Trainable
from pipelines.progress import Progress
from pipelines.samples.labelled import LabelledSamples, group_folds
from pipelines.samples.sample_windows import NO_AUGMENTATION, SampleArrays, SampleAugmentation, SampleWindows, measure_bands

Learner = TypeVar("Learner", bound="SampleLearner")


class SampleLearner(Trainable, Protocol):
    """A model of sequences with one network."""

    is_number: bool
    outputs: tuple[str, ...]
    target_std_MK: torch.Tensor

    def set_statistics(self, i: int, mean_C: torch.Tensor, std_C: torch.Tensor) -> None: ...
    def set_target_statistics(self, i: int, mean_K: torch.Tensor, std_K: torch.Tensor) -> None: ...
    def standardised(self, i: int, target: torch.Tensor) -> torch.Tensor: ...
    def eval(self) -> object: ...


@dataclass(frozen=True)
class SampleRecipe:
    """How a network is made; all that its weights depend on beside the samples and the caller's key.

    `per_step`: it answers after every frame. `smoothing`: share of a target that goes to all classes alike. `draw`: the samples
    of an epoch alike, or equally many of each class. `windows`: how samples are shown. `score`: what is measured of a learner's
    answers after every epoch, beside the loss. `begin`: called with the untrained learner and the numbers of the samples (of `_P`
    arrays) that it learns from; the targets are those of the arrays that it returns.
    """

    loss: Loss
    training: Callable[[int], TrainingSettings]
    augment: SampleAugmentation
    seed: int
    per_epoch: int | None = None
    per_step: bool = False
    smoothing: float = 0.0
    draw: str = "samples"
    windows: type[SampleWindows] = SampleWindows
    score: Callable[[SampleLearner], Score] | None = None
    begin: Callable[[SampleLearner, SampleArrays, np.ndarray], SampleArrays] | None = None


def parts_of_fold(samples: LabelledSamples, fold: int, turn: int = 0) -> Parts:
    """Numbers (of `_P` arrays) of what network `turn` of the fold learns from, what validates and what tests it.

    Raises RequestError where too few groups are left.
    """
    split, is_test_P = samples.split, samples.fold_P == fold
    others = np.flatnonzero(~is_test_P)
    strata_P, groups_P = samples.stratum_P[others], samples.group_P[others]
    parts = max(2, min(split.validation_parts, len(np.unique(groups_P)), int(np.bincount(strata_P).max())))
    if turn >= parts:
        raise RequestError(f"split.networks is larger than {parts}, the parts that the other groups can be validated in")
    inner = group_folds(groups_P, strata_P, parts, split.seed + fold)
    train_P, validation_P = others[inner != turn], others[inner == turn]
    if samples.has_classes and len(samples.classes_in(train_P)) < 2:
        raise RequestError(f"fold {fold + 1} leaves samples of fewer than two classes to learn from; set other split.folds")
    return Parts(train_P, validation_P, np.flatnonzero(is_test_P))


def train_folds(
    samples: LabelledSamples, build: Callable[[int], Learner], recipe: SampleRecipe, folder: Path, do: Do, key: str
) -> tuple[list[Learner], list[dict[str, Any]]]:
    """(the learner of each fold and turn, how each was trained); goes on where an interrupted call stopped. Raises as `train`."""
    train_one = partial(_train_one, samples, recipe, folder, key)
    return train_each(samples.folds, samples.split.networks, build, train_one, do)


def _train_one(
    samples: LabelledSamples, recipe: SampleRecipe, folder: Path, key: str, fold: int, turn: int, number: int,
    learner: SampleLearner, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    parts, seed = parts_of_fold(samples, fold, turn), recipe.seed + fold + turn * samples.folds
    train_N, validation_N = samples.known_P[parts.train_P], samples.known_P[parts.validation_P]
    mean_C, std_C = measure_bands(samples.arrays, train_N, seed)
    learner.set_statistics(0, torch.from_numpy(mean_C), torch.from_numpy(std_C))
    arrays = samples.arrays if recipe.begin is None else recipe.begin(learner, samples.arrays, parts.train_P)
    if learner.is_number:
        target_PK = torch.from_numpy(arrays.target_NK[train_N])
        learner.set_target_statistics(0, target_PK.mean(0), target_PK.std(0).clamp(min=1e-9))
        arrays = replace(arrays, target_NK=learner.standardised(0, torch.from_numpy(arrays.target_NK)).numpy())
    elif recipe.smoothing:
        mixed_NK = arrays.target_NK * (1 - recipe.smoothing) + recipe.smoothing / arrays.target_NK.shape[-1]
        arrays = replace(arrays, target_NK=mixed_NK.astype(np.float32))
    draw_P = _equal_chances(samples.stratum_P[parts.train_P]) if recipe.draw == "classes" else None
    shown = partial(recipe.windows, arrays, std_C=std_C, seed=seed, per_step=recipe.per_step)
    windows = shown(part_P=train_N, augment=recipe.augment, per_epoch=recipe.per_epoch, draw_P=draw_P)
    fixed = shown(part_P=validation_N, augment=NO_AUGMENTATION)
    settings, place = recipe.training(seed), folder / f"network-{number + 1}"
    score = None if recipe.score is None else recipe.score(learner)
    report = train(learner, windows, fixed, recipe.loss, settings, place, progress, key=key, score=score)
    learner.eval()
    return {"fold": fold + 1, "network": turn + 1, "seed": seed, "samples": parts.counts, **report.to_json()["members"][0]}


def _equal_chances(class_P: np.ndarray) -> np.ndarray:
    """The chance of each sample to be drawn, so that classes are drawn alike."""
    counts_K = np.bincount(class_P)
    chance_P = 1 / counts_K[class_P]
    equal_P: np.ndarray = chance_P / chance_P.sum()
    return equal_P


def describe_parts(samples: LabelledSamples) -> Sequence[dict[str, int]]:
    """Samples and groups of every fold, rows of a table."""
    rows = []
    for fold in range(samples.folds):
        parts = parts_of_fold(samples, fold)
        figures = {"fold": fold + 1, "groups": len(np.unique(samples.group_P[parts.test_P]))}
        rows.append({**figures, **parts.counts})
    return rows


def audit_groups(samples: LabelledSamples) -> dict[str, Any]:
    """The groups of every part of every network, which no two parts of a network share; kept beside the model.

    Raises RequestError where they do.
    """
    names = samples.table.group_N[samples.known_P]
    listed = []
    for fold in range(samples.folds):
        for turn in range(samples.split.networks):
            parts = parts_of_fold(samples, fold, turn)
            of_part = {name: set(names[getattr(parts, f"{name}_P")]) for name in ("train", "validation", "test")}
            shared = (of_part["train"] & of_part["validation"]) | (of_part["test"] & (of_part["train"] | of_part["validation"]))
            if shared:
                raise RequestError(f"the group {min(shared)} is in two parts of fold {fold + 1}")
            counts = {name: len(found) for name, found in of_part.items()}
            shown = {name: sorted(found) for name, found in of_part.items()} if samples.groups <= 500 else {}
            listed.append({"fold": fold + 1, "network": turn + 1, "groups": counts, **shown})
    return {"shared_groups": 0, "networks": listed}
