"""What the record of a look says in words: what it did, and what was not as it should be."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from flows.folder import require
from flows.invocation import Invocation

DAY_NS = 86_400 * 10**9
MOSTLY = 0.5  # of the raster without enough history: then it is said


def message_of(counts: Any, updates: Any) -> str:
    work = [(counts.fits, "fitted"), (counts.replays, "replayed"), (counts.tiles - counts.fits - counts.replays, "advanced")]
    tiles = ", ".join(f"{count} tile{'s' * (count != 1)} {what}" for count, what in work if count) or "no tile touched"
    found = f"{_many(updates.pixels_new, 'pixel', 'pixels')} and {_many(updates.objects_new, 'patch', 'patches')} newly changed"
    alerts = _many(len(updates.alerts), "new alert", "new alerts")
    return f"{tiles} ({_many(counts.steps, 'step', 'steps')}); {found}, {alerts}"


def standing_notes(invocation: Invocation, context: Any) -> list[str]:
    """What stays so until somebody does something: another expectation than the config's, refused scenes, nothing to judge."""
    notes = []
    if context.fallback:
        notes.append(f"watched with the harmonic baseline instead of what the config asks for: {context.fallback}")
    refused = [one for one in require(invocation.folder, "ingest", "ingest")["refused"] if one["reason"] != "all-cloud"]
    if refused:
        several = _many(len(refused), "scene was refused and is", "scenes were refused and are")
        first = f"{refused[0]['scene_id']} ({refused[0]['reason']})"
        notes.append(f"{several} missing here, first {first}; all of them: {invocation.folder.refused}")
    return [*notes, *_idle_notes(invocation.run.monitoring, context.monitoring)]


def _idle_notes(monitoring: Any, monitored_cube: Any) -> list[str]:
    """A watch that cannot find anything looks like one that found nothing, unless it is said."""
    from pipelines.monitoring.detector import NOT_MONITORED
    from pipelines.monitoring.layers import Layers

    notes = []
    if not any(not monitored_cube.is_history(date) for date in monitored_cube.dates):
        end = np.datetime64(monitored_cube.dates[-1].time_ns, "ns").astype("datetime64[D]")
        notes.append(
            f"nothing has been judged yet: monitoring.start is {monitoring.start:%Y-%m-%d} and the cube ends on {end}; "
            "what comes later is judged"
        )
    last = monitored_cube.dates[-1]
    if last.time_ns > time.time_ns() + DAY_NS:
        notes.append(
            f"the cube ends in the future, on {last.name}: is that date wrong? Everything before it now counts as late, "
            "and is replayed; a wrong date stays in the cube until the cube's folder is removed and laid anew"
        )
    status = Layers.open(monitored_cube.layers).map("status")
    idle = sum(int((np.asarray(status[row : row + 1024]) == NOT_MONITORED).sum()) for row in range(0, status.shape[0], 1024))
    if idle > MOSTLY * status.size:
        share = "no pixel is watched" if idle == status.size else f"{idle / status.size:.0%} of the pixels are not watched"
        notes.append(
            f"{share}: they have fewer than {monitoring.min_history} usable dates before "
            f"{monitoring.start:%Y-%m-%d} (monitoring.min_history, monitoring.start)"
        )
    return notes


def passing_notes(counts: Any) -> list[str]:
    """What was mended on the way, or went away: said once."""
    notes = []
    if counts.rebuilt:
        several = _many(len(counts.rebuilt), "damaged state file was", "damaged state files were")
        notes.append(f"{several} computed again: {counts.rebuilt[0]}")
    if counts.gone:
        several, shown = _many(len(counts.gone), "date is", "dates are"), ", ".join(sorted(counts.gone)[:3])
        notes.append(f"{several} no longer in the cube ({shown}); what was seen then was taken back by a replay")
    return notes


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
