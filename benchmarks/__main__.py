"""`python -m benchmarks [--quick] [--strict] [NAME ...]`: all benchmarks, or those named, each in a separate process.

Writes only to temporary folders. A criterion that is not met says MISSED in its table. The exit code is 1 if a benchmark
failed to run, or with `--strict` if a criterion was missed; 2 for an unknown name.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def run(name: str, is_quick: bool) -> tuple[bool, bool]:
    """(it completed, a criterion was missed); its output is shown as it is written."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *(["--quick"] if is_quick else [])]
    has_missed = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            has_missed |= "MISSED" in line
            print(line, end="", flush=True)
    return process.returncode == 0, has_missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--quick", action="store_true", help="fewer repeats: ratios vary more")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for a missed criterion too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names()):
        print(f"unknown benchmarks {', '.join(sorted(unknown))}; available: {', '.join(names())}", file=sys.stderr)
        return 2
    machine = f"{os.cpu_count()}-core {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    print(f"driftline benchmarks, {datetime.now(UTC):%Y-%m-%d}, {machine}, load {load()}")
    failed, missed, started = [], [], time.monotonic()
    for name in arguments.names or names():
        print(f"\n== {name}", flush=True)
        has_run, has_missed = run(name, arguments.quick)
        failed += [] if has_run else [name]
        missed += [name] if has_missed else []
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes, load {load()}; criteria missed: {', '.join(missed) or 'none'}")
    if failed:
        print(f"failed to run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or (arguments.strict and missed) else 0


def load() -> str:
    """Processes waiting for a core, mean of the last minute: above the number of cores, wall clock times are unreliable."""
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
