"""Ingest of 30 scenes of 4 bands of 4096x4096: memory, resuming after kill -9, and the share of what the machine can do.

    python -m benchmarks.bench_large_scenes [--quick]

The limit is the same work without driftline, in one process per core: decode, warp, compress; nothing is checked or stored.
Memory is that of all processes together, pages that they share counted once.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.criteria import verdict
from benchmarks.measuring import Costs, run_measured

SIZE_PX, CHUNK_PX, RESOLUTION_M = 4096, 256, 10.0
BANDS = ("B02", "B03", "B04", "B08")
CRS, LEFT, TOP = "EPSG:32633", 300_000.0, 5_400_000.0
SHIFT_M = 3.3  # of the cube's grid against the scenes, which are then warped
FEW, MANY, DIFFERENT = 10, 30, 3  # scenes; those that differ, the others are links to them
MEMORY_LIMIT_GB, MEMORY_GROWTH = 1.5, 1.1


def make_scenes(folder: Path, count: int) -> Path:
    """Tiled uint16 GeoTIFFs, deflate, one per band and date."""
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir()
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "width": SIZE_PX, "height": SIZE_PX, "crs": CRS, "nodata": 0,
        "transform": from_origin(LEFT, TOP, RESOLUTION_M, RESOLUTION_M), "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "deflate", "predictor": 2, "zlevel": 1,
    }  # fmt: skip
    for index in range(count):
        for number, band in enumerate(BANDS):
            path = _path(folder, index, band)
            if index >= DIFFERENT:
                os.link(_path(folder, index % DIFFERENT, band), path)
                continue
            rows = 1500 + 300 * number + 100 * index + rng.normal(0, 60, (SIZE_PX, 1))
            with rasterio.open(path, "w", **profile) as file:
                file.write((rows + rng.integers(0, 128, (SIZE_PX, SIZE_PX))).astype("uint16"), 1)
    return folder


def _path(folder: Path, index: int, band: str) -> Path:
    return folder / f"{datetime(2024, 1, 1) + timedelta(5 * index):%Y%m%d}_{band}.tif"


def ingest(scenes: Path, out: Path, shift_m: float, count: int) -> None:
    """The first `count` scenes into a cube on a grid that is shifted by `shift_m`; prints what became of them."""
    from pipelines.cube.ingest import IngestSettings
    from pipelines.cube.ingest import ingest as ingest_source
    from pipelines.grid import Grid
    from pipelines.scene import Band
    from pipelines.sources.folder import FolderSource
    from pipelines.sources.layers import BandRequest
    from pipelines.sources.source import Listing

    class First(FolderSource):
        def list_scenes(self) -> Listing:
            return Listing(super().list_scenes().scenes[:count])

    grid = Grid(CRS, (RESOLUTION_M, 0.0, LEFT + shift_m, 0.0, -RESOLUTION_M, TOP - shift_m), (SIZE_PX, SIZE_PX))
    source = First(path=scenes, pattern="{date:%Y%m%d}_{band}.tif", requested=BandRequest(tuple(map(Band, BANDS))))
    report = ingest_source(source, None, str(out), grid, IngestSettings(chunk_px=CHUNK_PX, on_other_grid="reproject"))
    print(json.dumps({"added": len(report.added), "unchanged": len(report.unchanged), "refused": len(report.refused)}))


def work_alone(shift_m: float, scene: list[str]) -> int:
    """Decodes, warps and compresses the bands of one scene; returns the compressed bytes."""
    import rasterio
    from numcodecs.blosc import Blosc
    from rasterio.vrt import WarpedVRT

    codec, affine = (
        Blosc("zstd", 3, Blosc.BITSHUFFLE),
        rasterio.Affine(RESOLUTION_M, 0, LEFT + shift_m, 0, -RESOLUTION_M, TOP - shift_m),
    )
    image = np.empty((len(scene), SIZE_PX, SIZE_PX), "uint16")
    for number, path in enumerate(scene):
        frame = {"crs": CRS, "transform": affine, "width": SIZE_PX, "height": SIZE_PX}
        with rasterio.open(path) as file, WarpedVRT(file, **frame) as warped:
            (warped if shift_m else file).read(1, out=image[number])
    starts = range(0, SIZE_PX, CHUNK_PX)
    chunks = (image[:, row : row + CHUNK_PX, column : column + CHUNK_PX] for row in starts for column in starts)
    return sum(len(codec.encode(np.ascontiguousarray(chunk))) for chunk in chunks)


def reach_limit(scenes: Path, shift_m: float, count: int) -> None:
    files = [[str(_path(scenes, index, band)) for band in BANDS] for index in range(count)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        print(sum(pool.map(partial(work_alone, shift_m), files)))


def call(*arguments: object, stop_at: Path | None = None) -> Costs:
    """Costs of this module in a process of its own, killed once the cube at `stop_at` has a version with scenes."""
    command = [sys.executable, "-m", "benchmarks.bench_large_scenes", "--one", *map(str, arguments)]
    return run_measured(command, None if stop_at is None else lambda: _count_snapshots(stop_at) > 1)


def _count_snapshots(cube: Path) -> int:
    return len(list((cube / "snapshots").glob("*"))) if cube.exists() else 0


def compare(folder: Path, scenes: Path, few: int, rounds: int) -> None:
    for name, shift_m in (("warped", SHIFT_M), ("same grid", 0.0)):
        turns = []
        for turn in range(rounds):
            ours = partial(call, "ingest", scenes, folder / f"cube{turn}{name[0]}", shift_m, few)
            limit = partial(call, "limit", scenes, "-", shift_m, few)
            first, second = (ours, limit) if turn % 2 == 0 else (limit, ours)
            costs = first(), second()
            turns.append(costs if turn % 2 == 0 else costs[::-1])
        for label, at in (("driftline", 0), ("limit", 1)):
            middle = (
                statistics.median(getattr(turn[at], key) for turn in turns) for key in ("seconds", "cpu_seconds", "peak_gb")
            )
            print("{:10}{:10}{:8.1f}{:8.1f}{:9.2f}".format(name, label, *middle))
        for key, clock in (("cpu_seconds", "CPU"), ("seconds", "wall clock")):
            share = statistics.median(getattr(limit, key) / getattr(ours, key) for ours, limit in turns)
            print(f"share of the limit, {name}, {clock}: {share:.2f}")


def resume(folder: Path, scenes: Path, few: int, many: int) -> None:
    cube = folder / "resumed"
    killed = call("ingest", scenes, cube, SHIFT_M, many, stop_at=cube)
    rest = call("ingest", scenes, cube, SHIFT_M, many)
    found = json.loads(rest.stdout.splitlines()[-1])
    fewer = call("ingest", scenes, folder / "fewer", SHIFT_M, few)
    print(f"killed (exit code {killed.returncode}) after the first commit; then {found}")
    print(f"{few} scenes: {fewer.peak_gb:.2f} GB; {many} scenes, resumed: {max(killed.peak_gb, rest.peak_gb):.2f} GB")
    print(verdict("finished scenes that were not read again", found["unchanged"], at_least=1, unit=""))
    print(verdict("scenes in the cube", found["unchanged"] + found["added"], at_least=many, unit=""))
    peak = max(fewer.peak_gb, rest.peak_gb, killed.peak_gb)
    print(verdict("peak memory", peak, at_most=MEMORY_LIMIT_GB, unit=" GB"))
    print(verdict(f"peak memory, {many} against {few} scenes", peak / fewer.peak_gb, at_most=MEMORY_GROWTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer scenes and turns")
    parser.add_argument("--one", nargs=5, metavar=("KIND", "SCENES", "OUT", "SHIFT", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, scenes, out, shift_m, count = arguments.one
        if kind == "limit":
            reach_limit(Path(scenes), float(shift_m), int(count))
        else:
            ingest(Path(scenes), Path(out), float(shift_m), int(count))
        return
    few, many = (4, 12) if arguments.quick else (FEW, MANY)
    print(
        f"large scenes, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{many} scenes of {len(BANDS)} bands of {SIZE_PX}x{SIZE_PX} uint16, chunks of {CHUNK_PX}x{CHUNK_PX}; {few} in each turn"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scenes = make_scenes(folder / "scenes", many)
        resume(folder, scenes, few, many)
        print(f"\n{'':20}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}")
        compare(folder, scenes, few, 1 if arguments.quick else 2)


if __name__ == "__main__":
    main()
