"""What the record of a monitoring run says in words: what was computed, and what was not as it should be."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import DAMAGED, HARMLESS
from pipelines.learning.result import Criterion
from pipelines.monitoring.alerts import Updates
from pipelines.monitoring.areas import MonitoredCube
from pipelines.monitoring.blocks import Counts
from pipelines.monitoring.context import MonitorContext
from pipelines.monitoring.detector import NOT_MONITORED
from pipelines.monitoring.layers import Layers
from pipelines.wording import counted, share_text

DAY_NS = 86_400 * 10**9
MOSTLY = 0.5  # of the raster with enough history: a note says where it is less
UNTRUSTED = 10.0  # times the false alarms that were requested


@dataclass(frozen=True)
class Monitored:
    """What was monitored: first and last day (ISO 8601), the share of the pixels, and the usable dates that one must have."""

    name: str
    variable: str
    start: str
    until: str
    share: float
    min_history: int


def counts_of(counts: Counts) -> dict[str, int]:
    """The counts as JSON values."""
    return {name: value for name, value in vars(counts).items() if isinstance(value, int)}


def change_of(updates: Updates) -> dict[str, int]:
    """How many pixels and patches have changed, and how many of them since the last run."""
    return {name: getattr(updates, name) for name in ("pixels", "objects", "pixels_new", "objects_new")}


def message_of(counts: Counts, updates: Updates) -> str:
    """`9 tiles advanced (9 steps); 3 pixels and 1 patch newly changed, 1 new alert`."""
    work = [(counts.fits, "fitted"), (counts.replays, "replayed"), (counts.tiles - counts.fits - counts.replays, "advanced")]
    tiles = ", ".join(f"{counted(count, 'tile')} {what}" for count, what in work if count) or "no tile changed"
    found = f"{counted(updates.pixels_new, 'pixel')} and {counted(updates.objects_new, 'patch', 'patches')} newly changed"
    alerts = counted(len(updates.alerts), "new alert")
    return f"{tiles} ({counted(counts.steps, 'step')}); {found}, {alerts}"


def standing_notes(
    context: MonitorContext, refused: Sequence[Mapping[str, str]], listed_in: Path, min_history: int, share: float
) -> list[str]:
    """What stays so until somebody does something: another model than the config's, refused scenes, nothing to monitor.
    `refused` scenes are listed in `listed_in`; those without a usable pixel are nothing unusual. `share` of the pixels is
    monitored."""
    notes = []
    if context.expected.fallback:
        notes.append(f"monitored with the harmonic baseline instead of what the config asks for: {context.expected.fallback}")
    damaged = [one for one in refused if one["reason"] in DAMAGED]
    missing = [one for one in refused if one["reason"] not in HARMLESS | DAMAGED]
    for ones, what in (
        (missing, counted(len(missing), "scene was refused and is missing here", "scenes were refused and are missing here")),
        (
            damaged,
            counted(len(damaged), "scene") + " cannot be read; what the cube already holds of such a scene stays",
        ),
    ):
        if ones:
            notes.append(f"{what}, first {ones[0]['scene_id']} ({ones[0]['reason']}); all of them: {listed_in}")
    return [*notes, *_idle_notes(context.cube, min_history, share)]


def _idle_notes(cube: MonitoredCube, min_history: int, share: float) -> list[str]:
    """Monitoring that cannot find anything must not look like monitoring that found nothing."""
    notes = []
    start, last = day_of(cube.start_ns), cube.dates[-1]
    if cube.is_history(last):
        notes.append(
            f"no date has been monitored yet: monitoring.start is {start} and the cube ends on {day_of(last.time_ns)}; "
            "later dates are monitored"
        )
    if last.time_ns > time.time_ns() + DAY_NS:
        notes.append(
            f"the cube ends in the future, on {last.name}: is that date wrong? Every earlier date counts as late from now on, "
            "and is replayed; a wrong date stays in the cube until the cube's folder is removed and ingested again"
        )
    if share < MOSTLY:
        pixels = f"{share_text(1 - share)} of the pixels are not monitored" if share else "no pixel is monitored"
        notes.append(
            f"{pixels}: they have fewer than {min_history} usable dates before {start} (monitoring.min_history, monitoring.start)"
        )
    return notes


def monitored_share(layers: Layers) -> float:
    """The share of the pixels that are monitored, counted strip by strip."""
    status = layers.map("status")
    rows = range(0, status.shape[0], 1024)
    return 1 - sum(int((status[row : row + 1024] == NOT_MONITORED).sum()) for row in rows) / math.prod(status.shape)


def passing_notes(counts: Counts) -> list[str]:
    """What was repaired during the run, or has gone from the cube: of this run alone."""
    notes = []
    if counts.rebuilt:
        several = counted(len(counts.rebuilt), "damaged state file was", "damaged state files were")
        notes.append(f"{several} computed again: {counts.rebuilt[0]}")
    if counts.gone:
        several, shown = counted(len(counts.gone), "date is", "dates are"), ", ".join(sorted(counts.gone)[:3])
        notes.append(f"{several} no longer in the cube ({shown}); what was seen then was taken back by a replay")
    return notes


def summary_sentence(monitored: Monitored, found: Mapping[str, Any], criteria: Sequence[Criterion]) -> str:
    """One sentence for a person: what raised alarms, where, when, how sure; `found` as in `summary.json`. `criteria` of the
    evaluation, none: not evaluated; one that is not met is said here, since monitoring publishes all the same."""
    name, variable, start, until = monitored.name, monitored.variable, monitored.start, monitored.until
    if not monitored.share or until < start:
        least = f"no pixel has the {monitored.min_history} usable dates before {start} that monitoring needs"
        why = least if not monitored.share else f"there is no date from {start} on yet"
        return f"{name}: nothing can be said about change in {variable}: {why}."
    where = "" if monitored.share == 1 else f"; {share_text(1 - monitored.share)} of the pixels are not monitored"
    sure = "".join(f"; {_trust(criterion)}" for criterion in criteria if criterion.kind == "at most" or not criterion.is_met)
    count, again = found.get("objects", 0), found.get("pixels_recovered")
    if not count:
        return f"{name}: {variable} raised no alarm in any patch from {start} to {until}{where}{sure}."
    latest = f", the latest change on {found['last_date'][:10]}" if found.get("last_date") else ""
    recovered = f"; {counted(again, 'pixel is', 'of the pixels are')} as expected again" if again else ""
    patches = f"{counted(count, 'patch', 'patches')} ({found['area_m2'] / 1e4:.1f} ha{recovered})"
    return f"{name}: {variable} raised alarms in {patches} since {start}{latest}{where}{sure}."


def _trust(criterion: Criterion) -> str:
    """What a criterion of the evaluation says of the alarms; `at most` is that of the false alarms."""
    value, requested = criterion.value or 0.0, criterion.requested
    if criterion.kind == "at least":
        return f"of the {criterion.name.removesuffix(' found')} only {share_text(value)} was found"
    if criterion.is_met:
        share = f"about {value:.0f}" if value >= 1 else "fewer than 1"
        return f"where nothing changed, {share} of 1000 pixels raise a false alarm per year"
    doubt = "this cannot be trusted" if value > UNTRUSTED * requested else "more of this is false than was requested"
    return f"{doubt}: {value:.4g} {criterion.name} were measured, at most {requested:g} were requested"


def day_of(time_ns: int) -> str:
    """`2020-06-25`, from nanoseconds since 1970-01-01."""
    return str(np.datetime64(time_ns, "ns").astype("datetime64[D]"))


def iso_of(time_ns: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"
