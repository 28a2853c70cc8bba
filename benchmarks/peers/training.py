"""Training steps of three ConvLSTM layers of 64 channels: driftline's, and torchgeo's ConvLSTM from the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYERS, CHANNELS, HIDDEN, BATCH, STEPS, SIDE_PX = 3, 4, 64, 2, 8, 64
TITLE = f"training: {LAYERS} ConvLSTM layers of {HIDDEN}, {BATCH} sequences of {STEPS} x {CHANNELS} x {SIDE_PX}x{SIDE_PX}, Adam"


def prepare(case: Path, is_quick: bool) -> None:
    """The weights by the names of the usual cell, the sequences, and the number of steps."""
    import torch

    from benchmarks.bench_cores import CORES, as_usual

    torch.manual_seed(0)
    core = CORES["convlstm-3"]
    ours = core.ours()
    torch.save(ours.state_dict(), case / "ours.pt")
    torch.save(as_usual(core, ours, lambda parameter: parameter.detach().clone()), case / "usual.pt")
    torch.save(torch.randn(BATCH, STEPS, CHANNELS, SIDE_PX, SIDE_PX), case / "x.pt")
    (case / "steps.json").write_text(json.dumps(3 if is_quick else 10))


def train(case: Path, out: Path, network: Any, forward: Callable[[Any], Any]) -> Callable[[], None]:
    import torch

    x = torch.load(case / "x.pt", weights_only=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def work() -> None:
        losses = []
        for _ in range(json.loads((case / "steps.json").read_text())):
            optimizer.zero_grad(set_to_none=True)
            loss = forward(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        (out / "losses.json").write_text(json.dumps(losses))

    return work


def driftline(case: Path, out: Path) -> Callable[[], None]:
    import torch

    from benchmarks.bench_cores import CORES, forward

    network = CORES["convlstm-3"].ours()
    network.load_state_dict(torch.load(case / "ours.pt", weights_only=True))
    return train(case, out, network, lambda x: forward(network, x))


def with_torchgeo(case: Path, out: Path) -> Callable[[], None]:
    """Its file alone: the package imports torchvision, whose wheel does not fit the CPU build of torch."""
    import importlib.util

    import torch

    package = importlib.util.find_spec("torchgeo")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("torchgeo is not installed; run make bench-peers")
    path = Path(package.submodule_search_locations[0]) / "models" / "convlstm.py"
    spec = importlib.util.spec_from_file_location("torchgeo_convlstm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.ConvLSTM(CHANNELS, HIDDEN, 3, LAYERS)
    usual = torch.load(case / "usual.pt", weights_only=True)  # layers.1.0.conv.weight -> cell_list.1.conv.weight
    network.load_state_dict(
        {name.replace("layers.", "cell_list.").replace(".0.conv", ".conv"): each for name, each in usual.items()}
    )
    return train(case, out, network, lambda x: network(x)[0][-1])


WAYS = {"driftline": driftline, "torchgeo": with_torchgeo}


def compare(case: Path, outs: dict[str, Path]) -> str:
    ours, theirs = (json.loads((outs[way] / "losses.json").read_text()) for way in WAYS)
    apart = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    return f"losses of {len(ours)} steps differ by at most {apart:.1e} of the loss"
