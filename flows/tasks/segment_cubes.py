"""Cubes, labels and models of class maps: of the one cube of a run, or of each of its sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import build
from configs.labels import ClassLabelsConfig, build_span, read_labels
from configs.privacy import OF_VOLUMES, without_originals
from configs.sites import has_sites
from configs.tasks import segment as config
from configs.trained import find_model, reading
from flows import code, sites
from flows.folder import RunFolder, fingerprints, load_checkpoint, require
from flows.staged import make, staging_of
from flows.task import Invocation, TrainedTask
from flows.trained import start
from pipelines.compute import HERE, Compute
from pipelines.errors import MissingInput, RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    from configs.tasks.segment import SegmentRun
    from flows.begun import Begun
    from models.segmenter import Segmenter
    from pipelines.inference.class_map import Mapped, MapWork
    from pipelines.products.class_products import MappedCube
    from pipelines.progress import Progress
    from pipelines.samples.class_samples import ClassSamples
    from pipelines.samples.decoded_sites import SiteFiles
    from pipelines.samples.site_samples import SiteImages

DECODED_BY = ("pipelines.samples.site_samples",)
FOLDS = "folds_sha256"  # in a checkpoint: of the places of labels and their folds


def require_mappable(uri: str, snapshot: str) -> None:
    """Raises RequestError for a cube of frames without a position, which are neither of a place nor of a volume."""
    from pipelines.cube.store import grid_of, open_cube

    grid = grid_of(open_cube(uri, snapshot))
    if not (grid.is_on_earth or grid.is_volume):
        remedy = "follow masks of its frames: `driftline track MASKS --run runs/NAME`"
        raise RequestError(f"class maps are of places and of volumes, and these are frames without a position: {remedy}")


def side_of_tiles(run: SegmentRun, samples: ClassSamples) -> int:
    """Of score and calibration, as of the map."""
    from pipelines.inference.class_map import tile_side

    return tile_side(samples.images[0].shape, run.prediction.tile_px)


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


def map_work(context: Invocation, cubes: Mapping[str, tuple[str, str]], model: Segmenter) -> MapWork:
    """The maps of all cubes as work for `compute`."""
    from pipelines.inference.class_map import MapWork

    run = context.run
    mapped = {site: context.steps.do("predict", f"look at {site or 'the cube'}", partial(_mapped, context, site, cube, model))
              for site, cube in cubes.items()}  # fmt: skip
    made_by, device = require(context.folder, "train")["model_hash"], "cuda" if run.compute.gpus else ""
    return MapWork(mapped, model, made_by, run.prediction.tile_px, staging_of(context), device)


def _mapped(context: Invocation, site: str, cube: tuple[str, str], model: Segmenter, _: Progress) -> Mapped:
    """What is mapped of a cube; of a site whose dates are to be comparable it is decoded first."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.inference.class_map import DecodedSpan, Mapped, mapped_span

    run, dataset = context.run, open_cube(*cube)
    if has_sites(run) and run.pairs:
        files = site_files(context)[site]
        whole = site_images(context).open(site, files)
        decoded = DecodedSpan(str(files.decoded.absolute()), files.made_from)
        return Mapped(whole.span, len(whole.years_T), whole.shape, decoded)
    variables, labels = build.build_variables(config.name_variables(run)), None
    if not has_sites(run) and run.labels is not None:
        labels = read_labels(labels_of(context), grid_of(dataset), model.classes, dataset["time"].values)
    asked = None if has_sites(run) else build_span(run.prediction)
    return mapped_span(dataset, cube, asked, labels, variables)


def map_cubes(context: Invocation, model: Segmenter) -> dict[str, MappedCube]:
    """The maps of the cubes that are asked for, by all networks, with the labels in their spans."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.inference.class_map import finished_maps
    from pipelines.products.class_products import MappedCube, no_labels

    run, cubes = context.run, cubes_to_map(context)
    work = map_work(context, cubes, model)
    make(context, "predict", f"map {counted(len(cubes), 'raster')}", work)
    found, maps = finished_maps(work, context.folder.staging), {}
    for site, cube in cubes.items():
        dataset, labels = open_cube(*cube), no_labels()
        if not has_sites(run) and run.labels is not None:
            known = read_labels(labels_of(context), grid_of(dataset), model.classes, dataset["time"].values)
            labels = known.pixels_in(found[site].span)
        maps[site] = MappedCube(found[site], dataset, cube[1], labels)
    return maps


def compute_of(context: Invocation) -> Compute:
    """Where labels are scored. Workers elsewhere do not see this machine's copy of a run in a bucket: then here."""
    compute: Compute = context.run.compute.build()
    if not compute.address or context.folder.copy is None:
        return compute
    context.steps.log("evaluate: labels are scored in this process: workers elsewhere do not see the copy of the run")
    return HERE


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
        return replace(samples, few=config.build_few(run.training))
    ((uri, snapshot),) = cubes_of(context).values()
    dataset = open_cube(uri, snapshot)
    times_T, given = dataset["time"].values, labels_of(context, renews=True)
    labels = do("read the labels", lambda _: read_labels(given, grid_of(dataset), classes, times_T))
    variables = build.build_variables(config.name_variables(run))
    split = run.split.model_dump(include={"block_px", "folds", "seed"})
    made_from = {"snapshot": snapshot, "code": code.digest(DECODED_BY)}
    work = partial(class_samples.open_samples, dataset, labels, variables, min_dates=run.labels.min_dates, **split)
    samples = do(reading, lambda show: work(folder=context.folder.samples, made_from=made_from, progress=show))
    return replace(samples, few=config.build_few(run.training))


def labels_of(context: Invocation, *, renews: bool = False) -> ClassLabelsConfig:
    """The labels of a run over one cube; of a patient's volumes a copy without text, made where there is none or it `renews`.

    Raises MissingInput, and RequestError for a file that is no NIfTI volume.
    """
    from pipelines.privacy.nifti import clean_nifti
    from pipelines.privacy.settings import PrivacyRefusal

    run = context.run
    kept: ClassLabelsConfig = without_originals(run).labels
    given = Path(run.labels.path)
    if run.source.kind not in OF_VOLUMES or Path(kept.path) == given or (Path(kept.path).is_file() and not renews):
        return kept
    if not given.is_file():
        raise MissingInput("there is no label volume at labels.path; correct it")
    try:
        clean_nifti(given, Path(kept.path))
    except PrivacyRefusal as e:
        raise RequestError(f"the labels cannot be used: {e.detail}; save them as one NIfTI file (.nii or .nii.gz)") from None
    return kept


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
    """Raises RequestError for a model of images where the cube has volumes, and the other way round."""
    from models.segmenter import SEGMENTER
    from pipelines.cube.store import grid_of, open_cube

    model: Segmenter = context.steps.do(stage, "load the model", lambda _: load_checkpoint(SEGMENTER.load, context.folder)[0])
    dims = grid_of(open_cube(*next(iter(cubes_of(context).values())))).dims
    if model.axes != len(dims):
        kind = "volumes" if model.axes == 3 else "images"
        raise RequestError(f"the model is for {kind}, and the cube has the axes {', '.join(dims)}: take another model")
    return model


def save(task: TrainedTask, context: Invocation, model: Segmenter, snapshot: str, folds: str) -> str:
    """The hash of the saved model, which knows its variables by name; `folds`: digest of what tested each network."""
    from flows.trained import describe
    from models.segmenter import SEGMENTER

    variables = {"variables": [one.model_dump(mode="json") for one in config.name_variables(context.run)]}
    described = describe(task, context, snapshot)
    about = {"config": {**described["config"], **variables}, "split": context.run.split.model_dump(mode="json"), FOLDS: folds}
    return SEGMENTER.save(model, context.folder.model, {**described, **about})


def require_untested(context: Invocation, known: Sequence[str], folds: str) -> None:
    """Raises RequestError where the model to begin from has learnt from labels of the areas `known`, and in other folds.

    A change detector has no such folds; a model of `task: pretrain` has learnt from no label.
    """
    path = context.run.training.start_from
    trained = find_model(path)
    with reading(trained.folder):
        there = trained.metadata.get(FOLDS), trained.metadata.get("split", {}).get("networks")
    if not known or trained.task == "pretrain" or there == (folds, context.run.split.networks):
        return
    raise RequestError(
        f"training.start_from: the model of {path} has learnt from labels of this area ({', '.join(known)}), and its folds are "
        "not those of this run: its networks may know places that are tested here. Train it with the same split and places of "
        "labels, or begin from a model of other places or of `task: pretrain`"
    )


def begin(
    task: TrainedTask, context: Invocation, build: Callable[[int], Segmenter], classes: tuple[str, ...]
) -> tuple[Begun | None, Callable[[int], Segmenter]]:
    """(what is begun from where it is of another task, `build` of networks with its weights and statistics).

    Raises as `flows.trained.start`, and RequestError for other classes.
    """
    from flows.begun import Begun, is_of_another_task

    begun, is_other = Begun.of(context), is_of_another_task(context)
    if not is_other and (theirs := tuple(getattr(begun.model, "classes", ()))) != classes:
        there = ", ".join(theirs)
        raise RequestError(f"training.start_from: {begun.path} has the classes {there}, the labels have {', '.join(classes)}")

    def build_learner(number: int) -> Segmenter:
        learner = build(number)
        if is_other:
            begun.copy_into(learner, number)
        else:
            start(task, context, learner, number)
            begun.layers = {"copied": sorted(name for name, _ in learner.members[0].named_parameters())}
        learner.set_statistics(0, *begun.statistics(number, learner.bands))
        return learner

    return begun, build_learner
