"""The types of a config's values: names, fractions, paths, dates. Units are in the keys' names (`_px`, `_days`, `_mb`)."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from configs.paths import READ, WRITE, is_uri


def _to_naive_utc(date: datetime) -> datetime:
    if not 1678 <= date.year <= 2261:  # what nanoseconds since 1970 in 64 bits reach; NumPy wraps round beyond it
        raise ValueError("a date between 1678 and 2261")
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date


def _as_path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a path of printable characters")
    return text


def _as_local(text: str) -> str:
    if is_uri(text):
        raise ValueError("a path on this machine (of all that a run reads and writes, only cube.uri may be s3://bucket/prefix)")
    return text


def _as_cube(text: str) -> str:
    if is_uri(text) and not text.startswith(("s3://", "file://")):
        raise ValueError("a folder, or s3://bucket/prefix")
    return text


Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
LocalPath = Annotated[str, AfterValidator(_as_path), AfterValidator(_as_local)]
InputPath = Annotated[LocalPath, READ]
OutputPath = Annotated[LocalPath, WRITE]
CubeUri = Annotated[str, AfterValidator(_as_path), AfterValidator(_as_cube)]
UtcDate = Annotated[datetime, AfterValidator(_to_naive_utc)]  # without a zone it is UTC already


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
