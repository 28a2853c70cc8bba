"""MonitorRun -> what foretells each new date: the curve, the curve and a network, or the forecaster of a finished run.

For the stage that watches:

    expectation = build_expected_values(run, dataset, folder, progress)

`dataset` is the open cube; only the history is read, and only if a network is still to be trained. `folder` is kept between
nights, e.g. `runs/NAME/state/recurrent/networks`. A network is trained once, when the watch begins, and stays until `folder` is
removed (`--restart`): a late scene in the history does not change what the saved states were made with.

Raises MissingInput (the forecaster's run is not there), ArtefactDamaged (its files, or those of the network, are not whole) or
RequestError (too little history to learn from, a forecaster that does not fit). The curve is the way out of each of them, and the
message says what is to be done.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from configs.tasks import monitor as config
from configs.tasks.monitor import MonitorRun
from pipelines.progress import Progress

AREAS, AREA_PX = 4, 256  # what a network learns from: at most so many squares of the raster
WORD = "residual"
log = logging.getLogger(__name__)


def build_expected_values(run: MonitorRun, dataset: Any, folder: Path, progress: Progress | None = None) -> Any:
    """What foretells, as `pipelines.monitoring.detector.Expectation`. See the module for what may be raised."""
    match run.monitoring.model:
        case config.HarmonicModel() as e:
            return _curve(e)
        case config.RecurrentModel() as e:
            return _build_recurrent(run, e, dataset, folder, progress)
        case config.ForecasterModel() as e:
            return _build_forecaster(run, e)


def _curve(e: config.HarmonicModel | config.RecurrentModel) -> Any:
    from pipelines.monitoring.harmonic_model import HarmonicModel

    return HarmonicModel(e.harmonics, e.trend)


# ---------------------------------------------------------------- recurrent


def _build_recurrent(run: MonitorRun, e: config.RecurrentModel, dataset: Any, folder: Path, progress: Progress | None) -> Any:
    """The networks that lie in `folder`, trained first if they are not there."""
    from models.checkpoint import CheckpointDamaged, hash_model, read_model
    from models.networks.residual_gru import rebuild_residual
    from pipelines.errors import ArtefactDamaged
    from pipelines.monitoring.recurrent_model import RecurrentModel

    folder = Path(folder) / networks_key(run, dataset)
    if not (folder / "model.json").exists():
        _train_recurrent(run, e, dataset, folder, progress)
    try:
        ensemble, metadata = read_model(folder, rebuild_residual, WORD)
        left_out = tuple((float(first), float(last)) for first, last in metadata["left_out"])
        mean_share, sigma_share = (float(share) for share in ensemble.shares)
    except (CheckpointDamaged, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ArtefactDamaged(
            f"the networks of the recurrent expectation in {folder} cannot be used ({error}): "
            "`driftline monitor CONFIG --restart` trains them again"
        ) from error
    return RecurrentModel(
        _curve(e), ensemble.networks, left_out, (mean_share, sigma_share), hash_model(folder, WORD)[:16], e.radius
    )


def networks_key(run: MonitorRun, dataset: Any) -> str:
    """Names the folder of the networks: a digest of all that they are trained with but the scenes themselves."""
    monitoring = run.monitoring
    parts = {
        "model": monitoring.model.model_dump(mode="json"),
        "variable": run.variable.model_dump(mode="json"),
        "start": monitoring.start.isoformat(),
        "min_history": monitoring.min_history,
        "stable": "up" if monitoring.test.direction == "up" else "down",
        "grid": [dataset.sizes["y"], dataset.sizes["x"], dataset["spatial_ref"].attrs.get("GeoTransform", "")],
        "contract": 1,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train_recurrent(run: MonitorRun, e: config.RecurrentModel, dataset: Any, folder: Path, progress: Progress | None) -> None:
    from models.checkpoint import write_model
    from models.networks.residual_gru import ResidualEnsemble, ResidualGRUConfig, laplace_loss, rebuild_residual
    from pipelines.learning.training import TrainingSettings
    from pipelines.monitoring.residual_training import train_ensemble

    years = _residual_years(run, e, dataset)
    ensemble = ResidualEnsemble(ResidualGRUConfig(1 if e.radius == 0 else 3, e.hidden), len(years), e.seed)
    settings = TrainingSettings(
        epochs=e.epochs, batch=16, learning_rate=5e-3, weight_decay=0.02, patience=5, accelerator="cpu", seed=e.seed
    )
    key = f"{folder.name}:{[len(year.days_T) for year in years]}"
    report = train_ensemble(ensemble, years, laplace_loss, settings, folder, key=key, progress=progress)
    metadata = {"left_out": [[year.first_day, year.last_day] for year in years], "training": report}
    write_model(ensemble, rebuild_residual, folder, metadata, WORD)


def _residual_years(run: MonitorRun, e: config.RecurrentModel, dataset: Any) -> list[Any]:
    """The history's left-out years on some squares of the raster. Raises RequestError where none has enough to learn from."""
    from configs.build_monitor import start_ns
    from pipelines.errors import RequestError
    from pipelines.monitoring.residual_training import merge_years, residual_years
    from pipelines.tiles import tile_raster

    start_day = start_ns(run) / 86_400e9
    tiles = tile_raster((dataset.sizes["y"], dataset.sizes["x"]), AREA_PX)
    chosen = np.random.default_rng(e.seed).permutation(len(tiles))[:AREAS]
    found, refused = [], None
    for index in sorted(chosen.tolist()):
        x_NYX, valid_NYX, days_N = _history(run, dataset, tiles[index], start_day)
        try:
            found.append(
                residual_years(
                    _curve(e),
                    x_NYX,
                    valid_NYX,
                    days_N,
                    start_day=start_day,
                    min_history=run.monitoring.min_history,
                    radius=e.radius,
                    pixels=e.pixels // len(chosen),
                    seed=e.seed,
                    direction=run.monitoring.test.direction,
                )
            )
        except RequestError as error:
            refused = error
    if not found:
        assert refused is not None, "a raster has at least one tile"
        raise refused
    return merge_years(found)


def _history(run: MonitorRun, dataset: Any, tile: Any, start_day: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x_NYX float32, valid_NYX, days_N) of the dates before `start_day` in a tile."""
    from configs.build_monitor import build_variable
    from pipelines.cube.store import bands_of
    from pipelines.samples.variables import decode, used_bands

    variable, bands = build_variable(run), bands_of(dataset)
    used = list(used_bands(bands, (variable,)))
    days_N = dataset["time"].values.astype("datetime64[ns]").astype(np.int64) / 86_400e9
    part = dataset.isel(time=slice(0, int((days_N < start_day).sum())), y=tile.rows, x=tile.columns)
    image_NBYX, valid_NYX = part["image"].isel(band=used).values, part["valid"].values
    x_NCYX, valid_NYX = decode(image_NBYX, valid_NYX, tuple(bands[i] for i in used), (variable,))
    return x_NCYX[:, 0], valid_NYX, days_N[: len(image_NBYX)]


# ---------------------------------------------------------------- forecaster


def _build_forecaster(run: MonitorRun, e: config.ForecasterModel) -> Any:
    """The forecaster in `e.run`/model, checked against what is watched."""
    from models.checkpoint import CheckpointDamaged, hash_forecaster, load_forecaster
    from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
    from pipelines.monitoring.forecaster_model import ForecasterModel
    from pipelines.monitoring.harmonic_model import HarmonicModel

    folder = Path(e.run) / "model"
    try:
        forecaster, metadata = load_forecaster(folder)
        digest = hash_forecaster(folder)
    except FileNotFoundError as error:
        raise MissingInput(
            f"monitoring.model.run: {error}. Name the folder of a finished forecast run, or use {{kind: harmonic}}"
        ) from error
    except CheckpointDamaged as error:
        raise ArtefactDamaged(f"monitoring.model.run: {error}, or use {{kind: harmonic}}") from error
    _check_forecaster(run, e, metadata)
    halo_px = forecaster.halo_px(forecaster.context + 1)
    if halo_px is None:
        raise RequestError(
            f"monitoring.model.run: the network in {folder} has no finite halo, and the state of a tile must not depend on "
            "others: name a run whose model has one, or use {kind: harmonic}"
        )
    return ForecasterModel(
        forecaster, forecaster.context, forecaster.scaling.step_days, max(halo_px), digest[:16], HarmonicModel(e.harmonics)
    )


def _check_forecaster(run: MonitorRun, e: config.ForecasterModel, metadata: dict[str, Any]) -> None:
    """Raises RequestError unless the forecaster foretells the one variable that is watched; warns if it has seen watched time."""
    from pipelines.errors import RequestError

    names = ("formula", "bands", "transform")
    monitored = {name: run.variable.model_dump(mode="json")[name] for name in names}
    found = [{name: variable.get(name) for name in names} for variable in metadata.get("variables", [])]
    if found != [monitored]:
        raise RequestError(
            f"the forecaster in {e.run} foretells {found}, and what is watched is {monitored}: train one on that variable alone, "
            "or use monitoring.model: {kind: harmonic}"
        )
    known_until = np.datetime64(metadata["split"]["test_from"], "s")
    start = np.datetime64(run.monitoring.start, "s")
    if known_until > start:
        log.warning(
            "the forecaster in %s was trained and validated on dates until %s, monitoring starts %s: what changed in between may "
            "be usual to it; train it with split.test_from at monitoring.start",
            e.run,
            str(known_until)[:10],
            str(start)[:10],
        )
