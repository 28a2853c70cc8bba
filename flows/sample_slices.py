"""Slices of a prediction of samples: every N-th batch that the networks answer, kept in a file (docs/design/048)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.trained import used_by
from flows.sample_runs import StoredSamples, load_samples
from flows.task import Invocation
from pipelines.files import write_bytes
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import StoredFiles, files_at

if TYPE_CHECKING:
    from flows.tasks.samples import SampleTask
    from models.sequence_model import SequenceModel
    from pipelines.inference.sample_batches import Batch, Kept


def answer_slice(task: SampleTask, context: Invocation, model: SequenceModel, kept: Kept, share: Slice) -> SliceDone:
    """Answers a share of the batches that a prediction asks for; those that are there stay."""
    from pipelines.inference.sample_batches import answer_share
    from pipelines.inference.sample_labels import work_of

    stored = load_samples(context, "predict")
    batches = list_all(task, context, stored, model, kept)
    shared = SharedAnswers.of(context)
    if shared is not None:
        shared.exchange(share.of(batches))
    work, compute = work_of(model, stored.arrays, each_step=task.is_stepped(context.run)), context.run.compute.build()
    send = None if shared is None else shared.send
    done: SliceDone = context.steps.do(
        "predict", f"answer slice {share}", lambda show: answer_share(work, batches, share, compute, show, send)
    )
    return done


def require_answers(task: SampleTask, context: Invocation, stored: StoredSamples, model: SequenceModel, kept: Kept) -> None:
    """Raises StateError that names the batches that no slice has answered."""
    from pipelines.inference.sample_batches import require_batches

    batches, shared = list_all(task, context, stored, model, kept), SharedAnswers.of(context)
    if shared is not None:
        shared.exchange(batches)
    require_batches(batches, str(context.folder.staging))


def list_all(
    task: SampleTask, context: Invocation, stored: StoredSamples, model: SequenceModel, kept: Kept
) -> list[Batch]:  # fmt: skip
    """Every batch that `flows.tasks.samples.answers_of` asks for, each once; `kept`: where it looks for them."""
    import numpy as np

    from pipelines.inference.sample_labels import list_batches, tested_by

    each_step = task.is_stepped(context.run)
    every = dict.fromkeys(range(len(model.members)), np.arange(len(stored.table)))
    found = list_batches(every, kept, each_step=each_step)
    if used_by(context.run) is None:
        samples = task.labelled(context, "predict", model.outputs)
        found += list_batches(tested_by(samples), kept, each_step=each_step)
    return list({batch.path: batch for batch in found}.values())


# ---------------------------------------------------------------- a run in a bucket, of which each machine has a copy


@dataclass(frozen=True)
class SharedAnswers:
    """Where slices leave answers for each other; a name is the path below `here`, the staging of this machine's copy."""

    files: StoredFiles
    here: Path

    @classmethod
    def of(cls, context: Invocation) -> SharedAnswers | None:
        """None where the run's folder is the same for all slices."""
        folder = context.folder
        return cls(files_at(folder.place_of("staging", None)), folder.staging) if folder.stored else None

    def exchange(self, batches: Sequence[Batch]) -> None:
        """Brings answers of other machines to this one, and those of this one to the bucket."""
        from pipelines.inference.sample_batches import is_whole

        there = {one.name: one.size for one in self.files.listing("labels")}
        for path in (batch.path for batch in batches):
            name = self.name_of(path)
            if not is_whole(path):
                if name in there:
                    write_bytes(path, self.files.read(name))
            elif there.get(name) != path.stat().st_size:  # an upload that was cut off may leave a shorter object
                self.send(path)

    def send(self, path: Path) -> None:
        self.files.write(self.name_of(path), path.read_bytes())

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.here).as_posix()
