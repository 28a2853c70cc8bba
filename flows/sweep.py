"""`driftline sweep`: trains a run with other values of its settings and keeps the ones with the best validation figure.

A trial is the stage `train` in a folder of its own, over the run's cube and samples, and what the task measures on the data
that validate. The stage `evaluate` is not called: nothing of the test part enters a figure. See docs/design/041-sweep.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import load_run, log, write_resolved
from configs.sweep import SweepConfig
from configs.sweep_space import figure_of, pruned_by, read_space, scaling_keys, sweep_of, trial_run
from configs.tasks import AnyRun
from configs.trained import digests
from flows import Json, code
from flows.folder import RunFolder, finished, first_difference, require
from flows.steps import Steps
from flows.task import Invocation, Record, Task, TrainedTask
from pipelines.errors import RequestError, StateError
from pipelines.files import write_json
from pipelines.learning.sweep_study import (
    Attempt,
    Domain,
    Search,
    TrialRow,
    best_of,
    importances,
    open_study,
    require_optuna,
    rows_of,
    run_trials,
)
from pipelines.learning.validation_figures import EpochScores, Figure
from pipelines.progress import Progress, ignore_progress, note_progress
from pipelines.wording import counted

if TYPE_CHECKING:
    import optuna

SHARED = ("samples", "labels", "registration")  # of the run's folder, with its trials
RunStage = Callable[[Task, Invocation, str], Record]  # `flows.stage.run_stage`
WARMUP_SHARE = 4  # of its epochs a trial has before the median can prune it: the first losses say little of the last
OPTIMISTIC = "the validation score of the best of many trials is optimistic; a normal run measures the test part"
SEEN_BY_FOLDS = "each sample validates a network of another fold, so the folds' test figures are not independent of this choice"

NEARLY_THE_TEST = "the F1 is of the groups of sites that evaluate tests: only a site left out of the run is independent"


@dataclass(frozen=True)
class Asked:
    """A search as a config asks for it. content: of the config, without the section `sweep`."""

    run: AnyRun
    settings: SweepConfig
    content: Mapping[str, Any]
    domains: tuple[Domain, ...]
    figure: Figure

    @cached_property
    def search(self) -> Search:
        chosen = self.settings
        how = chosen.sampler, chosen.pruner, chosen.seed, chosen.timeout_s
        warmup = max(1, self.most_epochs // WARMUP_SHARE)
        return Search(self.domains, chosen.trials, self.figure.is_larger_better, *how, warmup)

    @property
    def most_epochs(self) -> int:
        """Of a network, over all trials."""
        domain = next((one for one in self.domains if one.key == "training.epochs"), None)
        if domain is None:
            return int(getattr(getattr(self.run, "training", None), "epochs", 0))
        return int(max(domain.choices, default=domain.high))

    @property
    def pruned_by(self) -> str:
        return pruned_by(self.settings, self.figure)


def read_asked(task: Task, run: AnyRun, config: str | Path | Mapping[str, object], overrides: Sequence[str]) -> Asked:
    """Raises RequestError for a run that cannot be searched for, ConfigError with the mistakes of its space."""
    if not isinstance(task, TrainedTask):
        raise RequestError(f"`driftline sweep` is for runs that train; `task: {task.name}` trains nothing")
    settings = sweep_of(run)
    figure = figure_of(settings, task.figures(run))
    content, domains = read_space(config, overrides, run)
    if load_run(content, inputs_must_exist=False, notify=log.debug) != run.model_copy(update={"sweep": None}):
        raise RequestError(f"{config} changed while it was read; start the sweep again")
    return Asked(run, settings, content, domains, figure)


# ---------------------------------------------------------------- the verb


def sweep(task: Task, context: Invocation, run_stage: RunStage) -> Record:
    """The result of the verb: what was best, how many trials there are, and where everything lies."""
    require_optuna()
    asked = read_asked(task, context.run, context.config, context.overrides)
    assert isinstance(task, TrainedTask)
    context = replace(context, run=context.run.model_copy(update={"sweep": None}))
    folder = sweep_folder(context.folder)
    if context.restart:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder / "trials", ignore_errors=True)  # of a search that was killed
    if finished(context.folder, "ingest") is None:
        run_stage(task, replace(context, restart=False), "ingest")
    study = open_study(folder / "journal.log", asked.search)
    require_same(study, made_from(task, context, asked), folder)
    before = len(rows_of(study, asked.search))
    for line in notes_of(asked):
        context.steps.log(f"sweep: {line}")
    trials = Trials(task, context, asked, run_stage, folder / "trials")

    def work(progress: Progress) -> list[TrialRow]:
        trials.progress = progress
        return run_trials(study, asked.search, trials.attempt, trials.show)

    try:
        rows = context.steps.do("sweep", f"try {counted(asked.search.count, 'setting')}", work)
    except StateError:
        tabulate(asked, rows_of(study, asked.search), folder)
        raise
    finally:
        shutil.rmtree(folder / "trials", ignore_errors=True)
    return conclude(context, asked, study, rows, is_new=len(rows) > before)


def sweep_folder(folder: RunFolder) -> Path:
    return folder.path / "sweep"


def notes_of(asked: Asked) -> Iterator[str]:
    direction = "largest" if asked.figure.is_larger_better else "smallest"
    yield f"the {direction} {words(asked.figure.name)} of the validation part is searched for, one trial after the other"
    if asked.settings.pruner != "none" and not asked.pruned_by:
        keys = scaling_keys(asked.settings)
        yield "nothing is pruned: " + (
            f"epochs of trials with other {', '.join(keys)} cannot be compared" if keys else "no epoch has a validation figure"
        )


def words(name: str) -> str:
    return name.replace("_", " ")


def made_from(task: TrainedTask, context: Invocation, asked: Asked) -> Json:
    """What the trials of a study have in common: another one of these begins another study."""
    resolved = task.resolve(context, "train")
    inputs = {**task.inputs(resolved, "train"), **digests(context.run)}
    for domain in asked.domains:  # what the run itself has for them says nothing
        *sections, name = domain.key.split(".")
        inner: Any = inputs
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(name, None)
    chosen = asked.settings
    return {
        "space": {domain.key: domain.describe() for domain in asked.domains},
        "metric": asked.figure.name,
        **{name: getattr(chosen, name) for name in ("sampler", "pruner", "seed")},
        "run": inputs,
        "code": code.digest((*task.code["train"], *scoring_of(task))),
    }


def scoring_of(task: TrainedTask) -> tuple[str, ...]:
    """The task's own `validate`, as `Task.code` names code; () where it is the usual one."""
    owner = next(one for one in type(task).__mro__ if "validate" in vars(one))
    return () if owner is TrainedTask else (f"{owner.__module__}:{owner.__name__}.validate",)


def require_same(study: optuna.Study, now: Json, folder: Path) -> None:
    """Raises RequestError where the trials of the study were made from something else."""
    import json

    now = json.loads(json.dumps(now, default=str))
    before = study.user_attrs.get("made_from")
    if before is None:
        study.set_user_attr("made_from", now)
        return
    for section, value in now.items():
        if before.get(section) == value:
            continue
        remedy = f"set it back, or begin a new study with --restart, which removes the trials in {folder}"
        if section == "code":
            remedy = f"begin a new study with --restart, which removes the trials in {folder}"
            raise RequestError(f"the earlier trials were trained by another version of driftline's code; {remedy}")
        key, is_now, was = first_difference(section, value, before.get(section))
        key = key.removeprefix("run.") if section == "run" else f"sweep.{key}"
        raise RequestError(f"the earlier trials were made with {key} = {was}, now it is {is_now}; {remedy}")


# ---------------------------------------------------------------- a trial


@dataclass
class Trials:
    """Carries out the trials of a search, and shows how far they are."""

    task: TrainedTask
    context: Invocation
    asked: Asked
    run_stage: RunStage
    folder: Path
    progress: Progress = ignore_progress
    noted: str = ""
    seen: int | None = None  # trials, when the last one was shown

    def attempt(self, attempt: Attempt) -> dict[str, float]:
        """The figures of a trial, the one that is searched by first; its folder is removed."""
        tried = trial_run(self.asked.content, attempt.values)
        folder = trial_folder(self.context.folder, self.folder / f"{attempt.number:04d}")
        figure = replace(self.asked.figure, per_epoch=self.asked.pruned_by)
        display = TrialDisplay(attempt, EpochScores(figure, self.asked.most_epochs + 1), self)
        steps = Steps(folder.steps, display)
        own = replace(self.context, run=self.task.tried(tried), folder=folder, steps=steps, restart=False)
        try:
            record = self.run_stage(self.task, own, "train")
            found = self.task.validate(self.task.resolve(own, "validate"), record)
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)
        name = self.asked.figure.name
        if name not in found:
            raise StateError(f"the training reports no {words(name)} on the validation part")
        return {name: found[name], **found}

    def show(self, done: int, total: int, rows: Sequence[TrialRow]) -> None:
        self.progress(done, total)
        best = best_of(rows, self.asked.figure.is_larger_better)
        self.noted = "" if best is None else f"best {words(self.asked.figure.name)} {best.value:.4g} (trial {best.number})"
        if self.noted:
            note_progress(self.progress, self.noted)
        is_new = self.seen is not None and len(rows) > self.seen
        self.seen = len(rows)
        if is_new and rows[-1].state == "failed":
            self.context.steps.log(f"sweep: trial {rows[-1].number} failed: {rows[-1].message}")

    def note(self, number: int, text: str) -> None:
        note_progress(self.progress, ", ".join(filter(None, [self.noted, f"trial {number}: {text}"])))


def trial_folder(folder: RunFolder, path: Path) -> RunFolder:
    """An empty folder for a trial of the run, with its cube, its record of the ingest, and links to what trials share."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    folder.samples.mkdir(exist_ok=True)
    for name in (one for one in SHARED if (folder.path / one).is_dir()):
        (path / name).symlink_to((folder.path / name).resolve(), target_is_directory=True)
    own = RunFolder(path, folder.cube_uri, folder.task)
    write_json(own.done("ingest"), require(folder, "ingest"))
    return own


@dataclass
class TrialDisplay:
    """Shows the epochs of a trial behind the search's own bar, and reports them to the study."""

    attempt: Attempt
    scores: EpochScores
    trials: Trials

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Progress]:
        yield TrialProgress(self)

    def log(self, text: str) -> None:
        return None


@dataclass
class TrialProgress:
    """The callback of a trial's steps. See `pipelines.progress`."""

    display: TrialDisplay

    def __call__(self, done: int, total: int) -> None:
        return None

    def note(self, text: str) -> None:
        self.display.trials.note(self.display.attempt.number, text)

    def epoch(self, figures: Mapping[str, float | None]) -> None:
        """Raises Pruned."""
        if (known := self.display.scores.add(figures)) is not None:
            self.display.attempt.report(*known)


# ---------------------------------------------------------------- what comes out


def conclude(context: Invocation, asked: Asked, study: optuna.Study, rows: Sequence[TrialRow], *, is_new: bool) -> Record:
    """Writes trials.csv, sweep.json, sweep.png and best.yaml. Raises StateError if no trial has finished."""
    from pipelines.products.sweep_products import draw_trials

    folder, figure = sweep_folder(context.folder), asked.figure
    tabulate(asked, rows, folder)
    best = best_of(rows, figure.is_larger_better)
    states = {state: sum(row.state == state for row in rows) for state in ("finished", "pruned", "failed", "killed")}
    if best is None:
        failed = next((row.message for row in rows if row.state == "failed"), "")
        remedy = (
            f"the first one: {failed}; all of them: {folder / 'trials.csv'}" if failed else "give it more time (sweep.timeout_s)"
        )
        raise StateError(f"none of {counted(len(rows), 'trial')} has finished; {remedy}")
    shares = importances(study, rows)
    winner = trial_run(asked.content, best.values)
    write_resolved(winner, folder / "best.yaml")
    draw_trials(
        rows, words(figure.name), folder / "sweep.png", heading=f"{context.run.name}: {words(figure.name)}",
        domains=asked.domains, shares=shares, is_larger_better=figure.is_larger_better,
    )  # fmt: skip
    notes = [OPTIMISTIC, *([SEEN_BY_FOLDS] if has_folds(asked.run) else [])]
    notes += [NEARLY_THE_TEST] if asked.run.task == "change" else []
    result: Record = {
        "task": context.run.task,
        "run": context.run.name,
        "metric": figure.name,
        "direction": "maximize" if figure.is_larger_better else "minimize",
        "best": {"trial": best.number, "value": best.value, "values": dict(best.values), "figures": dict(best.figures)},
        "trials": {"asked": asked.search.count, **states},
        "importance": shares,
        "notes": notes,
        "files": {name: str(folder / name) for name in ("trials.csv", "sweep.json", "sweep.png", "best.yaml")},
    }
    write_json(folder / "sweep.json", {**result, "made_from": study.user_attrs["made_from"]})
    message = sentence_of(result)
    return {**result, "message": message, "lines": lines_of(result, message), "refused": [], "skipped": not is_new}


def tabulate(asked: Asked, rows: Sequence[TrialRow], folder: Path) -> None:
    """Writes trials.csv."""
    from pipelines.products.sweep_products import write_table

    write_table(rows, [domain.key for domain in asked.domains], asked.figure.name, folder / "trials.csv")


def has_folds(run: Any) -> bool:
    """Whether every sample is tested by the networks of one fold and has validated those of others."""
    split = getattr(run, "split", None)
    is_divided = hasattr(split, "folds") and not getattr(split, "test", None) and run.task != "generate"  # which has one network
    return run.task == "change" or is_divided


def sentence_of(result: Json) -> str:
    best, trials = result["best"], result["trials"]
    values = ", ".join(f"{key} {round_value(value)}" for key, value in best["values"].items())
    counts = ", ".join(f"{trials[state]} {state}" for state in ("finished", "pruned", "failed", "killed") if trials[state])
    place = f"trial {best['trial']}; {counts}, of {trials['asked']} asked for"
    return f"best {words(result['metric'])} on the validation part: {best['value']:.4g} with {values} ({place})"


def round_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines_of(result: Json, message: str) -> list[str]:
    files = result["files"]
    notes = [f"note:    {note}" for note in result["notes"]]
    shown = [("table", "trials.csv"), ("picture", "sweep.png"), ("config", "best.yaml")]
    return [
        message,
        *(f"{what + ':':<9}{files[name]}" for what, name in shown),
        *notes,
        f"next:    driftline run {files['best.yaml']}",
    ]
