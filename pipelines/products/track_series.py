"""Growth of tracked objects over visits, or their motion through frames, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.products.growth_plot import draw_growth
from pipelines.products.motion_plot import draw_motion
from pipelines.products.track_files import Tables
from pipelines.products.track_plot import colours_of
from pipelines.tracking.growth import GrowthSettings
from pipelines.tracking.growth_tables import growth_of
from pipelines.tracking.motion import motion_of
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime

GROWTH, GROWTH_CHECK, TOTALS, GROWTH_PICTURE = "growth.csv", "growth_check.csv", "totals.csv", "growth.png"
MOTION, CYCLES, MOTION_PICTURE = "motion.csv", "cycle.csv", "motion.png"
NAMES = (GROWTH, GROWTH_CHECK, TOTALS, GROWTH_PICTURE, MOTION, CYCLES, MOTION_PICTURE)


@dataclass(frozen=True)
class SeriesFiles:
    """Names of the files, what `track.json` says of them, and lines for a person."""

    names: Sequence[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = field(default_factory=list)


def write_series(folder: Path, tables: Tables, space: Space, settings: GrowthSettings, of: str) -> SeriesFiles:
    """Writes motion of a series of frames, else growth of one of two visits or more, into `folder`; of a single time nothing.

    Files of an earlier call are replaced.
    """
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    time = SeriesTime.of(tables.objects, tables.events, tables.times)
    if time.are_frames(space.axes):
        return _write_motion(folder, tables, time, space, settings, of)
    return _write_growth(folder, tables, time, space, settings, of) if len(time.values_T) > 1 else SeriesFiles()


def _write_growth(folder: Path, tables: Tables, time: SeriesTime, space: Space, settings: GrowthSettings, of: str) -> SeriesFiles:
    growth = growth_of(tables.objects, tables.events, tables.tracks, time, space, settings)
    named = {GROWTH: growth.growth, GROWTH_CHECK: growth.check, TOTALS: growth.totals}
    written = {name: table for name, table in named.items() if table is not None}
    for name, table in written.items():
        table.to_csv(folder / name, index=False, float_format="%.10g")
    colours = colours_of(tables.objects, tables.size)
    draw_growth(growth, tables.objects, space, colours, folder / GROWTH_PICTURE, f"Growth of {of}")
    return SeriesFiles([*written, GROWTH_PICTURE], {"growth": growth.facts()}, growth.lines())


def _write_motion(folder: Path, tables: Tables, time: SeriesTime, space: Space, settings: GrowthSettings, of: str) -> SeriesFiles:
    motion = motion_of(tables.objects, time, space, settings.edge_error_px, settings.level)
    motion.frames.to_csv(folder / MOTION, index=False, float_format="%.10g")
    motion.cycles.to_csv(folder / CYCLES, index=False, float_format="%.10g")
    draw_motion(motion, space, colours_of(tables.objects, tables.size), folder / MOTION_PICTURE, f"Motion of {of}")
    return SeriesFiles([MOTION, CYCLES, MOTION_PICTURE], {"motion": motion.facts()}, motion.lines())
