"""Decodes stored values to variables: a band, or an index of two bands, in physical values."""

from dataclasses import dataclass

import numpy as np

from pipelines.errors import RequestError
from pipelines.scene import Band

BANDS_NEEDED = {"band": 1, "normalized_difference": 2, "ratio": 2}


@dataclass(frozen=True)
class Variable:
    """One channel of the samples.

    `formula` is `band` (a), `normalized_difference` ((a - b) / (a + b)) or `ratio` (a / b) of `bands` (a, b), in physical
    values. `valid_range` is inclusive, physical; values outside are invalid. `transform` is applied by the forecaster.
    """

    name: str
    formula: str
    bands: tuple[str, ...]
    transform: str = "none"
    valid_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.formula not in BANDS_NEEDED:
            raise RequestError(f"variable {self.name}: unknown formula {self.formula!r}; supported: {', '.join(BANDS_NEEDED)}")
        if len(self.bands) != (needed := BANDS_NEEDED[self.formula]):
            raise RequestError(
                f"variable {self.name}: formula {self.formula} takes {needed} band{'s' * (needed > 1)}, "
                f"got {len(self.bands)} ({', '.join(self.bands) or 'none'}); correct samples.variables"
            )


def transformed(values: np.ndarray, transform: str) -> np.ndarray:
    """Physical values on the scale of `Variable.transform`; values below 0 count as 0 for log1p."""
    return np.log1p(np.maximum(values, 0)) if transform == "log1p" else values


def restored(values: np.ndarray, transform: str) -> np.ndarray:
    """The inverse of `transformed`; never below 0 for log1p."""
    return np.maximum(np.expm1(values), 0) if transform == "log1p" else values


def used_bands(bands: tuple[Band, ...], variables: tuple[Variable, ...]) -> tuple[int, ...]:
    """Indices into `bands` of those that any variable uses, ascending. Raises RequestError for a band that is not there."""
    index = {band.name: number for number, band in enumerate(bands)}
    for variable, name in ((one, name) for one in variables for name in one.bands):
        if name not in index:
            raise RequestError(
                f"variable {variable.name}: the cube has no band {name!r}, only {', '.join(index)}: correct samples.variables"
            )
    return tuple(sorted({index[name] for variable in variables for name in variable.bands}))


def decode(
    image_NBYX: np.ndarray, valid_NYX: np.ndarray, bands: tuple[Band, ...], variables: tuple[Variable, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(x_NCYX float32 physical values, 0 where invalid; valid_NYX bool) of stored values, new arrays.

    `image_NBYX` has an image (or volume) per entry of `bands`. A pixel-date is valid if `valid_NYX` is True and every variable
    can be computed from stored values that are not nodata and within range, is finite and within its own `valid_range`. An index
    with a denominator of zero is invalid.
    """
    valid = valid_NYX.astype(bool, copy=True)
    planes = {bands[i].name: physical(image_NBYX[:, i], bands[i], valid) for i in used_bands(bands, variables)}
    x_NCYX = np.empty((len(image_NBYX), len(variables), *valid.shape[1:]), np.float32)
    for channel, variable in enumerate(variables):
        x_NCYX[:, channel] = compute_variable(variable, planes, valid)
    np.copyto(x_NCYX, 0, where=~valid[:, None])
    return x_NCYX, valid


def physical(stored_NYX: np.ndarray, band: Band, valid_NYX: np.ndarray) -> np.ndarray:
    """Stored values as physical float32 values; clears `valid_NYX` in place where they are nodata or out of range."""
    if band.nodata is not None and not np.isnan(band.nodata):
        valid_NYX &= stored_NYX != band.nodata
    if band.valid_range is not None:
        valid_NYX &= (stored_NYX >= band.valid_range[0]) & (stored_NYX <= band.valid_range[1])
    with np.errstate(over="ignore"):  # a nodata of -1.7e308 becomes inf, which is not valid
        value = stored_NYX.astype(np.float32)
    if band.scale != 1.0:
        value *= np.float32(band.scale)
    if band.offset != 0.0:
        value += np.float32(band.offset)
    return value


def compute_variable(variable: Variable, planes: dict[str, np.ndarray], valid_NYX: np.ndarray) -> np.ndarray:
    """The variable in physical values (arbitrary where invalid); clears `valid_NYX` in place where it is not defined."""
    if variable.formula == "band":
        value = planes[variable.bands[0]]
    else:
        first, second = (planes[name] for name in variable.bands)
        with np.errstate(invalid="ignore", over="ignore"):  # inf and nan of float cubes become invalid below
            above, below = (first - second, first + second) if variable.formula == "normalized_difference" else (first, second)
            value = np.divide(above, below, out=np.full_like(first, np.nan), where=below != 0)
    valid_NYX &= np.isfinite(value)
    if variable.valid_range is not None:
        with np.errstate(invalid="ignore"):
            valid_NYX &= (value >= variable.valid_range[0]) & (value <= variable.valid_range[1])
    return value
