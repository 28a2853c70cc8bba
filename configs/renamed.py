"""Keys of earlier versions, read for one more version under their new names; each use logs a note."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.yaml_positions import Document, Key, dotted, parent_of
from pipelines.errors import Mistake

Notify = Callable[[str], None]  # shows a note to the user


@dataclass(frozen=True)
class Renamed:
    """A key of earlier versions. `new`: its dotted name now, None if it was removed. `reason` ends the note.

    `*` stands for the index of a list entry; `new` has as many of them, and moves within the same entry. `tasks`: the tasks
    that had the key. `values`: old value -> new value, if the values were renamed too. `text`: (old, new) within a value.
    """

    new: str | None
    reason: str = ""
    tasks: tuple[str, ...] = ("forecast", "monitor", "change")
    values: Mapping[str, str] | None = None
    text: tuple[str, str] | None = None


FORECAST, MONITOR, CHANGE = ("forecast",), ("monitor",), ("change",)
RENAMED: dict[str, Renamed] = {
    "evaluation.bootstrap": Renamed(None, "intervals are calculated (Student's t), nothing is drawn at random", FORECAST),
    "evaluation.must_beat": Renamed(
        None, "the best forecast is published; `evaluation.publish: network` always takes the network", FORECAST
    ),
    "evaluation.publish_if": Renamed(
        "evaluation.publish", tasks=FORECAST, values={"smaller_error": "best", "beyond_doubt": "beyond_doubt"}
    ),
    "prediction.workers": Renamed("compute.workers", tasks=FORECAST),
    "cube.dask": Renamed(
        "compute.address",
        "tiles of forecasts and monitoring are computed there, too",
        tasks=(*FORECAST, *MONITOR, *CHANGE, "segment", "classify", "regress", "detect", "describe"),
    ),
    "model.guide": Renamed("model.baseline", tasks=FORECAST),
    "monitoring.expectation": Renamed("monitoring.model", tasks=MONITOR),
    "source.kind": Renamed("source.kind", tasks=CHANGE, values={"places": "sites"}),
    "source.places": Renamed("source.sites", tasks=CHANGE),
    "labels.placed_on": Renamed("labels.grid_of", tasks=CHANGE),
    "training.swap_dates": Renamed("training.reverse_time", tasks=CHANGE),
    "prediction.places": Renamed("prediction.sites", tasks=CHANGE),
    "source.pattern": Renamed("source.pattern", tasks=CHANGE, text=("{place}", "{site}")),
    "source.dates": Renamed("source.dates", tasks=CHANGE, text=("{place}", "{site}")),
    "labels.path": Renamed("labels.path", tasks=CHANGE, text=("{place}", "{site}")),
}


def apply_renamed(document: Document, notify: Notify, table: Mapping[str, Renamed] = RENAMED) -> None:
    """Moves the old keys in `document` to their new names and removes retired ones; notifies the user of each.

    If both names are set, one given with `--set` wins; else it is a mistake of the document.

    >>> document = Document("run.yaml", {"evaluation": {"bootstrap": 100}})
    >>> apply_renamed(document, print)
    run.yaml:1: evaluation.bootstrap no longer has an effect: intervals are calculated (Student's t), nothing is drawn at random
    >>> document.data
    {'evaluation': {}}
    """
    task = document.data.get("task", "forecast")
    for old, renamed in table.items():
        if task not in renamed.tasks:
            continue
        for key in list(_written(document.data, tuple(old.split(".")))):
            _apply(document, key, renamed, notify)


def _written(data: object, pattern: tuple[str, ...], above: Key = ()) -> Iterator[Key]:
    """Every key in `data` that matches the pattern."""
    if not pattern:
        yield above
    elif pattern[0] == "*" and isinstance(data, list):
        for number, entry in enumerate(data):
            yield from _written(entry, pattern[1:], (*above, number))
    elif isinstance(data, dict) and pattern[0] in data:
        yield from _written(data[pattern[0]], pattern[1:], (*above, pattern[0]))


def _apply(document: Document, key: Key, renamed: Renamed, notify: Notify) -> None:
    position, because = document.position_of_key(key), f": {renamed.reason}" if renamed.reason else ""
    value = parent_of(document.data, key).pop(key[-1])
    if renamed.new is None:
        notify(f"{position}: {dotted(key)} no longer has an effect{because}")
        return
    indices = iter([part for part in key if isinstance(part, int)])  # as many as stars
    new: Key = tuple(next(indices) if part == "*" else part for part in renamed.new.split("."))
    if renamed.values and isinstance(value, str) and value in renamed.values:
        notify(f"{position}: `{dotted(key)}: {value}` is now called `{dotted(new)}: {renamed.values[value]}`{because}")
        value = renamed.values[value]
    elif renamed.text and isinstance(value, str) and renamed.text[0] in value:
        notify(f"{position}: {dotted(key)}: write {renamed.text[1]} for {renamed.text[0]}{because}")
        value = value.replace(*renamed.text)
    elif new != key:
        notify(f"{position}: {dotted(key)} is now called {dotted(new)}{because}")
    _put(document, key, new, value)


def _put(document: Document, old: Key, new: Key, value: object) -> None:
    """Puts `value` of `old` at `new`; merges it with existing mappings."""
    node: Any = document.data
    for part in new[:-1]:
        is_entry = isinstance(node, list) and isinstance(part, int) and part < len(node)
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part] if is_entry else None
    if not isinstance(node, dict):  # the schema reports it
        return
    there = node.get(new[-1])
    if isinstance(there, dict) and isinstance(value, dict):
        for name, below in value.items():
            _put(document, (*old, name), (*new, name), below)
        return
    if new[-1] in node and not _wins(document, old, new):
        return
    node[new[-1]] = value
    for positions in (document.key_positions, document.value_positions):  # so that messages name the line in the file
        for key in [key for key in positions if key[: len(old)] == old]:
            positions[(*new, *key[len(old) :])] = positions.pop(key)


def _wins(document: Document, old: Key, new: Key) -> bool:
    """True if the value of the old name is used although the new one is set too."""
    at_old, at_new = document.position_of_value(old), document.position_of_value(new)
    if not at_old.startswith("--set") and not at_new.startswith("--set"):
        remedy = f"{dotted(new)} is at {at_new}; keep that one"
        document.mistakes.append(Mistake(at_old, dotted(old), f"is the old name of {dotted(new)}, which is set too", remedy))
    return at_old.startswith("--set")
