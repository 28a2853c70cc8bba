"""Runs: what a config describes, carried out as the command line does, and what it left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import DriftlineError, MissingInput, RequestError
from pipelines.notebook import html_table
from pipelines.working_copies import open_stored

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from flows.steps import Display
    from pipelines.learning.result import Evaluation, Verdict

RASTERS, VECTORS = (".tif",), (".gpkg", ".parquet", ".geojson")


def run(
    config: str | Path | Mapping[str, object],
    overrides: Sequence[str] | Mapping[str, object] = (),
    verb: str = "run",
    *,
    even_if_worse: bool = False,
    even_if_confounded: bool = False,
    restart: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Run:
    """Carries out a run as `driftline VERB CONFIG` does, without Prefect, and returns what is in its folder.

    config: a YAML file, or a mapping with the content of one, whose paths are relative to the working folder. overrides: values
    in place of those of the config, {"training.epochs": 5} or ["training.epochs=5"]. verb: run, ingest, train, evaluate,
    predict, verify, monitor or report. even_if_worse: publish a model that does not beat its baselines. restart: of monitoring,
    without its saved state. force: publish what covers a smaller extent or fewer dates than what it replaces. progress: bars on
    stderr.

    What is up to date is not done again. Raises ConfigError with all mistakes, and NotPublished where the model must not be
    published: `open_run` then opens the folder with the evaluation and the report.

        run = driftline.run("my-run.yaml", {"training.epochs": 5})
        run.summary["sentence"]
    """
    from flows.stage import carry_out
    from flows.task import open_invocation, remembering_folder
    from flows.verbs import READS_SOURCE

    invocation = open_invocation(
        config,
        override_texts(overrides),
        display(progress),
        inputs_must_exist=verb in READS_SOURCE,
        even_if_worse=even_if_worse,
        even_if_confounded=even_if_confounded,
        restart=restart,
        force=force,
    )
    with remembering_folder(invocation):
        carry_out(invocation, verb)
    return Run(invocation.folder.path)


def open_run(folder: str | Path) -> Run:
    """The run in `folder`, such as runs/demo, whose stages may be finished or not; of s3://bucket/prefix/NAME the version that is
    published now. Raises MissingInput.

    >>> open_run("runs/no-such-run")
    Traceback (most recent call last):
    pipelines.errors.MissingInput: runs/no-such-run is not the folder of a run (no config.yaml); runs are in runs/NAME
    """
    path = open_stored(str(folder)) if str(folder).startswith("s3://") else Path(folder)
    if not (path / "config.yaml").is_file():
        raise MissingInput(f"{path} is not the folder of a run (no config.yaml); runs are in runs/NAME")
    return Run(path)


def override_texts(overrides: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Overrides as `--set` takes them.

    >>> override_texts({"training.epochs": 5, "model.hidden": [8]})
    ['training.epochs=5', 'model.hidden=[8]']
    """
    if isinstance(overrides, str):
        raise RequestError(f'overrides={overrides!r}: expected a list such as ["training.epochs=5"], or {{"training.epochs": 5}}')
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]


def display(progress: bool) -> Display | None:
    """Bars on stderr, or nothing."""
    if not progress:
        return None
    from flows.terminal import Bars

    return Bars()


@dataclass(frozen=True)
class Run:
    """A run by its folder. Everything is read from there when it is asked for, so it shows what the last call of a verb left."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json (docs/summary.md). Raises MissingInput before the first report."""
        from pipelines.products.summary import read_summary

        return read_summary(self.folder / "summary.json")

    @property
    def evaluation(self) -> Evaluation | None:
        """Figures of the model and of its baselines; None before the first evaluation. Raises ArtefactDamaged."""
        return read_evaluation(self.folder)

    @property
    def verdict(self) -> Verdict | None:
        """Whether the model may be published, and why, in `sentence`; None before the first evaluation."""
        evaluation = self.evaluation
        return evaluation.verdict if evaluation else None

    @property
    def report(self) -> Path:
        """The offline page. Raises MissingInput before the first report."""
        path = self.folder / "report.html"
        if not path.is_file():
            raise MissingInput(f"{path} is not there; driftline.run(..., verb='report') writes it")
        return path

    def open(self) -> Products:
        """The published rasters and vectors by file name; empty where nothing is published. Each is opened when it is asked for.

        open_run("runs/demo").open()["forecast_2020-07-05.tif"].ndvi
        """
        names = self.summary["products"]["files"]
        return Products(self.folder, tuple(name for name in names if Path(name).suffix in RASTERS + VECTORS))

    def __repr__(self) -> str:
        try:
            said = f": {self.summary['sentence']}"
        except (DriftlineError, KeyError):
            said = ""
        return f"Run({str(self.folder)!r}{said})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("folder", self.folder)]
        notes = []
        if (self.folder / "summary.json").is_file():
            summary = self.summary
            notes.append(str(summary["sentence"]))
            rows += [("task", summary["task"]), ("products", len(summary["products"]["files"])), ("report", self.report)]
        if (verdict := self.verdict) is not None:
            rows.append(("verdict", verdict.sentence))
        return html_table(f"Run {self.name}", rows, notes=notes)


@dataclass(frozen=True)
class Products(Mapping[str, Any]):
    """File name -> product: a raster as xr.Dataset with one variable per band, NaN = no data; a vector file as GeoDataFrame."""

    folder: Path
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> xr.Dataset | gpd.GeoDataFrame:
        path = next((self.folder / one for one in self.names if Path(one).name == name), None)
        if path is None:
            raise KeyError(f"{name}; there are: {', '.join(self) or 'none'}")
        return open_raster(path) if path.suffix in RASTERS else open_vectors(path)

    def __iter__(self) -> Iterator[str]:
        return (Path(name).name for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _repr_html_(self) -> str:
        return html_table("Products", [(name, self.folder) for name in self])


def open_raster(path: Path) -> xr.Dataset:
    """A GeoTIFF of a run, lazily: a variable (y, x) per band, named by the band's description, with its CRS in `spatial_ref`."""
    import rioxarray
    import xarray as xr

    opened = rioxarray.open_rasterio(path, masked=True, band_as_variable=True, driver="GTiff")
    assert isinstance(opened, xr.Dataset), "one file without subdatasets is one Dataset"
    titles = {str(name): str(image.attrs.get("long_name") or name) for name, image in opened.data_vars.items()}
    return opened.rename({name: title for name, title in titles.items() if list(titles.values()).count(title) == 1})


def open_vectors(path: Path) -> gpd.GeoDataFrame:
    """The layer of a vector file of a run."""
    import geopandas as gpd

    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


def read_evaluation(folder: Path) -> Evaluation | None:
    """The evaluation of the run in `folder`. Raises ArtefactDamaged."""
    from flows.folder import read_json
    from pipelines.errors import ArtefactDamaged
    from pipelines.learning.result import Evaluation

    path, remedy = folder / "evaluation.json", "run `driftline evaluate CONFIG` again"
    if not path.is_file():
        return None
    try:
        return Evaluation.from_json(read_json(path, remedy))
    except (KeyError, TypeError) as e:
        raise ArtefactDamaged(f"{path} is not an evaluation of this version ({e}); {remedy}") from e
