"""`python -m tests.hostile [--sample N] [--kind TEXT] [--reasons]`: hostile files through `driftline ingest`, in numbers.

Files of one kind of source lie in one folder, a hundred at a time, with good ones between them. A batch that dies, hangs or
ends is tried again in parts, to name the files that did it. The last line holds the figures; exit code 1 if one of them is not 0
or the peak of memory is above 1.5 times the budget.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.hostile.batch import MEMORY_MB, Listener, Tally, run_batch
from tests.hostile.case import Case
from tests.hostile.corpus import all_cases, sample
from tests.hostile.single import run_singles

BATCH = 100


def batches(cases: list[Case]) -> list[list[Case]]:
    """Of one group each, kinds mixed, always in the same way."""
    found = []
    for _, alike in itertools.groupby(sorted(cases, key=lambda case: case.group), lambda case: case.group):
        mixed = list(alike)
        random.Random(5).shuffle(mixed)
        found += [mixed[n : n + BATCH] for n in range(0, len(mixed), BATCH)]
    return found


def run_all(cases: list[Case], folder: Path, *, divides: bool = True, verbose: bool = False) -> Tally:
    total, listener = Tally(), Listener()
    numbers = itertools.count()

    def run(some: list[Case]) -> Tally:
        place = folder / f"batch{next(numbers)}"
        tally = run_batch(some, place, listener)
        shutil.rmtree(place, ignore_errors=True)
        if divides and len(some) > 1 and (tally.deaths or tally.hangs or tally.ended):
            alone = [case for case in some if case.name in tally.suspects]
            rest = [case for case in some if case not in alone]
            middle = len(some) // 2
            parts = [[case] for case in alone] + [rest] * bool(rest) if alone else [some[:middle], some[middle:]]
            found = Tally()
            for part in parts:
                found.add(run(part))
            tally = found if found.deaths or found.hangs or found.ended else tally
        return tally

    for some in batches(cases):
        tally = run(some)
        total.add(tally)
        if verbose:
            print(f"{some[0].group} {len(some)}: {tally.line}", *tally.faults, sep="\n  ", flush=True)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--sample", type=int, help="about so many files of all kinds")
    parser.add_argument("--kind", default="", help="only kinds, groups or names that contain this")
    parser.add_argument("--reasons", action="store_true", help="count what became of each kind")
    options = parser.parse_args()
    cases = [case for case in all_cases() if options.kind in f"{case.group} {case.kind}/{case.name}"]
    cases = sample(cases, options.sample) if options.sample else cases
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        total = run_all(cases, Path(folder), verbose=True)
        if not options.kind or options.kind == "single":
            alone = run_singles(Path(folder) / "single")
            print(f"one by one {alone.files}: {alone.line}", *alone.faults, sep="\n  ", flush=True)
            total.add(alone)
    if options.reasons:
        print(*(f"{count:5d}  {reason}" for reason, count in sorted(total.reasons.items())), sep="\n")
    print(total.line)
    return 0 if total.is_clean and total.peak_mb <= 1.5 * MEMORY_MB else 1


if __name__ == "__main__":
    sys.exit(main())
