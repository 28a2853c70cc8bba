"""What plans know of this machine: its rates, measured once by `driftline doctor --calibrate`, and what runs took here.

Both stand in `plans.json` in the cache folder of the user, under the machine that they were measured on; without them plans use
the rates of the machine that their constants were measured on, and say so. See docs/design/032-plans.md.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeGuard

from pipelines.errors import RequestError
from pipelines.files import cache_folder, write_json

PLANS_VERSION = 1  # of rates and formulas: what was kept of others is not used
FIGURES = ("seconds", "cpu_seconds", "memory_mb", "disk_mb", "read_mb")
CROWDED = 1.25  # processes that want a core, per core, mean of the last minute
MOST_RUNS = 5  # of a stage that are kept, and that a plan is corrected by
OF_LIKE_SIZE = 5.0  # a run corrects plans from a fifth to five times its own
LEAST = {"seconds": 0.5, "cpu_seconds": 0.5, "memory_mb": 50.0, "disk_mb": 0.5, "read_mb": 0.5}  # below: of no use for a ratio


@dataclass(frozen=True)
class Rates:
    """Of a machine; by default those of one core of an AMD EPYC server, which the constants of the plans were measured on.

    train_flop_s, predict_flop_s: operations of a ConvLSTM of 16 channels on 32 x 32 pixels, with all threads. fit_values_s:
    pixel-dates that the harmonic model fits, one core. write_bytes_s, read_bytes_s: bytes of pixels packed, written and forced to
    the disk, and read again, one core. start_s: Python with what a stage imports.
    """

    train_flop_s: float = 48e9
    predict_flop_s: float = 130e9
    fit_values_s: float = 4e6
    write_bytes_s: float = 600e6
    read_bytes_s: float = 6e9
    start_s: float = 3.5


SHIPPED = Rates()


@dataclass(frozen=True)
class Machine:
    """This machine beside the one that the constants were measured on: how many times as fast it is. `note`: for the plan."""

    rates: Rates = SHIPPED
    note: str = ""
    threads: int = 1  # that the rates of networks were measured with

    @property
    def training(self) -> float:
        return self.rates.train_flop_s / SHIPPED.train_flop_s

    @property
    def inference(self) -> float:
        return self.rates.predict_flop_s / SHIPPED.predict_flop_s

    @property
    def numerics(self) -> float:
        return self.rates.fit_values_s / SHIPPED.fit_values_s

    @property
    def writing(self) -> float:
        return self.rates.write_bytes_s / SHIPPED.write_bytes_s

    @property
    def reading(self) -> float:
        return self.rates.read_bytes_s / SHIPPED.read_bytes_s

    @property
    def starting(self) -> float:
        return SHIPPED.start_s / self.rates.start_s


Figures = Mapping[str, float | None]  # of FIGURES; None: not known here


@dataclass(frozen=True)
class PastRun:
    """A stage that was planned and done; `is_crowded`: others had the cores too, so that its time says little."""

    planned: Figures
    actual: Figures
    is_crowded: bool = False


def plans_file() -> Path:
    """Raises RequestError where there is no folder for caches."""
    return cache_folder() / "plans.json"


@cache
def machine_key() -> str:
    """CPU, cores, threads of a stage and version of PyTorch: what rates depend on."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    return f"{cpu_model()}, {core_count()} cores, {thread_count()} threads, torch {torch}, plans {PLANS_VERSION}"


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_crowded() -> bool:
    """Whether other programs want the cores too: then the wall clock says little about ours."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > CROWDED * core_count()


def thread_count() -> int:
    """Threads that PyTorch takes."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else core_count()


def read_machine() -> Machine:
    """The rates of this machine; the shipped ones, said, where there are none that can be used."""
    remedy = "`driftline doctor --calibrate` measures those of this one, in half a minute"
    content, problem = read_plans()
    if problem:
        return Machine(note=f"{problem}: the rates are of another machine; {remedy}")
    kept = content.get(machine_key(), {}).get("rates")
    if isinstance(kept, dict) and all(is_rate(kept.get(one.name)) for one in fields(Rates)):
        return Machine(Rates(**{one.name: float(kept[one.name]) for one in fields(Rates)}), threads=thread_count())
    others = "" if kept is None else f"{plans_file()} holds no whole set of rates: "
    return Machine(note=f"{others}the rates are of another machine; {remedy}")


def is_rate(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def read_plans() -> tuple[dict[str, dict[str, Any]], str]:
    """(machine -> what is kept of it, what is wrong with the file or "")."""
    try:
        path = plans_file()
    except RequestError as e:
        return {}, str(e)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as e:
        return {}, f"{path} cannot be read ({type(e).__name__})"
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        return {}, f"{path} is damaged"
    return content, ""


def keep_rates(rates: Rates) -> Path:
    """The file, with the rates of this machine in it; what runs took beside plans of other rates is forgotten."""
    content, _ = read_plans()
    content[machine_key()] = {"rates": asdict(rates)}
    write_json(plans_file(), content)
    return plans_file()


def stage_key(run: object, stage: str) -> str:
    """Task, stage, kind of network (of an ingest, of source): runs of the same key correct each other's plans."""
    kind = getattr(getattr(run, "source" if stage == "ingest" else "model", None), "kind", "")
    return "/".join(part for part in (getattr(run, "task", ""), stage, kind) if part)


def keep_run(stage_key: str, run: PastRun) -> None:
    """Adds what a stage took, and drops the oldest. Two programs that end at once may lose one of theirs."""
    content, _ = read_plans()
    kept = _kept_runs(content)
    kept[stage_key] = [*kept.get(stage_key, []), asdict(run)][-MOST_RUNS:]
    content.setdefault(machine_key(), {})["runs"] = kept
    write_json(plans_file(), content)


def past_runs(stage_key: str) -> list[PastRun]:
    """What the stage took here, the newest last."""
    kept = _kept_runs(read_plans()[0]).get(stage_key, [])
    return [PastRun(one["planned"], one["actual"], bool(one.get("is_crowded"))) for one in kept]


def _kept_runs(content: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """stage -> what is kept of this machine, without what is damaged."""
    runs = content.get(machine_key(), {}).get("runs", {})
    lists = runs.items() if isinstance(runs, dict) else ()
    return {stage: [one for one in kept if _is_past_run(one)] for stage, kept in lists if isinstance(kept, list)}


def _is_past_run(one: object) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(part), dict) for part in ("planned", "actual"))


def ratios(planned: Figures, past: Sequence[PastRun]) -> tuple[dict[str, float], int]:
    """(figure -> median of what runs of like size took by what was planned for them, how many there are).

    The plan counts as a run that took what was planned: a single run, maybe of other settings, corrects it by a half only.
    Of crowded runs the CPU seconds stand for the time too, unless there are others.
    """
    like = [run for run in past if _is_like(run.planned.get("cpu_seconds"), planned.get("cpu_seconds"))]
    found: dict[str, float] = {}
    for figure, least in LEAST.items():
        known = []
        for run in like:
            plan, actual = run.planned.get(figure), run.actual.get(figure)
            is_measure = figure != "seconds" or not run.is_crowded
            if is_measure and is_rate(plan) and is_rate(actual) and max(plan, actual) >= least:
                known.append(actual / plan)
        if known:
            found[figure] = median([1.0, *known])
    if "seconds" not in found and "cpu_seconds" in found:
        found["seconds"] = found["cpu_seconds"]
    return found, len(like)


def _is_like(one: float | None, other: float | None) -> bool:
    return is_rate(one) and is_rate(other) and 1 / OF_LIKE_SIZE <= one / other <= OF_LIKE_SIZE
