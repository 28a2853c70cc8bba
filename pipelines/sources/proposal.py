"""A commented run config for a folder or a netCDF file: the output of `driftline init`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.calendar import format_span
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import is_storable
from pipelines.sources.dates import format_date
from pipelines.sources.file_names import natural_key
from pipelines.sources.format_detection import BandSample, DetectedFormat, detect_format
from pipelines.sources.frame_proposal import kind_of_frames, propose_frames
from pipelines.sources.products import MASK_BANDS, band_word
from pipelines.sources.volume_proposal import kind_of, propose_volumes
from pipelines.tiles import block_sizes

RED = ("B4", "B04", "red", "RED", "Red", "SR_B4")
NIR = ("B8", "B08", "B8A", "nir", "NIR", "Nir", "SR_B5")
INDICES = re.compile(r"(?i)ndvi|evi|ndwi|savi")
YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
FEWEST_DATES = 5
YEAR_DAYS = 366
HISTORY_YEARS = 2  # needed to calibrate a threshold
HISTORY_DATES, LEAST_HISTORY, HISTORY_DAYS = 12, 6, 183  # usual (monitoring.min_history), least, and some of a season
USUAL_CONTEXT = 10  # steps; of the network that the sizes of blocks are made for, with 3 x 3 kernels
AWAY_M = 60  # around clouds, but at most 2 pixels


@dataclass(frozen=True)
class Variable:
    """The variable to forecast: its name, formula and bands."""

    name: str
    formula: str
    bands: tuple[str, ...]


def propose_run(folder: Path, name: str, task: str = "forecast", *, written_as: str | None = None) -> str:
    """The text of a config for a first run on the scenes at `folder` (a folder, or a single netCDF, NIfTI, DICOM or video file).

    `task` is forecast or monitor; `written_as` is how the config names `folder`, where that differs. The config is valid as it
    is; every guess has a comment. Raises MissingInput, RequestError (nothing readable, or fewer than 5 dates).
    """
    if not Path(folder).exists():
        raise MissingInput(f"no such folder or file: {folder}")
    if kind := kind_of(Path(folder)):
        return propose_volumes(Path(folder), _name(name).removesuffix(".nii"), task, kind, written_as or str(folder))
    if kind := kind_of_frames(Path(folder)):
        return propose_frames(Path(folder), _name(name), task, kind, written_as or str(folder))
    try:
        detected = detect_format(Path(folder))
    except SceneRefused as error:
        raise RequestError(f"no config can be proposed for {folder}: {error}") from error
    dates = detected.dates
    if len(dates) < FEWEST_DATES:
        needs = f"{'a forecast' if task == 'forecast' else 'a monitoring run'} needs at least {FEWEST_DATES}"
        found = f"{folder} holds {len(dates)} date{'s' * (len(dates) != 1)}"
        raise RequestError(f"{found}; {needs} (change between two dates, learnt from labels: docs/change.md)")
    variable = choose_variable(detected)
    sample = detected.inspect_band(variable.bands[0])
    history_end, test_from = (dates[int(len(dates) * share)] for share in (0.6, 0.8))
    history_days, known = float((history_end - dates[0]) / np.timedelta64(1, "D")), int((dates < history_end).sum())
    if task == "monitor" and (known < LEAST_HISTORY or history_days < HISTORY_DAYS):
        needs = f"monitoring needs a history of at least {LEAST_HISTORY} dates in {HISTORY_DAYS} days"
        found = f"the first 60 % of the {len(dates)} dates in {folder} are {known} in {history_days:.0f} days"
        raise RequestError(f"{needs}; {found}")
    environment = Environment(  # YAML, not HTML: nothing is escaped for HTML
        loader=PackageLoader("pipelines.sources", "."), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"text": _text, "day": format_date, "json": json.dumps, "remark": _remark}
    return environment.get_template("proposal.yaml.jinja").render(
        folder=str(folder),
        name=_name(name),
        task=task,
        notes=[*detected.notes, *([detected.product.remark] if detected.product and detected.product.remark else [])],
        detected=detected,
        dates=dates,
        sample=sample,
        variable=_write_variable(variable),
        quality=detected.quality,
        mask=MASK_BANDS[band_word(detected.quality).upper()] if detected.quality else None,
        chunk_px=max(16, *sample.shape_yx) if min(sample.shape_yx) < 128 else None,
        history_end=history_end,
        min_history=known if known < HISTORY_DATES else None,
        test_from=test_from,
        has_short_history=float((dates[-1] - dates[0]) / np.timedelta64(1, "D")) / YEAR_DAYS * 0.6 < HISTORY_YEARS,
        is_vegetation=variable.name in ("ndvi", "evi", "savi"),
        away_px=min(2, round(AWAY_M / sample.pixel_m)) if sample.pixel_m else 2,
        interval=format_span(float(np.median(np.diff(dates).astype("timedelta64[s]").astype(float))) / 86400),
        **_sizes(len(dates), sample.shape_yx),
        **_source(detected, variable, written_as and _beside(written_as, detected.path.relative_to(folder))),
        **_values(detected, variable, sample),
    )


def _sizes(dates: int, shape_yx: Sequence[int]) -> dict[str, int]:
    """Steps of context and horizon, sizes of blocks and their buffer."""
    context, horizon = min(USUAL_CONTEXT, max(1, int(0.3 * dates))), min(5, max(1, dates // 10))
    block_px, buffer_px = block_sizes(shape_yx, context + horizon)
    return {"context": context, "horizon": horizon, "block_px": block_px, "buffer_px": buffer_px}


def choose_variable(detected: DetectedFormat) -> Variable:
    """NDVI if red and near infrared exist, else an index band, else the first band that is not the quality band."""
    bands = [band for band in detected.bands if band != detected.quality]
    if not bands:
        raise RequestError(f"{detected.path} holds the quality band {detected.quality} and no other band")
    is_thermal = {"B10", "B11", "B5"} <= set(bands) and "B12" not in bands
    is_landsat = (detected.quality or "").upper() in ("BQA", "QA_PIXEL") or is_thermal
    product = detected.product
    if product and product.red and (both := [_band_of(bands, name) for name in (product.nir, product.red)]) and all(both):
        return Variable("ndvi", "normalized_difference", tuple(both))
    red = next((band for band in RED if band in bands), None)
    nir = "B5" if is_landsat and "B5" in bands else next((band for band in NIR if band in bands), None)
    if red and nir:
        return Variable("ndvi", "normalized_difference", (nir, red))
    index = next((band for band in bands if INDICES.fullmatch(band_word(band))), None)
    index = next((band for band in bands if band_word(band).lower() == "ndvi"), index)
    chosen = index or bands[0]
    return Variable(_name(chosen.lower()), "band", (chosen,))


def _band_of(bands: Sequence[str], name: str) -> str:
    """The band that is called so, whatever its resolution; the finest of several. "" without one."""
    found = [band for band in bands if band_word(band) == name]
    return min(found, key=natural_key, default="")


def _beside(folder: str, inside: Path) -> str:
    """The file `inside` the folder, or the folder; `./data` keeps its dot, without which it lies in the working folder."""
    return folder if inside == Path() else f"{folder.rstrip('/')}/{inside.as_posix()}"


def _source(detected: DetectedFormat, variable: Variable, written_as: str | None) -> dict[str, object]:
    """The lines of `source` that say where the files are, and the bands under their names in the config."""
    needed = sorted(variable.bands, key=detected.bands.index)
    lines = []
    for key, value, comment in detected.source_lines:
        if key == "path" and written_as is not None:
            value = written_as
        if key == "files" and isinstance(value, Mapping):
            value = {_name(band): file for band, file in value.items() if band in (*needed, detected.quality)}
        lines.append((key, value, comment))
    is_numbered = detected.kind == "folder" and len(detected.bands) > 1 and not any("{band}" in str(line[1]) for line in lines)
    bands = []
    for band in needed:
        in_file = str(detected.bands.index(band) + 1) if is_numbered else band
        renamed = f"{{name: {_text(_name(band))}, source: {_text(in_file)}}}"
        bands.append(_text(band) if _name(band) == band == in_file else renamed)
    others = [band for band in detected.bands if band not in (*needed, detected.quality)]
    other_bands = f"also there: {', '.join(others[:12])}" if others else ""
    return {"source_lines": lines, "bands": bands, "other_bands": other_bands}


def _values(detected: DetectedFormat, variable: Variable, sample: BandSample) -> dict[str, object]:
    """Scale, nodata, valid range and read_as: from the files, else the usual values of such products."""
    is_integer = sample.dtype.kind in "iu"
    is_index = is_integer and bool(INDICES.fullmatch(band_word(variable.bands[0])))
    is_reflectance = is_integer and variable.formula == "normalized_difference"
    is_sentinel2 = is_reflectance and band_word(detected.quality or "").upper() == "SCL"
    is_usual_scale = sample.scale == 1 and (is_index or is_sentinel2)
    scale, offset, nodata, of_product = 1e-4 if is_usual_scale else sample.scale, sample.offset, sample.nodata, ""
    product = detected.product
    if product and is_reflectance and (sample.scale, sample.offset) == (1, 0) and product.scale != 1:
        scale, offset, of_product = product.scale, product.offset, product.name
        is_usual_scale = False
    if product and nodata is None:
        nodata = product.nodata
    return {
        "offset": offset,
        "of_product": of_product,
        "is_nodata_stated": sample.nodata is not None,
        "is_reflectance": is_reflectance,
        "is_usual_scale": is_usual_scale,
        "scale": scale if scale != 1 else None,
        "has_baseline_offset": scale == 1e-4 and is_sentinel2 and detected.dates[-1] >= np.datetime64("2022-01-25"),
        "nodata": None if nodata is None or not np.isfinite(nodata) or not is_storable(nodata, sample.dtype) else _number(nodata),
        "is_packed_index": is_index and scale == 1e-4,
        "may_be_packed": is_integer and scale == 1 and variable.formula == "band" and sample.dtype != np.uint8,
    }


def _write_variable(variable: Variable) -> str:
    bands = ", ".join(_text(_name(band)) for band in variable.bands)
    extra = ", valid_range: [-1, 1]" if variable.formula != "band" else ""
    extra += ", transform: log1p, valid_range: [0, 1000]" if variable.name == "rain" else ""
    return f"{{name: {_text(variable.name)}, formula: {variable.formula}, bands: [{bands}]{extra}}}"


def _name(text: str) -> str:
    """`text` as a valid name in a config."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]", "", re.sub(r"[\s/]+", "_", text)) or "b1"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else json.dumps(value)


def _text(value: str) -> str:
    """Unquoted if YAML reads it as this very string, else quoted."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value) and value.lower() not in YAML_WORDS
    return value if is_plain else json.dumps(value)


def _remark(text: str) -> str:
    return f"  # {' '.join(text.split())}" if text else ""
