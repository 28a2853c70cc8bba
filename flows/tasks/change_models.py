"""Models of labelled change: saved, used on sites that they were not trained on, begun from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from configs.tasks.change import ChangeRun
from configs.trained import digests, find_model, used_by
from flows.folder import require
from flows.task import Invocation, TrainedTask
from flows.trained import describe, start
from pipelines.learning.result import NoTruth

if TYPE_CHECKING:
    from flows.begun import Begun
    from models.contract import Ensemble
    from pipelines.change.evaluation import MethodScores
    from pipelines.change.networks import Recipe
    from pipelines.change.site_scores import SiteScores
    from pipelines.change.sites import Sites
    from pipelines.learning.shortcuts import Audit
    from pipelines.predictors import ChangeDetector
    from pipelines.progress import Progress


def bands_seen(run: ChangeRun) -> list[str]:
    """The bands that networks see, in their order: those of the source, or of the model that was trained before."""
    chosen = used_by(run)
    return [band.name for band in run.source.bands] if chosen is None or chosen.use is None else find_model(chosen.use).bands


def begun_from(task: TrainedTask, context: Invocation, recipe: Recipe) -> tuple[Begun | None, Recipe]:
    """(what is begun from where it is of another task, the recipe of networks that begin from the weights of a trained model, a
    member of it each)."""
    from flows.begun import Begun, is_of_another_task

    begun = Begun.of(context) if is_of_another_task(context) else None

    def build_learner(bands: int, seed: int) -> ChangeDetector:
        learner = recipe.build_learner(bands, seed)
        if begun is None:
            start(task, context, cast("Ensemble", learner), seed)
        else:
            begun.copy_into(cast("Ensemble", learner), seed)
        return learner

    described = {**recipe.described, "start_from": digests(context.run)["start_from"]}
    return begun, replace(recipe, build_learner=build_learner, described=described)


def begun_without_labels(
    task: TrainedTask, context: Invocation, methods: dict[str, list[dict[str, Recipe]]]
) -> dict[str, list[dict[str, Recipe]]]:
    """What is evaluated, the model's networks begun from where those that are published are: from one that saw no labels.

    Networks that begin from one that has learnt from labels are evaluated from random weights: it may have seen those of the
    sites left out.
    """
    path = context.run.training.start_from
    if path is None or find_model(path).task != "pretrain":
        return methods
    own = next(iter(methods))
    begun = [{name: begun_from(task, context, recipe)[1] for name, recipe in variants.items()} for variants in methods[own]]
    return {**methods, own: begun}


def score_as_it_is(context: Invocation, scores: SiteScores) -> dict[str, list[MethodScores]]:
    """The model that was trained elsewhere on every labelled site, with its own threshold. Raises NoTruth without labels."""
    from configs.tasks.change_detectors import build_fused_index
    from models.checkpoint import DETECTOR
    from pipelines.change.method_comparison import evaluate_trained

    if not scores.sites.labelled:
        raise NoTruth("no site has a label")
    do, folder = partial(context.steps.do, "evaluate"), context.folder
    detector, _ = do("load the model", lambda progress: DETECTOR.load(folder.model))
    fused, model_hash = build_fused_index(detector.fuse_with), require(folder, "train")["model_hash"]
    work = partial(evaluate_trained, scores, detector, model_hash, fused)
    return {context.run.model.kind: [do("evaluate the model as it is", work)]}


def audit_of(run: ChangeRun, sites: Sites, method: MethodScores, _progress: Progress) -> Audit:
    """Whether metadata alone give the labels away as well as the method does."""
    from models.baselines.class_references import MetadataForest
    from pipelines.change.shortcut_audit import audit_change

    near, confidence, seed = run.evaluation.near, run.evaluation.confidence, run.training.seed
    build = partial(MetadataForest, 2, seed)
    return audit_change(sites, method.audited, method.said, build, near=near, confidence=confidence)


def save(task: TrainedTask, context: Invocation, sites: Sites, detector: ChangeDetector, snapshot: str) -> str:
    """The hash of the saved model."""
    from models.change_detector import ChangeDetector as Saved
    from models.checkpoint import DETECTOR

    assert isinstance(detector, Saved)
    metadata = {
        **describe(task, context, snapshot),
        "pairs": context.run.pairs.model_dump(mode="json"),
        "left_out": sites.grouping.describe(),
    }
    return DETECTOR.save(detector, context.folder.model, metadata)


def pixel_areas(sites: Sites) -> dict[str, float]:
    """labelled site -> area of its central pixel, m²."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.tracking.objects import Space

    grids = {name: grid_of(open_cube(sites.files[name].cube_uri, sites.files[name].snapshot)) for name in sites.labelled}
    return {name: Space.of_grid(grid).central_pixel for name, grid in grids.items()}
