"""A commented run config for a folder or a netCDF file: the output of `driftline init`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.calendar import format_span
from pipelines.errors import RequestError
from pipelines.sources.format_detection import QUALITY_KINDS, BandSample, DetectedFormat, detect_format

RED = ("B4", "B04", "red", "RED", "Red", "SR_B4")
NIR = ("B8", "B08", "B8A", "nir", "NIR", "Nir", "SR_B5")
INDICES = re.compile(r"(?i)ndvi|evi|ndwi|savi")
FEWEST_DATES = 5
YEAR_DAYS = 366
HISTORY_YEARS = 2  # needed to calibrate a threshold


@dataclass(frozen=True)
class Variable:
    """The variable to forecast: its name, formula and bands."""

    name: str
    formula: str
    bands: tuple[str, ...]


def propose_run(folder: Path, name: str, task: str = "forecast", *, written_as: str | None = None) -> str:
    """The text of a config for a first run on the scenes at `folder` (a folder, or a single netCDF file).

    `task` is forecast or monitor; `written_as` is how the config names `folder`, where that differs. The config is valid as it
    is; every guess has a comment. Raises MissingInput, RequestError (nothing readable, or fewer than 5 dates).
    """
    detected = detect_format(Path(folder))
    if len(detected.dates) < FEWEST_DATES:
        needs = "a forecast" if task == "forecast" else "a monitoring run"
        raise RequestError(f"{folder} holds {len(detected.dates)} dates; {needs} needs at least {FEWEST_DATES}")
    variable = choose_variable(detected)
    inspect_band = detected.inspect_band(variable.bands[0])
    lines = [
        f"# Proposed from {_text(str(folder))}: {len(detected.dates)} dates from {_date(detected.dates[0])} to "
        f"{_date(detected.dates[-1])},",
        f"# {inspect_band.shape_yx[0]} x {inspect_band.shape_yx[1]} pixels of {inspect_band.dtype}. Every value may be changed.",
        f"name: {_text(_name(name))}",
        f"task: {task}",
        "",
        *_source(detected, variable, inspect_band, written_as),
        "",
        *_quality(detected),
        *_cube(detected, inspect_band),
        *(_monitoring(detected, variable) if task == "monitor" else _forecasting(detected, variable, inspect_band)),
    ]
    return "\n".join(lines) + "\n"


def choose_variable(detected: DetectedFormat) -> Variable:
    """NDVI if red and near infrared exist, else an index band, else the first band that is not the quality band."""
    bands = [band for band in detected.bands if band != detected.quality]
    if not bands:
        raise RequestError(f"{detected.path} holds the quality band {detected.quality} and no other band")
    is_landsat = (detected.quality or "").upper() in ("BQA", "QA_PIXEL") or (
        {"B10", "B11", "B5"} <= set(bands) and "B12" not in bands
    )
    red = next((band for band in RED if band in bands), None)
    nir = "B5" if is_landsat and "B5" in bands else next((band for band in NIR if band in bands), None)
    if red and nir:
        return Variable("ndvi", "normalized_difference", (nir, red))
    index = next((band for band in bands if INDICES.fullmatch(band)), None)
    index = next((band for band in bands if band.lower() == "ndvi"), index)
    chosen = index or bands[0]
    return Variable(_name(chosen.lower()), "band", (chosen,))


def _source(detected: DetectedFormat, variable: Variable, inspect_band: BandSample, written_as: str | None) -> list[str]:
    lines = ["source:", f"  kind: {detected.kind}"]
    for key, value, comment in detected.source_lines:
        if key == "path" and written_as is not None:
            value = written_as
        if key == "files":
            value = {_name(band): file for band, file in value.items() if band in (*variable.bands, detected.quality)}  # type: ignore[attr-defined]
        lines.append(f"  {key}: {json.dumps(value)}{_comment(comment)}")
    needed = sorted(variable.bands, key=detected.bands.index)
    others = [band for band in detected.bands if band not in (*needed, detected.quality)]
    shared_file = detected.kind == "folder" and not any("{band}" in str(value) for _, value, _ in detected.source_lines)
    renamed = [
        _band(band, str(detected.bands.index(band) + 1) if shared_file and len(detected.bands) > 1 else band) for band in needed
    ]
    lines.append(f"  bands: [{', '.join(renamed)}]{_comment('also there: ' + ', '.join(others[:12]) if others else '')}")
    return lines + _values(detected, variable, inspect_band)


def _band(band: str, in_file: str) -> str:
    return _text(band) if _name(band) == band == in_file else f"{{name: {_text(_name(band))}, source: {_text(in_file)}}}"


def _values(detected: DetectedFormat, variable: Variable, inspect_band: BandSample) -> list[str]:
    """Scale, offset, nodata, valid range and read_as: from the files, else the usual values of such products."""
    first, lines = variable.bands[0], []
    is_index = bool(INDICES.fullmatch(first))
    is_reflectance = variable.formula == "normalized_difference" and inspect_band.dtype.kind in "iu"
    is_sentinel2 = is_reflectance and (detected.quality or "").upper() == "SCL"
    scale = inspect_band.scale
    if scale == 1 and inspect_band.dtype.kind in "iu" and (is_index or is_sentinel2):
        scale = 1e-4
        usual = "the usual packing: stored value x 0.0001; check it"
        lines.append(f"  scale: 0.0001{_comment(usual)}")
        if is_sentinel2 and detected.dates[-1] >= np.datetime64("2022-01-25"):
            lines.append(
                "  # since 25 January 2022 (processing baseline 04.00) Sentinel-2 stores reflectance + 1000: harmonise first,"
            )
            lines.append("  # or cut the series at that date and set offset: -0.1")
    elif scale != 1:
        lines.append(f"  scale: {scale:.10g}{_comment('from the files')}")
    if inspect_band.offset:
        lines.append(f"  offset: {inspect_band.offset:.10g}{_comment('from the files')}")
    if inspect_band.nodata is not None and np.isfinite(inspect_band.nodata):
        lines.append(f"  nodata: {_number(inspect_band.nodata)}{_comment('from the files')}")
    elif is_reflectance:
        lines.append(f"  nodata: 0{_comment('not tagged; 0 is the usual fill value of such products')}")
    if is_index and inspect_band.dtype.kind in "iu" and scale == 1e-4:
        if inspect_band.dtype == "uint16":
            lines.append(
                f"  read_as: int16{_comment('an index is signed; tagged unsigned, negative values wrap to about 65000')}"
            )
        lines.append(f"  valid_range: [-2000, 10000]{_comment('stored values')}")
    return lines


def _quality(detected: DetectedFormat) -> list[str]:
    if detected.quality is None:
        return []
    kind = QUALITY_KINDS[detected.quality.upper()]
    lines = ["quality:", f"  kind: {kind}", f"  band: {_text(detected.quality)}"]
    if kind == "scl":
        lines.append(
            f"  keep: [4, 5, 6, 7]{_comment('6 (water) and 7 (unclassified) are often contaminated: [4, 5] is safer on land')}"
        )
    else:
        lines.append(f"  collection: {1 if detected.quality.upper() == 'BQA' else 2}")
    return [*lines, f"  away_px: 2{_comment('pixels around every cloud or shadow are masked')}", ""]


def _cube(detected: DetectedFormat, inspect_band: BandSample) -> list[str]:
    lines = []
    if detected.differs_in_grid:
        lines.append(f"  on_other_grid: reproject{_comment('the scenes have different grids; add grid: to choose one')}")
    if detected.shares_dates:
        lines.append(f"  same_date: mosaic{_comment('several scenes share a date')}")
    if min(inspect_band.shape_yx) < 128:
        lines.append(f"  chunk_px: {max(16, max(inspect_band.shape_yx))}")
    return ["cube:", *lines, ""] if lines else []


def _forecasting(detected: DetectedFormat, variable: Variable, inspect_band: BandSample) -> list[str]:
    return [*_samples(detected, variable, inspect_band), "", *_split(detected, inspect_band), "", *_learning(detected)]


def _monitoring(detected: DetectedFormat, variable: Variable) -> list[str]:
    dates = detected.dates
    years = float((dates[-1] - dates[0]) / np.timedelta64(1, "D")) / YEAR_DAYS
    start = dates[int(len(dates) * 0.6)]
    threshold = "" if years * 0.6 >= HISTORY_YEARS else ", threshold: 9"
    short = "" if not threshold else "the history is too short to calibrate a threshold; 8 to 10 is usual"
    return [
        "variable:              # the monitored variable",
        f"  {_variable(variable)}",
        "",
        "monitoring:",
        f"  start: {_date(start)}{_comment('the first monitored date; the 60 % of the dates before it are the history')}",
        f"  test: {{kind: cusum, direction: both{threshold}}}{_comment(short or 'down, up or both')}",
    ]


def _variable(variable: Variable) -> str:
    needed = f"[{', '.join(_text(_name(band)) for band in variable.bands)}]"
    extra = ", valid_range: [-1, 1]" if variable.formula != "band" else ""
    extra += ", transform: log1p, valid_range: [0, 1000]" if variable.name == "rain" else ""
    return f"{{name: {_text(variable.name)}, formula: {variable.formula}, bands: {needed}{extra}}}"


def _samples(detected: DetectedFormat, variable: Variable, inspect_band: BandSample) -> list[str]:
    dates = len(detected.dates)
    horizon = min(5, max(1, dates // 10))
    context = min(10, max(1, int(0.3 * dates)))
    step = float(np.median(np.diff(detected.dates).astype("timedelta64[s]").astype(float))) / 86400
    return [
        "samples:",
        "  variables:",
        f"    - {_variable(variable)}",
        f"  context: {context}{_comment(f'input dates; their interval is {format_span(step)} (median)')}",
        f"  horizon: {horizon}{_comment('forecast dates')}",
    ]


def _split(detected: DetectedFormat, inspect_band: BandSample) -> list[str]:
    dates = detected.dates
    validation, test = (dates[int(len(dates) * share)] for share in (0.6, 0.8))
    block = int(min(256, max(8, min(inspect_band.shape_yx) // 4)))
    return [
        "split:                 # spatial blocks and time ranges",
        f"  block_px: {block}",
        f"  buffer_px: {2 if block >= 32 else 1}",
        f"  validation_from: {_date(validation)}{_comment('60 % of the dates')}",
        f"  test_from: {_date(test)}{_comment('80 % of the dates')}",
    ]


def _learning(detected: DetectedFormat) -> list[str]:
    training_days = float((detected.dates[int(len(detected.dates) * 0.6)] - detected.dates[0]) / np.timedelta64(1, "D"))
    no_season = "the baseline that the network corrects; less than a year before validation_from"
    return [
        "model:",
        *([f"  baseline: persistence{_comment(no_season)}"] if training_days < YEAR_DAYS else []),
        "  hidden: [16]",
        "  members: 1             # networks of the ensemble",
        "",
        "training:",
        "  epochs: 20",
    ]


def _date(date: np.datetime64) -> str:
    return str(date.astype("datetime64[s]")).removesuffix("T00:00:00")


def _name(text: str) -> str:
    """`text` as a valid name in a config."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]", "", re.sub(r"[\s/]+", "_", text)) or "b1"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else json.dumps(value)


def _text(value: str) -> str:
    """Unquoted if YAML reads it as this very string, else quoted."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value) and value.lower() not in (
        "y",
        "n",
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
    )
    return value if is_plain else json.dumps(value)


def _comment(text: str) -> str:
    return f"  # {' '.join(text.split())}" if text else ""
