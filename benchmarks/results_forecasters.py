"""Every network of a forecast on Moving MNIST, reduced for a CPU -> docs/results/forecasters.md.

    python -m benchmarks.results_forecasters DATA FOLDER [--member ROW] [--epochs 12] [--jobs 2] [--finished]
        > docs/results/forecasters.md

`DATA` holds `digits/mnist` (IDX files). Every row is a network of a config's section `model`, trained by
`pipelines.learning.training.train` in a process of its own. A row that is finished with the same settings is not made again, a
killed one goes on after its last epoch. `--finished` runs nothing and prints what there is. The published protocol:
`benchmarks.moving_mnist_gpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import run_measured
from benchmarks.moving_mnist import CONTEXT, HORIZON, SequenceSet, digits_of, draw_sequences, forecast_all, scores_of
from benchmarks.moving_mnist_gpu import published_lines, slug

Row = dict[str, Any]
POLLED_S = 1.0
DAY = 1.0  # between frames; any unit
MEAN, STD = 0.05, 0.2  # of the pixels, rounded


@dataclass(frozen=True)
class Protocol:
    """How many sequences, and how a network is trained on them; `anew`: drawn again for every epoch."""

    train: int
    validation: int
    test: int
    epochs: int
    batch: int
    learning_rate: float
    optimizer: str
    loss: str  # of LOSSES
    anew: bool


REDUCED = Protocol(2000, 100, 500, 12, 8, 3e-3, "adamw", "mse_mae", anew=False)
LOSSES = {"mse": "mean squared error", "mse_mae": "the sum of mean squared and mean absolute error of standardised values"}
SMALL: Mapping[str, Any] = {"hidden": [32], "patch_px": 4}
MEMBERS: dict[str, dict[str, Any]] = {
    "ConvLSTM": {"kind": "convlstm", **SMALL},
    "ConvLSTM, peepholes": {"kind": "convlstm", **SMALL, "peepholes": True},
    "ConvGRU": {"kind": "convgru", **SMALL},
    "TrajGRU": {"kind": "trajgru", **SMALL, "max_flow": 2},
    "PredRNN": {"kind": "predrnn", **SMALL, "hidden": [32, 32], "decoupling": 0},
    "PredRNN-v2": {"kind": "predrnn", **SMALL, "hidden": [32, 32], "decoupling": 0.1},
    "SimVP-gSTA": {"kind": "simvp", "spatial": 8, "temporal": 64, "scales": 2},
}
REVERSED = ("PredRNN-v2",)  # trained with reverse scheduled sampling, as published
SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2
HEAD = """# Forecasters on Moving MNIST, reduced for a CPU

Printed by `python -m benchmarks.results_forecasters DATA FOLDER`. Two handwritten digits move across a square of 64 x 64 pixels;
10 frames are read, 10 are forecast. Not the published protocol: fewer sequences, far fewer steps, smaller networks. So the
figures tell these networks apart after minutes on a CPU, and nothing of what they reach in the end.
"""
ABOUT = (
    "{train} training sequences ({drawn}), {validation} for the choice of the epoch, both of the digits of MNIST's training "
    "part; {test} test sequences of those of its test part. {epochs} epochs in batches of {batch}, {loss}, "
    "{optimizer} with one cycle up to a rate of {learning_rate:g}; PredRNN-v2 with reverse scheduled sampling over the first "
    "half of the steps; seed {seed}; {dates}. MSE and MAE are sums over the pixels "
    "of a frame, SSIM that of scikit-image with a data range of 1 (the published figures have one of 2, which gives the "
    "references 0.01 to 0.04 more), all means over frames. CPU seconds and the peak of memory are those of the whole row, with "
    "one thread for PyTorch, on two shared cores of an x86-64 VM. Rows in "
    "italics are references on the same sequences."
)
ABOUT_PUBLISHED = (
    "`python -m benchmarks.moving_mnist_gpu` runs the published protocol: 10,000 sequences drawn anew for every epoch, 200 "
    "epochs in batches of 16, networks of the published sizes, 10,000 test sequences ([how](../gpu.md)). Not run: it needs a "
    "GPU. How the parameters compare: tests/unit/models/networks/test_moving_forecasters.py."
)


def make_row(name: str, protocol: Protocol, members: Mapping[str, Mapping[str, Any]], folder: Path, digits: Path) -> Row:
    """The row of one network, which is trained now or goes on being trained."""
    import torch
    from pydantic import TypeAdapter

    from configs.networks import FrameModel, build_network
    from configs.tasks.forecast_losses import NormalisedLoss
    from models.losses import masked_mse, masked_mse_mae
    from models.residual_forecaster import Scaling, build_forecaster
    from pipelines.learning.member import frame_weight
    from pipelines.learning.schedules import ScheduledSampling
    from pipelines.learning.training import TrainingSettings, train

    model: FrameModel = TypeAdapter(FrameModel).validate_python({**members[name], "baseline": "none"})
    network = build_network(model, CONTEXT, HORIZON)
    forecaster = build_forecaster(
        None, Scaling((MEAN,), (STD,), ("none",), DAY), context=CONTEXT, horizon=HORIZON, network=network, seed=SEED
    )
    training_digits = digits_of(digits, "train")
    training = SequenceSet(forecaster, training_digits, protocol.train, SEED, anew=protocol.anew)
    validation = SequenceSet(forecaster, training_digits, protocol.validation, VALIDATION_SEED)
    settings = TrainingSettings(
        epochs=protocol.epochs, batch=protocol.batch, learning_rate=protocol.learning_rate, optimizer=protocol.optimizer,
        patience=protocol.epochs, seed=SEED, sampling=ScheduledSampling("reverse", "exponential") if name in REVERSED else None,
    )  # fmt: skip
    loss = NormalisedLoss(masked_mse_mae, forecaster.normalise) if protocol.loss == "mse_mae" else masked_mse
    learn = partial(train, target_of=itemgetter("target_KCHW"), weight_of=frame_weight)
    report = learn(forecaster, training, validation, loss, settings, folder / slug(name))
    test = SequenceSet(forecaster, digits_of(digits, "test"), protocol.test, TEST_SEED)
    return {
        "protocol": asdict(protocol),
        "model": dict(members[name]),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "epochs": report.members[0].best_epoch,
        "parameters": sum(one.numel() for one in forecaster.members[0].parameters()),
        "device": "GPU" if torch.cuda.is_available() else "CPU",
        **scores_of(forecast_all(forecaster, test), test.frames_NTYX),
    }


def kept_row(name: str, protocol: Protocol, members: Mapping[str, Mapping[str, Any]], folder: Path) -> Row | None:
    """What was measured with the same settings."""
    path = folder / f"{slug(name)}.json"
    row: Row = json.loads(path.read_text()) if path.is_file() else {}
    return row if (row.get("protocol"), row.get("model")) == (asdict(protocol), dict(members[name])) else None


def references(protocol: Protocol, digits: Path) -> dict[str, dict[str, float]]:
    """Scores of what needs no training, on the test sequences."""
    frames = draw_sequences(digits_of(digits, "test"), protocol.test, TEST_SEED)
    seen = frames[:, :CONTEXT].astype(np.float32) / 255
    forecasts = {
        "last frame (persistence)": seen[:, -1:],
        "mean of the frames": seen.mean(axis=1, keepdims=True),
        "nothing (black)": 0 * seen[:, :1],
    }
    return {name: scores_of(np.repeat(one, HORIZON, axis=1), frames) for name, one in forecasts.items()}


# ---------------------------------------------------------------- what is printed


def lines_of(
    protocol: Protocol, members: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row],
    known: Mapping[str, Mapping[str, float]],
) -> list[str]:  # fmt: skip
    p = protocol
    dates = " and ".join(sorted({row["measured"] for row in rows.values()})) or "not measured"
    drawn = "drawn anew for every epoch" if p.anew else "drawn once"
    about = ABOUT.format(**{**asdict(p), "loss": LOSSES[p.loss]}, drawn=drawn, seed=SEED, dates=dates)
    lines = [HEAD, *textwrap.wrap(about, 120), ""]
    lines += ["| network | `model` | MSE | MAE | SSIM | best epoch | parameters | CPU s | peak GB |", "|---" * 9 + "|"]
    for name, row in rows.items():
        at_least = "at least " if row.get("went_on") else ""
        cost = [f"{at_least}{row['cpu_seconds']:.0f}", f"{row['peak_gb']:.2f}"]
        said = ", ".join(f"{key} {value}" for key, value in members[name].items())
        lines.append(f"| {name} | {said} | {figures(row)} | {row['epochs']} | {row['parameters']} | {' | '.join(cost)} |")
    lines += [f"| *{name}* | | {figures(scores)} | | | | |" for name, scores in known.items()]
    if missing := [name for name in members if name not in rows]:
        lines += ["", f"Not run yet: {'; '.join(missing)}."]
    return [*lines, "", "## Published", "", *textwrap.wrap(ABOUT_PUBLISHED, 120), "", *published_lines()]


def figures(scores: Mapping[str, float]) -> str:
    return f"{scores['mse']:.1f} | {scores['mae']:.1f} | {scores['ssim']:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--member", action="append", choices=list(MEMBERS), help="rows to make; default: all")
    parser.add_argument("--epochs", type=int, help="of training; rows of other numbers are rows of their own")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time, each with one thread")
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is finished")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one row, in this process
    parsed = parser.parse_args(arguments)
    members, protocol = MEMBERS, replace(REDUCED, epochs=parsed.epochs or REDUCED.epochs)
    folder, digits = parsed.folder.resolve() / f"reduced-{protocol.epochs}", parsed.data / "digits" / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    if parsed.here:
        print(json.dumps(make_row(parsed.member[0], protocol, members, folder, digits)))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    given = [str(parsed.data), str(parsed.folder), "--epochs", str(protocol.epochs)]
    wanted = [] if parsed.finished else parsed.member or members
    missing = [name for name in wanted if kept_row(name, protocol, members, folder) is None]
    with ThreadPoolExecutor(parsed.jobs) as pool:
        list(pool.map(lambda name: run_row(name, folder, given), missing))
    rows = {name: row for name in members if (row := kept_row(name, protocol, members, folder)) is not None}
    print("\n".join(lines_of(protocol, members, rows, references(protocol, digits))))


def run_row(name: str, folder: Path, given: Sequence[str]) -> None:
    """Makes a row in a process of its own and keeps it with what it cost."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    was_begun = (folder / slug(name)).exists()
    command = [sys.executable, "-m", "benchmarks.results_forecasters", *given, "--member", name, "--here"]
    costs = run_measured(command, every_s=POLLED_S)
    if costs.returncode:
        raise SystemExit(f"{name}: exit code {costs.returncode}")
    row = {**json.loads(costs.stdout), "cpu_seconds": costs.cpu_seconds, "peak_gb": costs.peak_gb, "went_on": was_begun}
    (folder / f"{slug(name)}.json").write_text(json.dumps(row))
    print(f"{name}: {costs.cpu_seconds:.0f} CPU s, MSE {row['mse']:.1f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
