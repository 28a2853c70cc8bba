"""Hostile files of sources that read one file: netCDF cubes, stacks with their dates, labels, and what `driftline init` looks at.

`python -m tests.hostile.single FOLDER EVERY FIRST` reads every EVERY-th case from FIRST on, in one process; a line for each.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.hostile import hdf5s, others, tiffs
from tests.hostile.batch import ROOT, Tally, tree_mb
from tests.hostile.case import GRID, SIDE, cuts, flipped, pixels, put

HANGS_S = 20
DATES = "20180101\n20180111\n"


@dataclass(frozen=True)
class Single:
    """`make` writes a file at a path with this `suffix`, `read` reads it: it must answer with values or a DriftlineError."""

    kind: str
    name: str
    suffix: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    is_truncation: bool = False


# ---------------------------------------------------------------- how each is read


def read_cube(path: Path) -> object:
    from pipelines.scene import Band
    from pipelines.sources.layers import BandRequest
    from pipelines.sources.reading import SceneReader
    from pipelines.sources.series import NetcdfSource

    source = NetcdfSource(path, BandRequest((Band("image"),)))
    listing = source.list_scenes()
    source.remarks(listing.scenes)
    return SceneReader(source, None, source.native_grid()).read(listing.scenes[0]).image_BYX.sum()


def read_stack(path: Path) -> object:
    from pipelines.scene import Band
    from pipelines.sources.layers import BandRequest
    from pipelines.sources.reading import SceneReader
    from pipelines.sources.series import StackSource

    source = StackSource(path.parent, BandRequest((Band("b1"),)), {"b1": "stack.tif"}, "dates.txt")
    scene = source.list_scenes().scenes[0]
    return SceneReader(source, None, source.native_grid()).read(scene).image_BYX.sum()


def read_labels(path: Path) -> object:
    from pipelines.samples.labels import Fields, Instant, Span, read_points, read_polygons, read_raster, resolve_labels

    span = Span(Instant("2018-01-01", "s"), Instant("2019-01-01", "s"))
    if path.suffix == ".csv":
        given = read_points(path, Fields(), "EPSG:32633", GRID, span)
    elif path.suffix == ".tif":
        given = read_raster(path, {n: f"c{n}" for n in range(1000, 1250)}, GRID, span)
    else:
        given = read_polygons(path, Fields(), GRID, span)
    labels = resolve_labels(given, GRID)
    assert all(name.isprintable() for name in labels.classes), labels.classes
    return len(labels)


def look(path: Path) -> object:
    from pipelines.sources.format_detection import detect_format

    found = detect_format(path if path.suffix == ".nc" else path.parent)
    return [found.inspect_band(band) for band in found.bands]


# ---------------------------------------------------------------- what they are


def time_cube(path: Path, times: object = (0.0, 10.0), **attributes: object) -> None:
    with h5py.File(path, "w") as file:
        hdf5s.scaffold(file)
        values = np.asarray(times)
        file["time"] = values
        file["time"].make_scale("time")
        file["time"].attrs["units"] = "days since 2018-01-01"
        for key, value in attributes.items():
            file["time"].attrs[key] = value
        file["image"] = np.stack([pixels(seed=n)[0] for n in range(2)])
        hdf5s.attach(file)


def endless_time(path: Path) -> None:
    with h5py.File(path, "w") as file:
        hdf5s.scaffold(file)
        file.create_dataset("time", shape=(3_000_000_000,), dtype="float64", chunks=(1 << 20,))
        file["time"].make_scale("time")
        file["time"].attrs["units"] = "days since 2018-01-01"
        file.create_dataset("image", shape=(3_000_000_000, SIDE, SIDE), dtype="uint16", chunks=(1, SIDE, SIDE))
        hdf5s.attach(file)


TIMES: dict[str, dict[str, Any]] = {
    "nan": {"times": [np.nan, 1.0]}, "infinite": {"times": [np.inf, 1.0]}, "huge": {"times": [1e300, 1.0]},
    "same": {"times": [1.0, 1.0]},
    "negative": {"times": [-1e9, 1.0]}, "units-odd": {"units": "days since \x1b[31m"},
    "units-year": {"units": "days since 99999-01-01"},
    "units-long": {"units": "days since " + "2" * 60_000}, "units-none": {"units": ""}, "calendar": {"calendar": "\x1b[31m"},
    "units-months": {"units": "months since 2018-01-01"}, "integers": {"times": np.array([2**62, -(2**62)])},
    "packed": {"scale_factor": np.nan}, "fill": {"_FillValue": 0.0}, "units-bytes": {"units": np.bytes_(b"\xff since \xff")},
}  # fmt: skip
CSV = "longitude,latitude,label,from,to\n500100,4999900,wheat,2018-01-01,2018-12-31\n500200,4999800,maize,2018-01-01,2018-12-31\n"
CSVS: dict[str, str | bytes] = {
    "good": CSV, "escape": CSV.replace("wheat", "\x1b[31mwheat\x1b[0m"), "newline": CSV.replace("wheat", '"whe\nat"'),
    "html": CSV.replace("wheat", "<script>alert(1)</script>"), "formula": CSV.replace("wheat", "=cmd|' /C calc'!A0"),
    "nul": CSV.replace("wheat", "whe\0at"), "not-utf8": CSV.encode().replace(b"wheat", b"wh\xff\xfe"), "empty": "",
    "nan": CSV.replace("500100", "nan"), "inf": CSV.replace("500100", "1e999"), "text": CSV.replace("500100", "here"),
    "far": CSV.replace("500100", "1e300"), "long": CSV.replace("wheat", "w" * 200_000), "quote": CSV.replace("wheat", '"wheat'),
    "heading": CSV.partition("\n")[2], "repeated": CSV.replace("latitude", "longitude"), "short": CSV[:-20],
    "date": CSV.replace("2018-12-31", "never"),
    "backwards": CSV.replace("2018-12-31", "2017-12-31"), "binary": bytes(range(256)) * 20, "utf16": CSV.encode("utf-16"),
    "many-columns": "a," * 50_000 + "\n" + "1," * 50_000, "bidi": CSV.replace("wheat", "\u202egnp"),
    "long-number": CSV.replace("500100", "9" * 10_000),
}  # fmt: skip
SQUARE = [[[500_100, 4_999_700], [500_300, 4_999_700], [500_300, 4_999_900], [500_100, 4_999_900], [500_100, 4_999_700]]]


def geojson(name: object = "wheat", geometry: object = None, crs: object = "urn:ogc:def:crs:EPSG::32633") -> str:
    shape = {"type": "Polygon", "coordinates": SQUARE} if geometry is None else geometry
    other = {"type": "Point", "coordinates": [500_500, 4_999_500]}
    features = [
        {"type": "Feature", "properties": {"label": label}, "geometry": one} for label, one in ((name, shape), ("maize", other))
    ]
    stated = {} if crs is None else {"crs": crs if isinstance(crs, dict) else {"type": "name", "properties": {"name": crs}}}
    return json.dumps({"type": "FeatureCollection", **stated, "features": features})


NAMED = {
    "good": "wheat", "escape": "\x1b[31mwheat", "newline": "whe\nat", "none": None, "number": 7, "list": [1, 2],
}  # fmt: skip
CRS_SAID = {
    "crs-link": {"type": "link", "properties": {"href": "http://127.0.0.1:9/x"}}, "crs-file": "/etc/passwd", "crs-none": None,
    "crs-url": "http://127.0.0.1:9/x", "crs-odd": {"type": "name"},
}  # fmt: skip
GEOMETRIES: dict[str, object] = {
    "text": {"type": "Polygon", "coordinates": "here"}, "nothing": {"type": "Nothing"},
    "nan": {"type": "Point", "coordinates": [float("nan"), 1]}, "open": {"type": "Polygon", "coordinates": [SQUARE[0][:3]]},
    "far": {"type": "Point", "coordinates": [1e300, -1e300]}, "empty": {"type": "Polygon", "coordinates": []},
    "bowtie": {"type": "Polygon", "coordinates": [[SQUARE[0][n] for n in (0, 2, 1, 3, 0)]]},
}  # fmt: skip
GEOJSONS: dict[str, str | bytes] = {
    **{name: geojson(label) for name, label in NAMED.items()},
    **{name: geojson(crs=crs) for name, crs in CRS_SAID.items()},
    **{f"geometry-{name}": geojson(geometry=geometry) for name, geometry in GEOMETRIES.items()},
    "nested": "[" * 200_000, "deep": '{"features":' + "[" * 50_000,
    "no-features": '{"type": "FeatureCollection", "features": []}',
    "text": "hello", "empty": "", "prefix": "GeoJSON:" + geojson(), "topojson": '{"type": "Topology", "objects": {}, "arcs": []}',
    "vrt": '<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>',
    "esri": '{"geometryType": "esriGeometryPolygon", "features": [{"attributes": {}}]}',
    "not-utf8": geojson().encode().replace(b"wheat", b"\xff"), "big-number": geojson().replace("500100", "1" * 5000),
    "features-odd": '{"features": [1, null, "x"]}', "sqlite": b"SQLite format 3\0" + bytes(500),
}  # fmt: skip
DATE_LISTS: dict[str, bytes] = {
    "good": DATES.encode(), "empty": b"", "nul": b"\0" * 100, "escape": b"2018\x1b[31m0101\n20180111\n",
    "not-utf8": b"\xff\xfe20180101\n",
    "more": b"20180101\n" * 100_000, "long-line": b"2" * 3_000_000, "same": b"20180101\n20180101\n",
    "words": b"yesterday\ntomorrow\n",
    "far": b"99991231\n00010101\n", "one": b"20180101\n", "commas": b"," * 100_000, "html": b"<b>20180101</b>\n20180111\n",
}  # fmt: skip


def stacked(content: bytes, dates: bytes = DATES.encode()) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.with_name("stack.tif").write_bytes(content)
        path.with_name("dates.txt").write_bytes(dates)

    return make


def dated(content: bytes) -> Callable[[Path], None]:
    """A hostile file as one of a folder that `init` looks at."""

    def make(path: Path) -> None:
        for day in ("20180101", "20180201", "20180301"):
            path.with_name(f"{day}_b1.tif").write_bytes(content if day != "20180201" else tiffs.base("tiles"))

    return make


def singles() -> Iterator[Single]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        time_cube(Path(folder) / "a.nc")
        whole = (Path(folder) / "a.nc").read_bytes()
    for at, cut in cuts(whole, [*range(0, len(whole), max(len(whole) // 20, 1))], 40, "cube").items():
        yield Single("cut-cube", at, ".nc", put(cut), read_cube, is_truncation=True)
    for at, changed in flipped(whole, 80, "cube").items():
        yield Single("flip-cube", at, ".nc", put(changed), read_cube)
    for at, changed in flipped(whole, 40, "init").items():
        yield Single("flip-init", at, ".nc", put(changed), look)
    for what, options in TIMES.items():
        for kind, read in (("time-cube", read_cube), ("time-init", look)):
            yield Single(kind, what, ".nc", lambda path, options=options: time_cube(path, **options), read)
    yield Single("bomb-cube", "time", ".nc", endless_time, read_cube)
    yield Single("bomb-cube", "time-init", ".nc", endless_time, look)
    for what, make in hdf5s.BOMBS.items():
        yield Single("bomb-init", what, ".nc", make, look)
    for what, reach in hdf5s.REACHES.items():
        yield Single("link-init", what, ".nc", hdf5s.reaching(reach, ("image",)), look)
    pair = tiffs.base("planar")
    for at, cut in cuts(pair, tiffs.edges(pair), 16, "stack").items():  # type: ignore[arg-type]
        yield Single("cut-stack", at, ".any", stacked(cut), read_stack)
    for at, changed in flipped(pair, 20, "stack").items():
        yield Single("flip-stack", at, ".any", stacked(changed), read_stack)
    for what, dates in DATE_LISTS.items():
        for kind, read in (("dates-stack", read_stack), ("dates-init", look)):
            yield Single(kind, what, ".any", stacked(pair, dates), read)
    for what, content in others.disguises().items():
        yield Single("disguise-init", what, ".any", dated(content), look)
        yield Single("disguise-labels", what, ".geojson", put(content), read_labels)
    for suffix, texts in ((".csv", CSVS), (".geojson", GEOJSONS)):
        for what, text in texts.items():
            yield Single(
                "labels", f"{suffix}-{what}", suffix, put(text if isinstance(text, bytes) else text.encode()), read_labels
            )
    raster = tiffs.base("tiles-deflate")
    for at, cut in cuts(raster, tiffs.edges(raster), 16, "labels").items():  # type: ignore[arg-type]
        yield Single("cut-labels", at, ".tif", put(cut), read_labels, is_truncation=True)
    for at, changed in flipped(raster, 16, "labels").items():
        yield Single("flip-labels", at, ".tif", put(changed), read_labels)


# ---------------------------------------------------------------- reading them


def read_all(folder: Path, every: int, first: int) -> None:
    """In this process, a line for each; `number name` before, `refused` or `accepted` or what went wrong after it."""
    import warnings

    from pipelines.errors import DriftlineError

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process: a library in an endless loop hears nothing else
    for number, case in list(enumerate(singles()))[first::every]:
        place = folder / f"s{number}" / "in"
        place.mkdir(parents=True)
        path = place / f"file{case.suffix}"
        case.make(path)
        print(number, f"{case.kind}/{case.name[:60]!a}", end=" ", flush=True)
        signal.alarm(HANGS_S)
        try:
            case.read(path)
        except DriftlineError as error:
            print("refused", ascii(str(error))[:200], flush=True)
        except Exception as error:
            print("UNEXPECTED", type(error).__name__, ascii(str(error))[:200], flush=True)
        else:
            print("TRUNCATION" if case.is_truncation else "accepted", flush=True)
        signal.alarm(0)


def run_singles(folder: Path, every: int = 1) -> Tally:
    """All of them, in as many processes as die or hang."""
    folder.mkdir(parents=True, exist_ok=True)
    tally, first, count = Tally(), 0, sum(1 for _ in singles())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    while first < count:
        place, out = folder / f"from{first}", folder / f"from{first}.txt"
        with out.open("wb") as to, out.with_suffix(".err").open("wb") as errors:
            command = [sys.executable, "-m", "tests.hostile.single", str(place), str(every), str(first)]
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=to, stderr=errors)
            while process.poll() is None:
                tally.peak_mb = max(tally.peak_mb, tree_mb(process.pid))
                time.sleep(0.05)
        lines = out.read_text().splitlines()
        for line in lines:
            words = line.split(" ", 3)
            outcome = words[2] if len(words) > 2 else ""
            tally.files += 1
            tally.refused += outcome == "refused"
            tally.accepted += outcome == "accepted"
            tally.truncations += outcome == "TRUNCATION"
            is_hang = not outcome and process.returncode == -signal.SIGALRM
            tally.hangs += is_hang
            tally.deaths += outcome == "UNEXPECTED" or (not outcome and not is_hang)
            if outcome not in ("refused", "accepted"):
                tally.faults.append(line + ("" if outcome else f" exit {process.returncode}"))
        if process.returncode and not lines:
            tally.faults.append(out.with_suffix(".err").read_text()[-1000:])
            tally.deaths += 1
            break
        first = int(lines[-1].split()[0]) + every if lines else count
    tally.seconds = time.monotonic() - started
    return tally


if __name__ == "__main__":
    faulthandler.enable()
    read_all(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
