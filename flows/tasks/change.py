"""`task: change`: what changed between two or more dates, learnt from labelled sites and evaluated on sites left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.labels import build_label_settings
from configs.load import config_hash
from configs.sites import build_sites
from configs.tasks import change as configs
from configs.tasks.change import ChangeRun
from configs.trained import used_by
from flows import code, sites
from flows.begun import notes_of
from flows.folder import RunFolder, code_version, load_checkpoint, made_from, require
from flows.sites import SiteLabels, extent_of, ingest_sites, labels_of
from flows.staged import make, make_share, staging_of, without_staging
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from flows.tasks.change_models import audit_of, bands_seen, begun_from, begun_without_labels, pixel_areas, save, score_as_it_is
from flows.trained import check_start
from pipelines.errors import RequestError
from pipelines.files import write_text
from pipelines.learning.result import Evaluation
from pipelines.learning.validation_figures import Figure
from pipelines.products.section import Section
from pipelines.slices import Slice, SliceDone
from pipelines.wording import counted

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from pipelines.change.networks import NamedIndex
    from pipelines.change.score_work import ScoreWork
    from pipelines.change.site_scores import SiteScores
    from pipelines.learning.reuse import Inputs
    from pipelines.predictors import ChangeDetector
    from pipelines.products.patch_sentences import Told
    from pipelines.samples.decoded_sites import SiteFiles

TRAINED_ELSEWHERE = (
    "The model was trained elsewhere and is scored on every labelled site as it is, with its own threshold. The threshold of "
    "every change index is chosen on the other groups of sites (strips, where sites are too few) here."
)
TRAINED = ("flows.tasks.change:Change.fit", "flows.tasks.change:Change.measure")
CHANGE_FLOP_S = 8e9  # small convolutions on windows, forward and backward, one core


class Change(TrainedTask):
    """Labelled change. See `flows.task.Task`."""

    name = "change"
    sliced, pieces, made = ("predict",), "regions", "predicted"
    computed: tuple[str, ...] = ("ingest", "evaluate", "predict")
    describes: Mapping[str, tuple[str, ...]] = {"pairs": (), "model": ()}
    code: Mapping[str, tuple[str, ...]] = {
        "train": TRAINED,
        "evaluate": ("flows.tasks.change:Change.evaluate",),
        "predict": ("flows.tasks.change:Change.predict",),
    }

    def plan(
        self, run: ChangeRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        """The extent over all sites (as one site of as many pixels) and the steps of a verb."""
        from flows.planning import MAPS, estimate, plan_ingest
        from pipelines.change.networks import flop_per_pixel
        from pipelines.samples.site_groups import count_networks

        sources, reads = build_sites(run), "ingest" in self.verbs[verb] and ingested is None
        extent, chosen = extent_of(run, folder, sources, reads_source=reads), run.training
        start = partial(estimate, machine=extent.machine)
        flop_s = CHANGE_FLOP_S * extent.machine.training
        members = count_networks(list(sources), run.evaluation.groups)
        models, pairs = (1 + len(run.evaluation.compare)) * run.evaluation.seeds, members * (members - 1) // 2
        flop_px = flop_per_pixel(run.model.widths, extent.bands, extent.dates)
        one = 3 * flop_px * chosen.window_px**2 * chosen.windows * chosen.epochs / flop_s
        window_values = chosen.batch * chosen.window_px**2 * extent.dates * sum(run.model.widths)
        memory, scored = window_values * 4 * 12 / 1e6, extent.pixels * flop_px * members / flop_s
        left_out = f"{models * pairs} networks, each without two of the {members} groups of sites (or strips)"
        predicted = 3 * len(sources) + scored
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "train": start("train", f"{members} networks", one * members, 20.0, memory),
            "evaluate": start("evaluate", left_out, one * models * pairs, 20.0, memory),
            "predict": start(
                "predict", counted(len(sources), "site"), predicted, extent.pixels * 8 / 1e6, memory, publishes=MAPS
            ),
        }
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def check(self, context: Invocation, stage: str) -> None:
        """Also raises RequestError for other labels."""
        from pipelines.samples.decoded_sites import check_cubes

        if stage != "report":
            check_cubes(site_files(context))
        super().check(context, stage)
        if stage != "train":
            labels = labels_of(context)
            if require(context.folder, "train").get("labels", labels) != labels:
                raise RequestError("the labels have changed since the model was trained; run `driftline train CONFIG` first")

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, run = context.folder, context.run.model_dump(mode="json")
        snapshot = require(folder, "ingest")["snapshot"]
        if stage == "train":
            settings = {key: run[key] for key in ("labels", "pairs", "model", "training")}
            return {"snapshot": snapshot, **settings, "evaluation": {"groups": run["evaluation"]["groups"]}}
        trained = require(folder, "train")
        if stage == "evaluate":
            known = {"trained": trained["key"], "model": trained["model_hash"], "evaluation": run["evaluation"]}
            return {"snapshot": snapshot, **known}
        evaluated = require(folder, "evaluate")["key"]
        model, prediction = trained["model_hash"], without_staging(run)
        return {"snapshot": snapshot, "model": model, "evaluated": evaluated, "prediction": prediction}

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        """Also whether the table of the evaluation is there."""
        if stage == "train":
            return super().is_whole(context, stage, record)
        return stage != "evaluate" or context.folder.evaluation_table.exists()

    def checkpoint(self) -> Checkpoint[Any]:
        from models.checkpoint import DETECTOR

        return DETECTOR

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        from pipelines.cube.store import open_cube
        from pipelines.learning.reuse import measure

        files = site_files(context)
        cubes = {name: open_cube(one.cube_uri, one.snapshot) for name, one in files.items() if one.label or not is_training}
        return measure(cubes, bands_seen(context.run))

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        """Scenes and label of every site, see `flows.sites.ingest_sites`."""
        run = context.run
        labels = SiteLabels(build_label_settings(run.labels), partial(configs.label_file, run), least_dates=2)
        return ingest_sites(context, labels, partial(configs.is_only_predicted, run))

    def fit(self, context: Invocation, key: str) -> Record:
        """A network for each group of sites, trained on all others; calibrated, fused, with a threshold; saved."""
        from configs.tasks.change_detectors import build_recipe
        from pipelines.change.decision import train_detector

        run, folder, steps = context.run, context.folder, context.steps
        snapshot, scores = require(folder, "ingest")["snapshot"], open_scores(context, "train")
        sites, recipe, begun = scores.sites, build_recipe(run, run.model, run.training.seed), None
        if run.training.start_from is not None:
            check_start(self, context)
            begun, recipe = begun_from(self, context, recipe)
        if sites.grouping.note:
            steps.log(f"  {sites.grouping.note}")
        do = partial(steps.do, "train")
        detector, threshold, networks = train_detector(scores, recipe, folder.networks, do)
        model_hash = steps.do("train", "save the model", lambda progress: save(self, context, sites, detector, snapshot))
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "labels": labels_of(context),
            "groups": sites.grouping.describe(),
            "note": sites.grouping.note,
            "threshold": threshold.value,
            "calibration_f1": threshold.counts.f1,
            "training": {"members": [dict(network.report) for network in networks]},
            **({"begun": begun.write(context)} if begun else {}),
            "message": f"trained {counted(len(networks), 'network')}, each without one group of sites",
        }

    def figures(self, run: ChangeRun) -> tuple[Figure, ...]:
        """Networks are followed on windows of sites that they learn from: no epoch has a figure."""
        return (Figure("f1", is_larger_better=True, per_epoch=""),)

    def validate(self, context: Invocation, record: Record) -> dict[str, float]:
        """On the groups of sites that the networks have not seen, at the threshold that was chosen there."""
        return {"f1": record["calibration_f1"]}

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """Models, change indices with a chosen threshold, and those with a threshold without labels, on groups left out.

        A model that was trained elsewhere is scored on every site as it is. Raises NoTruth where it has no labelled site here.
        """
        from configs.tasks.change_detectors import build_indices, build_methods
        from pipelines.change.method_comparison import conclude, markdown_table, score_detectors, score_indices

        run, folder, do = context.run, context.folder, partial(context.steps.do, "evaluate")
        scores = open_scores(context, "evaluate")
        if used_by(run) is None:
            methods = begun_without_labels(self, context, build_methods(run))
            detectors = score_detectors(scores, methods, folder.networks, do)
        else:
            detectors = score_as_it_is(context, scores)
        scored = {**detectors, **score_indices(scores, build_indices(run), do)}
        audit_shipped = partial(audit_of, run, scores.sites, next(iter(scored.values()))[0])
        audit = do("audit shortcuts", audit_shipped) if used_by(run) is None else None
        work = partial(conclude, scored, configs.build_comparison(run), scores.sites, pixel_areas(scores.sites), audit)
        evaluation: Evaluation = do("compare", work)
        if used_by(run) is not None:
            evaluation = replace(evaluation, protocol=TRAINED_ELSEWHERE)
        table = markdown_table(evaluation.details["methods"], evaluation.shipped)
        write_text(folder.evaluation_table, "\n".join(table) + "\n")
        return evaluation, made_from(folder)

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Probability, mask, patches and a picture of every site that is asked for."""
        from pipelines.change.score_work import keep_scores
        from pipelines.change.site_prediction import predict_site
        from pipelines.products.site_products import SiteProducts, write_sites

        run, folder, steps = context.run, context.folder, context.steps
        ingested, model_hash = require(folder, "ingest"), require(folder, "train")["model_hash"]
        ready = find_scores(context)
        scores, detector, fused, names, has_seen = ready.scores, ready.detector, ready.fused, ready.names, used_by(run) is None
        make(context, "predict", f"score {counted(len(names), 'site')}", ready.work)
        keep_scores(ready.work, scores)
        found = {}
        for name in names:
            apply = partial(predict_site, name, scores, detector, model_hash, fused, folder.staging / name, has_seen=has_seen)
            found[name] = steps.do("predict", f"find change in {name}", apply)
        settings = SiteProducts(
            run=run.name,
            threshold=detector.threshold,
            min_area_px=run.prediction.min_area_px,
            measured=evaluation.details["methods"][evaluation.shipped] if evaluation else {"pooled": {}, "sites": {}},
            is_own=has_seen,
            are_strips=has_seen and bool(evaluation and evaluation.details["note"]),
            model_hash=model_hash,
            config_hash=config_hash(run),
            code_version=code_version(),
        )
        write = partial(write_sites, scores.sites, found, settings, building.products, building.pictures, folder.path)
        published = steps.do("predict", "write the products", write)
        patches = sum(facts["patches"] for facts in published["sites"].values())
        return {
            "snapshot": ingested["snapshot"],
            "model_hash": model_hash,
            "threshold": detector.threshold,
            "message": f"change in {counted(len(names), 'site')}: {counted(patches, 'patch', 'patches')}",
            **published,
        }

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        return make_share(context, "predict", find_scores(context).work, share)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.sentences import change_sentence
        from pipelines.products.site_products import describe_site, warnings_of

        files, trained = site_files(context), require(context.folder, "train")
        sites: dict[str, dict[str, Any]] = predicted.get("sites", {})
        return Findings(
            sentence=change_sentence(context.run.name, sites, evaluation),
            found={key: sum(facts[key] for facts in sites.values()) for key in ("patches", "area_m2")} if sites else {},
            largest=tuple(predicted.get("largest", ())),
            sites=sites,
            computed={"threshold": predicted["threshold"]} if predicted else {},
            cube={name: describe_site(one) for name, one in files.items()},
            settings=settings_of(context.run, trained),
            notes=(*warnings_of(files), *notes_of(trained)),
            lines=tuple(lines_of(context.folder, predicted)),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.report_sections import change_section, evaluation_section, shortcut_section
        from pipelines.products.site_products import picture_name

        found = []
        if predicted:
            pictures = {name: context.folder.path / picture_name(name) for name in predicted["sites"]}
            found.append(
                change_section(
                    predicted["sites"],
                    predicted["largest"],
                    pictures,
                    predicted["threshold"],
                    is_own=used_by(context.run) is None,
                    told=told_of(context, evaluation, predicted),
                )
            )
        if evaluation is None:
            return found
        audit = [shortcut_section(one)] if (one := evaluation.details.get("audit")) else []
        return [*found, evaluation_section(evaluation, drafts, is_own=used_by(context.run) is None), *audit]


def told_of(context: Invocation, evaluation: Evaluation | None, predicted: Record) -> dict[str, Told]:
    """What sentences about the patches of each site need beside the patches."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.products.patch_sentences import Told, bounds_of, compared_basis

    basis, files = compared_basis(evaluation, is_own=used_by(context.run) is None), site_files(context)
    named = {row["site"] for row in predicted["largest"]}
    found = {}
    for name in (name for name in predicted["sites"] if name in named):
        facts, bounds = predicted["sites"][name], bounds_of(grid_of(open_cube(files[name].cube_uri, files[name].snapshot)))
        found[name] = Told(basis, bounds, between=(facts["from_utc"], facts["to_utc"]), of=name)
    return found


# ---------------------------------------------------------------- sites and models


def open_scores(context: Invocation, stage: str) -> SiteScores:
    """The sites of the last ingest, decoded, and their scores. Raises MissingInput, RequestError (unfit dates or classes)."""
    from pipelines.change.site_scores import SiteScores
    from pipelines.change.sites import open_sites

    run, steps = context.run, context.steps
    work, compute = partial(open_sites, site_files(context), configs.build_site_settings(run), steps.log), run.compute.build()
    prepared = steps.do(stage, "prepare the sites", lambda show: work(show, compute))
    return SiteScores(prepared, context.folder.scores, run.prediction.tile_px, compute)


@dataclass(frozen=True)
class Ready:
    """Sites that are to be predicted, the detector, and the scores of them that are missing, as work."""

    scores: SiteScores
    names: list[str]
    detector: ChangeDetector
    fused: NamedIndex | None
    work: ScoreWork


def find_scores(context: Invocation) -> Ready:
    """What is needed to predict the sites that are asked for. Raises RequestError for unknown ones."""
    from configs.tasks.change_detectors import build_fused_index
    from models.checkpoint import DETECTOR
    from pipelines.change.score_work import score_work
    from pipelines.change.site_prediction import scores_of_site
    from pipelines.samples.decoded_sites import choose_sites

    run, folder, scores = context.run, context.folder, open_scores(context, "predict")
    left_out = [one["scene_id"] for one in require(folder, "ingest")["refused"] if one["reason"] == "site"]
    names = choose_sites(list(scores.sites.all), run.prediction.sites, left_out, folder.refused)
    detector, _ = context.steps.do("predict", "load the model", lambda progress: load_checkpoint(DETECTOR.load, folder))
    fused, model_hash = build_fused_index(detector.fuse_with), require(folder, "train")["model_hash"]
    needed = partial(scores_of_site, scores=scores, detector=detector, model_hash=model_hash, fused=fused)
    wanted = [one for name in names for one in needed(name, has_seen=used_by(run) is None)]
    return Ready(scores, names, detector, fused, score_work(scores, wanted, staging_of(context)))


def site_files(context: Invocation) -> dict[str, SiteFiles]:
    """Where the sites of the last ingest lie. Raises MissingInput."""
    made_by = {"pairs": context.run.pairs.model_dump(mode="json"), "code": code.digest(TRAINED)}
    return sites.site_files(context, made_by, () if used_by(context.run) is None else bands_seen(context.run))


# ---------------------------------------------------------------- evaluation and report


def settings_of(run: ChangeRun, trained: Record) -> dict[str, str | float]:
    """The few settings that a reader of the report must know."""
    if "used" in trained:
        return {"model": f"{run.model.kind}, widths {run.model.widths}, of {trained['used']['path']}, {trained['used']['about']}"}
    return {
        "model": f"{run.model.kind}, widths {run.model.widths}, fused with {run.model.fuse_with}",
        "left out in turn": ", ".join(trained["groups"]),
        "shipped threshold": round(float(trained["threshold"]), 3),
        "training": f"{run.training.epochs} epochs of {run.training.windows} windows of {run.training.window_px} px",
    }


def lines_of(folder: RunFolder, predicted: Record) -> list[tuple[str, Path]]:
    """(what, file) of the first site's map and patches, and the picture of the site that changed most."""
    names = predicted.get("products", [])
    masks, patches = ([folder.path / name for name in names if name.endswith(end)] for end in ("-mask.tif", ".gpkg"))
    return [*(("map", one) for one in masks[:1]), *(("patches", one) for one in patches[:1]), ("picture", folder.quicklook)]
