"""Windows per CPU-second: the sample cache against reading the cube through xarray without Dask.

    python -m benchmarks.bench_samples [--quick]

A window is 64x64 pixels, 10 dates (9 of context, 1 of target), 4 bands: decoded to float32, with its mask, as tensors in
batches of 16 of shuffled windows. The cube is an Icechunk cube with one chunk of 256x256 pixels per date; the second case
reads a copy of it with chunks for these windows (10 dates of 64x64 pixels), which a cube that grows by dates cannot have. CPU
seconds of the whole process, all cases in turn; ratios are medians over the rounds of one run. The files are in the page cache,
as in every epoch but the first.
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from benchmarks.criteria import verdict
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import bands_of, open_cube
from pipelines.learning.epoch_batches import EpochBatches
from pipelines.samples.cache import build_samples
from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.samples.sampling import SampleCache
from pipelines.samples.variables import Variable, decode
from pipelines.samples.windows import plan_windows
from pipelines.sources.fake import FakeSource

BANDS = ("blue", "green", "red", "nir")
VARIABLES = tuple(Variable(name, "band", (name,)) for name in BANDS)
BATCH, CONTEXT, HORIZON, BLOCK_PX, DATES, CUBE_PX = 16, 9, 1, 64, 48, 512
TARGET = 3.0  # required speed, in multiples of xarray


def make_cube(folder: Path) -> tuple[xr.Dataset, str]:
    """(the opened cube, its snapshot) of synthetic scenes."""
    uri = str(folder / "cube")
    source = FakeSource(dates=DATES, shape_yx=(CUBE_PX, CUBE_PX), bands=BANDS)
    report = ingest(source, None, uri, None, IngestSettings(chunk_px=256, workers=1))
    return open_cube(uri, report.snapshot), report.snapshot


def make_plan(dataset: xr.Dataset) -> WindowPlan:
    times = dataset["time"].values
    corrected = Split(BLOCK_PX, 0, times[DATES - 22], times[DATES - 11])
    return plan_windows(times, (CUBE_PX, CUBE_PX), corrected, Sampling(), CONTEXT, HORIZON)


def from_xarray(dataset: xr.Dataset, cache: SampleCache, batches: list[list[int]]) -> torch.Tensor:
    """The windows cut from the lazy cube, one `isel` each, decoded by the same code."""
    windows, bands = cache.plan.of_part("train"), bands_of(dataset)
    for indices in batches:
        decoded = []
        for window in (windows[i] for i in indices):
            dates = slice(window.context_T[0], window.target_K[-1] + 1)
            where = {"y": window.tile.rows, "x": window.tile.columns, "time": dates}
            decoded.append(decode(dataset["image"].isel(where).values, dataset["valid"].isel(where).values, bands, VARIABLES))
        x_BTCHW, _ = (torch.from_numpy(np.stack(parts)) for parts in zip(*decoded, strict=True))
    return x_BTCHW


def from_cache(cache: SampleCache, batches: list[list[int]]) -> torch.Tensor:
    """The same windows as slices of the memory maps."""
    samples = cache.part("train")
    for indices in batches:
        batch = samples.gather(indices)
    return torch.cat([batch["x_TCHW"], batch["target_KCHW"]], dim=1)


def from_memory(values: np.ndarray, rows_of: list[np.ndarray], batches: list[list[int]]) -> None:
    """The limit: the same gather from an array in memory, without masks."""
    slot, step = rows_of
    for indices in batches:
        torch.from_numpy(values[slot[indices, None], step[indices]])


def windows_per_second(work: Callable[[], object], count: int) -> float:
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def rechunk(dataset: xr.Dataset, folder: Path) -> xr.Dataset:
    """A copy of the cube as plain Zarr, chunked for windows."""
    chunks = {"image": {"chunks": (10, 4, BLOCK_PX, BLOCK_PX)}, "valid": {"chunks": (10, BLOCK_PX, BLOCK_PX)}}
    kept = dataset[["image", "valid"]].drop_vars([name for name in dataset.coords if name != "time"])
    kept.copy(deep=True).drop_encoding().to_zarr(folder, encoding=chunks, consolidated=False)
    return xr.open_zarr(folder, chunks=None, consolidated=False, mask_and_scale=False)


def measure(dataset: xr.Dataset, suited: xr.Dataset, cache: SampleCache, turns: int) -> dict[str, list[float]]:
    """Windows per CPU-second of each case, round by round."""
    samples = cache.part("train")
    values = np.array(samples.groups[0].values)
    rows_of = [samples.groups[0].slot_W[samples.row_W], np.concatenate([samples.context_WT, samples.target_WK], axis=1)]
    rates: dict[str, list[float]] = {
        "xarray, no dask": [],
        "xarray, window chunks": [],
        "sample cache": [],
        "limit: gather from memory": [],
    }
    for turn in range(turns):
        drawn = EpochBatches(samples, BATCH, turn, shuffle=True).indices()
        batches = [indices.tolist() for indices in drawn if len(indices) == BATCH]
        few = batches[:4]
        assert torch.equal(from_xarray(dataset, cache, few[:1]), from_cache(cache, few[:1])), "the two cases disagree"
        rates["xarray, no dask"].append(windows_per_second(partial(from_xarray, dataset, cache, few), BATCH * len(few)))
        rates["xarray, window chunks"].append(windows_per_second(partial(from_xarray, suited, cache, few), BATCH * len(few)))
        whole = BATCH * len(batches)
        rates["sample cache"].append(windows_per_second(partial(from_cache, cache, batches), whole))
        rates["limit: gather from memory"].append(windows_per_second(partial(from_memory, values, rows_of, batches), whole))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}  {os.cpu_count()}-core {platform.machine()}  numpy {np.__version__}  xarray {xr.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        dataset, snapshot = make_cube(Path(folder))
        plan = make_plan(dataset)
        start = time.process_time()
        cache = build_samples(dataset, snapshot, Path(folder) / "samples", plan, VARIABLES)
        seconds = time.process_time() - start
        rates = measure(
            dataset, rechunk(open_cube(f"{folder}/cube"), Path(folder) / "suited.zarr"), cache, 2 if options.quick else 5
        )
    report(rates, seconds, len(cache))


def report(rates: dict[str, list[float]], build_seconds: float, windows: int) -> None:
    reference = rates["xarray, no dask"]
    print(f"{BLOCK_PX}x{BLOCK_PX} pixels, {CONTEXT + HORIZON} dates, {len(BANDS)} bands, float32; batches of {BATCH}, shuffled")
    print(f"{'way':28}{'windows/CPU-s':>15}{'ratio':>8}")
    for way, measured in rates.items():
        ratio = statistics.median(rate / base for rate, base in zip(measured, reference, strict=True))
        print(f"{way:28}{statistics.median(measured):15.0f}{ratio:8.1f}")
        if way == "sample cache":
            reached = ratio
    slow, fast = statistics.median(reference), statistics.median(rates["sample cache"])
    even = build_seconds / (1 / slow - 1 / fast)
    print(verdict("windows per CPU-second against xarray without Dask", reached, at_least=TARGET))
    print(f"building the cache: {build_seconds:.1f} CPU-s for {windows} windows, repaid after {even:.0f} windows read")


if __name__ == "__main__":
    main()
