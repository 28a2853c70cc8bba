"""Three layers of ConvLSTM on a GPU beside the usual eager ones: bfloat16, channels-last memory, CUDA graphs, a compiler.

    python -m benchmarks.bench_cores --device cuda [--quick]
    python -m benchmarks.bench_cores --device cpu        # the same in small on this CPU, without graphs and compiler

Hidden 64, 4 channels, 64x64, 10 steps, batch 4 and 16. The states stay float32 in every way; the convolutions are bfloat16 by
autocast, or float32 (on a GPU PyTorch's default for them, TF32). The outputs of every way, and the norm of its gradient, are
compared with those of the usual cells in float32 on the CPU before it is timed. A way that this machine or this PyTorch cannot
run says so and is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.criteria import verdict

Run = Callable[[], object]
WARM_UP = 3
# of the mean |difference| from the CPU's outputs over their mean |value|, and of the gradient's norm
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.02}


@dataclass(frozen=True)
class Way:
    """launch: "eager", "graph" (CUDA graphs) or "compiled" (torch.compile, mode reduce-overhead: fused gates and graphs)."""

    name: str
    is_ours: bool
    dtype: torch.dtype
    channels_last: bool = False
    launch: str = "eager"

    def autocast(self, device: str) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device, self.dtype, cache_enabled=self.launch != "graph")


WAYS = (
    Way("usual, float32", False, torch.float32),
    Way("usual, bfloat16", False, torch.bfloat16),
    Way("ours, float32", True, torch.float32),
    Way("ours, bfloat16", True, torch.bfloat16),
    Way("ours, bfloat16, channels-last", True, torch.bfloat16, channels_last=True),
    Way("  the same, CUDA graphs", True, torch.bfloat16, channels_last=True, launch="graph"),
    Way("  the same, compiled", True, torch.bfloat16, channels_last=True, launch="compiled"),
)


@dataclass(frozen=True)
class Setting:
    device: str
    batch: int
    size: int = 64
    steps: int = 10
    turns: int = 20


class Outputs(nn.Module):
    """The outputs of every step, ours or the usual ones."""

    def __init__(self, network: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.network, self.compute = network, forward

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.network, x)


def inference(way: Way, network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def plain() -> Tensor:
        with torch.no_grad(), way.autocast(x.device.type):
            y: Tensor = network(x)
        return y

    if way.launch != "graph":
        return plain
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            plain()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        y = plain()

    def replay() -> Tensor:
        graph.replay()
        return y

    return replay


def training_step(way: Way, network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward; without the optimiser."""
    if way.launch == "graph":
        with way.autocast(x.device.type):
            torch.cuda.make_graphed_callables(network, (x,))  # its `forward` replays from now on

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with way.autocast(x.device.type):
            loss = network(x).float().square().mean()
        loss.backward()

    return step


def gradient_norm(network: nn.Module) -> float:
    return sum(float(one.grad.double().square().sum()) for one in network.parameters() if one.grad is not None) ** 0.5


def seconds(work: Run, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_gb(work: Run, device: str) -> float | None:
    """Above what was held before; of a graph what it holds for its replays is not counted."""
    if device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def made(way: Way, networks: tuple[nn.Module, nn.Module], device: str) -> nn.Module:
    """A copy of (ours, usual) on the device; raises RuntimeError for a way that needs a GPU."""
    import copy

    if way.launch != "eager" and device != "cuda":
        raise RuntimeError("no GPU here")
    network = copy.deepcopy(networks[0 if way.is_ours else 1]).to(device)
    if way.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if way.launch != "compiled":
        return network
    compiled: nn.Module = torch.compile(network, mode="reduce-overhead")  # type: ignore[assignment]
    return compiled


def measure(setting: Setting, networks: tuple[nn.Module, nn.Module], gigaflops: float, x: Tensor) -> list[str]:
    """Prints the rows of both kinds of work; verdicts of the numbers. gigaflops: of one forward pass of `x`, on the CPU."""
    with torch.no_grad():
        exact = networks[1](x)
    training_step(WAYS[0], networks[1], x)()
    exact_norm = gradient_norm(networks[1])
    on_device, verdicts = x.to(setting.device), []
    for what, passes in (("inference", 1), ("training step", 3)):
        works: dict[str, Run] = {}
        for way in WAYS:
            try:
                network = made(way, networks, setting.device)
                if what == "inference":
                    infer = works[way.name] = inference(way, network, on_device)
                    error = float((infer().cpu().float() - exact).abs().mean() / exact.abs().mean())
                else:
                    works[way.name] = training_step(way, network, on_device)
                    works[way.name]()
                    error = abs(gradient_norm(network) / exact_norm - 1)
                of = f"{way.name.strip()}, batch {setting.batch}, {what}: difference from the CPU's float32"
                verdicts.append(verdict(of, error, at_most=TOLERANCE[way.dtype], unit=""))
                for _ in range(WARM_UP):
                    works[way.name]()
            except RuntimeError as e:
                works.pop(way.name, None)
                print(f"{way.name:32}{what:15}{setting.batch:5}  {str(e).strip().splitlines()[0][:90]}", flush=True)
        report(setting, what, passes * gigaflops, works)
    return verdicts


def report(setting: Setting, what: str, gigaflops: float, works: dict[str, Run]) -> None:
    """Ways take turns."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(setting.turns):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            spent[name].append(seconds(works[name], setting.device))
    usual = statistics.median(spent["usual, float32"])
    for name, times in spent.items():
        median = statistics.median(times)
        peak = peak_gb(works[name], setting.device)
        print(
            f"{name:32}{what:15}{setting.batch:5}{1000 * median:10.2f}{usual / median:8.2f}{gigaflops / median / 1000:10.3f}"
            f"{setting.batch / median:11.1f}{'      –' if peak is None else f'{peak:7.2f}'}",
            flush=True,
        )


def main(
    device: str, is_quick: bool, networks_of: Callable[[], tuple[nn.Module, nn.Module]],
    forward: Callable[[nn.Module, Tensor], Tensor], gigaflops_of: Callable[[Tensor], float], channels: int,
) -> list[str]:  # fmt: skip
    """Verdicts; one line and none of them where a GPU is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        print("cores on a GPU: no GPU here, nothing is measured (docs/gpu.md)")
        return []
    settings = [Setting("cuda", batch, turns=5 if is_quick else 20) for batch in (4, 16)]
    if device == "cpu":
        settings = [Setting("cpu", 2, size=16, steps=3, turns=3)]
    torch.manual_seed(0)
    ours, usual = map(partial(Outputs, forward=forward), networks_of())
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, in small: these times say nothing of a GPU"
    print(f"{name}, torch {torch.__version__}")
    heads = f"{'ms':>10}{'ratio':>8}{'TFLOP/s':>10}{'samples/s':>11}{'GB':>7}"
    print(f"{'ConvLSTM, 3 layers, hidden 64':32}{'what':15}batch{heads}")
    verdicts = []
    for setting in settings:
        x = torch.randn(setting.batch, setting.steps, channels, setting.size, setting.size)
        verdicts += measure(setting, (ours, usual), setting.batch * gigaflops_of(x), x)
    return verdicts
