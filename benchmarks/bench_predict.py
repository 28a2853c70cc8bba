"""Tiled prediction: peak memory for growing rasters, equality with the whole image, and time against the bare forecaster.

    python -m benchmarks.bench_predict [--quick]

Two forecasters: the ResidualForecaster (ConvLSTM members that correct a baseline, the last layer filled with noise, since it
starts at zero) on rasters of 512 and 1024 squared, and a small stand-in of three convolutions, so that larger rasters take
seconds. Every size runs in a new process; the cube is a real Icechunk cube written in another.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.criteria import verdict

SIZES = {
    "ConvLSTM": ((512, 512), (1024, 1024)),
    "stand-in": ((512, 512), (1024, 1024), (2048, 2048), (4096, 1024), (1024, 4096)),
}
GROWTH = (("ConvLSTM", (512, 512), (1024, 1024)), *(("stand-in", (1024, 1024), n) for n in SIZES["stand-in"][2:]))
WHOLE_UP_TO_PX = {"ConvLSTM": 512 * 512, "stand-in": 1024 * 1024}  # limit for a prediction in one piece
CONTEXT, TARGETS, TILE_PX, MARGIN = 6, 3, 256, 1.2


def stand_in():
    """A forecaster of three convolutions, with the time of its network recorded."""
    import torch

    network = torch.nn.Sequential(
        torch.nn.Conv2d(CONTEXT, 32, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.Tanh(),
        torch.nn.Conv2d(32, TARGETS, 3, padding=1),
    )  # fmt: skip

    class StandIn:
        stride_px = (1, 1)

        def halo_px(self, steps):
            return 3, 3

        def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
            return network(x_NCHW[context_T, 0][None])[0][:, None]

    return StandIn()


def real():
    """The ResidualForecaster: a decaying anomaly, corrected by an encoder-forecaster of ConvLSTM layers."""
    import torch

    from models.baselines.pointwise import DecayingAnomaly
    from models.networks.encoder_forecaster import ConvLSTMSettings
    from models.residual_forecaster import Scaling, build_forecaster

    forecaster = build_forecaster(
        DecayingAnomaly(), Scaling((0.1,), (0.05,), ("none",), 10.0), context=CONTEXT, horizon=TARGETS,
        network=ConvLSTMSettings(hidden=(16,)),
    )  # fmt: skip
    for name, weight in forecaster.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return forecaster.eval()


def measure(kind: str, height: int, width: int) -> dict:
    """Seconds, peak memory in MB before and after, and (if the whole fits) the difference to the whole image."""
    import numpy as np
    import torch

    from pipelines.cube.store import bands_of, open_cube
    from pipelines.inference.job import Prediction, plan_job
    from pipelines.inference.predict import predict
    from pipelines.samples.variables import decode
    from pipelines.samples.windows import ForecastSteps

    torch.manual_seed(0)
    torch.set_num_threads(1)
    forecaster = real() if kind == "ConvLSTM" else stand_in()
    busy, plain_forecast = [], forecaster.forecast

    def timed(*arguments, **named):
        start = time.perf_counter()
        y = plain_forecast(*arguments, **named)
        busy.append(time.perf_counter() - start)
        return y

    forecaster.forecast = timed
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.bench_predict", "make", folder, str(height), str(width)], check=True)
        dataset, variable = open_cube(f"{folder}/cube"), make_variable()
        context_T, usable_N, target_days_K = np.arange(CONTEXT), np.ones(CONTEXT, bool), 17600.0 + 10 * np.arange(TARGETS)
        steps = ForecastSteps(context_T, usable_N, target_days_K, CONTEXT - 1)
        before, start = peak_mb(), time.perf_counter()
        job = plan_job(dataset, "S", forecaster, (variable,), steps, tile_px=TILE_PX)
        staged = predict(Prediction(job, dataset, forecaster, None, Path(folder) / "staging"))
        seconds, after, network_seconds = time.perf_counter() - start, peak_mb(), sum(busy)
        difference = None
        if height * width <= WHOLE_UP_TO_PX[kind]:
            x, valid = decode(dataset["image"].values, dataset["valid"].values, bands_of(dataset), (variable,))
            days = dataset["time"].values.astype("datetime64[ns]").astype("int64") / 86_400e9
            whole = [torch.from_numpy(array) for array in (x, valid, days, context_T, usable_N, target_days_K)]
            with torch.inference_mode():
                y = forecaster.forecast(*whole)[:, 0].numpy()
            tiled = np.stack([staged.read(field, slice(None)) for field in staged.fields])
            assert np.isfinite(tiled).any(), "nothing was predicted"
            difference = float(np.nanmax(np.abs(tiled - y)))
    return {
        "seconds": seconds,
        "network_seconds": network_seconds,
        "before_mb": before,
        "peak_mb": after,
        "difference": difference,
    }


def make_variable():
    from pipelines.samples.variables import Variable

    return Variable("red", "band", ("red",))


def make(folder: str, height: int, width: int) -> None:
    """Writes a cube of CONTEXT dates, in a separate process, so that this does not count as memory of the prediction."""
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource

    source = FakeSource(dates=CONTEXT, shape_yx=(height, width), bands=("red", "nir"))
    ingest(source, None, f"{folder}/cube", None, IngestSettings())


def peak_mb() -> float:
    """Largest resident size of this process so far, MB (ru_maxrss is kilobytes on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the two smaller sizes only")
    is_quick = parser.parse_args().quick
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, one thread, tiles of {TILE_PX} px", end="")
    print(f", {CONTEXT} context dates, {TARGETS} targets")
    print(f"{'':10}{'raster':>11} {'seconds':>8} {'network':>8} {'share':>6} {'start MB':>9} {'peak MB':>8} {'difference':>10}")
    found = {}
    for kind, sizes in SIZES.items():
        for height, width in sizes[:2] if is_quick else sizes:
            command = [sys.executable, "-m", "benchmarks.bench_predict", "measure", kind, str(height), str(width)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            row = found[kind, (height, width)] = json.loads(done.stdout.splitlines()[-1])
            shown = "-" if row["difference"] is None else f"{row['difference']:.1e}"
            share = row["network_seconds"] / row["seconds"]
            print(
                f"{kind:10}{height:>6}x{width:<5}{row['seconds']:>8.1f} {row['network_seconds']:>8.1f} {share:>6.0%} "
                f"{row['before_mb']:>9.0f} {row['peak_mb']:>8.0f} {shown:>10}",
                flush=True,
            )
    for kind, small, large in GROWTH:
        if (kind, large) in found:
            ratio = found[kind, large]["peak_mb"] / found[kind, small]["peak_mb"]
            title = f"peak memory, {kind}, {small[0]}x{small[1]} -> {large[0]}x{large[1]}"
            print(verdict(title, ratio, at_most=MARGIN))
    for kind in SIZES:
        worst = max(row["difference"] or 0.0 for (of, _), row in found.items() if of == kind)
        print(verdict(f"difference to the whole image, {kind}", worst, at_most=0.0, unit=""))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", kind, height, width]:
            print(json.dumps(measure(kind, int(height), int(width))))
        case ["make", folder, height, width]:
            make(folder, int(height), int(width))
        case _:
            main()
