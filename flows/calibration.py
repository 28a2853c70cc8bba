"""`driftline doctor --calibrate`: the rates of this machine that plans need, measured in half a minute.

Each is the best of some repeats, since other programs only make them worse; where they want the cores too, CPU seconds count in
place of the time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flows import Json
from flows.machine import Rates, is_crowded, keep_rates, machine_key, plans_file

SECONDS = 2.0  # of repeats, per rate
IMPORTS = "import icechunk, matplotlib.pyplot, rasterio, sklearn.ensemble, torch, xarray"
STEPS, BATCH, CHANNELS, SIDE = 8, 8, 16, 32  # of the recurrent network


def calibrate() -> Json:
    """The rates, which are kept, and where."""
    training, inference = measure_network()
    writing, reading = measure_disk()
    rates = Rates(training, inference, measure_harmonics(), writing, reading, best(start_python))
    keep_rates(rates)
    return {"machine": machine_key(), "file": str(plans_file()), "rates": vars(rates), "is_crowded": is_crowded()}


def rate_lines(measured: Json) -> list[str]:
    """The rates for people."""
    named = {
        "train_flop_s": ("training of a recurrent network", 1e9, "GFLOP/s"),
        "predict_flop_s": ("inference", 1e9, "GFLOP/s"),
        "fit_values_s": ("harmonic model, one core", 1e6, "million pixel-dates/s"),
        "write_bytes_s": ("pixels packed and written, one core", 1e6, "MB/s"),
        "read_bytes_s": ("pixels read and unpacked, one core", 1e6, "MB/s"),
        "start_s": ("start of Python with what a stage imports", 1.0, "s"),
    }
    rates = [f"  {text}: {measured['rates'][key] / unit:.3g} {of}" for key, (text, unit, of) in named.items()]
    crowded = ["  other programs have the cores too: measured in CPU seconds"] if measured["is_crowded"] else []
    return [f"rates of {measured['machine']}:", *rates, *crowded, f"kept in {measured['file']}; `--dry-run` uses them"]


def best(work: Callable[[], object], threads: int = 1) -> float:
    """Seconds of the fastest of some calls, at least two; of `threads` that share it."""
    until, found, crowded = time.perf_counter() + SECONDS, list[tuple[float, float]](), is_crowded()
    while len(found) < 2 or time.perf_counter() < until:
        started, used = time.perf_counter(), cpu_seconds()
        work()
        found.append((time.perf_counter() - started, (cpu_seconds() - used) / threads))
    seconds, busy = min(one for one, _ in found), min(one for _, one in found)
    return busy if crowded and busy > 0 else seconds


def cpu_seconds() -> float:
    """Of this process and those that it has waited for; `os.times` counts hundredths, too coarse for work of so few of them."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)


def start_python() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def measure_network() -> tuple[float, float]:
    """Operations a second of a ConvLSTM: training, inference. A backward pass counts as two forward passes."""
    import torch

    from models.cells.convlstm import ConvLSTM

    network, x_BTCHW = ConvLSTM(4, (CHANNELS,), 3), torch.rand(BATCH, STEPS, 4, SIDE, SIDE)
    flops = BATCH * STEPS * SIDE**2 * 2 * 9 * (4 + CHANNELS) * 4 * CHANNELS

    def train() -> None:
        network.train()
        network(x_BTCHW)[0].square().mean().backward()

    def infer() -> None:
        network.eval()
        with torch.no_grad():
            network(x_BTCHW)

    threads = torch.get_num_threads()
    return 3 * flops / best(train, threads), flops / best(infer, threads)


def measure_harmonics() -> float:
    """Pixel-dates a second that the harmonic model fits."""
    import numpy as np

    from pipelines.monitoring.harmonic_model import HarmonicModel

    rng, dates, side = np.random.default_rng(0), 100, 64
    x_NYX, valid_NYX = rng.random((dates, side, side), np.float32), rng.random((dates, side, side)) > 0.4
    days = np.arange(dates) * 10.0
    return float(x_NYX.size / best(lambda: HarmonicModel().fit(x_NYX, valid_NYX, days)))


def measure_disk() -> tuple[float, float]:
    """Bytes of pixels a second that are packed and written to a file (forced to the disk), and read and unpacked."""
    import numpy as np
    from numcodecs.blosc import Blosc

    from pipelines.files import write_bytes

    rng, packing = np.random.default_rng(0), Blosc("zstd", 3, Blosc.BITSHUFFLE)
    image = (3000 + 300 * rng.standard_normal((8, 512, 512))).astype(np.uint16)
    plans_file().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plans_file().parent, prefix=".calibration-") as folder:
        path = Path(folder) / "pixels"
        writing = best(lambda: write_bytes(path, packing.encode(image)))
        reading = best(lambda: packing.decode(path.read_bytes()))
    return image.nbytes / writing, image.nbytes / reading
