"""`task: detect`: boxes with scores in every frame of every sample, by networks that read the frames as a sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.sequences import MODEL, build_split
from configs.tasks import detect as config
from configs.trained import used_by
from flows.folder import made_from, require
from flows.sample_runs import StoredSamples, kept_of, load_samples, weights_of
from flows.task import Building, Invocation, Record
from flows.tasks.samples import ANSWERED_BY, SampleTask, build_one, lineage_of, load_model
from flows.trained import same_folds
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.learning.validation_figures import LOSS, Figure
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from models.sequence_model import SequenceModel
    from pipelines.inference.sample_boxes import Decode
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.boxed_samples import BoxedSamples
    from pipelines.samples.boxes import Boxes
    from pipelines.samples.labelled import LabelledSamples

OWN = ("flows.tasks.detect:Detect.labelled", "flows.tasks.detect:Detect.recipe")
FOUND_BY = (*ANSWERED_BY, "pipelines.inference.sample_boxes", "models.blocks.centre_points")
LEAST_SCORE, MOST_BOXES = 0.02, 50  # of boxes that average precision counts, and of a frame


class Detect(SampleTask):
    """Boxes in frames of samples. See `flows.task.Task`."""

    name = "detect"
    table = "boxes.csv"
    kept = ("boxes", "counts")
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.samples:SampleTask.fit", "flows.tasks.samples:SampleTask.measure", *OWN),
        "evaluate": ("flows.tasks.detect:Detect.evaluate",),
        "predict": ("flows.tasks.detect:Detect.predict", *OWN),
    }

    def labelled(self, context: Invocation, stage: str, outputs: tuple[str, ...] = ()) -> BoxedSamples:
        from pipelines.samples.boxed_samples import label_boxes

        run, stored = context.run, load_samples(context, stage)
        return label_boxes(stored.table, stored.image, outputs or tuple(run.labels.classes), build_split(run.split))

    def recipe(self, context: Invocation, samples: LabelledSamples) -> SampleRecipe:
        return config.recipe_of(context.run, decoder(samples.table.layout.size, MOST_BOXES, LEAST_SCORE))

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        known = super().inputs(context, stage)
        return known if stage != "evaluate" else {**known, "least_score": context.run.prediction.least_score}

    def figures(self, run: config.DetectRun) -> tuple[Figure, ...]:
        return Figure("ap50", is_larger_better=True, per_epoch="ap50"), Figure(LOSS)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the groups that they have not seen."""
        from pipelines.inference.sample_boxes import find_boxes, held_out_boxes
        from pipelines.learning.box_evaluation import conclude_boxes

        run, do = context.run, partial(context.steps.do, "evaluate")
        if run.labels is None:
            raise NoTruth("the config has no labels")
        model = load_model(context, "evaluate")
        samples = same_folds(context, self.labelled(context, "evaluate", model.outputs))
        decode = decoder(samples.table.layout.size, MOST_BOXES, LEAST_SCORE)
        kept, compute = kept_of(context, "boxes-tested", FOUND_BY, most=MOST_BOXES, least=LEAST_SCORE), run.compute.build()
        if used_by(run) is None:
            find = partial(held_out_boxes, samples, model, decode, kept, compute=compute)
        else:
            tested_N, every = samples.known_P[samples.tested_P], range(len(model.members))
            find = partial(find_boxes, model, every, decode, samples.arrays, tested_N, kept, compute=compute)
        found = {MODEL: do("score the folds", lambda show: find(progress=show))}
        for name in run.evaluation.references:
            found[name] = do(f"score {name}", partial(self.reference, context, samples, decode, name))
        evaluation = do("compare", lambda _: conclude_boxes(samples, found, config.build_asked(run)))
        return evaluation, made_from(context.folder)

    def reference(self, context: Invocation, samples: BoxedSamples, decode: Decode, name: str, show: Any) -> Boxes:
        """What a reference finds in the tested samples."""
        run, seed = context.run, context.run.training.seed
        if name == "threshold":
            from models.baselines.box_references import bright_components, thumbnails
            from models.baselines.class_references import RandomForest
            from pipelines.inference.box_references import found_parts

            forest = partial(RandomForest, len(samples.outputs), seed)
            most, compute = run.evaluation.most_labels, run.compute.build()
            return found_parts(samples, bright_components, thumbnails, forest, most, seed, show, compute)
        from models.sequence_model import join_members
        from pipelines.inference.sample_boxes import held_out_boxes
        from pipelines.learning.sample_training import train_folds

        key = require(context.folder, "train")["key"] + "centre_frame"
        build = partial(build_one, run.model.model_copy(update={"kind": "centre_frame"}), samples, seed)
        folder, do = context.folder.networks / "reference", lambda _, work: work(show)
        learners, _ = train_folds(samples, build, self.recipe(context, samples), folder, do, key)
        model = join_members(learners)
        kept = kept_of(context, "boxes-reference", FOUND_BY, most=MOST_BOXES, least=LEAST_SCORE, weights=weights_of(model))
        return held_out_boxes(samples, model, decode, kept, show, run.compute.build())

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """The boxes of all samples: of those with known boxes by networks that have not seen their group."""
        from pipelines.products.box_products import box_rows, write_boxes

        model, chosen, do = load_model(context, "predict"), context.run.prediction, partial(context.steps.do, "predict")
        stored = load_samples(context, "predict")
        boxes, known, is_held_out_N = self.find_all(context, stored, model)
        rows = box_rows(stored.table, model.outputs, boxes, is_held_out_N)
        count, lineage = len(stored.table), lineage_of(context)
        work = partial(write_boxes, rows, lineage, building.products, model.outputs, count, chosen.least_score)
        do("write the table", lambda _: work())
        do("draw samples", lambda _: draw(stored, model, boxes, known, is_held_out_N, building))
        counts = dict(sorted(Counter(row["label"] for row in rows if "label" in row).items()))
        shown = ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
        message = f"{counted(len(boxes), 'box', 'boxes')} in {counted(count, 'sample')}: {shown}"
        return {**made_from(context.folder), "answered": count, "boxes": len(boxes), "counts": counts, "message": message}

    def find_all(
        self, context: Invocation, stored: StoredSamples, model: SequenceModel
    ) -> tuple[Boxes, Boxes | None, np.ndarray]:
        """(boxes in all samples, known ones, whether networks found them that have not seen the sample's group)."""
        import numpy as np

        from pipelines.inference.sample_boxes import find_boxes, held_out_boxes
        from pipelines.samples.boxes import Boxes, one_label

        do, chosen = partial(context.steps.do, "predict"), context.run.prediction
        decode = decoder(stored.table.layout.size, chosen.most_boxes, chosen.least_score)
        kept = kept_of(context, "boxes", FOUND_BY, most=chosen.most_boxes, least=chosen.least_score)
        is_held_out_N = np.zeros(len(stored.table), bool)
        samples, compute = None, context.run.compute.build()
        if used_by(context.run) is None:
            samples = same_folds(context, self.labelled(context, "predict", model.outputs))
            is_held_out_N[samples.known_P[samples.tested_P]] = True
        others, every = np.flatnonzero(~is_held_out_N), range(len(model.members))
        found = do("find boxes", lambda show: find_boxes(model, every, decode, stored.arrays, others, kept, show, compute))
        if samples is None:
            return one_label(found, chosen.least_score), None, is_held_out_N
        held = partial(held_out_boxes, samples, model, decode, kept, compute=compute)
        own = do("find boxes in held-out samples", lambda show: held(progress=show))
        joined = Boxes.of_table(np.concatenate([found.table(), own.table()]))
        return one_label(joined, chosen.least_score), samples.boxes, is_held_out_N

    # ------------------------------------------------------------ summary and report

    def sentence(self, name: str, predicted: Record, evaluation: Evaluation | None) -> str:
        from pipelines.products.box_sections import box_sentence

        return box_sentence(name, predicted, evaluation)

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.box_sections import boxes_section, labels_section, scores_section

        found = [boxes_section(predicted, context.folder.path)] if predicted else []
        return [*found, scores_section(evaluation), labels_section(evaluation)] if evaluation else found


def decoder(size: tuple[int, ...], most: int, least: float) -> Decode:
    """Reads boxes from maps of frames of that size."""
    from models.blocks.centre_points import decode_boxes

    return partial(decode_boxes, shape_yx=(size[0], size[1]), most=most, least=least)


def draw(
    stored: StoredSamples, model: SequenceModel, boxes: Boxes, known: Boxes | None, is_held_out_N: np.ndarray, building: Building
) -> None:
    """A picture of held-out samples (where there are none, of any) with their boxes."""
    from pipelines.products.box_products import choose_shown, draw_boxes, shown_sample

    known = boxes.chosen(boxes.score_X < 0) if known is None else known
    index_P = is_held_out_N.nonzero()[0] if is_held_out_N.any() else (~is_held_out_N).nonzero()[0]
    chosen = choose_shown(boxes, known, index_P)
    shown = [shown_sample(stored.table, stored.image, n, boxes, known) for n in chosen]
    heading = "Samples of groups that the networks have not seen" if is_held_out_N.any() else "Samples"
    draw_boxes(shown, model.outputs, building.pictures / "quicklook.png", heading)
