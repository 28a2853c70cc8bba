"""Every recurrent core against the usual eager one and against this machine's convolution peak.

    python -m benchmarks.bench_cores [--quick] [--only NAME ...]
    python -m benchmarks.bench_cores --device cuda|cpu     # only the ways of a GPU (benchmarks.cores_on_gpu), or these in small

Convolutional cores: hidden 64, 4 channels, batch 1, 64x64 and 256x256. Cores over vectors: the size of configs/mnist-rows.yaml,
28 steps of 28 values, hidden 128, batch 128; their peak is that of the matrix product of one step. Both give the outputs of every
step from the same weights; outputs and gradients are compared first. Runs alternate in one process: medians (and ranges) of the
ratios usual / ours. One thread is measured in CPU seconds, two by wall clock. Memory is the peak above the imports and the
weights, each implementation in a new process.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import cores_on_gpu
from benchmarks.criteria import verdict
from benchmarks.usual_cores import UsualLayers
from models.cells.conv_gru import ConvGRU
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN
from models.cells.in_place import InPlaceRun
from models.cells.recurrent_stack import RecurrentStack, read_both_ways
from models.cells.vector_recurrence import VectorRecurrence

STACKS: dict[str, type[ConvLSTM] | type[ConvGRU] | type[DCRN]] = {"convlstm": ConvLSTM, "convgru": ConvGRU, "dcrn": DCRN}
GATES = {"convlstm": 4, "convgru": 3, "dcrn": 1, "lstm": 4, "gru": 3, "rnn": 1}
CHANNELS, HIDDEN = 4, 64
BATCH, ROWS, ROW, HIDDEN_OF_ROWS = 128, 28, 28, 128  # configs/mnist-rows.yaml
MEMORY_OF = ("usual", "ours", "ours, last")
MANY = 16384  # sequences of vectors where memory is measured


@dataclass(frozen=True)
class Core:
    kind: str
    layers: int
    directions: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.layers}{'-both-ways' if self.directions == 2 else ''}"

    @property
    def is_conv(self) -> bool:
        return self.kind in STACKS

    @property
    def inputs(self) -> int:
        return CHANNELS if self.is_conv else ROW

    @property
    def hidden(self) -> int:
        return HIDDEN if self.is_conv else HIDDEN_OF_ROWS

    def ours(self) -> nn.Module:
        if not self.is_conv:
            return VectorRecurrence(self.kind, ROW, HIDDEN_OF_ROWS, self.layers, bidirectional=self.directions == 2)
        hidden = [HIDDEN] * self.layers
        return nn.ModuleList(STACKS[self.kind](CHANNELS, hidden) for _ in range(self.directions))

    def usual(self) -> UsualLayers:
        return UsualLayers(self.kind, self.inputs, self.hidden, self.layers, self.directions)

    def sequence(self, size: int, steps: int) -> Tensor:
        """Noise; of vectors, `size` is that of the batch."""
        return torch.randn(1, steps, CHANNELS, size, size) if self.is_conv else torch.randn(size, steps, ROW)

    def gigaflops(self, x: Tensor) -> float:
        """Floating point operations of the convolutions or matrix products of one forward pass, in 1e9."""
        widths = [self.inputs, *[self.directions * self.hidden] * (self.layers - 1)]
        products = sum((width + self.hidden) * GATES[self.kind] * self.hidden for width in widths) * self.directions
        pixels = x.shape[1] * (x.shape[-1] * x.shape[-2] if self.is_conv else len(x))
        return 2 * products * pixels * (9 if self.is_conv else 1) / 1e9

    def peak(self, x: Tensor, repeats: int, clock: Callable[[], float]) -> float:
        """GFLOP/s of the joined convolution (channels-last) or matrix product of one step of a later layer, best of `repeats`."""
        inputs, outputs = 2 * self.hidden, GATES[self.kind] * self.hidden
        if self.is_conv:
            layer: nn.Module = nn.Conv2d(inputs, outputs, 3, padding=1)
            one = torch.randn(1, inputs, *x.shape[-2:]).to(memory_format=torch.channels_last)
            flops = 2 * 9 * inputs * outputs * x.shape[-1] * x.shape[-2]
        else:
            layer, one, flops = nn.Linear(inputs, outputs), torch.randn(len(x), inputs), 2 * inputs * outputs * len(x)
        with torch.no_grad():
            return flops / 1e9 / min(seconds(partial(layer, one), clock) for _ in range(repeats))


CORES = {
    core.name: core
    for core in (
        *(Core(kind, 3) for kind in STACKS),
        *(Core(kind, 1, directions=2) for kind in STACKS),
        *(Core(kind, 1) for kind in ("rnn", "lstm", "gru")),
        *(Core(kind, 2, directions=2) for kind in ("rnn", "lstm", "gru")),
    )
}


def forward(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs of every step, ours or the usual ones."""
    if isinstance(network, VectorRecurrence):
        return network(x)[0]
    if isinstance(network, UsualLayers):
        return network(x)
    assert isinstance(network, nn.ModuleList)
    stacks = [stack for stack in network if isinstance(stack, RecurrentStack)]
    return stacks[0](x)[0] if len(stacks) == 1 else read_both_ways(stacks[0], stacks[1], x)


def last(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs after the last step of each direction; the layers keep their states only."""
    if not isinstance(network, nn.ModuleList):
        return forward(network, x)[:, -1]
    ends = []
    for n, stack in enumerate(network):
        assert isinstance(stack, RecurrentStack)
        run = InPlaceRun(stack, x[:, 0])
        for t in range(x.shape[1])[:: -1 if n else 1]:
            run.step(x[:, t])
        ends.append(run.end()[-1][0])
    return torch.cat(ends, dim=1)


def infer(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return forward(network, x)


def train(network: nn.Module, x: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    forward(network, x).square().mean().backward()


def as_usual(core: Core, ours: nn.Module, read: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    """What `read` gives of our parameters (their values, their gradients), by the names of the usual ones."""
    values = {name: read(parameter) for name, parameter in ours.named_parameters()}
    named: dict[str, Tensor] = {}
    for layer in range(core.layers):
        for n in range(core.directions):
            if not core.is_conv:
                suffix = f"_l{layer}{'_reverse' if n else ''}"
                parts = {part: values[f"layers.{part}{suffix}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            else:
                begin = f"{n}.cells.{layer}."
                cell = {name.removeprefix(begin): each for name, each in values.items() if name.startswith(begin)}
                if core.kind == "dcrn":
                    joined = torch.cat([cell["from_input.weight"], cell["from_state.weight"]], dim=1)
                    parts = {"conv.weight": joined, "conv.bias": cell["from_input.bias"]}
                else:
                    parts = {name.replace("gates.", "conv."): each for name, each in cell.items()}
            named |= {f"layers.{layer}.{n}.{name}": each for name, each in parts.items()}
    return named


def require_same(core: Core, ours: nn.Module, usual: nn.Module, x: Tensor) -> None:
    """Outputs and gradients; AssertionError if they differ."""
    torch.testing.assert_close(infer(ours, x), infer(usual, x), atol=1e-5, rtol=0)
    for network in (ours, usual):
        train(network, x)
    gradients = as_usual(core, ours, gradient_of)
    for name, parameter in usual.named_parameters():
        wanted = gradient_of(parameter)
        torch.testing.assert_close(gradients[name], wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


@dataclass(frozen=True)
class Turns:
    ours_s: float  # median
    usual_s: float
    ratios: list[float]  # usual / ours of each turn

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        return (
            f"{self.usual_s:9.4f}{self.ours_s:9.4f}{self.ratio:7.2f}  {f'({min(self.ratios):.2f} to {max(self.ratios):.2f})':16}"
        )


def compare(ours: Callable[[], object], usual: Callable[[], object], turns: int, clock: Callable[[], float]) -> Turns:
    """Who begins alternates."""
    ours(), usual()
    pairs = []
    for n in range(turns):
        first, second = (ours, usual) if n % 2 == 0 else (usual, ours)
        spent = seconds(first, clock), seconds(second, clock)
        pairs.append(spent if n % 2 == 0 else spent[::-1])
    mine, theirs = zip(*pairs, strict=True)
    return Turns(statistics.median(mine), statistics.median(theirs), [b / a for a, b in pairs])


def peak_mb(core: Core, which: str, repeats: int) -> float:
    """Peak memory above imports and weights of one inference, each in a new process, median in MB (1e6 bytes)."""
    command = [sys.executable, "-m", "benchmarks.bench_cores", "--only", core.name, "--memory-of", which]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(repeats))
    return statistics.median(float(json.loads(run)) for run in runs)


def measure_memory(core: Core, which: str) -> float:
    """Increase of the peak resident size from before the sequence exists to after the inference; run in the new process."""
    network = core.usual() if which == "usual" else core.ours()
    work = last if which == "ours, last" else forward
    with torch.no_grad():
        work(network.eval(), core.sequence(16, 2))
        before = peak_resident_kb()
        work(network, core.sequence(256, 10) if core.is_conv else core.sequence(MANY, ROWS))
    return (peak_resident_kb() - before) * 1024 / 1e6


def peak_resident_kb() -> int:
    """Peak resident size of this process in KiB. Linux only: getrusage would count the parent's pages from before exec."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def measure(core: Core, is_quick: bool, both_threads: list[int]) -> list[str]:
    """Prints the lines of a core; its verdicts."""
    torch.manual_seed(0)
    ours, usual = alike(core)
    sizes = [(64, 8, 3 if is_quick else 7), (256, 2, 3 if is_quick else 5)] if core.is_conv else [(BATCH, ROWS, 15)]
    verdicts = []
    for size, steps, turns in sizes:
        x = core.sequence(size, steps)
        require_same(core, ours, usual, x)
        for threads in both_threads:
            clock = time.process_time if threads == 1 else time.perf_counter
            torch.set_num_threads(threads)
            peak = core.peak(x, 5 if size == 256 else 20, clock)
            for what, work, passes, bound in (("inference", infer, 1, 1.05), ("training step", train, 3, 0.97)):
                found = compare(partial(work, ours, x), partial(work, usual, x), turns, clock)
                share = passes * core.gigaflops(x) / found.ours_s / peak
                print(f"{core.name:22}{what:14}{size:5}{threads:8}{found}{share:8.0%}", flush=True)
                verdicts.append(verdict(f"{core.name}, {what}, {size}, {threads} threads", found.ratio, at_least=bound))
    torch.set_num_threads(1)
    usual_mb, all_mb, last_mb = (peak_mb(core, which, 1 if is_quick else 3) for which in MEMORY_OF)
    print(
        f"{core.name:22}memory: usual {usual_mb:.0f} MB, ours {all_mb:.0f} MB, for the last output {last_mb:.0f} MB", flush=True
    )
    for which, mb in (("every output", all_mb), ("last output", last_mb)):
        verdicts.append(verdict(f"{core.name}, peak memory, {which}", mb / usual_mb, at_most=0.5))
    return verdicts


def alike(core: Core) -> tuple[nn.Module, nn.Module]:
    """(ours, usual) with the same weights."""
    ours, usual = core.ours(), core.usual()
    usual.load_state_dict(as_usual(core, ours, lambda parameter: parameter.detach()))
    return ours, usual


def measure_on_gpu(device: str, is_quick: bool) -> list[str]:
    core = CORES["convlstm-3"]
    return cores_on_gpu.main(device, is_quick, partial(alike, core), forward, core.gigaflops, CHANNELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--only", nargs="+", choices=CORES, default=list(CORES), metavar="NAME", help=", ".join(CORES))
    parser.add_argument("--memory-of", choices=MEMORY_OF, help=argparse.SUPPRESS)
    parser.add_argument("--threads", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    parser.add_argument("--device", choices=("cuda", "cpu"), help="only the ways of a GPU, there or in small here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cores = [CORES[name] for name in options.only]
    if options.memory_of:
        print(json.dumps(measure_memory(cores[0], options.memory_of)))
        return
    if options.device:
        print("\n".join(measure_on_gpu(options.device, options.quick)))
        return
    print(f"{datetime.date.today()}  {os.cpu_count()}-core {platform.machine()}  torch {torch.__version__}  float32")
    print(f"{'core':22}{'what':14}{'size':>5}{'threads':>8}{'usual s':>9}{'ours s':>9}{'ratio':>7}{'of peak':>26}")
    print("\n".join(line for core in cores for line in measure(core, options.quick, options.threads)))
    print("\n".join(measure_on_gpu("cuda", options.quick)))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
