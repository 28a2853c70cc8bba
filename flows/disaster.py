"""A made disaster: floods and fires drawn into the demo's real Sentinel-2 series. Where and when they are is known exactly.

    python -m flows.disaster                  # writes data/disaster/: series.nc, labels.csv, truth.tif
    python -m flows.disaster --score          # compares what both runs of it have published with the truth
    python -m flows.disaster --rare           # writes data/disaster-rare/: events of 1 % and 0.3 %, labels.tif
    python -m flows.disaster --rare --score

Clouds, noise, felling and seasons are those of the real series (`pipelines.samples.drawn_events`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.demo import DATA, fetch_data
from flows.terminal import Bars

SERIES = "sentinel2_cube_subset_romania_10m.nc"
FOLDER, RARE_FOLDER = Path("data/disaster"), Path("data/disaster-rare")
SPAN = "2019-05-01", "2019-11-01"
LABELS, RARE_LABELS = 150, 4000  # of each class (5 to 10 % of the flooded and burnt pixels); of all pixels
SEGMENT, MONITOR = Path("runs/disaster-segment/products"), Path("runs/disaster-monitor/products")
RARE_SEGMENT = Path("runs/disaster-rare/products")


def write_disaster(source: Path, folder: Path | None = None, *, is_rare: bool = False) -> dict[str, int]:
    """Number of pixels of each class; the files are written into `folder`. `source`: the demo's netCDF file."""
    from pipelines.products.drawn_files import write_events
    from pipelines.samples.drawn_events import LARGE, RARE

    if is_rare:
        return write_events(source, folder or RARE_FOLDER, RARE, SPAN, RARE_LABELS, as_raster=True)
    return write_events(source, folder or FOLDER, LARGE, SPAN, LABELS)


def score_disaster(*, is_rare: bool = False) -> list[str]:
    """Lines about what was published, against the truth. Raises MissingInput."""
    from pipelines.learning.drawn_scores import score_drawn_alarms, score_drawn_map
    from pipelines.products.drawn_files import read_first_band

    products = RARE_SEGMENT if is_rare else SEGMENT
    truth_YX = read_first_band((RARE_FOLDER if is_rare else FOLDER) / "truth.tif")
    lines = score_drawn_map(truth_YX, read_first_band(products / "class.tif"))
    if is_rare:
        return lines
    change_YX, alarm_YX = (read_first_band(MONITOR / f"{name}_date.tif") for name in ("change", "detected"))
    return [*lines, *score_drawn_alarms(truth_YX, change_YX, alarm_YX, SPAN[1])]


def main() -> None:
    """`python -m flows.disaster`."""
    parser = argparse.ArgumentParser(prog="python -m flows.disaster", description="floods and fires drawn into a real series")
    parser.add_argument("--score", action="store_true", help="compare what was published with the truth")
    parser.add_argument("--rare", action="store_true", help="events of 1 % and 0.3 % of the pixels")
    asked = parser.parse_args()
    if asked.score:
        print("\n".join(score_disaster(is_rare=asked.rare)))
        return
    counts = write_disaster(fetch_data(Bars(), DATA) / SERIES, is_rare=asked.rare)
    where = RARE_FOLDER if asked.rare else FOLDER
    print(f"{where}: made floods and fires in a real series; pixels: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
