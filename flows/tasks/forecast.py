"""The task `forecast`: a trained forecaster, measured on blocks and dates that it has not seen, and what it expects next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import config_hash
from configs.privacy import OF_PLACES
from configs.tasks import forecast as config
from configs.tasks.forecast import ForecastRun
from configs.tasks.forecast_auto import has_open_split, is_auto, with_split
from configs.tasks.forecast_covariates import sentence_of_scores
from configs.trained import find_model
from flows.folder import RunFolder, code_version, readable, require
from flows.task import Building, Findings, Invocation, Record, TrainedTask
from flows.tasks import forecast_choice as choice
from flows.tasks.forecast_archive import UNUSABLE, keep_forecast, rival_to_keep
from flows.tasks.forecast_methods import (
    as_published,
    challenger_of,
    change_of_method,
    choose_baselines,
    describe,
    fallback_of,
    fit_baselines,
    forecasts_of,
    members_of,
    members_to_combine,
    method_of,
    name_of,
    uses_covariates,
    with_combination,
)
from flows.tasks.forecast_probabilities import chances_of, neighbourhood_of, tally_of, with_probabilities
from flows.tasks.forecast_samples import key_of_covariates, plan_samples, reopen
from flows.tasks.forecast_tiles import arrange, arrange_rival, load_model, predict_tiles
from flows.trained import describe as describe_training
from pipelines.calendar import date_text
from pipelines.learning.result import Evaluation, members_text
from pipelines.learning.validation_figures import Figure
from pipelines.products.section import Section
from pipelines.slices import Slice, SliceDone
from pipelines.wording import counted

if TYPE_CHECKING:  # packages are imported where they are needed: a verb that has nothing to do must be quick
    from flows.planning import Extent, PlannedStep
    from models.checkpoint import Checkpoint
    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.reuse import Inputs
    from pipelines.samples.prepare import ChannelStatistics

TRAINED_FROM = ("samples", "split", "model", "training")  # the sections of the config that a model depends on
ONE_SERIES = "Trained and scored on one series: the scores hold for its later times, not for other patients, devices or clips."
PARTS = ("train", "validation", "test")
NO_RESULT = ("archive_keep", "staging")  # keys of `prediction` on which no product depends


class Forecast(TrainedTask):
    """`task: forecast`, see `flows.task.Task`."""

    name = "forecast"
    stages: tuple[str, ...] = ("ingest", "choose", "train", "evaluate", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {
        **{stage: (stage,) for stage in (*stages, "verify")},
        "train": ("choose", "train"),
        "run": stages,
        "sweep": ("ingest", "train"),
    }
    sliced, pieces, made = ("predict",), "regions", "predicted"
    computed: tuple[str, ...] = ("ingest", "evaluate", "predict")
    describes: Mapping[str, tuple[str, ...]] = {"samples": ("variables", "context", "horizon", "steps"), "model": ()}
    code: Mapping[str, tuple[str, ...]] = {
        "choose": ("flows.tasks.forecast_choice:find_network", "configs.tasks.forecast_auto:with_choice"),
        "train": ("flows.tasks.forecast:Forecast.fit", "flows.tasks.forecast:Forecast.measure"),
        "evaluate": ("flows.tasks.forecast:Forecast.evaluate",),
        "predict": ("flows.tasks.forecast:Forecast.predict",),
    }

    def plan(
        self, run: ForecastRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from flows.planning import measure, plan_ingest
        from flows.tasks.forecast_plan import assumed, plan_choose, plan_evaluate, plan_predict, plan_train

        extent = measure(run, folder, run.split.validation_from, reads_source="ingest" in self.verbs[verb], ingested=ingested)
        plans = {"choose": plan_choose, "train": plan_train, "evaluate": plan_evaluate, "predict": plan_predict}
        known = choice.with_known(with_split(run, extent.shape) if has_open_split(run) else run, folder)
        stated, stages = assumed(known, extent), [stage for stage in self.verbs[verb] if self.needs(run, stage)]
        return extent, [
            plan_ingest(run.cube, extent) if stage == "ingest" else plans[stage](stated if stage != "choose" else known, extent)
            for stage in stages
        ]

    def needs(self, run: ForecastRun, stage: str) -> bool:
        return stage != "choose" or is_auto(run)

    def resolve(self, context: Invocation, stage: str) -> Invocation:
        return choice.resolve(context, stage)

    def check(self, context: Invocation, stage: str) -> None:
        if stage == "choose":
            require(context.folder, "ingest")
        else:
            super().check(context, stage)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        if stage == "choose":
            return choice.inputs(context)
        if stage == "train":
            snapshot = require(folder, "ingest")["snapshot"]
            files = key_of_covariates(context, snapshot, is_training=True)
            return {"snapshot": snapshot, **{section: content[section] for section in TRAINED_FROM}, **files}
        trained = require(folder, "train")
        if stage == "evaluate":
            chosen = {name: value for name, value in content["evaluation"].items() if name != "verify_dates"}
            return {"model": trained["model_hash"], "trained": trained["key"], "evaluation": chosen}
        from pipelines.cube.store import head_snapshot

        fallback, snapshot = fallback_of(context), head_snapshot(folder.cube_uri)
        return {
            "model": trained["model_hash"],
            "evaluated": require(folder, "evaluate")["key"],
            "snapshot": snapshot,
            "prediction": {name: value for name, value in content["prediction"].items() if name not in NO_RESULT},
            **({"device": "gpu"} if context.run.compute.gpus else {}),
            "fallback": fallback.baseline if fallback else "",
            "samples": content["samples"],
            "even_if_worse": context.even_if_worse,
            **key_of_covariates(context, snapshot, is_training=False),
        }

    def checkpoint(self) -> Checkpoint[ResidualForecaster]:
        from models.checkpoint import FORECASTER

        return FORECASTER

    def measure(self, context: Invocation, *, is_training: bool = False) -> Inputs:
        from pipelines.calendar import to_days
        from pipelines.cube.store import head_snapshot, open_cube
        from pipelines.learning.reuse import measure
        from pipelines.samples.prepare import step_days

        run, uri = context.run, context.folder.cube_uri
        cube, samples = open_cube(uri, head_snapshot(uri)), config.build_samples(run)
        days = step_days(cube, samples)
        if is_training:
            split = samples.split.from_first(cube["time"].values[0])
            until_day = split.validation_until_day if run.training.refit else split.train_until_day
            cube = cube.isel(time=to_days(cube["time"].values) < until_day)
        return measure({run.name: cube}, config.bands_used(run), days)

    def fit(self, context: Invocation, key: str) -> Record:
        from flows.tasks.forecast_training import fit_networks

        return fit_networks(self, context, key, partial(save, self, context))

    def figures(self, run: ForecastRun) -> tuple[Figure, ...]:
        return (Figure("mean_absolute_error"),)

    def tried(self, run: ForecastRun) -> ForecastRun:
        """Not refitted: the networks know nothing of the validation part."""
        return run.model_copy(update={"training": run.training.model_copy(update={"refit": False})})

    def validate(self, context: Invocation, record: Record) -> dict[str, float]:
        """In the unit of the variable; of several variables the mean, each over its spread."""
        from pipelines.learning.choice import tally_errors

        do, forecaster = partial(context.steps.do, "validate"), load_model(context)[0]
        cache = do("open the windows", lambda show: reopen(context, record["snapshot"], forecaster, show))
        windows = cache.windows("validation")
        errors = do("compare on the validation part", lambda show: tally_errors({config.MODEL: forecaster}, windows, show))
        return {"mean_absolute_error": errors.means()[config.MODEL]}

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        from configs.tasks.forecast_baselines import describe_baselines, sentence_of
        from flows.tasks.forecast_training import earlier_model
        from pipelines.learning.choice import ErrorSums, tally_errors
        from pipelines.learning.evaluation import evaluate
        from pipelines.learning.forecast_intervals import calibrate

        run, do, trained = context.run, partial(context.steps.do, "evaluate"), require(context.folder, "train")
        snapshot, settings, compute = trained["snapshot"], config.build_evaluation_settings(run), run.compute.build()

        forecaster = do("load the model", lambda _: load_model(context)[0])
        cache = do("open the windows", lambda show: reopen(context, snapshot, forecaster, show))
        split, (training, validation, test) = cache.plan.split, (cache.windows(part) for part in PARTS)
        # those that are compared and calibrated on the validation part know nothing of it, those that are tested do
        names, motion = do("compare moving and usual", lambda _: choose_baselines(context, training, len(cache.plan.shape)))
        fit = partial(fit_baselines, context, snapshot, names)
        twin = earlier_model(context, forecaster)
        earlier = {config.MODEL: twin, **do("fit the baselines", lambda show: fit(split.train_until, show))}
        errors = do("compare on the validation part", lambda show: tally_errors(earlier, validation, show, compute))
        members = members_to_combine(context, errors)
        earlier, seen, around = with_combination(earlier, members), ErrorSums(), neighbourhood_of(run)
        limits_C, transforms_C = zip(*((one.valid_range, one.transform) for one in run.samples.variables), strict=True)
        scaled = partial(
            calibrate, limits_C=limits_C, transforms_C=transforms_C, seed=run.training.seed, compute=compute,
            others=[seen, *filter(None, [around])], with_distribution=run.evaluation.probabilities,
        )  # fmt: skip
        past = config.from_the_past(members)
        calibrate_all = partial(scaled, earlier, past, training, validation, run.evaluation.interval)
        intervals = do("calibrate the intervals", calibrate_all)
        baselines = do("fit the baselines up to the test", lambda show: fit(split.validation_until, show))
        fitted = describe_baselines(baselines)
        if "gradient_boosting" in fitted:
            context.steps.log(f"evaluate: {sentence_of(fitted['gradient_boosting'])}")
        methods = with_combination({config.MODEL: forecaster, **baselines}, members)
        chances = tally_of(run, intervals, around)
        on_test = partial(evaluate, methods, test, settings, validation=seen.means(), intervals=intervals, equal=errors.equal)
        others = [chances] if chances else []
        evaluation = do("evaluate on the test part", lambda show: on_test(progress=show, others=others, compute=compute))
        evaluation = with_probabilities(context, evaluation, chances, earlier, validation)
        if motion:
            evaluation = replace(evaluation, details={**evaluation.details, "field_motion": motion.to_json()})
        about = {"snapshot": snapshot, "model_hash": trained["model_hash"], "baselines": fitted}
        return evaluation, {**about, "challenger": name_of(evaluation, challenger_of(evaluation))}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Raises NotPublished if the tiles of a network without a finite halo do not agree, unless `even_if_worse`."""
        from pipelines.inference.predict import check_seam
        from pipelines.products.cog import Lineage
        from pipelines.products.predicted import ForecastFields, publish_forecast

        run, folder, do, chosen = context.run, context.folder, partial(context.steps.do, "predict"), context.run.prediction
        model_hash = require(folder, "train")["model_hash"]
        arranged = arrange(context, evaluation)
        method, name, request = arranged.method, arranged.name, arranged.request
        about = request.snapshot, model_hash, config_hash(run), code_version(), request.issued_utc, request.scene_ids
        lineage = Lineage(*about, method="network" if method == config.MODEL else name)
        chances = chances_of(context, evaluation, request, method)
        staged = predict_tiles(context, arranged.prediction)
        seam = check_seam(staged, chosen.max_seam, must_agree=not context.even_if_worse)
        keep_forecast(context, evaluation, arranged, staged)
        measured = evaluation.methods[method] if evaluation else {}
        figures = {name: value for name, value in measured.items() if isinstance(value, int | float)}
        fields = ForecastFields(run.name, request, staged, lineage, run.evaluation.interval, figures, chances)
        is_of_network = config.MODEL in forecasts_of(evaluation, method)
        card = describe(context, fields, arranged.network, arranged.metadata) if is_of_network else None
        write = partial(publish_forecast, fields, card, building.products, building.pictures, at=folder.products)
        course = do("write products and pictures", lambda _: write())
        changed = change_of_method(context, evaluation, method)
        return {
            "snapshot": request.snapshot,
            "model_hash": model_hash,
            "method": method,
            "issued_utc": request.issued_utc,
            "target_utc": request.targets_iso,
            "course": asdict(course),
            "message": f"forecast for {counted(len(request.target_utc), 'date')}",
            **changed,
            **({"notes": notes} if (notes := [*changed.values(), *request.notes]) else {}),
            **({"seam": asdict(seam)} if seam.count else {}),
        }

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        from pipelines.inference.predict import predict_slice

        arranged, compute = arrange(context, evaluation), context.run.compute.build()
        chances_of(context, evaluation, arranged.request, arranged.method)
        do = partial(context.steps.do, "predict", f"predict slice {share}")
        done = do(partial(predict_slice, arranged.prediction, share, compute))
        if rival := rival_to_keep(context, evaluation, arranged):
            try:
                prediction = arrange_rival(context, evaluation, arranged, rival)
                done += do(partial(predict_slice, prediction, share, compute))
            except UNUSABLE as e:
                context.steps.log(
                    f"predict: no tiles of the rival {rival}, with which the forecast cannot be compared later: {e}"
                )
        return done

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.sentences import Course, scale_notes, summary_sentence
        from pipelines.products.tables import cube_facts

        run, folder = context.run, context.folder
        trained = require(folder, "train")
        course = Course(**predicted["course"]) if predicted else None
        skills = evaluation.details["skill"] if evaluation else {}
        method = predicted.get("method") or method_of(context, evaluation)
        corrected = run.network.baseline
        skill = skills[corrected]["overall"]["skill"] if corrected in skills else None
        said_before = [predicted.get("fallback"), predicted.get("insisted")]  # by the verdict
        maps = [folder.path / name for name in predicted.get("products", ()) if name.endswith((".tif", ".nii.gz"))]
        return Findings(
            sentence=summary_sentence(run.name, course, mae_of(evaluation, run, method), course.unit if course else ""),
            found=predicted.get("course", {}),
            computed={
                **{f"windows_{part}": count for part, count in trained.get("windows", {}).items()},
                **trained.get("split", {}),
                **choice.computed_of(folder),
                **({"covariates": run.covariates.sentence()} if not run.covariates.is_empty else {}),
                **({"combination": members_text(members)} if (members := members_of(evaluation)) else {}),
            },
            cube=cube_facts(folder.cube_uri, trained["snapshot"]),
            settings={**settings_of(run), **choice.settings_of(folder)},
            notes=(
                *(scale_notes(corrected, trained.get("residual_scale", ()), skill) if method == config.MODEL else ()),
                *((ONE_SERIES,) if run.source.kind not in OF_PLACES else ()),
                *(sentence_of_scores(run.covariates) if uses_covariates(context, evaluation, method) else ()),
                *(note for note in predicted.get("notes", ()) if note not in said_before),
            ),
            lines=(
                *[("map", path) for path in maps[:1]],
                *([("picture", folder.quicklook), ("viewer", folder.products / "viewer.html")] if maps else []),
            ),
            evaluation=as_published(evaluation, predicted) if evaluation else None,
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.choice_section import choice_section
        from pipelines.products.covariates_section import covariates_section
        from pipelines.products.probability_section import probability_section
        from pipelines.products.report_sections import (
            events_section,
            intervals_section,
            maps_section,
            scores_section,
            split_section,
        )
        from pipelines.products.verification_section import verification_section

        folder = context.folder
        maps = maps_section(folder.quicklook, is_published=bool(predicted))
        verified = verification_section(readable(folder.verification), drafts)
        if evaluation is None:
            return [maps, verified]
        details, (_, plan, found) = evaluation.details, plan_samples(context, require(folder, "train")["snapshot"])
        given = find_model(folder.model).metadata.get("covariates", ())
        return [
            maps,
            scores_section(details, evaluation.shipped, evaluation.protocol, drafts),
            events_section(details.get("thresholds"), evaluation.shipped, drafts),
            probability_section(details.get("probabilities"), evaluation.shipped, folder.quicklook, drafts),
            intervals_section(details.get("intervals"), evaluation.shipped, drafts),
            covariates_section(given, details),
            verified,
            split_section(plan, found, drafts),
            choice_section(choice.choice_of(folder), drafts),
        ]


# ---------------------------------------------------------------- train


def save(
    task: TrainedTask, context: Invocation, forecaster: ResidualForecaster, folder: Path, statistics: ChannelStatistics,
    covariates: Sequence[Record],
) -> str:  # fmt: skip
    """The hash of the model saved in `folder`."""
    from models.checkpoint import FORECASTER

    content = context.run.model_dump(mode="json")
    metadata = {
        **describe_training(task, context, require(context.folder, "ingest")["snapshot"]),
        **choice.metadata_of(context.folder),
        "variables": content["samples"]["variables"],
        "statistics": asdict(statistics),
        **{section: content[section] for section in ("samples", "split")},
        **({"covariates": covariates} if covariates else {}),
    }
    return FORECASTER.save(forecaster, folder, metadata)


# ---------------------------------------------------------------- evaluate, predict


def mae_of(evaluation: Evaluation | None, run: ForecastRun, method: str) -> float | None:
    """Of the first variable, in its unit: over several variables errors are counted in standard deviations."""
    if evaluation is None:
        return None
    metrics = evaluation.details["metrics"][method]
    mae: float | None = metrics.get("by_variable", {}).get(run.samples.variables[0].name, metrics["overall"])["mae"]
    return mae


def settings_of(run: ForecastRun) -> dict[str, str]:
    """The few settings that a reader must know; all are in the config."""
    samples, model = run.samples, run.network
    return {
        "forecast": ", ".join(variable.name for variable in samples.variables),
        "steps": f"{samples.context} of context, {samples.horizon} ahead, {samples.steps.mode}",
        "model": f"{model.members} x {model.kind}, corrected baseline: {model.baseline}",
        "test period": f"from {date_text(run.split.test_from)}",
    }
