"""What the plan of a run says beside what the run takes: five cases, and two of other sizes than the plans were adjusted on.

    python -m benchmarks.bench_plans [--quick] [--only CASE ...] [--keep FOLDER]

Each case is one `driftline run` in a temporary folder, with one thread for PyTorch, after a calibration of this machine.
They share one file of what runs took: later cases are planned with what earlier ones of their kind took.
The real data are looked for in $DRIFTLINE_DATA, else ../shared/data. Where other programs use the cores the wall clock is no
measure of the plan; the CPU seconds stand in its place.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.criteria import verdict

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DRIFTLINE_DATA", ROOT.parent / "shared" / "data")).resolve()
ROMANIA = DATA / "satellite" / "sentinel2-romania" / "sentinel2_cube_subset_romania_10m.nc"
WITHIN = 0.30
FIGURES = {"seconds": "s", "cpu_seconds": "s", "memory_mb": "MB", "disk_mb": "MB", "read_mb": "MB"}
PEAKS = ("memory_mb",)  # of a case the largest; of the others the sum


@dataclass(frozen=True)
class Case:
    """A config of this repository with changes. is_quick: also with --quick."""

    config: str
    changes: tuple[str, ...] = ()
    is_held_out: bool = False
    is_quick: bool = False


CASES = {
    "forecast": Case("demo.yaml", (f"source.path={ROMANIA}",)),
    "monitoring": Case("demo-change.yaml", (f"source.path={ROMANIA}",), is_quick=True),
    "crops": Case(
        "porto-dos-gauchos.yaml",
        (
            f"source.path={DATA}/satellite/modis-porto-dos-gauchos",
            f"labels.path={DATA}/satellite/modis-porto-dos-gauchos/samples.csv",
            "training.epochs=4",
            "split.networks=1",
        ),
    ),
    "digits": Case(
        "mnist-rows.yaml",
        (
            f"source.path={DATA}/digits/mnist",
            "training.epochs=2",
            "training.per_epoch=10000",
            "evaluation.references=[commonest, nearest_mean]",
        ),
    ),
    "echocardiogram": Case("demo-medical.yaml", is_quick=True),
    "forecast, 20 m": Case(
        "romania-20m.yaml",
        (
            f"source.path={str(ROMANIA).replace('10m', '20m')}",
            "model={hidden: [8], baseline: decaying_anomaly, members: 2}",
            "training.epochs=6",
            "evaluation.baselines=[persistence, climatology, decaying_anomaly]",
        ),
        is_held_out=True,
    ),
    "monitoring, 200 x 200": Case("demo-change.yaml", ("source.path=large.nc",), is_held_out=True),
}


def write_large(path: Path, times: int = 2) -> None:
    """The series of the forecast, repeated along both axes."""
    import xarray as xr

    with xr.open_dataset(ROMANIA, engine="h5netcdf", decode_cf=False) as series:
        small = series.load()
    step = {dim: float(small[dim][1] - small[dim][0]) for dim in ("y", "x")}
    axes = {dim: float(small[dim][0]) + step[dim] * np.arange(times * small.sizes[dim]) for dim in step}
    bands = {
        name: (band.dims, np.tile(band.values, (1, times, times)), band.attrs) for name, band in small.items() if band.ndim == 3
    }
    kept = {name: value for name, value in small.items() if value.ndim != 3}
    coords = {"time": small["time"], **{dim: (dim, values, small[dim].attrs) for dim, values in axes.items()}}
    xr.Dataset({**bands, **kept}, coords, small.attrs).to_netcdf(path, engine="h5netcdf")


def call(folder: Path, *arguments: str) -> dict[str, Any]:
    """The result of `driftline ARGUMENTS --json`, also where inputs were refused or the model is not published."""
    environment = {
        **os.environ,
        "DRIFTLINE_CACHE": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data-home"),
        "PREFECT_API_URL": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, name: str, case: Case) -> list[dict[str, Any]]:
    """The rows of `costs.json` of a run, stage by stage."""
    if "large.nc" in str(case.changes) and not (folder / "large.nc").exists():
        write_large(folder / "large.nc")
    if case.config == "demo-medical.yaml":
        from flows.demo_medical import CLIP, fetch_clip

        fetch_clip(folder / "data" / "pydicom-3.0.2")
        assert (folder / "data" / "pydicom-3.0.2" / CLIP).exists()
    run = "".join(c if c.isalnum() else "-" for c in name)
    config = folder / case.config
    config.write_text((ROOT / "configs" / case.config).read_text(encoding="utf-8"), encoding="utf-8")
    changes = [part for change in (*case.changes, f"name={run}") for part in ("--set", change)]
    call(folder, "run", case.config, *changes)
    return list(json.loads((folder / "runs" / run / "costs.json").read_text(encoding="utf-8")).values())


def total(rows: Sequence[Mapping[str, Any]], what: str, figure: str) -> float:
    values = [row[what][figure] or 0.0 for row in rows if row["planned"] is not None]
    return max(values, default=0.0) if figure in PEAKS else sum(values)


def lines_of(name: str, case: Case, rows: Sequence[Mapping[str, Any]], load: float) -> list[str]:
    """Stage by stage, and the whole: planned -> took (took / planned)."""
    lines = [f"{name}{' (hold-out)' if case.is_held_out else ''}, load {load:.1f}"]
    cells = [(row["stage"] + (f", {row['past_runs']} past" if row["past_runs"] else ""), [row]) for row in rows]
    for label, part in [*cells, ("all", rows)]:
        shown = []
        for figure in FIGURES:
            planned, actual = total(part, "planned", figure), total(part, "actual", figure)
            shown.append(f"{planned:.0f} -> {actual:.0f} ({actual / planned if planned else float('nan'):.2f})")
        lines.append(f"  {label:<18}" + "".join(f"{cell:>24}" for cell in shown))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_plans")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--keep", metavar="FOLDER", help="work in this folder, and leave it there")
    arguments = parser.parse_args()
    chosen = {
        name: case
        for name, case in CASES.items()
        if (name in arguments.only if arguments.only else case.is_quick or not arguments.quick)
    }
    if not DATA.is_dir():
        print(f"the real data are not at {DATA}: set DRIFTLINE_DATA")
        return 1
    with tempfile.TemporaryDirectory() as made:
        folder = Path(arguments.keep or made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M}, one thread, load {os.getloadavg()[0]:.1f}")
        print(json.dumps(call(folder, "doctor", "--calibrate")["rates"]), flush=True)
        heads = ("time, s", "CPU, s", "memory, MB", "disk, MB", "read, MB")
        print(f"{'planned -> took':<20}" + "".join(f"{head:>24}" for head in heads))
        missed = list[str]()
        for name, case in chosen.items():
            rows = measure(folder, name, case)
            print("\n".join(lines_of(name, case, rows, os.getloadavg()[0])), flush=True)
            for figure in FIGURES:
                ratio = total(rows, "actual", figure) / max(total(rows, "planned", figure), 1e-9)
                if figure != "seconds" and not 1 - WITHIN <= ratio <= 1 + WITHIN:
                    missed.append(f"{name}: {figure} {ratio:.2f}")
        figures = len(chosen) * (len(FIGURES) - 1)
        print(f"outside {WITHIN:.0%}: {', '.join(missed) or 'none'}")
        print(
            verdict(
                f"figures of {len(chosen)} cases within 30 % (CPU, memory, disk, read)",
                figures - len(missed),
                at_least=figures,
                unit="",
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
