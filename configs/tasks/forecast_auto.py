"""What the word `auto` in the config of a forecast stands for: blocks that fit the raster, candidates, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from configs.networks import AUTO, AutoModel, ConvLSTMModel, Model, ModelOrAuto, halo_px
from configs.tasks.forecast import ForecastRun
from pipelines.tiles import block_sizes

if TYPE_CHECKING:
    from pipelines.learning.model_choice import Candidate, Space

USUAL_CONTEXT = 10  # steps, where the context is not known yet
SIMPLEST_BASELINES = ("persistence", "climatology", "decaying_anomaly", "none")  # the simpler one first
CHEAPEST_SIZES = (((16,), 1), ((8,), 3), ((16,), 3), ((16, 16), 3), ((32,), 3))  # (hidden, kernel), the fewest operations first
WITHOUT_SEASONS = ("persistence", "moving_field")
HISTORY = {"history": (64, 64)}
CONTEXTS = (3, 6, 12)
LONG_CONTEXT, MOST_CONTEXT = 24, 36  # steps; in place of the first a whole year, where that is not longer than the second
YEAR_DAYS = 365.25
ASKED = ("samples", "split", "model", "training")  # sections that a choice depends on, without what it is made without:
NOT_ASKED = {
    "split": {"test_from"},
    "model": {"members"},
    "training": {"epochs", "patience", "batch", "learning_rate", "refit", "accelerator", "devices"},
}


def is_auto(run: ForecastRun) -> bool:
    """Whether the network is to be chosen."""
    return isinstance(run.model, AutoModel)


def usual_model(run: ForecastRun) -> Model:
    """The network, or where it is to be chosen a usual one, for what must be known before."""
    return ConvLSTMModel(members=run.model.members) if isinstance(run.model, AutoModel) else run.model


def usual_context(run: ForecastRun) -> int:
    return run.samples.context if isinstance(run.samples.context, int) else USUAL_CONTEXT


def has_open_split(run: ForecastRun) -> bool:
    return AUTO in (run.split.block_px, run.split.buffer_px)


def with_split(run: ForecastRun, shape: Sequence[int]) -> ForecastRun:
    """The run with the sizes of blocks and buffer that its config leaves open, for a raster of `shape`.

    They do not depend on what is chosen: the choice is made within the training blocks.
    """
    halo = halo_px(usual_model(run), usual_context(run) + run.samples.horizon)
    split = run.split
    block_px, buffer_px = block_sizes(
        shape, max(shape) if halo is None else halo, split.block_px if isinstance(split.block_px, int) else None
    )
    sizes = {"block_px": block_px, "buffer_px": split.buffer_px if isinstance(split.buffer_px, int) else buffer_px}
    return run.model_copy(update={"split": split.model_copy(update=sizes)})


def asked(run: ForecastRun) -> dict[str, Any]:
    """What a choice depends on of the config, JSON values; of the run before the choice."""
    content = run.model_dump(mode="json", exclude=NOT_ASKED)
    given = {} if run.covariates.is_empty else {"covariates": "without moving_field"}
    return {**{section: content[section] for section in ASKED}, **given}


# ---------------------------------------------------------------- candidates


def build_space(run: ForecastRun, contexts: Sequence[int], known_days: float) -> Space:
    """What is searched: `contexts` are those that the training part has room for, `known_days` what the first origin learns."""
    from pipelines.learning.model_choice import Space

    # within a year nothing but the last value, or its motion, holds for the seasons to come, a level that was learnt least of all
    has_seasons = known_days > YEAR_DAYS
    names, own_sizes = (SIMPLEST_BASELINES, HISTORY) if has_seasons else (WITHOUT_SEASONS, {})
    # covariates stay in place, where the field moves
    baselines = tuple(name for name in names if name != "moving_field" or run.covariates.is_empty)
    return Space(baselines, tuple(contexts), CHEAPEST_SIZES, ("convlstm", "convgru"), own_sizes)


def wished_contexts(run: ForecastRun, step_days: float | None = None) -> list[int]:
    """Contexts to try, ascending; the one that the config states, if it does. step_days: the interval of the dates, if known."""
    if isinstance(run.samples.context, int):
        return [run.samples.context]
    year = round(YEAR_DAYS / step_days) if step_days else 0
    return [*CONTEXTS, year if CONTEXTS[-1] < year <= MOST_CONTEXT else LONG_CONTEXT]


def with_candidate(run: ForecastRun, candidate: Candidate) -> ForecastRun:
    """The run as if `candidate` were stated, a single network."""
    values: dict[str, Any] = {"kind": candidate.kind, "hidden": list(candidate.hidden), "baseline": candidate.baseline}
    values |= {} if candidate.kind in HISTORY else {"kernel": candidate.kernel}
    return with_choice(run, {"model": values, "context": candidate.context})


def with_choice(run: ForecastRun, chosen: Mapping[str, Any]) -> ForecastRun:
    """The run with what was chosen (`model`: values of the section, `context`) stated."""
    model: ModelOrAuto = TypeAdapter(ModelOrAuto).validate_python(chosen["model"])
    samples = run.samples.model_copy(update={"context": chosen["context"]})
    return run.model_copy(update={"model": model, "samples": samples})
