"""Config of labelled change -> objects. With `configs.build` the only place where pipelines and models meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs import build
from configs.change import ChangeRun

# ---------------------------------------------------------------- places and labels


def build_places(run: ChangeRun) -> dict[str, Any]:
    """A source of scenes for each place, by name. Raises MissingInput, RequestError (no place, an unknown one)."""
    from pipelines.errors import RequestError
    from pipelines.sources.layers import Wanted
    from pipelines.sources.places import PlaceSource, list_places

    source = run.source
    found = list_places(Path(source.path), source.pattern)
    names = source.places if source.places is not None else found
    if unknown := [name for name in names if name not in found]:
        raise RequestError(
            f"source.places names {', '.join(unknown)}, which the pattern {source.pattern!r} does not find below {source.path}; "
            f"it finds {', '.join(found)}"
        )
    wanted = Wanted(
        bands=build.build_bands(source),
        in_file=build.name_files(source),
        quality=run.quality.band if run.quality else None,
        read_as=source.read_as,
        crs=source.crs,
        transform=source.transform,
    )
    return {
        name: PlaceSource(Path(source.path), wanted, source.pattern, name, source.dates, run.cube.same_date)
        for name in dict.fromkeys(names)
    }


def build_label(run: ChangeRun, place: str, source: Any, grid: Any) -> Any:
    """The `Label` of a place on `grid` (its cube's). Raises MissingInput (no file) and RequestError (does not match)."""
    from pipelines.samples.labels import read_label
    from pipelines.sources.places import place_file

    labels = run.labels
    path = place_file(Path(run.source.path), labels.path, place, "labels.path")
    return read_label(
        path,
        grid,
        changed=tuple(labels.changed),
        unchanged=tuple(labels.unchanged),
        band=labels.band,
        placed_on=None if labels.placed_on == "own" else grid_of_scene(source, labels.placed_on),
    )


def grid_of_scene(source: Any, which: str) -> Any:
    """Where the pixels of the first or last scene of a place lie."""
    scenes = source.list_scenes().scenes
    scene = scenes[0 if which == "first" else -1]
    return source.grid_of((scene.parts or (scene,))[0], source.bands[0].name)


def build_pair_settings(run: ChangeRun) -> Any:
    from pipelines.samples.pairs import PairSettings

    return PairSettings(run.pairs.normalise, run.pairs.coregister, run.pairs.max_shift_px)


# ---------------------------------------------------------------- models, training


def build_training_settings(run: ChangeRun, seed: int) -> Any:
    from pipelines.learning.training import TrainingSettings

    chosen = run.training
    names = ("epochs", "batch", "learning_rate", "weight_decay", "clip", "patience", "precision", "accelerator", "devices")
    return TrainingSettings(**{name: getattr(chosen, name) for name in names}, seed=seed)
