"""`task: segment`: a class map from a sequence of images, learnt from points, polygons or a label raster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.load import config_hash
from configs.tasks import segment as config
from configs.tasks.segment import SegmentRun
from flows.folder import RunFolder, code_version, fingerprints, require, require_model
from flows.stage import require_unchanged
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.segmenter import Segmenter
    from pipelines.learning.reuse import Inputs
    from pipelines.progress import Progress
    from pipelines.samples.class_samples import ClassSamples

TRAINED_FROM = ("variables", "labels", "split", "model", "training")  # the sections of the config that a model depends on
SEGMENT_FLOP_S = 4e9  # small networks on windows, forward and backward, one core


class Segment(TrainedTask):
    """Class maps. See `flows.task.Task`."""

    name = "segment"
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.segment:Segment.fit",),
        "evaluate": ("flows.tasks.segment:Segment.evaluate",),
        "predict": ("flows.tasks.segment:Segment.predict",),
    }
    describes: Mapping[str, tuple[str, ...]] = {"model": ()}

    def checkpoint(self) -> Checkpoint[Any]:
        from models.segmenter import SEGMENTER

        return SEGMENTER

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of the whole cube: labels lie anywhere in it."""
        from pipelines.cube.store import open_cube
        from pipelines.learning.reuse import measure

        bands = dict.fromkeys(band for one in config.build_segment_variables(context.run) for band in one.bands)
        snapshot = require(context.folder, "ingest")["snapshot"]
        return measure({context.run.name: open_cube(context.folder.cube_uri, snapshot)}, list(bands))

    def plan(self, run: SegmentRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
        from datetime import datetime

        from flows.planning import estimate, measure, plan_ingest

        extent = measure(run, folder, datetime(2261, 1, 1), reads_source="ingest" in self.verbs[verb])
        classes = ("a", "b")  # how many there are costs nothing
        network = config.build_learner(run, len(config.build_segment_variables(run)), classes, 0)
        side, chosen = config.build_recipe(run).windows.window_px, run.training
        window = 3 * network.flops((1, extent.dates, network.bands, side, side))
        trained = window * chosen.windows * chosen.epochs * run.split.folds / SEGMENT_FLOP_S
        mapped = network.flops((1, extent.dates, network.bands, *extent.shape_yx)) * run.split.folds / SEGMENT_FLOP_S
        memory = extent.dates * extent.pixels * network.bands * 4 / 1e6
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "train": estimate("train", f"at most {run.split.folds} x {chosen.epochs} epochs", trained, 1.0, memory),
            "evaluate": estimate("evaluate", f"{run.split.folds} folds, references and metadata", mapped * 8, 1.0, memory),
            "predict": estimate("predict", "one map", mapped, extent.pixels * 6 / 1e6, memory),
        }
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def check(self, context: Invocation, stage: str) -> None:
        """Raises MissingInput (cube or model gone), RequestError (other settings or labels), ArtefactDamaged (another model)."""
        require(context.folder, "ingest")
        if stage == "train":
            return
        if require(context.folder, "train").get("made_from", {}).get("label file") != label_digest(context.run):
            problem = f"{context.run.labels.path} has changed since the model was trained"
            raise RequestError(f"{problem}; run `driftline train CONFIG` first, or put it back")
        trained = require_unchanged(context, self)
        if stage != "report":
            from models.segmenter import SEGMENTER

            require_model(context.folder, trained, SEGMENTER.hash)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        if stage == "train":
            snapshot = require(folder, "ingest")["snapshot"]
            sections = {section: content[section] for section in TRAINED_FROM}
            return {"snapshot": snapshot, **sections, "label file": label_digest(context.run)}
        trained = require(folder, "train")
        known = {"model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]}
        if stage == "evaluate":
            return known
        insisted = {name: getattr(context, name) for name in ("even_if_worse", "even_if_confounded")}
        return {**known, **insisted, "evaluated": require(folder, "evaluate")["key"], "prediction": content["prediction"]}

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        from models.segmenter import SEGMENTER

        try:
            require_model(context.folder, record, SEGMENTER.hash)
        except (MissingInput, ArtefactDamaged):
            return False
        return True

    # ------------------------------------------------------------ stages

    def fit(self, context: Invocation, key: str) -> Record:
        """A network for each fold of blocks; saved together."""
        from models.segmenter import join_members
        from pipelines.learning.class_training import train_folds

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        snapshot, samples = require(folder, "ingest")["snapshot"], open_samples(context, "train")
        for line in (samples.labels.sentence, *samples.labels.notes):
            context.steps.log(f"labels: {line}")
        bands, classes = samples.images[0].x_TCHW.shape[1], samples.labels.classes
        build = partial(config.build_learner, run, bands, classes)
        learners, reports = train_folds(samples, build, config.build_recipe(run), folder.networks, do, key)
        model_hash = do("save the model", lambda _: save(self, context, join_members(learners), snapshot))
        used = f"{counted(samples.folds, 'network')} from {counted(len(samples.labels), 'label')}"
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "labels": {"sentence": samples.labels.sentence, "notes": list(samples.labels.notes), **samples.labels.counts()},
            "training": {"members": reports},
            "message": f"trained {used}, each without one fold of blocks",
        }

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the folds that they have not seen; by dates seen; and metadata alone."""
        from models.baselines.class_references import MetadataForest
        from models.segmenter import SEGMENTER
        from pipelines.inference import class_map
        from pipelines.learning.class_evaluation import conclude
        from pipelines.learning.class_training import describe_parts
        from pipelines.learning.shortcuts import audit_shortcuts

        run, folder, do, asked = (
            context.run,
            context.folder,
            partial(context.steps.do, "evaluate"),
            config.build_asked(context.run),
        )
        trained, samples = require(folder, "train"), open_samples(context, "evaluate")
        model, _ = do("load the model", lambda _: SEGMENTER.load(folder.model))
        classes, true_P = len(samples.labels.classes), samples.labels.class_P
        references = config.build_references(run, classes)

        def score(cut: int | None) -> dict[str, Any]:
            ours = class_map.held_out_scores(samples, model, run.prediction.tile_px, cut)
            return {config.MODEL: ours, **class_map.held_out_references(samples, references, cut)}

        def score_early(show: Progress) -> list[dict[str, Any]]:
            rows, cuts = [], class_map.cuts_of(samples)
            for done, cut in enumerate(cuts):
                scored = score(cut)
                rows.append({"dates": cut, **{name: float((one.class_P == true_P).mean()) for name, one in scored.items()}})
                show(done + 1, len(cuts))
            return rows

        predicted = do("score the folds", lambda _: score(None))
        by_dates = do("score with fewer dates", score_early)
        audit = do("audit shortcuts", lambda _: audit_shortcuts(
            class_map.metadata_of(samples), true_P, samples.fold_P, samples.block_P, predicted[config.MODEL].class_P,
            lambda: MetadataForest(classes, run.training.seed), near=run.evaluation.near, confidence=run.evaluation.confidence,
        ))  # fmt: skip
        split = {"block_px": run.split.block_px, "folds": describe_parts(samples, run.training.seed)}
        evaluation = do("compare", lambda _: conclude(samples, predicted, by_dates, audit, asked, split))
        return evaluation, {"snapshot": trained["snapshot"], "model_hash": trained["model_hash"]}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """The map of the span that is asked for, by the mean of all networks."""
        from models.segmenter import SEGMENTER
        from pipelines.cube.store import grid_of, open_cube
        from pipelines.inference.class_map import predict_map
        from pipelines.products.class_products import ClassProducts, write_class_map
        from pipelines.products.cog import Lineage, iso

        assert evaluation is not None, "a gated task is evaluated first"
        run, folder, do = context.run, context.folder, partial(context.steps.do, "predict")
        trained, model = require(folder, "train"), do("load the model", lambda _: SEGMENTER.load(folder.model))[0]
        snapshot, model_hash = trained["snapshot"], trained["model_hash"]
        dataset = open_cube(folder.cube_uri, snapshot)
        labels = config.read_labels(run, grid_of(dataset))
        span = config.build_span(run.prediction) or max(labels.spans[s] for s in np.unique(labels.span_P))
        variables, tile_px = config.build_segment_variables(run), run.prediction.tile_px
        found = do("map the raster", lambda show: predict_map(dataset, span, variables, model, tile_px, folder.staging, show))
        inside = span.holds(dataset["time"].values)
        issued = iso(dataset["time"].values[inside][-1])
        scenes = tuple(str(scene) for scene in dataset["scene_id"].values[inside])
        shipped = evaluation.details["methods"][evaluation.shipped]
        settings = ClassProducts(
            run=run.name,
            classes=model.classes,
            min_area_px=run.prediction.min_area_px,
            confusion_KK=np.array(shipped["confusion"]),
            confidence=run.evaluation.confidence,
            metrics={name: one for name, one in evaluation.methods[evaluation.shipped].items() if isinstance(one, float)},
            lineage=Lineage(snapshot, model_hash, config_hash(run), code_version(), issued, scenes),
        )
        at = building.pictures / folder.quicklook.name
        write = partial(write_class_map, found, labels, grid_of(dataset), settings, building.products, at, folder.quicklook)
        about = do("write products and pictures", lambda _: write())
        message = f"class map of {counted(found.dates, 'date')}: {counted(about['patches'], 'patch', 'patches')}"
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "issued_utc": issued,
            "target_utc": [issued],
            "message": message,
            **about,
        }

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.class_sections import class_sentence
        from pipelines.products.tables import cube_facts

        run, folder = context.run, context.folder
        trained, areas = require(folder, "train"), predicted.get("areas", ())
        products = [folder.path / name for name in predicted.get("products", ()) if name.endswith(("class.tif", ".gpkg"))]
        lines = [("map" if path.suffix == ".tif" else "patches", path) for path in products]
        named = trained["labels"]
        return Findings(
            sentence=class_sentence(run.name, areas, predicted.get("span", ""), evaluation),
            found={"areas": list(areas), **{key: predicted[key] for key in ("patches", "observed", "span")}} if predicted else {},
            largest=tuple(predicted.get("largest", ())),
            computed={"labels": named["sentence"]},
            cube=cube_facts(folder.cube_uri, trained["snapshot"]),
            settings={
                "model": ", ".join(f"{key} {value}" for key, value in run.model.description.items()),
                "split": f"{run.split.folds} folds of blocks of {run.split.block_px} x {run.split.block_px} pixels",
                "training": f"at most {run.training.epochs} epochs, {run.training.loss}",
            },
            notes=(f"Labels: {named['sentence']}.", *named["notes"]),
            lines=(*lines, *([("picture", folder.quicklook)] if predicted else [])),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.class_sections import audit_section, map_section, scores_section

        assert evaluation is not None, "a gated task is evaluated first"
        confidence = context.run.evaluation.confidence
        maps = [map_section(predicted, context.folder.quicklook, confidence)] if predicted else []
        return [*maps, scores_section(evaluation, drafts), audit_section(evaluation)]


def open_samples(context: Invocation, stage: str) -> ClassSamples:
    """Labels on the cube's grid with their images. Raises MissingInput, RequestError."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.samples import class_samples

    run, do = context.run, partial(context.steps.do, stage)
    dataset = open_cube(context.folder.cube_uri, require(context.folder, "ingest")["snapshot"])
    labels = do("read the labels", lambda _: config.read_labels(run, grid_of(dataset)))
    variables, split = config.build_segment_variables(run), run.split.model_dump()
    work = partial(class_samples.open_samples, dataset, labels, variables, min_dates=run.labels.min_dates, **split)
    samples: ClassSamples = do("read the images of the labels", lambda show: work(progress=show))
    return samples


def label_digest(run: SegmentRun) -> Any:
    """Size and SHA-256 of the label file; a changed one trains another model."""
    path = Path(run.labels.path)
    return fingerprints(RunFolder(path.parent, ""), [path.name]).get(path.name)


def save(task: Segment, context: Invocation, model: Segmenter, snapshot: str) -> str:
    """The hash of the saved model."""
    from flows.trained import describe
    from models.segmenter import SEGMENTER

    run = context.run
    about = {"variables": run.model_dump(mode="json")["variables"], "split": run.split.model_dump(mode="json")}
    return SEGMENTER.save(model, context.folder.model, {**describe(task, context, snapshot), **about})
