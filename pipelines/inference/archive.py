"""Published forecasts as they were: a folder per forecast, written as a whole or not at all (docs/design/017).

    archive/20200605T101559Z-1b2c3d4e/archived.json     what, of when, by which model: `Archived`
    archive/20200605T101559Z-1b2c3d4e/fields.zarr       Zarr 3: the groups `published` and `rival`, arrays VARIABLE_ROLE

Arrays are float32 (target, [z,] y, x) on the grid of the run's cube, NaN = not predicted, each chunk with a checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from pipelines.calendar import median_step_days, parse_utc, to_days
from pipelines.cube.georeference import geozarr_attributes
from pipelines.cube.integrity import pixel_codecs
from pipelines.errors import ArtefactDamaged
from pipelines.files import naming_full_disk, sync, write_json
from pipelines.grid import Grid
from pipelines.inference.job import Request
from pipelines.inference.staging import Field, Staged
from pipelines.samples.plan import Sampling
from pipelines.samples.variables import Variable
from pipelines.samples.windows import resolve_steps

VERSION = 1
ABOUT, FIELDS = "archived.json", "fields.zarr"
CHUNK_PX, CHUNK_VOXELS = 512, 64
SAME_DAY = 0.5  # days between a target and the observation that is its truth, at most, where steps are the observed dates
MADE = ("archived_utc", "version")  # not what a forecast is, but when and how it was stored

Who = Literal["published", "rival"]


@dataclass(frozen=True)
class Archived:
    """What one archived forecast is. `method` was published, `rival` ("": none) is the method that it is compared with.

    target_utc: one date per lead. lead_K: the lead of each, from 1. interval: nominal coverage of the bounds. tolerance_days: how
    far an observation may be from its target. snapshot: of the cube that it was made from. variables: as `Variable`. grid: digest
    of the grid. archived_utc: when it was stored.
    """

    issued_utc: str
    target_utc: tuple[str, ...]
    lead_K: tuple[int, ...]
    method: str
    rival: str
    model_hash: str
    snapshot: str
    variables: tuple[Mapping[str, Any], ...]
    interval: float
    tolerance_days: float
    shape: tuple[int, ...]
    grid: str
    archived_utc: str
    version: int = VERSION

    @property
    def name(self) -> str:
        """Of its folder: the issue date, and a digest of all else, so that another model or method never takes its place."""
        content = {name: value for name, value in asdict(self).items() if name not in MADE}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{re.sub('[-:]', '', self.issued_utc)}-{digest[:8]}"

    def to_variables(self) -> tuple[Variable, ...]:
        """The variables as they were defined then, whatever the config says now."""
        made = []
        for one in self.variables:
            limits = one["valid_range"]
            made.append(Variable(one["name"], one["formula"], tuple(one["bands"]), one["transform"], limits and tuple(limits)))
        return tuple(made)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Archived:
        """What `asdict` gave, read from JSON. Raises KeyError or TypeError for anything else."""
        tuples = {name: tuple(content[name]) for name in ("target_utc", "lead_K", "variables", "shape")}
        return cls(**{**content, **tuples})


def describe(
    request: Request, steps: Sampling, *, method: str, rival: str, model_hash: str, interval: float, archived_utc: str
) -> Archived:
    """What is archived of a forecast that answers `request`."""
    lead_K = range(len(request.target_utc)) if request.steps.lead_K is None else request.steps.lead_K.tolist()
    variables = [json.loads(json.dumps(asdict(variable))) for variable in request.variables]  # tuples as JSON gives them back
    return Archived(
        issued_utc=request.issued_utc,
        target_utc=tuple(request.targets_iso),
        lead_K=tuple(lead + 1 for lead in lead_K),
        method=method,
        rival=rival,
        model_hash=model_hash,
        snapshot=request.snapshot,
        variables=tuple(variables),
        interval=interval,
        tolerance_days=tolerance_days(request.dataset["time"].values, steps),
        shape=tuple(request.grid.shape),
        grid=digest_of_grid(request.grid),
        archived_utc=archived_utc,
    )


def tolerance_days(times: np.ndarray, steps: Sampling) -> float:
    """How far an observation may be from the target that it is the truth of.

    Regular steps: as `samples.steps` says. Observed dates: half a day, since the time of day of an overpass varies, of faster
    series half a step.
    """
    if steps.mode == "regular":
        return resolve_steps(times, steps)[1]
    return min(SAME_DAY, median_step_days(times) / 2) if len(times) > 1 else SAME_DAY


def digest_of_grid(grid: Grid) -> str:
    return hashlib.sha256(repr(grid).encode()).hexdigest()[:16]


def keep(archived: Archived, grid: Grid, staged: Mapping[Who, Staged], folder: Path) -> Path:
    """The folder of the forecast below `folder`, with the fields of `published` and, where there is one, of its `rival`.

    It appears by one rename; one that is there already is left as it is. Raises StorageFull.
    """
    final = folder / archived.name
    if (final / ABOUT).exists():
        return final
    draft = folder / f".{archived.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with naming_full_disk(folder):
            root = zarr.create_group(draft / FIELDS, zarr_format=3, attributes=dict(geozarr_attributes(grid)))
            for who, fields in staged.items():
                _write(root.create_group(who), fields, archived)
        write_json(draft / ABOUT, asdict(archived), is_strict=True)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one, without its description
        draft.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return final


def _write(group: zarr.Group, staged: Staged, archived: Archived) -> None:
    """The fields, strip by strip."""
    shape, targets = staged.shape, len(archived.target_utc)
    side = CHUNK_PX if len(shape) == 2 else CHUNK_VOXELS
    chunk, dims = tuple(min(side, size) for size in shape), ("z", "y", "x")[-len(shape) :]
    millis = np.round(to_days(np.array([parse_utc(date) for date in archived.target_utc])) * 86_400e3).astype("int64")
    units = {"units": "milliseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    how: dict[str, Any] = {"dtype": "int64", "dimension_names": ("target",), "attributes": units}
    dates: Any = group.create_array("target", shape=(targets,), **how)
    dates[:] = millis
    for variable, role in sorted({(field.variable, field.role) for field in staged.fields}):
        array: Any = group.create_array(
            f"{variable}_{role}",
            shape=(targets, *shape),
            chunks=(1, *chunk),
            dtype="float32",
            fill_value=np.nan,
            compressors=pixel_codecs(4),
            dimension_names=("target", *dims),
            config={"write_empty_chunks": True},  # a chunk that is not there is a loss, not a field without numbers
        )
        for k in range(targets):
            for start in range(0, shape[0], chunk[0]):
                rows = slice(start, min(start + chunk[0], shape[0]))
                array[k, rows] = staged.read(Field(k, variable, role), rows)


def read_archive(folder: Path) -> tuple[dict[str, Archived], list[str]]:
    """(what is archived, by the name of its folder, oldest first; sentences on folders that cannot be read)."""
    found: dict[str, Archived] = {}
    problems = []
    for path in sorted(folder.glob("[!.]*/")):
        try:
            archived = Archived.from_json(json.loads((path / ABOUT).read_text(encoding="utf-8")))
            if archived.version != VERSION:
                raise ValueError(f"version {archived.version}, expected {VERSION}")
            dates = [parse_utc(date) for date in (archived.issued_utc, *archived.target_utc)]
            if not len(dates) == len(archived.lead_K) + 1 or not archived.to_variables():
                raise ValueError("leads, dates and variables do not fit together")
            found[path.name] = archived
        except (OSError, ValueError, KeyError, TypeError) as e:
            problems.append(f"{path}: no archived forecast that can be read ({e}); it is not scored")
    order = sorted(found, key=lambda name: (parse_utc(found[name].issued_utc), found[name].archived_utc))
    return {name: found[name] for name in order}, problems


@dataclass(frozen=True)
class ArchivedFields:
    """The fields in the folder of an archived forecast."""

    path: Path

    def read(self, who: Who, variable: str, role: str, target: int, rows: slice) -> np.ndarray:
        """A strip of the field, float32 (rows, ...). Raises ArtefactDamaged."""
        try:
            array = self._array(who, variable, role)
            return np.asarray(array[target, rows])
        except (OSError, ValueError, KeyError, RuntimeError) as e:
            raise ArtefactDamaged(f"{self.path}: {variable}, {role} of {who}, cannot be read ({e}); it is not scored") from e

    def check(self) -> None:
        """Raises ArtefactDamaged if a chunk is missing, which Zarr would read as NaN."""
        try:
            root = zarr.open_group(self.path / FIELDS, mode="r")
            arrays = [array for _, group in root.groups() for _, array in group.arrays()]
            lost = [array.path for array in arrays if array.nchunks_initialized != array.nchunks]
        except (OSError, ValueError, KeyError) as e:
            raise ArtefactDamaged(f"{self.path}: its fields cannot be opened ({e}); it is not scored") from e
        if lost or not arrays:
            raise ArtefactDamaged(f"{self.path}: parts of {lost[0] if lost else FIELDS} are missing; it is not scored")

    def _array(self, who: Who, variable: str, role: str) -> Any:
        return zarr.open_array(self.path / FIELDS / who / f"{variable}_{role}", mode="r")
