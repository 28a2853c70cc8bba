"""Motion of regions through a series of frames: size, centre and displacement at every frame, and the cycle of each region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from pipelines.tracking.cycle import Period, find_period
from pipelines.tracking.growth import EDGE_ERROR_PX, outline_errors
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime
from pipelines.tracking.table import size_columns
from pipelines.wording import counted

if TYPE_CHECKING:
    import pandas as pd

ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class Motion:
    """`frames`: a row per frame and region; `cycles`: a row per region; `time`: of the series."""

    frames: pd.DataFrame
    cycles: pd.DataFrame
    time: SeriesTime

    def facts(self) -> dict[str, Any]:
        """What `track.json` says of it."""
        found = int((self.cycles.period_note == "").sum())
        return {"regions": len(self.cycles), "with_period": found, "unit": self.time.unit.name}

    def lines(self) -> list[str]:
        """The largest region in a sentence, and how many more there are."""
        largest = self.cycles.iloc[int(self.cycles.iloc[:, 2].to_numpy().argmax())]
        change = [100 * largest[f"fractional_change{end}"] for end in ENDS]
        unit = self.time.unit.name
        period, low, high = (largest[f"period_{unit}{end}"] for end in ENDS)
        repeats = f"period {period:.4g} {unit} ({low:.4g} to {high:.4g})"
        repeats = f"period not found: {largest.period_note}" if np.isnan(period) else repeats
        more = len(self.cycles) - 1
        others = f"; {counted(more, 'other region')} in cycle.csv" if more else ""
        shrinks = f"(largest - smallest) / largest {change[0]:.1f} % ({change[1]:.1f} to {change[2]:.1f})"
        return [f"motion of track {largest.track_id}: {shrinks}; {repeats}{others}"]


def motion_of(
    objects: pd.DataFrame, time: SeriesTime, space: Space, edge_error_px: float = EDGE_ERROR_PX, level: float = 0.95
) -> Motion:
    """Motion of the tracks in the tables of `pipelines.tracking.table`; what was not seen at a frame has no row there."""
    import pandas as pd

    seen = objects[(objects["event"] != "not seen").to_numpy()]
    errors = outline_errors(seen, space, edge_error_px)
    frames, cycles = [], []
    for track_id, place in seen.groupby("track_id").indices.items():
        own = seen.iloc[place]
        rows, row = _motion_of_region(own, errors[place], time, space, level)
        frames.append(rows)
        cycles.append({"track_id": track_id, **row})
    table = pd.concat(frames).sort_values([time.unit.column, "track_id"], ignore_index=True)
    return Motion(table, pd.DataFrame(cycles), time)


def _motion_of_region(
    own: pd.DataFrame, errors_N: np.ndarray, time: SeriesTime, space: Space, level: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(a row per frame, what cycle.csv says of it). Displacements are distances from the centre where the region is largest."""
    size, column = size_columns(space)[0], time.unit.column
    size_N, elapsed_N = own[size].to_numpy(), time.elapsed(own[column].to_numpy())
    largest, smallest = int(size_N.argmax()), int(size_N.argmin())
    axes = ["row", "column"] if space.axes == 2 else ["slice", "row", "column"]
    index_ND = own[axes].to_numpy()
    displaced_N = np.linalg.norm((index_ND - index_ND[largest]) * space.steps(index_ND[largest][None])[0], axis=1)
    found = find_period(elapsed_N, size_N, level)
    period = found.period if isinstance(found, Period) else np.nan
    moved = f"displaced_{space.unit}"
    is_dated = column == "date"
    rows = own[[column, "track_id", size]].assign(
        **({time.unit.name: elapsed_N} if is_dated else {}),
        share_of_largest=size_N / size_N[largest],
        **{name: own[name] for name in "xyz"[: space.axes]},
        **{moved: displaced_N},
        phase=(elapsed_N - elapsed_N[largest]) / period % 1.0,
    )
    half = ndtri(0.5 + level / 2) * np.hypot(errors_N[largest], errors_N[smallest])
    left, unit, at_N = size_N[smallest] / size_N[largest], time.unit.name, elapsed_N if is_dated else own[column].to_numpy()
    ends = (found.period, found.low, found.high) if isinstance(found, Period) else (np.nan,) * 3
    row = {
        "frames": len(own),
        f"largest_{size}": size_N[largest],
        f"largest_at_{unit}": at_N[largest],
        f"smallest_{size}": size_N[smallest],
        f"smallest_at_{unit}": at_N[smallest],
        "fractional_change": 1 - left,
        "fractional_change_low": max(1 - left * np.exp(half), 0.0),
        "fractional_change_high": 1 - left * np.exp(-half),
        f"largest_{moved}": float(displaced_N.max()),
        f"{moved}_at_smallest": float(displaced_N[smallest]),
        **{f"period_{unit}{end}": value for end, value in zip(ENDS, ends, strict=True)},
        "cycles": found.cycles if isinstance(found, Period) else np.nan,
        "period_note": "" if isinstance(found, Period) else found,
        "at_edge": bool(own["at_edge"].any()),
    }
    return rows, row
