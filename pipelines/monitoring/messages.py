"""What the record of a monitoring run says in words: what was computed, and what was not as it should be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import CLOUDED
from pipelines.monitoring.alerts import Updates
from pipelines.monitoring.context import MonitorContext
from pipelines.monitoring.detector import NOT_MONITORED
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.replay import Counts

DAY_NS = 86_400 * 10**9
MOSTLY = 0.5  # of the raster without enough history: a note says so


def counts_of(counts: Counts) -> dict[str, int]:
    """The counts as JSON values."""
    return {name: value for name, value in vars(counts).items() if isinstance(value, int)}


def change_of(updates: Updates) -> dict[str, int]:
    """How many pixels and patches have changed, and how many of them since the last run."""
    return {name: getattr(updates, name) for name in ("pixels", "objects", "pixels_new", "objects_new")}


def message_of(counts: Counts, updates: Updates) -> str:
    """`9 tiles advanced (9 steps); 3 pixels and 1 patch newly changed, 1 new alert`."""
    work = [(counts.fits, "fitted"), (counts.replays, "replayed"), (counts.tiles - counts.fits - counts.replays, "advanced")]
    tiles = ", ".join(f"{_many(count, 'tile', 'tiles')} {what}" for count, what in work if count) or "no tile changed"
    found = f"{_many(updates.pixels_new, 'pixel', 'pixels')} and {_many(updates.objects_new, 'patch', 'patches')} newly changed"
    alerts = _many(len(updates.alerts), "new alert", "new alerts")
    return f"{tiles} ({_many(counts.steps, 'step', 'steps')}); {found}, {alerts}"


def standing_notes(context: MonitorContext, refused: Sequence[Mapping[str, str]], listed_in: Path, min_history: int) -> list[str]:
    """What stays so until somebody does something: another model than the config's, refused scenes, nothing to monitor.

    `refused` scenes are listed in `listed_in`; those without a usable pixel are nothing unusual.
    """
    notes = []
    if context.expected.fallback:
        notes.append(f"monitored with the harmonic baseline instead of what the config asks for: {context.expected.fallback}")
    missing = [one for one in refused if one["reason"] not in CLOUDED]
    if missing:
        several = _many(len(missing), "scene was refused and is", "scenes were refused and are")
        first = f"{missing[0]['scene_id']} ({missing[0]['reason']})"
        notes.append(f"{several} missing here, first {first}; all of them: {listed_in}")
    return [*notes, *_idle_notes(context, min_history)]


def _idle_notes(context: MonitorContext, min_history: int) -> list[str]:
    """Monitoring that cannot find anything must not look like monitoring that found nothing."""
    cube, notes = context.cube, []
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
    idle, pixels = count_idle(context.monitoring.layers)
    if idle > MOSTLY * pixels:
        share = "no pixel is monitored" if idle == pixels else f"{idle / pixels:.0%} of the pixels are not monitored"
        notes.append(
            f"{share}: they have fewer than {min_history} usable dates before {start} (monitoring.min_history, monitoring.start)"
        )
    return notes


def count_idle(layers: Path) -> tuple[int, int]:
    """(pixels that are not monitored, all pixels) of the layers in a folder, counted strip by strip."""
    status = Layers.open(layers).map("status")
    rows = range(0, status.shape[0], 1024)
    return sum(int((np.asarray(status[row : row + 1024]) == NOT_MONITORED).sum()) for row in rows), status.size


def passing_notes(counts: Counts) -> list[str]:
    """What was repaired during the run, or has gone from the cube: of this run alone."""
    notes = []
    if counts.rebuilt:
        several = _many(len(counts.rebuilt), "damaged state file was", "damaged state files were")
        notes.append(f"{several} computed again: {counts.rebuilt[0]}")
    if counts.gone:
        several, shown = _many(len(counts.gone), "date is", "dates are"), ", ".join(sorted(counts.gone)[:3])
        notes.append(f"{several} no longer in the cube ({shown}); what was seen then was taken back by a replay")
    return notes


def summary_sentence(
    name: str, variable: str, start: str, until: str, found: Mapping[str, Any], false_alarms: float | None
) -> str:
    """One sentence for a person: what changed, where, when, how sure. Dates are ISO; `found` as in `summary.json`.

    `false_alarms`: measured, per 1000 stable pixels and year; None: not measured.
    """
    sure = ""
    if false_alarms is not None:
        share = f"about {false_alarms:.0f}" if false_alarms >= 1 else "fewer than 1"
        sure = f"; where nothing changed, {share} of 1000 pixels raise a false alarm per year"
    count = found.get("objects", 0)
    if not count:
        return f"{name}: {variable} has not changed in any patch from {start} to {until[:10]}{sure}."
    latest = f", the latest on {found['last_date'][:10]}" if found.get("last_date") else ""
    patches = f"{count} patch{'es' * (count != 1)} ({found['area_m2'] / 1e4:.1f} ha)"
    return f"{name}: {variable} has changed in {patches} since {start}{latest}{sure}."


def day_of(time_ns: int) -> str:
    """`2020-06-25`, from nanoseconds since 1970-01-01."""
    return str(np.datetime64(time_ns, "ns").astype("datetime64[D]"))


def iso_of(time_ns: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
