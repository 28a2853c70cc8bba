"""The run that `driftline.train` carries out: the config that a YAML would hold, with what can be computed from the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from configs.tasks.forecast_baselines import DEFAULT_BASELINES
from pipelines.errors import RequestError

if TYPE_CHECKING:
    from pipelines.sources.memory import MemorySource

HELD_OUT = 0.2  # of the dates, for validation and again for test
BLOCKS_PER_AXIS = 4
SMALLEST_BLOCK_PX, LARGEST_BLOCK_PX = 8, 64
SEASONS_DAYS = 2 * 365  # of training dates, from which a seasonal baseline is learnt
BASELINES = DEFAULT_BASELINES
Variables = str | Mapping[str, object] | Sequence[str | Mapping[str, object]]


def variable_configs(variable: Variables | None, there: Sequence[str]) -> list[dict[str, object]]:
    """What is forecast, as `samples.variables` of a config. Raises RequestError where it is not clear.

    >>> variable_configs(None, ["ndvi"])
    [{'name': 'ndvi', 'bands': ['ndvi']}]
    """
    if variable is None:
        if len(there) != 1:
            raise RequestError(f"variable: which of {', '.join(there) or 'no bands'} is to be forecast? variable={[*there][:1]}")
        variable = there[0]
    listed = [variable] if isinstance(variable, str | Mapping) else variable
    return [{"name": one, "bands": [one]} if isinstance(one, str) else dict(one) for one in listed]


def bands_used(variables: Sequence[Mapping[str, object]]) -> list[str]:
    """The bands of the variables, each once. Raises RequestError for a variable without any."""
    found: list[str] = []
    for one in variables:
        bands = one.get("bands")
        if not isinstance(bands, list | tuple) or not bands:
            example = '{"name": "ndvi", "formula": "normalized_difference", "bands": ["B8", "B4"]}'
            raise RequestError(f"variable {one.get('name', '')!r} names no bands; for example {example}")
        found += map(str, bands)
    return list(dict.fromkeys(found))


def check_lengths(**lengths: object) -> None:
    """Raises RequestError for what is not a whole number above 0."""
    for name, value in lengths.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise RequestError(f"{name} is {value!r}; expected a whole number from 1 on")


def make_config(
    source: MemorySource,
    variables: list[dict[str, object]],
    *,
    context: int,
    horizon: int,
    epochs: int,
    baselines: Sequence[str],
    name: str,
    runs: str,
) -> dict[str, object]:
    """The config of a forecast of `source`: the last fifth of the dates for test, the one before it for validation.

    Without two years to learn the seasons from, the network corrects persistence. Raises RequestError for too few dates.
    """
    times, size = source.usable_times(), min(source.images.sizes["y"], source.images.sizes["x"])
    validation_from, test_from = split_dates(times, context, horizon)
    has_seasons = (validation_from - _as_datetime(times[0])).days >= SEASONS_DAYS
    corrected = "decaying_anomaly" if has_seasons else "persistence"
    block_px = int(np.clip(round(size / BLOCKS_PER_AXIS), SMALLEST_BLOCK_PX, LARGEST_BLOCK_PX))
    bands = [{key: value for key, value in asdict(band).items() if value is not None} for band in source.bands]
    return {
        "name": name,
        "task": "forecast",
        "source": {"kind": "memory", "bands": bands},
        "runs": runs,
        "samples": {"variables": variables, "context": context, "horizon": horizon},
        "split": {
            "block_px": block_px,
            "buffer_px": 2 if block_px >= 16 else 1,
            "validation_from": validation_from,
            "test_from": test_from,
        },
        "model": {"baseline": corrected},
        "training": {"epochs": epochs},
        "evaluation": {"baselines": [*baselines]},
    }


def split_dates(times: np.ndarray, context: int, horizon: int) -> tuple[datetime, datetime]:
    """(first target date of validation, first target date of test). Raises RequestError for too few dates.

    >>> split_dates(np.array(["2020-01-01"], "datetime64[ns]") + np.arange(20) * np.timedelta64(1, "D"), 4, 2)
    (datetime.datetime(2020, 1, 13, 0, 0), datetime.datetime(2020, 1, 17, 0, 0))
    """
    needed = context + 3 * horizon
    if context < 1 or horizon < 1 or len(times) < needed:
        raise RequestError(
            f"{len(times)} dates with data are too few for context {context} and horizon {horizon}: at least "
            f"context + 3 x horizon = {needed} are needed, to train, to validate and to test; shorten them, or add dates"
        )
    held = max(horizon, min(round(HELD_OUT * len(times)), (len(times) - context - horizon) // 2))
    return _as_datetime(times[-2 * held]), _as_datetime(times[-held])


def merged(config: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """`config` with the values of `settings` in place of its own; sections are merged.

    >>> merged({"training": {"epochs": 2, "batch": 16}}, {"training": {"batch": 8}})
    {'training': {'epochs': 2, 'batch': 8}}
    """
    whole = dict(config)
    for key, value in settings.items():
        own = whole.get(key)
        whole[key] = merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return whole


def _as_datetime(date: np.datetime64) -> datetime:
    """To the microsecond, so that a split date is never after the date that it is."""
    value = date.astype("datetime64[us]").item()
    assert isinstance(value, datetime), "datetime64[us] is a datetime"
    return value
