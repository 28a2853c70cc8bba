"""Cubes, labels and models of class maps: of the one cube of a run, or of each of its sites."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import build
from configs.labels import build_span, read_labels
from configs.sites import has_sites
from configs.tasks import segment as config
from flows import code, sites
from flows.folder import RunFolder, fingerprints, load_checkpoint, require
from flows.task import Invocation, TrainedTask

if TYPE_CHECKING:
    from models.segmenter import Segmenter
    from pipelines.inference.class_map import ClassMap
    from pipelines.products.class_products import MappedCube
    from pipelines.progress import Progress
    from pipelines.samples.class_samples import ClassSamples
    from pipelines.samples.decoded_sites import SiteFiles
    from pipelines.samples.site_samples import SiteImages

DECODED_BY = ("pipelines.samples.site_samples",)


def cubes_of(context: Invocation) -> dict[str, tuple[str, str]]:
    """Site (or the run's name) -> URI and snapshot of its cube. Raises MissingInput."""
    ingested = require(context.folder, "ingest")
    if not has_sites(context.run):
        return {context.run.name: (context.folder.cube_uri, ingested["snapshot"])}
    return {name: (context.folder.cube_of(name), about["snapshot"]) for name, about in ingested["sites"].items()}


def cubes_to_map(context: Invocation) -> dict[str, tuple[str, str]]:
    """Site ("" of a run over one cube) -> URI and snapshot. Raises RequestError for unknown sites."""
    from pipelines.samples.decoded_sites import choose_sites

    cubes = cubes_of(context)
    if not has_sites(context.run):
        return {"": cubes[context.run.name]}
    left_out = [one["scene_id"] for one in require(context.folder, "ingest")["refused"] if one["reason"] == "site"]
    names = choose_sites(list(cubes), context.run.prediction.sites, left_out, context.folder.refused)
    return {name: cubes[name] for name in names}


def map_cube(context: Invocation, site: str, cube: tuple[str, str], model: Segmenter) -> MappedCube:
    """The map of a cube, by all networks."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.inference.class_map import Mapped, mapped_span, predict_map
    from pipelines.products.class_products import MappedCube, no_labels

    run, dataset, labels = context.run, open_cube(*cube), None
    if has_sites(run):
        images, files = site_images(context), site_files(context)
        whole = context.steps.do("predict", f"read {site}", lambda _: images.open(site, files[site]))
        mapped = Mapped(whole.span, len(whole.years_T), whole.shape_yx, whole.part)
    else:
        labels = None if run.labels is None else read_labels(run.labels, grid_of(dataset), model.classes)
        mapped = mapped_span(dataset, build_span(run.prediction), labels, build.build_variables(config.name_variables(run)))

    def work(show: Progress) -> ClassMap:
        return predict_map(mapped, model, run.prediction.tile_px, context.folder.staging / (site or "map"), show)

    found = context.steps.do("predict", f"map {site or 'the raster'}", work)
    return MappedCube(found, dataset, cube[1], labels.pixels_in(mapped.span) if labels else no_labels())


def open_samples(context: Invocation, stage: str, classes: tuple[str, ...] = ()) -> ClassSamples:
    """Labels with their images; `classes`: of a trained model. Raises MissingInput, RequestError."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.samples import class_samples
    from pipelines.samples.site_samples import open_site_samples

    run, do, reading = context.run, partial(context.steps.do, stage), "read the images of the labels"
    samples: ClassSamples
    if has_sites(run):
        names, px = classes or tuple(run.labels.classes), run.training.window_px
        of_sites = partial(open_site_samples, site_files(context), site_images(context), names, run.split.groups)
        samples = do(reading, lambda show: of_sites(min_dates=run.labels.min_dates, window_px=px, progress=show))
        return samples
    ((uri, snapshot),) = cubes_of(context).values()
    dataset = open_cube(uri, snapshot)
    labels = do("read the labels", lambda _: read_labels(run.labels, grid_of(dataset), classes))
    variables = build.build_variables(config.name_variables(run))
    split = run.split.model_dump(include={"block_px", "folds", "seed"})
    made_from = {"snapshot": snapshot, "code": code.digest(DECODED_BY)}
    work = partial(class_samples.open_samples, dataset, labels, variables, min_dates=run.labels.min_dates, **split)
    samples = do(reading, lambda show: work(folder=context.folder.samples, made_from=made_from, progress=show))
    return samples


def site_images(context: Invocation) -> SiteImages:
    from pipelines.samples.pairs import PairSettings
    from pipelines.samples.site_samples import SiteImages

    run = context.run
    pair = run.pairs and PairSettings(**run.pairs.model_dump())
    return SiteImages(build.build_variables(config.name_variables(run)), pair, context.steps.log)


def site_files(context: Invocation) -> dict[str, SiteFiles]:
    content = context.run.model_dump(mode="json", include={"pairs"})
    bands = [band for one in config.name_variables(context.run) for band in one.bands] if context.run.pairs else []
    return sites.site_files(context, {**content, "code": code.digest(DECODED_BY)}, bands)


def label_digests(context: Invocation) -> Any:
    """Size and SHA-256 of the label file, or the digests of all sites; changed ones train another model."""
    if has_sites(context.run):
        return sites.labels_of(context)
    path = Path(context.run.labels.path) if context.run.labels else Path()
    return fingerprints(RunFolder(path.parent, ""), [path.name]).get(path.name)


def load_model(context: Invocation, stage: str) -> Segmenter:
    from models.segmenter import SEGMENTER

    model: Segmenter = context.steps.do(stage, "load the model", lambda _: load_checkpoint(SEGMENTER.load, context.folder)[0])
    return model


def save(task: TrainedTask, context: Invocation, model: Segmenter, snapshot: str) -> str:
    """The hash of the saved model, which knows its variables by name."""
    from flows.trained import describe
    from models.segmenter import SEGMENTER

    variables = {"variables": [one.model_dump(mode="json") for one in config.name_variables(context.run)]}
    described = describe(task, context, snapshot)
    about = {"config": {**described["config"], **variables}, "split": context.run.split.model_dump(mode="json")}
    return SEGMENTER.save(model, context.folder.model, {**described, **about})
