"""What the tasks on samples share: their ingest, their store, their plan, their checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from configs import samples as config_samples
from flows import code
from flows.copies import format_refusals, samples_at_hand, samples_to_copy, samples_to_read
from flows.folder import RunFolder, finished, require
from flows.task import Invocation, Record, TrainedTask
from pipelines.errors import RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.planning import Extent, PlannedStep
    from models.sequence_model import SequenceModel
    from pipelines.inference.sample_batches import Kept
    from pipelines.samples.sample_store import SampleLayout, SampleTable
    from pipelines.samples.sample_windows import SampleArrays

TRAIN_FLOP_S = 16e9  # small networks, forward and backward, one core; of rows and pixels with a hidden state of so many values:
USUAL_HIDDEN, OF_ROWS = 64, ("row_rnn", "row_lstm", "row_gru", "pixel_rnn")  # wider, they do more at a time; measured to 128
ANSWERING = 1.75  # times as many without gradients
TESTED = 0.25  # of the samples, about, where `split.test` names some; with folds all of them
VALUE_BYTES = 14  # of memory for each value of all frames: as read, as numbers, and augmented
MAPS_FLOP_S = 5e10  # networks whose time goes into convolutions of whole maps


@dataclass(frozen=True)
class StoredSamples:
    """The samples of the last ingest, and their frames (a memory map)."""

    table: SampleTable
    image: np.ndarray

    @cached_property
    def arrays(self) -> SampleArrays:
        """Without answers."""
        import numpy as np

        from pipelines.samples.sample_windows import SampleArrays

        count = len(self.table)
        return SampleArrays(
            self.image, self.table.valid_NT, self.table.layout.bands, np.zeros((count, 1), np.float32), np.ones(count, np.float32)
        )


def ingest_run_samples(context: Invocation) -> Record:
    """New and altered samples into the store, as `Task.ingest` returns it."""
    from pipelines.samples.cube_windows import CubeWindows
    from pipelines.samples.sample_ingest import SampleIngest, ingest_samples

    run, folder = context.run, context.folder
    source, cleaned = samples_to_read(run, context.steps)
    settings = SampleIngest(
        config_samples.build_frames(run.frames), run.cube.memory_mb, refused_json=folder.refused,
        compute=run.compute.build(), staging=folder.staging / "windows",
    )  # fmt: skip
    report = context.steps.do(
        "ingest", "write samples into the store", partial(ingest_samples, source, folder.cube_uri, settings)
    )
    cut_from = {"cut_from": source.snapshot} if isinstance(source, CubeWindows) else {}
    notes = [*cleaned, *report.notes]
    return {
        "snapshot": report.snapshot,
        **cut_from,
        "added": len(report.added),
        "replaced": len(report.replaced),
        "dropped": len(report.gone),
        "unchanged": report.unchanged,
        "missing": list(report.gone),
        "refused": [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused],
        "message": report.message,
        "notes": notes,
        "lines": (*(f"  note: {note}" for note in notes), *format_refusals(report.refused, folder.refused)),
        "is_new": report.is_new,
    }


def load_samples(context: Invocation, stage: str) -> StoredSamples:
    """The samples of the last ingest; their frames are decoded once for each version."""
    from pipelines.samples.sample_store import decode_images, read_table

    folder = context.folder
    snapshot, uri = require(folder, "ingest")["snapshot"], folder.cube_uri
    table = read_table(uri, snapshot)
    image = context.steps.do(stage, "read the samples", lambda show: decode_images(uri, snapshot, table, folder.samples, show))
    return StoredSamples(table, image)


def kept_of(context: Invocation, folder: str, made_by: tuple[str, ...], **asked: object) -> Kept:
    """Where answers are kept, named by the model, the samples of the last ingest, the code `made_by` and what is `asked`."""
    from pipelines.inference.sample_batches import Kept

    model, snapshot = (require(context.folder, stage)[name] for stage, name in (("train", "model_hash"), ("ingest", "snapshot")))
    return Kept(context.folder.staging / folder, code.key({"model": model, "snapshot": snapshot, **asked}, made_by))


def weights_of(model: SequenceModel) -> str:
    """SHA-256 of the tensors, hex: names networks that are not saved as a model, such as those of references."""
    from hashlib import sha256

    from safetensors.torch import save

    return sha256(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})).hexdigest()


def save_model(task: TrainedTask, context: Invocation, model: SequenceModel, snapshot: str, groups: dict[str, Any]) -> str:
    """The hash of the saved model, with the groups of every part beside it."""
    from flows.trained import describe
    from models.sequence_model import SEQUENCE_MODEL

    described = describe(task, context, snapshot)
    about = {"split": {**context.run.split.model_dump(mode="json"), "audit": groups}}
    return str(SEQUENCE_MODEL.save(model, context.folder.model, {**described, **about}))


def preview_samples(run: Any) -> tuple[SampleLayout, int, tuple[str, ...], tuple[str, ...]]:
    """(layout, samples, notes, reasons of refusals) of what an ingest would read.

    Nothing names the originals of a copy that is to be made.
    """
    from pipelines.samples.sample_ingest import first_layout

    frames, at_hand = config_samples.build_frames(run.frames), samples_at_hand(run)
    if at_hand is None:
        originals = samples_to_copy(run)
        listing = originals.numbered()
        try:
            layout = first_layout(originals.source, listing, frames)
        except RequestError:
            raise RequestError("none of the first samples can be read; an ingest says why, by keyed names") from None
        return (
            layout,
            len(listing.samples),
            ("the samples are de-identified first: which are refused is known when that is done",),
            (),
        )
    source, said = at_hand
    listing = source.list_samples()
    unused = [f"not used: {len(listing.unused)} files: {', '.join(listing.unused[:3])}"] if listing.unused else []
    notes = (*said, *listing.notes, *unused, *(f"would be refused: {one}" for one in listing.refused))
    return first_layout(source, listing, frames), len(listing.samples), notes, tuple(one.reason for one in listing.refused)


def flops_of(run: Any, layout: SampleLayout) -> tuple[int, int]:
    """(operations of one network for one sample, networks)."""
    if run.task == "generate":
        from configs.tasks.generate import check_size

        check_size(run, layout.size[-2:])
        return run.model.flops(layout.size[-2:]), 1
    from configs.sequences import build_learner

    network = build_learner(run.model, layout, ("a", "b"), 0)
    return network.flops((1, *layout.shape)), (1 if run.split.test else run.split.folds) * run.split.networks


def gain_of_width(run: Any) -> float:
    """How many times as many operations per second as at the usual width."""
    return min(max(run.model.hidden / USUAL_HIDDEN, 0.5), 2.0) if run.model.kind in OF_ROWS else 1.0


def plan_samples(
    run: Any, folder: RunFolder, stages: tuple[str, ...], *, reads_source: bool, ingested: Record | None = None
) -> tuple[Extent, list[PlannedStep]]:
    """What the stages would cost. The source is listed, and its first sample read, where the verb reads it."""
    from flows.planning import TABLES, Extent, estimate, read_by
    from pipelines.samples.sample_store import read_table

    notes, refused = tuple[str, ...](), tuple[str, ...]()
    if (reads_source or finished(folder, "ingest") is None) and ingested is None:
        layout, count, notes, refused = preview_samples(run)
    else:
        table = read_table(folder.cube_uri)
        layout, count = table.layout, len(table)
    sizes = layout.frames, layout.frames, layout.size, len(layout.bands), layout.dtype.itemsize, count
    extent = Extent(*sizes, notes, refused=refused if reads_source else (), to_read=read_by(ingested))
    each, networks = flops_of(run, layout)
    shown = run.training.per_epoch or count
    start = partial(estimate, machine=extent.machine)
    speed = (MAPS_FLOP_S if run.task == "detect" else TRAIN_FLOP_S * gain_of_width(run)) * extent.machine.training
    trained, answered = 3 * each * shown * run.training.epochs * networks / speed, each * count * networks / speed / ANSWERING
    tested = answered * (TESTED if run.split.test else 1.0)
    megabytes = count * layout.dtype.itemsize * extent.dates * extent.pixels * extent.bands / 1e6
    each_s, mb_s = (1e-5, 15.0) if run.source.kind == "idx" else (1e-4, 5.0)  # the others open a file for every sample
    memory = 100.0 + VALUE_BYTES * megabytes / layout.dtype.itemsize
    steps = {
        "ingest": start("ingest", counted(count, "sample"), count * each_s + megabytes / mb_s, megabytes / 2, -100.0, megabytes),
        "train": start("train", f"at most {networks} x {run.training.epochs} epochs", trained, 1 + megabytes, memory, megabytes),
        "evaluate": start("evaluate", f"{counted(networks, 'network')}, references and metadata", tested, 0.1, memory),
        "predict": start("predict", counted(count, "sample"), answered, 0.1, memory, publishes=TABLES),
    }
    return extent, [steps[stage] for stage in stages]
