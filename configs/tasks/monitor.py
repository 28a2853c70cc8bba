"""The config of `task: monitor`: one growing cube, no labels; what changed, when, by how much. Schema, checks, and objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.build import automatic_threshold, build_change_index, build_variables
from configs.paths import READ, WRITE
from configs.run import CubeRun, VariableConfig
from configs.schema import CubeUri, Finding, Fraction, ModelPath, Sections, Strict, UtcDate
from pipelines.errors import RequestError
from pipelines.stored_files import FolderFiles, files_at, is_remote

if TYPE_CHECKING:  # packages are imported where they are needed: reading a config must not wait for them
    from torch import Tensor

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

PAIR_INDICES = ("image_difference", "change_vector_plain", "change_vector", "ir_mad")


class HarmonicModel(Strict):
    """A harmonic curve of the year per pixel, fitted robustly on the history."""

    kind: Literal["harmonic"] = "harmonic"
    harmonics: int = Field(2, ge=1, le=4, description="waves of the curve: 1 a year, 2 also half a year ...")
    trend: bool = Field(False, description="fit a linear trend too")


class RecurrentModel(Strict):
    """Small recurrent networks that correct the harmonic curve, one step per date; trained on the history of the same cube."""

    kind: Literal["recurrent"]
    harmonics: int = Field(2, ge=1, le=4, description="waves of the curve: 1 a year, 2 also half a year ...")
    trend: bool = Field(False, description="fit a linear trend too")
    radius: int = Field(
        0, ge=0, le=16, description="a network also sees the residuals of neighbours within so many pixels; 0: of none"
    )
    hidden: int = Field(8, ge=1, description="units of each network")
    pixels: int = Field(4096, ge=64, description="stable pixels of the history that it learns from")
    epochs: int = Field(20, ge=1, description="most passes over what it learns from")
    seed: int = Field(0, description="of its training")


class ForecasterModel(Strict):
    """The forecaster of a finished forecast run, asked for each new date from the dates before it."""

    kind: Literal["forecaster"]
    run: Annotated[ModelPath, READ] = Field(description="the forecast run: a folder, e.g. runs/demo, or s3://bucket/prefix/NAME")
    harmonics: int = Field(2, ge=1, le=4, description="of the curve that says which values are too far off to forecast from")


ValueModel = Annotated[HarmonicModel | RecurrentModel | ForecasterModel, Field(discriminator="kind")]


class SequentialTest(Strict):
    """A sequential test on standardised residuals; `drift`, `cap` and `threshold` are in standard deviations."""

    kind: Literal["cusum", "mosum", "ewma"] = Field(
        "cusum", description="cusum: cumulative sum; mosum: moving sum; ewma: exponentially weighted mean"
    )
    direction: Literal["down", "up", "both"] = Field("both", description="which changes raise an alarm")
    drift: float = Field(2.0, ge=0, description="what a residual must exceed to count as evidence (the reference value k)")
    cap: float = Field(4.0, gt=0, description="residuals count at most this much, so that one bad date is no alarm")
    threshold: float | None = Field(None, gt=0, description="default: calibrated on the history to `false_alarms`")
    false_alarms: float = Field(10.0, gt=0, description="requested false alarms per 1000 stable pixels and year")


class MonitoringConfig(Strict):
    """When monitoring begins, what is expected, and when there is an alarm."""

    start: UtcDate = Field(description="the first date that is monitored; everything before it is history")
    model: ValueModel = Field(HarmonicModel(), description="of the expected values")
    test: SequentialTest = SequentialTest()
    min_history: int = Field(
        12, ge=4, description="usable dates that a pixel's history must have; with fewer it is not monitored"
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon and no alert")
    tile_px: int = Field(256, ge=16, description="side of a tile; each has its own saved state")
    keep_every: int = Field(16, ge=1, description="dates between the states that are kept for late and reprocessed scenes")
    state: Annotated[CubeUri | None, WRITE] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="where the saved state is, below it in a folder of the run's name: a folder or s3://bucket/prefix that all "
        "workers can write; default: runs/NAME/state",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        test = self.test
        if test.drift >= test.cap:
            problem = f"residuals count at most {test.cap}, and {test.drift} of that is taken off: no change could ever be found"
            yield Finding(("monitoring", "test", "drift"), problem, "a drift smaller than cap, e.g. 2 and 4")
        if test.false_alarms >= 1000:
            problem = f"{test.false_alarms:g} of 1000 stable pixels a year are all of them"
            yield Finding(("monitoring", "test", "false_alarms"), problem, "a rate far below 1000, e.g. 10")


class AlertsConfig(Strict):
    """Which patches become alerts, and who is notified."""

    min_area_m2: float = Field(0.0, ge=0, description="smaller patches are no alerts")
    min_confidence: float = Field(0.0, ge=0, le=1, description="patches of a smaller mean confidence are no alerts")
    notify: list[str] = Field([], description="Prefect notification blocks, e.g. slack-webhook/forest or custom-webhook/ops")

    def check(self, sections: Sections) -> Iterator[Finding]:
        for index, slug in enumerate(self.notify):
            if not re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9_-]+", slug):
                problem, remedy = f"{slug!r} does not name a Prefect block", "TYPE/NAME as in `prefect block ls`"
                yield Finding(("alerts", "notify", index), problem, f"{remedy}, e.g. slack-webhook/forest")


Reference = Literal["difference", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum", "three_low"]


class MonitorEvaluation(Strict):
    """How well simulated breaks of known size and date, injected into stable pixels, are found."""

    drops: list[float] = Field([0.2, 0.4], description="sizes of the injected breaks, in units of the variable")
    references: list[Reference] = Field(
        ["difference", "three_low", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum"], description="methods in the same table"
    )
    pixels: int = Field(2000, ge=10, description="at most so many stable pixels are tested")
    confidence: Fraction = Field(0.95, description="of the intervals of the measured figures")
    seed: int = Field(0, description="draws the pixels and the dates of the breaks")

    def check(self, sections: Sections) -> Iterator[Finding]:
        for index, drop in enumerate(self.drops):
            if drop <= 0:
                yield Finding(("evaluation", "drops", index), f"{drop} is no size of a break", "a number greater than 0")


class MonitorRun(CubeRun):
    """One monitored site: its scenes, what is expected, what counts as a change."""

    task: Literal["monitor"]
    variable: VariableConfig = Field(description="what is monitored")
    monitoring: MonitoringConfig
    alerts: AlertsConfig = AlertsConfig()
    evaluation: MonitorEvaluation = MonitorEvaluation()


# ---------------------------------------------------------------- config -> objects


def build_variable(run: MonitorRun) -> Variable:
    """What is monitored."""
    return build_variables([run.variable])[0]


def build_monitor_settings(run: MonitorRun) -> MonitorSettings:
    """Test, threshold and what a state is made for."""
    from pipelines.monitoring.context import MonitorSettings

    monitoring, test, content = run.monitoring, run.monitoring.test, run.monitoring.model_dump(mode="json")
    return MonitorSettings(
        build_test(test),
        test.direction,
        monitoring.min_history,
        test.false_alarms,
        test.threshold,
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
    drops, confidence = tuple(chosen.drops), chosen.confidence
    return EvaluationSettings(drops, chosen.pixels, confidence, chosen.seed, test.direction, test.false_alarms)


def build_rivals(run: MonitorRun) -> Rivals:
    """What the detector is compared with; the references' thresholds are still to be calibrated."""
    from pipelines.monitoring.assessment import Rivals
    from pipelines.monitoring.references import build_references

    monitoring, test = run.monitoring, run.monitoring.test
    references = build_references(run.evaluation.references, test.direction, monitoring.min_history, test.drift, test.cap)
    return Rivals(references, build_pair_indices)


def build_pair_indices() -> dict[str, PairIndex]:
    """The change indices of image pairs, with the automatic thresholds of their literature."""
    from pipelines.monitoring.yearly_pairs import pair_index

    def threshold_of(name: str, score_HW: Tensor, bands: int) -> float:
        return automatic_threshold(name, score_HW, bands)[1]

    return {name: pair_index(partial(build_change_index, name), partial(threshold_of, name)) for name in PAIR_INDICES}


# ---------------------------------------------------------------- what is expected


@dataclass(frozen=True)
class Networks:
    """Where the networks of a recurrent model are: below the run's `state`, a folder or `s3://bucket/prefix`; those in a bucket
    are copied to the folder `here`. `may_train`: False where others work beside this process."""

    state: str
    here: Path
    may_train: bool = True

    def folder(self, name: str) -> Path:
        """The folder on this machine, filled from the bucket if there is one."""
        if not is_remote(self.state):
            return Path(self.state) / name
        folder, files = self.here / name, files_at(self.state)
        names = sorted(files.names(name), key=lambda one: one.endswith("/model.json"))  # that one says that all are there
        if f"{name}/model.json" not in names:  # of a state that was begun anew elsewhere, perhaps
            (folder / "model.json").unlink(missing_ok=True)
        for one in names:  # what is there already stays: another slice of this machine may be reading it
            path, content = self.here / one, files.read(one)
            if not path.is_file() or path.read_bytes() != content:
                FolderFiles(self.here).write(one, content)
        return folder

    def require_training(self) -> None:
        if not self.may_train:
            remedy = "run `driftline evaluate CONFIG` first, which trains and evaluates them"
            raise RequestError(f"{self.state}: slices of a recurrent model need the same networks, and there are none; {remedy}")

    def keep(self, folder: Path) -> None:
        """Copies what was trained in a folder of this machine to the bucket, if there is one."""
        if is_remote(self.state):
            paths = (path for path in folder.rglob("*") if path.is_file())
            for path in sorted(paths, key=lambda path: path.name == "model.json"):
                files_at(self.state).write(path.relative_to(self.here).as_posix(), path.read_bytes())


def build_expected_values(
    run: MonitorRun, cube: MonitoredCube, networks: Networks, progress: Progress | None = None
) -> ExpectedValues:
    """The config's model of expected values; the harmonic curve, and why, where networks or the forecaster's run are missing.

    Networks are trained once, on the history, when monitoring begins, and stay below the state until `--restart`: a late scene in
    the history does not change what the saved states were made with. Raises RequestError for a model that does not fit the
    variable, or has too little history to learn from.
    """
    from pipelines.errors import ArtefactDamaged, MissingInput
    from pipelines.monitoring.context import ExpectedValues

    requested = run.monitoring.model
    try:
        return ExpectedValues(requested.kind, build_value_model(run, cube, networks, progress))
    except (MissingInput, ArtefactDamaged) as e:  # of a run that was there when monitoring began, perhaps
        return ExpectedValues("harmonic", build_curve(HarmonicModel()), str(e))


def build_value_model(run: MonitorRun, cube: MonitoredCube, networks: Networks, progress: Progress | None = None) -> BuiltModel:
    """The config's model. Networks are trained first if they are not there.

    Raises MissingInput (the forecaster's run is not there), ArtefactDamaged (its files, or those of the networks, are not whole)
    or RequestError (too little history to learn from, a forecaster that does not fit).
    """
    match run.monitoring.model:
        case HarmonicModel() as model:
            return build_curve(model)
        case RecurrentModel() as model:
            return _build_recurrent(run, model, cube, networks, progress)
        case ForecasterModel() as model:
            return _build_forecaster(run, model)


def fingerprint_model(run: MonitorRun) -> str:
    """SHA-256 (hex) of the description of the forecaster, which names its tensors; "" for other models, or if there is none."""
    from configs.trained import files_of_run

    model = run.monitoring.model
    path = files_of_run(model.run) / "model.json" if isinstance(model, ForecasterModel) else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def build_curve(model: HarmonicModel | RecurrentModel) -> Curve:
    from pipelines.monitoring.harmonic_model import HarmonicModel as Curve

    return Curve(model.harmonics, model.trend)


def _build_recurrent(
    run: MonitorRun, model: RecurrentModel, cube: MonitoredCube, networks: Networks, progress: Progress | None
) -> BuiltModel:
    from models.checkpoint import RESIDUAL, CheckpointDamaged
    from pipelines.errors import ArtefactDamaged
    from pipelines.monitoring.recurrent_model import RecurrentModel as Recurrent

    folder = networks.folder(f"{model.kind}/networks/{networks_key(run, cube)}")
    if not (folder / "model.json").exists():
        networks.require_training()
        _train_recurrent(run, model, cube, folder, progress)
        networks.keep(folder)
    try:
        ensemble, metadata = RESIDUAL.load(folder)
        left_out = tuple((float(first), float(last)) for first, last in metadata["left_out"])
        mean_share, sigma_share = (float(share) for share in ensemble.shares)
    except (CheckpointDamaged, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        problem = f"the networks of the recurrent model in {folder} cannot be used ({error})"
        raise ArtefactDamaged(f"{problem}: `driftline monitor CONFIG --restart` trains them again") from error
    shares, digest = (mean_share, sigma_share), RESIDUAL.hash(folder)[:16]
    return Recurrent(build_curve(model), ensemble.networks, left_out, shares, digest, model.radius)


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
    from models.checkpoint import RESIDUAL
    from models.networks.residual_gru import ResidualEnsemble, ResidualGRUConfig, laplace_loss
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
    RESIDUAL.save(ensemble, folder, metadata)


def _build_forecaster(run: MonitorRun, model: ForecasterModel) -> BuiltModel:
    """The forecaster of `model.run`, checked against what is monitored."""
    from configs.trained import files_of_run
    from models.checkpoint import FORECASTER, CheckpointDamaged
    from pipelines.errors import ArtefactDamaged, MissingInput
    from pipelines.monitoring.forecaster_model import ForecasterModel as FromForecasts
    from pipelines.monitoring.forecaster_model import check_forecaster
    from pipelines.monitoring.harmonic_model import HarmonicModel as Curve

    folder = files_of_run(model.run)
    try:
        forecaster, metadata = FORECASTER.load(folder)
        digest = FORECASTER.hash(folder)
    except FileNotFoundError as error:
        problem = f"{model.run} holds no model" if is_remote(model.run) else error
        remedy = "Name a finished forecast run, or use {kind: harmonic}"
        raise MissingInput(f"monitoring.model.run: {problem}. {remedy}") from error
    except CheckpointDamaged as error:
        raise ArtefactDamaged(f"monitoring.model.run: {error}, or use {{kind: harmonic}}") from error
    check_forecaster(metadata, build_variable(run), run.monitoring.start, model.run)
    halo_px = forecaster.halo_px(forecaster.context + 1)
    if halo_px is None:
        problem = f"the network of {model.run} has no finite halo, and the state of a tile must not depend on others"
        raise RequestError(f"monitoring.model.run: {problem}: name a run whose model has one, or use {{kind: harmonic}}")
    step_days, curve = forecaster.scaling.step_days, Curve(model.harmonics)
    return FromForecasts(forecaster, forecaster.context, step_days, max(halo_px), digest[:16], curve)
