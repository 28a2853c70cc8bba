"""Tiled prediction: peak memory while the raster grows, equality with the whole image, and time beside the bare network.

`python -m benchmarks.bench_predict`. Every size runs in a fresh process; the cube is a real Icechunk cube made there.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

SIZES = ((512, 512), (1024, 1024), (2048, 2048), (4096, 1024), (1024, 4096))
CONTEXT, TARGETS, TILE_PX, MARGIN = 6, 3, 256, 1.2


def measure(height: int, width: int) -> dict:
    """Seconds, peak memory in MB before and after, and (where the whole fits) the difference to the whole image."""
    import numpy as np
    import torch

    from pipelines.cube.store import bands_of, open_cube
    from pipelines.inference.predict import predict
    from pipelines.samples.variables import decode

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(CONTEXT, 32, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.Tanh(),
        torch.nn.Conv2d(32, TARGETS, 3, padding=1),
    )  # fmt: skip

    class Forecaster:
        halo_px, seconds = 3, 0.0

        def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
            start = time.perf_counter()
            y = network(x_NCHW[context_T, 0][None])[0][:, None]
            self.seconds += time.perf_counter() - start
            return y

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.bench_predict", "make", folder, str(height), str(width)], check=True)
        dataset, variable = open_cube(f"{folder}/cube"), make_variable()
        forecaster = Forecaster()
        arguments = (np.arange(CONTEXT), np.ones(CONTEXT, bool), 18300.0 + np.arange(TARGETS))
        before, start = peak_mb(), time.perf_counter()
        staged = predict(dataset, "S", forecaster, (variable,), *arguments, None, Path(folder) / "staging", TILE_PX)
        seconds, after, busy = time.perf_counter() - start, peak_mb(), forecaster.seconds
        difference = None
        if height * width <= 1024 * 1024:
            decoded, _ = decode(dataset["image"].values, dataset["valid"].values, bands_of(dataset), (variable,))
            x = torch.from_numpy(decoded)
            with torch.inference_mode():
                whole = forecaster.forecast(x, None, None, torch.arange(CONTEXT), None, None)[:, 0].numpy()
            tiled = np.stack([staged.read(field, slice(None)) for field in staged.fields])
            difference = float(np.nanmax(np.abs(tiled - whole)))
    return {"seconds": seconds, "network_seconds": busy, "before_mb": before, "peak_mb": after, "difference": difference}


def make_variable():
    from pipelines.samples.variables import Variable

    return Variable("red", "band", ("red",))


def make(folder: str, height: int, width: int) -> None:
    """A cube of CONTEXT dates; in a process of its own, so that making it does not count as memory of the prediction."""
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource

    source = FakeSource(dates=CONTEXT, shape_yx=(height, width), bands=("red", "nir"))
    ingest(source, None, f"{folder}/cube", None, IngestSettings())


def peak_mb() -> float:
    """Largest resident size of this process so far, MB (ru_maxrss is kilobytes on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> int:
    found = []
    for height, width in SIZES:
        command = [sys.executable, "-m", "benchmarks.bench_predict", "measure", str(height), str(width)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, one thread, tiles of {TILE_PX} px, {CONTEXT} dates")
    print(f"{'raster':>12} {'seconds':>8} {'network':>8} {'share':>6} {'start MB':>9} {'peak MB':>8} {'difference':>10}")
    for (height, width), row in zip(SIZES, found, strict=True):
        shown = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        share = row["network_seconds"] / row["seconds"]
        print(
            f"{height:>6}x{width:<5} {row['seconds']:>8.1f} {row['network_seconds']:>8.1f} {share:>6.0%} "
            f"{row['before_mb']:>9.0f} {row['peak_mb']:>8.0f} {shown:>10}"
        )
    peak = {size: row["peak_mb"] for size, row in zip(SIZES, found, strict=True)}
    growth = {
        "1024 -> 2048 squared": peak[2048, 2048] / peak[1024, 1024],
        "four times as high": peak[4096, 1024] / peak[1024, 1024],
        "four times as wide": peak[1024, 4096] / peak[1024, 1024],
    }
    for name, ratio in growth.items():
        print(f"peak memory, {name}: {ratio:.2f}x (bound {MARGIN}x)")
    is_equal = all(row["difference"] in (None, 0.0) for row in found)
    print("equal to the whole image (difference 0.0)" if is_equal else "NOT equal to the whole image")
    return 0 if is_equal and max(growth.values()) <= MARGIN else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", height, width]:
            print(json.dumps(measure(int(height), int(width))))
        case ["make", folder, height, width]:
            make(folder, int(height), int(width))
        case _:
            sys.exit(main())
