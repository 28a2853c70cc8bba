"""Where a cube lies and how it is laid out: an Icechunk repository that holds one xarray Dataset (docs/design/001-spine.md)."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from pipelines.cube.frame import frame_attributes, geozarr_attributes
from pipelines.errors import ArtefactDamaged, CubeMismatch, MissingInput
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Band

# one committer at a time is ensured by cube.lock, which is what Icechunk's warning about local disks asks for
icechunk.set_logs_filter("warn,icechunk::storage::object_store=error")

BRANCH = "main"
FORMAT = 1  # of the layout below; raised when a reader of the old one would misread the new one
IMAGE, VALID = "image", "valid"
STEP_TEXTS = ("scene_id", "content_hash", "source", "fingerprint")  # one string per date
STEP_TIMES = ("time", "ingested_utc")  # one moment per date
COORDINATES = (*STEP_TEXTS, "ingested_utc", "valid_fraction", "spatial_ref")
NANOSECONDS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
VALID_WIDTH = 8  # chunks of `valid` are as high as those of `image` and up to this many wide: they pack 50 times better
STEPS_PER_CHUNK = 4096  # of the per-date coordinates: one small file each for a decade of scenes


# ---------------------------------------------------------------- where


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The folder of a local cube. Raises CubeMismatch for a remote one."""
    if is_remote(uri):
        raise CubeMismatch(f"{uri} is not on this machine")
    return Path(uri.removeprefix("file://")).expanduser().absolute()


def storage_of(uri: str) -> icechunk.Storage:
    """A local folder, or `s3://bucket/prefix` with region, endpoint and credentials from the usual AWS_* variables."""
    if not is_remote(uri):
        return icechunk.local_filesystem_storage(str(local_path(uri)))
    scheme, bucket, prefix, _, _ = urlsplit(uri)
    if scheme != "s3" or not bucket or not prefix.strip("/"):
        raise MissingInput(f"{uri}: a cube is a folder or s3://bucket/prefix")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix.strip("/"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        from_env=True,
    )


def open_repository(uri: str) -> icechunk.Repository:
    """The repository of an existing cube. Raises MissingInput, ArtefactDamaged."""
    if not is_remote(uri) and not local_path(uri).is_dir():
        raise MissingInput(f"no cube at {uri}; make one with `driftline ingest`")
    try:
        storage = storage_of(uri)
        if not icechunk.Repository.exists(storage):
            raise MissingInput(f"{uri} holds no cube (no Icechunk repository); make one with `driftline ingest`")
        return icechunk.Repository.open(storage)
    except icechunk.IcechunkError as e:
        raise ArtefactDamaged(f"the cube at {uri} cannot be opened: {first_line(e)}") from e


def open_or_create_repository(uri: str) -> icechunk.Repository:
    """The repository at `uri`, made where there is none. Raises CubeMismatch if the folder holds something else."""
    if is_remote(uri):
        return icechunk.Repository.open_or_create(storage_of(uri))
    path = local_path(uri)
    if path.exists() and not path.is_dir():
        raise CubeMismatch(f"{path} is a file; a cube is a folder: name another place (cube.uri)")
    if path.exists() and icechunk.Repository.exists(storage_of(uri)):
        return open_repository(uri)
    if path.exists() and (foreign := sorted(entry.name for entry in path.iterdir())):
        raise CubeMismatch(f"{path} holds other things ({', '.join(foreign[:3])}): name an empty or new folder (cube.uri)")
    # made beside its place and renamed: killed halfway, Icechunk leaves a folder that it calls unclean ever after
    staging = path.with_name(f".{path.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(staging)))
    staging.rename(path)
    return open_repository(uri)


def first_line(error: BaseException) -> str:
    """What an Icechunk error says, without its box drawing and context."""
    lines = [line.strip(" \t│|×x") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)


# ---------------------------------------------------------------- layout


def create_arrays(
    store: icechunk.IcechunkStore, grid: Grid, bands: Iterable[Band], dtype: np.dtype, chunk_px: int, attributes: dict[str, Any]
) -> zarr.Group:
    """An empty cube (no dates) in `store`: arrays, coordinates of the grid, attributes. Nothing is committed."""
    bands, dtype = tuple(bands), np.dtype(dtype)
    fill = missing_value(bands, dtype)
    root = zarr.create_group(store, overwrite=True)
    root.attrs.update(
        {
            "Conventions": "CF-1.11",
            "driftline_format": FORMAT,
            "coordinates": " ".join(COORDINATES),
            **geozarr_attributes(grid),
            **attributes,
        }
    )
    height, width = grid.shape_yx
    chunk_yx = min(chunk_px, height), min(chunk_px, width)
    compressor = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=dtype.itemsize)
    image = root.create_array(
        IMAGE,
        shape=(0, len(bands), height, width),
        chunks=(1, len(bands), *chunk_yx),
        dtype=dtype,
        fill_value=fill,
        compressors=compressor,
        dimension_names=("time", "band", "y", "x"),
        attributes={"bands": json.dumps([_band_as_json(band) for band in bands]), "grid_mapping": "spatial_ref"},
    )
    image.attrs["long_name"] = "image as stored; physical = stored * scale + offset (see bands)"
    root.create_array(
        VALID,
        shape=(0, height, width),
        chunks=(1, chunk_yx[0], min(VALID_WIDTH * chunk_px, width)),
        dtype=bool,
        fill_value=False,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=1),
        dimension_names=("time", "y", "x"),
        attributes={"long_name": "pixels that may be used", "grid_mapping": "spatial_ref"},
    )
    _write_coordinates(root, grid, bands)
    return root


def _write_coordinates(root: zarr.Group, grid: Grid, bands: tuple[Band, ...]) -> None:
    for name in STEP_TEXTS:
        root.create_array(name, shape=(0,), chunks=(STEPS_PER_CHUNK,), dtype=str, dimension_names=("time",))
    for name in STEP_TIMES:
        attributes: dict[str, Any] = {**NANOSECONDS, "standard_name": "time"} if name == "time" else {**NANOSECONDS}
        root.create_array(
            name, shape=(0,), chunks=(STEPS_PER_CHUNK,), dtype="int64", dimension_names=("time",), attributes=attributes
        )
    root.create_array(
        "valid_fraction",
        shape=(0,),
        chunks=(STEPS_PER_CHUNK,),
        dtype="float64",
        dimension_names=("time",),
        attributes={"long_name": "share of pixels that may be used"},
    )
    root.create_array("band", shape=(len(bands),), dtype=str, dimension_names=("band",))[:] = np.array(
        [band.name for band in bands], dtype=object
    )
    for name, centres in (("y", grid.y_centres()), ("x", grid.x_centres())):
        root.create_array(
            name,
            shape=centres.shape,
            dtype="float64",
            dimension_names=(name,),
            attributes={"standard_name": f"projection_{name}_coordinate", "axis": name.upper()},
        )[:] = centres
    root.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=frame_attributes(grid))


def missing_value(bands: Iterable[Band], dtype: np.dtype) -> Any:
    """The stored value of pixels where nothing was seen: the bands' nodata if they agree on it, else NaN or 0."""
    dtype = np.dtype(dtype)
    stored = {band.nodata for band in bands}
    nodata = stored.pop() if len(stored) == 1 else None
    if dtype.kind == "f":
        return dtype.type(np.nan if nodata is None else nodata)
    limits = np.iinfo(dtype)
    is_storable = nodata is not None and np.isfinite(nodata) and limits.min <= nodata <= limits.max and float(nodata).is_integer()
    return dtype.type(int(nodata)) if is_storable and nodata is not None else dtype.type(0)


def _band_as_json(band: Band) -> dict[str, Any]:
    nodata = band.nodata if band.nodata is None or np.isfinite(band.nodata) else str(band.nodata)
    return {
        "name": band.name,
        "scale": band.scale,
        "offset": band.offset,
        "nodata": nodata,
        "unit": band.unit,
        "valid_range": list(band.valid_range) if band.valid_range else None,
    }


def create_cube(
    uri: str, grid: Grid, bands: Iterable[Band], dtype: np.dtype, chunk_px: int = 256, attributes: dict[str, Any] | None = None
) -> str:
    """Makes an empty cube and returns its snapshot id. Raises CubeMismatch if there is one already."""
    repository = open_or_create_repository(uri)
    if has_layout(repository.readonly_session(BRANCH).store):
        raise CubeMismatch(f"there is a cube at {uri} already: name another place or ingest into it")
    session = repository.writable_session(BRANCH)
    create_arrays(session.store, grid, bands, dtype, chunk_px, attributes or {})
    return session.commit("create cube")


# ---------------------------------------------------------------- reading


def open_cube(uri: str, snapshot: str | None = None) -> xr.Dataset:
    """The cube as a lazy Dataset: `image(time, band, y, x)` as stored, `valid(time, y, x)` bool, dates sorted.

    `snapshot` names an older version (`history`); default: the newest. Pixels are read when asked for, without Dask.

        cube = open_cube("runs/demo/cube")
        cube.image.isel(time=-1).values
    """
    repository = open_repository(uri)
    try:
        session = repository.readonly_session(snapshot_id=snapshot) if snapshot else repository.readonly_session(BRANCH)
    except (icechunk.IcechunkError, ValueError) as e:
        raise MissingInput(f"{uri} has no version {snapshot}; `driftline history {uri}` lists them ({first_line(e)})") from e
    if not has_layout(session.store):
        raise MissingInput(f"the cube at {uri} holds no finished version yet; run `driftline ingest` again")
    dataset = xr.open_zarr(session.store, consolidated=False, chunks=None, mask_and_scale=False)
    found = dataset.attrs.get("driftline_format")
    if found != FORMAT:
        raise CubeMismatch(
            f"the cube at {uri} has format {found}, this driftline reads {FORMAT}: ingest anew or update driftline"
        )
    dataset = dataset.set_coords([name for name in COORDINATES if name in dataset])
    texts = {name: (dataset[name].dims, dataset[name].values.astype(object)) for name in (*STEP_TEXTS, "band")}
    return dataset.assign_coords(texts)


def head_snapshot(uri: str) -> str:
    """The id of the newest version. Raises MissingInput."""
    return open_repository(uri).lookup_branch(BRANCH)


def has_layout(store: icechunk.IcechunkStore) -> bool:
    try:
        return IMAGE in zarr.open_group(store, mode="r")
    except FileNotFoundError:  # a repository without a root group: made, never committed to
        return False


def grid_of(dataset: xr.Dataset) -> Grid:
    """Where the pixels of a cube are, from its `spatial_ref`. Raises ArtefactDamaged for a CRS that PROJ does not know."""
    attributes = dataset["spatial_ref"].attrs
    transform = attributes["affine"]
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    crs = dataset.attrs.get("proj:code") or attributes["crs_wkt"]
    try:
        parse_crs(crs)  # a name of a file or an address is none, whoever wrote it into the cube
    except ValueError as e:
        raise ArtefactDamaged(f"the cube's spatial_ref holds no CRS that PROJ knows: {e}; ingest it anew") from e
    return Grid(crs, tuple(float(v) for v in transform), (height, width))  # type: ignore[arg-type]


def bands_of(dataset: xr.Dataset) -> tuple[Band, ...]:
    """What the bands of a cube mean, in its order."""
    return tuple(
        Band(
            name=entry["name"],
            scale=entry["scale"],
            offset=entry["offset"],
            nodata=None if entry["nodata"] is None else float(entry["nodata"]),
            unit=entry["unit"],
            valid_range=tuple(entry["valid_range"]) if entry.get("valid_range") else None,
        )
        for entry in json.loads(dataset[IMAGE].attrs["bands"])
    )
