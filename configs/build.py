"""Config -> objects. The only place where pipelines and models meet; every choice is a visible `match`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from configs import schema
from configs.monitor import MonitorRun
from configs.schema import Run
from configs.tasks import AnyRun
from pipelines.grid import Grid
from pipelines.scene import Band

# Wings are imported where they are needed: a verb that only reads a cube must not wait for torch.


# ---------------------------------------------------------------- source, quality, grid, cube


def build_bands(source: schema.SourceDefaults) -> tuple[Band, ...]:
    """Bands with the source's defaults filled in; nodata is None where the files say it."""

    def pick(own: Any, default: Any) -> Any:
        return default if own is None else own

    return tuple(
        Band(
            band.name,
            pick(band.scale, source.scale),
            pick(band.offset, source.offset),
            pick(band.nodata, source.nodata),
            pick(band.unit, source.unit),
            pick(band.valid_range, source.valid_range),
        )
        for band in source.bands
    )


def name_files(source: schema.SourceDefaults) -> dict[str, str]:
    """band -> its name in the files, for the bands whose name there differs."""
    return {band.name: band.source for band in source.bands if band.source}


def build_source(run: Run | MonitorRun) -> Any:
    """The source of scenes; it opens files only when asked."""
    from pipelines.sources.layers import BandRequest

    source, same_date = run.source, run.cube.same_date
    requested = BandRequest(
        bands=build_bands(source),
        in_file=name_files(source),
        quality=run.quality.band if run.quality else None,
        read_as=source.read_as,
        crs=source.crs,
        transform=source.transform,
    )
    path = Path(source.path)
    match source:
        case schema.NetcdfSource():
            from pipelines.sources.netcdf import NetcdfSource

            return NetcdfSource(path, requested, time=source.time, same_date=same_date)
        case schema.FolderSource():
            from pipelines.sources.folder import FolderSource

            return FolderSource(path, requested, pattern=source.pattern, variable=source.variable, same_date=same_date)
        case schema.StackSource():
            from pipelines.sources.stack import StackSource

            return StackSource(path, requested, files=source.files, dates=source.dates, same_date=same_date)


def build_quality_mask(run: AnyRun) -> Any:
    """The rule that turns the quality band into `valid`; None: every pixel with data may be used."""
    from pipelines.sources.quality import LandsatMask, SclMask, ValueMask

    match run.quality:
        case None:
            return None
        case schema.SclQuality() as q:
            return SclMask(tuple(q.keep), q.away_px, q.band)
        case schema.LandsatQuality() as q:
            return LandsatMask(q.collection, q.away_px, band=q.band)
        case schema.MaskQuality() as q:
            return ValueMask(q.band, tuple(q.valid_values), q.away_px)


def build_ingest_settings(run: AnyRun, refused_json: Path) -> Any:
    """How scenes are laid; the cube carries the part of the config that made it."""
    from pipelines.cube.ingest import IngestSettings

    made_by = run.model_dump(mode="json", include={"source", "quality", "grid", "cube"})
    attributes = {"driftline_config": json.dumps(made_by, sort_keys=True)}
    return IngestSettings(**run.cube.model_dump(exclude={"uri"}), attributes=attributes, refused_json=refused_json)


def build_grid(run: Run | MonitorRun) -> Grid | None:
    """The grid that the config asks for: whole pixels from the upper-left corner that cover the bounds. None: the scene's."""
    if run.grid is None:
        return None
    left, bottom, right, top = run.grid.bounds
    size = run.grid.resolution
    rows, columns = (int(np.ceil(round(extent / size, 6))) for extent in (top - bottom, right - left))
    return Grid(run.grid.crs, (size, 0.0, left, 0.0, -size, top), (max(rows, 1), max(columns, 1)))


# ---------------------------------------------------------------- samples


def build_variables(run: Run) -> tuple[Any, ...]:
    from pipelines.samples.variables import Variable

    return tuple(Variable(v.name, v.formula, tuple(v.bands), v.transform, v.valid_range) for v in run.samples.variables)


def build_split(run: Run) -> Any:
    from pipelines.samples.splits import Split

    return Split(**run.split.model_dump())


def build_sampling(run: Run) -> Any:
    from pipelines.samples.splits import Sampling

    return Sampling(**run.samples.steps.model_dump())


# ---------------------------------------------------------------- models


def build_corrected_baseline(run: Run, training_windows: Callable[[], Iterable[Any]]) -> Any:
    """The rule that the network corrects, its few numbers fitted on training windows; None for a network that stands alone."""
    baseline = run.model.baseline
    return None if baseline == "none" else build_baseline(baseline, run.training.seed, training_windows)


def build_forecaster(run: Run, baseline: Any, mean_C: tuple[float, ...], std_C: tuple[float, ...], step_days: float) -> Any:
    """An untrained forecaster; `mean_C` and `std_C` are of the transformed variables over the training part."""
    from models.residual_forecaster import Scaling, build_forecaster

    model, samples = run.model, run.samples
    return build_forecaster(
        baseline,
        Scaling(mean_C, std_C, tuple(v.transform for v in samples.variables), step_days),
        context=samples.context,
        horizon=samples.horizon,
        members=model.members,
        network=build_network(model),
        seed=run.training.seed,
    )


def build_network(model: schema.Model) -> Any:
    """The network's settings; how many channels it has follows from guide and data."""
    from models.networks.conv_gru_forecaster import ConvGRUSettings
    from models.networks.encoder_forecaster import ConvLSTMSettings

    match model:
        case schema.ConvLSTMModel() as m:
            return ConvLSTMSettings(tuple(m.hidden), m.kernel, m.peepholes, m.forget_bias, m.dropout, m.frame_dropout)
        case schema.ConvGRUModel() as m:
            return ConvGRUSettings(tuple(m.hidden), m.kernel, m.frame_dropout)


def build_baseline(name: schema.Baseline, seed: int, training_windows: Callable[[], Iterable[Any]]) -> Any:
    """A baseline that answers `forecast`, fitted on `training_windows()` where it has numbers of its own."""
    from models.baselines.climatology import Climatology
    from models.baselines.decaying_anomaly import DecayingAnomaly
    from models.baselines.gradient_boosting import GradientBoosting
    from models.baselines.harmonic import HarmonicRegression
    from models.baselines.persistence import Persistence

    match name:
        case "persistence":
            return Persistence()
        case "climatology":
            return Climatology().fit(training_windows())
        case "decaying_anomaly":
            return DecayingAnomaly().fit(training_windows())
        case "harmonic":
            return HarmonicRegression()
        case "gradient_boosting":
            rule = DecayingAnomaly().fit(training_windows())
            return GradientBoosting(rule, seed=seed).fit(training_windows())


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class NormalisedLoss:
    """A loss over transformed, standardised values, so that channels weigh alike and a huber's bend means one deviation."""

    loss: Callable[..., Any]
    normalise: Callable[[Any], Any]

    def __call__(self, y_BKCHW: Any, target_BKCHW: Any, valid_BK1HW: Any) -> Any:
        return self.loss(self.normalise(y_BKCHW), self.normalise(target_BKCHW), valid_BK1HW)


def build_loss(run: Run, forecaster: Any) -> NormalisedLoss:
    from models.losses import masked_huber, masked_mae, masked_mse

    match run.training.loss:
        case "mae":
            loss = masked_mae
        case "mse":
            loss = masked_mse
        case "huber":
            loss = masked_huber
    return NormalisedLoss(loss, forecaster.normalise)


def build_target(run: Run) -> Callable[[dict[str, Any]], Any]:
    """What the networks learn from a batch: the truth, or the truth without the date's common part."""
    from models.losses import centred_target

    return centred_target if run.training.centre_dates else itemgetter("target_KCHW")


def build_training_settings(run: Run) -> Any:
    from pipelines.learning.training import TrainingSettings

    return TrainingSettings(**run.training.model_dump(exclude={"loss", "augment", "centre_dates"}))


# ---------------------------------------------------------------- evaluation

MODEL = "model"  # the forecaster's name beside its baselines in every table


def build_evaluation_settings(run: Run) -> Any:
    from pipelines.learning.evaluation import EvaluationSettings

    chosen = run.evaluation
    names = tuple(v.name for v in run.samples.variables)
    return EvaluationSettings(
        MODEL,
        tuple(chosen.must_beat),
        names,
        chosen.margin,
        chosen.confidence,
        publish_if=chosen.publish_if,
    )
