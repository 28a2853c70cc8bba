"""What `task: change` compares: recipes of detectors, and change indices. Loads torch; `configs.tasks.change` does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from torch import nn

from configs.build import automatic_threshold, build_change_index
from configs.tasks.change import ChangeIndexName, ChangeModel, ChangeRun, ChangeTraining
from models.blocks.change import ChangeNetwork
from models.change_detector import ChangeDetector, build_network, log_score
from models.losses import change_loss
from pipelines.change.networks import NamedIndex, Recipe
from pipelines.change.windows import WindowSettings
from pipelines.learning.training import TrainingSettings

ALONE = "alone"  # a network without the index
WINDOWS = {"window_px", "windows", "changed_share", "augment", "reverse_time"}  # keys of `training` about windows

# ---------------------------------------------------------------- detectors


def build_methods(run: ChangeRun) -> dict[str, list[dict[str, Recipe]]]:
    """name of a model -> for each seed the recipes of its variants, by name; the published one first.

    A variant is the model as it is and, where it is fused with an index, with the same networks alone.
    """
    seeds = range(run.training.seed, run.training.seed + run.evaluation.seeds)
    return {
        name: [variants_of(name, build_recipe(run, model, seed)) for seed in seeds] for name, model in name_models(run).items()
    }


def name_models(run: ChangeRun) -> dict[str, ChangeModel]:
    """A name for each different model, the published one first: its kind, with a number where a kind comes twice."""
    named: dict[str, ChangeModel] = {}
    for model in (run.model, *run.evaluation.compare):
        if any(model.model_dump() == other.model_dump() for other in named.values()):
            continue
        count = sum(other.kind == model.kind for other in named.values())
        named[model.kind if not count else f"{model.kind}-{count + 1}"] = model
    return named


def variants_of(name: str, recipe: Recipe) -> dict[str, Recipe]:
    if recipe.fused is None:
        return {name: recipe}
    return {name: recipe, f"{name} {ALONE}": replace(recipe, build_detector=partial(build_detector, "none"), fused=None)}


def build_recipe(run: ChangeRun, model: ChangeModel, seed: int) -> Recipe:
    """How detectors of `model` are trained, from `seed` on."""
    training, described = run.training, model.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]
    return Recipe(
        name=f"{model.kind}-{digest}",
        seed=seed,
        described={
            "model": {key: value for key, value in described.items() if key != "fuse_with"},
            "training": training.model_dump(mode="json", exclude={"seed"}),
        },
        build_learner=partial(build_learner, model),
        build_detector=partial(build_detector, model.fuse_with),
        loss=change_loss(training.loss),
        training=partial(build_training_settings, training),
        windows=WindowSettings(**training.model_dump(include=WINDOWS)),
        log_score=log_score,
        fused=build_fused_index(model.fuse_with),
    )


def build_training_settings(training: ChangeTraining, seed: int) -> TrainingSettings:
    return TrainingSettings(**training.model_dump(exclude=WINDOWS | {"loss", "seed", "start_from"}), seed=seed)


def build_learner(model: ChangeModel, bands: int, seed: int) -> ChangeDetector:
    """A detector of one untrained network, as the trainer wants it; it starts from `seed` alone."""
    network = build_network(
        model.kind, bands=bands, widths=model.widths, recurrence=model.recurrence, dropout=model.dropout, seed=seed
    )
    return ChangeDetector([network], fuse_with="none")


def build_detector(fuse_with: str, networks: Sequence[nn.Module]) -> ChangeDetector:
    return ChangeDetector(cast(Sequence[ChangeNetwork], networks), fuse_with=fuse_with)


# ---------------------------------------------------------------- change indices


def build_indices(run: ChangeRun) -> list[NamedIndex]:
    """The indices of the evaluation."""
    return [build_named_index(name) for name in dict.fromkeys([*run.evaluation.references, *run.evaluation.must_beat])]


def build_fused_index(fuse_with: str) -> NamedIndex | None:
    """The index that networks are fused with, of a config or of a trained detector; None for "none"."""
    return build_named_index("change_vector") if fuse_with == "change_vector" else None


def build_named_index(name: ChangeIndexName) -> NamedIndex:
    threshold_of = partial(automatic_threshold, name)
    return NamedIndex(name, build_change_index(name), threshold_of, is_comparable=name == "change_vector")
