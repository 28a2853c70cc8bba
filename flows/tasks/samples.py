"""What the tasks on samples share: training of networks that read a sample as a sequence, and a line for every sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from configs import sequences as config
from configs.cube_windows import groups_of
from configs.load import config_hash
from configs.privacy import without_originals
from configs.trained import used_by
from flows.folder import RunFolder, code_version, load_checkpoint, made_from, require
from flows.sample_maps import map_windows
from flows.sample_runs import StoredSamples, ingest_run_samples, kept_of, load_samples, plan_samples, save_model, weights_of
from flows.sample_slices import answer_slice, require_answers
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from flows.trained import same_folds
from pipelines.learning.result import Evaluation
from pipelines.slices import Slice, SliceDone
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.sequence_model import SequenceModel
    from pipelines.learning.reuse import Inputs
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.products.label_products import LabelLineage
    from pipelines.samples.labelled import LabelledSamples

TRAINED_FROM = ("labels", "frames", "split", "model", "training")  # what a model depends on
ANSWERED_BY = ("pipelines.inference.sample_labels", "pipelines.samples.sample_store", "models.sequence_model")


class SampleTask(TrainedTask, Protocol):
    """A task whose model answers each sample. See `flows.task.Task`."""

    describes: Mapping[str, tuple[str, ...]] = {"model": (), "frames": (), "source": ("window_px", "steps")}
    kept: tuple[str, ...]  # of what `summarise` returns, in the summary
    table: str = "labels.csv"  # of answers
    computed: tuple[str, ...] = ("ingest", "evaluate", "predict")

    def labelled(self, context: Invocation, stage: str, outputs: tuple[str, ...] = ()) -> LabelledSamples:
        """The samples with their answers and folds; `outputs`: of a trained model. Raises RequestError."""

    def recipe(self, context: Invocation, samples: LabelledSamples) -> SampleRecipe:
        """How each network is trained."""

    def summarise(self, rows: list[dict[str, Any]]) -> Record:
        """`message`, and what summary and report need of the table's rows."""

    def sentence(self, name: str, predicted: Record, evaluation: Evaluation | None) -> str:
        """What was answered, and how well, in one sentence."""

    def calibrate(self, context: Invocation, samples: LabelledSamples, model: SequenceModel, show: Any) -> list[float] | None:
        """Sets the temperatures of the members, and returns them; None where an answer has no probability."""
        from pipelines.inference.sample_labels import calibrate

        return calibrate(samples, model, show) if samples.has_classes else None

    def within(self, context: Invocation, answers: np.ndarray) -> np.ndarray:
        """The answers within what is possible."""
        return answers

    def half_width(self, evaluation: Evaluation | None) -> float | None:
        """Of the interval around a number; None for labels."""
        return None

    def is_stepped(self, run: config.SampleRun) -> bool:
        """Whether steps are answered, not samples."""
        return False

    def tabulate(
        self, context: Invocation, stored: StoredSamples, answer_NK: np.ndarray, is_held_out_N: np.ndarray,
        outputs: tuple[str, ...], evaluation: Evaluation | None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The rows of the table of answers."""
        from pipelines.products.label_products import answer_rows

        half_width, is_number = self.half_width(evaluation), context.run.task == "regress"
        return answer_rows(stored.table, outputs, answer_NK, is_held_out_N, is_number=is_number, half_width=half_width)

    def checkpoint(self) -> Checkpoint[Any]:
        from models.sequence_model import SEQUENCE_MODEL

        return SEQUENCE_MODEL

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of all samples."""
        import numpy as np

        from pipelines.learning.sample_reuse import inputs_of

        stored = load_samples(context, "train")
        return inputs_of(stored.arrays, np.arange(len(stored.table)))

    def plan(
        self, run: config.SampleRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        return plan_samples(run, folder, self.verbs[verb], reads_source="ingest" in self.verbs[verb], ingested=ingested)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, without_originals(context.run).model_dump(mode="json")
        if stage == "train":
            return {"snapshot": require(folder, "ingest")["snapshot"], **{name: content[name] for name in TRAINED_FROM}}
        trained = require(folder, "train")
        snapshot = require(folder, "ingest")["snapshot"]
        known = {
            "snapshot": snapshot, "model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]
        }  # fmt: skip
        if stage == "evaluate":
            return known
        insisted = {name: getattr(context, name) for name in ("even_if_worse", "even_if_confounded")}
        return {**known, **insisted, "evaluated": require(folder, "evaluate")["key"], "prediction": content["prediction"]}

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        return ingest_run_samples(context)

    def fit(self, context: Invocation, key: str) -> Record:
        """Networks for each fold of groups, calibrated on groups that they have not seen; saved together."""
        from models.sequence_model import join_members
        from pipelines.learning.sample_training import audit_groups, train_folds

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        samples = self.labelled(context, "train")
        context.steps.log(f"samples: {samples.sentence}")
        build = partial(build_one, run.model, samples, run.training.seed)
        recipe = self.recipe(context, samples)
        learners, reports = train_folds(samples, build, recipe, folder.networks, do, key)
        model = join_members(learners)
        found = do("calibrate", lambda show: self.calibrate(context, samples, model, show))
        groups = do("audit the split", lambda _: audit_groups(samples))
        snapshot = require(folder, "ingest")["snapshot"]
        model_hash = do("save the model", lambda _: save_model(self, context, model, snapshot, groups))
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "labels": {"sentence": samples.sentence, "dropped": dict(samples.dropped), **samples.counts()},
            "folds": samples.folds_digest(),
            "training": {"members": [{**one, "temperature": found[n]} if found else one for n, one in enumerate(reports)]},
            "message": f"trained {counted(len(learners), 'network')} from {samples.learnt}",
        }

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """A line for every sample (or span of it): of those with an answer by networks that have not seen their group."""
        from flows.sample_pictures import draw, draw_answered_steps
        from pipelines.products.label_products import write_labels

        run, model = context.run, load_model(context, "predict")
        stored = load_samples(context, "predict")
        if context.is_finishing:
            check = partial(require_answers, self, context, stored, model, kept_of(context, "labels", ANSWERED_BY))
            context.steps.do("predict", "check the batches of all slices", lambda _: check())
        answer_NK, is_held_out_N = answers_of(self, context, stored, model)
        answer_NK = self.within(context, answer_NK)
        rows = self.tabulate(context, stored, answer_NK, is_held_out_N, model.outputs, evaluation)
        do, count = partial(context.steps.do, "predict"), len(stored.table)
        work = partial(write_labels, rows, lineage_of(context), building.products, model.outputs, count)
        do("write the table", lambda _: work())
        show: Callable[..., None] = partial(draw_answered_steps, run.clock) if self.is_stepped(run) else draw
        do("draw samples", lambda _: show(stored, model, answer_NK, run.prediction.explain, building))
        known = {**made_from(context.folder), "answered": count}
        mapped = map_windows(self, context, model, evaluation, building) if run.prediction.map else {}
        return {**known, **self.summarise(rows), **mapped}

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        """Answers a share of the batches of samples; of a `SlicedTask`."""
        model, kept = load_model(context, "predict"), kept_of(context, "labels", ANSWERED_BY)
        return answer_slice(self, context, model, kept, share)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        run, folder = context.run, context.folder
        labels = require(folder, "train").get("labels", {})
        table = folder.products / self.table
        rasters = [folder.path / name for name in predicted.get("products", ()) if name.endswith(".tif")]
        maps = [("map", path) for path in rasters if path.stem not in ("confidence", "held_out")]
        return Findings(
            sentence=self.sentence(run.name, predicted, evaluation),
            found={key: predicted[key] for key in ("answered", *self.kept, "map") if key in predicted},
            computed={"labels": labels["sentence"]} if labels else {},
            settings={
                "model": ", ".join(f"{key} {value}" for key, value in run.model.model_dump(exclude={"use", "as_is"}).items()),
                "split": describe_split(run),
                "training": f"at most {run.training.epochs} epochs, {run.training.loss}",
            },
            notes=(f"Samples: {labels['sentence']}.",) if labels else (),
            lines=((table.stem, table), *maps, ("picture", folder.quicklook)) if predicted else (),
        )


def describe_split(run: config.SampleRun) -> str:
    return f"part {run.split.test}" if run.split.test else f"{run.split.folds} folds of whole {groups_of(run.source)}"


def build_one(model: config.SampleModelConfig, samples: LabelledSamples, seed: int, number: int) -> SequenceModel:
    """The untrained network of that number."""
    layout = samples.table.layout
    return config.build_learner(model, layout, samples.outputs, seed * 100 + number, is_number=samples.is_number)


def load_model(context: Invocation, stage: str) -> SequenceModel:
    from models.sequence_model import SEQUENCE_MODEL

    model: SequenceModel
    model = context.steps.do(stage, "load the model", lambda _: load_checkpoint(SEQUENCE_MODEL.load, context.folder)[0])
    return model


def lineage_of(context: Invocation) -> LabelLineage:
    """What a table of answers of this run was made from."""
    from pipelines.products.label_products import LabelLineage

    run, known = context.run, made_from(context.folder)
    return LabelLineage(run.name, run.task, known["snapshot"], known["model_hash"], config_hash(run), code_version())


def held_out_or_all(
    context: Invocation, samples: LabelledSamples, model: SequenceModel, is_own: bool, show: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Answers for the tested samples; by all networks where the model was trained elsewhere."""
    from pipelines.inference.sample_labels import answer_members, held_out, score_samples

    kept, compute = kept_of(context, "labels", ANSWERED_BY), context.run.compute.build()  # as of `answers_of`, which shares them
    if is_own:
        return held_out(samples, model, show, kept=kept, compute=compute)
    import numpy as np

    from pipelines.samples.stepped_samples import SteppedSamples

    index_P, is_stepped, members = samples.known_P[samples.tested_P], isinstance(samples, SteppedSamples), len(model.members)
    answer_members(
        model, samples.arrays, dict.fromkeys(range(members), index_P), kept, compute, show, each_step=is_stepped
    )  # fmt: skip
    score = partial(score_samples, model, arrays=samples.arrays, index_P=index_P, kept=kept, each_step=is_stepped)
    single = [model.calibrated(m, score(member=m)) for m in range(members)]
    return np.mean(single, axis=0), np.stack(single)


def answers_of(
    task: SampleTask, context: Invocation, stored: StoredSamples, model: SequenceModel
) -> tuple[np.ndarray, np.ndarray]:
    """(answer_NK, of steps answer_NTK, whether it is by networks that have not seen the sample's group) for all samples."""
    import numpy as np

    from pipelines.inference.sample_labels import answer_all, held_out

    do, kept = partial(context.steps.do, "predict"), kept_of(context, "labels", ANSWERED_BY)
    every_N = np.arange(len(stored.table))
    each_step = task.is_stepped(context.run)
    compute = context.run.compute.build()
    answer = partial(answer_all, model, stored.arrays, every_N, kept, each_step=each_step, compute=compute)
    answer_NK, is_held_out_N = do("answer all samples", answer), np.zeros(len(every_N), bool)
    if used_by(context.run) is None:
        samples = same_folds(context, task.labelled(context, "predict", model.outputs))
        own_P = samples.known_P[samples.tested_P]
        own = partial(held_out, samples, model, each_step=each_step, kept=kept, compute=compute)
        answer_NK[own_P], _ = do("answer held-out samples", own)
        is_held_out_N[own_P] = True
    return answer_NK, is_held_out_N


def single_frames(task: SampleTask, context: Invocation, samples: LabelledSamples, show: Any) -> np.ndarray:
    """answer_PK of the tested samples (of steps answer_PTK) by a network of single frames, trained like the model."""
    from dataclasses import replace

    from models.sequence_model import join_members
    from pipelines.inference.sample_labels import calibrate, held_out
    from pipelines.learning.sample_training import train_folds
    from pipelines.samples.stepped_samples import SteppedSamples

    run, key = context.run, require(context.folder, "train")["key"] + "frame_cnn"
    per_step = isinstance(samples, SteppedSamples)
    chosen = run.model.model_copy(update={"kind": "frame_cnn", "per_step": per_step})
    build = partial(build_one, chosen, samples, run.training.seed)
    recipe = replace(task.recipe(context, samples), per_step=per_step)
    folder = context.folder.networks / "reference"
    learners, _ = train_folds(samples, build, recipe, folder, lambda _, work: work(show), key)
    model = join_members(learners)
    if not samples.is_number:
        calibrate(samples, model)
    kept = kept_of(context, "labels-reference", ANSWERED_BY, weights=weights_of(model))
    answer_PK, _ = held_out(samples, model, show, kept=kept, compute=run.compute.build())
    return answer_PK
