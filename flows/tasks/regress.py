"""`task: regress`: a number for every sample (clip, study, window of a series), by networks that read it as a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.sequences import MODEL, build_split
from configs.tasks import regress as config
from configs.trained import used_by
from flows.folder import made_from
from flows.sample_runs import load_samples
from flows.task import Invocation, Record
from flows.tasks.samples import SampleTask, held_out_or_all, load_model, single_frames
from flows.trained import same_folds
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.learning.validation_figures import LOSS, Figure
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.labelled import LabelledSamples

OWN = tuple(f"flows.tasks.regress:Regress.{name}" for name in ("labelled", "recipe", "within"))


class Regress(SampleTask):
    """Numbers of samples. See `flows.task.Task`."""

    name = "regress"
    sliced, pieces, made = ("predict",), "batches", "answered"
    kept = ("number", "least", "mean", "most")
    describes: Mapping[str, tuple[str, ...]] = {**SampleTask.describes, "number": ()}
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.samples:SampleTask.fit", "flows.tasks.samples:SampleTask.measure", *OWN),
        "evaluate": ("flows.tasks.regress:Regress.evaluate",),
        "predict": ("flows.tasks.samples:SampleTask.predict", "flows.tasks.regress:Regress.summarise", *OWN),
    }

    def labelled(self, context: Invocation, stage: str, outputs: tuple[str, ...] = ()) -> LabelledSamples:
        from pipelines.samples.labelled import label_numbers

        run, stored = context.run, load_samples(context, stage)
        return label_numbers(stored.table, stored.image, run.number.name, build_split(run.split))

    def recipe(self, context: Invocation, samples: LabelledSamples) -> SampleRecipe:
        return config.recipe_of(context.run)

    def figures(self, run: config.RegressRun) -> tuple[Figure, ...]:
        return Figure("mean_absolute_error", per_epoch="mean_absolute_error"), Figure(LOSS)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the groups that they have not seen; and metadata alone."""
        from models.baselines.class_references import MetadataForest
        from pipelines.learning.number_evaluation import AskedNumbers, conclude_numbers
        from pipelines.learning.sample_evaluation import audit_samples, bins_of

        run, do, is_own = context.run, partial(context.steps.do, "evaluate"), used_by(context.run) is None
        if run.labels is None:
            raise NoTruth("the config has no labels")
        model = load_model(context, "evaluate")
        samples, chosen, seed = same_folds(context, self.labelled(context, "evaluate")), run.evaluation, run.training.seed
        answer_PK, single_MPK = do("score the folds", partial(held_out_or_all, context, samples, model, is_own))
        answers = {MODEL: self.within(context, answer_PK[:, 0])}
        for name in chosen.references:
            answers[name] = do(f"score {name}", partial(self.reference, context, samples, name))
        audit = None
        if is_own:
            forest = partial(MetadataForest, int(samples.stratum_P.max()) + 1, seed)
            said_P = bins_of(samples, answers[MODEL])
            work = partial(audit_samples, samples, said_P, forest, near=chosen.near, confidence=chosen.confidence)
            audit = do("audit shortcuts", lambda _: work())
        asked = AskedNumbers(
            MODEL, tuple(chosen.must_equal), seed=seed, unit=run.number.unit,
            **chosen.model_dump(include={"min_r2", "margin", "confidence", "interval", "most_labels"}),
        )  # fmt: skip
        evaluation = do("compare", lambda _: conclude_numbers(samples, answers, single_MPK[:, :, 0], audit, asked))
        return evaluation, made_from(context.folder)

    def reference(self, context: Invocation, samples: LabelledSamples, name: str, show: Any) -> np.ndarray:
        """What a reference says of the tested samples."""
        from models.baselines.number_references import ForestOfNumbers, MeanOfNumbers
        from models.baselines.sample_features import all_features
        from pipelines.inference.sample_references import features_of, held_out_rows

        run, seed = context.run, context.run.training.seed
        if name == "frame_cnn":
            return self.within(context, single_frames(self, context, samples, show)[:, 0])
        features_PF = features_of(samples, all_features)
        build = MeanOfNumbers if name == "mean" else partial(ForestOfNumbers, seed)
        return held_out_rows(samples, features_PF, build, run.evaluation.most_labels, seed, show)

    def within(self, context: Invocation, answers: np.ndarray) -> np.ndarray:
        """The answers within `number.valid_range`."""
        limits = context.run.number.valid_range
        return answers if limits is None else answers.clip(*limits)

    # ------------------------------------------------------------ summary and report

    def half_width(self, evaluation: Evaluation | None) -> float | None:
        return None if evaluation is None else evaluation.details["interval"]["half_width"]

    def summarise(self, rows: list[dict[str, Any]]) -> Record:
        name = next(key for key in rows[0] if key not in ("sample", "file", "group", "block", "known"))
        values = [row[name] for row in rows]
        figures = {"number": name, "least": min(values), "mean": sum(values) / len(values), "most": max(values)}
        message = f"{counted(len(rows), 'sample')}: {name} from {figures['least']:.3g} to {figures['most']:.3g}"
        return {**figures, "message": f"{message}, mean {figures['mean']:.3g}"}

    def sentence(self, name: str, predicted: Record, evaluation: Evaluation | None) -> str:
        from pipelines.products.number_sections import number_sentence

        return number_sentence(name, predicted, evaluation)

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.label_sections import answers_section, audit_section
        from pipelines.products.number_sections import scores_section

        answers = [answers_section(predicted, context.folder.path)] if predicted else []
        return [*answers, scores_section(evaluation, drafts), audit_section(evaluation)] if evaluation else answers
