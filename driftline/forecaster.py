"""Forecasters in memory: train one on a Dataset, measure it, predict with it, save and load it.

Everything goes through the code of runs: the Dataset becomes a temporary cube, and the stages of `task: forecast` do the rest.
"""

from __future__ import annotations

import shutil
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from driftline.runs import display, read_evaluation
from driftline.training import BASELINES, Variables, bands_used, check_lengths, make_config, merged, variable_configs
from pipelines.compute import HERE
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.notebook import html_table

if TYPE_CHECKING:
    import xarray as xr

    from configs.tasks.forecast import ForecastRun, Method
    from flows.folder import RunFolder
    from pipelines.inference.job import Request
    from pipelines.inference.staging import Staged
    from pipelines.learning.result import Evaluation
    from pipelines.sources.memory import MemorySource

Date = str | datetime | np.datetime64
SAVED = ("config.yaml", "evaluation.json", "split.json", "stages", "model/model.safetensors", "model/model.json")
NAME = "forecast"


def train(
    dataset: xr.Dataset | xr.DataArray,
    variable: Variables | None = None,
    *,
    context: int = 10,
    horizon: int = 5,
    epochs: int = 30,
    crs: str | int | None = None,
    baselines: str | Sequence[str] = BASELINES,
    settings: Mapping[str, object] | None = None,
    progress: bool = False,
) -> Forecaster:
    """A forecaster of `variable`, trained on `dataset` and measured beside its baselines on dates and blocks held out from it.

    dataset: variables (time, y, x), or a DataArray (time, [band,] y, x), with dates, evenly spaced x and y and a CRS; NaN where
    missing. variable: the name of one, or {"name": "ndvi", "formula": "normalized_difference", "bands": ["B8", "B4"]}, or a list
    of these; default: the only one. context, horizon: dates in, dates out. crs: for data without a grid mapping. baselines:
    what the model is measured beside; gradient boosting takes longest. settings: any other section of a config (docs/config.md),
    e.g. {"model": {"hidden": [8]}, "split": {"test_from": "2020-01-01"}}.

    Dates are taken as they are: the last fifth is for test, the one before it for validation. Without two years of dates to
    learn the seasons from, the network corrects persistence. Files lie in a temporary folder until `save`. Raises RequestError
    for data that cannot be used, ConfigError for `settings`.

        forecaster = driftline.train(dataset, variable="ndvi", context=8, horizon=3, epochs=10)
        forecaster.evaluation.verdict.sentence
    """
    from flows.stage import carry_out
    from flows.task import open_invocation, remembering_folder
    from flows.tasks import task_of
    from pipelines.sources.memory import as_dataset, memory_source

    check_lengths(context=context, horizon=horizon, epochs=epochs)
    whole = as_dataset(dataset)
    there = [str(name) for name, one in whole.data_vars.items() if {"time", "y", "x"} <= set(one.dims)]
    variables = variable_configs(variable, there)
    source = memory_source(whole, bands_used(variables), crs)
    if source.notes:
        warnings.warn("; ".join(source.notes), stacklevel=2)
    runs = Path(mkdtemp(prefix="driftline-"))
    try:
        baselines = [baselines] if isinstance(baselines, str) else baselines
        lengths = {"context": context, "horizon": horizon, "epochs": epochs}
        config = make_config(source, variables, **lengths, baselines=baselines, name=NAME, runs=str(runs))
        config = merged(config, settings or {})
        invocation = open_invocation(config, display=display(progress), inputs_must_exist=False, source=source)
        with remembering_folder(invocation):
            for verb in ("ingest", "train", "evaluate"):
                carry_out(invocation, verb)
    except BaseException:
        shutil.rmtree(runs, ignore_errors=True)
        raise
    invocation = task_of(invocation.run.task).resolve(invocation, "evaluate")
    forecaster = Forecaster(invocation.run, invocation.folder, source)
    weakref.finalize(forecaster, shutil.rmtree, runs, ignore_errors=True)
    return forecaster


def load_model(folder: str | Path) -> Forecaster:
    """The forecaster that `save` wrote to `folder`, or that of a finished forecast run such as runs/demo.

    Raises MissingInput, ArtefactDamaged, and RequestError for a run of another task.

    >>> load_model("runs/no-such-run")
    Traceback (most recent call last):
    pipelines.errors.MissingInput: runs/no-such-run has no config.yaml: expected runs/NAME of a forecast, or a saved model
    """
    from configs.load import load_run
    from configs.tasks.forecast import ForecastRun
    from configs.tasks.forecast_auto import has_open_split, is_auto
    from flows.folder import RunFolder

    path = Path(folder)
    _require_file(path, "config.yaml")
    run = load_run(path / "config.yaml", inputs_must_exist=False)
    if not isinstance(run, ForecastRun):
        raise RequestError(f"{path} is a run of `task: {run.task}`, whose model makes no forecast")
    if is_auto(run) or has_open_split(run):
        raise RequestError(f"{path}/config.yaml leaves open what is to be chosen: `driftline run CONFIG` chooses, and trains")
    for name in ("model/model.safetensors", "model/model.json", "evaluation.json"):
        _require_file(path, name)
    forecaster = Forecaster(run, RunFolder.at(path, run))
    forecaster.require_whole()
    return forecaster


def _require_file(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise MissingInput(f"{folder} has no {name}: expected runs/NAME of a forecast, or a saved model")


def predict(
    model: Forecaster | str | Path,
    dataset: xr.Dataset | xr.DataArray | None = None,
    dates: Date | Sequence[Date] | None = None,
    *,
    crs: str | int | None = None,
    as_is: bool = False,
    method: Literal["chosen", "network"] = "chosen",
) -> xr.Dataset:
    """The forecast of `model` (a forecaster, a saved one, or runs/NAME) from `dataset`; see `Forecaster.predict`."""
    forecaster = model if isinstance(model, Forecaster) else load_model(model)
    return forecaster.predict(dataset, dates, crs=crs, as_is=as_is, method=method)


class Forecaster:
    """A trained forecaster: its config `run`, and the folder with its model and its scores. `train` and `load_model` make it."""

    def __init__(self, run: ForecastRun, folder: RunFolder, source: MemorySource | None = None):
        self.run, self.folder, self._source = run, folder, source

    @property
    def evaluation(self) -> Evaluation:
        """Scores of the model and its baselines on data held out, and the verdict. Raises ArtefactDamaged."""
        evaluation = read_evaluation(self.folder.path)
        if evaluation is None:
            raise MissingInput(f"{self.folder.evaluation} is not there; run `driftline evaluate CONFIG`")
        return evaluation

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.run.samples.variables)

    def predict(
        self,
        dataset: xr.Dataset | xr.DataArray | None = None,
        dates: Date | Sequence[Date] | None = None,
        *,
        issue: Date | None = None,
        crs: str | int | None = None,
        as_is: bool = False,
        method: Literal["chosen", "network"] = "chosen",
    ) -> xr.Dataset:
        """`forecast`, `lower` and `upper` (time, [variable,] y, x), float32, NaN where no date shows the pixel.

        dataset: with the bands that the model was trained on; default: the data of training. dates: what to forecast, at most
        `horizon` dates after the last one, at most 1.5 times as far ahead as the horizon; default: the next `horizon`, at the
        median interval. issue: the last date that may be used. A dataset that lacks a band is refused, and one whose values,
        units or steps are unlike those of training, unless `as_is`; other pixels, a context that is not whole and last dates
        without data are noted (attribute `notes`).

        method: `chosen` is what the evaluation chose, as `driftline predict` publishes it: the network, a baseline (fitted anew
        on these data up to the issue date) or the combination; `network` is the network whatever was chosen. The attribute
        `method` says which one it was.

        lower and upper hold the nominal share of the observations (attribute `interval`); `verdict` says how good the model is.
        Raises RequestError, and NotPublished where tiles of a network without a finite halo do not agree.
        """
        from driftline.cubes import write

        if dataset is None:
            return self._predict_cube(self.folder.cube_uri, self._source, dates, issue, method)
        from pipelines.sources.memory import memory_source

        variables = [variable.model_dump() for variable in self.run.samples.variables]
        source = memory_source(dataset, bands_used(variables), crs)
        with TemporaryDirectory(prefix="driftline-") as folder:
            write(source, Path(folder) / "cube")
            notes = self._compare(str(Path(folder) / "cube"), as_is)
            return self._predict_cube(str(Path(folder) / "cube"), source, dates, issue, method, (*source.notes, *notes))

    def save(self, folder: str | Path) -> Path:
        """The folder, with weights, config and scores (no pickle, and not the data of training), for `load_model`.

        Raises RequestError if there is something at `folder`.
        """
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RequestError(f"{target} is there already; name a new or empty folder")
        for name in SAVED:
            origin = self.folder.path / name
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, target / name)
            elif origin.is_file():
                shutil.copyfile(origin, target / name)
        return target

    def require_whole(self) -> None:
        """Raises ArtefactDamaged unless the scores are those of the model that is there."""
        from flows.folder import read_json
        from models.checkpoint import FORECASTER

        scored = read_json(self.folder.evaluation, "run `driftline evaluate CONFIG` again").get("model_hash")
        if FORECASTER.hash(self.folder.model) != scored:
            raise ArtefactDamaged(
                f"{self.folder.model} holds another model than {self.folder.evaluation} speaks of: "
                "run `driftline evaluate CONFIG` again, or save the forecaster again"
            )

    def _compare(self, uri: str, as_is: bool) -> tuple[str, ...]:
        """What a user must know of the model on the images in a cube. Raises RequestError where it does not fit them."""
        from configs.tasks.forecast import bands_used as bands_of
        from configs.tasks.forecast import build_samples
        from configs.trained import find_model
        from pipelines.cube.store import open_cube
        from pipelines.learning.reuse import compare, measure
        from pipelines.samples.prepare import step_days

        cube = open_cube(uri)
        days = step_days(cube, build_samples(self.run)) if cube.sizes["time"] > 1 else None
        here = measure({"dataset": cube}, bands_of(self.run), days)
        return compare(find_model(self.folder.model).inputs, here).require(as_is=as_is)

    def _predict_cube(
        self, uri: str, source: MemorySource | None, dates: Date | Sequence[Date] | None, issue: Date | None,
        wanted: Literal["chosen", "network"], known: Sequence[str] = (),
    ) -> xr.Dataset:  # fmt: skip
        from configs.tasks.forecast import MODEL
        from configs.trained import find_model
        from flows.covariates import samples_of
        from flows.steps import Steps
        from flows.task import Invocation
        from flows.tasks.forecast_methods import name_of, ready_method
        from models.checkpoint import FORECASTER, CheckpointDamaged
        from pipelines.cube.store import head_snapshot, open_cube
        from pipelines.inference.job import choose_dates
        from pipelines.inference.predict import check_seam, predict_fields

        chosen, evaluation = self.run.prediction, self.evaluation
        if isinstance(dates, str | datetime | np.datetime64):
            dates = [dates]
        if dates is not None and not 0 < len(dates) <= self.run.samples.horizon:
            raise RequestError(f"dates: {len(dates)} are asked for, the model forecasts 1 to {self.run.samples.horizon}")
        try:
            snapshot = head_snapshot(uri)
        except MissingInput as e:
            raise MissingInput(f"{self.folder.path} has no cube of its own: pass a dataset to predict from") from e
        last = None if issue is None else _as_datetime(issue)
        targets = None if dates is None else [_as_datetime(date) for date in dates]
        step_days = find_model(self.folder.model).inputs.step_days
        cube = open_cube(uri, snapshot)
        settings = samples_of(self.run, cube)
        request = replace(choose_dates(cube, snapshot, settings, issue=last, dates=targets, step_days=step_days), uri=uri)
        notes = [*known, *request.notes, *([] if source is None else later_dates(request, source, last))]
        try:
            forecaster, _ = FORECASTER.load(self.folder.model)
        except (CheckpointDamaged, FileNotFoundError) as e:
            raise ArtefactDamaged(f"{e} ({self.folder.model})") from e
        model_hash = FORECASTER.hash(self.folder.model)
        with TemporaryDirectory(prefix="driftline-") as folder:
            how = (Path(folder) / "tiles", chosen.tile_px, self.run.split.margin_px, HERE, model_hash)
            steps = Steps(Path(folder) / "steps.jsonl")  # of this call, not of the run
            method, evaluation = self._method(evaluation, wanted)
            context = Invocation(self.run, self.folder, steps)
            ready, intervals = ready_method(context, evaluation, request, forecaster, method)
            staged = predict_fields(request, ready, intervals, *how)
            check_seam(staged, chosen.max_seam)
            attributes = {
                "issued_utc": request.issued_utc,
                "interval": self.run.evaluation.interval,
                "method": "network" if method == MODEL else name_of(evaluation, method),
                "model_hash": model_hash,
                "verdict": evaluation.verdict.sentence,
                **({"notes": "; ".join(notes)} if notes else {}),
            }
            return as_dataset(request, staged, self.variables, source).assign_attrs(attributes)

    @staticmethod
    def _method(evaluation: Evaluation, wanted: Literal["chosen", "network"]) -> tuple[Method, Evaluation]:
        """(what predicts, the evaluation with the verdict on it). Raises RequestError."""
        from configs.tasks.forecast import MODEL
        from flows.tasks.forecast_methods import as_published
        from pipelines.learning.result import named

        if wanted not in ("chosen", "network"):
            raise RequestError(f"method: {wanted!r} is neither 'chosen' nor 'network'")
        if wanted == "chosen" or evaluation.shipped == MODEL:
            return cast("Method", evaluation.shipped), evaluation
        said = f"Predicted by the network, as `method` asks, not by {named(evaluation.shipped)}."
        return MODEL, as_published(evaluation, {"insisted": said, "method": MODEL})

    def _repr_html_(self) -> str:
        samples, model = self.run.samples, self.run.network
        rows = [
            ("variables", ", ".join(self.variables)),
            ("dates", f"{samples.context} in, {samples.horizon} out"),
            ("model", f"{model.members} x {model.kind}, corrected baseline: {model.baseline}"),
            ("folder", self.folder.path),
        ]
        return html_table("Forecaster", rows) + self.evaluation._repr_html_()

    def __repr__(self) -> str:
        return f"Forecaster({', '.join(self.variables)}, horizon={self.run.samples.horizon}, folder={str(self.folder.path)!r})"


def later_dates(request: Request, source: MemorySource, issue: datetime | None) -> list[str]:
    """A note on the dates of `source` after the issue date, up to `issue`, of which no pixel is usable."""
    times, issued = source.images["time"].values.astype("datetime64[ns]"), request.dataset["time"].values[request.steps.issue]
    later = int(np.count_nonzero((times > issued) & (True if issue is None else times <= np.datetime64(issue))))
    have = "the later date has" if later == 1 else f"the {later} later dates have"
    return [f"issued from {request.issued_utc}: {have} no usable pixel"] if later else []


def as_dataset(request: Request, staged: Staged, variables: Sequence[str], source: MemorySource | None) -> xr.Dataset:
    """The staged fields with their coordinates, which are those of `source` to the last bit if there is one."""
    import xarray as xr

    from pipelines.inference.staging import Field

    rows, dates = slice(None), range(len(request.target_utc))
    axes = ("time", "variable", "y", "x")

    def stack(role: str) -> np.ndarray:
        return np.stack([np.stack([staged.read(Field(k, name, role), rows) for name in variables]) for k in dates])

    roles = {role: (axes, stack(role)) for role in ("forecast", "lower", "upper")}
    places = request.dataset if source is None else source.images
    coordinates = {
        "time": np.array(request.target_utc, "datetime64[ns]"),
        "variable": list(variables),
        **{axis: places[axis].variable for axis in ("y", "x")},
    }
    found = xr.Dataset(roles, coordinates)
    if len(variables) == 1:
        found = found.squeeze("variable")
    for role, image in found.data_vars.items():
        image.attrs |= {"long_name": f"{', '.join(variables)}, {role}", "units": ", ".join(request.units.values())}
    return with_crs(found, request.grid.crs)


def with_crs(dataset: xr.Dataset, crs: str) -> xr.Dataset:
    """The dataset with its CRS in the coordinate `spatial_ref`, as CF and rioxarray write it."""
    import rioxarray  # noqa: F401  # adds the accessor

    from pipelines.grid import parse_crs

    written: xr.Dataset = dataset.rio.write_crs(parse_crs(crs))
    return written


def _as_datetime(date: Date) -> datetime:
    """UTC without a zone. Raises RequestError for what is not a date."""
    from pipelines.samples.plan import as_utc

    try:
        value = as_utc(date).astype("datetime64[us]").item()
    except ValueError as e:
        raise RequestError(f"{date!r} is not a date such as 2020-06-30") from e
    if not isinstance(value, datetime):
        raise RequestError(f"{date!r} is not a date such as 2020-06-30")
    return value
