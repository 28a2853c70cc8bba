"""`--slice I/N`: a share of a stage's work, beside processes and machines that do the rest, without Prefect (docs/scale.md).

A slice takes no lock (of a run in S3: while it fetches the run) and publishes nothing. What it writes is there as a whole or
not at all, and the same whoever writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flows import Json
from flows.folder import exclusive_run
from flows.publish import current_evaluation, is_unscored
from flows.steps import Display, Steps
from flows.task import Invocation, SlicedTask, fetch, open_invocation
from flows.tasks import task_of
from pipelines.errors import MissingInput, NotPublished, RequestError
from pipelines.slices import Slice

PATIENCE_S = 300.0  # for another slice of this machine that is fetching the run


def run_slice(
    verb: str, config: str, overrides: Sequence[str], text: str, display: Display, *, even_if_worse: bool = False,
    even_if_confounded: bool = False,
) -> Json:  # fmt: skip
    """Does a slice of a verb's last stage; what the stages before it leave must be there.

    Raises RequestError (no such slice, a task without slices), MissingInput, NotPublished where nothing would be published.
    """
    share = Slice.parse(text)
    context = open_invocation(config, overrides, display, inputs_must_exist=False)
    # one each, since they are at work at once
    record = context.folder.path / "slices" / f"{verb}-{share.number}-of-{share.count}.jsonl"
    context = replace(context, steps=Steps(record, display), even_if_worse=even_if_worse, even_if_confounded=even_if_confounded)
    task = task_of(context.run.task)
    if not isinstance(task, SlicedTask) or verb not in task.sliced:
        raise RequestError(f"`driftline {verb}` of a run with `task: {task.name}` has no slices; run it as a whole")
    await_copy(context)
    context = task.resolve(context, verb)
    task.check(context, verb)
    evaluation = current_evaluation(task, context)
    if task.is_gated and evaluation is None and not is_unscored(task, context):
        raise MissingInput(f"{context.folder.path} has no evaluation of this model; run `driftline evaluate CONFIG` first")
    if task.is_gated and evaluation is not None and not context.allows(evaluation.verdict):
        raise NotPublished(f"{evaluation.verdict.gate} No slice is predicted.")
    done = task.predict_slice(context, evaluation, share)
    message = f"slice {share}: {done.size} {task.pieces} are there, {done.made} of them {task.made} now"
    counts = {"made": done.made, task.pieces: done.size}
    return {"message": message, "task": task.name, "slice": str(share), **counts, "skipped": False}


def await_copy(context: Invocation) -> None:
    """Brings the working copy of a run in S3 to what is published; slices of this machine that start together share it.

    Raises RunBusy where another command holds the copy for longer.
    """
    if context.folder.stored:
        with exclusive_run(context.folder, wait_s=PATIENCE_S):
            fetch(context)
