"""What a task is: one object that says what it needs and what it makes. Everything else is written once, in stage and publish.

A new task is a file in flows/tasks, a file in configs/tasks and a line in the table of `flows.tasks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from configs import build
from configs.load import write_resolved
from configs.trained import digests, used_by, with_model
from flows import Json, code
from flows.copies import format_refusals, source_to_read
from flows.folder import RunFolder, digest_of, exclusive_run, first_difference, readable, require, require_model, sweep
from flows.limits import load_run_within_limits
from flows.steps import Caller, Display, Silent, Steps, call_plainly
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.files import write_json
from pipelines.learning.result import Evaluation, Verdict
from pipelines.learning.validation_figures import LOSS, Figure, at_kept_epochs
from pipelines.products.section import Section
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import files_at

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from pipelines.cube.ingest import IngestReport
    from pipelines.learning.reuse import Inputs
    from pipelines.sources.source import Source

Record = Json  # what a stage leaves in stages/NAME.json: JSON values

# ---------------------------------------------------------------- what a task gets


@dataclass(frozen=True)
class Invocation:
    """One call of a verb: the run's config, its folder, and how its steps are carried out and shown.

    `run` is a Run, MonitorRun or ChangeRun: the stages of a task know which one is theirs. `source`: scenes that are in memory,
    in place of those that the config names.
    """

    run: Any
    folder: RunFolder
    steps: Steps
    even_if_worse: bool = False
    restart: bool = False
    retry_refused: bool = False
    source: Source | None = None
    even_if_confounded: bool = False
    is_finishing: bool = False  # slices have done the work: what they left out is not made up for
    force: bool = False  # what is published now may cover less than what was
    config: str | Path | Mapping[str, object] = ""  # as `open_invocation` was given it, for a search, which changes it
    overrides: tuple[str, ...] = ()

    def allows(self, verdict: Verdict) -> bool:
        """Whether this call may publish a model of that verdict."""
        return verdict.allows(even_if_worse=self.even_if_worse, even_if_confounded=self.even_if_confounded)

    def finish(self, stage: str, record: Record) -> Record:
        """Leaves a stage's record, which says whose it is, and the config that it was made with; a refusal leaves neither."""
        record = {**record, "task": self.folder.task, "at_utc": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
        earlier = readable(self.folder.done(stage))
        if "at_utc" in earlier and digest_of(record | {"at_utc": earlier["at_utc"]}) == earlier.get("digest"):
            record["at_utc"] = earlier["at_utc"]  # a run in S3 has no new version then
        record["digest"] = digest_of(record)
        write_resolved(self.run, self.folder.config)
        write_json(self.folder.done(stage), record)
        return record


def open_invocation(
    config: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    display: Display | None = None,
    *,
    call: Caller = call_plainly,
    flow_run: str = "",
    inputs_must_exist: bool = True,
    is_deployed: bool = False,
    even_if_worse: bool = False,
    restart: bool = False,
    retry_refused: bool = False,
    source: Source | None = None,
    even_if_confounded: bool = False,
    is_finishing: bool = False,
    force: bool = False,
) -> Invocation:
    """Reads the config, a file or its content (raises ConfigError, MissingInput, and RequestError for a path that the run may
    not touch)."""
    shown = display or Silent()
    run = load_run_within_limits(
        config, overrides, inputs_must_exist=inputs_must_exist, is_deployed=is_deployed, notify=shown.log
    )
    run = with_model(run)
    folder = RunFolder.of(run)
    steps = Steps(folder.steps, shown, call, flow_run)
    insisted = {"even_if_worse": even_if_worse, "even_if_confounded": even_if_confounded, "force": force}
    given: Any = {"config": config, "overrides": tuple(overrides), **insisted}
    return Invocation(run, folder, steps, restart=restart, retry_refused=retry_refused, source=source, is_finishing=is_finishing,
                      **given)  # fmt: skip


@contextmanager
def remembering_folder(invocation: Invocation) -> Iterator[None]:
    """Holds the run's folder for this process alone; unexpected errors learn where it is.

    Raises RunBusy if another process carries out the run.
    """
    try:
        with exclusive_run(invocation.folder):
            sweep(invocation.folder)
            fetch(invocation)
            yield
    except Exception as e:
        e.driftline_folder = invocation.folder.path  # type: ignore[attr-defined]
        raise


def fetch(invocation: Invocation) -> None:
    """Brings the working copy of a run that is stored in S3 to what is published. Raises StateError."""
    copy = invocation.folder.copy
    if copy is not None:
        for line in copy.fetch():
            invocation.steps.log(line)
        copy.begin()


# ---------------------------------------------------------------- what a task makes


@dataclass(frozen=True)
class Building:
    """Where `predict` writes. Both folders are empty, and published by renames when `predict` has returned.

    `products` becomes runs/NAME/products; the files of `pictures` replace those of their names in runs/NAME.
    """

    products: Path
    pictures: Path


@dataclass(frozen=True)
class Findings:
    """What the summary says of the products beyond the evaluation; see `pipelines.products.summary.Summary`.

    lines: where the most important files lie, for a person, e.g. ("map", path). evaluation: as summary and report show it, where
    something else is published than it chose.
    """

    sentence: str
    found: Mapping[str, Any]
    largest: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    sites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    cube: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lines: tuple[tuple[str, Path], ...] = ()
    evaluation: Evaluation | None = None


class Task(Protocol):
    """A task. `stages` in the order of `driftline run`; the last one publishes. `verbs`: verb -> the stages that it carries out.

    `code`: stage -> modules that its output depends on, with everything that they import (`flows.code`).
    `is_gated`: the last stage publishes only what the verdict allows. `computed`: the stages whose work goes where the config's
    `compute` says; the others are done in one process.
    """

    name: str
    stages: tuple[str, ...]
    verbs: Mapping[str, tuple[str, ...]]
    code: Mapping[str, tuple[str, ...]]
    is_gated: bool
    computed: tuple[str, ...] = ("ingest", "predict", "monitor")

    def plan(self, run: Any, folder: RunFolder, verb: str, ingested: Record | None = None) -> tuple[Extent, list[PlannedStep]]:
        """What a verb would cost; `run` is of the task's own class. `ingested`: what the call's own ingest has done: a cube is
        there, and the source need not be listed again."""

    def resolve(self, context: Invocation, stage: str) -> Invocation:
        """The call with what earlier stages found out in place of what the config leaves open; called before `check`. Raises."""
        return context

    def needs(self, run: Any, stage: str) -> bool:
        """Whether a run has that one of the task's stages."""
        return True

    def check(self, context: Invocation, stage: str) -> None:
        """Whether what lies in the run's folder may be used (model, cube, state); called before "up to date". Raises."""

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        """What the stage's output depends on beside its code, JSON values: unchanged means that it need not run."""

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        """True if what the record speaks of is there, beside the files of products and evaluation, which are checked for all."""

    def ingest(self, context: Invocation) -> Record:
        """Scenes into the cube: `snapshot`, `refused`, `message`, `lines` (refusals in words), `is_new`."""
        return ingest_scenes(context)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """Everything measured, and `snapshot` and `model_hash` of what it holds for."""

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Writes products and pictures: `snapshot`, `model_hash`, `message`, and what the summary's `Published` names."""

    def close(self, context: Invocation, record: Record, *, is_new: bool) -> Record:
        """Called after publishing and when nothing was to be done: the record, notifications sent, counts of nothing set."""
        return record

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        """What the summary and the report say; `predicted` is {} where nothing is published."""

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        """What the report shows between verdict and data. Pictures that only the report needs are drawn into `drafts`."""


@runtime_checkable
class TrainedTask(Task, Protocol):
    """A task with the stage `train`; the others have no `fit`. What it publishes is a prediction of the trained model.

    `describes`: section of the config -> its keys (none: all) that belong to the model and go with it (`flows.trained`).
    """

    stages: tuple[str, ...] = ("ingest", "train", "evaluate", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {**{one: (one,) for one in stages}, "run": stages, "sweep": ("ingest", "train")}
    is_gated: bool = True
    describes: Mapping[str, tuple[str, ...]]

    def checkpoint(self) -> Checkpoint[Any]:
        """How its models are stored."""

    def check(self, context: Invocation, stage: str) -> None:
        """Raises MissingInput (cube or model gone), RequestError (other settings), ArtefactDamaged (another model)."""
        require(context.folder, "ingest")
        if stage != "train":
            trained = require_unchanged(context, self)
            if stage != "report":
                require_model(context.folder, trained, self.checkpoint().hash)

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        """True if the model of the record is there."""
        try:
            require_model(context.folder, record, self.checkpoint().hash)
        except (MissingInput, ArtefactDamaged):
            return False
        return True

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """What the images offer to the model; `is_training`: of that part alone which a model learns from."""

    def fit(self, context: Invocation, key: str) -> Record:
        """A trained model in the run's folder: `snapshot`, `model_hash`, `message`."""

    def figures(self, run: Any) -> tuple[Figure, ...]:
        """What a search may choose by, its default first: each measured on data that validate, none on data that test."""
        return (Figure(LOSS),)

    def tried(self, run: Any) -> Any:
        """The run as a trial of a search trains it."""
        return run

    def validate(self, context: Invocation, record: Record) -> dict[str, float]:
        """`figures` of the model that `fit` left in the run's folder with that record."""
        names = [figure.name for figure in self.figures(context.run)]
        return at_kept_epochs(record.get("training", {}).get("members", ()), names)


@runtime_checkable
class SlicedTask(Task, Protocol):
    """A task of which several processes can do a stage together; `sliced`: the verbs whose last stage it is.

    `pieces` and `made`: what a slice consists of, and what is done to it, in words.
    """

    sliced: tuple[str, ...]
    pieces: str
    made: str

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        """Does a share of what `predict` needs, and publishes nothing."""


def stages_of(task: Task, verb: str) -> tuple[str, ...]:
    """The stages that a verb carries out. Raises RequestError, with the verbs of the task."""
    if verb not in task.verbs:
        known = ", ".join([*task.verbs, "report"])
        raise RequestError(f"`driftline {verb}` is not for runs with `task: {task.name}`, whose verbs are {known}")
    return task.verbs[verb]


def key_of(task: Task, context: Invocation, stage: str, snapshot: str = "") -> str:
    """SHA-256 (hex) of everything that the stage's output depends on: the task's inputs and the code that it uses.

    snapshot: of the cube, in place of the present one; the key is then that of what was made when the cube was smaller.
    """
    inputs = task.inputs(context, stage)
    if snapshot and "snapshot" in inputs:
        inputs["snapshot"] = snapshot
    if stage == "train":
        inputs |= digests(context.run)
    return code.key(inputs, task.code[stage])


def require_unchanged(context: Invocation, task: Task) -> Record:
    """The record of the training that this config describes. Raises MissingInput, and RequestError for one of other settings.

    A model trained with another split would be scored on blocks that it has seen.
    """
    record, wanted = require(context.folder, "train"), task.inputs(context, "train")
    made_from = record.get("made_from", wanted)
    if "used" in record and used_by(context.run) is None:
        where = record["used"]["path"]
        raise RequestError(
            f"{context.folder.model} holds the model of {where}: add --model {where}, or run `driftline train CONFIG`"
        )
    for section, values in wanted.items():
        if section == "snapshot" or made_from.get(section) == values:
            continue
        key, now, was = first_difference(section, values, made_from.get(section))
        problem = f"the model in {context.folder.model} was trained with {key} = {was}, the config says {now}"
        raise RequestError(f"{problem}; run `driftline train CONFIG` first, or set it back")
    return record


# ---------------------------------------------------------------- scenes into the one cube of a run

MOST_DRIFT = 5  # lines


def ingest_scenes(context: Invocation) -> Record:
    """New and reprocessed scenes into the cube, as `Task.ingest` returns it; with nothing new the snapshot stays."""
    from pipelines.cube.ingest import ingest

    run, folder = context.run, context.folder
    source, cleaned = source_to_read(context.run, context.steps, context.source)
    mask, grid = build.build_quality_mask(run), build.build_grid(run)
    settings = build.build_ingest_settings(run, folder.refused, retry_refused=context.retry_refused)
    settings = replace(settings, staging=staging_of_scenes(context)) if context.is_finishing else settings
    report = context.steps.do(
        "ingest", "write scenes into the cube", lambda progress: ingest(source, mask, folder.cube_uri, grid, settings, progress)
    )
    if settings.staging is not None:
        files_at(settings.staging).remove("")
    notes = [*cleaned, *build.grid_notes(run), *report.notes]
    return {
        "snapshot": report.snapshot,
        "added": len(report.added),
        "replaced": len(report.replaced),
        "dropped": len(report.dropped),
        "unchanged": len(report.unchanged),
        "missing": list(report.missing),
        "refused": [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused],
        "message": format_report(report),
        "notes": notes,
        "drift": list(report.drift),
        "lines": (
            *(f"  note: {note}" for note in notes),
            *format_findings(report, run.cube.on_missing),
            *format_refusals(report.refused, folder.refused),
        ),
        "is_new": report.is_new,
    }


def staging_of_scenes(context: Invocation) -> str:
    """Where slices of an ingest keep scenes until all are there."""
    return f"{context.folder.place_of('staging', context.run.cube.staging)}/scenes"


def format_report(report: IngestReport) -> str:
    """`3 added, 57 unchanged, 1 refused`."""
    parts = {name: len(getattr(report, name)) for name in ("added", "replaced", "dropped", "unchanged", "refused")}
    text = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
    return (text or "no scenes") + ("" if report.is_new else " (nothing new)")


def format_findings(report: IngestReport, on_missing: str) -> Iterator[str]:
    """The scenes of the cube that the source no longer lists, in one line; new scenes that look unlike the others, some lines."""
    if report.missing:
        more = f" (and {len(report.missing) - 1} more)" if len(report.missing) > 1 else ""
        fate = "taken out of the cube" if on_missing == "drop" else "the cube keeps them"
        yield f"  no longer in the source: {report.missing[0]}{more}; {fate} (cube.on_missing: {on_missing})"
    for line in report.drift[:MOST_DRIFT]:
        yield f"  unlike the other scenes: {line}"
    if report.drift:
        more = f"{len(report.drift) - MOST_DRIFT} more in stages/ingest.json; " if len(report.drift) > MOST_DRIFT else ""
        yield f"  {more}look at them, and take bad ones out: `driftline drop CUBE SCENE`"
