"""One turn of one way, in a process of its own: `python -m benchmarks.peers.one COMPARISON WAY CASE OUT`.

The last line says what the work cost, without imports. The environment is that of the way: driftline's, or the peers'.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.measuring import cpu_seconds


def main(comparison: str, way: str, case: Path, out: Path) -> None:
    work = import_module(f"benchmarks.peers.{comparison}").WAYS[way](case, out)
    cpu, started = cpu_seconds(), time.monotonic()
    work()
    print(json.dumps({"seconds": time.monotonic() - started, "cpu_seconds": cpu_seconds() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
