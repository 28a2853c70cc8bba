"""`task: segment`: class maps from sequences of images, learnt from points, polygons or label rasters, of a cube or of sites."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import build, labels
from configs.load import config_hash
from configs.privacy import OF_PLACES, without_originals
from configs.sites import build_sites, has_sites
from configs.tasks import segment as config
from configs.tasks.segment import SegmentRun
from configs.trained import used_by
from flows import sites
from flows.begun import notes_of
from flows.folder import RunFolder, code_version, made_from, require
from flows.staged import make_share, without_staging
from flows.task import Building, Findings, Invocation, Record, TrainedTask, ingest_scenes
from flows.tasks.segment_cubes import (
    begin,
    compute_of,
    cubes_of,
    cubes_to_map,
    label_digests,
    load_model,
    map_cubes,
    map_work,
    open_samples,
    require_mappable,
    require_untested,
    save,
    side_of_tiles,
)
from flows.trained import check_start, same_folds
from pipelines.errors import RequestError
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.learning.validation_figures import LOSS, Figure
from pipelines.products.section import Section
from pipelines.slices import Slice, SliceDone
from pipelines.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.segmenter import Segmenter
    from pipelines.learning.reuse import Inputs

TRAINED_FROM = ("variables", "pairs", "labels", "split", "model", "training")  # what a model depends on
REFERENCES_S = 0.7  # of a date: references are fitted anew with fewer and fewer of them
SEGMENT_FLOP_S = 4e9  # small networks on windows, forward and backward, one core


class Segment(TrainedTask):
    """Class maps. See `flows.task.Task`."""

    name = "segment"
    sliced, pieces, made = ("predict",), "regions", "predicted"
    computed: tuple[str, ...] = ("ingest", "evaluate", "predict")
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.segment:Segment.fit", "flows.tasks.segment:Segment.measure"),
        "evaluate": ("flows.tasks.segment:Segment.evaluate",),
        "predict": ("flows.tasks.segment:Segment.predict",),
    }
    describes: Mapping[str, tuple[str, ...]] = {"model": (), "variables": (), "pairs": ()}

    def checkpoint(self) -> Checkpoint[Any]:
        from models.segmenter import SEGMENTER

        return SEGMENTER

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of whole cubes: labels lie anywhere in them."""
        from pipelines.cube.store import open_cube
        from pipelines.learning.reuse import measure

        bands = dict.fromkeys(band for one in config.name_variables(context.run) for band in one.bands)
        return measure({name: open_cube(*cube) for name, cube in cubes_of(context).items()}, list(bands))

    def plan(
        self, run: SegmentRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from datetime import datetime

        from flows.planning import TABLES, estimate, measure, plan_ingest, spread

        until = datetime(2261, 1, 1)
        by_site, reads_source = has_sites(run), "ingest" in self.verbs[verb]
        if by_site:
            extent = sites.extent_of(run, folder, build_sites(run), reads_source=reads_source and ingested is None)
        else:
            extent = measure(run, folder, until, reads_source=reads_source, ingested=ingested)
        classes = ("a", "b")  # how many there are costs nothing
        network = config.build_learner(run, len(config.name_variables(run)), classes, 0, len(extent.shape))
        side, chosen = config.build_recipe(run).windows.window_px, run.training
        crop = [min(side, size) for size in extent.shape]
        members = (extent.sites if by_site else run.split.folds) * run.split.networks
        known = labels.build_span(run.labels) if isinstance(run.labels, labels.ClassLabelsConfig) else None
        learnt, shown = extent.dates_in(known), extent.dates_in(labels.build_span(run.prediction) or known)
        start, flop_s = partial(estimate, machine=extent.machine), SEGMENT_FLOP_S * extent.machine.training
        window = 3 * network.flops((1, learnt, network.bands, *crop))
        trained = window * chosen.windows * chosen.epochs * members / flop_s
        mapped = network.flops((1, shown, network.bands, *extent.shape)) * members / flop_s
        scored = mapped * 8 + learnt * REFERENCES_S / extent.machine.numerics
        disk, memory = learnt * extent.pixels * (network.bands * 4 + 1) / 1e6, 50.0
        seconds, scoring_mb, busy = spread(run, scored, memory)
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "train": start(
                "train", f"at most {members} x {chosen.epochs} epochs of {counted(learnt, 'date')}", trained, 1 + disk, memory
            ),
            "evaluate": start("evaluate", f"{members} networks, references and metadata", seconds, 0.1, scoring_mb, busy=busy),
            "predict": start("predict", counted(extent.sites, "map"), mapped, extent.pixels * 6 / 1e6, memory, publishes=TABLES),
        }
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def check(self, context: Invocation, stage: str) -> None:
        """Also raises RequestError for other labels."""
        made_from = require(context.folder, "train").get("made_from", {}) if stage != "train" else {}
        if made_from and made_from.get("label files") != label_digests(context):
            name = context.run.labels.path if context.run.source.kind in OF_PLACES else "the label volume"
            problem = f"{name} has changed since the model was trained"
            raise RequestError(f"{problem}; run `driftline train CONFIG` first, or put it back")
        super().check(context, stage)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, without_originals(context.run).model_dump(mode="json")
        if stage == "train":
            sections = {section: content[section] for section in TRAINED_FROM}
            return {"snapshot": require(folder, "ingest")["snapshot"], **sections, "label files": label_digests(context)}
        trained = require(folder, "train")
        snapshot = require(folder, "ingest")["snapshot"]
        known = {
            "snapshot": snapshot, "model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]
        }  # fmt: skip
        if stage == "evaluate":
            return known
        insisted = {name: getattr(context, name) for name in ("even_if_worse", "even_if_confounded")}
        return {**known, **insisted, "evaluated": require(folder, "evaluate")["key"], "prediction": without_staging(content)}

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        run = context.run
        if not has_sites(run):
            record = ingest_scenes(context)
            require_mappable(context.folder.cube_uri, record["snapshot"])
            return record
        used = used_by(run) is not None
        file_of = partial(labels.label_file, run, run.labels, predicted=run.prediction.sites, is_used=used)
        known = sites.SiteLabels(labels.build_label_settings(run.labels), file_of, least_dates=1)
        return sites.ingest_sites(context, known, lambda name: file_of(name) is None)

    def fit(self, context: Invocation, key: str) -> Record:
        """Networks for each fold of blocks, or for each site; saved together."""
        from models.segmenter import join_members
        from pipelines.inference.class_scores import calibrate
        from pipelines.learning.class_training import train_folds

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        snapshot, recipe, samples = (
            require(folder, "ingest")["snapshot"],
            config.build_recipe(run),
            open_samples(context, "train"),
        )
        for line in (samples.labels.sentence, *samples.labels.notes):
            context.steps.log(f"labels: {line}")
        bands, classes = samples.images[0].x_TCHW.shape[1], samples.labels.classes
        config.check_network(run.model, len(classes), {len(one.years_T) for one in samples.images})
        build_learner: Callable[[int], Segmenter] = partial(
            config.build_learner, run, bands, classes, axes=samples.axes, year_days=samples.year_days
        )
        begun, folds = None, samples.folds_digest()
        if run.training.start_from is not None:
            require_untested(context, check_start(self, context), folds)
            begun, build_learner = begin(self, context, build_learner, classes)
        learners, reports = train_folds(samples, build_learner, recipe, folder.networks, do, key)
        model, tile_px, decision = join_members(learners), side_of_tiles(run, samples), run.training.decision
        found = do("calibrate", lambda _: calibrate(samples, model, recipe, tile_px, decision))
        model_hash = do("save the model", lambda _: save(self, context, model, snapshot, folds))
        learnt = max(len(samples.known(fold)) for fold in range(samples.folds)) if samples.few else len(samples.labels)
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "folds": folds,
            "labels": {"sentence": samples.labels.sentence, "notes": list(samples.labels.notes), **samples.labels.counts()},
            "training": {"members": [{**one, "temperature": t} for one, t in zip(reports, found, strict=True)]},
            **({"begun": begun.write(context)} if begun else {}),
            "message": f"trained {counted(len(learners), 'network')} from {counted(learnt, 'label')}, each without "
            f"one {'group of sites' if has_sites(run) else 'fold of blocks'}",
        }

    def figures(self, run: SegmentRun) -> tuple[Figure, ...]:
        """The one that the evaluation compares by first."""
        accuracy, mean_f1 = (Figure(name, is_larger_better=True) for name in ("accuracy", "mean_f1"))
        named = (mean_f1, accuracy) if run.evaluation.measure == "mean_f1" else (accuracy, mean_f1)
        return (*named, Figure(LOSS))

    def validate(self, context: Invocation, record: Record) -> dict[str, float]:
        """On the blocks (sites) that validated each network, mapped in tiles."""
        from pipelines.inference.validation_labels import score_validation

        run, model = context.run, load_model(context, "validate")
        samples, recipe = open_samples(context, "validate", model.classes), config.build_recipe(run)
        tile_px = side_of_tiles(run, samples)
        scored = context.steps.do("validate", "score the labels", lambda _: score_validation(samples, model, recipe, tile_px))
        return {**scored, **super().validate(context, record)}

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """The networks and the references on the folds that they have not seen; by dates seen; and metadata alone."""
        from models.baselines.class_references import MetadataForest
        from pipelines.inference.class_score_work import spread_scores
        from pipelines.inference.class_scores import ClassComparison, audit_labels, score_early
        from pipelines.learning.class_evaluation import STATISTICS, conclude
        from pipelines.learning.class_training import describe_parts

        run, do, is_own = context.run, partial(context.steps.do, "evaluate"), used_by(context.run) is None
        if run.labels is None:
            raise NoTruth("the config has no labels")
        model = load_model(context, "evaluate")
        samples = same_folds(context, open_samples(context, "evaluate", model.classes))
        asked, seed = config.build_asked(run), run.training.seed
        references = build.build_class_references(run.evaluation.references, len(model.classes), seed)
        known, tile_px = (samples, model, references, asked.most_labels, seed), side_of_tiles(run, samples)
        methods = ClassComparison(config.MODEL, *known, tile_px, is_own)
        ask = partial(spread_scores, methods, compute_of(context))
        score, predicted = do("score the folds", lambda show: ((score := ask(show)), score(methods.all_P, None)))
        by_dates = do("score with fewer dates", partial(score_early, samples, score, STATISTICS[asked.measure], seed))
        audit, near = None, run.evaluation.near
        if is_own:
            forest, said_P = partial(MetadataForest, len(model.classes), seed), predicted[config.MODEL].class_P
            work = partial(audit_labels, samples, said_P, forest, seed, near=near, confidence=asked.confidence)
            audit = do("audit shortcuts", lambda _: work())
        block_px = 0 if has_sites(run) else run.split.block_px
        split = {"block_px": block_px, "networks": run.split.networks, "folds": describe_parts(samples, seed)}
        evaluation = do("compare", lambda _: conclude(samples, predicted, by_dates, audit, asked, split))
        return evaluation, made_from(context.folder)

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """The maps of the span, or of the sites, that are asked for, by the mean of all networks."""
        from pipelines.products.class_products import ClassProducts, write_class_maps
        from pipelines.products.class_volumes import write_class_volumes

        run, folder, model = context.run, context.folder, load_model(context, "predict")
        trained = require(folder, "train")
        shipped = evaluation.details["methods"][evaluation.shipped] if evaluation else {}
        figures = evaluation.methods[evaluation.shipped] if evaluation else {}
        settings = ClassProducts(
            run=run.name,
            classes=model.classes,
            min_area_px=run.prediction.min_area_px,
            confusion_KK=shipped.get("confusion"),
            confidence=run.evaluation.confidence,
            metrics={name: one for name, one in figures.items() if isinstance(one, float)},
            model_hash=trained["model_hash"],
            config_hash=config_hash(run),
            code_version=code_version(),
        )
        maps = map_cubes(context, model)
        of_volumes = {name: one for name, one in maps.items() if one.grid.is_volume}
        write = partial(write_class_maps, maps, settings, building.products, building.pictures, folder.path)
        if of_volumes:
            write = partial(write_class_volumes, of_volumes[""], settings, building.products, building.pictures)
        about = context.steps.do("predict", "write products and pictures", lambda _: write())
        patches = f": {counted(about['patches'], 'patch', 'patches')}" if "patches" in about else ""
        message = f"{counted(len(maps), 'class map')}{patches}"
        return {**made_from(folder), "message": message, **about}

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        model = load_model(context, "predict")
        return make_share(context, "predict", map_work(context, cubes_to_map(context), model), share)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.class_sections import class_sentence
        from pipelines.products.tables import cube_facts

        run, folder = context.run, context.folder
        trained, sizes = require(folder, "train"), {key: predicted[key] for key in ("areas", "volumes") if key in predicted}
        kinds = {"class.tif": "map", ".gpkg": "patches", "class.nii.gz": "map", "viewer.html": "viewer"}
        products = [(kind, folder.path / name) for name in predicted.get("products", ()) for end, kind in kinds.items()
                    if name.endswith(end)]  # fmt: skip
        lines = products[: 2 if has_sites(run) else None]
        named, cubes = trained.get("labels", {}), cubes_of(context)
        facts = {name: cube_facts(*cube) for name, cube in cubes.items()}
        return Findings(
            sentence=class_sentence(run.name, next(iter(sizes.values()), ()), predicted.get("span", ""), evaluation),
            found={key: predicted[key] for key in (*sizes, "patches", "observed", "span") if key in predicted},
            largest=tuple(predicted.get("largest", ())),
            computed={"labels": named["sentence"]} if named else {},
            cube=facts if has_sites(run) else next(iter(facts.values())),
            settings={
                "model": ", ".join(f"{key} {value}" for key, value in run.model.description.items()),
                "split": "by site" if has_sites(run) else f"{run.split.folds} folds of blocks of {run.split.block_px} pixels",
                "training": f"at most {run.training.epochs} epochs, {run.training.loss}",
            },
            notes=(*((f"Labels: {named['sentence']}.", *named["notes"]) if named else ()), *notes_of(trained)),
            lines=(*lines, *([("picture", folder.quicklook)] if predicted else [])),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.class_sections import audit_section, map_section, scores_section

        maps = [map_section(predicted, context.folder.path, context.run.evaluation.confidence)] if predicted else []
        return [*maps, scores_section(evaluation, drafts), audit_section(evaluation)] if evaluation else maps
