"""The space of a search, checked against the schema of the run that it searches for, and the run of a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.load import load_run, log, read_document
from configs.networks import AUTO
from configs.sweep import SweepConfig, SweepRange
from configs.tasks import AnyRun
from configs.trained import used_by
from configs.yaml_positions import Document
from pipelines.errors import ConfigError, Mistake, RequestError
from pipelines.learning.sweep_study import Domain
from pipelines.learning.validation_figures import Figure

SCALES_THE_LOSS = {  # keys on which the validation loss, or the windows that it is measured on, depend
    *(
        f"training.{name}"
        for name in ("loss", "class_weights", "label_smoothing", "centre_dates", "draw", "window_px", "windows")
    ),
    "model.per_step",
}
EXAMPLE = "sweep: {space: {training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}}"


def sweep_of(run: AnyRun) -> SweepConfig:
    """The run's section. Raises RequestError where it has none, or trains nothing."""
    if "sweep" not in type(run).model_fields:
        raise RequestError(f"`driftline sweep` is not for runs with `task: {run.task}`, which has no settings to search for")
    settings: SweepConfig | None = getattr(run, "sweep", None)
    if settings is None:
        raise RequestError(f"the config of {run.name} does not say what to try; add a section, for example\n  {EXAMPLE}")
    if used_by(run) is not None:
        raise RequestError("model.use: a model that was trained before is used as it is; take it out to search for a better one")
    if getattr(getattr(run, "model", None), "kind", None) == AUTO:
        raise RequestError("model: auto chooses the network by itself; state a model.kind to search for its settings")
    return settings


def read_space(
    config: str | Path | Mapping[str, object], overrides: Sequence[str], run: AnyRun
) -> tuple[dict[str, Any], tuple[Domain, ...]]:
    """(the config's content, which `trial_run` changes, what is tried). Raises ConfigError with every mistake of the space."""
    document = read_document(config, overrides, notify=log.debug)
    settings, content = sweep_of(run), {name: value for name, value in document.data.items() if name != "sweep"}
    mistakes: list[Mistake] = []
    domains = [_domain_of(content, document, key, domain, mistakes) for key, domain in settings.space.items()]
    if mistakes:
        raise ConfigError(mistakes)
    return content, tuple(domains)


def trial_run(content: Mapping[str, Any], values: Mapping[str, Any]) -> AnyRun:
    """The run with these values, by key. Raises ConfigError, RequestError."""
    overrides = [f"{key}={as_yaml(value)}" for key, value in values.items()]
    return load_run(content, overrides, inputs_must_exist=False, notify=log.debug)


def as_yaml(value: Any) -> str:
    """On one line, as `--set` takes it.

    >>> as_yaml([8, 16]), as_yaml(1e-5)
    ('[8, 16]', '1.0e-05')
    """
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _domain_of(
    content: Mapping[str, Any], document: Document, key: str, domain: SweepRange | list[Any], mistakes: list[Mistake]
) -> Domain:
    """What is tried of a key; what the schema refuses of it is added to `mistakes`."""
    if isinstance(domain, list):
        for number, choice in enumerate(domain):
            _, found = _read(content, document, key, choice, number)
            mistakes += found
        return Domain(key, choices=tuple(domain))
    low, found = _read(content, document, key, _number(domain.low), "low")
    if not found:
        kind = type(low) if isinstance(low, int | float) and not isinstance(low, bool) else None
        mistakes += [_mistake(document, key, "low", text) for text in _misfits(domain, kind)]
        _, found = _read(content, document, key, _number(domain.high), "high")
    mistakes += found
    return Domain(key, (), domain.low, domain.high, domain.log, domain.step, is_whole=type(low) is int)


def _misfits(domain: SweepRange, kind: type | None) -> Iterator[str]:
    if kind is None:
        yield "a range is for numbers, and this is none; give a list of choices"
    if kind is int and not all(float(one).is_integer() for one in (domain.low, domain.high, domain.step or 1)):
        yield "expected whole numbers as low, high and step"


def _number(value: float) -> int | float:
    """Whole where it can be: a key that takes real numbers takes these too."""
    return int(value) if float(value).is_integer() else value


def _read(content: Mapping[str, Any], document: Document, key: str, value: Any, entry: str | int) -> tuple[Any, list[Mistake]]:
    """(the value as the run has it, what the schema refuses)."""
    try:
        found: Any = trial_run(content, {key: value}).model_dump(mode="json")
    except ConfigError as e:
        first = e.mistakes[0]
        where = "" if first.key == key else f"{first.key}: "
        return None, [_mistake(document, key, entry, f"{where}{first.problem}", first.remedy)]
    except RequestError as e:
        return None, [_mistake(document, key, entry, str(e))]
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found, []


def _mistake(document: Document, key: str, entry: str | int, problem: str, remedy: str = "") -> Mistake:
    place = document.position_of_value(("sweep", "space", key, entry))
    return Mistake(place, f"sweep.space.{key}.{entry}", problem, remedy)


# ---------------------------------------------------------------- by what trials are compared


def figure_of(settings: SweepConfig, figures: Sequence[Figure]) -> Figure:
    """The figure to choose by. Raises RequestError for one that the task does not have, or that trials change the scale of."""
    known = {figure.name: figure for figure in figures}
    figure = known.get(settings.metric or figures[0].name)
    if figure is None:
        raise RequestError(
            f"sweep.metric: {settings.metric!r} is not measured on the validation part; expected {' or '.join(known)}"
        )
    changed = scaling_keys(settings)
    if figure.is_of_the_loss and changed:
        others = [name for name, one in known.items() if not one.is_of_the_loss]
        raise RequestError(
            f"sweep.metric: losses of different {', '.join(changed)} cannot be compared; choose by {' or '.join(others)}, or "
            "take that out of sweep.space"
        )
    return figure


def scaling_keys(settings: SweepConfig) -> list[str]:
    """Keys of the space on which the scale of the validation loss depends."""
    return [key for key in settings.space if key in SCALES_THE_LOSS]


def pruned_by(settings: SweepConfig, figure: Figure) -> str:
    """The column of the curve by which trials are pruned; "" where none is asked for, or none can be compared."""
    is_comparable = figure.per_epoch == figure.name or not scaling_keys(settings)
    return figure.per_epoch if settings.pruner != "none" and is_comparable else ""
