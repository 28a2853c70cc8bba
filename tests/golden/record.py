"""What a finished run computed, in a form that outlives renames: arrays, weights, loss curve, pixels, outlines, point metrics.

A record maps a role, e.g. `forecast/product/forecast/0/1`, to one array: dtype, shape, SHA-256 of its bytes, and a few numbers.
Intervals, verdicts, keys and words are left out. What is called how today stands in the table below and nowhere else: a commit
that renames a file, a folder, a JSON key or a variable of the cube changes a line of the table, never a role and never a value.
A role numbers what `*` finds, in sorted order (files) or in the order of the file (JSON). Tensors, and files named by their
content, are ordered by their values, so that their names do not matter.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from safetensors.numpy import load_file

from pipelines.cube.store import open_cube
from pipelines.monitoring.state import unpack

Json = Mapping[str, object]
Named = tuple[str, np.ndarray]  # role within its file, or today's name, and the values

# ---------------------------------------------------------------- the table: role -> what it is called today

RUN_FOLDERS = {"forecast": "runs/demo", "monitor": "runs/demo-change", "change": "runs/tiny"}

CUBE = {  # role -> variable of open_cube's Dataset
    "pixels": "image",
    "usable": "valid",
    "usable_share": "valid_fraction",
    "time": "time",
    "y": "y",
    "x": "x",
}

LOSS = ("loss", "stages/train.json", "training/members/*/curve/*", "epoch training_loss validation_loss learning_rate")
OBJECTS = "pixels area_m2 perimeter_m magnitude confidence recovered_px lon lat"
COUNTS = "pixels labelled_changed true_changed false_changed missed true_unchanged"

FILES = {  # run -> role -> files below the run's folder
    "forecast": {
        "cube": "cube",
        "model": "model/*.safetensors",
        "staged": "staging/*/*.region",
        "product/forecast": "products/forecast_*.tif",
    },
    "monitor": {
        "cube": "cube",
        "fitted": "state/*/blocks/*/fitted-*",
        "state": "state/*/blocks/*/[sk]*-*",
        "known": "state/alerts/*.safetensors",
        "layer": "state/*/layers/*/*.region",
        "product/change_date": "products/change_date.tif",
        "product/detected_date": "products/detected_date.tif",
        "product/recovered_date": "products/recovered_date.tif",
        "product/magnitude": "products/magnitude.tif",
        "product/confidence": "products/confidence.tif",
        "product/score": "products/score.tif",
        "product/status": "products/status.tif",
        "product/direction": "products/direction.tif",
        "outlines/gpkg": "products/changes.gpkg",
        "outlines/geojson": "products/changes.geojson",
        "outlines/parquet": "products/changes.parquet",
    },
    "change": {
        "cube": "cubes/*/",
        "model": "model/*.safetensors",
        "sample/values": "samples/*/x.npy",
        "sample/usable": "samples/*/valid.npy",
        "sample/label": "samples/*/label.npy",
        "score": "scores/*.npy",
        "staged/probability": "staging/*/probability.npy",
        "staged/mask": "staging/*/mask.npy",
        "product/probability": "products/*-probability.tif",
        "product/mask": "products/*-mask.tif",
        "outlines/gpkg": "products/*-changes.gpkg",
        "outlines/geojson": "products/*-changes.geojson",
        "outlines/parquet": "products/*-changes.parquet",
    },
}

NUMBERS = {  # run -> (role, JSON file below the run's folder, path in it, keys): one row per match, one column per key
    "forecast": (
        LOSS,
        ("residual_share", "stages/train.json", "residual_scale/*", ""),
        ("metrics/overall", "evaluation.json", "details/metrics/*/overall", "mae rmse bias ssim pixels"),
        ("metrics/by_lead", "evaluation.json", "details/metrics/*/by_lead/*", "lead mae rmse bias ssim pixels"),
        ("metrics/skill", "evaluation.json", "details/skill/*/overall", "skill"),
        ("metrics/skill_by_lead", "evaluation.json", "details/skill/*/by_lead/*", "lead skill"),
        ("metrics/by_date", "evaluation.json", "details/by_date/mae/*/*", ""),
    ),
    "monitor": (
        ("alerts", "alerts.json", "alerts/*", f"number {OBJECTS}"),
        ("metrics/pixels", "evaluation.json", "details", "stable_pixels monitored_pixels limit"),
        ("metrics/overall", "evaluation.json", "methods/*", "threshold found_0.2 delay_0.2 found_0.4 delay_0.4"),
        ("metrics/false", "evaluation.json", "details/methods/*/false_alarms", "per_1000_px_year alarms pixels pixel_years"),
        ("metrics/drops", "evaluation.json", "details/methods/*/drops/*", "breaks alarmed_before found"),
        ("metrics/at_wanted_rate", "evaluation.json", "details/methods/*/at_wanted_rate", "threshold"),
        ("metrics/seen", "evaluation.json", "details/methods/*/seen_in_images/*", "pixels found alarmed_before"),
        ("metrics/pairs", "evaluation.json", "details/pairs/*", "found_2019 found_2020 false_alarms"),
        ("metrics/pair_thresholds", "evaluation.json", "details/pairs/*/thresholds/*", ""),
        ("metrics/calibrated_on", "evaluation.json", "details/calibrated_on/years/*", ""),
    ),
    "change": (
        LOSS,
        ("threshold", "stages/train.json", "", "threshold calibration_f1"),
        ("metrics/pooled", "evaluation.json", "details/methods/*/pooled", f"precision recall f1 iou average_precision {COUNTS}"),
        ("metrics/sites", "evaluation.json", "details/methods/*/sites/*", f"precision recall f1 iou average_precision {COUNTS}"),
        ("metrics/mean", "evaluation.json", "details/methods/*", "mean_f1_of_sites sites_with_change"),
        ("metrics/thresholds", "evaluation.json", "details/methods/*/thresholds/*", ""),
        ("metrics/reliability", "evaluation.json", "details/methods/*/reliability/bins/*", "from to pixels claimed happened"),
        ("metrics/expected_error", "evaluation.json", "details/methods/*/reliability", "expected_error"),
        ("metrics/differences", "evaluation.json", "details/differences/*", "value"),
        ("metrics/area", "evaluation.json", "details/area/*", "mapped_m2 labelled_m2 sampled"),
        ("metrics/area_estimate", "evaluation.json", "details/area/*/estimate", "value"),
    ),
}

# ---------------------------------------------------------------- one array

ALL_OF, SOME = 64, 8  # an array of at most ALL_OF elements is recorded in full, of a larger one SOME elements


@dataclass(frozen=True)
class Entry:
    """One array. `stats`: number of valid (finite) elements and their mean, standard deviation, minimum and maximum.

    Dates are counted in days since 1970. `values`: all elements, or a few at fixed positions.
    """

    dtype: str
    shape: tuple[int, ...]
    stats: tuple[float, ...]
    values: tuple[float, ...]
    sha256: str = ""
    name: str = ""  # today's, to find it; never compared
    text: str = ""  # CRS and nodata of a raster or outline

    @classmethod
    def of(cls, array: np.ndarray, name: str = "", text: str = "") -> "Entry":
        array = np.ascontiguousarray(array)
        flat = days_of(array).ravel() if array.dtype.kind == "M" else array.ravel()
        positions = (
            np.arange(flat.size) if flat.size <= ALL_OF else (np.arange(1, SOME + 1) * 0.618034 % 1 * flat.size).astype(int)
        )
        finite = flat[np.isfinite(flat)].astype(np.float64)
        stats = (finite.mean(), finite.std(), finite.min(), finite.max()) if finite.size else ()
        return cls(
            array.dtype.str,
            array.shape,
            (finite.size, *(float(value) for value in stats)),
            tuple(flat[positions].astype(np.float64).tolist()),
            hashlib.sha256(array.tobytes()).hexdigest(),
            name,
            text,
        )

    @property
    def order(self) -> tuple[object, ...]:
        return self.dtype, self.shape, self.stats, str(self.values), self.sha256


Record = dict[str, Entry]


def days_of(dates: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01, float64; NaN for no date."""
    return np.where(np.isnat(dates), np.nan, dates.astype("M8[ns]").astype(np.int64) / 86_400e9)


# ---------------------------------------------------------------- from a run's folder


def collect(run: str, folder: Path) -> Record:
    """Every role of the run (`forecast`, `monitor` or `change`) in its folder, e.g. runs/demo.

    Raises FileNotFoundError or KeyError for a role that the run did not leave: a rename that the table does not know yet.
    """
    entries: Record = {}
    for role, pattern in FILES[run].items():
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise FileNotFoundError(
                f"{folder / pattern}: nothing there for the role {run}/{role}; put its new name into the table"
            )
        entries.update(unordered(f"{run}/{role}", paths) if is_unordered(pattern) else ordered(f"{run}/{role}", paths))
    for role, file, path, keys in NUMBERS[run]:
        document = json.loads((folder / file).read_text(encoding="utf-8"))
        rows = [numbers_of(found, keys.split()) for found in walk(document, path.split("/") if path else [])]
        if not rows:
            raise KeyError(f"{folder / file}: nothing at {path} for {run}/{role}; put its new path into the table")
        entries[f"{run}/{role}"] = Entry.of(np.array(rows, np.float64), f"{path}: {keys}")
    return entries


def is_unordered(pattern: str) -> bool:
    return pattern.endswith(".safetensors") or "/blocks/" in pattern or pattern.startswith("scores/")


def unordered(role: str, paths: list[Path]) -> Record:
    named = [(f"{path.stem} {name}".strip(), array) for path in paths for name, array in arrays_of(path)]
    found = sorted((Entry.of(array, name) for name, array in named), key=lambda entry: entry.order)
    return {f"{role}/{i:03d}": entry for i, entry in enumerate(found)}


def ordered(role: str, paths: list[Path]) -> Record:
    if [path.suffix for path in paths] == [".region"]:
        planes = [*planes_of(paths[0])]
        if role.endswith("/layer"):  # known by their names
            return {f"{role}/{name}/0": Entry.of(plane, name) for name, plane in planes}
        return {f"{role}/{i}": Entry.of(plane, f"{name}.f32") for i, (name, plane) in enumerate(planes)}
    return {
        f"{role}/{i}/{part}".rstrip("/"): Entry.of(array, path.name, text_of(path) if part == "0" else "")
        for i, path in enumerate(paths)
        for part, array in arrays_of(path)
    }


def planes_of(path: Path) -> Iterator[Named]:
    """The planes of a raster that is one region, flat."""
    job, content, start = json.loads((path.parent / "job.json").read_text(encoding="utf-8")), path.read_bytes(), 0
    pixels = int(np.prod(job["shape"]))
    for name, dtype in job["planes"]:
        yield name, np.frombuffer(content, dtype, pixels, start)
        start += pixels * np.dtype(dtype).itemsize


def tensors_of(path: Path) -> Iterator[Named]:
    """The tensors in a file of a block, tile by tile."""
    content, start = path.read_bytes(), 0
    while start < len(content):
        head = start + 4 + int.from_bytes(content[start : start + 4], "little")
        stop = head + sum(size for *_, size in json.loads(content[start + 4 : head]))
        yield from unpack(content[start:stop]).items()
        start = stop


def arrays_of(path: Path) -> Iterator[Named]:
    """The arrays in a file or cube, each with its role in there."""
    if path.is_dir():
        cube = open_cube(str(path))
        yield from ((role, cube[name].values) for role, name in CUBE.items())
    elif path.parent.parent.name == "blocks":
        yield from tensors_of(path)
    elif path.suffix == ".safetensors":
        yield from load_file(path).items()
    elif path.suffix == ".npy":
        yield "", np.load(path)
    elif path.suffix == ".tif":
        with rasterio.open(path) as raster:
            yield from ((str(band), raster.read(band + 1)) for band in range(raster.count))
            yield "transform", np.array(raster.transform[:6])
    elif path.suffix in (".gpkg", ".geojson", ".parquet"):
        yield from arrays_of_outlines(read_outlines(path))
    else:  # little-endian numbers without a header; the suffix says which
        yield "", np.fromfile(path, {"f32": "<f4"}.get(path.suffix[1:], f"<{path.suffix[1:]}"))


def arrays_of_outlines(frame: geopandas.GeoDataFrame) -> Iterator[Named]:
    """Corners, where rings, polygons and multipolygons begin, and every column of numbers or dates, in the order of the file."""
    _, corners, offsets = shapely.to_ragged_array(frame.geometry.values)
    yield "0", corners
    yield "begin", np.concatenate(offsets)
    columns = frame.drop(columns=frame.geometry.name).select_dtypes(include=["number", "datetime", "datetimetz"])
    for i, (_, column) in enumerate(columns.items()):
        dates = column.dtype.kind == "M"
        yield f"column/{i}", column.to_numpy("datetime64[ns]") if dates else column.to_numpy()


def read_outlines(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


def text_of(path: Path) -> str:
    """CRS, and of a raster nodata: what must not change without a word."""
    if path.suffix == ".tif":
        with rasterio.open(path) as raster:
            return f"{raster.crs.to_string()}, nodata {raster.nodata}"
    return str(read_outlines(path).crs) if path.suffix in (".gpkg", ".geojson", ".parquet") else ""


# ---------------------------------------------------------------- numbers in JSON


def walk(node: object, steps: list[str]) -> Iterator[object]:
    """What the path leads to; `*` is every value of a mapping or list, a step that is not there (or null) leads nowhere."""
    if not steps:
        yield node
        return
    children = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, dict) else {}
    for key, child in children.items():
        if steps[0] in ("*", key) and child is not None:
            yield from walk(child, steps[1:])


def numbers_of(found: object, keys: list[str]) -> list[float]:
    """The number itself, or those under `keys`; null is NaN. Raises KeyError for a key that is not there."""
    values = [found[key] for key in keys] if isinstance(found, dict) else [found]
    return [np.nan if value is None else float(value) for value in values]  # type: ignore[arg-type]
