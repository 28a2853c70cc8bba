"""The golden runs: both demos, and labelled change on generated images; as shipped, or reduced to what a test can afford."""

import os
import subprocess
import sys
from pathlib import Path

from tests.flows.change_sites import write_sites
from tests.golden.record import RUN_FOLDERS, Record, collect

ROOT = Path(__file__).resolve().parents[2]
RULES = ["image_difference", "change_vector_plain", "ir_mad", "change_vector"]

RUNS = {  # what is typed after `driftline`
    "forecast": ["demo", "--set", "evaluation.combine=false"],  # the methods of the record, which is older than their mean
    "monitor": ["demo", "--change"],
    "change": ["run", "tiny.yaml"],
}
REDUCED = {
    "forecast": [
        "training.epochs=1",
        "model.members=1",
        "evaluation.bootstrap=100",
        "evaluation.baselines=[persistence, climatology, same_date_last_year, median_anomaly, decaying_anomaly, harmonic]",
    ],
    "monitor": ["evaluation.pixels=500"],
    "change": [],
}
SAME_EVERYWHERE = {  # so many threads and no newer instructions than these, whatever the machine has: sums keep their order
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "CUDA_VISIBLE_DEVICES": "",
    "PREFECT_API_URL": "",
}


def carry_out(run: str, folder: Path, *, is_full: bool = False) -> None:
    """One run (`forecast`, `monitor` or `change`) in `folder`, by the command line of this checkout.

    Raises RuntimeError if it fails, FileExistsError if `folder` holds the run: what an older code left must not be taken over.
    """
    if (folder / RUN_FOLDERS[run]).exists():
        raise FileExistsError(f"{folder / RUN_FOLDERS[run]} is there already; name another folder or remove it")
    if run == "change":
        write_sites(folder, evaluation={"must_beat": [], "references": RULES}, prediction={"tile_px": 32})
    overrides = [] if is_full else [part for override in REDUCED[run] for part in ("--set", override)]
    environment = {**os.environ, **SAME_EVERYWHERE, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", *RUNS[run], *overrides, "--even-if-worse"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def collect_all(chosen: tuple[str, ...], folder: Path) -> Record:
    """The records of these finished runs in `folder`, together."""
    return {role: entry for run in chosen for role, entry in collect(run, folder / RUN_FOLDERS[run]).items()}
