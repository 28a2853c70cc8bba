"""Made dynamic series of volumes, whose truth is known: the uptake of a contrast agent, and boluses that travel along vessels.

    python -m flows.dynamic_series            # writes data/dynamic-series/ (series, labels, truth) and data/travelling-bolus/
    python -m flows.dynamic_series --score    # compares the class map of configs/dynamic-series.yaml with the truth

What is drawn, and how: `pipelines.samples.drawn_uptake`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

FOLDER, BOLUS = Path("data/dynamic-series"), Path("data/travelling-bolus/series.nii.gz")
MAP = Path("runs/dynamic-series/products/class.nii.gz")


def main() -> None:
    """`python -m flows.dynamic_series`."""
    from pipelines.products.drawn_volumes import score_uptake, write_bolus, write_uptake

    parser = argparse.ArgumentParser(prog="python -m flows.dynamic_series", description="made series of volumes")
    parser.add_argument("--score", action="store_true", help="compare what was published with the truth")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    asked = parser.parse_args()
    if asked.score:
        print("\n".join(score_uptake(FOLDER / "truth.nii.gz", MAP)))
        return
    counts = write_uptake(FOLDER, asked.seed)
    print(f"{FOLDER}: made uptake; voxels: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    print(f"{BOLUS}: made boluses; {write_bolus(BOLUS, asked.seed)} voxels of vessels")


if __name__ == "__main__":
    main()
