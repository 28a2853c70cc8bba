"""Side by side with what a user would pick instead: odc-stac, xbatcher, MONAI's sliding window, torchgeo's ConvLSTM.

    make bench-peers
    python -m benchmarks.bench_peers [--quick] [--only NAME ...] [--peers PYTHON]

The same data for all; what they make is compared. Each turn of each way is a process of its own, in turns whose order changes;
ratios are medians over the turns (and their range), above 1 where driftline is faster. Times are without imports; the peak of
memory is that of the whole program with its children, measured in a run of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measuring import run_measured

NAMES = ("ingest", "windows", "prediction", "training")
OURS = "driftline"
PEERS = Path("build/venv-peers/bin/python")


def command(python: Path, name: str, way: str, case: Path, out: Path) -> list[str]:
    out.mkdir(parents=True)
    chosen = sys.executable if way == OURS else str(python)
    return [chosen, "-m", "benchmarks.peers.one", name, way, str(case), str(out)]


def compare(name: str, python: Path, turns: int, is_quick: bool) -> None:
    module = import_module(f"benchmarks.peers.{name}")
    ways = tuple(module.WAYS)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        case = Path(folder) / "case"
        case.mkdir()
        module.prepare(case, is_quick)
        for turn in range(turns):
            for way in ways if turn % 2 == 0 else ways[::-1]:
                outs = {one: Path(folder) / f"turn{turn}" / one for one in ways}
                done = subprocess.run(command(python, name, way, case, outs[way]), check=True, stdout=subprocess.PIPE, text=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
        same = module.compare(case, outs)
        peaks = {way: run_measured(command(python, name, way, case, Path(folder) / "memory" / way)).peak_gb for way in ways}
    report(module.TITLE, ways, found, peaks, same)


def report(title: str, ways: tuple[str, ...], found: Any, peaks: dict[str, float], same: str) -> None:
    print(f"\n{title}")
    print(f"{'way':22}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}   {'wall, over ours':24}{'CPU, over ours':24}")
    for way in ways:
        wall, cpu = (statistics.median(turn[key] for turn in found[way]) for key in ("seconds", "cpu_seconds"))
        print(f"{way:22}{wall:8.2f}{cpu:8.2f}{peaks[way]:9.2f}   ", end="")
        if way != OURS:
            for key in ("seconds", "cpu_seconds"):
                ratios = [theirs[key] / ours[key] for theirs, ours in zip(found[way], found[OURS], strict=True)]
                print(f"{f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})':24}", end="")
        print()
    print(same, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, two turns")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--peers", type=Path, default=PEERS, help="the Python of the peers' environment")
    options = parser.parse_args()
    if not options.peers.exists():
        print(f"{options.peers} is not there: run make bench-peers, which builds the peers' environment")
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {'2 turns' if options.quick else '5 turns'}")
    for name in options.only:
        compare(name, options.peers, 2 if options.quick else 5, options.quick)


if __name__ == "__main__":
    main()
