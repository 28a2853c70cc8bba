"""driftline from Python: forecasts and change of image time series that are files, a cube, or xarray Datasets in memory.

    import driftline

    forecaster = driftline.train(dataset, variable="ndvi", horizon=3)   # an xarray Dataset (time, y, x) with a CRS
    forecast = forecaster.predict()                                     # forecast, lower, upper (time, y, x)
    run = driftline.run("my-run.yaml")                                  # what `driftline run my-run.yaml` does

Nothing heavy is imported before one of the names is used. docs/api.md shows the whole way.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftline.cubes import ingest, open_cube
    from driftline.forecaster import Forecaster, load_model, predict, train
    from driftline.images import find_change
    from driftline.runs import Products, Run, open_run, run

    __version__: str

_WHERE = {
    "driftline.cubes": ("ingest", "open_cube"),
    "driftline.forecaster": ("Forecaster", "load_model", "predict", "train"),
    "driftline.images": ("find_change",),
    "driftline.runs": ("Products", "Run", "open_run", "run"),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Forecaster",
    "Products",
    "Run",
    "__version__",
    "find_change",
    "ingest",
    "load_model",
    "open_cube",
    "open_run",
    "predict",
    "run",
    "train",
]


def __getattr__(name: str) -> object:
    """A public name, imported when it is first used (PEP 562)."""
    if name == "__version__":
        value: object = _version()
    elif name in _MODULES:
        import_module("flows")  # first: it sets what torch reads when it is loaded
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("driftline")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+source"
