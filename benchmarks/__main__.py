"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named, one after the other, each in a process of its own."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(wanted: list[str]) -> int:
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    print(f"driftline benchmarks, {datetime.now(UTC):%Y-%m-%d}, {machine}")
    failed = []
    for name in wanted or names():
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
