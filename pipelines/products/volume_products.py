"""What is published of predicted volumes: NIfTI files, a plain JSON index in place of STAC, and measurements as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.calendar import is_elapsed, iso_utc
from pipelines.cube.store import bands_of
from pipelines.files import write_json, write_text
from pipelines.grid import Grid, PatientFrame
from pipelines.inference.staging import Field, Staged
from pipelines.learning.result import COMBINATION
from pipelines.products.json_values import plain
from pipelines.products.nifti import affine_ras, write_nifti
from pipelines.products.stac import ModelCard
from pipelines.products.viewer import VIEWER, Layer, write_viewer
from pipelines.samples.variables import decode
from pipelines.wording import cell

if TYPE_CHECKING:
    from pipelines.products.predicted import ForecastFields

INDEX, MEASUREMENTS = "index.json", "measurements.csv"
ROLES = {
    "forecast": "forecast",
    "observed": "last observations",
    "lower": "lower bound of the interval",
    "upper": "upper bound of the interval",
}
COLUMNS = ("time", "seconds", "kind", "variable", "unit", "voxels", "mean", "std", "min", "max")
CONTEXT_WRITTEN = 6  # of the last observations
SLAB_VOXELS = 1 << 23  # of a volume that are in memory at a time


@dataclass(frozen=True)
class Measured:
    """A variable over the usable voxels of one time. `seconds` since the first time of the table."""

    time: np.datetime64
    kind: str  # observed, forecast
    variable: str
    unit: str
    voxels: int
    mean: float | None
    std: float | None
    least: float | None
    most: float | None


def slabs(grid: Grid) -> list[slice]:
    """Parts of the first axis that hold at most `SLAB_VOXELS`."""
    depth = max(1, SLAB_VOXELS // math.prod(grid.shape[1:]))
    return [slice(first, min(first + depth, grid.shape[0])) for first in range(0, grid.shape[0], depth)]


def write_volumes(forecast: ForecastFields, card: ModelCard | None, folder: Path) -> list[Measured]:
    """NIfTI files of every variable and role, `viewer.html`, `index.json` and `measurements.csv`; what was measured.

    A file holds all target times, that of the observations the last ones of the context. The first rows are those of the last
    observation, then those of the forecast.
    """
    request, grid = forecast.request, forecast.request.grid
    folder.mkdir(parents=True, exist_ok=True)
    context = [int(i) for i in request.steps.context_T if i >= 0][-CONTEXT_WRITTEN:]
    seen, targets = list(request.dataset["time"].values[context]), request.target_utc
    files, layers = [], []
    for n, variable in enumerate(request.variables):
        name, unit = variable.name, request.units.get(variable.name, "")
        predicted = {field.role for field in forecast.staged.fields if field.variable == name}
        for role in [role for role in ROLES if role in predicted | {"observed"}]:
            is_observed, path = role == "observed", folder / f"{role}_{name}.nii.gz"
            times = seen if is_observed else targets
            values = _context(forecast, context, n) if is_observed else _values(forecast.staged, grid, name, role)
            step_s = seconds_between(seen if len(seen) > 1 and is_observed else [seen[-1], *targets])
            write_nifti(path, values, grid, times, step_s, f"driftline {role} of {name}")
            files.append({"file": path.name, "variable": name, "role": ROLES[role], "unit": unit})
            layers.append(Layer(path, f"{name}: {ROLES[role]}", [iso_utc(time) for time in times], name, unit))
    subtitle = f"Issued {forecast.lineage.issued_utc}, model {forecast.lineage.model_hash[:12]}"
    write_viewer(folder / VIEWER, f"{forecast.name}: volumes", subtitle, layers)
    files.append({"file": VIEWER, "role": "the volumes in a page for a browser"})
    return write_index(forecast, card, folder, files)


def seconds_between(times_T: Sequence[np.datetime64]) -> float:
    """The median step."""
    return float(np.median(np.diff(times_T) / np.timedelta64(1, "s")))


def write_index(
    forecast: ForecastFields, card: ModelCard | None, folder: Path, files: Sequence[dict[str, Any]]
) -> list[Measured]:
    """`index.json`, which lists `files`, and `measurements.csv`; what was measured."""
    rows = measure(forecast)
    write_text(folder / MEASUREMENTS, as_csv(rows))
    write_json(folder / INDEX, plain(_index(forecast, card, files)), is_strict=True)
    return rows


def _values(staged: Staged, grid: Grid, variable: str, role: str) -> Iterator[np.ndarray]:
    for field in sorted(field for field in staged.fields if (field.variable, field.role) == (variable, role)):
        for part in slabs(grid):
            yield staged.read(field, part)


def _context(forecast: ForecastFields, indices: Sequence[int], variable: int) -> Iterator[np.ndarray]:
    for index in indices:
        for values_NZYX in _observed(forecast, index):
            yield values_NZYX[variable]


def _index(forecast: ForecastFields, card: ModelCard | None, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    request, lineage, grid = forecast.request, forecast.lineage, forecast.request.grid
    kind = COMBINATION if lineage.method.startswith(COMBINATION) else "baseline"
    return {
        "driftline_index": 1,
        "name": forecast.name,
        "kind": "forecast",
        "files": [*files, {"file": MEASUREMENTS, "role": "measurements"}],
        "target_times": request.targets_iso,
        "issued": lineage.issued_utc,
        "time_origin": time_origin(request.target_utc[0]),
        "interval": forecast.interval,
        "grid": grid_facts(grid),
        "lineage": asdict(lineage),
        "metrics": dict(forecast.metrics),
        "model": {**asdict(card), "weights": card.weights.name} if card else {kind: lineage.method},
    }


def time_origin(first: np.datetime64) -> str:
    """What an index says of its times."""
    return "unknown: seconds since the first frame" if is_elapsed(first) else "UTC"


def grid_facts(grid: Grid) -> dict[str, Any]:
    """What an index says of a grid: axes, shape, spacing, unit, and its affine where it has a position."""
    facts = {"axes": list(grid.dims), "shape": list(grid.shape), "spacing": list(grid.spacing), "unit": grid.unit}
    if not isinstance(grid.frame, PatientFrame):
        return {**facts, "position": "unknown: no file states one"}
    return {**facts, "affine_ras_mm": affine_ras(grid).tolist(), "affine_of": "voxel centres, index order x, y, z"}


# ---------------------------------------------------------------- measurements


def measure(forecast: ForecastFields) -> list[Measured]:
    """Every variable over the usable voxels of the issue date and of every target, slab by slab."""
    request, rows = forecast.request, []
    last = int(request.steps.issue)
    for n, variable in enumerate(request.variables):
        unit = request.units.get(variable.name, "")
        observed = (one[n] for one in _observed(forecast, last))
        rows.append(_measured(observed, request.dataset["time"].values[last], "observed", variable.name, unit))
        for k, moment in enumerate(request.target_utc):
            field = Field(k, variable.name, "forecast")
            expected = (forecast.staged.read(field, part) for part in slabs(request.grid))
            rows.append(_measured(expected, moment, "forecast", variable.name, unit))
    return rows


def _observed(forecast: ForecastFields, index: int) -> Iterator[np.ndarray]:
    """(variables, z, y, x) physical values of one date, NaN where not usable, slab by slab."""
    request = forecast.request
    bands = bands_of(request.dataset)
    for part in slabs(request.grid):
        taken = request.dataset.isel({"time": [index], request.grid.dims[0]: part})
        x_NCZYX, valid_NZYX = decode(taken["image"].values, taken["valid"].values, bands, request.variables)
        yield np.where(valid_NZYX[0], x_NCZYX[0], np.nan)


def _measured(parts: Iterator[np.ndarray], time: np.datetime64, kind: str, variable: str, unit: str) -> Measured:
    count, total, squares, least, most = 0, 0.0, 0.0, np.inf, -np.inf
    for part in parts:
        seen = part[np.isfinite(part)].astype(np.float64)
        if seen.size:
            count, total, squares = count + seen.size, total + float(seen.sum()), squares + float((seen**2).sum())
            least, most = min(least, float(seen.min())), max(most, float(seen.max()))
    if not count:
        return Measured(time, kind, variable, unit, 0, None, None, None, None)
    mean = total / count
    return Measured(time, kind, variable, unit, count, mean, max(squares / count - mean**2, 0.0) ** 0.5, least, most)


def as_csv(rows: Sequence[Measured]) -> str:
    """The table with a heading; times as of `iso_utc`, and seconds since the first row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    first = rows[0].time.astype("datetime64[ns]")
    for row in rows:
        seconds = (row.time.astype("datetime64[ns]") - first) / np.timedelta64(1, "s")
        figures = ["" if value is None else f"{value:.7g}" for value in (row.mean, row.std, row.least, row.most)]
        when = [iso_utc(row.time), f"{seconds:.5f}".rstrip("0").rstrip(".")]
        writer.writerow([*when, row.kind, row.variable, cell(row.unit), row.voxels, *figures])
    return text.getvalue()
