"""Staged work of any task: made by `compute`, as a slice, or with `--finish` only checked (docs/scale.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from configs.tasks import AnyRun
from flows import Json
from flows.task import Invocation, Task
from pipelines.slices import Slice, SliceDone

if TYPE_CHECKING:
    from pipelines.inference.staged_work import StagedWork


def staging_of(context: Invocation) -> str:
    """Where regions are kept until all are there."""
    return context.folder.place_of("staging", getattr(getattr(context.run, "prediction", None), "staging", None))


def make(context: Invocation, stage: str, what: str, work: StagedWork) -> None:
    """Makes what is missing. With `--finish` nothing is made: StateError where slices have left something out."""
    from pipelines.inference.staged_work import make_all, require_all

    if context.is_finishing:
        context.steps.do(stage, "check the tiles of all slices", lambda _: require_all(work))
    else:
        context.steps.do(stage, what, lambda show: make_all(work, context.run.compute.build(), show))


def make_share(context: Invocation, stage: str, work: StagedWork, share: Slice) -> SliceDone:
    """Makes what is missing of a slice."""
    from pipelines.inference.staged_work import make_slice

    return context.steps.do(
        stage, f"predict slice {share}", lambda show: make_slice(work, share, context.run.compute.build(), show)
    )


def without_staging(content: Json) -> Json:
    """The section `prediction` of a config without the key on which no product depends."""
    return {key: value for key, value in content["prediction"].items() if key != "staging"}


def note_on_compute(task: Task, run: AnyRun, stages: Iterable[str]) -> str:
    """Which of the stages do not work where the config asks them to, "" where all do."""
    compute = run.compute.build()
    alone = [stage for stage in stages if stage not in task.computed]
    if compute.kind == "threads" or not alone:
        return ""
    many = len(alone) > 1
    return f"compute.kind {compute.kind} is not for {' and '.join(alone)} of {task.name}, which {'run' if many else 'runs'} here"
