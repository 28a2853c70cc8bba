"""`python -m tests.golden`: carries out the golden runs and records or compares what they computed.

    python -m tests.golden record OUT.json --run all [--full] [--keep FOLDER] [--short]
    python -m tests.golden collect OUT.json --run all --keep FOLDER [--short]      from runs that --keep kept
    python -m tests.golden compare OLD.json NEW.json --run all [--tolerance 1e-6]  exit code 1 where they differ

`--short` leaves out the hashes: the form of values.json and full.json, which are committed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.golden import compare, runs
from tests.golden.record import Record


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    chosen = tuple(runs.RUNS) if options.run == "all" else (options.run,)
    if options.verb == "compare":
        return show(compare.read(options.old, chosen), compare.read(options.new, chosen), options.tolerance)
    with tempfile.TemporaryDirectory() as folder:
        site = options.keep or Path(folder)
        if options.verb == "record":
            site.mkdir(parents=True, exist_ok=True)
            for run in chosen:
                runs.carry_out(run, site, is_full=options.full)
        record = runs.collect_all(chosen, site)
    compare.write(options.out, record, is_short=options.short)
    print(f"{options.out}: {len(record)} arrays")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    for verb in ("record", "collect"):
        one = verbs.add_parser(verb)
        one.add_argument("out", type=Path)
        one.add_argument("--keep", type=Path, required=verb == "collect", help="folder of the runs; default: a temporary one")
        one.add_argument("--short", action="store_true", help="without hashes, to be committed")
    verbs.choices["record"].add_argument("--full", action="store_true", help="the demos as they are shipped")
    two = verbs.add_parser("compare")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    two.add_argument("--tolerance", type=float, help="compare numbers, not bytes")
    for verb in verbs.choices.values():
        verb.add_argument("--run", choices=[*runs.RUNS, "all"], default="all")
    return top


def show(old: Record, new: Record, tolerance: float | None) -> int:
    if not old:
        print("nothing to compare: the old record has no such run")
        return 1
    found = compare.byte_differences(old, new) if tolerance is None else compare.number_differences(old, new, tolerance)
    print("\n".join(found) if found else f"no difference in {len(old)} arrays")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
