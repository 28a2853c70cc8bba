"""Hostile HDF5 and netCDF-4 files: cuts, changed bits, links to other files, chunks never written, bombs, metadata."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from tests.hostile.case import GRID, SIDE, Case, cuts, drawn, flipped, pixels, put

BASES: dict[str, dict[str, object]] = {
    "contiguous": {},
    "chunked": {"chunks": (16, 16)},
    "gzip": {"chunks": (16, 16), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (32, 32), "compression": "lzf"},
    "fletcher": {"chunks": (16, 16), "fletcher32": True},
    "latest": {"libver": "latest", "chunks": (16, 16), "compression": "gzip"},
    "time": {"time": True, "chunks": (1, 32, 32), "compression": "gzip"},  # netCDF-4: (time, y, x)
}


def scaffold(file: h5py.File, size: int = SIDE, time: bool = False, **coordinates: Callable[[h5py.File, str], None]) -> None:
    """Coordinates y and x (and time), and the grid mapping crs; `coordinates` make some of them otherwise."""
    for name, centres in (("y", GRID.centres("y")), ("x", GRID.centres("x"))):
        if name in coordinates:
            coordinates[name](file, name)
        else:
            file[name] = centres[0] + (centres[1] - centres[0]) * np.arange(size)
        file[name].make_scale(name)
        file[name].attrs["units"] = "m"
        file[name].attrs["standard_name"] = f"projection_{name}_coordinate"
    if time:
        file["time"] = np.array([3.0])
        file["time"].make_scale("time")
        file["time"].attrs["units"] = "days since 2018-01-01"
    file["crs"] = 0
    file["crs"].attrs["crs_wkt"] = GRID.wkt


def attach(file: h5py.File, name: str = "image") -> h5py.Dataset:
    data = file[name]
    data.attrs["grid_mapping"] = "crs"
    for number, axis in enumerate(("time", "y", "x")[-data.ndim :]):
        data.dims[number].attach_scale(file[axis])
    return data


def write(path: Path, values: np.ndarray | None = None, libver: str = "earliest", time: bool = False, **options: object) -> None:
    values = pixels()[0] if values is None else values
    with h5py.File(path, "w", libver=libver) as file:
        scaffold(file, time=time)
        file.create_dataset("image", data=values[None] if time else values, **options)
        attach(file).attrs["units"] = "1"


@cache
def base(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        write(path, **BASES[name])  # type: ignore[arg-type]
        return path.read_bytes()


# ---------------------------------------------------------------- links, external storage, virtual data sets


def secret(path: Path) -> Path:
    """A file beside the folder of the scenes, with values that no scene has."""
    found = path.parent.parent / "outside" / "secret.h5"
    found.parent.mkdir(exist_ok=True)
    if not found.exists():
        with h5py.File(found, "w") as file:
            file["image"], file["axis"] = np.full((SIDE, SIDE), 4242, "uint16"), np.arange(SIDE) * 10.0
        found.with_suffix(".raw").write_bytes(np.full(SIDE * SIDE, 4242, "uint16").tobytes() * 4)
        os.mkfifo(found.with_suffix(".fifo"))
    return found


def external_link(file: h5py.File, name: str, path: Path) -> None:
    file[name] = h5py.ExternalLink(str(secret(path)), "/image" if name == "image" else "/axis")


def soft_link(file: h5py.File, name: str, path: Path) -> None:
    file[f"{name}-outside"] = h5py.ExternalLink(str(secret(path)), "/image" if name == "image" else "/axis")
    file[name] = h5py.SoftLink(f"/{name}-outside")


def external_storage(file: h5py.File, name: str, path: Path, suffix: str = ".raw") -> None:
    is_image = name == "image"
    shape, dtype = ((SIDE, SIDE), "uint16") if is_image else ((SIDE,), "float64")
    place = suffix if suffix.startswith("/") else str(secret(path).with_suffix(suffix))
    file.create_dataset(name, shape=shape, dtype=dtype, external=[(place, 0, int(np.prod(shape)) * np.dtype(dtype).itemsize)])


def virtual(file: h5py.File, name: str, path: Path) -> None:
    shape, dtype = ((SIDE, SIDE), "uint16") if name == "image" else ((SIDE,), "float64")
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(secret(path), "image" if name == "image" else "axis", shape)
    file.create_virtual_dataset(name, layout)


Reach = Callable[[h5py.File, str, Path], None]
REACHES: dict[str, Reach] = {
    "external-link": external_link,
    "soft-link": soft_link,
    "storage": external_storage,
    "storage-fifo": lambda file, name, path: external_storage(file, name, path, ".fifo"),
    "storage-passwd": lambda file, name, path: external_storage(file, name, path, "/etc/passwd"),
    "storage-device": lambda file, name, path: external_storage(file, name, path, "/dev/zero"),
    "virtual": virtual,
}


def reaching(reach: Reach, names: tuple[str, ...]) -> Callable[[Path], None]:
    """A file whose data sets `names` are elsewhere."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            if "image" in names:
                scaffold(file)
                reach(file, "image", path)
            elif "crs" in names:
                scaffold(file)
                del file["crs"]
                reach(file, "crs", path)
                file["image"] = pixels()[0]
            else:
                elsewhere = {name: lambda file, name: reach(file, name, path) for name in names}
                try:
                    scaffold(file, **elsewhere)
                except (OSError, KeyError, RuntimeError):  # make_scale may have to read it
                    return
                file["image"] = pixels()[0]
            try:
                attach(file)
            except (OSError, KeyError, RuntimeError):
                return

    return make


def grouped(path: Path) -> None:
    """The whole root of another file as a group: the path to the data set leads through it."""
    with h5py.File(path, "w") as file:
        scaffold(file)
        file["group"] = h5py.ExternalLink(str(secret(path)), "/")
        file["image"] = h5py.SoftLink("/group/image")


def looping(path: Path) -> None:
    with h5py.File(path, "w") as file:
        scaffold(file)
        file["image"] = h5py.SoftLink("/image")
        file["group/again"] = file["/"]  # a hard link in a circle


# ---------------------------------------------------------------- never written


def unwritten(share: float, **options: object) -> tuple[bytes, np.ndarray]:
    rng, is_written = drawn("chunks", share, sorted(options)), np.zeros((SIDE, SIDE), bool)
    is_time = bool(options.pop("time", False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w") as file:
            scaffold(file, time=is_time)
            shape = (1, SIDE, SIDE) if is_time else (SIDE, SIDE)
            data = file.create_dataset("image", shape=shape, dtype="uint16", **options)
            for row in range(0, SIDE, 16):
                for column in range(0, SIDE, 16):
                    if rng.random() < share:
                        at = slice(row, row + 16), slice(column, column + 16)
                        data[(0, *at) if is_time else at] = pixels()[0][at]
                        is_written[at] = True
            attach(file)
        return path.read_bytes(), is_written


def abandoned(path: Path, flushes: bool, latest: bool) -> None:
    """The file of a writer that was killed half way."""
    child = os.fork()
    if child == 0:
        file = h5py.File(path, "w", libver="latest" if latest else "earliest")
        scaffold(file)
        file.create_dataset("image", shape=(SIDE, SIDE), dtype="uint16", chunks=(16, 16))
        attach(file)[:32] = pixels()[0][:32]
        if flushes:
            file.flush()
        os._exit(0)
    os.waitpid(child, 0)


# ---------------------------------------------------------------- bombs


def bomb(side_yx: tuple[int, int], filled: bool = False, coordinates: bool = True, **options: object) -> Callable[[Path], None]:
    """A data set that is much larger than its file, on the lattice of the grid."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["crs"] = 0
            file["crs"].attrs["crs_wkt"] = GRID.wkt
            data = file.create_dataset("image", shape=side_yx, dtype="uint16", **options)
            if filled:
                chunk = data.chunks
                packed = zeros_gzip(int(np.prod(chunk)) * 2)
                data.id.write_direct_chunk((0, 0), packed)
            data.attrs["grid_mapping"] = "crs"
            if coordinates:
                for axis, name in enumerate(("y", "x")):
                    length = side_yx[axis]
                    if length <= 20_000:
                        first, step = (4_999_995.0, -10.0) if name == "y" else (500_005.0, 10.0)
                        file.create_dataset(name, data=first + step * np.arange(length), compression="gzip")
                    else:
                        file.create_dataset(name, shape=(length,), dtype="float64", chunks=(min(length, 1 << 20),))
                    file[name].make_scale(name)
                    data.dims[axis].attach_scale(file[name])

    return make


@cache
def zeros_gzip(size: int) -> bytes:
    from tests.hostile.tiffs import zeros_deflated

    return zeros_deflated(size)


def inflating(path: Path) -> None:
    """A chunk of 8 kB whose compressed bytes are those of 400 MB."""
    write(path, chunks=(SIDE, SIDE), compression="gzip")
    with h5py.File(path, "r+") as file:
        file["image"].id.write_direct_chunk((0, 0), zeros_gzip(400_000_000))


BOMBS: dict[str, Callable[[Path], None]] = {
    "declares-100000": bomb((100_000, 100_000), coordinates=False, chunks=(1000, 1000)),
    "declares-59999": bomb((59_999, 59_999), chunks=(1000, 1000), compression="gzip"),
    "declares-20000": bomb((20_000, 20_000), chunks=(256, 256), compression="gzip"),
    "long-axis": bomb((1, 3_000_000_000), chunks=(1, 1 << 20)),
    "tall-axis": bomb((3_000_000_000, 2), chunks=(1 << 20, 1)),
    "one-chunk-16000": bomb((16_000, 16_000), True, chunks=(16_000, 16_000), compression="gzip"),
    "one-chunk-20000": bomb((20_000, 20_000), True, chunks=(20_000, 20_000), compression="gzip"),
    "one-chunk-5000": bomb((5000, 5000), True, chunks=(5000, 5000), compression="gzip"),
    "small-in-chunk": bomb((SIDE, SIDE), True, chunks=(SIDE, SIDE), compression="gzip", maxshape=(None, None)),
    "chunk-longer-than-it-says": inflating,
    "fill-contiguous": bomb((15_000, 15_000)),
    "four-axes": lambda path: _axes(path, (40_000, 1, SIDE, SIDE)),
    "thirty-axes": lambda path: _axes(path, (2,) * 28 + (SIDE, SIDE)),
    "planes": lambda path: _axes(path, (3_000_000, SIDE, SIDE)),
    "attribute": lambda path: _attribute(path),
    "deep": lambda path: _deep(path),
    "wide": lambda path: _wide(path),
}


def _axes(path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(path, "w") as file:
        scaffold(file)
        file.create_dataset("image", shape=shape, dtype="uint16", chunks=(1,) * (len(shape) - 2) + (SIDE, SIDE))
        file["image"].attrs["grid_mapping"] = "crs"


def _attribute(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        scaffold(file)
        file["image"] = pixels()[0]
        attach(file).attrs["_FillValue"] = np.full(2_000_000, 7, "uint16")
        file["image"].attrs["units"] = "m" * 1_000_000


def _deep(path: Path) -> None:
    with h5py.File(path, "w") as file:
        scaffold(file)
        file["image"] = pixels()[0]
        attach(file)
        at = file
        for _ in range(3000):
            at = at.create_group("g")
        at["image"] = pixels()[0]


def _wide(path: Path) -> None:
    write(path)
    with h5py.File(path, "r+") as file:
        for number in range(5000):
            file[f"more/{number}"] = number


# ---------------------------------------------------------------- what ends the decoder, not only the file


def segfault(path: Path) -> None:
    """One byte of the type of an attribute: text of variable length becomes a kind that does not exist. HDF5 2.0 dies of it."""
    write(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"units\0\0\0\x19\x01") + 9] = 0xFF
    path.write_bytes(content)


def endless(path: Path) -> None:
    """Groups in groups, 20,000 deep: 3 MB, of which HDF5 needs hours to list what there is, and no data set."""
    with h5py.File(path, "w", libver="latest") as file:
        group = file.id
        for _ in range(20_000):
            group = h5py.h5g.create(group, b"g")


DECODER_ENDS: dict[str, Callable[[Path], None]] = {
    "the decoder was killed by signal 11": segfault,
    "needed more than 192 MB": bomb((11_000, 11_000), True, chunks=(11_000, 11_000), compression="gzip"),
    "the decoder was killed by signal 24": endless,  # by a limit of CPU time; without one by driftline's own
}


# ---------------------------------------------------------------- metadata

CRS_TEXTS = (
    "/etc/passwd", "file:///etc/passwd", "{url}/crs.wkt", "+init=/etc/passwd:1", "+proj=longlat +nadgrids=/etc/passwd +type=crs",
    "+proj=longlat +nadgrids={url}/x.gsb +type=crs", "+proj=utm +zone=33 +geoidgrids=/etc/passwd +type=crs", "EPSG:99999999",
    "AUTO:42001,99,99", "IGNF:X", "PROJCS[" * 2000, "PROJCS[" + "A" * 60_000, "\x1b[31mEPSG:32633", "", "\0", "GEOGCS[]",
    '{{"type": "GeographicCRS", "$schema": "{url}"}}', "EPSG:32633\n+init=/etc/passwd", "urn:ogc:def:crs:EPSG::0", "@/etc/passwd",
    'PROJCS["x",EXTENSION["PROJ4","+proj=utm +zone=33 +nadgrids={url}/a"]]', "/vsicurl/{url}/x.prj", "/vsizip/a.zip/x.prj",
    'BOUNDCRS[SOURCECRS[GEOGCRS["x"]],TARGETCRS[GEOGCRS["y"]],ABRIDGEDTRANSFORMATION["z",PARAMETERFILE["p","{url}/g.tif"]]]',
)  # fmt: skip
ATTRIBUTES: dict[str, object] = {
    "scale-nan": {"scale_factor": np.nan}, "scale-zero": {"scale_factor": 0.0}, "scale-inf": {"scale_factor": np.inf},
    "scale-tiny": {"scale_factor": 1e-300}, "offset-nan": {"add_offset": np.nan}, "fill-text": {"_FillValue": "none"},
    "fill-nan": {"_FillValue": np.nan}, "fill-huge": {"_FillValue": 1e300}, "fill-empty": {"_FillValue": h5py.Empty("f8")},
    "units-empty": {"units": h5py.Empty("S1")}, "units-bytes": {"units": np.bytes_(b"\xff\xfe")},
    "units-escape": {"units": "\x1b[2J"},
    "units-many": {"units": np.array(["a", "b"], dtype="S1")}, "range-nan": {"valid_range": [np.nan, np.nan]},
    "range-reversed": {"valid_range": [5.0, 1.0]}, "range-text": {"valid_range": "all"}, "unsigned": {"_Unsigned": "true"},
    "mapping-missing": {"grid_mapping": "nothing"}, "mapping-slash": {"grid_mapping": "/"},
    "mapping-dots": {"grid_mapping": "../x"},
    "mapping-self": {"grid_mapping": "image"}, "mapping-long": {"grid_mapping": "x" * 60_000},
    "mapping-empty": {"grid_mapping": " "},
    "list-gone": {"DIMENSION_LIST": None}, "list-text": {"DIMENSION_LIST": "y x"}, "list-numbers": {"DIMENSION_LIST": [1, 2]},
    "labels": {"DIMENSION_LABELS": ["\x1b[31m", "<b>"]},
}  # fmt: skip
AXES_SAY: dict[str, object] = {
    "axis-same": {"axis": "X"}, "units-degrees": {"units": "degrees_north"}, "units-odd": {"units": "parsec"},
    "scale-nan": {"scale_factor": np.nan},
    "scale-zero": {"scale_factor": 0.0}, "units-since": {"units": "days since \x1b[31m"},
    "name-odd": {"standard_name": "\x1b[31m"},
}  # fmt: skip


def stating(attributes: object, of: str = "image") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path)
        with h5py.File(path, "r+") as file:
            for key, value in dict(attributes).items():  # type: ignore[call-overload]
                if key in file[of].attrs:
                    del file[of].attrs[key]
                if value is not None:
                    file[of].attrs[key] = value

    return make


def in_crs(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        url = (path.parent.parent / "url.txt").read_text() if (path.parent.parent / "url.txt").exists() else "http://127.0.0.1:9"
        write(path)
        with h5py.File(path, "r+", libver="latest") as file:
            del file["crs"].attrs["crs_wkt"]
            said = text.replace("{url}", url).replace("{{", "{").replace("}}", "}")
            file["crs"].attrs["crs_wkt"] = np.bytes_(said.encode()) if said.strip("\0") else h5py.Empty("S1")

    return make


def reference_elsewhere(path: Path) -> None:
    """Axes that refer to objects which are not there, or are the image itself."""
    write(path)
    with h5py.File(path, "r+") as file:
        del file["y"]


def typed(dtype: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            scaffold(file)
            file.create_dataset("image", shape=(SIDE, SIDE), dtype=dtype)
            attach(file)

    return make


TYPES: dict[str, object] = {
    "text": h5py.string_dtype(), "compound": np.dtype([("a", "u2"), ("b", "f8")]), "reference": h5py.ref_dtype, "complex": "c8",
    "vlen": h5py.vlen_dtype("u2"), "enum": h5py.enum_dtype({"a": 1, "b": 2}, "u2"),
    "opaque": h5py.opaque_dtype("datetime64[s]"), "half": "f2",
    "array": np.dtype(("u2", (3,))), "long-double": np.longdouble, "bool": "bool",
}  # fmt: skip


def cases() -> Iterator[Case]:
    bands = pixels()
    for name in BASES:
        content = base(name)
        spread = [int(at) for at in np.linspace(1, len(content) - 1, 16)]
        for at, cut in cuts(content, spread, 28, name).items():
            yield Case("h5", "cut-hdf5", f"{name}-{at}", put(cut), "refused", bands)
        for at, changed in flipped(content, 40, name).items():
            yield Case("h5", "flip-hdf5", f"{name}-{at}", put(changed), "any", bands)
        for at, changed in flipped(content, 20, "head", name, until=2048).items():
            yield Case("h5", "header-hdf5", f"{name}-{at}", put(changed), "any", bands)
    for what, reach in REACHES.items():
        for names in (("image",), ("y",), ("x", "y"), ("crs",)):
            case = f"{what}-{'-'.join(names)}"
            yield Case("h5", "link-hdf5", case, reaching(reach, names), "whole" if names == ("crs",) else "refused", bands)
    yield Case("h5", "link-hdf5", "group", grouped, "refused", bands)
    yield Case("h5", "link-hdf5", "loop", looping, "refused", bands)
    yield Case("h5", "link-hdf5", "reference", reference_elsewhere, "refused", bands)
    for share in (0.0, 0.4, 0.8):
        for name, options in (
            ("plain", {}),
            ("gzip", {"compression": "gzip"}),
            ("fill", {"fillvalue": 3}),
            ("time", {"time": True}),
        ):
            chunks = (1, 16, 16) if name == "time" else (16, 16)
            made, is_written = unwritten(share, chunks=chunks, **options)  # type: ignore[arg-type]
            yield Case("h5", "sparse-hdf5", f"{name}-{share:g}", put(made), "missing", bands, is_written)
    made, is_written = unwritten(0.0)
    yield Case("h5", "sparse-hdf5", "contiguous", put(made), "missing", bands, is_written)
    for flushes in (False, True):
        for latest in (False, True):
            is_there = np.arange(SIDE)[:, None].repeat(SIDE, 1) < 32
            make = lambda path, f=flushes, n=latest: abandoned(path, f, n)  # noqa: E731
            yield Case("h5", "killed-hdf5", f"flush{flushes:d}-latest{latest:d}", make, "missing", bands, is_there)
    for what, make in BOMBS.items():
        yield Case("h5", "bomb-hdf5", what, make, "any", bands)
        yield Case("h5-warped", "bomb-hdf5", what, make, "any", bands)
    for number, text in enumerate(CRS_TEXTS):
        yield Case("h5", "crs-hdf5", f"crs{number}", in_crs(text), "refused", bands)
    for what, attributes in ATTRIBUTES.items():
        yield Case("h5", "attribute-hdf5", what, stating(attributes), "any", bands)
    for what, attributes in AXES_SAY.items():
        for axis in ("y", "x"):
            yield Case("h5", "attribute-hdf5", f"{axis}-{what}", stating(attributes, axis), "any", bands)
    for what, dtype in TYPES.items():
        yield Case("h5", "type-hdf5", what, typed(dtype), "refused", bands)
