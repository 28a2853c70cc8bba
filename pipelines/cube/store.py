"""Location, lock and layout of a cube: an Icechunk repository that holds one xarray Dataset (docs/design/001-spine.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr
from zarr.core.common import JSON

from pipelines.cube.checksums import require_sums, write_sums
from pipelines.cube.georeference import describe_axis, frame_attributes, geozarr_attributes
from pipelines.cube.integrity import (
    COLUMN_CODECS,
    SEAL,
    first_line,
    naming_damage,
    pixel_codecs,
    read_contents,
    remedy_for,
    require_format_1,
    require_seal,
    storage_errors,
)
from pipelines.cube.shards import shard_shape, shard_width
from pipelines.errors import ArtefactDamaged, CubeBusy, CubeMismatch, MissingInput
from pipelines.files import Held, exclusive_owner
from pipelines.grid import Grid, ImagePlane, PatientFrame, parse_crs
from pipelines.scene import Band, bands_from_json, fill_value
from pipelines.stored_files import bucket_of, endpoint, files_at, is_remote, region

if TYPE_CHECKING:  # with pandas and dask it takes longer to import than an ingest of nothing new
    import xarray as xr

# exclusive_writer ensures one committer at a time, as Icechunk's warning about local disks demands
icechunk.set_logs_filter("warn,icechunk::storage::object_store=error,icechunk::repository=off")

BRANCH = "main"
FORMATS = {2: 1, 3: 2}  # axes of space -> of the layout below; increased when older readers would misread it
IMAGE, VALID = "image", "valid"
STEP_TEXTS = ("scene_id", "content_hash", "source", "fingerprint")  # one string per date
STEP_TIMES = ("time", "ingested_utc")  # one time per date
COORDINATES = (*STEP_TEXTS, "ingested_utc", "valid_fraction", "spatial_ref")
NANOSECONDS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
VALID_WIDTH = 8  # chunks of `valid` are up to this many times wider than those of `image`: they compress 50 times better
STEPS_PER_CHUNK = 4096  # of the per-date coordinates: one small file each for ten years of scenes


# ---------------------------------------------------------------- location


def local_path(uri: str) -> Path:
    """The folder of a local cube. Raises CubeMismatch for a remote one."""
    if is_remote(uri):
        raise CubeMismatch(f"{uri} is not on this machine")
    return Path(uri.removeprefix("file://")).expanduser().absolute()


def storage_of(uri: str) -> icechunk.Storage:
    """A local folder, or `s3://bucket/prefix` with region, endpoint and credentials from the usual AWS_* variables."""
    if not is_remote(uri):
        return icechunk.local_filesystem_storage(str(local_path(uri)))
    bucket, prefix = bucket_of(uri)
    address = endpoint()
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=region(),
        endpoint_url=address,
        allow_http=bool(address and address.startswith("http://")),
        force_path_style=address is not None,
        from_env=True,
    )


def open_repository(uri: str) -> icechunk.Repository:
    """The repository of an existing cube. Raises MissingInput, ArtefactDamaged, CubeMismatch (of Icechunk 2)."""
    if not is_remote(uri):
        if not local_path(uri).is_dir():
            raise MissingInput(f"no cube at {uri}; create one with `driftline ingest CONFIG`")
        require_format_1(uri)
    storage = storage_of(uri)
    with naming_damage(uri, "cannot be opened"):
        if not icechunk.Repository.exists(storage):
            require_format_1(uri)
            below = [] if is_remote(uri) else [*Path(uri).glob("cube"), *sorted(Path(uri).glob("cubes/*"))]  # of a run's folder
            remedy = f"did you mean {below[0]}?" if below else "create one with `driftline ingest CONFIG`"
            if not is_remote(uri) and (local_path(uri) / "snapshots").is_dir():
                raise ArtefactDamaged(f"the cube at {uri} is damaged: it has no branch {BRANCH}; {remedy_for(uri)}")
            raise MissingInput(f"{uri} holds no cube (no Icechunk repository); {remedy}")
        return icechunk.Repository.open(storage)


def has_repository(uri: str) -> bool:
    """Whether there is a cube; False where one could be created. Raises CubeMismatch if the folder holds something else."""
    if is_remote(uri):
        return bool(icechunk.Repository.exists(storage_of(uri)))
    path = local_path(uri)
    if not path.exists():
        return False
    if not path.is_dir():
        raise CubeMismatch(f"{path} is a file; a cube is a folder: choose another path (in a config cube.uri)")
    if icechunk.Repository.exists(storage_of(uri)) or (path / "snapshots").is_dir():
        return True
    if foreign := sorted(entry.name for entry in path.iterdir()):
        shown = ", ".join(foreign[:3])
        raise CubeMismatch(f"{path} holds other files ({shown}): name an empty or new folder (in a config cube.uri)")
    return False


def open_or_create_repository(uri: str) -> icechunk.Repository:
    """The repository at `uri`, created if there is none. Raises CubeMismatch if the folder holds something else."""
    if is_remote(uri):
        if not has_repository(uri):
            require_format_1(uri)
        return icechunk.Repository.open_or_create(storage_of(uri))
    if has_repository(uri):
        return open_repository(uri)
    path = local_path(uri)
    # created in a temporary folder and renamed: a killed Icechunk leaves a folder that it cannot open again
    staging = path.with_name(f".{path.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(staging)))
    staging.rename(path)
    return open_repository(uri)


@contextmanager
def exclusive_writer(uri: str) -> Iterator[None]:
    """Holds the cube for writing: Icechunk can lose commits of concurrent processes on a local disk (measured: 3 of 32).

    The lock file is kept beside the cube (removing it would let two writers lock two files of one name). At the end the checksums
    of new files are noted. On S3 nothing is locked: Icechunk detects a conflict at the commit. Of two writers one may then miss
    files of the other in the list of checksums; the next writer adds them.

    Raises CubeBusy at once if another process or thread is writing; the message names it. Raises StorageFull.
    """
    if is_remote(uri):
        yield
        with storage_errors(uri):
            write_sums(files_at(uri))
        return
    path = local_path(uri)
    try:
        with exclusive_owner(path.with_name(path.name + ".lock"), path.with_name(path.name + ".writer.json")):
            yield
            with storage_errors(uri):
                write_sums(files_at(uri))
    except Held as e:
        who = f"{e}; try again when it has finished (or stop that process: that releases its lock)"
        raise CubeBusy(f"the cube {path} is being written by {who}") from e


# ---------------------------------------------------------------- layout


def create_arrays(
    store: icechunk.IcechunkStore, grid: Grid, bands: Iterable[Band], dtype: np.dtype, chunk_px: int,
    attributes: dict[str, JSON], shard_px: int | None = None,
) -> zarr.Group:  # fmt: skip
    """An empty cube (no dates) in `store`: arrays, coordinates of the grid, attributes. Nothing is committed."""
    bands, dtype = tuple(bands), np.dtype(dtype)
    side = round(chunk_px ** (2 / len(grid.shape)))  # a chunk of a volume has as many voxels as one of an image has pixels
    chunk = tuple(min(side, size) for size in grid.shape)
    wide = (*chunk[:-1], min(VALID_WIDTH * side, grid.shape[-1]))
    width = shard_width(grid.shape, side, shard_px)
    shard, wide_shard = shard_shape(grid.shape, chunk, width), shard_shape(grid.shape, wide, VALID_WIDTH * width)
    root = zarr.create_group(store, overwrite=True)
    layout: dict[str, JSON] = {
        "driftline_format": FORMATS[len(grid.shape) if grid.is_on_earth else 3],
        "coordinates": " ".join(COORDINATES),
    }
    root.attrs.update({"Conventions": "CF-1.11", **layout, **geozarr_attributes(grid), **attributes})
    image = root.create_array(
        IMAGE,
        shape=(0, len(bands), *grid.shape),
        chunks=(1, len(bands), *chunk),
        shards=(1, len(bands), *shard) if shard else None,
        dtype=dtype,
        fill_value=missing_value(bands, dtype),
        compressors=pixel_codecs(dtype.itemsize),
        dimension_names=("time", "band", *grid.dims),
        attributes={"bands": json.dumps([band_as_json(band) for band in bands]), "grid_mapping": "spatial_ref"},
    )
    image.attrs["long_name"] = "image as stored; physical = stored * scale + offset (see bands)"
    root.create_array(
        VALID,
        shape=(0, *grid.shape),
        chunks=(1, *wide),
        shards=(1, *wide_shard) if wide_shard else None,
        dtype=bool,
        fill_value=False,
        compressors=pixel_codecs(1),
        dimension_names=("time", *grid.dims),
        attributes={"long_name": "pixels that may be used", "grid_mapping": "spatial_ref"},
    )
    _write_coordinates(root, grid, bands)
    return root


def _write_coordinates(root: zarr.Group, grid: Grid, bands: tuple[Band, ...]) -> None:
    def create_column(name: str, dtype: str | type, attributes: dict[str, JSON] | None = None) -> None:
        how: dict[str, Any] = {"chunks": (STEPS_PER_CHUNK,), "compressors": COLUMN_CODECS}
        root.create_array(name, shape=(0,), dtype=dtype, dimension_names=("time",), attributes=attributes, **how)

    for name in STEP_TEXTS:
        create_column(name, str)
    for name in STEP_TIMES:
        create_column(name, "int64", {**NANOSECONDS, "standard_name": "time"} if name == "time" else {**NANOSECONDS})
    create_column("valid_fraction", "float64", {"long_name": "share of pixels that may be used"})
    names = np.array([band.name for band in bands], dtype=object)
    root.create_array("band", shape=names.shape, dtype=str, dimension_names=("band",), compressors=COLUMN_CODECS)[:] = names
    for name in grid.dims:
        centres, attributes = describe_axis(grid, name)
        how: dict[str, Any] = {"dimension_names": (name,), "attributes": attributes, "compressors": COLUMN_CODECS}
        root.create_array(name, shape=centres.shape, dtype="float64", **how)[:] = centres
    root.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=frame_attributes(grid))


def missing_value(bands: Iterable[Band], dtype: np.dtype) -> Any:
    """The stored value of pixels without an observation: the bands' nodata if they share it, else NaN or 0."""
    stored = {band.nodata for band in bands}
    return dtype.type(fill_value(stored.pop() if len(stored) == 1 else None, dtype))


def band_as_json(band: Band) -> dict[str, JSON]:
    """The band's fields; a nodata that JSON does not know (nan) as text."""
    nodata = band.nodata if band.nodata is None or np.isfinite(band.nodata) else str(band.nodata)
    return asdict(band) | {"nodata": nodata, "valid_range": list(band.valid_range) if band.valid_range else None}


# ---------------------------------------------------------------- reading


def open_cube(uri: str, snapshot: str | None = None, *, accept_damaged: bool = False) -> xr.Dataset:
    """The cube as a lazy Dataset: `image(time, band, [z,] y, x)` as stored, `valid(time, [z,] y, x)` bool, dates sorted.

    `snapshot` names an older version (`history`); default: the newest. Pixels are read on access, without Dask; their checksums
    are checked then, those of everything else here. accept_damaged: also with dates that `driftline check` found damaged.

    Raises MissingInput, CubeMismatch (of another version of driftline), ArtefactDamaged.

        cube = open_cube("runs/demo/cube")
        cube.image.isel(time=-1).values
    """
    import xarray as xr

    from pipelines.cube.named_reads import decoded, with_named_reads

    repository = open_repository(uri)
    with naming_damage(uri):
        session = _session_at(repository, uri, snapshot)
        require_sums(files_at(uri), repository, session.snapshot_id)
        contents = read_contents(session.store)
        if contents is None or IMAGE not in contents.metadata:
            if any(entry.parent_id for entry in repository.ancestry(snapshot_id=session.snapshot_id)):
                raise ArtefactDamaged(f"the cube at {uri} is damaged: its arrays are missing; {remedy_for(uri)}")
            raise MissingInput(f"the cube at {uri} holds no finished version yet; run `driftline ingest` again")
        _require_format(contents.root, uri)
        require_seal(contents, uri)
        dataset = decoded(contents)
        dataset.attrs.pop(SEAL, None)
        dataset = dataset.set_coords([name for name in COORDINATES if name in dataset])
        columns = {name: dataset[name].variable for name in (*STEP_TEXTS, "band")}
        texts = {name: (column.dims, column.values.astype(object), column.attrs) for name, column in columns.items()}
        _require_layout(dataset)
        dataset = dataset.assign_coords(texts)
        if not accept_damaged:
            _require_whole(dataset, uri)
        order = [name for name in (*dataset[IMAGE].dims, *COORDINATES) if name in dataset]  # whatever the store lists
        arrays = {name: dataset[name].variable for name in (IMAGE, VALID)}
        dataset = xr.Dataset(arrays, {name: dataset[name].variable for name in order}, dataset.attrs)
        return with_named_reads(dataset, contents.root, (IMAGE, VALID), uri)


def read_layout(uri: str) -> tuple[Grid, tuple[Band, ...], np.dtype]:
    """Grid, bands and dtype of the newest version, whose dates may be damaged. Raises as `open_cube`, which it calls for older
    cubes: a sealed one has been verified when it was written, and is as it was then.
    """
    with naming_damage(uri):
        session = open_repository(uri).readonly_session(BRANCH)
        contents = read_contents(session.store)
        if contents is not None and IMAGE in contents.metadata and SEAL in contents.root.attrs:
            root = contents.root
            _require_format(root, uri)
            require_seal(contents, uri)
            image: Any = root[IMAGE]
            grid = _grid(dict(root["spatial_ref"].attrs), dict(root.attrs), image.shape[2:])
            return grid, bands_from_json(image.attrs["bands"]), image.dtype
    cube = open_cube(uri, accept_damaged=True)
    return grid_of(cube), bands_of(cube), cube[IMAGE].dtype


def _require_format(root: zarr.Group, uri: str) -> None:
    found = root.attrs.get("driftline_format")
    if "driftline_samples_format" in root.attrs:
        raise CubeMismatch(f"{uri} holds samples (a series each, for `task: classify` and its kin), no cube of scenes")
    if found not in FORMATS.values():
        known = f"this driftline reads {' and '.join(map(str, FORMATS.values()))}"
        raise CubeMismatch(f"the cube at {uri} has format {found}, {known}: ingest again or update driftline")


def _session_at(repository: icechunk.Repository, uri: str, snapshot: str | None) -> icechunk.Session:
    if not snapshot:
        return repository.readonly_session(BRANCH)
    try:
        return repository.readonly_session(snapshot_id=snapshot)
    except (icechunk.IcechunkError, ValueError) as e:
        if any(entry.id == snapshot for entry in repository.ancestry(branch=BRANCH)):
            raise
        raise MissingInput(f"{uri} has no version {snapshot}; `driftline history {uri}` lists them ({first_line(e)})") from e


def _require_layout(dataset: xr.Dataset) -> None:
    """Raises ValueError unless the arrays fit each other and the dates ascend, and whatever a wrong attribute raises."""
    space = grid_of(dataset).dims
    dims = {IMAGE: ("time", "band", *space), VALID: ("time", *space)}
    if wrong := [name for name, expected in dims.items() if dataset[name].dims != expected]:
        raise ValueError(f"{wrong[0]} has the axes {dataset[wrong[0]].dims}, expected {dims[wrong[0]]}")
    if numeric := [name for name in STEP_TEXTS if dataset[name].dtype.kind not in "OUT"]:
        raise ValueError(f"{numeric[0]} holds {dataset[numeric[0]].dtype}, expected text")
    if len(bands_of(dataset)) != dataset.sizes["band"]:
        raise ValueError(f"{dataset.sizes['band']} bands are stored and {len(bands_of(dataset))} described")
    if not (np.diff(dataset["time"].values) > np.timedelta64(0)).all():
        raise ValueError("the dates do not ascend")


def _require_whole(dataset: xr.Dataset, uri: str) -> None:
    """Raises ArtefactDamaged if `driftline check` has marked dates as damaged (no content hash)."""
    damaged = np.flatnonzero(dataset["content_hash"].values == "")
    if damaged.size:
        when = np.datetime_as_string(dataset["time"].values[damaged[0]], "s")
        more = f" and {damaged.size - 1} more" if damaged.size > 1 else ""
        raise ArtefactDamaged(
            f"the cube at {uri} is damaged: {when} (scene {dataset['scene_id'].values[damaged[0]]}){more}; run "
            f"`driftline ingest CONFIG`, which reads what is damaged again, or take it out: `driftline drop {uri} SCENE`"
        )


def release() -> str:
    """The release of driftline that writes, for the metadata of versions."""
    try:
        return version("driftline")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def head_snapshot(uri: str) -> str:
    """The id of the newest version. Raises MissingInput."""
    with naming_damage(uri):
        return open_repository(uri).lookup_branch(BRANCH)


def has_layout(store: icechunk.IcechunkStore) -> bool:
    try:
        return IMAGE in zarr.open_group(store, mode="r")
    except FileNotFoundError:  # a repository without a root group: created, never committed to
        return False


def grid_of(dataset: xr.Dataset) -> Grid:
    """The grid of a cube, from its `spatial_ref`. Raises ArtefactDamaged for a CRS that PROJ cannot parse."""
    shape = tuple(dataset.sizes[dim] for dim in space_dims(dataset))
    return _grid(dataset["spatial_ref"].attrs, dataset.attrs, shape)


def _grid(attributes: Mapping[str, Any], of_cube: Mapping[str, Any], shape: tuple[int, ...]) -> Grid:
    transform = tuple(map(float, attributes["affine"]))
    if "patient_frame" in attributes:
        return Grid(PatientFrame(attributes["frame_of_reference_uid"]), transform, shape)
    if "image_plane" in attributes:
        return Grid(ImagePlane(str(attributes["image_plane"])), transform, shape)
    crs = of_cube.get("proj:code") or attributes["crs_wkt"]
    try:
        parse_crs(crs)  # refuses file names and addresses, which a damaged cube may hold
    except ValueError as e:
        raise ArtefactDamaged(f"the cube's spatial_ref holds no CRS that PROJ can parse: {e}; ingest it again") from e
    return Grid(crs, transform, shape)


def space_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    """The axes of space of a cube: ("y", "x"), of a cube of volumes ("z", "y", "x")."""
    return tuple(str(dim) for dim in dataset[VALID].dims[1:])


def bands_of(dataset: xr.Dataset) -> tuple[Band, ...]:
    """The bands of a cube, in its order."""
    return bands_from_json(dataset[IMAGE].attrs["bands"])
