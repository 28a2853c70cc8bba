"""Ingest of 10,000 files of 64x64 pixels, one date each, by the command line: all of them, then nothing new.

    python -m benchmarks.bench_many_files [--quick]

Both with start-up. The limits are for two cores that have nothing else to do; CPU seconds depend less on other load.
"""

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.criteria import verdict
from benchmarks.measuring import run_measured

FILES, SIZE_PX = 10_000, 64
ALL_S, NOTHING_NEW_S = 120.0, 5.0
CONFIG = """
name: many
task: forecast
source: {kind: folder, path: scenes, pattern: "{band}_{date:%Y%m%d}.tif", bands: [B04]}
samples: {variables: [{name: v, bands: [B04]}]}
split: {block_px: 16, validation_from: 1995-01-01, test_from: 1996-01-01}
"""


def make_files(folder: Path, count: int) -> None:
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir()
    base = np.random.default_rng(0).integers(500, 3000, (SIZE_PX, SIZE_PX)).astype("uint16")
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "width": SIZE_PX, "height": SIZE_PX, "crs": "EPSG:32633",
        "transform": from_origin(300_000, 5_400_000, 10, 10), "nodata": 0, "compress": "deflate",
    }  # fmt: skip
    with rasterio.Env():
        for index in range(count):
            date = datetime(1990, 1, 1) + timedelta(index)
            with rasterio.open(folder / f"B04_{date:%Y%m%d}.tif", "w", **profile) as file:
                file.write(base + np.uint16(index % 700), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    count = FILES // 10 if parser.parse_args().quick else FILES
    print(f"many files, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_files(folder / "scenes", count)
        (folder / "many.yaml").write_text(CONFIG)
        command = [sys.executable, "-m", "flows.cli", "ingest", str(folder / "many.yaml"), "--json"]
        costs = {name: run_measured(command) for name in ("all", "nothing new")}
    print(f"\n{count} files of {SIZE_PX}x{SIZE_PX}   {'wall s':>8}{'CPU s':>8}{'peak GB':>9}")
    for name, cost in costs.items():
        if cost.returncode:
            raise SystemExit(f"{name}: exit code {cost.returncode}\n{cost.stdout}")
        print(f"{name:24}{cost.seconds:8.1f}{cost.cpu_seconds:8.1f}{cost.peak_gb:9.2f}")
    print(f"per file: {1e3 * costs['all'].cpu_seconds / count:.1f} ms of CPU")
    if count == FILES:
        print(verdict("all, wall clock", costs["all"].seconds, at_most=ALL_S, unit=" s"))
        print(verdict("nothing new, wall clock", costs["nothing new"].seconds, at_most=NOTHING_NEW_S, unit=" s"))


if __name__ == "__main__":
    main()
