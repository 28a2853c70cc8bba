"""The task `forecast`: a trained forecaster, measured on blocks and dates that it has not seen, and what it expects next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import config_hash
from configs.tasks import forecast as config
from configs.tasks.forecast import ForecastRun
from flows import code
from flows.folder import RunFolder, code_version, require, require_model
from flows.invocation import Invocation
from flows.task import Building, Findings, Record
from pipelines.errors import StateError
from pipelines.files import write_json
from pipelines.learning.result import Evaluation
from pipelines.products.section import Picture, Section

if TYPE_CHECKING:  # packages are imported where they are needed: a verb that has nothing to do must be quick
    import xarray as xr

    from flows.planning import Extent, PlannedStep
    from models.residual_forecaster import ResidualForecaster
    from pipelines.inference.request import Request
    from pipelines.learning.training import TrainingReport
    from pipelines.products.model_item import ModelCard
    from pipelines.products.predicted import ForecastFields
    from pipelines.progress import Progress
    from pipelines.samples.audit import Audit
    from pipelines.samples.plan import WindowPlan
    from pipelines.samples.prepare import ChannelStatistics
    from pipelines.samples.sampling import SampleCache

TRAINED_FROM = ("samples", "split", "model", "training")  # the sections of the config that a model depends on
PREPARED_BY = ("models.residual_forecaster", "pipelines.samples.cache")  # what the sample cache holds depends on


class Forecast:
    """`task: forecast`, see `flows.task.Task`."""

    name = "forecast"
    stages: tuple[str, ...] = ("ingest", "train", "evaluate", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {**{stage: (stage,) for stage in stages}, "run": stages}
    code: Mapping[str, tuple[str, ...]] = {
        "train": ("flows.tasks.forecast:Forecast.fit",),
        "evaluate": ("flows.tasks.forecast:Forecast.evaluate",),
        "predict": ("flows.tasks.forecast:Forecast.predict",),
    }
    is_gated = True

    def plan(self, run: ForecastRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
        from flows.tasks.forecast_costs import plan_stages

        return plan_stages(run, folder, self.verbs[verb])

    def check(self, context: Invocation, stage: str) -> None:
        """Whether the model is the one that was trained here, and from the settings of this config."""
        from flows.stage import require_unchanged

        require(context.folder, "ingest", "ingest")
        if stage == "train":
            return
        trained = require_unchanged(context, self, "model")
        if stage != "report":
            from models.checkpoint import hash_forecaster

            require_model(context.folder, trained, hash_forecaster)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        if stage == "train":
            snapshot = require(folder, "ingest", "ingest")["snapshot"]
            return {"snapshot": snapshot, **{section: content[section] for section in TRAINED_FROM}}
        trained = require(folder, "train", "train")
        if stage == "evaluate":
            return {"model": trained["model_hash"], "trained": trained["key"], "evaluation": content["evaluation"]}
        from pipelines.cube.store import head_snapshot

        return {
            "model": trained["model_hash"],
            "evaluated": require(folder, "evaluate", "evaluate")["key"],
            "snapshot": head_snapshot(folder.cube_uri),
            "prediction": content["prediction"],
            "samples": content["samples"],
            "even_if_worse": context.even_if_worse,
        }

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        from models.checkpoint import hash_forecaster

        try:
            return bool(hash_forecaster(context.folder.model) == record["model_hash"])
        except FileNotFoundError:
            return False

    def ingest(self, context: Invocation) -> Record:
        from flows.scenes import ingest_scenes

        return ingest_scenes(context)

    def fit(self, context: Invocation, key: str) -> Record:
        from pipelines.samples.prepare import channel_statistics

        steps, samples = context.steps, config.build_samples(context.run)
        snapshot = require(context.folder, "ingest", "ingest")["snapshot"]
        dataset, plan, _ = steps.do("train", "plan windows and check the split", lambda _: plan_samples(context, snapshot))
        statistics = steps.do(
            "train", "measure the training part", lambda show: channel_statistics(dataset, plan, samples.variables, show)
        )
        forecaster = steps.do("train", "fit the baseline", lambda show: prepare(context, dataset, plan, statistics, show))
        cache = steps.do("train", "cut windows", lambda show: cut(context, snapshot, dataset, plan, forecaster, show))
        report = steps.do("train", "train the networks", lambda show: train_networks(context, forecaster, cache, key, show))
        scale_K = steps.do("train", "scale the correction", lambda _: fit_scale(context, forecaster, cache))
        model_hash = steps.do("train", "save the model", lambda _: save(context, forecaster, snapshot, statistics))
        return {
            "snapshot": snapshot,
            "model_hash": model_hash,
            "windows": cache.counts(),
            "residual_scale": scale_K,
            "training": report.to_json(),
            "message": f"trained {len(report.members)} networks",
        }

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        from pipelines.learning.conformal import calibrate
        from pipelines.learning.evaluation import evaluate
        from pipelines.samples.prepare import every_nth

        run, steps, trained = context.run, context.steps, require(context.folder, "train", "train")
        snapshot = trained["snapshot"]
        forecaster = steps.do("evaluate", "load the model", lambda _: load_model(context)[0])
        cache = steps.do("evaluate", "open the windows", lambda show: reopen_samples(context, snapshot, forecaster, show))
        training, validation, test = (cache.windows(part) for part in ("train", "validation", "test"))
        baselines = steps.do(
            "evaluate",
            "fit the baselines",
            lambda show: config.build_baselines(run, lambda: every_nth(training, len(training)), show),
        )
        coverage, seed, settings = run.evaluation.interval, run.training.seed, config.build_evaluation_settings(run)
        intervals = steps.do(
            "evaluate", "calibrate the intervals", lambda show: calibrate(forecaster, validation, coverage, show, seed=seed)
        )
        methods = {config.MODEL: forecaster, **baselines}
        comparison = steps.do(
            "evaluate", "evaluate on the test part", lambda show: evaluate(methods, test, settings, show, intervals=intervals)
        )
        return comparison.to_evaluation(intervals), {"snapshot": snapshot, "model_hash": trained["model_hash"]}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Raises NotPublished if the tiles of a network without a finite halo do not agree, unless `even_if_worse`."""
        from pipelines.inference.predict import check_seam
        from pipelines.inference.request import predict_fields
        from pipelines.learning.conformal import Intervals
        from pipelines.products.cog import Lineage
        from pipelines.products.predicted import ForecastFields, publish_forecast

        assert evaluation is not None, "a gated task is evaluated first"
        run, folder, steps = context.run, context.folder, context.steps
        model_hash, chosen = require(folder, "train", "train")["model_hash"], run.prediction
        forecaster, metadata = steps.do("predict", "load the model", lambda _: load_model(context))
        intervals = Intervals.from_json(evaluation.details["calibration"])
        request = steps.do("predict", "choose dates", lambda _: choose_request(context))
        lineage = Lineage(request.snapshot, model_hash, config_hash(run), code_version(), request.issued_utc, request.scene_ids)
        staged = steps.do(
            "predict",
            "predict tiles",
            lambda show: predict_fields(
                request, forecaster, intervals, folder.staging, chosen.tile_px, chosen.workers, model_hash, show
            ),
        )
        seam = check_seam(folder.staging, chosen.max_seam, must_agree=not context.even_if_worse)
        fields = ForecastFields(run.name, request, staged, lineage, run.evaluation.interval, flat_figures(evaluation))
        card = describe(context, fields, forecaster, metadata)
        course = steps.do(
            "predict",
            "write products and pictures",
            lambda _: publish_forecast(fields, card, building.products, building.pictures, at=folder.products),
        )
        return {
            "snapshot": request.snapshot,
            "model_hash": model_hash,
            "issued_utc": request.issued_utc,
            "target_utc": request.targets_iso,
            "course": asdict(course),
            "message": f"forecast for {len(request.target_utc)} dates",
            **({"seam": asdict(seam)} if seam.count else {}),
        }

    def close(self, context: Invocation, record: Record, *, is_new: bool) -> Record:
        return record

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.course import Course, scale_notes, summary_sentence
        from pipelines.products.cube_facts import cube_facts

        run, folder = context.run, context.folder
        trained = require(folder, "train", "train")
        mae = flat_figures(evaluation).get("mae") if evaluation else None
        maps = [folder.path / name for name in predicted.get("products", ()) if name.endswith(".tif")]
        return Findings(
            sentence=summary_sentence(run.name, Course(**predicted["course"]) if predicted else None, mae),
            found=predicted.get("course", {}),
            computed={f"windows_{part}": count for part, count in trained.get("windows", {}).items()},
            cube=cube_facts(folder.cube_uri, trained["snapshot"]),
            settings=settings_of(run),
            notes=tuple(scale_notes(run.model.baseline, trained.get("residual_scale", ()))),
            lines=(*[("map", path) for path in maps[:1]], *([("picture", folder.quicklook)] if maps else [])),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.held_out import intervals_section, scores_section, split_section

        assert evaluation is not None, "a gated task is evaluated first"
        folder, details = context.folder, evaluation.details
        quicklook = [Picture(folder.quicklook, "The forecast")] if predicted and folder.quicklook.exists() else []
        _, plan, found = plan_samples(context, require(folder, "train", "train")["snapshot"])
        return [
            Section("maps", "Maps", [] if quicklook else ["No forecast is published."], pictures=quicklook),
            scores_section(details, evaluation.shipped, evaluation.protocol, drafts),
            intervals_section(details.get("intervals"), drafts),
            split_section(plan, found, drafts),
        ]


# ---------------------------------------------------------------- train


def plan_samples(context: Invocation, snapshot: str) -> tuple[xr.Dataset, WindowPlan, Audit]:
    """(dataset, window plan, what the audit found) of the snapshot; the last is also written to split.json.

    Raises StateError if the audit finds that test and training touch.
    """
    from pipelines.cube.store import open_cube
    from pipelines.samples.audit import audit
    from pipelines.samples.prepare import plan_cube

    dataset = open_cube(context.folder.cube_uri, snapshot)
    plan = plan_cube(dataset, config.build_samples(context.run))
    found = audit(plan)
    write_json(context.folder.path / "split.json", {"ok": found.ok, "problems": found.problems, **found.facts})
    if not found.ok:
        raise StateError("the split leaks and was not used: " + "; ".join(found.problems))
    return dataset, plan, found


def prepare(
    context: Invocation, dataset: xr.Dataset, plan: WindowPlan, statistics: ChannelStatistics, progress: Progress
) -> ResidualForecaster:
    """The untrained forecaster; the baseline that it corrects is fitted on training windows."""
    from pipelines.samples.prepare import step_days, windows_to_fit

    settings = config.build_samples(context.run)
    days = step_days(dataset, settings)
    return config.build_forecaster(context.run, lambda: windows_to_fit(dataset, plan, settings, progress), statistics, days)


def cut(
    context: Invocation, snapshot: str, dataset: xr.Dataset, plan: WindowPlan, forecaster: ResidualForecaster, progress: Progress
) -> SampleCache:
    """The sample cache, opened if it is there."""
    from pipelines.samples.cache import build_samples

    settings, description = config.build_samples(context.run), forecaster.describe()
    key = code.key({name: description[name] for name in ("baseline", "scaling")}, PREPARED_BY)
    folder = context.folder.samples
    inputs, share = (dataset, snapshot, folder, plan, settings.variables), settings.min_valid_fraction
    return build_samples(*inputs, forecaster.prepare, progress, prepare_key=key, min_valid_fraction=share)


def train_networks(
    context: Invocation, forecaster: ResidualForecaster, cache: SampleCache, key: str, progress: Progress
) -> TrainingReport:
    """The forecaster's networks, trained in place; epochs that a killed run finished are not repeated."""
    from pipelines.learning.batches import frame_weight
    from pipelines.learning.training import train

    run = context.run
    return train(
        forecaster,
        cache.part("train", augment=run.training.augment, seed=run.training.seed),
        cache.part("validation"),
        config.build_loss(run, forecaster),
        config.build_training_settings(run),
        context.folder.model,
        progress,
        key=key,
        target_of=config.build_target(run),
        weight_of=frame_weight,
    )


def fit_scale(context: Invocation, forecaster: ResidualForecaster, cache: SampleCache) -> list[float]:
    """The share of the correction that validation windows support, per lead."""
    share_K = forecaster.fit_residual_scale(cache.batches("validation", context.run.training.batch))
    return [round(float(share), 4) for share in share_K]


def save(context: Invocation, forecaster: ResidualForecaster, snapshot: str, statistics: ChannelStatistics) -> str:
    """The hash of the saved model."""
    from models.checkpoint import save_forecaster

    run, content = context.run, context.run.model_dump(mode="json")
    metadata = {
        "run": run.name,
        "task": run.task,
        "variables": content["samples"]["variables"],
        "bands": [band.name for band in run.source.bands],
        "statistics": asdict(statistics),
        "cube_snapshot": snapshot,
        **{section: content[section] for section in ("samples", "split", "training")},
        "config_sha256": config_hash(run),
        "code_version": code_version(),
    }
    return save_forecaster(forecaster, context.folder.model, metadata)


# ---------------------------------------------------------------- evaluate, predict


def load_model(context: Invocation) -> tuple[ResidualForecaster, dict[str, Any]]:
    """(forecaster, metadata) of the run. Raises ArtefactDamaged."""
    from models.checkpoint import CheckpointDamaged, load_forecaster
    from pipelines.errors import ArtefactDamaged

    folder = context.folder.model
    try:
        return load_forecaster(folder)
    except (CheckpointDamaged, FileNotFoundError) as e:
        raise ArtefactDamaged(f"{e} (delete {folder} and run `driftline train CONFIG`)") from e


def reopen_samples(context: Invocation, snapshot: str, forecaster: ResidualForecaster, progress: Progress) -> SampleCache:
    """The cache that training used; cut again if it has been removed since."""
    dataset, plan, _ = plan_samples(context, snapshot)
    return cut(context, snapshot, dataset, plan, forecaster, progress)


def choose_request(context: Invocation) -> Request:
    """The forecast that the config asks for, from the newest version of the cube."""
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.inference.request import choose_dates

    run, uri = context.run, context.folder.cube_uri
    issue, snapshot = run.prediction.issue, head_snapshot(uri)
    request = choose_dates(
        open_cube(uri, snapshot),
        snapshot,
        config.build_samples(run),
        issue=None if issue == "latest" else issue,
        dates=run.prediction.dates,
    )
    if request.note:
        context.steps.log(f"predict: {request.note}")
    return request


def describe(
    context: Invocation, fields: ForecastFields, forecaster: ResidualForecaster, metadata: Mapping[str, Any]
) -> ModelCard:
    """What an external user must know of the model."""
    from models.checkpoint import TENSORS
    from pipelines.products.predicted import describe_model

    run = context.run
    return describe_model(
        forecaster,
        fields,
        architecture=f"{run.model.kind} encoder-forecaster, {run.model.members} members, baseline {run.model.baseline}",
        horizon=run.samples.horizon,
        trained_snapshot=metadata["cube_snapshot"],
        trained_until=run.split.test_from,
        hyperparameters={name: getattr(run, name).model_dump(mode="json") for name in ("model", "training")},
        weights=context.folder.model / TENSORS,
    )


def flat_figures(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of the published method."""
    return {name: value for name, value in evaluation.methods[evaluation.shipped].items() if isinstance(value, int | float)}


def settings_of(run: ForecastRun) -> dict[str, str]:
    """The few settings that a reader must know; all are in the config."""
    samples, model = run.samples, run.model
    return {
        "forecast": ", ".join(variable.name for variable in samples.variables),
        "steps": f"{samples.context} of context, {samples.horizon} ahead, {samples.steps.mode}",
        "model": f"{model.members} x {model.kind}, corrected baseline: {model.baseline}",
        "test period": f"from {run.split.test_from:%Y-%m-%d}",
    }
