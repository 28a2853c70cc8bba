"""`task: classify`: a label for every sample (clip, study, image), by networks that read it as a sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.sequences import MODEL, SampleRun, build_split
from configs.tasks import classify as config
from configs.trained import used_by
from flows.folder import made_from
from flows.sample_runs import StoredSamples, load_samples
from flows.task import Invocation, Record
from flows.tasks.samples import SampleTask, held_out_or_all, load_model, single_frames
from flows.trained import same_folds
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.learning.validation_figures import LOSS, Figure
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from pipelines.learning.class_metrics import Predicted
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.labelled import LabelledSamples

OWN = ("flows.tasks.classify:Classify.labelled", "flows.tasks.classify:Classify.recipe")


class Classify(SampleTask):
    """Labels of samples. See `flows.task.Task`."""

    name = "classify"
    sliced, pieces, made = ("predict",), "batches", "answered"
    kept = ("counts", "spans")
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.samples:SampleTask.fit", "flows.tasks.samples:SampleTask.measure", *OWN),
        "evaluate": ("flows.tasks.classify:Classify.evaluate",),
        "predict": (
            "flows.tasks.samples:SampleTask.predict",
            "flows.tasks.classify:Classify.summarise",
            "flows.tasks.classify:Classify.tabulate",
            *OWN,
        ),
    }

    def labelled(self, context: Invocation, stage: str, outputs: tuple[str, ...] = ()) -> LabelledSamples:
        from pipelines.samples.labelled import label_classes
        from pipelines.samples.stepped_samples import label_steps

        run, stored = context.run, load_samples(context, stage)
        names = outputs or tuple(run.labels.classes)
        split = build_split(run.split)
        label = label_steps if run.has_spans else label_classes
        return label(stored.table, stored.image, names, split, class_weights=run.training.class_weights)

    def recipe(self, context: Invocation, samples: LabelledSamples) -> SampleRecipe:
        return config.recipe_of(context.run)

    def is_stepped(self, run: SampleRun) -> bool:
        return isinstance(run, config.ClassifyRun) and run.is_stepped

    def tabulate(
        self, context: Invocation, stored: StoredSamples, answer_NK: np.ndarray, is_held_out_N: np.ndarray,
        outputs: tuple[str, ...], evaluation: Evaluation | None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        from pipelines.products.step_products import step_rows

        if not context.run.is_stepped:
            return super().tabulate(context, stored, answer_NK, is_held_out_N, outputs, evaluation)
        return step_rows(stored.table, outputs, answer_NK, is_held_out_N, context.run.clock)

    def figures(self, run: SampleRun) -> tuple[Figure, ...]:
        return Figure("accuracy", is_larger_better=True, per_epoch="accuracy"), Figure(LOSS)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the groups that they have not seen; and metadata alone."""
        from models.baselines.class_references import MetadataForest
        from pipelines.learning.class_metrics import Predicted
        from pipelines.learning.sample_evaluation import audit_samples, conclude_classes
        from pipelines.samples.stepped_samples import SteppedSamples

        run, do, is_own = context.run, partial(context.steps.do, "evaluate"), used_by(context.run) is None
        if run.labels is None:
            raise NoTruth("the config has no labels")
        model = load_model(context, "evaluate")
        samples, asked = same_folds(context, self.labelled(context, "evaluate", model.outputs)), config.build_asked(run)
        answer_PK, single_MPK = do("score the folds", partial(held_out_or_all, context, samples, model, is_own))
        items = samples
        if isinstance(samples, SteppedSamples):
            items, answer_PK, single_MPK = samples.steps, samples.of_steps(answer_PK), samples.of_steps(single_MPK)
        predicted = {MODEL: Predicted(answer_PK.argmax(axis=1), answer_PK)}
        for name in run.evaluation.references:
            predicted[name] = do(f"score {name}", partial(self.reference, context, samples, items, name))
        audit = None
        if is_own:
            forest = partial(MetadataForest, len(samples.outputs), asked.seed)
            work = partial(audit_samples, items, predicted[MODEL].class_P, forest)
            audit = do("audit shortcuts", lambda _: work(near=run.evaluation.near, confidence=asked.confidence))
        single = [Predicted(one.argmax(axis=1)) for one in single_MPK]
        evaluation = do("compare", lambda _: conclude_classes(items, predicted, single, audit, asked))
        return evaluation, made_from(context.folder)

    def reference(self, context: Invocation, samples: LabelledSamples, items: LabelledSamples, name: str, show: Any) -> Predicted:
        """What a reference says of the tested items: samples, or labelled steps of them."""
        from models.baselines.class_references import NearestMeanCurve, RandomForest
        from models.baselines.sample_features import time_features
        from pipelines.inference.sample_references import commonest, features_of, held_out_rows
        from pipelines.learning.class_metrics import Predicted
        from pipelines.samples.stepped_samples import SteppedSamples

        run, classes, seed = context.run, len(samples.outputs), context.run.training.seed
        if name == "commonest":
            return commonest(items)
        if name == "frame_cnn":
            answer_PK = single_frames(self, context, samples, show)
            answer_PK = samples.of_steps(answer_PK) if isinstance(samples, SteppedSamples) else answer_PK
            return Predicted(answer_PK.argmax(axis=1), answer_PK)
        features_PF = features_of(items, time_features)
        built = partial(RandomForest, classes, seed) if name == "random_forest" else partial(NearestMeanCurve, classes)
        return Predicted(held_out_rows(items, features_PF, built, run.evaluation.most_labels, seed, show))

    # ------------------------------------------------------------ summary and report

    def summarise(self, rows: list[dict[str, Any]]) -> Record:
        counts = Counter[str]()
        for row in rows:
            counts[row["label"]] += row.get("steps", 1)
        shown = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
        if "steps" not in rows[0]:
            return {"message": f"{counted(len(rows), 'sample')} labelled: {shown}", "counts": dict(counts)}
        samples, steps = len({row["sample"] for row in rows}), counted(counts.total(), "step")
        message = f"{counted(len(rows), 'span')} in {counted(samples, 'sample')}; {steps} labelled: {shown}"
        return {"message": message, "counts": dict(counts), "spans": len(rows)}

    def sentence(self, name: str, predicted: Record, evaluation: Evaluation | None) -> str:
        from pipelines.products.label_sections import label_sentence

        return label_sentence(name, predicted, evaluation)

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.label_sections import answers_section, audit_section, scores_section

        answers = [answers_section(predicted, context.folder.path)] if predicted else []
        return [*answers, scores_section(evaluation, drafts), audit_section(evaluation)] if evaluation else answers
