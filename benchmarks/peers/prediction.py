"""Three convolutions over a raster, tile by tile: driftline, MONAI's sliding window with its Zarr merger, in one piece.

Driftline reads the cube, the others an array of the same decoded pixels. MONAI's windows overlap by twice the network's halo.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_predict import CONTEXT, TARGETS, TILE_PX

HALO_PX = 3
TITLE = f"prediction: three convolutions, {CONTEXT} dates -> {TARGETS}, tiles of {TILE_PX}"


def prepare(case: Path, is_quick: bool) -> None:
    import torch

    from benchmarks.bench_predict import make, make_variable
    from pipelines.cube.store import bands_of, open_cube
    from pipelines.samples.variables import decode

    side = 1024 if is_quick else 2048
    make(str(case), side, side)
    dataset = open_cube(str(case / "cube"))
    x_NCHW, _ = decode(dataset["image"].values, dataset["valid"].values, bands_of(dataset), (make_variable(),))
    np.save(case / "x.npy", x_NCHW[:, 0].astype(np.float32))
    torch.manual_seed(0)
    torch.save(network().state_dict(), case / "weights.pt")


def network() -> Any:
    """As `bench_predict.stand_in` has it."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Conv2d(CONTEXT, 32, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.Tanh(),
        torch.nn.Conv2d(32, TARGETS, 3, padding=1),
    )  # fmt: skip


def loaded(case: Path) -> Any:
    import torch

    made = network()
    made.load_state_dict(torch.load(case / "weights.pt", weights_only=True))
    return made.eval()


def driftline(case: Path, out: Path) -> Callable[[], None]:
    from benchmarks.bench_predict import make_variable
    from pipelines.cube.store import open_cube
    from pipelines.inference.job import Prediction, plan_job
    from pipelines.inference.predict import predict
    from pipelines.samples.windows import ForecastSteps

    made = loaded(case)

    class Forecaster:
        stride_px = (1, 1)

        def halo_px(self, steps: int) -> tuple[int, int]:
            return HALO_PX, HALO_PX

        def forecast(self, x_NCHW: Any, valid_NHW: Any, days_N: Any, context_T: Any, usable_N: Any, target_days_K: Any) -> Any:
            return made(x_NCHW[context_T, 0][None])[0][:, None]

    def work() -> None:
        dataset = open_cube(str(case / "cube"))
        days = 17600.0 + 10 * np.arange(TARGETS)
        steps = ForecastSteps(np.arange(CONTEXT), np.ones(CONTEXT, bool), days, CONTEXT - 1)
        job = plan_job(dataset, "S", Forecaster(), (make_variable(),), steps, tile_px=TILE_PX)
        staged = predict(Prediction(job, dataset, Forecaster(), None, out / "staging"))
        np.save(out / "y.npy", np.stack([staged.read(field, slice(None)) for field in staged.fields]))

    return work


def with_monai(case: Path, out: Path) -> Callable[[], None]:
    import torch
    from monai.inferers import PatchInferer, SlidingWindowSplitter, ZarrAvgMerger

    made = loaded(case)

    def work() -> None:
        splitter = SlidingWindowSplitter(TILE_PX, 2 * HALO_PX / TILE_PX)
        store = str(out / "merged.zarr")
        inferer = PatchInferer(splitter, ZarrAvgMerger, batch_size=1, store=store, chunks=(1, TARGETS, TILE_PX, TILE_PX))
        with torch.inference_mode():
            merged = inferer(torch.from_numpy(np.load(case / "x.npy"))[None], made)
        np.save(out / "y.npy", np.asarray(merged)[0])

    return work


def in_one_piece(case: Path, out: Path) -> Callable[[], None]:
    import torch

    made = loaded(case)

    def work() -> None:
        with torch.inference_mode():
            np.save(out / "y.npy", made(torch.from_numpy(np.load(case / "x.npy"))[None])[0].numpy())

    return work


WAYS = {"driftline": driftline, "MONAI": with_monai, "in one piece": in_one_piece}


def compare(case: Path, outs: dict[str, Path]) -> str:
    y = {way: np.load(out / "y.npy", mmap_mode="r") for way, out in outs.items()}
    whole = y["in one piece"]
    apart = {way: float(np.max(np.abs(found - whole))) for way, found in y.items() if way != "in one piece"}
    spread = float(np.std(whole))
    return (
        ", ".join(f"{way} differs from one piece by at most {most:.1e}" for way, most in apart.items())
        + f" (spread {spread:.1e})"
    )
