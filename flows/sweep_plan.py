"""What `driftline sweep` would do: the trials that are left, and about how long they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from configs.tasks import AnyRun
from flows import Json
from flows.folder import RunFolder, finished
from flows.planning import fetched, make_plan, plan_lines, round_time
from flows.sweep import read_asked, sweep_folder
from flows.tasks import task_of
from pipelines.learning.sweep_study import require_optuna, search_rows
from pipelines.wording import counted


def make_sweep_plan(run: AnyRun, config: str | Path | Mapping[str, object], overrides: Sequence[str]) -> Json:
    """The plan of the ingest and of one trial, as `flows.planning.make_plan` has it, and `sweep`: all trials.

    Raises what the search itself would raise before its first trial, but for a study that was made from something else.
    """
    require_optuna()
    asked = read_asked(task_of(run.task), run, config, overrides)
    folder = fetched(RunFolder.of(run))
    is_ingested = finished(folder, "ingest") is not None
    plan = {**make_plan(run, "train" if is_ingested else "sweep"), "verb": "sweep"}
    rows = [row for row in search_rows(sweep_folder(folder) / "journal.log", asked.search) if row.state != "killed"]
    took = [row.seconds for row in rows if row.state == "finished"]
    planned = {step["stage"]: step["seconds"] for step in plan["steps"]}
    each = mean(took) if took else planned["train"]
    left = max(asked.search.count - len(rows), 0)
    seconds = left * each + (0.0 if is_ingested else planned.get("ingest", 0.0))
    limit = asked.settings.timeout_s
    about = {"trials": asked.search.count, "done": len(rows), "left": left, "timeout_s": limit, "metric": asked.figure.name}
    times = {"seconds_each": round(each, 1), "is_measured": bool(took), "seconds": round(min(seconds, limit or seconds))}
    return {**plan, "sweep": {**about, **times, "space": {domain.key: domain.describe() for domain in asked.domains}}}


def sweep_plan_lines(content: Json) -> list[str]:
    """The plan for people."""
    sweep = content["sweep"]
    known = "as those that finished took" if sweep["is_measured"] else "as planned for one training"
    done = f", {sweep['done']} of them done" if sweep["done"] else ""
    space = [f"  {key}: {text_of(domain)}" for key, domain in sweep["space"].items()]
    limit = f", no trial begins after {round_time(sweep['timeout_s'])}" if sweep["timeout_s"] else ""
    return [
        *plan_lines(content),
        f"{counted(sweep['trials'], 'trial')}{done}, by {sweep['metric'].replace('_', ' ')} on the validation part, of",
        *space,
        f"about {round_time(sweep['seconds_each'])} each, {known}: {round_time(sweep['seconds'])} in all{limit}; "
        "pruning and early ends make it shorter",
    ]


def text_of(domain: Json) -> str:
    if "choices" in domain:
        return ", ".join(str(choice) for choice in domain["choices"])
    spread = " (logarithmic)" if domain["log"] else f", every {domain['step']:g}" if domain["step"] else ""
    return f"{domain['low']:g} to {domain['high']:g}{spread}"
