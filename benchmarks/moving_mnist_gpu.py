"""The published protocol of Moving MNIST, for a GPU, with the figures that OpenSTL publishes for it beside ours.

    python -m benchmarks.moving_mnist_gpu DATA FOLDER --check            # every network for a few steps: CPU or GPU
    python -m benchmarks.moving_mnist_gpu DATA FOLDER [--member NAME] [--epochs 200] [--precision bf16-mixed]
        [--test mnist_test_seq.npy] [--finished]

`DATA` holds `digits/mnist` (IDX files). 10 frames of 64 x 64 are read and 10 forecast; 10,000 sequences are drawn anew from
MNIST's training digits for each of 200 epochs; batches of 16, Adam, one cycle, no decay, no clipping; 10,000 test sequences.
A row that is finished is not made again, a killed one goes on after its last epoch; `--finished` trains nothing and prints what
there is. `--check` trains every network for a few steps (a reduced one where there is no GPU), interrupts it, goes on and scores
it, and prints the time and memory that the whole would take: measured on a GPU, else from operations and kept tensors.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.moving_mnist import CONTEXT, HORIZON, SIDE, SequenceSet, digits_of, draw_sequences, forecast_all, scores_of

if TYPE_CHECKING:
    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.training import TrainingReport

Row = dict[str, Any]
SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2
SCORED_AT_ONCE = 500  # sequences
PUBLISHED_RANGE = 2.0  # of values in SSIM
ASSUMED = 20e12  # operations a second in training where there is no GPU to measure: a guess for float32 of a current one
LARGE: Mapping[str, Any] = {"hidden": [128] * 4, "kernel": 5, "patch_px": 4}
SOURCE = "https://github.com/chengtan9907/OpenSTL, docs/en/model_zoos/video_benchmarks.md at commit c74deb5 (arXiv:2306.11249)"


@dataclass(frozen=True)
class Protocol:
    """test_file: with the test sequences; "": they are drawn."""

    train: int = 10_000
    validation: int = 500
    test: int = 10_000
    epochs: int = 200
    batch: int = 16
    precision: str = "32"
    test_file: str = ""

    @property
    def steps(self) -> int:
        return self.epochs * -(-self.train // self.batch)


CHECKED = Protocol(train=96, validation=8, test=8, epochs=3)


@dataclass(frozen=True)
class Member:
    """A network by its config's section `model`; `convlstm-s` is in `published_networks`.

    sampling: of true frames; published: parameters, MSE, MAE, SSIM; small: what `--check` changes where there is no GPU.
    """

    model: Mapping[str, Any]
    small: Mapping[str, Any]
    rate: float = 5e-4
    sampling: str | None = None
    published: tuple[str, str, str, str] | None = None


TINY: Mapping[str, Any] = {"hidden": [4, 4]}
MEMBERS = {
    "ConvLSTM-S": Member({"kind": "convlstm-s", **LARGE}, TINY, 5e-4, "scheduled", ("15.0M", "29.80", "90.64", "0.9288")),
    "PredRNN": Member(
        {"kind": "predrnn", **LARGE, "decoupling": 0}, TINY, 5e-4, "scheduled", ("23.8M", "23.97", "72.82", "0.9462")
    ),
    "PredRNN-v2": Member(  # 0.2 beside the mean over the targets plus that over the context: 0.1 beside the mean over both
        {"kind": "predrnn", **LARGE, "decoupling": 0.2}, TINY, 5e-4, "reverse", ("23.9M", "24.13", "73.73", "0.9453")
    ),
    "SimVP-gSTA": Member(
        {"kind": "simvp", "spatial": 64, "temporal": 512, "scales": 2, "blocks": 8, "kernel": 21, "expansion": 8},
        {"spatial": 4, "temporal": 8, "blocks": 2}, 1e-3, None, ("46.8M", "26.69", "77.19", "0.9402"),
    ),
    "ConvLSTM": Member({"kind": "convlstm", **LARGE}, TINY),
    "ConvLSTM, peepholes": Member({"kind": "convlstm", **LARGE, "peepholes": True}, TINY),
    "ConvGRU": Member({"kind": "convgru", **LARGE}, TINY),
    "TrajGRU": Member({"kind": "trajgru", **LARGE, "hidden": [64, 96, 96], "links": 13}, {**TINY, "links": 2}),
}  # fmt: skip
ABOUT = (
    "{train} sequences drawn anew from MNIST's training digits for each of {epochs} epochs (digits stop at the border for a "
    "frame, as in OpenSTL), batches of {batch}, precision {precision}, Adam with one cycle, no weight decay, no clipping; the "
    "epoch is chosen on {validation} other sequences of training digits, where OpenSTL chooses it on the test sequences. {test} "
    "test sequences, {origin}. MSE and MAE are sums over the pixels of a frame; SSIM is scikit-image's with a data range of 2, "
    "as published (SSIM 1: with 1). ConvLSTM-S, PredRNN and PredRNN-v2 also learn the frames of the context, and read true "
    "frames by the published schedules. What remains different: the cycle rises over 0.15 of the steps (published 0.3), and our "
    "networks also read validity and dates, which are constant here. Rows without published figures are this programme's own."
)


# ---------------------------------------------------------------- one network


def build(model: Mapping[str, Any]) -> ResidualForecaster:
    """Untrained; frames from 0 to 1 go in as they are, as published."""
    from pydantic import TypeAdapter

    from benchmarks.published_networks import convlstm_s
    from configs.networks import FrameModel, build_network
    from models.residual_forecaster import Scaling, build_forecaster

    if model["kind"] == "convlstm-s":
        network: Any = convlstm_s(tuple(model["hidden"]))
    else:
        described: FrameModel = TypeAdapter(FrameModel).validate_python({**model, "baseline": "none"})
        network = build_network(described, CONTEXT, HORIZON)
    scaling = Scaling((0.0,), (1.0,), ("none",), 1.0)
    return build_forecaster(None, scaling, context=CONTEXT, horizon=HORIZON, network=network, seed=SEED)


def train_member(
    forecaster: ResidualForecaster, member: Member, protocol: Protocol, digits_NYX: np.ndarray, folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingReport:  # fmt: skip
    """Trains the forecaster in place, or goes on with what is in `folder`."""
    from benchmarks.published_networks import PublishedSampling
    from models.losses import masked_mse
    from pipelines.learning.member import frame_weight
    from pipelines.learning.training import TrainingSettings, train

    draw = partial(draw_sequences, stops=True)
    training = SequenceSet(forecaster, digits_NYX, protocol.train, SEED, anew=True, draw=draw)
    validation = SequenceSet(forecaster, digits_NYX, protocol.validation, VALIDATION_SEED, draw=draw)
    settings = TrainingSettings(
        epochs=protocol.epochs, batch=protocol.batch, learning_rate=member.rate, optimizer="adam", weight_decay=0.0, clip=0.0,
        patience=protocol.epochs, precision=protocol.precision, seed=SEED,
        sampling=PublishedSampling(member.sampling) if member.sampling else None,
    )  # fmt: skip
    learn = partial(train, target_of=itemgetter("target_KCHW"), weight_of=frame_weight)
    return learn(forecaster, training, validation, masked_mse, settings, folder, progress)


def make_row(name: str, protocol: Protocol, folder: Path, digits: Path, test_file: Path | None) -> Row:
    member, started = MEMBERS[name], time.monotonic()
    forget_peak()
    forecaster = build(member.model)
    report = train_member(forecaster, member, protocol, digits_of(digits, "train"), folder / slug(name), shown(name))
    return {
        "protocol": asdict(protocol),
        "model": dict(member.model),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": device_name(),
        "epoch": report.members[0].best_epoch,
        "parameters": parameters(forecaster),
        "hours": (time.monotonic() - started) / 3600,
        "resumed": report.members[0].resumed,
        "gpu_gb": peak_gpu_gb(),
        **score(forecaster, protocol, digits, test_file),
    }


def score(forecaster: ResidualForecaster, protocol: Protocol, digits: Path, test_file: Path | None) -> dict[str, float]:
    def sequences(digits_NYX: np.ndarray, count: int, seed: int) -> np.ndarray:
        return draw_sequences(digits_NYX, count, seed, stops=True) if test_file is None else read_sequences(test_file, count)

    windows = SequenceSet(forecaster, digits_of(digits, "test"), protocol.test, TEST_SEED, draw=sequences)
    forecast = forecast_all(forecaster, windows)
    parts, sizes = [], []
    for first in range(0, protocol.test, SCORED_AT_ONCE):
        at = slice(first, first + SCORED_AT_ONCE)
        pair = forecast[at], windows.frames_NTYX[at]
        parts.append({**scores_of(*pair, data_range=PUBLISHED_RANGE), "ssim_1": scores_of(*pair)["ssim"]})
        sizes.append(len(pair[0]))
    return {name: float(np.average([part[name] for part in parts], weights=sizes)) for name in parts[0]}


def read_sequences(path: Path, count: int) -> np.ndarray:
    """(count, 20, 64, 64) uint8 of the published file, which holds (20, 10000, 64, 64).

    Raises SystemExit for another shape or dtype.
    """
    stored = np.load(path, mmap_mode="r")
    wanted = (CONTEXT + HORIZON, SIDE, SIDE)
    if stored.dtype != np.uint8 or stored.ndim != 4 or (stored.shape[0], *stored.shape[2:]) != wanted or stored.shape[1] < count:
        expected = f"uint8 (20, at least {count}, 64, 64)"
        raise SystemExit(f"{path}: expected {expected}, got {stored.dtype} {stored.shape}; take mnist_test_seq.npy")
    return np.ascontiguousarray(stored[:, :count].swapaxes(0, 1))


def shown(name: str) -> Callable[[int, int], None]:
    """Progress on the terminal, at most once a minute."""
    last = [time.monotonic()]

    def show(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= 60:
            last[0] = time.monotonic()
            print(f"{name}: {done} of {total} steps", file=sys.stderr, flush=True)

    return show


def parameters(forecaster: ResidualForecaster) -> int:
    return sum(one.numel() for one in forecaster.members[0].parameters())


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_gb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")


def kept_row(name: str, protocol: Protocol, folder: Path) -> Row | None:
    """What was measured with the same settings."""
    path = folder / f"{slug(name)}.json"
    row: Row = json.loads(path.read_text()) if path.is_file() else {}
    return row if (row.get("protocol"), row.get("model")) == (asdict(protocol), dict(MEMBERS[name].model)) else None


# ---------------------------------------------------------------- before a GPU is rented


class Interrupted(Exception):
    """What the check stops its first training with."""


@dataclass
class Clock:
    """Times of the optimiser's steps; raises Interrupted at step `stop`."""

    stop: int | None
    times_s: list[float] = field(default_factory=list)

    def __call__(self, done: int, _total: int) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times_s.append(time.perf_counter())
        if done == self.stop:
            raise Interrupted

    @property
    def step_s(self) -> float:
        return float(np.median(np.diff(self.times_s)))


def check(name: str, protocol: Protocol, digits: Path, test_file: Path | None) -> str:
    """A line of the table; AssertionError where a training does not go on or gives no numbers."""
    import torch

    from models.contract import Network

    member, has_gpu = MEMBERS[name], torch.cuda.is_available()
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
    tried = replace(CHECKED, batch=protocol.batch if has_gpu else 4, precision=protocol.precision)
    model = member.model if has_gpu else {**member.model, **member.small}
    training_digits = digits_of(digits, "train")[:1000]
    with TemporaryDirectory() as folder:
        clock, again = Clock(stop=tried.steps // 2), Clock(stop=None)
        with suppress(Interrupted):
            train_member(build(model), member, tried, training_digits, Path(folder), clock)
        forecaster = build(model)
        report = train_member(forecaster, member, tried, training_digits, Path(folder), again).members[0]
    assert report.resumed, f"{name}: the training did not go on after an interruption"
    scores = score(forecaster, tried, digits, test_file)
    assert all(map(np.isfinite, scores.values())), f"{name}: {scores}"
    losses = [row["validation_loss"] for row in report.curve]
    whole = forecaster if has_gpu else build(member.model)
    network = whole.members[0]
    assert isinstance(network, Network)
    operations = 3 * network.flops((protocol.batch, CONTEXT, 1, SIDE, SIDE), HORIZON)
    step_s, memory = (clock.step_s, peak_gpu_gb() or 0.0) if has_gpu else (operations / ASSUMED, kept_gb(whole, protocol.batch))
    fell = f"{losses[0] or 0:.4f} to {losses[-1] or 0:.4f}"
    cells = [f"{parameters(whole) / 1e6:.1f}M", f"{operations / 1e12:.2f}", fell, f"{step_s:.3f}"]
    return f"| {name} | {' | '.join(cells)} | {protocol.steps * step_s / 3600:.1f} | {memory:.1f} |"


def kept_gb(forecaster: ResidualForecaster, batch: int) -> float:
    """What a training step holds at least: tensors for the gradient, weights, gradients and Adam's means; nothing is computed."""
    import torch

    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        held.append(storage)  # or another one would get its number
        return tensor

    held: list[Any] = []
    example = SequenceSet(forecaster, np.zeros((1, 28, 28), np.uint8), 1, SEED).gather([0])
    on_meta = {key: one.expand(batch, *one.shape[1:]).to("meta") for key, one in example.items()}
    member = forecaster.to("meta")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        member.compute_member(0, on_meta)
    return (sum(sizes.values()) + 3 * 4 * parameters(forecaster)) / 1e9


# ---------------------------------------------------------------- what is printed


def lines_of(protocol: Protocol, rows: Mapping[str, Row]) -> list[str]:
    origin = f"those of {protocol.test_file}" if protocol.test_file else drawn_words()
    lines = ["# Moving MNIST, the published protocol", "", *wrapped(ABOUT.format(**asdict(protocol), origin=origin)), ""]
    lines += ["| network | parameters | epoch | MSE | MAE | SSIM | SSIM 1 | hours | GPU GB | device |", "|---" * 10 + "|"]
    for name, row in rows.items():
        figures = [f"{row['mse']:.2f}", f"{row['mae']:.2f}", f"{row['ssim']:.4f}", f"{row['ssim_1']:.4f}"]
        hours = f"{'at least ' if row['resumed'] else ''}{row['hours']:.1f}"
        cells = [f"{row['parameters']}", f"{row['epoch']}", *figures, hours, f"{row['gpu_gb'] or 0:.1f}", row["device"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if missing := [name for name in MEMBERS if name not in rows]:
        lines += ["", f"Not run yet: {'; '.join(missing)}."]
    return [*lines, "", *published_lines()]


def drawn_words() -> str:
    return "drawn here from the test digits, since the published file mnist_test_seq.npy was not given (--test)"


def published_lines() -> list[str]:
    rows = [f"| {name} | {' | '.join(member.published)} |" for name, member in MEMBERS.items() if member.published]
    heads = ["| network | parameters | MSE | MAE | SSIM |", "|---" * 5 + "|"]
    return [*wrapped(f"Published after 200 epochs: {SOURCE}."), "", *heads, *rows]


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--member", action="append", choices=list(MEMBERS), help="networks; default: all")
    parser.add_argument("--epochs", type=int, default=Protocol.epochs)
    parser.add_argument("--precision", choices=("32", "bf16-mixed", "16-mixed"), default=Protocol.precision)
    parser.add_argument("--test", type=Path, help="mnist_test_seq.npy; without it the test sequences are drawn")
    parser.add_argument("--check", action="store_true", help="a few steps of every network, and what the whole would take")
    parser.add_argument("--finished", action="store_true", help="train nothing, print what is finished")
    parsed = parser.parse_args(arguments)
    test_file, digits = parsed.test, parsed.data / "digits" / "mnist"
    protocol = Protocol(epochs=parsed.epochs, precision=parsed.precision, test_file=test_file.name if test_file else "")
    if test_file is None:
        print(f"test sequences: {drawn_words()}", file=sys.stderr)
    else:
        read_sequences(test_file, 1)
    if parsed.check:
        run_check(parsed.member or list(MEMBERS), protocol, digits, test_file)
        return
    folder = parsed.folder.resolve() / f"published-{protocol.epochs}-{protocol.precision}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in [] if parsed.finished else parsed.member or MEMBERS:
        if kept_row(name, protocol, folder) is None:
            print(f"{name} ...", file=sys.stderr, flush=True)
            (folder / f"{slug(name)}.json").write_text(json.dumps(make_row(name, protocol, folder, digits, test_file)))
    rows = {name: row for name in MEMBERS if (row := kept_row(name, protocol, folder)) is not None}
    print("\n".join(lines_of(protocol, rows)))


def run_check(names: Sequence[str], protocol: Protocol, digits: Path, test_file: Path | None) -> None:
    device = device_name()
    guess = f"no GPU here: reduced networks, and for the whole ones {ASSUMED / 1e12:g}e12 operations a second are assumed"
    print(f"{device}; {guess if device == 'CPU' else 'steps and memory are measured at full size'}")
    print(f"| network | parameters | 1e12 operations a step | loss | s a step | hours of {protocol.epochs} epochs | GB |")
    print("|---" * 7 + "|")
    for name in names:
        print(check(name, protocol, digits, test_file), flush=True)


if __name__ == "__main__":
    main()
