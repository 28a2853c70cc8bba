"""Time of `driftline --help` in a new process: the median of seven runs after one that fills the disk cache.

    python -m benchmarks.bench_help [--quick]

Wall clock, and CPU seconds of the child, which depend less on other load.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

from benchmarks.criteria import verdict

LIMIT_S = 0.5


def measure() -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one call."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "flows.cli", "--help"], check=True, capture_output=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    measure()
    found = [measure() for _ in range(3 if parser.parse_args().quick else 7)]
    wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    print(verdict("driftline --help, wall clock", wall, at_most=LIMIT_S, unit=" s"))
    print(f"CPU: {cpu:.2f} s")


if __name__ == "__main__":
    main()
