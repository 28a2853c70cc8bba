"""`task: classify`: a label for every sample (clip, study, image), by networks that read it as a sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import config_hash
from configs.tasks import classify as config
from configs.tasks.classify import ClassifyRun
from configs.trained import used_by
from flows.folder import RunFolder, code_version, load_checkpoint, require
from flows.sample_runs import StoredSamples, ingest_run_samples, load_samples, plan_samples, save_model
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.sequence_model import SequenceModel
    from pipelines.learning.class_metrics import Predicted
    from pipelines.learning.reuse import Inputs
    from pipelines.samples.labelled import LabelledSamples

TRAINED_FROM = ("labels", "frames", "split", "model", "training")  # what a model depends on


class Classify(TrainedTask):
    """Labels of samples. See `flows.task.Task`."""

    name = "classify"
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.classify:Classify.fit", "flows.tasks.classify:Classify.measure"),
        "evaluate": ("flows.tasks.classify:Classify.evaluate",),
        "predict": ("flows.tasks.classify:Classify.predict",),
    }
    describes: Mapping[str, tuple[str, ...]] = {"model": (), "frames": ()}

    def checkpoint(self) -> Checkpoint[Any]:
        from models.sequence_model import SEQUENCE_MODEL

        return SEQUENCE_MODEL

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of all samples."""
        import numpy as np

        from pipelines.learning.sample_reuse import inputs_of

        stored = load_samples(context, "train")
        return inputs_of(stored.arrays, np.arange(len(stored.table)))

    def plan(self, run: ClassifyRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
        return plan_samples(run, folder, self.verbs[verb], reads_source="ingest" in self.verbs[verb])

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        if stage == "train":
            return {"snapshot": require(folder, "ingest")["snapshot"], **{name: content[name] for name in TRAINED_FROM}}
        trained = require(folder, "train")
        known = {"model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]}
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
        from pipelines.inference.sample_labels import calibrate
        from pipelines.learning.sample_training import audit_groups, train_folds

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        samples = self.labelled(context, "train")
        context.steps.log(f"samples: {samples.sentence}")
        build = partial(build_one, run.model, samples, run.training.seed)
        recipe = config.build_recipe(run)
        learners, reports = train_folds(samples, build, recipe, folder.networks, do, key)
        model = join_members(learners)
        found = do("calibrate", lambda show: calibrate(samples, model, show))
        groups = do("audit the split", lambda _: audit_groups(samples))
        snapshot = require(folder, "ingest")["snapshot"]
        model_hash = do("save the model", lambda _: save_model(self, context, model, snapshot, groups))
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "labels": {"sentence": samples.sentence, "dropped": dict(samples.dropped), **samples.counts()},
            "training": {"members": [{**one, "temperature": t} for one, t in zip(reports, found, strict=True)]},
            "message": f"trained {counted(len(learners), 'network')} from {counted(len(samples.known_P), 'sample')}",
        }

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the groups that they have not seen; and metadata alone."""
        from models.baselines.class_references import MetadataForest
        from pipelines.learning.class_metrics import Predicted
        from pipelines.learning.sample_evaluation import audit_samples, conclude_classes

        run, do, is_own = context.run, partial(context.steps.do, "evaluate"), used_by(context.run) is None
        if run.labels is None:
            raise NoTruth("the config has no labels")
        trained, model = require(context.folder, "train"), load_model(context, "evaluate")
        samples, asked = self.labelled(context, "evaluate", model.outputs), config.build_asked(run)
        answer_PK, single_MPK = do("score the folds", partial(held_out_or_all, samples, model, is_own))
        predicted = {config.MODEL: Predicted(answer_PK.argmax(axis=1), answer_PK)}
        for name in run.evaluation.references:
            predicted[name] = do(f"score {name}", partial(self.reference, context, samples, name))
        audit = None
        if is_own:
            forest = partial(MetadataForest, len(samples.outputs), asked.seed)
            work = partial(audit_samples, samples, predicted[config.MODEL].class_P, forest)
            audit = do("audit shortcuts", lambda _: work(near=run.evaluation.near, confidence=asked.confidence))
        single = [Predicted(one.argmax(axis=1)) for one in single_MPK]
        evaluation = do("compare", lambda _: conclude_classes(samples, predicted, single, audit, asked))
        return evaluation, {"snapshot": trained["snapshot"], "model_hash": trained["model_hash"]}

    def reference(self, context: Invocation, samples: LabelledSamples, name: str, show: Any) -> Predicted:
        """What a reference says of the tested samples."""
        from models.baselines.class_references import NearestMeanCurve, RandomForest
        from models.baselines.sample_features import time_features
        from models.sequence_model import join_members
        from pipelines.inference.sample_labels import calibrate, held_out
        from pipelines.inference.sample_references import commonest, features_of, held_out_rows
        from pipelines.learning.class_metrics import Predicted
        from pipelines.learning.sample_training import train_folds

        run, classes, seed = context.run, len(samples.outputs), context.run.training.seed
        if name == "commonest":
            return commonest(samples)
        if name == "frame_cnn":
            chosen = run.model.model_copy(update={"kind": "frame_cnn", "per_step": False})
            build = partial(build_one, chosen, samples, seed)
            folder = context.folder.networks / "reference"
            learners, _ = train_folds(samples, build, config.build_recipe(run.model_copy(update={"model": chosen})), folder,
                                      lambda _, work: work(show), require(context.folder, "train")["key"] + name)  # fmt: skip
            model = join_members(learners)
            calibrate(samples, model)
            answer_PK, _ = held_out(samples, model)
            return Predicted(answer_PK.argmax(axis=1), answer_PK)
        features_PF = features_of(samples.arrays, samples.known_P, time_features)
        built = partial(RandomForest, classes, seed) if name == "random_forest" else partial(NearestMeanCurve, classes)
        return Predicted(held_out_rows(samples, features_PF, built, run.evaluation.most_labels, seed, show))

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """A line for every sample: of those with an answer by networks that have not seen their group."""
        from pipelines.products.label_products import LabelLineage, answer_rows, write_labels

        run, folder, model = context.run, context.folder, load_model(context, "predict")
        trained, stored = require(folder, "train"), load_samples(context, "predict")
        answer_NK, is_held_out_N = answers_of(self, context, stored, model)
        rows = answer_rows(stored.table, model.outputs, answer_NK, is_held_out_N, is_number=model.is_number)
        lineage = LabelLineage(run.name, run.task, trained["snapshot"], trained["model_hash"], config_hash(run), code_version())
        context.steps.do("predict", "write the table", lambda _: write_labels(rows, lineage, building.products, model.outputs))
        context.steps.do("predict", "draw samples", lambda _: draw(context, stored, model, answer_NK, building))
        counts = dict(Counter(row["label"] for row in rows))
        message = f"{counted(len(rows), 'sample')} labelled: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
        known = {"snapshot": trained["snapshot"], "model_hash": trained["model_hash"], "message": message}
        return {**known, "answered": len(rows), "counts": counts}

    def labelled(self, context: Invocation, stage: str, classes: tuple[str, ...] = ()) -> LabelledSamples:
        """The samples with their answers and folds; `classes`: of a trained model. Raises RequestError."""
        from pipelines.samples.labelled import label_classes

        run, stored = context.run, load_samples(context, stage)
        names = classes or tuple(run.labels.classes)
        split = config.build_split(run.split)
        return label_classes(stored.table, stored.image, names, split, class_weights=run.training.class_weights)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.label_sections import label_sentence

        run, folder = context.run, context.folder
        labels = require(folder, "train").get("labels", {})
        table = folder.products / "labels.csv"
        return Findings(
            sentence=label_sentence(run.name, predicted, evaluation),
            found={key: predicted[key] for key in ("answered", "counts")} if predicted else {},
            computed={"labels": labels["sentence"]} if labels else {},
            settings={
                "model": ", ".join(f"{key} {value}" for key, value in run.model.model_dump(exclude={"use", "as_is"}).items()),
                "split": f"part {run.split.test}" if run.split.test else f"{run.split.folds} folds of whole groups",
                "training": f"at most {run.training.epochs} epochs, {run.training.loss}",
            },
            notes=(f"Samples: {labels['sentence']}.",) if labels else (),
            lines=(("labels", table), ("picture", folder.quicklook)) if predicted else (),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.label_sections import answers_section, audit_section, scores_section

        answers = [answers_section(predicted, context.folder.path)] if predicted else []
        return [*answers, scores_section(evaluation, drafts), audit_section(evaluation)] if evaluation else answers


def build_one(model: config.SequenceModelConfig, samples: LabelledSamples, seed: int, number: int) -> SequenceModel:
    """The untrained network of that number."""
    layout = samples.table.layout
    return config.build_learner(model, layout, samples.outputs, seed * 100 + number, is_number=samples.is_number)


def load_model(context: Invocation, stage: str) -> SequenceModel:
    from models.sequence_model import SEQUENCE_MODEL

    model: SequenceModel
    model = context.steps.do(stage, "load the model", lambda _: load_checkpoint(SEQUENCE_MODEL.load, context.folder)[0])
    return model


def held_out_or_all(samples: LabelledSamples, model: SequenceModel, is_own: bool, show: Any) -> tuple[np.ndarray, np.ndarray]:
    """Answers for the tested samples; by all networks where the model was trained elsewhere."""
    from pipelines.inference.sample_labels import held_out, score_samples

    if is_own:
        return held_out(samples, model, show)
    import numpy as np

    index_P = samples.known_P[samples.tested_P]
    single = [model.calibrated(m, score_samples(model, m, samples.arrays, index_P)) for m in range(len(model.members))]
    return np.mean(single, axis=0), np.stack(single)


def answers_of(task: Classify, context: Invocation, stored: StoredSamples, model: SequenceModel) -> tuple[np.ndarray, np.ndarray]:
    """(answer_NK, whether it is by networks that have not seen the sample's group) for all samples."""
    import numpy as np

    from pipelines.inference.sample_labels import Kept, answer_all, held_out

    trained, do = require(context.folder, "train"), partial(context.steps.do, "predict")
    kept = Kept(context.folder.staging / "labels", trained["model_hash"] + trained["snapshot"])
    every_N = np.arange(len(stored.table))
    answer_NK = do("answer all samples", lambda show: answer_all(model, stored.arrays, every_N, kept, show))
    is_held_out_N = np.zeros(len(every_N), bool)
    if used_by(context.run) is None:
        samples = task.labelled(context, "predict", model.outputs)
        own_P = samples.known_P[samples.tested_P]
        answer_NK[own_P], _ = do("answer held-out samples", partial(held_out, samples, model))
        is_held_out_N[own_P] = True
    return answer_NK, is_held_out_N


def draw(context: Invocation, stored: StoredSamples, model: SequenceModel, answer_NK: np.ndarray, building: Building) -> None:
    """The picture of the least sure samples, and of what the first network looked at."""
    import numpy as np
    import torch

    from pipelines.inference.attribution import integrated_gradients
    from pipelines.products.label_charts import MOST_SAMPLES, draw_samples
    from pipelines.products.label_products import LOOKED_AT, LookedAt, draw_looked_at

    table, order_N = stored.table, np.argsort(answer_NK.max(axis=1), kind="stable")
    least = order_N[:MOST_SAMPLES]
    middle = [int(table.valid_NT[n].sum()) // 2 for n in least]
    images = np.stack([_plane(stored.image[n, t, 0]) for n, t in zip(least, middle, strict=True)])
    said = [f"{model.outputs[answer_NK[n].argmax()]} {answer_NK[n].max():.2f}" for n in least]
    is_wrong = np.array([table.answer_N[n] not in ("", model.outputs[answer_NK[n].argmax()]) for n in least])
    known = [f"{text}, is {table.answer_N[n]}" if bad else text for text, bad, n in zip(said, is_wrong, least, strict=True)]
    draw_samples(
        images, table.id_N[least].tolist(), known, is_wrong, building.pictures / "quicklook.png", "The least sure samples"
    )
    shown = []
    for n in _one_of_each(answer_NK, context.run.prediction.explain):
        x_TCHW, valid_T = stored.arrays.physical(np.array([n]))[0], torch.from_numpy(np.array(table.valid_NT[n]))
        output = int(answer_NK[n].argmax())
        weight_THW = integrated_gradients(model, 0, x_TCHW, valid_T, model.mean_MC[0], output)
        frames = int(valid_T.sum())
        image_THW = np.stack([_plane(one[0]) for one in x_TCHW.numpy()[:frames]])
        text = f"{model.outputs[output]} ({answer_NK[n].max():.2f})"
        shown.append(LookedAt(table.id_N[n], text, image_THW, np.stack([_plane(one) for one in weight_THW[:frames]])))
    if shown:
        draw_looked_at(shown, building.products / LOOKED_AT)


def _plane(image: np.ndarray) -> np.ndarray:
    """(y, x): the image, or the middle slice of a volume."""
    return image if image.ndim == 2 else image[len(image) // 2]


def _one_of_each(answer_NK: np.ndarray, most: int) -> list[int]:
    """The surest sample of each class that is answered, at most so many."""
    found = []
    for k in range(answer_NK.shape[1]):
        own = (answer_NK.argmax(axis=1) == k).nonzero()[0]
        if len(own):
            found.append(int(own[answer_NK[own, k].argmax()]))
    return found[:most]
