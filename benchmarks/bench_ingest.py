"""Ingest against a rasterio WarpedVRT thread pool that writes the same chunks: 24 COGs of 2048x2048 from two UTM zones.

`python -m benchmarks.bench_ingest [--rounds N]`. Every run has a process of its own; both kinds take turns. The peer is
plain: open, warp, write to Zarr, one scene per thread; it checks nothing, has no mask, no history and no transaction.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

SIZE_PX, SCENES, CHUNK_PX, RESOLUTION_M = 2048, 24, 256, 10.0
TARGET_CRS = "EPSG:32633"
LEFT, TOP = 270_000.0, 5_420_000.0  # near 12 degrees east, where zones 32 and 33 meet
MEMORY_LIMIT_GB = 0.35


def make_scenes(folder: Path) -> None:
    """Sentinel-2 like uint16 COGs, every second one in the neighbouring zone; they cover the same ground."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.warp import transform
    from scipy import ndimage

    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(SIZE_PX, SIZE_PX)), 20)
    base = 1500 + 900 * smooth / np.abs(smooth).max()
    for index in range(SCENES):
        crs, left, top = TARGET_CRS, LEFT, TOP
        if index % 2:
            crs = "EPSG:32632"
            (left,), (top,) = transform(TARGET_CRS, crs, [LEFT], [TOP])
        image = np.clip(base + 20 * index + rng.normal(0, 60, base.shape), 1, 10_000).astype("uint16")
        profile = {
            "driver": "COG",
            "dtype": "uint16",
            "count": 1,
            "width": SIZE_PX,
            "height": SIZE_PX,
            "crs": crs,
            "transform": from_origin(left, top, RESOLUTION_M, RESOLUTION_M),
            "nodata": 0,
            "compress": "deflate",
            "predictor": 2,
            "blocksize": 512,
        }
        day = datetime.fromordinal(datetime(2024, 1, 1).toordinal() + 5 * index)
        with rasterio.open(folder / f"scene_{day:%Y%m%d}_B04.tif", "w", **profile) as file:
            file.write(image, 1)


def run_driftline(scenes: Path, out: Path) -> None:
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.grid import Grid
    from pipelines.scene import Band
    from pipelines.sources.folder import FolderSource
    from pipelines.sources.layers import Wanted

    grid = Grid(TARGET_CRS, (RESOLUTION_M, 0.0, LEFT, 0.0, -RESOLUTION_M, TOP), (SIZE_PX, SIZE_PX))
    source = FolderSource(path=scenes, pattern="scene_{date:%Y%m%d}_{band}.tif", wanted=Wanted((Band("B04"),)))
    settings = IngestSettings(chunk_px=CHUNK_PX, on_other_grid="reproject", memory_mb=128)
    report = ingest(source, None, str(out / "cube"), grid, settings)
    if len(report.added) != SCENES:
        raise SystemExit(f"expected {SCENES} scenes in the cube, got {report}")


def run_peer(scenes: Path, out: Path) -> None:
    import rasterio
    import zarr
    from rasterio.vrt import WarpedVRT
    from zarr.codecs import BloscCodec

    image = zarr.create_array(
        out / "plain.zarr",
        shape=(SCENES, 1, SIZE_PX, SIZE_PX),
        chunks=(1, 1, CHUNK_PX, CHUNK_PX),
        dtype="uint16",
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2),
    )
    affine = rasterio.Affine(RESOLUTION_M, 0, LEFT, 0, -RESOLUTION_M, TOP)

    def lay(index: int, path: Path) -> None:
        with (
            rasterio.open(path) as file,
            WarpedVRT(file, crs=TARGET_CRS, transform=affine, width=SIZE_PX, height=SIZE_PX) as warped,
        ):
            image[index] = warped.read()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lay, range(SCENES), sorted(scenes.glob("*.tif"))))


def measure(kind: str, scenes: Path) -> dict[str, float]:
    """Seconds and peak memory of one run in a fresh process, imports not timed."""
    with tempfile.TemporaryDirectory(dir=scenes.parent) as out:
        command = [sys.executable, "-m", "benchmarks.bench_ingest", "--one", kind, str(scenes), out]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_one(kind: str, scenes: Path, out: Path) -> None:
    if kind == "driftline":
        import pipelines.cube.ingest
        import pipelines.sources.folder  # noqa: F401
    else:
        import rasterio.vrt  # noqa: F401
        import zarr  # noqa: F401
    cpu, started = time.process_time(), time.monotonic()
    (run_driftline if kind == "driftline" else run_peer)(scenes, out)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak_gb}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "SCENES", "OUT"))
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], Path(arguments.one[1]), Path(arguments.one[2]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder) / "scenes"
        scenes.mkdir()
        make_scenes(scenes)
        runs: dict[str, list[dict[str, float]]] = {"driftline": [], "WarpedVRT pool": []}
        for _ in range(arguments.rounds):
            for kind, found in runs.items():
                found.append(measure(kind, scenes))
    return print_table(runs)


def print_table(runs: dict[str, list[dict[str, float]]]) -> int:
    """The medians, the ratio and the verdict; 1 if a mark was missed."""
    print(f"ingest, {datetime.now(UTC):%Y-%m-%d}, {platform.node()}, {os.cpu_count()} cores")
    print(f"{SCENES} COGs {SIZE_PX}x{SIZE_PX} uint16 from two zones; medians of {len(runs['driftline'])} runs")
    print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}")
    medians = {kind: {key: statistics.median(run[key] for run in found) for key in found[0]} for kind, found in runs.items()}
    for kind, row in medians.items():
        print(f"{kind:16}{row['seconds']:8.2f}{row['cpu_seconds']:8.2f}{row['peak_gb']:9.2f}")
    ratio = medians["WarpedVRT pool"]["seconds"] / medians["driftline"]["seconds"]
    peak_gb = max(run["peak_gb"] for run in runs["driftline"])
    print(f"speed against the pool: {ratio:.2f}x (mark 1.00); peak {peak_gb:.2f} GB (mark {MEMORY_LIMIT_GB})")
    return 0 if ratio >= 1 and peak_gb <= MEMORY_LIMIT_GB else 1


if __name__ == "__main__":
    sys.exit(main())
