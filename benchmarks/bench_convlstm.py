"""This ConvLSTM against the usual eager cell and against this machine's convolution peak.

    python -m benchmarks.bench_convlstm [--quick]

Hidden 64, 3 layers, 64x64 and 256x256, one thread. The reference is the cell of most repositories: concatenate input and
state, one convolution for all gates, chunk, pointwise; layer after layer, outputs stacked. Times are medians of the CPU
seconds of alternating runs in one process (ratios from one run); memory is the peak above the imports, each implementation
in a new process.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.criteria import verdict
from models.cells.convlstm import ConvLSTM, ConvLSTMCell
from models.cells.in_place import InPlaceRun

HIDDEN, LAYERS, CHANNELS = 64, 3, 4


class UsualCell(nn.Module):
    """The cell of the reference: Shi et al. 2015 without peepholes, one fused convolution."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = torch.chunk(self.conv(torch.cat([x, h], dim=1)), 4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class UsualConvLSTM(nn.Module):
    """The reference: layer after layer over the whole sequence."""

    def __init__(self, inputs: int, hidden: int, layers: int):
        super().__init__()
        self.cells = nn.ModuleList(UsualCell(inputs if n == 0 else hidden, hidden) for n in range(layers))

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        batch, steps, _, height, width = x_BTCHW.shape
        for cell in self.cells:
            h = x_BTCHW.new_zeros(batch, HIDDEN, height, width)
            c, outputs = torch.zeros_like(h), []
            for t in range(steps):
                h, c = cell(x_BTCHW[:, t], h, c)
                outputs.append(h)
            x_BTCHW = torch.stack(outputs, dim=1)
        return x_BTCHW[:, -1]


def ours_inference(stack: ConvLSTM, x_BTCHW: Tensor) -> Tensor:
    with torch.no_grad():
        run = InPlaceRun(stack, x_BTCHW[:, 0])
        for t in range(x_BTCHW.shape[1]):
            output = run.step(x_BTCHW[:, t])
    return output


def ours_training(stack: ConvLSTM, x_BTCHW: Tensor) -> None:
    stack.zero_grad(set_to_none=True)
    state = None
    for t in range(x_BTCHW.shape[1]):
        output, state = stack.step(x_BTCHW[:, t], state)
    output.square().mean().backward()


def usual_inference(model: UsualConvLSTM, x_BTCHW: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_BTCHW)


def usual_training(model: UsualConvLSTM, x_BTCHW: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model(x_BTCHW).square().mean().backward()


def same_weights(stack: ConvLSTM, model: UsualConvLSTM) -> None:
    for cell, usual in zip(stack.cells, model.cells, strict=True):
        assert isinstance(cell, ConvLSTMCell)
        assert isinstance(usual, UsualCell)
        usual.conv.load_state_dict(cell.gates.state_dict())


def gigaflops(steps: int, size: int) -> float:
    """Floating point operations of the convolutions of one forward pass, in 1e9."""
    inputs = [CHANNELS] + [HIDDEN] * (LAYERS - 1)
    return sum(2 * 9 * (n + HIDDEN) * 4 * HIDDEN for n in inputs) * size * size * steps / 1e9


def conv_peak(size: int, repeats: int) -> float:
    """GFLOP/s of the gate convolution alone, best of `repeats`, channels-last."""
    conv = nn.Conv2d(2 * HIDDEN, 4 * HIDDEN, 3, padding=1)
    x = torch.randn(1, 2 * HIDDEN, size, size).to(memory_format=torch.channels_last)
    with torch.no_grad():
        best = min(seconds(lambda: conv(x)) for _ in range(repeats))
    return 2 * 9 * 2 * HIDDEN * 4 * HIDDEN * size * size / 1e9 / best


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, which runs one thread: less affected by other load than the wall clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(ours: Callable[[], object], usual: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """(median seconds ours, median seconds usual, median of the pairwise ratios usual / ours); runs alternate."""
    ours(), usual()
    pairs = []
    for n in range(repeats):
        first = n % 2 == 0
        a = seconds(ours if first else usual)
        b = seconds(usual if first else ours)
        pairs.append((a, b) if first else (b, a))
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(theirs), statistics.median(b / a for a, b in pairs)


def peak_mb(way: str, size: int, steps: int) -> float:
    """Peak memory above imports and weights of one inference in a new process, MB (1e6 bytes)."""
    command = [sys.executable, "-m", "benchmarks.bench_convlstm", "--memory-of", way, "--size", str(size), "--steps", str(steps)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_memory(way: str, size: int, steps: int) -> float:
    """Increase of the peak resident size from before the sequence exists to after the inference; run in the new process."""
    stack, model = ConvLSTM(CHANNELS, [HIDDEN] * LAYERS).eval(), UsualConvLSTM(CHANNELS, HIDDEN, LAYERS).eval()
    small = torch.randn(1, 2, CHANNELS, 16, 16)
    ours_inference(stack, small) if way == "ours" else usual_inference(model, small)
    x = torch.randn(1, steps, CHANNELS, size, size)
    before = peak_resident_kb()
    ours_inference(stack, x) if way == "ours" else usual_inference(model, x)
    return (peak_resident_kb() - before) * 1024 / 1e6


def peak_resident_kb() -> int:
    """Peak resident size of this process in KiB. Linux only: getrusage would count the parent's pages from before exec."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--memory-of", choices=["ours", "usual"], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=256, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=10, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of, options.size, options.steps)))
        return
    print(f"{datetime.date.today()}  {os.cpu_count()}-core {platform.machine()}  torch {torch.__version__}  1 thread")
    print(f"ConvLSTM, hidden {HIDDEN}, {LAYERS} layers, {CHANNELS} channels, batch 1, float32")
    table(options.quick)


def table(is_quick: bool) -> None:
    torch.manual_seed(0)
    stack, model = ConvLSTM(CHANNELS, [HIDDEN] * LAYERS), UsualConvLSTM(CHANNELS, HIDDEN, LAYERS)
    same_weights(stack, model)
    verdicts = []
    print(f"{'what':24}{'size':>6}{'usual s':>10}{'ours s':>10}{'ratio':>8}{'of conv peak':>14}")
    for size, steps, repeats in (
        (64, 6 if is_quick else 10, 5 if is_quick else 15),
        (256, 2 if is_quick else 4, 3 if is_quick else 5),
    ):
        x = torch.randn(1, steps, CHANNELS, size, size)
        difference = float((ours_inference(stack, x) - usual_inference(model, x)).abs().max())
        assert difference < 1e-5, f"the two implementations differ by {difference}"
        peak = conv_peak(size, 20 if size == 64 else 5)
        mine, theirs, ratio = compare(partial(ours_inference, stack, x), partial(usual_inference, model, x), repeats)
        print(f"{'inference':24}{size:6}{theirs:10.3f}{mine:10.3f}{ratio:8.2f}{gigaflops(steps, size) / mine / peak:14.0%}")
        verdicts.append(verdict(f"inference, {size}x{size}", ratio, at_least=1.05))
        if size == 256 and is_quick:
            continue
        mine, theirs, ratio = compare(partial(ours_training, stack, x), partial(usual_training, model, x), max(3, repeats // 2))
        print(
            f"{'training step':24}{size:6}{theirs:10.3f}{mine:10.3f}{ratio:8.2f}{3 * gigaflops(steps, size) / mine / peak:14.0%}"
        )
        verdicts.append(verdict(f"training step, {size}x{size}", ratio, at_least=0.97))
    usual, ours = peak_mb("usual", 256, 10), peak_mb("ours", 256, 10)
    print(f"peak memory, inference, 256x256, 10 steps: usual {usual:.0f} MB, ours {ours:.0f} MB")
    verdicts.append(verdict("peak memory, inference, 256x256", ours / usual, at_most=0.5))
    print(f"convolution peak measured in this run: {peak:.0f} GFLOP/s at 256x256")
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
