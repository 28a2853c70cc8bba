"""`task: pair`: what changed between two images, without any label; `driftline change BEFORE AFTER` writes the config."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import config_hash
from configs.tasks import pair as configs
from configs.tasks.pair import PairRun
from configs.trained import find_model
from flows import code
from flows.folder import RunFolder, code_version, require
from flows.staged import make, make_share, staging_of
from flows.task import Building, Findings, Invocation, Record, Task, format_report
from flows.tasks.change import lines_of
from pipelines.errors import RequestError
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import files_at
from pipelines.wording import counted, share_text

if TYPE_CHECKING:
    import xarray as xr

    from flows.planning import Extent, PlannedStep
    from pipelines.change.score_work import ScoreWork
    from pipelines.change.site_prediction import SiteChange
    from pipelines.change.site_scores import SiteScores
    from pipelines.samples.decoded_sites import SiteFiles
    from pipelines.samples.pairs import PairSettings
    from pipelines.sources.image_pair import PairSource

PREDICTED = ("flows.tasks.pair:Pair.predict",)
LOOKS_LIKE_CHANGE = "Clouds, seasons and the angle of the sun look like change."
OF_INDEX = (  # docs/design/009-geometry-models-api.md, "Two images and nothing else"
    "No label supports this map. On ten labelled cities (Sentinel-2, bands B02, B03, B04, B08) this rule, change vector analysis "
    "with a fixed threshold of 1.5 standard deviations, had F1 0.36 and 0.42 (five cities each), where the best possible "
    f"threshold of each city has 0.38 and 0.45. {LOOKS_LIKE_CHANGE}"
)
OF_OTHER_THRESHOLD = f"No label supports this map, and its threshold was chosen by hand. {LOOKS_LIKE_CHANGE}"
OF_MODEL = (
    "No label supports this map. The report of the run that trained the detector says how well it did on labelled sites "
    f"that it had not seen; how well it does here is not known. {LOOKS_LIKE_CHANGE}"
)
CAPTION = "Before and after with the change outlined, the score with its threshold, and the map."


class Pair(Task):
    """Two images. See `flows.task.Task`."""

    name = "pair"
    stages = ("ingest", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {"ingest": ("ingest",), "predict": ("predict",), "run": stages}
    code: Mapping[str, tuple[str, ...]] = {"predict": PREDICTED}
    is_gated = False
    sliced, pieces, made = ("predict",), "regions", "predicted"

    def plan(
        self, run: PairRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from flows.planning import MAPS, Extent, estimate, plan_ingest
        from pipelines.grid import require_lonlat

        source = source_of(run)
        extent = Extent(2, 2, require_lonlat(source.native_grid()).shape_yx, len(source.bands), source.dtype().itemsize)
        px = extent.pixels
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "predict": estimate(
                "predict",
                "score, map, polygons",
                px * extent.bands * 2e-6,
                px * (extent.bands + 2) * 8e-6,
                200.0,
                machine=extent.machine,
                publishes=MAPS,
            ),
        }
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def check(self, context: Invocation, stage: str) -> None:
        """Raises MissingInput where the images are not in the run's cube, RequestError for another model than was looked at."""
        from pipelines.cube.store import open_cube

        ingested = require(context.folder, "ingest")
        open_cube(ingested["cube"], ingested["snapshot"])
        if stage == "predict" and model_hash_of(context.run) != ingested["model_hash"]:
            raise RequestError("the model is another than the images were matched with; call `driftline run CONFIG`")

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        run, ingested = context.run.model_dump(mode="json"), require(context.folder, "ingest")
        return {
            **{key: ingested[key] for key in ("snapshot", "model_hash")},
            "pairs": run["pairs"],
            "detection": run["detection"],
        }

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        return True

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        """Both images into a cube of their own. Raises RequestError where they cannot be compared."""
        from pipelines.change.pair_map import check_differ, describe_fill, describe_missing, describe_overlap
        from pipelines.cube.store import open_cube
        from pipelines.samples.site_ingest import ingest_site

        run, folder, steps = context.run, context.folder, context.steps
        source = steps.do("ingest", "look at both images", lambda progress: source_of(run))
        key = hashlib.sha256(repr(source).encode()).hexdigest()[:12]  # other images or bands are another cube
        uri, settings = folder.cube_of(key), configs.build_pair_ingest(run)
        report = steps.do("ingest", "write both images", partial(ingest_site, source, None, uri, settings))
        remove_others(run, folder, key)
        dataset = open_cube(uri, report.snapshot)
        check_differ(dataset)
        doubts = [*describe_overlap(dataset), *compare_model(run, dataset)]
        notes = [*doubts, *source.notes, *describe_missing(dataset), *describe_fill(dataset, source.stored)]
        return {
            "snapshot": report.snapshot,
            "cube": uri,
            "refused": [],
            "notes": notes,
            "is_dated": source.is_dated,
            "bands": list(source.names),
            "model_hash": model_hash_of(run),
            "message": f"2 images, {counted(len(source.names), 'band')}: {format_report(report)}",
            "lines": tuple(f"  {note}" for note in notes),
            "is_new": report.is_new,
        }

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Score, map, patches and a picture."""
        from pipelines.change.score_work import keep_scores
        from pipelines.products.layers import CHANGE_LAYERS, SCORE_LAYERS
        from pipelines.products.site_products import SiteProducts, write_sites

        run, folder, steps = context.run, context.folder, context.steps
        ingested, files = require(folder, "ingest"), files_of(context)
        scores = open_scores(context)
        work, threshold, find = find_change(context, scores)
        make(context, "predict", "compare the images", work)
        keep_scores(work, scores)
        change = find()
        settings = SiteProducts(
            run=run.name,
            threshold=threshold,
            min_area_px=run.detection.min_area_px,
            measured={"pooled": {}, "sites": {}},
            are_strips=False,
            model_hash=ingested["model_hash"],
            config_hash=config_hash(run),
            code_version=code_version(),
            layers=CHANGE_LAYERS if run.detection.model else SCORE_LAYERS,
            subtitle="no label supports this map; clouds, seasons and the angle of the sun look like change",
            is_dated=ingested["is_dated"],
        )
        write = partial(
            write_sites, scores.sites, {run.name: change}, settings, building.products, building.pictures, folder.path
        )
        published = steps.do("predict", "write the products", write)
        return {
            "snapshot": ingested["snapshot"],
            "model_hash": ingested["model_hash"],
            "threshold": threshold,
            "message": pair_sentence(run, published["sites"][run.name]),
            "notes": [basis_of(run, threshold), *notes_of(run, files, change, ingested["bands"])],
            **published,
        }

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        return make_share(context, "predict", find_change(context, open_scores(context))[0], share)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.site_products import describe_site, warnings_of

        run, ingested = context.run, require(context.folder, "ingest")
        files, facts = {run.name: files_of(context)}, predicted["sites"][run.name]
        images = {"before": run.images.before, "after": run.images.after, **describe_site(files[run.name])}
        basis = basis_of(run, predicted["threshold"])
        notes = [*warnings_of(files), *predicted["notes"][1:], *ingested["notes"]]
        return Findings(
            sentence=f"{pair_sentence(run, facts)} {basis}",
            found={key: facts[key] for key in ("patches", "area_m2", "changed", "seen")},
            largest=tuple(predicted["largest"]),
            sites=predicted["sites"],
            computed={"threshold": predicted["threshold"], "bands": ingested["bands"], "notes": notes},
            cube={run.name: images if ingested["is_dated"] else {**images, "dates": "unknown"}},
            settings={"rule": run.detection.model or "change vector analysis", "threshold": round(predicted["threshold"], 3)},
            notes=tuple(notes),
            lines=tuple(lines_of(context.folder, predicted)),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.cube import store
        from pipelines.products.patch_sentences import NOT_CHECKED, Told, bounds_of, told_table
        from pipelines.products.section import Picture
        from pipelines.products.tables import patch_table, site_table

        facts = predicted["sites"][context.run.name]
        picture = Picture(context.folder.quicklook, context.run.name, CAPTION)
        ingested, name = require(context.folder, "ingest"), context.run.name
        bounds = bounds_of(store.grid_of(store.open_cube(ingested["cube"], ingested["snapshot"])))
        told = {name: Told(NOT_CHECKED, bounds, between=(facts["from_utc"], facts["to_utc"]))}
        words = [told_table(predicted["largest"], told)] if predicted["largest"] else []
        tables = [site_table(predicted["sites"]), *words, patch_table(predicted["largest"], facts["patches"])]
        text = [basis_of(context.run, predicted["threshold"])]
        return [Section("change", "What changed", text, pictures=[picture], tables=tables)]


# ---------------------------------------------------------------- parts


def source_of(run: PairRun) -> PairSource:
    """Both images; with a model in the bands of the model. Raises RequestError, which names the bands that it lacks."""
    if run.detection.model is None:
        return configs.build_pair_source(run)
    _, metadata, _ = configs.load_detector(run.detection.model)
    return configs.build_pair_source(run, list(metadata["bands"]))


def model_hash_of(run: PairRun) -> str:
    """The hash of the model, "" without one."""
    return "" if run.detection.model is None else configs.load_detector(run.detection.model)[2]


def pair_settings(run: PairRun) -> PairSettings:
    """How the dates are made comparable: as the model was trained, else as the config says."""
    from pipelines.samples.pairs import PairSettings as Settings

    if run.detection.model is None:
        return configs.build_pair_settings(run)
    return Settings(**configs.load_detector(run.detection.model)[1]["pairs"])


def files_of(context: Invocation) -> SiteFiles:
    """Where both images lie, and where they are decoded. Raises MissingInput."""
    from pipelines.samples.decoded_sites import SiteFiles

    run, ingested = context.run, require(context.folder, "ingest")
    made_from = {
        "snapshot": ingested["snapshot"],
        "pairs": run.pairs.model_dump(mode="json"),
        "model": ingested["model_hash"],
        "code": code.digest(PREDICTED),
    }
    return SiteFiles(ingested["cube"], ingested["snapshot"], None, context.folder.samples / run.name, made_from)


def open_scores(context: Invocation) -> SiteScores:
    """Both images, prepared, and their scores."""
    from pipelines.change.pair_map import open_pair
    from pipelines.change.site_scores import SiteScores

    run, folder = context.run, context.folder
    work = partial(open_pair, run.name, files_of(context), pair_settings(run), context.steps.log)
    sites = context.steps.do("predict", "prepare the images", lambda progress: work())
    return SiteScores(sites, folder.scores, run.detection.tile_px, run.compute.build())


def find_change(context: Invocation, scores: SiteScores) -> tuple[ScoreWork, float, Callable[[], SiteChange]]:
    """The scores that are missing, the threshold, and how the map is made of them: of the change vector, or of the model."""
    from configs.tasks.change_detectors import build_fused_index
    from pipelines.change.pair_map import index_work, map_index
    from pipelines.change.score_work import score_work
    from pipelines.change.site_prediction import predict_site, scores_of_site

    run, name, staging = context.run, context.run.name, staging_of(context)
    threshold = run.detection.threshold
    if run.detection.model is None:
        threshold = configs.THRESHOLD if threshold is None else threshold
        wanted, work = index_work(scores, name, configs.build_change_vector, staging)
        return work, threshold, partial(map_index, scores, wanted, threshold)
    detector, _, model_hash = configs.load_detector(run.detection.model)
    if threshold is not None:
        detector.set_threshold(threshold)
    fused = build_fused_index(detector.fuse_with)
    work = score_work(scores, scores_of_site(name, scores, detector, model_hash, fused), staging)
    apply = partial(predict_site, name, scores, detector, model_hash, fused, context.folder.staging / name)
    return work, detector.threshold, lambda: context.steps.do("predict", "apply the model", apply)


def notes_of(run: PairRun, files: SiteFiles, change: SiteChange, names: Sequence[str]) -> list[str]:
    """What a reader of the map must know of how it was measured."""
    from pipelines.change.pair_map import describe_levels, describe_outliers, describe_shift, describe_width
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.learning.reuse import pixel_metres
    from pipelines.samples.decoded_sites import open_site

    site, frame = open_site(files.decoded)
    remedy = "" if run.detection.model else f"; --set pairs.max_shift_px={2 * run.pairs.max_shift_px:g} allows it"
    return [
        *describe_levels(frame.pair, names),
        *describe_shift(frame.pair, remedy),
        *describe_width(change.mask_HW, frame.low_frequency_px, pixel_metres(grid_of(open_cube(files.cube_uri, files.snapshot)))),
        *describe_outliers(site, names),
    ]


def compare_model(run: PairRun, dataset: xr.Dataset) -> list[str]:
    """Warnings where the values of the images are not like those that the model was trained on."""
    from pipelines.learning.reuse import compare, measure

    if run.detection.model is None:
        return []
    trained = find_model(run.detection.model).inputs
    names, notes = [band.name for band in trained.bands], list[str]()
    for date, word in enumerate(("BEFORE", "AFTER")):
        match = compare(trained, measure({word: dataset.isel(time=[date])}, names))
        notes += [f"WARNING of the model, {word}: {text}" for text in (*match.problems, *match.warnings)]
    return notes


def remove_others(run: PairRun, folder: RunFolder, key: str) -> None:
    """Removes the cubes of other images or bands that this run once compared, where the run's own folder holds them."""
    if run.cube.uri is None:
        files = files_at(folder.cube_uri)
        for other in {name.partition("/")[0] for name in files.names("") if "/" in name} - {key}:
            files.remove(other)


def basis_of(run: PairRun, threshold: float) -> str:
    """How far the map can be trusted, in one paragraph."""
    if run.detection.model is not None:
        return OF_MODEL
    return OF_INDEX if threshold == configs.THRESHOLD else OF_OTHER_THRESHOLD


def pair_sentence(run: PairRun, facts: Mapping[str, Any]) -> str:
    """What is mapped as changed, where and when."""
    dates = [str(facts[key])[:10] for key in ("from_utc", "to_utc") if facts[key]]
    when = f" between {dates[0]} and {dates[1]}" if dates else ""
    patches, area = counted(facts["patches"], "patch", "patches"), facts["area_m2"] / 10_000
    seen = "" if facts["seen"] == 1 else f" ({share_text(facts['seen'])} of all)"
    share = f"{share_text(facts['changed'])} of the pixels that both images show{seen}"
    return f"{run.name}: {patches} ({area:.3g} ha) mapped as changed{when}, {share}."
