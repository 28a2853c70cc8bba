"""What sections of a config are made of: the types of values, what a check finds, and the checks that several sections share.

Units are in the keys' names (`_px`, `_days`, `_mb`).
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from configs.paths import READ, WRITE, is_uri
from configs.yaml_positions import Key
from pipelines.calendar import UNKNOWN_ORIGIN, date_text
from pipelines.wording import has_credentials

RELATIVE_TO = "inputs are relative to the config, data/... and runs/... to the working folder"
Sections = Mapping[str, Any]  # the fields of a run -> their values; None for one that is wrong in itself


@dataclass(frozen=True)
class Finding:
    """A mistake before it is given its line: the key it belongs to, the problem, the remedy."""

    key: Key
    problem: str
    remedy: str = ""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def check(self, sections: Sections) -> Iterator[Finding]:
        """What the schema cannot say of this section: values that do not fit each other, without looking at any file."""
        yield from ()

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        """Findings for inputs that this section names and that are not there."""
        yield from ()


# ---------------------------------------------------------------- types


def _to_naive_utc(date: datetime) -> datetime:
    if not 1678 <= date.year <= 2261:  # what nanoseconds since 1970 in 64 bits reach; NumPy wraps round beyond it
        raise ValueError("a date between 1678 and 2261")
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date


def _is_iso(value: object) -> object:
    """Refuses numbers, also as text: 20200625 would be seconds since 1970. `24.5 s` is the time since the first frame."""
    if isinstance(value, date) or (isinstance(value, str) and re.match(r"\d{4}-", value)):
        return value
    if isinstance(value, str) and (elapsed := re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?) s", value)):
        return UNKNOWN_ORIGIN.astype("datetime64[us]").item() + timedelta(seconds=float(elapsed[1]))
    raise ValueError("a date such as 2020-06-30")


def _date_text(value: datetime) -> str:
    text = date_text(value)
    return text if text.endswith(" s") else value.isoformat()


def _as_path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a path of printable characters")
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as e:
        raise ValueError("a path below the home folder of somebody on this machine, or ./~NAME") from e


def _as_local(text: str) -> str:
    if is_uri(text):
        raise ValueError(
            "a path on this machine (of what a run names, only runs, the cube, staging, the state of monitoring and a trained "
            "model may be s3://bucket/prefix)"
        )
    return text


def _without_secrets(text: str) -> str:
    """Refuses what config.yaml, steps.jsonl and messages would repeat, and what nothing reads."""
    if has_credentials(text):
        raise ValueError("a URI without user, password and query; credentials are read from the variables AWS_*")
    return text


def _as_cube(text: str) -> str:
    return text if text.startswith("file://") else _as_model(text)


def _as_model(text: str) -> str:
    _as_runs(text)
    return text


def _as_runs(text: str) -> str:
    if not is_uri(text):
        return text
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket or not prefix.strip("/"):
        raise ValueError("a folder, or s3://bucket/prefix")
    return f"s3://{bucket}/{prefix.strip('/')}"


Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
LocalPath = Annotated[str, AfterValidator(_as_path), AfterValidator(_as_local)]
InputPath = Annotated[LocalPath, READ]
OutputPath = Annotated[LocalPath, WRITE]
CubeUri = Annotated[str, AfterValidator(_as_path), AfterValidator(_without_secrets), AfterValidator(_as_cube)]
ModelPath = Annotated[str, AfterValidator(_as_path), AfterValidator(_without_secrets), AfterValidator(_as_model)]
RunsUri = Annotated[str, AfterValidator(_as_path), AfterValidator(_without_secrets), AfterValidator(_as_runs), WRITE]
Address = Annotated[str, AfterValidator(_without_secrets)]
UtcDate = Annotated[  # without a zone it is UTC already
    datetime, BeforeValidator(_is_iso), AfterValidator(_to_naive_utc), PlainSerializer(_date_text, str, when_used="json")
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy, torch and scikit-learn all take


# ---------------------------------------------------------------- shared checks


def suggest(name: str, known: Sequence[str], otherwise: str, show: Callable[[str], str] = repr) -> str:
    """`did you mean ...?` with the closest of `known`, or `otherwise`."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {show(near[0])}?" if near else otherwise


def check_range(key: Key, valid_range: tuple[float, float] | None) -> Iterator[Finding]:
    if valid_range and valid_range[0] >= valid_range[1]:
        yield Finding((*key, "valid_range"), "the first value must be smaller than the second")


def check_must_beat(must_beat: Sequence[str], known: Sequence[str], noun: str) -> Iterator[Finding]:
    """Findings for methods of `evaluation.must_beat` that are not computed; `noun` is the key that lists those."""
    for index, name in enumerate(must_beat):
        if name not in known:
            problem = f"{name!r} must be beaten but is not among the {noun} that are computed"
            yield Finding(("evaluation", "must_beat", index), problem, f"add {name} to evaluation.{noun}")


def check_must_equal(must_equal: Sequence[str], references: Sequence[str]) -> Iterator[Finding]:
    """Findings for methods of `evaluation.must_equal` that are none of the references."""
    for index, name in enumerate(must_equal):
        if name not in references:
            yield Finding(
                ("evaluation", "must_equal", index), f"{name!r} is not among evaluation.references", f"add {name} there"
            )


def check_crs(key: Key, crs: str | None) -> Iterator[Finding]:
    if crs is None:
        return
    from rasterio.env import Env  # 0.2 s, and only for configs that name a CRS
    from rasterio.errors import CRSError

    from pipelines.grid import parse_crs

    try:
        with Env():  # inside an Env, PROJ's own message goes to logging instead of stderr
            parse_crs(crs)
    except CRSError:
        yield Finding(key, f"PROJ does not know the CRS {crs!r}", "an EPSG code such as EPSG:32635, a PROJ string or WKT")


def missing_file(key: Key, path: Path) -> Iterator[Finding]:
    """A finding if the file at `path` is not there."""
    if path.is_dir():
        yield Finding(key, f"{path} is a folder, expected a file")
    elif not path.exists():
        yield Finding(key, f"no file at {_readable(path)}", _path_remedy(path))


def missing_original(path: Path) -> Iterator[Finding]:
    """A finding if images of a patient are not there; it repeats no name, since names of files may name patients."""
    if not path.exists():
        problem = "there is no such file or folder"
        yield Finding(("source", "path"), problem, f"check the path (not repeated here: it may name a patient): {RELATIVE_TO}")


def missing_folder(path: Path) -> Iterator[Finding]:
    """A finding if the source's folder is not there."""
    if not path.is_dir():
        problem = f"{path} is not a folder" if path.exists() else f"no folder at {_readable(path)}"
        yield Finding(("source", "path"), problem, _path_remedy(path))


def missing_images(path: Path, sections: Sections) -> Iterator[Finding]:
    """A finding if the folder of images is not there; without its name where a section says that they are of a patient."""
    yield from missing_original(path) if is_of_patients(sections) else missing_folder(path)


def is_of_patients(sections: Sections) -> bool:
    """Whether a section `privacy` says that the images are of patients, and de-identified."""
    return bool(getattr(sections.get("privacy"), "deidentify", False))


def _readable(path: Path) -> str:
    """The path as it is written in the config, or absolute where it leads out of the working folder."""
    return str(path.resolve() if ".." in path.parts else path)


def _path_remedy(path: Path) -> str:
    if "nrt-0.2.1" in path.parts:
        return "`driftline demo` fetches the demo's data"
    otherwise, parent = f"check the path: {RELATIVE_TO}", path.parent
    if not parent.is_dir():
        return f"{otherwise}; --set source.path=... names another place"
    return suggest(path.name, [p.name for p in islice(parent.iterdir(), 5000)], otherwise, lambda name: str(parent / name))
