"""Ingest against a rasterio WarpedVRT thread pool that writes the same chunks: COGs of 2048x2048 from two UTM zones.

    python -m benchmarks.bench_ingest [--quick]

Every run has a separate process; both kinds alternate, in changing order, for each resampling; ratios are medians over the
rounds. The reference is plain: open, warp, write to Zarr, one scene per thread, without validation, mask, history or
transaction. The pixels of both are compared. CPU seconds depend less on other load of the machine.

Two counts of scenes: with few, what happens once (the process that decodes is started, the files are surveyed, the version is
committed) has weight; many show the rate. A pause follows each deletion: for 5 s after it ext4 takes longer to create files,
which would be counted for whoever comes next.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.criteria import verdict
from benchmarks.measuring import cpu_seconds, run_measured

SIZE_PX, CHUNK_PX, RESOLUTION_M = 2048, 256, 10.0
FEW, MANY = 24, 96  # scenes; the second count links to the files of the first
TARGET_CRS = "EPSG:32633"
LEFT, TOP = 270_000.0, 5_420_000.0  # near 12 degrees east, where zones 32 and 33 meet
MEMORY_LIMIT_GB = 0.35
MEMORY_MB = 128  # cube.memory_mb: two scenes at once
SETTLE_S = 6
KINDS = ("driftline", "peer")
WAYS = ("nearest", "bilinear")


def make_scenes(folder: Path) -> None:
    """Sentinel-2 like uint16 COGs, every second one in the adjacent zone; they cover the same area."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.warp import transform
    from scipy import ndimage

    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(SIZE_PX, SIZE_PX)), 20)
    base = 1500 + 900 * smooth / np.abs(smooth).max()
    for index in range(FEW):
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
        with rasterio.open(_path(folder, index), "w", **profile) as file:
            file.write(image, 1)


def _path(folder: Path, index: int) -> Path:
    return folder / f"scene_{datetime(2024, 1, 1) + timedelta(5 * index):%Y%m%d}_B04.tif"


def link_scenes(folder: Path, scenes: Path, count: int) -> Path:
    """A folder with the scenes, over and over until there are `count`."""
    folder.mkdir()
    for index in range(count):
        os.link(_path(scenes, index % FEW), _path(folder, index))
    return folder


def run_driftline(scenes: Path, out: Path, resampling: Any) -> None:
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.grid import Grid
    from pipelines.scene import Band
    from pipelines.sources.folder import FolderSource
    from pipelines.sources.layers import BandRequest

    grid = Grid(TARGET_CRS, (RESOLUTION_M, 0.0, LEFT, 0.0, -RESOLUTION_M, TOP), (SIZE_PX, SIZE_PX))
    source = FolderSource(path=scenes, pattern="scene_{date:%Y%m%d}_{band}.tif", requested=BandRequest((Band("B04"),)))
    settings = IngestSettings(chunk_px=CHUNK_PX, on_other_grid="reproject", memory_mb=MEMORY_MB, resampling=resampling)
    report = ingest(source, None, str(out / "cube"), grid, settings)
    if len(report.added) != len(list(scenes.glob("*.tif"))):
        raise SystemExit(f"expected all scenes in the cube, got {report}")


def run_peer(scenes: Path, out: Path, resampling: str) -> None:
    import rasterio.enums
    import zarr
    from rasterio.vrt import WarpedVRT
    from zarr.codecs import BloscCodec

    paths = sorted(scenes.glob("*.tif"))
    image = zarr.create_array(
        out / "plain.zarr",
        shape=(len(paths), 1, SIZE_PX, SIZE_PX),
        chunks=(1, 1, CHUNK_PX, CHUNK_PX),
        dtype="uint16",
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2),
    )
    method = rasterio.enums.Resampling[resampling]
    affine = rasterio.Affine(RESOLUTION_M, 0, LEFT, 0, -RESOLUTION_M, TOP)

    def write_date(index: int, path: Path) -> None:
        with (
            rasterio.open(path) as file,
            WarpedVRT(file, crs=TARGET_CRS, transform=affine, width=SIZE_PX, height=SIZE_PX, resampling=method) as warped,
        ):
            image[index] = warped.read()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write_date, range(len(paths)), paths))


def command_of(kind: str, scenes: Path, out: Path, resampling: str) -> list[str]:
    out.mkdir()
    return [sys.executable, "-m", "benchmarks.bench_ingest", "--one", kind, str(scenes), str(out), resampling]


def measure(kind: str, scenes: Path, out: Path, resampling: str) -> dict[str, float]:
    """Seconds of one run in a new process, without imports; the result stays in `out`."""
    done = subprocess.run(command_of(kind, scenes, out, resampling), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_one(kind: str, scenes: Path, out: Path, resampling: str) -> None:
    if kind == "driftline":
        import pipelines.cube.ingest
        import pipelines.sources.folder  # noqa: F401
    else:
        import rasterio.vrt  # noqa: F401
        import zarr  # noqa: F401
    cpu, started = cpu_seconds(), time.monotonic()
    (run_driftline if kind == "driftline" else run_peer)(scenes, out, resampling)
    print(json.dumps({"seconds": time.monotonic() - started, "cpu_seconds": cpu_seconds() - cpu}))


def differing_share(cube: Path, plain: Path) -> float:
    """Fraction of the pixels of all scenes that differ."""
    import zarr

    from pipelines.cube.store import open_cube

    ours, theirs = open_cube(str(cube))["image"], zarr.open_array(plain, mode="r")
    return float(np.mean([np.mean(ours[index].values != np.asarray(theirs[index])) for index in range(ours.sizes["time"])]))


def compare(scenes: Path, resampling: str, rounds: int) -> None:
    """Runs both kinds alternately and prints the table of one resampling."""
    turns: list[dict[str, dict[str, float]]] = []
    share, peaks = None, dict[str, float]()
    for turn in range(rounds):
        with tempfile.TemporaryDirectory(dir=scenes.parent) as folder:
            kinds = KINDS if turn % 2 == 0 else KINDS[::-1]
            turns.append({kind: measure(kind, scenes, Path(folder) / kind, resampling) for kind in kinds})
            if share is None:
                share = differing_share(Path(folder) / "driftline" / "cube", Path(folder) / "peer" / "plain.zarr")
                # in a run of its own: to count shared pages takes a tenth of a core, more where there are more processes
                commands = {kind: command_of(kind, scenes, Path(folder) / f"{kind}_again", resampling) for kind in KINDS}
                peaks = {kind: run_measured(command).peak_gb for kind, command in commands.items()}
        time.sleep(SETTLE_S)
    print(f"\n{resampling:16}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}   medians of {rounds} rounds")
    for kind, name in zip(KINDS, ("driftline", "WarpedVRT pool"), strict=True):
        wall, cpu = (statistics.median(turn[kind][key] for turn in turns) for key in ("seconds", "cpu_seconds"))
        print(f"{name:16}{wall:8.2f}{cpu:8.2f}{peaks[kind]:9.2f}")
    for key, clock in (("cpu_seconds", "CPU"), ("seconds", "wall clock")):
        ratios = [turn["peer"][key] / turn["driftline"][key] for turn in turns]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{verdict(f'speed against the pool, {clock}', statistics.median(ratios), at_least=1)}  ({spread})")
    print(verdict("peak memory", peaks["driftline"], at_most=MEMORY_LIMIT_GB, unit=" GB"))
    print(f"pixels that differ from the pool's: {share:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "SCENES", "OUT", "RESAMPLING"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, scenes, out, resampling = arguments.one
        run_one(kind, Path(scenes), Path(out), resampling)
        return
    print(f"ingest, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"COGs of {SIZE_PX}x{SIZE_PX} uint16 from two zones, chunks of {CHUNK_PX}x{CHUNK_PX}")
    with tempfile.TemporaryDirectory() as temporary:
        scenes = Path(temporary) / "scenes"
        scenes.mkdir()
        make_scenes(scenes)
        for count in (FEW, MANY):
            folder = link_scenes(Path(temporary) / f"scenes{count}", scenes, count)
            print(f"\n{count} scenes")
            for way in WAYS:
                compare(folder, way, 2 if arguments.quick else 5)


if __name__ == "__main__":
    main()
