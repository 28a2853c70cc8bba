"""A made disaster: floods and fires drawn into the demo's real Sentinel-2 series. Where and when they are is known exactly.

    python -m flows.disaster           # writes data/disaster/: series.nc, labels.csv, truth.tif
    python -m flows.disaster --score   # compares what both runs of it have published with the truth

Clouds, noise, felling and seasons are those of the real series (`pipelines.samples.drawn_events`).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from flows.demo import DATA, fetch_data
from flows.terminal import Bars
from pipelines.errors import MissingInput

if TYPE_CHECKING:
    import numpy as np

SERIES = "sentinel2_cube_subset_romania_10m.nc"
FOLDER = Path("data/disaster")
SPAN = "2019-05-01", "2019-11-01"
LABELS = 150  # of each class; 5 to 10 % of the flooded and burnt pixels
SEGMENT, MONITOR = Path("runs/disaster-segment/products"), Path("runs/disaster-monitor/products")


def write_disaster(source: Path, folder: Path = FOLDER, seed: int = 0) -> dict[str, int]:
    """Number of pixels of each class; the three files are written into `folder`. `source`: the demo's netCDF file."""
    import numpy as np
    import rasterio
    import xarray as xr
    from pyproj import Transformer

    from pipelines.samples.drawn_events import CLASSES, draw_events

    dataset = xr.load_dataset(source, mask_and_scale=False)
    truth_YX = draw_events(dataset, seed)
    folder.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(folder / "series.nc")
    x, y, crs = dataset["x"].values, dataset["y"].values, dataset["spatial_ref"].attrs["spatial_ref"]
    step_x, step_y = x[1] - x[0], y[1] - y[0]
    affine = rasterio.Affine(step_x, 0, x[0] - step_x / 2, 0, step_y, y[0] - step_y / 2)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "transform": affine}
    with rasterio.open(folder / "truth.tif", "w", height=len(y), width=len(x), **profile) as raster:
        raster.write(truth_YX, 1)
    rng, to_lonlat = np.random.default_rng(seed), Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["longitude", "latitude", "from", "to", "label"])
        for code, name in CLASSES.items():
            flat_P = rng.choice(np.flatnonzero(truth_YX == code), LABELS, replace=False)
            for row, column in zip(*np.unravel_index(flat_P, truth_YX.shape), strict=True):
                lines.writerow([*to_lonlat.transform(x[column], y[row]), *SPAN, name])
    return {name: int((truth_YX == code).sum()) for code, name in CLASSES.items()}


def score_segment(truth_YX: np.ndarray, products: Path = SEGMENT) -> list[str]:
    """Lines with recall and precision of each class of the published map, over all pixels, labelled ones too."""
    import numpy as np

    from pipelines.samples.drawn_events import CLASSES

    (path,) = products.glob("*class.tif")
    mapped_YX, named = read_raster(path), sorted(CLASSES.values())  # classes of a map are sorted by name
    lines = [f"segment: {np.mean(mapped_YX == np.vectorize(_code_in_map(named).get)(truth_YX)):.3f} of all pixels named rightly"]
    for code, name in CLASSES.items():
        is_true, is_said = truth_YX == code, mapped_YX == named.index(name) + 1
        hits = np.count_nonzero(is_true & is_said)
        lines.append(f"segment: {name}: recall {hits / is_true.sum():.3f}, precision {hits / max(is_said.sum(), 1):.3f}")
    return lines


def _code_in_map(named: list[str]) -> dict[int, int]:
    from pipelines.samples.drawn_events import CLASSES

    return {code: named.index(name) + 1 for code, name in CLASSES.items()}


def score_monitor(truth_YX: np.ndarray, products: Path = MONITOR) -> list[str]:
    """Lines with what was alarmed of each event until `SPAN` ends, how late, how it was dated, and alarms elsewhere."""
    import numpy as np

    from pipelines.samples.drawn_events import BEGINS, CLASSES

    change_YX, alarm_YX = (read_raster(products / f"{name}_date.tif") for name in ("change", "detected"))
    day_of = {code: _day(begin) for code, begin in BEGINS.items()}
    in_span_YX, lines = (alarm_YX >= min(day_of.values())) & (alarm_YX < _day(SPAN[1])), []
    for code, begin in day_of.items():
        is_found_YX = (truth_YX == code) & in_span_YX & (alarm_YX >= begin)
        late, early = np.median(alarm_YX[is_found_YX] - begin), np.mean(change_YX[is_found_YX] < begin)
        share = np.count_nonzero(is_found_YX) / np.count_nonzero(truth_YX == code)
        lines.append(
            f"monitor: {CLASSES[code]}: {share:.3f} alarmed, {late:.0f} days after it began (median); of these {early:.3f} "
            "are dated before it began"
        )
    elsewhere = np.count_nonzero(in_span_YX & (truth_YX == 0))
    drawn = 1 - elsewhere / max(int(np.count_nonzero(in_span_YX)), 1)
    return [
        *lines,
        f"monitor: {drawn:.3f} of the alarms in this time are on drawn pixels, {elsewhere} are not (real felling too)",
    ]


def _day(date: str) -> int:
    """Days since 1970-01-01."""
    from datetime import date as calendar

    return (calendar.fromisoformat(date) - calendar(1970, 1, 1)).days


def read_raster(path: Path) -> np.ndarray:
    """The first band. Raises MissingInput."""
    import rasterio

    if not path.exists():
        raise MissingInput(f"{path} is not there; run both configs of the disaster first")
    with rasterio.open(path) as raster:
        values: np.ndarray = raster.read(1)
    return values


def main() -> None:
    """`python -m flows.disaster`."""
    parser = argparse.ArgumentParser(prog="python -m flows.disaster", description="floods and fires drawn into a real series")
    parser.add_argument("--score", action="store_true", help="compare what was published with the truth")
    if parser.parse_args().score:
        truth_YX = read_raster(FOLDER / "truth.tif")
        print("\n".join([*score_segment(truth_YX), *score_monitor(truth_YX)]))
        return
    counts = write_disaster(fetch_data(Bars(), DATA) / SERIES)
    print(f"{FOLDER}: made floods and fires in a real series; pixels: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
