"""Chunks and shards of a cube: what one new date costs, what readers cost, how many objects there are.

    python -m benchmarks.bench_chunks [--quick] [--at FOLDER_OR_URI] [--side PIXELS] [--dates N]

Every layout is written into an Icechunk repository, a date and a commit at a time: chunks of one date as an ingest writes them
(compressed, with a mask), those of several dates by zarr itself, which has to read and write the other dates again. The pixels
that are read are compared. Reads: windows of training (64x64 px, eight dates, at random), one whole date (an export, a map), a
tile of monitoring through all dates (256x256 px), and one pixel through all dates. Layouts take turns; a ratio above 1 is faster
than chunks of one date and 256x256 px, the default. CPU seconds depend less on other load of the machine. Page cache warm.
`--at s3://bucket/prefix`: into a bucket.

Then what the number of objects costs Icechunk: each version lists all of them. A cube of 140 dates whose objects are references
to one file gets three more dates, and is opened.
"""

import argparse
import itertools
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import icechunk
import numpy as np
import zarr
from zarr.types import AnyArray

from pipelines.cube.encoding import encode_rows
from pipelines.cube.integrity import pixel_codecs
from pipelines.cube.steps import pixel_store, resize_time
from pipelines.cube.store import BRANCH, create_arrays, storage_of
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.reading import Slice
from pipelines.stored_files import files_at, is_remote

BANDS, WINDOW_PX, WINDOW_DATES, TILE_PX, WINDOWS = 4, 64, 8, 256, 12
REAL = "satellite/sentinel2-romania/sentinel2_cube_subset_romania_10m.nc"
MEASURES = ("arrival", "windows", "date", "tile", "pixel")


@dataclass(frozen=True)
class Layout:
    """Dates and pixels of a chunk, and how many that lie side by side are an object."""

    dates: int
    px: int
    together: int = 1

    def __str__(self) -> str:
        return f"{self.dates} x {self.px}" + ("" if self.together == 1 else f", {self.together} together")


DEFAULT = Layout(1, 256)
LAYOUTS = (
    DEFAULT, Layout(1, 128), Layout(1, 512), Layout(1, 1024), Layout(4, 256), Layout(16, 128), Layout(1, 256, 4),
    Layout(1, 256, 16), Layout(1, 128, 16),
)  # fmt: skip
SMALL = (DEFAULT, Layout(1, 32), Layout(1, 64), Layout(4, 64), Layout(16, 64), Layout(1, 32, 4))


def make_image(side: int, dates: int) -> np.ndarray:
    """(time, band, y, x) like Sentinel-2: a smooth field, a season, and noise that compresses 1.6 to 1.8 times."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    smooth_YX = ndimage.gaussian_filter(rng.normal(size=(side, side)), 20)
    base_YX = (1500 + 900 * smooth_YX / np.abs(smooth_YX).max()).astype("float32")
    image_TBYX = np.empty((dates, BANDS, side, side), "uint16")
    for index in np.ndindex(dates, BANDS):
        image_TBYX[index] = np.clip(base_YX + 40 * index[0] + rng.normal(0, 40, base_YX.shape), 1, 10_000)
    return image_TBYX


def read_real(data: Path) -> np.ndarray:
    """The Sentinel-2 series over a Romanian forest: 140 dates of 100x100 px."""
    import xarray as xr

    with xr.open_dataset(data / REAL, engine="h5netcdf", mask_and_scale=False) as found:
        return np.stack([found[band].values for band in ("B2", "B3", "B4", "B8")], axis=1).astype("uint16")


def clocks() -> np.ndarray:
    """CPU seconds of this process, and wall clock."""
    return np.array([time.process_time(), time.perf_counter()])


def write(image_TBYX: np.ndarray, layout: Layout, uri: str) -> np.ndarray:
    """Seconds (by both clocks) until a new date is committed, the fastest of the last eight."""
    dates, bands, *shape = image_TBYX.shape
    repository = icechunk.Repository.create(storage_of(uri))
    session, seconds = repository.writable_session(BRANCH), []
    if layout.dates == 1:
        grid = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (shape[0], shape[1]))
        named = [Band(str(number), nodata=0) for number in range(bands)]
        create_arrays(session.store, grid, named, image_TBYX.dtype, layout.px, {}, layout.px * layout.together)
    else:
        chunk = tuple(min(layout.px, size) for size in shape)
        zarr.create_group(session.store).create_array(
            "image", shape=(0, bands, *shape), chunks=(layout.dates, bands, *chunk), dtype=image_TBYX.dtype, fill_value=0,
            compressors=pixel_codecs(2),
        )  # fmt: skip
    session.commit("empty")
    for date in range(dates):
        started = clocks()
        session = repository.writable_session(BRANCH)
        array = open_image(session)
        array.resize((date + 1, bands, *shape))
        if layout.dates == 1:
            write_date(session, date, image_TBYX[date])
        else:
            array[date] = image_TBYX[date]
        session.commit(f"date {date}")
        seconds.append(clocks() - started)
    return np.min(seconds[-8:], axis=0)


def write_date(session: icechunk.Session, date: int, image_BYX: np.ndarray) -> None:
    """As an ingest does, when the scene has been read."""
    root = zarr.open_group(session.store, mode="r+")
    resize_time(root, date + 1)
    pixels, found = pixel_store(root), Slice(image_BYX, np.ones(image_BYX.shape[1:], bool))
    pixels.write(date, encode_rows(found, slice(0, image_BYX.shape[1]), pixels.layouts, 100))


def open_image(session: icechunk.Session) -> AnyArray:
    found = zarr.open_group(session.store, mode="r" if session.read_only else "r+")["image"]
    assert isinstance(found, zarr.Array)
    return found


def read(image_TBYX: np.ndarray, uri: str) -> dict[str, np.ndarray]:
    """Seconds of each kind of read, by a repository that is opened anew."""
    dates, _, rows, columns = image_TBYX.shape
    rng = np.random.default_rng(1)
    side, tile, length = min(WINDOW_PX, rows), min(TILE_PX, rows), min(WINDOW_DATES, dates)
    corners = [tuple(rng.integers(0, np.array(image_TBYX.shape)[[0, 2, 3]] - (length, side, side) + 1)) for _ in range(WINDOWS)]
    windows = [np.s_[t : t + length, :, y : y + side, x : x + side] for t, y, x in corners]
    row, column = (rows // tile // 2) * tile, (columns // tile // 2) * tile
    wanted = {
        "windows": windows,
        "date": [np.s_[dates // 2]],
        "tile": [np.s_[:, :, row : row + tile, column : column + tile]],
        "pixel": [np.s_[:, :, rows // 3, columns // 3]],
    }
    array = open_image(icechunk.Repository.open(storage_of(uri)).readonly_session(BRANCH))
    return {name: seconds_of(array, boxes, image_TBYX) for name, boxes in wanted.items()}


def seconds_of(array: AnyArray, boxes: list, expected: np.ndarray) -> np.ndarray:
    started = clocks()
    found = [array[box] for box in boxes]
    seconds = clocks() - started
    if not all(np.array_equal(one, expected[box]) for one, box in zip(found, boxes, strict=True)):
        raise SystemExit("other pixels were read than were written")
    return seconds


def compare(title: str, image_TBYX: np.ndarray, layouts: tuple[Layout, ...], place: str, rounds: int) -> None:
    """Writes every layout once, reads them in turns, and prints the table."""
    found: dict[Layout, dict[str, list[np.ndarray]]] = {}
    stored = {}
    for number, layout in enumerate(layouts):
        uri = f"{place}/{number}"
        found[layout] = {"arrival": [write(image_TBYX, layout, uri)], **{name: [] for name in MEASURES[1:]}}
        files = files_at(uri)
        names = [name for name in files.names("") if name.startswith("chunks/")]
        stored[layout] = len(names), sum(map(files.size, names)) / 1e6
    for turn in range(rounds):
        for number, layout in list(enumerate(layouts))[:: 1 if turn % 2 == 0 else -1]:
            for name, seconds in read(image_TBYX, f"{place}/{number}").items():
                found[layout][name].append(seconds)
    dates, bands, rows, columns = image_TBYX.shape
    print(f"\n{title}: {dates} dates, {bands} bands, {rows} x {columns} px; seconds (ratio to {DEFAULT}), fastest of {rounds}")
    for number, clock in enumerate(("CPU", "wall clock")):
        best = {one: {name: float(np.min(found[one][name], axis=0)[number]) for name in MEASURES} for one in layouts}
        print(f"{clock:>20}{'objects':>9}{'MB':>8}" + "".join(f"{name:>17}" for name in MEASURES))
        for layout in layouts:
            cells = "".join(f"{cell(best[layout][name], best[DEFAULT][name]):>17}" for name in MEASURES)
            print(f"{layout!s:>20}{stored[layout][0]:>9}{stored[layout][1]:>8.1f}{cells}")


def cell(seconds: float, usual: float) -> str:
    return f"{seconds:.4f} ({usual / seconds:.2f})"


def measure_list(objects_per_date: int, dates: int, folder: Path) -> None:
    """A line about a cube of so many objects: committing a date (without its pixels), opening it and reading its first chunk."""
    side = math.isqrt(objects_per_date)
    (folder / "pixels").mkdir(parents=True)
    (folder / "pixels" / "chunk").write_bytes(bytes(256))
    where = f"file://{folder}/pixels/"
    config = icechunk.RepositoryConfig.default()
    config.inline_chunk_threshold_bytes = 0
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(where, icechunk.local_filesystem_store(where[7:])))
    repository = icechunk.Repository.create(storage_of(str(folder / "cube")), config=config)
    session = repository.writable_session(BRANCH)
    how: dict = {"chunks": (1, 16, 16), "dtype": "uint8", "compressors": None, "fill_value": 0}
    zarr.create_group(session.store).create_array("image", shape=(dates, side * 16, side * 16), **how)
    places = itertools.product(range(dates), range(side), range(side))
    session.store.set_virtual_refs("image", [icechunk.VirtualChunkSpec([*place], f"{where}chunk", 0, 256) for place in places])
    session.commit("references")
    commits, opened = [], []
    for date in range(dates, dates + 3):
        session = repository.writable_session(BRANCH)
        array = open_image(session)
        array.resize((date + 1, side * 16, side * 16))
        array[date] = np.random.default_rng(date).integers(1, 255, (side * 16, side * 16), "uint8")
        started = time.perf_counter()
        session.commit("a date")
        commits.append(time.perf_counter() - started)
        started = time.perf_counter()
        open_image(icechunk.Repository.open(storage_of(str(folder / "cube"))).readonly_session(BRANCH))[date, 0, 0]
        opened.append(time.perf_counter() - started)
    largest = max(path.stat().st_size for path in (folder / "cube" / "manifests").iterdir()) / 1e6
    print(f"{side**2 * dates:>9} objects: commit {min(commits):.3f} s, open {min(opened):.3f} s, list {largest:.2f} MB a version")


def with_place(at: str | None, work: Callable[[str], None]) -> None:
    if at is not None and is_remote(at):
        work(f"{at.rstrip('/')}/chunks-{os.getpid()}")
        return
    folder = tempfile.mkdtemp(dir=at)
    try:
        work(folder)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1024 px instead of 2048, fewer turns")
    parser.add_argument("--at", help="a folder or s3://bucket/prefix; default: a temporary folder")
    parser.add_argument("--side", type=int, help="pixels of the made cube's sides")
    parser.add_argument("--dates", type=int, default=16, help="of the made cube")
    arguments = parser.parse_args()
    print(f"chunks, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    side, rounds = arguments.side or (1024 if arguments.quick else 2048), 2 if arguments.quick else 5
    made = make_image(side, arguments.dates)
    with_place(arguments.at, lambda place: compare("made", made, LAYOUTS, place, rounds))
    print("\nthe list of objects")
    for objects in (13**2, (23 if arguments.quick else 46) ** 2):
        with tempfile.TemporaryDirectory() as folder:
            measure_list(objects, 140, Path(folder))
    data = Path(os.environ.get("DRIFTLINE_DATA", "../shared/data"))
    if (data / REAL).exists():
        real = read_real(data)
        with_place(arguments.at, lambda place: compare("Sentinel-2, Romania", real, SMALL, place, rounds))


if __name__ == "__main__":
    main()
