"""`covariates` of a forecast: static layers and drivers that its networks and gradient boosting are given beside the images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from configs.schema import Finding, InputPath, Name, Sections, Strict, missing_file
from configs.yaml_positions import Key
from pipelines.errors import RequestError

if TYPE_CHECKING:
    from configs.trained import Trained
    from models.covariates import CovariateScaling
    from pipelines.grid import Grid
    from pipelines.samples.covariates import Covariates

NETCDF = (".nc", ".nc4", ".h5", ".hdf5", ".he5")


class StaticConfig(Strict):
    """A raster that does not change with time, warped onto the cube's grid."""

    name: Name = Field(description="its name in tables and messages")
    path: InputPath = Field(description="a GeoTIFF, COG or JPEG 2000 file, in any CRS")
    band: int | None = Field(None, ge=1, description="of a file with several: the number of the band, from 1")
    kind: Literal["number", "class"] = Field("number", description="class: codes, each of `classes` a channel of 0 and 1")
    classes: list[int] = Field([], max_length=64, description="of `kind: class`: the codes; pixels of other codes are in none")
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = Field(
        "bilinear", description="of numbers; average for rasters finer than the cube; classes are always nearest"
    )
    unit: str = Field("", description="compared with that of the file where it states one")
    max_missing: float = Field(
        0.2, ge=0, le=1, description="largest share of pixels without a value, which get the mean and are marked as unknown"
    )


class DriverConfig(Strict):
    """A series on its own time axis, such as rain: of the whole place (CSV), or on a grid of its own (netCDF)."""

    name: Name = Field(description="its name in tables and messages")
    path: InputPath = Field(description="a CSV file, or a netCDF-4 file with `variable`")
    variable: str | None = Field(None, description="of netCDF: the variable (time, y, x); each pixel has the nearest cell")
    date_column: str = Field("date", description="of a CSV: ISO 8601 dates; one row per time step, zeros included")
    value_column: str = Field("value", description="of a CSV: numbers; empty where missing")
    zone: str = Field("UTC", description="of times in a CSV that state no offset, e.g. Europe/Bucharest")
    unit: str = Field("", description="compared with that of the file where it states one")
    summary: Literal["mean", "sum", "min", "max", "last"] = Field(
        "mean", description="what a step is given of its values since the step before"
    )
    known: Literal["future", "past"] = Field(
        description="past: given up to the issue date; future: up to each target, known or forecast"
    )
    missing: Literal["refuse", "climatology"] = Field(
        "refuse", description="of `known: future`, where a prediction lacks it: stop, or take its mean of the season"
    )
    delay_days: float | None = Field(
        None, ge=0, description="from the time of a value until it is known; default: 1 where times are whole days, else 0"
    )
    max_missing: float = Field(0.2, ge=0, le=1, description="largest share of intervals between training dates without a value")


class CovariatesConfig(Strict):
    """What forecasts are given beside the images."""

    static: list[StaticConfig] = Field([], max_length=64, description="rasters that do not change, such as elevation")
    drivers: list[DriverConfig] = Field([], max_length=64, description="series such as weather, calendar or management")

    @property
    def is_empty(self) -> bool:
        return not (self.static or self.drivers)

    @property
    def count(self) -> int:
        """Of the channels that a network is given."""
        return sum(max(len(one.classes), 1) for one in self.static) + len(self.drivers)

    def sentence(self) -> str:
        """All by name, e.g. elevation (number), rain (sum of each step, known future)."""
        static = [f"{one.name} ({one.kind})" for one in self.static]
        drivers = [f"{one.name} ({one.summary} of each step, known {one.known})" for one in self.drivers]
        return ", ".join([*static, *drivers])

    def check(self, sections: Sections) -> Iterator[Finding]:
        if not self.is_empty and getattr(sections.get("model"), "baseline", None) == "moving_field":
            problem = "stay in place, but with `model.baseline: moving_field` the network follows the field"
            yield Finding(("covariates",), problem, "another baseline, or take them out")
        variables = {variable.name for variable in getattr(sections.get("samples"), "variables", ())}
        names: set[str] = set()
        for part in ("static", "drivers"):
            for index, one in enumerate(getattr(self, part)):
                if one.name in names:
                    yield Finding(("covariates", part, index, "name"), f"covariate {one.name!r} is listed twice")
                if one.name in variables:
                    problem = f"{one.name!r} is a variable that is forecast"
                    yield Finding(("covariates", part, index, "name"), problem, "give the covariate another name")
                names.add(one.name)
        for index, layer in enumerate(self.static):
            if (layer.kind == "class") != bool(layer.classes):
                key: Key = ("covariates", "static", index, "classes")
                yield Finding(key, "are the codes of `kind: class`, and of nothing else", "for example classes: [1, 2, 3]")
            if len(set(layer.classes)) < len(layer.classes):
                yield Finding(("covariates", "static", index, "classes"), f"{layer.classes} name a class twice", "each code once")
        for index, driver in enumerate(self.drivers):
            at: Key = ("covariates", "drivers", index)
            if (Path(driver.path).suffix.lower() in NETCDF) != (driver.variable is not None):
                yield Finding((*at, "variable"), "names the variable of a netCDF file (.nc), and of nothing else")
            if driver.known == "past" and driver.missing == "climatology":
                yield Finding((*at, "missing"), "has no meaning for `known: past`, which needs no future", "take it out")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        for part in ("static", "drivers"):
            for index, one in enumerate(getattr(self, part)):
                yield from missing_file(("covariates", part, index, "path"), Path(one.path))


def build_covariates(chosen: CovariatesConfig, grid: Grid) -> Covariates | None:
    """The covariates on the cube's grid; None without any. Raises MissingInput, RequestError."""
    if chosen.is_empty:
        return None
    from pipelines.samples.covariate_files import DriverFile, StaticFile, load

    static = tuple(
        StaticFile(one.name, Path(one.path), tuple(one.classes), one.resampling, one.unit, one.max_missing, one.band)
        for one in chosen.static
    )
    drivers = tuple(
        DriverFile(
            one.name, Path(one.path), one.variable or "", (one.date_column, one.value_column), one.zone, one.unit, one.summary,
            one.known, one.missing, one.delay_days, one.max_missing,
        )
        for one in chosen.drivers
    )  # fmt: skip
    return load(static, drivers, grid)


def sentence_of_scores(chosen: CovariatesConfig) -> tuple[str, ...]:
    """What must be known of scores with drivers that are known ahead."""
    if not (ahead := [driver.name for driver in chosen.drivers if driver.known == "future"]):
        return ()
    return (
        f"Scores and intervals were made with {' and '.join(ahead)} as recorded up to each target date: where the file holds a "
        "forecast of it in their place, errors are larger.",
    )


def covariates_of(trained: Trained) -> CovariateScaling | None:
    """Those that a model was trained with, from its description."""
    from models.covariates import CovariateScaling

    return CovariateScaling.from_description(trained.architecture.get("covariates"))


def check_model(trained: CovariateScaling | None, chosen: CovariatesConfig) -> None:
    """Raises RequestError where a model was trained with other covariates than the config names."""
    static = [name for one in chosen.static for name in [f"{one.name}={code}" for code in one.classes] or [one.name]]
    drivers = [driver.name for driver in chosen.drivers]
    stated = static, drivers, [driver.name for driver in chosen.drivers if driver.known == "future"]
    known = ([], [], []) if trained is None else tuple(map(list, (trained.static, trained.drivers, trained.future)))
    if stated != known:
        with_these, here = (", ".join([*of[0], *of[1]]) or "none" for of in (known, stated))
        ahead = f" (known ahead: {', '.join(known[2]) or 'none'})" if known[:2] == stated[:2] else ""
        raise RequestError(
            f"the model was trained with the covariates {with_these}{ahead}, the config's section `covariates` names {here}: "
            "name the same ones, in the same order, or train again"
        )


def build_scaling(measured: list[dict[str, object]]) -> CovariateScaling | None:
    """How a network standardises the covariates, from `Covariates.measure`; None without any."""
    if not measured:
        return None
    from models.covariates import CovariateScaling

    static = [one for one in measured if one["kind"] in ("static", "class")]
    drivers = [one for one in measured if one["kind"] in ("past", "future")]
    return CovariateScaling(
        tuple(str(one["name"]) for one in static),
        tuple(str(one["name"]) for one in drivers),
        tuple(str(one["name"]) for one in drivers if one["kind"] == "future"),
        tuple(float(str(one["mean"])) for one in (*static, *drivers)),
        tuple(float(str(one["std"])) for one in (*static, *drivers)),
    )
