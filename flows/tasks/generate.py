"""`task: generate`: new images, pixel by pixel, by networks that give every pixel a probability from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.sequences import MODEL
from configs.tasks import generate as config
from configs.trained import find_model, reading, used_by
from flows.folder import RunFolder, load_checkpoint, made_from, require
from flows.sample_runs import ingest_run_samples, load_samples, plan_samples
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from flows.tasks.samples import lineage_of
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.pixel_model import PixelModel
    from pipelines.learning.reuse import Inputs
    from pipelines.samples.binary_images import ImageParts, Seen

PARTS = "parts_sha256"  # in a checkpoint: of the images of each part
TRAINED_FROM = ("frames", "binarise", "split", "model", "training")  # what a model depends on


class Generate(TrainedTask):
    """New images. See `flows.task.Task`."""

    name = "generate"
    describes: Mapping[str, tuple[str, ...]] = {"model": (), "frames": (), "binarise": ()}
    computed: tuple[str, ...] = ("ingest", "evaluate")
    code: Mapping[str, tuple[str, ...]] = {
        stage: tuple(f"flows.tasks.generate:Generate.{name}" for name in names)
        for stage, names in {"train": ("fit", "measure"), "evaluate": ("evaluate",), "predict": ("predict",)}.items()
    }

    def checkpoint(self) -> Checkpoint[Any]:
        from models.pixel_model import PIXEL_MODEL

        return PIXEL_MODEL

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of all images, as they are before they become 0 and 1."""
        import numpy as np

        from pipelines.learning.sample_reuse import inputs_of

        stored = load_samples(context, "train")
        return inputs_of(stored.arrays, np.arange(len(stored.table)))

    def plan(
        self, run: config.GenerateRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        return plan_samples(run, folder, self.verbs[verb], reads_source="ingest" in self.verbs[verb], ingested=ingested)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        if stage == "train":
            return {"snapshot": require(folder, "ingest")["snapshot"], **{name: content[name] for name in TRAINED_FROM}}
        trained = require(folder, "train")
        snapshot = require(folder, "ingest")["snapshot"]
        known = {
            "snapshot": snapshot, "model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]
        }  # fmt: skip
        if stage == "evaluate":
            return known
        evaluated = require(folder, "evaluate")["key"]
        return {
            **known, "even_if_worse": context.even_if_worse, "evaluated": evaluated, "prediction": content["prediction"]
        }  # fmt: skip

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        return ingest_run_samples(context)

    def images(self, context: Invocation, stage: str) -> tuple[np.ndarray, ImageParts]:
        """(x_NHW of 0 and 1, their parts). Raises RequestError."""
        from pipelines.samples.binary_images import binarise, divide_images

        run, stored = context.run, load_samples(context, stage)
        how = config.build_binarisation(run)
        x_NHW = context.steps.do(stage, "make 0 and 1", lambda _: binarise(stored.image, stored.table.id_N, how))
        return x_NHW, divide_images(stored.table, config.build_split(run))

    def fit(self, context: Invocation, key: str) -> Record:
        """One network; `training.members` has its curve in nats per image and CPU seconds."""
        from operator import itemgetter

        import torch

        from models.pixel_model import PIXEL_MODEL, nats_per_image
        from pipelines.learning.cpu_clock import added_up, cpu_clock
        from pipelines.learning.training import train
        from pipelines.samples.binary_images import ImageWindows

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        x_NHW, parts = self.images(context, "train")
        config.check_size(run, x_NHW.shape[1:])
        context.steps.log(f"images: {parts.sentence}")
        model, seed = config.build_model(run, x_NHW.shape), run.training.seed
        count = len(parts.train_P)
        model.set_base(torch.from_numpy((x_NHW[parts.train_P].sum(axis=0) + 1.0) / (count + 2)))
        windows = ImageWindows(x_NHW, parts.train_P, seed, run.training.per_epoch), ImageWindows(x_NHW, parts.validation_P)
        work = partial(
            train, model, *windows, nats_per_image, config.build_training(run), folder.networks / "network-1", key=key,
            target_of=itemgetter("x_HW"), score=cpu_clock(),
        )  # fmt: skip
        report = do("train the network", lambda show: work(progress=show)).to_json()["members"][0]
        model.eval()
        report["curve"] = added_up(report["curve"])
        snapshot = require(folder, "ingest")["snapshot"]
        about = self.about(context, snapshot, x_NHW, parts)
        model_hash = do("save the model", lambda _: PIXEL_MODEL.save(model, folder.model, about))
        best = report["best_validation_loss"]
        return {
            "snapshot": snapshot,
            "model_hash": str(model_hash),
            "images": parts.sentence,
            "training": {"members": [{"samples": parts.counts, "seed": seed, **report}]},
            "message": f"trained on {counted(count, 'image')}: {best:.2f} nats per image of the validation part",
        }

    def about(self, context: Invocation, snapshot: str, x_NHW: np.ndarray, parts: ImageParts) -> dict[str, Any]:
        """What the checkpoint says of itself."""
        from flows.trained import describe

        split = {**context.run.split.model_dump(mode="json"), "counts": parts.counts}
        return {**describe(self, context, snapshot), "split": split, PARTS: parts.digests(x_NHW)}

    def load(self, context: Invocation, stage: str) -> PixelModel:
        """The trained model. Raises RequestError for one of images of another size."""
        from models.pixel_model import PIXEL_MODEL

        model: PixelModel
        model = context.steps.do(stage, "load the model", lambda _: load_checkpoint(PIXEL_MODEL.load, context.folder)[0])
        return model

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The network and the references on the test images."""
        from pipelines.inference.pixel_drawing import score_images
        from pipelines.learning.image_evaluation import conclude_images

        run, do = context.run, partial(context.steps.do, "evaluate")
        model = self.load(context, "evaluate")
        x_NHW, parts = self.images(context, "evaluate")
        require_size(model, x_NHW)
        config.check_size(run, x_NHW.shape[1:])
        tested_PHW = x_NHW[parts.test_P]
        compute = run.compute.build()
        nats = {MODEL: do("score the test images", lambda show: score_images(model, tested_PHW, show, compute))}
        for name in run.evaluation.references:
            nats[name] = do(f"score {name}", partial(self.reference, context, x_NHW, parts, name))
        group_P, asked, seen = parts.group_N[parts.test_P], config.build_asked(run), self.seen(context, x_NHW, parts)
        pixels = tested_PHW[0].size
        evaluation = do("compare", lambda _: conclude_images(nats, group_P, pixels, parts.counts, asked, seen))
        return evaluation, made_from(context.folder)

    def seen(self, context: Invocation, x_NHW: np.ndarray, parts: ImageParts) -> Seen:
        """Whether the model has learnt from the test images: it may have from those of other images than it was trained on here,
        and where it was trained elsewhere."""
        from pipelines.samples.binary_images import seen_of

        ingested, learnt = (require(context.folder, stage)["snapshot"] for stage in ("ingest", "train"))
        if used_by(context.run) is None and ingested == learnt:
            return "no"
        trained = find_model(context.folder.model)
        with reading(trained.folder):
            known = dict(trained.metadata.get(PARTS, {}))
        return seen_of(parts.digests(x_NHW), known)

    def reference(self, context: Invocation, x_NHW: np.ndarray, parts: ImageParts, name: str, show: Any) -> np.ndarray:
        """nats_P of the test images by a reference that learns from what the network learns from."""
        from models.baselines.pixel_references import BernoulliMixture, IndependentPixels, LogisticPixels

        run = context.run
        reference: IndependentPixels | BernoulliMixture | LogisticPixels = IndependentPixels()
        if name == "mixture":
            reference = BernoulliMixture(run.evaluation.components, run.training.seed)
        elif name == "logistic":
            reference = LogisticPixels(run.training.seed)
        return reference.fit(x_NHW[parts.train_P], x_NHW[parts.validation_P]).nats(x_NHW[parts.test_P])

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """New images with the training images that are most like them, and test images whose lower rows are drawn anew."""
        from pipelines.inference.pixel_drawing import draw_images, nearest_images
        from pipelines.products.image_products import Completed, Drawn, write_images

        run, do = context.run, partial(context.steps.do, "predict")
        chosen, model = run.prediction, self.load(context, "predict")
        x_NHW, parts = self.images(context, "predict")
        require_size(model, x_NHW)
        names_N = load_samples(context, "predict").table.id_N
        empty_BHW = x_NHW[:1].repeat(chosen.images, axis=0)
        new_BHW, nats_B = do("draw images", lambda show: draw_images(model, empty_BHW, 0, chosen.seed, show))
        learnt_PHW = x_NHW[parts.train_P]
        near_B, apart_B = do("find the nearest training images", lambda _: nearest_images(new_BHW, learnt_PHW))
        test_P = parts.test_P[:: max(1, len(parts.test_P) // max(1, chosen.images))][: chosen.images]
        _, usual_B = nearest_images(x_NHW[test_P], learnt_PHW)
        drawn = Drawn(new_BHW, nats_B, learnt_PHW[near_B], apart_B, tuple(names_N[parts.train_P[near_B]]), usual_B)
        own_P = parts.test_P[:: max(1, len(parts.test_P) // max(1, chosen.completed))][: chosen.completed]
        rows = round(chosen.given * x_NHW.shape[1])
        asked_BHW = x_NHW[own_P].repeat(chosen.completions, axis=0)
        work = partial(draw_images, model, asked_BHW, rows, chosen.seed + 1)
        lower_BHW, lower_B = do("complete images", lambda show: work(progress=show))
        shape = len(own_P), chosen.completions
        completed = Completed(
            x_NHW[own_P], tuple(names_N[own_P]), rows, lower_BHW.reshape(*shape, *x_NHW.shape[1:]), lower_B.reshape(shape)
        )
        write = partial(write_images, drawn, completed, lineage_of(context), building.products, building.pictures)
        do("write images", lambda _: write())
        figures = {"images": len(new_BHW), "completed": len(own_P), "nearest_px": drawn.median_apart, "usual_px": drawn.usual}
        message = f"{counted(len(new_BHW), 'new image')}, {counted(len(own_P), 'image')} completed"
        return {**made_from(context.folder), **figures, "message": message}

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.image_sections import image_sentence

        run, folder = context.run, context.folder
        said = require(folder, "train").get("images", "")
        return Findings(
            sentence=image_sentence(run.name, predicted, evaluation),
            found={name: predicted[name] for name in ("images", "completed", "nearest_px", "usual_px") if name in predicted},
            computed={"images": said} if said else {},
            settings={
                "model": ", ".join(f"{name} {value}" for name, value in run.model.description((0, 0)).items() if value),
                "0 and 1": f"{run.binarise.how}, seed {run.binarise.seed}",
                "split": f"part {run.split.test}" if run.split.test else f"one of {run.split.folds} parts of whole groups",
                "training": f"at most {run.training.epochs} epochs",
            },
            notes=(f"Images: {said}.",) if said else (),
            lines=(("images", folder.products / "images.npz"), ("picture", folder.quicklook)) if predicted else (),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.image_sections import curve_section, drawn_section, scores_section

        members = require(context.folder, "train").get("training", {}).get("members", [])
        found = [drawn_section(predicted, context.folder.path)] if predicted else []
        found += [scores_section(evaluation)] if evaluation else []
        return [*found, curve_section(members, evaluation, drafts)] if members and used_by(context.run) is None else found


def require_size(model: PixelModel, x_NHW: np.ndarray) -> None:
    """Raises RequestError where the images are not of the size that the model knows."""
    from pipelines.errors import RequestError

    if x_NHW.shape[1:] != model.size:
        here, there = (f"{height} x {width} pixels" for height, width in (x_NHW.shape[1:], model.size))
        raise RequestError(f"the images have {here}, the model was trained on {there}: set frames.size to that")
