"""Training windows in shuffled batches, several epochs: driftline's cache of samples, and xbatcher over Zarr or in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DATES, SIDE_PX, BLOCK_PX, CONTEXT, HORIZON, BATCH, EPOCHS = 32, 512, 64, 9, 1, 16, 3
BANDS = ("blue", "green", "red", "nir")
STEPS = CONTEXT + HORIZON
TITLE = f"windows: {EPOCHS} epochs of {STEPS} dates x {len(BANDS)} bands x {BLOCK_PX}x{BLOCK_PX}, batches of {BATCH}, shuffled"


def prepare(case: Path, is_quick: bool) -> None:
    """A cube, the same pixels as plain Zarr with the same chunks, and the list of windows (first date, row, column)."""
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.cube.store import open_cube
    from pipelines.sources.fake import FakeSource

    source = FakeSource(dates=DATES, shape_yx=(SIDE_PX, SIDE_PX), bands=BANDS)
    ingest(source, None, str(case / "cube"), None, IngestSettings(chunk_px=256))
    dataset = open_cube(str(case / "cube"))
    chunks = {"image": {"chunks": (1, 4, 256, 256)}, "valid": {"chunks": (1, 256, 256)}}
    kept = dataset[["image", "valid"]].drop_vars([name for name in dataset.coords if name != "time"])
    kept.copy(deep=True).drop_encoding().to_zarr(case / "plain.zarr", encoding=chunks, consolidated=False)
    windows = [(int(w.context_T[0]), w.tile.rows.start, w.tile.columns.start) for w in plan_of(dataset).of_part("train")]
    epochs = EPOCHS if not is_quick else 1
    (case / "windows.json").write_text(json.dumps({"windows": windows, "epochs": epochs}))


def plan_of(dataset: Any) -> Any:
    from pipelines.samples.plan import Sampling, Split
    from pipelines.samples.windows import plan_windows

    times = dataset["time"].values
    return plan_windows(
        times, (SIDE_PX, SIDE_PX), Split(BLOCK_PX, 0, times[DATES - 6], times[DATES - 3]), Sampling(), CONTEXT, HORIZON
    )


def driftline(case: Path, out: Path) -> Callable[[], None]:
    import torch

    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.learning.epoch_batches import EpochBatches
    from pipelines.samples.cache import build_samples
    from pipelines.samples.variables import Variable

    content = json.loads((case / "windows.json").read_text())

    def work() -> None:
        dataset = open_cube(str(case / "cube"))
        variables = tuple(Variable(name, "band", (name,)) for name in BANDS)
        snapshot = head_snapshot(str(case / "cube"))
        samples = build_samples(dataset, snapshot, out / "samples", plan_of(dataset), variables).part("train")
        total, count = 0.0, 0
        for epoch in range(content["epochs"]):
            for indices in EpochBatches(samples, BATCH, epoch, shuffle=True).indices():
                batch = samples.gather(indices.tolist())
                x = torch.cat([batch["x_TCHW"], batch["target_KCHW"]], dim=1)
                valid = torch.cat([batch["valid_THW"], batch["target_valid_KHW"]], dim=1)
                total, count = total + checksum(x, valid), count + len(x)
        write(out, total, count)

    return work


def checksum(x_BTCHW: Any, valid_BTHW: Any) -> float:
    """The sum of the valid values, in reflectance."""
    return float((x_BTCHW * valid_BTHW.bool()[:, :, None]).nan_to_num(0.0).sum(dtype=x_BTCHW.dtype))


def write(out: Path, total: float, count: int) -> None:
    (out / "found.json").write_text(json.dumps({"sum": total, "windows": count}))


def over_zarr(case: Path, out: Path) -> Callable[[], None]:
    return with_xbatcher(case, out, is_loaded=False)


def in_memory(case: Path, out: Path) -> Callable[[], None]:
    return with_xbatcher(case, out, is_loaded=True)


def with_xbatcher(case: Path, out: Path, *, is_loaded: bool) -> Callable[[], None]:
    import torch
    import xarray as xr
    import xbatcher

    content = json.loads((case / "windows.json").read_text())
    across, starts = SIDE_PX // BLOCK_PX, DATES - STEPS + 1

    class Windows(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __init__(self) -> None:
            dataset = xr.open_zarr(case / "plain.zarr", chunks=None, consolidated=False, mask_and_scale=False)
            sizes, overlap = {"time": STEPS, "y": BLOCK_PX, "x": BLOCK_PX}, {"time": STEPS - 1}
            self.all = xbatcher.BatchGenerator(dataset.load() if is_loaded else dataset, sizes, overlap, preload_batch=False)
            if len(self.all) != starts * across * across:
                raise SystemExit(f"xbatcher has {len(self.all)} windows, expected {starts * across * across}")
            self.indices = [(t * across + y // BLOCK_PX) * across + x // BLOCK_PX for t, y, x in content["windows"]]

        def __len__(self) -> int:
            return len(self.indices)

        def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            window = self.all[self.indices[number]]
            image = window["image"].transpose("time", "band", "y", "x").values.astype(np.float32) * np.float32(1e-4)
            return torch.from_numpy(image), torch.from_numpy(window["valid"].values)

    def work() -> None:
        loader = torch.utils.data.DataLoader(Windows(), batch_size=BATCH, shuffle=True)
        total, count = 0.0, 0
        for _ in range(content["epochs"]):
            for x, valid in loader:
                total, count = total + checksum(x, valid), count + len(x)
        write(out, total, count)

    return work


WAYS = {"driftline": driftline, "xbatcher, Zarr": over_zarr, "xbatcher, in memory": in_memory}


def compare(case: Path, outs: dict[str, Path]) -> str:
    found = {way: json.loads((out / "found.json").read_text()) for way, out in outs.items()}
    ours = found["driftline"]
    apart = max(abs(one["sum"] / ours["sum"] - 1) for one in found.values())
    counts = {one["windows"] for one in found.values()}
    return f"{sorted(counts)} windows, sums of their values differ by at most {apart:.1e} of the sum"
