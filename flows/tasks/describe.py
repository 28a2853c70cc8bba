"""`task: describe`: a sentence about every sample (clip, folder of frames), by networks that read it as a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.sequences import build_learner, build_split
from configs.tasks import describe as config
from configs.trained import used_by
from flows import code
from flows.folder import made_from, require
from flows.sample_runs import StoredSamples, kept_of, load_samples, weights_of
from flows.task import Building, Invocation, Record
from flows.tasks.samples import ANSWERED_BY, SampleTask, lineage_of, load_model
from flows.trained import same_folds
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.learning.validation_figures import LOSS, Figure
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from models.sequence_model import SequenceModel
    from pipelines.inference.caption_references import Sentences
    from pipelines.inference.sample_captions import Write
    from pipelines.learning.caption_metrics import Captions
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.products.label_products import LabelLineage
    from pipelines.samples.captioned_samples import CaptionClasses, CaptionedSamples
    from pipelines.samples.labelled import LabelledSamples

OWN = tuple(f"flows.tasks.describe:Describe.{name}" for name in ("labelled", "recipe", "calibrate"))
WRITTEN_BY = (*ANSWERED_BY, "pipelines.inference.sample_captions", "models.captions")


class Describe(SampleTask):
    """Sentences about samples. See `flows.task.Task`."""

    name = "describe"
    table = "captions.csv"
    kept = ("uncertain",)
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.samples:SampleTask.fit", "flows.tasks.samples:SampleTask.measure", *OWN),
        "evaluate": ("flows.tasks.describe:Describe.evaluate",),
        "predict": ("flows.tasks.describe:Describe.predict", *OWN),
    }

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        """Beams and the least probability decide what is evaluated, too."""
        found = super().inputs(context, stage)
        return found | ({"prediction": context.run.prediction.model_dump(mode="json")} if stage == "evaluate" else {})

    def labelled(self, context: Invocation, stage: str, outputs: tuple[str, ...] = ()) -> CaptionedSamples:
        from pipelines.samples.captioned_samples import label_captions

        run, stored = context.run, load_samples(context, stage)
        return label_captions(stored.table, stored.image, build_split(run.split), run.model.longest, outputs)

    def recipe(self, context: Invocation, samples: LabelledSamples) -> SampleRecipe:
        return config.recipe_of(context.run, captioned(samples))

    def calibrate(self, context: Invocation, samples: LabelledSamples, model: SequenceModel, show: Any) -> list[float] | None:
        from pipelines.inference.sample_captions import calibrate_words

        temperatures, left_out = calibrate_words(captioned(samples), model, context.run.training.batch, show)
        if left_out:
            words = counted(left_out, "word of captions that validate", "words of captions that validate")
            context.steps.log(f"calibrate: {words} not learnt, and without influence on the temperature")
        return temperatures

    def figures(self, run: config.DescribeRun) -> tuple[Figure, ...]:
        return Figure("exact_match", is_larger_better=True, per_epoch="exact_match"), Figure(LOSS)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the groups that they have not seen."""
        from pipelines.inference.sample_captions import unsayable
        from pipelines.learning.caption_evaluation import conclude_captions

        run, do = context.run, partial(context.steps.do, "evaluate")
        if run.labels is None:
            raise NoTruth("the config has no labels")
        model = load_model(context, "evaluate")
        samples = same_folds(context, self.labelled(context, "evaluate", model.outputs))
        ours = do("score the folds", partial(self.score, context, samples, model))
        said = {}
        for name in run.evaluation.references:
            said[name] = do(f"score {name}", partial(self.reference, context, samples, name))
        strange = int(unsayable(samples, model, run.model.longest, by_all=used_by(run) is not None).sum())
        evaluation = do("compare", lambda _: conclude_captions(samples, ours, said, config.build_asked(run), strange))
        return evaluation, made_from(context.folder)

    def score(self, context: Invocation, samples: CaptionedSamples, model: SequenceModel, show: Any) -> Captions:
        """Sentences about the tested samples; by all networks where the model was trained elsewhere."""
        from pipelines.inference.sample_captions import find_captions, held_out_captions

        beams, compute = context.run.prediction.beams, context.run.compute.build()
        write, kept = writing(beams), kept_of(context, "captions", WRITTEN_BY, beams=beams)  # as `write_all`, which shares them
        if used_by(context.run) is None:
            return held_out_captions(samples, model, write, kept, compute, show)
        tested_N, every = samples.known_P[samples.tested_P], range(len(model.members))
        return find_captions(model, every, write, samples.arrays, tested_N, kept, show, compute)

    def reference(self, context: Invocation, samples: CaptionedSamples, name: str, show: Any) -> Sentences:
        """The sentences of a reference about the tested samples."""
        from models.baselines.class_references import RandomForest
        from models.baselines.sample_features import time_features
        from pipelines.inference import caption_references as references
        from pipelines.inference.sample_references import features_of

        run, seed, slots = context.run, context.run.training.seed, config.slots_of(context.run)
        most = run.evaluation.most_labels
        if name == "commonest":
            return references.commonest_caption(samples)
        if name == "nearest":
            return references.row_captions(samples, time_features, references.Nearest, most, seed, show)
        if name == "forest_template":
            features_PF = features_of(samples, time_features)
            answer = references.slot_rows(features_PF, lambda classes: RandomForest(classes, seed), most, seed)
        else:
            answer = partial(slot_networks, context, show)
        return references.filled_templates(samples, slots, answer)

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """A sentence for every sample: of those with a known one by networks that have not seen their group."""
        from pipelines.products.caption_products import caption_rows, write_captions

        model, chosen, do = load_model(context, "predict"), context.run.prediction, partial(context.steps.do, "predict")
        stored = load_samples(context, "predict")
        captions, is_held_out_N = self.write_all(context, stored, model)
        rows = caption_rows(stored.table, captions, is_held_out_N, chosen.least_probability)
        lineage: LabelLineage = lineage_of(context)
        work = partial(write_captions, rows, lineage, building.products, model.outputs, chosen.least_probability)
        do("write the table", lambda _: work())
        shown = do("draw samples", lambda _: draw(stored, rows, chosen.shown, building))
        uncertain = sum(row["certainty"] == "uncertain" for row in rows)
        return {
            **made_from(context.folder),
            "answered": len(rows),
            "uncertain": uncertain,
            "least_probability": chosen.least_probability,
            "shown": [{key: row[key] for key in ("sample", "caption", "probability", "certainty", "known")} for row in shown],
            "message": f"{counted(len(rows), 'sample')} described, {uncertain} of them with an uncertain caption",
        }

    def write_all(self, context: Invocation, stored: StoredSamples, model: SequenceModel) -> tuple[Captions, np.ndarray]:
        """(sentences about all samples, whether networks wrote them that have not seen the sample's group)."""
        import numpy as np

        from pipelines.inference.sample_captions import find_captions, held_out_captions
        from pipelines.learning.caption_metrics import Captions

        do, beams, compute = partial(context.steps.do, "predict"), context.run.prediction.beams, context.run.compute.build()
        write, kept = writing(beams), kept_of(context, "captions", WRITTEN_BY, beams=beams)
        every, is_held_out_N = range(len(model.members)), np.zeros(len(stored.table), bool)
        samples = None
        if used_by(context.run) is None:
            samples = same_folds(context, self.labelled(context, "predict", model.outputs))
            is_held_out_N[samples.known_P[samples.tested_P]] = True
        others = np.flatnonzero(~is_held_out_N)
        find = partial(find_captions, model, every, write, stored.arrays, others, kept, compute=compute)
        found = do("describe samples", lambda show: find(progress=show))
        if samples is None:
            return found, is_held_out_N
        held = partial(held_out_captions, samples, model, write, kept, compute)
        own = do("describe held-out samples", lambda show: held(progress=show))
        words = dict(zip(others.tolist(), found.words_PW, strict=True))
        own_N = samples.known_P[samples.tested_P]
        words |= dict(zip(own_N.tolist(), own.words_PW, strict=True))
        probability_NW = np.zeros((len(stored.table), beams))
        for rows, one in ((others, found), (own_N, own)):
            if len(rows):
                probability_NW[rows] = one.probability_PW
        return Captions(tuple(words[n] for n in range(len(stored.table))), probability_NW), is_held_out_N

    # ------------------------------------------------------------ summary and report

    def sentence(self, name: str, predicted: Record, evaluation: Evaluation | None) -> str:
        from pipelines.products.caption_sections import caption_sentence

        return caption_sentence(name, predicted, evaluation)

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.caption_sections import captions_section, labels_section, scores_section

        said = [captions_section(predicted, context.folder.path)] if predicted else []
        return [*said, scores_section(evaluation, drafts), labels_section(evaluation)] if evaluation else said


def captioned(samples: LabelledSamples) -> CaptionedSamples:
    from pipelines.samples.captioned_samples import CaptionedSamples

    assert isinstance(samples, CaptionedSamples)
    return samples


def writing(beams: int) -> Write:
    """How sentences are written: with so many beams."""
    from models.captions import write_captions

    return partial(write_captions, width=beams)


def slot_networks(context: Invocation, show: Any, phrases: CaptionClasses, slot: str) -> np.ndarray:
    """What a network that reads frames as the model does, trained like it, says of a slot: class of the tested samples."""
    from models.sequence_model import join_members
    from pipelines.inference.sample_labels import held_out
    from pipelines.learning.sample_training import train_folds

    classes = phrases.with_targets()
    run, known = context.run, code.key({"outputs": classes.outputs, "class_P": classes.class_P.tolist()}, ())
    key = f"{require(context.folder, 'train')['key']} {slot} {known}"
    model, layout, seed = config.classifier_of(run), classes.table.layout, run.training.seed * 100
    number = sorted(config.slots_of(run)).index(slot)
    folder = context.folder.networks / f"reference-{number}"
    learners, _ = train_folds(
        classes, lambda number: build_learner(model, layout, classes.outputs, seed + number), config.classifier_recipe(run),
        folder, lambda _, work: work(show), key,
    )  # fmt: skip
    joined = join_members(learners)
    kept = kept_of(context, f"captions-reference-{number}", ANSWERED_BY, weights=weights_of(joined))
    answer_PK, _ = held_out(classes, joined, show, kept=kept, compute=run.compute.build())
    said: np.ndarray = answer_PK.argmax(axis=1)
    return said


def draw(stored: StoredSamples, rows: list[dict[str, Any]], most: int, building: Building) -> list[dict[str, Any]]:
    """The rows that a picture of samples with their sentences shows."""
    from pipelines.products.caption_products import choose_shown, draw_captions, shown_caption

    chosen = choose_shown(rows, most)
    shown = [shown_caption(stored.table, stored.image, n, rows[n]) for n in chosen]
    is_held_out = rows[chosen[0]]["answered_by"].startswith("networks that have not")
    heading = "Samples of groups that the networks have not seen" if is_held_out else "Samples"
    draw_captions(shown, building.pictures / "quicklook.png", heading)
    return [rows[n] for n in chosen]
