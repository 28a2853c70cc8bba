"""Config of labelled change -> objects. With `configs.build` the only site where pipelines and models meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import build
from configs.tasks.change import ChangeIndexName, ChangeModel, ChangeRun

# ---------------------------------------------------------------- sites and labels


def build_sites(run: ChangeRun) -> dict[str, Any]:
    """A source of scenes for each site, by name, sorted. Raises MissingInput, RequestError (none, an unknown one)."""
    from pipelines.errors import RequestError
    from pipelines.sources.layers import BandRequest
    from pipelines.sources.sites import SiteSource, list_sites

    source = run.source
    found = list_sites(Path(source.path), source.pattern)
    names = source.sites if source.sites is not None else found
    if unknown := [name for name in names if name not in found]:
        raise RequestError(
            f"source.sites names {', '.join(unknown)}, which the pattern {source.pattern!r} does not find below {source.path}; "
            f"it finds {', '.join(found)}"
        )
    requested = BandRequest(
        bands=build.build_bands(source),
        in_file=build.name_files(source),
        quality=run.quality.band if run.quality else None,
        read_as=source.read_as,
        crs=source.crs,
        transform=source.transform,
    )
    return {
        name: SiteSource(Path(source.path), requested, source.pattern, name, source.dates, run.cube.same_date)
        for name in sorted(set(names))  # the order in which a config names them decides nothing
    }


def build_label(run: ChangeRun, site: str, source: Any, grid: Any) -> Any:
    """The `Label` of a site on `grid` (its cube's). Raises MissingInput (no file) and RequestError (does not match)."""
    from pipelines.change.labels import read_label

    labels = run.labels
    return read_label(
        label_file(run, site),
        grid,
        changed=tuple(labels.changed),
        unchanged=tuple(labels.unchanged),
        band=labels.band,
        grid_of=None if labels.grid_of == "own" else grid_of_scene(source, labels.grid_of),
    )


def label_file(run: ChangeRun, site: str) -> Path:
    """Where the label of a site lies. Raises MissingInput, RequestError (labels.path is wrong)."""
    from pipelines.sources.sites import site_file

    return site_file(Path(run.source.path), run.labels.path, site, "labels.path")


def grid_of_scene(source: Any, which: str) -> Any:
    """Where the pixels of the first or last scene of a site lie."""
    scenes = source.list_scenes().scenes
    scene = scenes[0 if which == "first" else -1]
    return source.grid_of((scene.parts or (scene,))[0], source.bands[0].name)


def build_pair_settings(run: ChangeRun) -> Any:
    from pipelines.change.pairs import PairSettings

    return PairSettings(run.pairs.normalise, run.pairs.coregister, run.pairs.max_shift_px)


# ---------------------------------------------------------------- models, training


def build_training_settings(run: ChangeRun, seed: int) -> Any:
    from pipelines.learning.training import TrainingSettings

    chosen = run.training
    names = ("epochs", "batch", "learning_rate", "weight_decay", "clip", "patience", "precision", "accelerator", "devices")
    return TrainingSettings(**{name: getattr(chosen, name) for name in names}, seed=seed)


def build_learner(model: ChangeModel, bands: int, seed: int) -> Any:
    """A detector of one untrained network, as the trainer wants it; it starts from `seed` alone."""
    from models.change_detector import ChangeDetector
    from models.change_networks import build_network

    network = build_network(
        model.kind, bands=bands, widths=model.widths, recurrence=model.recurrence, dropout=model.dropout, seed=seed
    )
    return ChangeDetector([network], fuse_with="none")


def build_detector(model: ChangeModel, networks: Sequence[Any]) -> Any:
    from models.change_detector import ChangeDetector

    return ChangeDetector(networks, fuse_with=model.fuse_with)


def log_score() -> Any:
    """log_score(score) -> what the detector's rule is calibrated on."""
    from models.change_detector import log_score as of_detector

    return of_detector


def build_change_loss(run: ChangeRun) -> Any:
    """loss(logit_BKCHW, target_BKCHW, valid_BK1HW)."""
    from models.change_losses import change_loss

    return change_loss(run.training.loss)


# ---------------------------------------------------------------- rules


def build_change_index(name: ChangeIndexName) -> Any:
    """A rule that answers `score(x_TCHW, valid_THW) -> score_HW`."""
    from models.baselines.change_vector import ChangeVector, PlainChangeVector
    from models.baselines.image_difference import ImageDifference
    from models.baselines.ir_mad import IrMad

    match name:
        case "image_difference":
            return ImageDifference()
        case "change_vector":
            return ChangeVector()
        case "change_vector_plain":
            return PlainChangeVector()
        case "ir_mad":
            return IrMad()


def automatic_threshold(name: ChangeIndexName, score_HW: np.ndarray, bands: int) -> tuple[str, float]:
    """(its name, the threshold) that the rule's own literature sets without any label: chi square for IR-MAD, else Otsu."""
    import torch

    from models.baselines.image_difference import otsu_threshold
    from models.baselines.ir_mad import chi_square_threshold

    if name == "ir_mad":
        return "chi square, 1 %", chi_square_threshold(bands)
    return "Otsu", otsu_threshold(torch.from_numpy(np.array(score_HW)))
