"""The config of `task: monitor`: one growing cube, no labels; what changed, when, by how much. Schema, checks, and objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.build import build_variables
from configs.findings import Finding
from configs.run import CubeRun, Sections, VariableConfig, check_variable
from configs.types import InputPath, Strict, UtcDate

if TYPE_CHECKING:  # packages are imported where they are needed: reading a config must not wait for them
    from pipelines.monitoring.alerts import AlertSettings
    from pipelines.monitoring.areas import MonitoredCube
    from pipelines.monitoring.assessment import Rivals
    from pipelines.monitoring.context import ExpectedValues, MonitorSettings
    from pipelines.monitoring.detector import ValueModel as BuiltModel
    from pipelines.monitoring.evaluation import EvaluationSettings
    from pipelines.monitoring.harmonic_model import HarmonicModel as Curve
    from pipelines.monitoring.sequential_test import SequentialTest as BuiltTest
    from pipelines.monitoring.yearly_pairs import PairIndex
    from pipelines.progress import Progress
    from pipelines.samples.variables import Variable

WORD = "residual"  # of the networks' checkpoint


class HarmonicModel(Strict):
    """A harmonic curve of the year per pixel, fitted robustly on the history."""

    kind: Literal["harmonic"] = "harmonic"
    harmonics: int = Field(2, ge=1, le=4)
    trend: bool = False


class RecurrentModel(Strict):
    """Small recurrent networks that correct the harmonic curve, one step per date; trained on the history of the same cube."""

    kind: Literal["recurrent"]
    harmonics: int = Field(2, ge=1, le=4)
    trend: bool = False
    radius: int = Field(0, ge=0, le=16, description="pixels around whose residuals a network sees as well; 0: its own alone")
    hidden: int = Field(8, ge=1)
    pixels: int = Field(4096, ge=64, description="stable pixels of the history that it learns from")
    epochs: int = Field(20, ge=1)
    seed: int = 0


class ForecasterModel(Strict):
    """The forecaster of a finished forecast run, asked for each new date from the dates before it."""

    kind: Literal["forecaster"]
    run: InputPath = Field(description="folder of the forecast run, e.g. runs/demo")
    harmonics: int = Field(2, ge=1, le=4, description="of the curve that says which values are too far off to forecast from")


ValueModel = Annotated[HarmonicModel | RecurrentModel | ForecasterModel, Field(discriminator="kind")]


class SequentialTest(Strict):
    """A sequential test on standardised residuals; `drift`, `cap` and `threshold` are in standard deviations."""

    kind: Literal["cusum", "mosum", "ewma"] = "cusum"
    direction: Literal["down", "up", "both"] = "both"
    drift: float = Field(2.0, ge=0, description="what a residual must exceed to count as evidence (the reference value k)")
    cap: float = Field(4.0, gt=0, description="residuals count at most this much, so that one bad date is no alarm")
    threshold: float | None = Field(None, gt=0, description="default: calibrated on the history to `false_alarms`")
    false_alarms: float = Field(10.0, gt=0, description="wanted false alarms per 1000 stable pixels and year")


class MonitoringConfig(Strict):
    start: UtcDate = Field(description="the first date that is monitored; everything before it is history")
    model: ValueModel = HarmonicModel()
    test: SequentialTest = SequentialTest()
    min_history: int = Field(
        12, ge=4, description="usable dates that a pixel's history must have; with fewer it is not monitored"
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon and no alert")
    tile_px: int = Field(256, ge=16)
    keep_every: int = Field(16, ge=1, description="dates between the states that are kept for late and reprocessed scenes")


class AlertsConfig(Strict):
    min_area_m2: float = Field(0.0, ge=0)
    min_confidence: float = Field(0.0, ge=0, le=1)
    notify: list[str] = Field([], description="Prefect notification blocks, e.g. slack-webhook/forest or custom-webhook/ops")


Reference = Literal["difference", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum", "three_low"]


class MonitorEvaluation(Strict):
    """How well simulated breaks of known size and date, injected into stable pixels, are found."""

    drops: list[float] = Field([0.2, 0.4], description="sizes of the injected breaks, in units of the variable")
    references: list[Reference] = Field(
        ["difference", "three_low", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum"], description="methods in the same table"
    )
    pixels: int = Field(2000, ge=10, description="at most so many stable pixels are tested")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = 0


class MonitorRun(CubeRun):
    """One monitored site: its scenes, what is expected, what counts as a change."""

    task: Literal["monitor"]
    variable: VariableConfig = Field(description="what is monitored")
    monitoring: MonitoringConfig
    alerts: AlertsConfig = AlertsConfig()
    evaluation: MonitorEvaluation = MonitorEvaluation()

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        source = sections.get("source")
        if (variable := sections.get("variable")) is not None:
            bands = [band.name for band in source.bands] if source is not None else None
            yield from check_variable(("variable",), variable, bands)
        if (monitoring := sections.get("monitoring")) is not None:
            yield from _check_test(monitoring.test)
        if (alerts := sections.get("alerts")) is not None:
            yield from _check_alerts(alerts)
        if (evaluation := sections.get("evaluation")) is not None:
            yield from _check_evaluation(evaluation)


# ---------------------------------------------------------------- checks


def _check_test(test: SequentialTest) -> Iterator[Finding]:
    if test.drift >= test.cap:
        problem = f"residuals count at most {test.cap}, and {test.drift} of that is taken off: no change could ever be found"
        yield Finding(("monitoring", "test", "drift"), problem, "a drift smaller than cap, e.g. 2 and 4")
    if test.false_alarms >= 1000:
        problem = f"{test.false_alarms:g} of 1000 stable pixels a year are all of them"
        yield Finding(("monitoring", "test", "false_alarms"), problem, "a rate far below 1000, e.g. 10")


def _check_alerts(alerts: AlertsConfig) -> Iterator[Finding]:
    for index, slug in enumerate(alerts.notify):
        if not re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9_-]+", slug):
            problem = f"{slug!r} does not name a Prefect block"
            yield Finding(("alerts", "notify", index), problem, "TYPE/NAME as in `prefect block ls`, e.g. slack-webhook/forest")


def _check_evaluation(evaluation: MonitorEvaluation) -> Iterator[Finding]:
    for index, drop in enumerate(evaluation.drops):
        if drop <= 0:
            yield Finding(("evaluation", "drops", index), f"{drop} is no size of a break", "a number greater than 0")


# ---------------------------------------------------------------- config -> objects


def build_variable(run: MonitorRun) -> Variable:
    """What is monitored."""
    return build_variables([run.variable])[0]


def build_monitor_settings(run: MonitorRun) -> MonitorSettings:
    """Test, threshold and what a state is made for."""
    from pipelines.monitoring.context import MonitorSettings

    monitoring, content = run.monitoring, run.monitoring.model_dump(mode="json")
    return MonitorSettings(
        build_test(monitoring.test),
        monitoring.test.direction,
        monitoring.min_history,
        monitoring.test.false_alarms,
        monitoring.test.threshold,
        monitoring.tile_px,
        monitoring.keep_every,
        asked={name: content[name] for name in ("model", "test", "min_history")},
        variable=json.dumps(run.variable.model_dump(mode="json"), sort_keys=True),
        start=monitoring.start.isoformat(),
    )


def build_test(test: SequentialTest) -> BuiltTest:
    from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum

    match test.kind:
        case "cusum":
            return Cusum(test.drift, test.cap)
        case "mosum":
            return Mosum(cap=test.cap)
        case "ewma":
            return Ewma(cap=test.cap)


def build_evaluation_settings(run: MonitorRun) -> EvaluationSettings:
    from pipelines.monitoring.evaluation import EvaluationSettings

    chosen, test = run.evaluation, run.monitoring.test
    return EvaluationSettings(
        tuple(chosen.drops), chosen.pixels, chosen.confidence, chosen.seed, test.direction, test.false_alarms
    )


def build_rivals(run: MonitorRun) -> Rivals:
    """What the detector is compared with; the references' thresholds are still to be calibrated."""
    from pipelines.monitoring.assessment import Rivals
    from pipelines.monitoring.references import build_references

    monitoring, test = run.monitoring, run.monitoring.test
    references = build_references(run.evaluation.references, test.direction, monitoring.min_history, test.drift, test.cap)
    return Rivals(references, build_pair_indices)


def build_pair_indices() -> dict[str, PairIndex]:
    """The change indices of image pairs, with the automatic thresholds of their literature: Otsu, and chi square for IR-MAD."""
    from models.baselines.change_vector import ChangeVector, PlainChangeVector
    from models.baselines.image_difference import ImageDifference, otsu_threshold
    from models.baselines.ir_mad import IrMad, chi_square_threshold
    from pipelines.monitoring.yearly_pairs import pair_index

    def otsu(index: type[ImageDifference | PlainChangeVector | ChangeVector]) -> PairIndex:
        return pair_index(index, lambda score_HW, bands: otsu_threshold(score_HW))

    return {
        "image_difference": otsu(ImageDifference),
        "change_vector_plain": otsu(PlainChangeVector),
        "change_vector": otsu(ChangeVector),
        "ir_mad": pair_index(IrMad, lambda score_HW, bands: chi_square_threshold(bands)),
    }


def build_alert_settings(run: MonitorRun) -> AlertSettings:
    from pipelines.monitoring.alerts import AlertSettings

    return AlertSettings(run.alerts.min_area_m2, run.alerts.min_confidence, tuple(run.alerts.notify))


# ---------------------------------------------------------------- what is expected


def build_expected_values(run: MonitorRun, cube: MonitoredCube, state: Path, progress: Progress | None = None) -> ExpectedValues:
    """The config's model of expected values; the harmonic curve, and why, where networks or the forecaster's run are missing.

    `state` is the folder of the run's states. Networks are trained once, on the history, when monitoring begins, and stay below
    it until `--restart`: a late scene in the history does not change what the saved states were made with. Raises RequestError
    for a model that does not fit the variable, or has too little history to learn from.
    """
    from pipelines.errors import ArtefactDamaged, MissingInput
    from pipelines.monitoring.context import ExpectedValues

    requested = run.monitoring.model
    try:
        return ExpectedValues(requested.kind, build_value_model(run, cube, state / requested.kind / "networks", progress))
    except (MissingInput, ArtefactDamaged) as e:  # of a run that was there when monitoring began, perhaps
        return ExpectedValues("harmonic", build_curve(HarmonicModel()), str(e))


def build_value_model(run: MonitorRun, cube: MonitoredCube, folder: Path, progress: Progress | None = None) -> BuiltModel:
    """The config's model. Networks lie in `folder`, trained first if they are not there.

    Raises MissingInput (the forecaster's run is not there), ArtefactDamaged (its files, or those of the networks, are not whole)
    or RequestError (too little history to learn from, a forecaster that does not fit).
    """
    match run.monitoring.model:
        case HarmonicModel() as model:
            return build_curve(model)
        case RecurrentModel() as model:
            return _build_recurrent(run, model, cube, folder, progress)
        case ForecasterModel() as model:
            return _build_forecaster(run, model)


def fingerprint_model(run: MonitorRun) -> str:
    """SHA-256 (hex) of the description of the forecaster, which names its tensors; "" for other models, or if there is none."""
    model = run.monitoring.model
    path = Path(model.run) / "model" / "model.json" if isinstance(model, ForecasterModel) else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def build_curve(model: HarmonicModel | RecurrentModel) -> Curve:
    from pipelines.monitoring.harmonic_model import HarmonicModel as Curve

    return Curve(model.harmonics, model.trend)


def _build_recurrent(
    run: MonitorRun, model: RecurrentModel, cube: MonitoredCube, folder: Path, progress: Progress | None
) -> BuiltModel:
    from models.checkpoint import CheckpointDamaged, hash_model, read_model
    from models.networks.residual_gru import rebuild_residual
    from pipelines.errors import ArtefactDamaged
    from pipelines.monitoring.recurrent_model import RecurrentModel as Recurrent

    folder = folder / networks_key(run, cube)
    if not (folder / "model.json").exists():
        _train_recurrent(run, model, cube, folder, progress)
    try:
        ensemble, metadata = read_model(folder, rebuild_residual, WORD)
        left_out = tuple((float(first), float(last)) for first, last in metadata["left_out"])
        mean_share, sigma_share = (float(share) for share in ensemble.shares)
    except (CheckpointDamaged, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ArtefactDamaged(
            f"the networks of the recurrent model in {folder} cannot be used ({error}): "
            "`driftline monitor CONFIG --restart` trains them again"
        ) from error
    shares = mean_share, sigma_share
    return Recurrent(build_curve(model), ensemble.networks, left_out, shares, hash_model(folder, WORD)[:16], model.radius)


def networks_key(run: MonitorRun, cube: MonitoredCube) -> str:
    """Names the folder of the networks: a digest of all that they are trained with but the scenes themselves."""
    monitoring = run.monitoring
    parts = {
        "model": monitoring.model.model_dump(mode="json"),
        "variable": run.variable.model_dump(mode="json"),
        "start": monitoring.start.isoformat(),
        "min_history": monitoring.min_history,
        "stable": "up" if monitoring.test.direction == "up" else "down",
        "grid": [*cube.shape_yx, cube.geo_transform],
        "contract": 1,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train_recurrent(
    run: MonitorRun, model: RecurrentModel, cube: MonitoredCube, folder: Path, progress: Progress | None
) -> None:
    from models.checkpoint import write_model
    from models.networks.residual_gru import ResidualEnsemble, ResidualGRUConfig, laplace_loss, rebuild_residual
    from pipelines.learning.training import TrainingSettings
    from pipelines.monitoring.residual_training import Learning, residual_years_of, train_ensemble

    direction = run.monitoring.test.direction
    learning = Learning(build_curve(model), run.monitoring.min_history, model.radius, model.pixels, model.seed, direction)
    years = residual_years_of(cube, learning)
    ensemble = ResidualEnsemble(ResidualGRUConfig(1 if model.radius == 0 else 3, model.hidden), len(years), model.seed)
    settings = TrainingSettings(
        epochs=model.epochs, batch=16, learning_rate=5e-3, weight_decay=0.02, patience=5, accelerator="cpu", seed=model.seed
    )
    key = f"{folder.name}:{[len(year.days_T) for year in years]}"
    report = train_ensemble(ensemble, years, laplace_loss, settings, folder, key=key, progress=progress)
    metadata = {"left_out": [[year.first_day, year.last_day] for year in years], "training": report}
    write_model(ensemble, rebuild_residual, folder, metadata, WORD)


def _build_forecaster(run: MonitorRun, model: ForecasterModel) -> BuiltModel:
    """The forecaster in `model.run`/model, checked against what is monitored."""
    from models.checkpoint import CheckpointDamaged, hash_forecaster, load_forecaster
    from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
    from pipelines.monitoring.forecaster_model import ForecasterModel as FromForecasts
    from pipelines.monitoring.forecaster_model import check_forecaster
    from pipelines.monitoring.harmonic_model import HarmonicModel as Curve

    folder = Path(model.run) / "model"
    try:
        forecaster, metadata = load_forecaster(folder)
        digest = hash_forecaster(folder)
    except FileNotFoundError as error:
        raise MissingInput(
            f"monitoring.model.run: {error}. Name the folder of a finished forecast run, or use {{kind: harmonic}}"
        ) from error
    except CheckpointDamaged as error:
        raise ArtefactDamaged(f"monitoring.model.run: {error}, or use {{kind: harmonic}}") from error
    check_forecaster(metadata, build_variable(run), run.monitoring.start, model.run)
    halo_px = forecaster.halo_px(forecaster.context + 1)
    if halo_px is None:
        raise RequestError(
            f"monitoring.model.run: the network in {folder} has no finite halo, and the state of a tile must not depend on "
            "others: name a run whose model has one, or use {kind: harmonic}"
        )
    step_days, curve = forecaster.scaling.step_days, Curve(model.harmonics)
    return FromForecasts(forecaster, forecaster.context, step_days, max(halo_px), digest[:16], curve)
