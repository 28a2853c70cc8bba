"""`task: pretrain`: a network of class maps or of change learns from images without labels; others begin from its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import build
from configs.privacy import without_originals
from configs.sites import build_sites, has_sites
from configs.tasks import pretrain as config
from configs.tasks.pretrain import PretrainRun
from flows import code, sites
from flows.folder import RunFolder, require
from flows.task import Building, Findings, Invocation, Record, TrainedTask, ingest_scenes
from flows.tasks.segment_cubes import DECODED_BY, cubes_of, require_mappable, site_files, site_images
from pipelines.errors import RequestError
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.filler import Filler
    from pipelines.learning.reuse import Inputs
    from pipelines.samples.class_samples import SpanImages

TRAINED_FROM = ("variables", "pairs", "spans", "split", "model", "training")  # what a model depends on
PRETRAIN_FLOP_S = 4e9  # small networks on windows, forward and backward, one core


class Pretrain(TrainedTask):
    """Images without labels. See `flows.task.Task`. Nothing is published: what comes out is the model."""

    name = "pretrain"
    stages = ("ingest", "train")
    verbs: Mapping[str, tuple[str, ...]] = {"ingest": ("ingest",), "train": ("train",), "run": stages}
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.pretrain:Pretrain.fit", "flows.tasks.pretrain:Pretrain.measure")
    }
    is_gated = False
    computed: tuple[str, ...] = ("ingest",)
    describes: Mapping[str, tuple[str, ...]] = {"model": (), "variables": (), "pairs": (), "spans": ()}

    def checkpoint(self) -> Checkpoint[Any]:
        from models.filler import FILLER

        return FILLER

    def plan(
        self, run: PretrainRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from datetime import datetime

        from flows.planning import estimate, measure, plan_ingest

        reads_source = "ingest" in self.verbs[verb]
        if has_sites(run):
            extent = sites.extent_of(run, folder, build_sites(run), reads_source=reads_source and ingested is None)
        else:
            extent = measure(run, folder, datetime(2261, 1, 1), reads_source=reads_source, ingested=ingested)
        spans, chosen = config.build_spans(run), run.training
        dates = max((extent.dates_in(span) for span in spans), default=extent.dates)
        network = config.build_learner(run, len(config.name_variables(run)), len(extent.shape))
        crop = [min(chosen.window_px, size) for size in extent.shape]
        window = 3 * network.flops((1, dates, len(config.name_variables(run)), *crop))
        seconds = window * chosen.windows * chosen.epochs / PRETRAIN_FLOP_S / extent.machine.training
        disk = dates * max(len(spans), 1) * extent.pixels * (extent.bands * 4 + 1) / 1e6
        what = f"at most {counted(chosen.epochs, 'epoch')} of {counted(chosen.windows, 'window')} of {counted(dates, 'date')}"
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "train": estimate("train", what, seconds, 1 + disk, 50.0, machine=extent.machine),
        }
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        content = without_originals(context.run).model_dump(mode="json")
        sections = {section: content[section] for section in TRAINED_FROM}
        return {"snapshot": require(context.folder, "ingest")["snapshot"], **sections}

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        """Of what is read of each cube: all dates, or those in the spans."""
        from pipelines.learning.reuse import measure

        bands = dict.fromkeys(band for one in config.name_variables(context.run) for band in one.bands)
        return measure({name: read_dates(context.run, *cube) for name, cube in cubes_of(context).items()}, list(bands))

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        """Scenes of the cube, or of every site; labels are not opened."""
        if has_sites(context.run):
            return sites.ingest_sites(context, sites.SiteLabels(None, no_label, least_dates=2), lambda name: False)
        record = ingest_scenes(context)
        require_mappable(context.folder.cube_uri, record["snapshot"])
        return record

    def fit(self, context: Invocation, key: str) -> Record:
        """A network that fills (or forecasts) hidden dates, saved with what it has seen."""
        import torch

        from pipelines.learning.training import train
        from pipelines.samples.class_samples import year_days_of
        from pipelines.samples.hidden_windows import HiddenWindows, divide, error_of_interpolation, statistics_of

        run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
        chosen, snapshot = run.training, require(folder, "ingest")["snapshot"]
        images = do("read the images", lambda _: open_images(context))
        year_days, settings, hiding = year_days_of(images), config.build_windows(chosen), config.build_hiding(chosen)
        learnt, held = divide(images, run.split.block_px, run.split.validation, run.split.seed)
        build_windows: Callable[..., HiddenWindows]
        build_windows = partial(HiddenWindows, images, settings=settings, hiding=hiding, seed=chosen.seed, year_days=year_days)
        known: dict[str, Any] = {}
        if run.pairs is None:
            mean_C, std_C = do("measure the images", lambda _: statistics_of(build_windows(learnt, is_fixed=True)))
            known = {"mean_C": mean_C, "std_C": std_C}
        bands = images[0].x_TCHW.shape[1]
        model = config.build_learner(run, bands, len(images[0].shape), year_days)
        if known:
            model.set_statistics(torch.from_numpy(known["mean_C"]), torch.from_numpy(known["std_C"]))
        windows, fixed = (build_windows(part, is_fixed=is_fixed, **known) for part, is_fixed in ((learnt, False), (held, True)))
        error = do("fill what validates by interpolation", lambda _: error_of_interpolation(fixed))
        loss, how = config.build_loss(chosen), config.build_training_settings(chosen)
        report = do("train the network", lambda show: train(model, windows, fixed, loss, how, folder.networks, show, key=key))
        member = report.to_json()["members"][0]
        model_hash = do("save the model", lambda _: save(self, context, model, snapshot))
        found = {
            "loss": member["best_validation_loss"],
            "interpolation_mae": error,
            "places": len(learnt),
            "places_held_out": len(held),
            "sites_held_out": sorted({images[s].site for s, _ in held} - {""}),
        }
        context.steps.log(f"train: {sentence_of(run, found)}")
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "training": {"members": [member]},
            "pretraining": found,
            "files": {},
            "message": sentence_of(run, found),
        }

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        raise RequestError("`task: pretrain` makes a model to begin from and no products: name it in training.start_from")

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.tables import cube_facts

        run, trained = context.run, require(context.folder, "train")
        facts = {name: cube_facts(*cube) for name, cube in cubes_of(context).items()}
        return Findings(
            sentence=f"{run.name}: {sentence_of(run, trained['pretraining'])}.",
            found=dict(trained["pretraining"]),
            cube=facts if has_sites(run) else next(iter(facts.values())),
            settings={
                "model": ", ".join(f"{key} {value}" for key, value in run.model.description.items()),
                "objective": run.training.objective,
            },
            notes=("No label was read.",),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        return []


def no_label(_site: str) -> Path | None:
    """Where the label of a site lies that is not to be opened."""
    return None


def read_dates(run: PretrainRun, uri: str, snapshot: str) -> xr.Dataset:
    """The cube with the dates that are read. Raises RequestError where the spans hold none."""
    import numpy as np

    from pipelines.cube.store import open_cube

    dataset, spans = open_cube(uri, snapshot), config.build_spans(run)
    if not spans:
        return dataset
    is_read_T = np.any([span.holds(dataset["time"].values) for span in spans], axis=0)
    if not is_read_T.any():
        raise RequestError(f"no date of the cube is in the spans {', '.join(span.text for span in spans)}; correct `spans`")
    return dataset.isel(time=np.flatnonzero(is_read_T))


def open_images(context: Invocation) -> list[SpanImages]:
    """The images of every span of the cube, or of every site, as memory maps. Raises RequestError for a span of one date."""
    from pipelines.cube.store import open_cube
    from pipelines.samples.class_samples import decode_span, whole_span

    run = context.run
    if has_sites(run):
        reader = site_images(context)
        images = [reader.open(name, files) for name, files in site_files(context).items()]
    else:
        ((uri, snapshot),) = cubes_of(context).values()
        dataset, variables = open_cube(uri, snapshot), build.build_variables(config.name_variables(run))
        made_from = {"snapshot": snapshot, "code": code.digest(DECODED_BY)}
        spans = config.build_spans(run) or [whole_span(dataset["time"].values)]
        images = [
            decode_span(dataset, span, variables, context.folder.samples / f"span-{number}", made_from)
            for number, span in enumerate(spans)
        ]
    for one in images:
        if len(one.years_T) < 2:
            where = one.site or one.span.text
            raise RequestError(f"{where} has {counted(len(one.years_T), 'date')}: nothing is left once one is hidden")
    return images


def sentence_of(run: PretrainRun, found: Record) -> str:
    """What was learnt, beside interpolation."""
    verb = "forecasts" if run.training.objective == "forecast" else "fills"
    unit = "standard deviations" if run.training.loss == "mae" else f"({run.training.loss})"
    beside = "" if found["interpolation_mae"] is None else (
        f"; interpolation of each pixel in time: mean absolute error {found['interpolation_mae']:.3f}"
    )  # fmt: skip
    return f"a {run.model.kind} {verb} what is hidden of places held out with a loss of {found['loss']:.3f} {unit}{beside}"


def save(task: TrainedTask, context: Invocation, model: Filler, snapshot: str) -> str:
    """The hash of the saved model, which knows its variables by name, and what it has seen."""
    from flows.trained import describe
    from models.filler import FILLER

    variables = {"variables": [one.model_dump(mode="json") for one in config.name_variables(context.run)]}
    described = describe(task, context, snapshot)
    about = {"config": {**described["config"], **variables}, "split": context.run.split.model_dump(mode="json")}
    return FILLER.save(model, context.folder.model, {**described, **about})
