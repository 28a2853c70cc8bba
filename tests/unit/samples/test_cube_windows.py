"""Windows cut out of a cube: their values and frames are the cube's, their spans those of the labels, their groups blocks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from pipelines.compute import HERE, Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import grid_of, head_snapshot, open_cube
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.products.step_products import step_rows
from pipelines.samples.cube_windows import CubeWindows, WindowSettings, open_windows
from pipelines.samples.label_values import read_values
from pipelines.samples.labelled import SplitSettings
from pipelines.samples.labels import Given, Span, resolve_labels
from pipelines.samples.sample_ingest import SampleIngest, ingest_samples
from pipelines.samples.sample_store import decode_images, read_table
from pipelines.samples.stepped_samples import label_steps
from pipelines.scene import Band
from pipelines.sources.fake import FakeSource
from pipelines.sources.quality import SclMask

SIDE = 14


def span(start: str, stop: str) -> Span:
    return Span(np.datetime64(start, "s"), np.datetime64(stop, "s"))


HALF, YEAR = span("2018-01-01", "2018-07-01"), span("2018-01-01", "2019-01-01")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 dates, every 10 days from 2018-01-05 on, a third of the pixels clouded."""
    place = str(tmp_path_factory.mktemp("cube") / "cube")
    source = FakeSource(30, (SIDE, SIDE), (Band("red", 1e-4, nodata=0), Band("nir", 1e-4, nodata=0)), cloud_fraction=0.35)
    ingest(source, SclMask(), place, None, IngestSettings(workers=1))
    return place


@pytest.fixture
def cube(uri: str) -> xr.Dataset:
    return open_cube(uri)


def labelled(uri: str, settings: WindowSettings, *places: tuple[int, int, Span, str]) -> CubeWindows:
    rows, columns, spans, names = zip(*places, strict=True)
    given = Given(np.array(rows), np.array(columns), spans, names)
    return replace(open_windows(uri, ["nir", "red"], settings), labels=resolve_labels(given, grid_of(open_cube(uri))))


def test_dates_as_they_are_have_the_values_of_the_cube(uri: str, cube: xr.Dataset) -> None:
    windows = labelled(uri, WindowSettings(3), (5, 6, HALF, "a"), (7, 1, HALF, "b"))
    listing = windows.list_samples()
    assert [(one.id, one.answer, one.group) for one in listing.samples] == [
        ("y00005-x00006-20180101-20180701", "a", "block 00000-00000"),
        ("y00007-x00001-20180101-20180701", "b", "block 00000-00000"),
    ]
    frames = windows.read(listing.samples[0])
    inside = cube.sel(time=slice("2018-01-01", "2018-06-30"))
    valid_THW = inside["valid"].values[:, 4:7, 5:8]
    image_TCHW = inside["image"].sel(band=["nir", "red"]).values[:, :, 4:7, 5:8]
    seen_T = valid_THW[:, 1, 1]
    assert 3 < seen_T.sum() < len(seen_T)
    np.testing.assert_array_equal(frames.valid_T, seen_T)
    is_same = valid_THW[seen_T][:, None] & np.ones((1, 2, 1, 1), bool)
    np.testing.assert_array_equal(frames.image_TCHW[seen_T][is_same], image_TCHW[seen_T][is_same])
    centre = np.broadcast_to(image_TCHW[:, :, 1:2, 1:2], image_TCHW.shape)
    np.testing.assert_array_equal(frames.image_TCHW[seen_T][~is_same], centre[seen_T][~is_same])
    assert (~is_same).any()
    assert frames.image_TCHW.dtype == cube["image"].dtype
    times = inside["time"].values
    np.testing.assert_array_equal(frames.seconds_T, (times - times[0]) / np.timedelta64(1, "s"))
    assert frames.facts["missing"] == pytest.approx(1 - seen_T.mean())
    assert frames.facts["year"] == 2018


def test_a_step_is_the_mean_of_its_valid_dates_and_not_valid_without_any(uri: str, cube: xr.Dataset) -> None:
    windows = labelled(uri, WindowSettings(1, steps=12), (5, 6, YEAR, "a"), (5, 7, YEAR, "b"))
    frames = windows.read(windows.list_samples().samples[0])
    start, length = np.datetime64("2018-01-01"), np.timedelta64(365 * 2, "h")  # a twelfth of the year
    for step in range(12):
        at = (cube.time.values >= start + step * length) & (cube.time.values < start + (step + 1) * length)
        seen = cube["valid"].values[at, 5, 6]
        values = cube["image"].sel(band=["nir", "red"]).values[at][:, :, 5, 6][seen]
        assert frames.valid_T[step] == (len(values) > 0)
        if len(values):
            np.testing.assert_array_equal(frames.image_TCHW[step, :, 0, 0], np.rint(values.mean(axis=0)))
    assert not frames.valid_T.all()  # the series ends in October
    np.testing.assert_allclose(np.diff(frames.seconds_T), 365 * 2 * 3600)


def test_spans_of_a_pixel_are_labels_of_the_steps_of_one_sample(uri: str, tmp_path: Path, cube: xr.Dataset) -> None:
    quarter, rest = span("2018-01-01", "2018-04-01"), span("2018-04-01", "2018-08-20")
    places = [(5, 6, quarter, "a"), (5, 6, rest, "b"), (7, 1, rest, "a"), (8, 2, rest, "b"), (9, 3, quarter, "a")]
    split = SplitSettings(folds=2, validation_parts=2)
    for steps in (12, None):
        windows = replace(labelled(uri, WindowSettings(1, 1, steps=steps), *places), span=YEAR, per_step=True)
        store = str(tmp_path / f"store{steps}")
        ingest_samples(windows, store, SampleIngest())
        table = read_table(store)
        assert table.id_N.tolist() == [f"y{y:05d}-x{x:05d}-20180101-20190101" for y, x in ((5, 6), (7, 1), (8, 2), (9, 3))]
        samples = label_steps(table, np.zeros((len(table), *table.layout.shape)), (), split, class_weights=False)
        month = np.timedelta64(365 * 2, "h")
        moments = cube.time.values if steps is None else YEAR.start + month * np.arange(12) + month // 2
        expected = np.where(quarter.holds(moments), 0, np.where(rest.holds(moments), 1, -1))
        np.testing.assert_array_equal(samples.class_PT[0], np.where(table.valid_NT[0], expected, -1))
    rows = step_rows(table, ("a", "b"), np.ones((4, len(cube.time), 2)), np.ones(4, bool), "dates")
    first, last = cube.time.values[table.valid_NT[0]][0], np.datetime64("2018-10-22", "s")
    assert (rows[0]["from"], rows[0]["block"]) == (str(first.astype("datetime64[D]")), "00005-00006")
    assert {np.datetime64(row["to"], "s") for row in rows if row["sample"].startswith("y00005")} >= {
        last + np.timedelta64(10, "D")
    }


def test_windows_beyond_the_edge_repeat_their_centre(uri: str, cube: xr.Dataset) -> None:
    windows = labelled(uri, WindowSettings(5, steps=1), (0, 0, YEAR, "a"), (SIDE - 1, SIDE - 1, YEAR, "b"))
    image_CHW = windows.read(windows.list_samples().samples[0]).image_TCHW[0]
    assert (image_CHW[:, :2] == image_CHW[:, 2:3, 2:3]).all()
    assert (image_CHW[:, :, :2] == image_CHW[:, 2:3, 2:3]).all()
    assert len(np.unique(image_CHW[0, 2:, 2:])) > 4


def test_spans_of_other_lengths_need_steps(uri: str) -> None:
    places = (5, 6, HALF, "a"), (5, 6, span("2018-07-01", "2018-09-01"), "b")
    with pytest.raises(RequestError, match=r"different numbers of dates \(6 from 2018-07-01.*set source.steps"):
        labelled(uri, WindowSettings(), *places).list_samples()
    samples = labelled(uri, WindowSettings(steps=4), *places).list_samples().samples
    assert [one.answer for one in samples] == ["a", "b"]
    with pytest.raises(RequestError, match="no date from 2030"):
        labelled(uri, WindowSettings(steps=4), *places, (1, 1, span("2030-01-01", "2031-01-01"), "a")).list_samples()


def test_a_cube_without_labels_is_cut_everywhere_and_its_bands_must_be_there(uri: str) -> None:
    windows = open_windows(uri, ["red"], WindowSettings(every_px=3, steps=6))
    assert len(windows.list_samples().samples) == 25
    assert {one.answer for one in windows.list_samples().samples} == {""}
    with pytest.raises(RequestError, match="no band 'blue', only red, nir"):
        open_windows(uri, ["blue"], WindowSettings()).list_samples()


def test_windows_go_into_the_store_and_only_what_is_new_is_cut(uri: str, tmp_path: Path) -> None:
    settings, store = WindowSettings(1, 4, steps=24), str(tmp_path / "store")
    places = [(row, column, YEAR, "ab"[column % 2]) for row in range(0, SIDE, 3) for column in range(SIDE)]
    source = labelled(uri, settings, *places[:-2])
    report = ingest_samples(source, store, SampleIngest())
    table = read_table(store)
    assert len(table) + len(report.refused) == len(places) - 2
    assert table.group_N.tolist() == [f"block {int(n[1:6]) // 4:05d}-{int(n[8:13]) // 4:05d}" for n in table.id_N]
    assert table.layout.grouped_by == "blocks of 4 x 4 pixels"
    image = decode_images(store, report.snapshot, table, tmp_path / "decoded")
    by_id = {one.id: one for one in source.list_samples().samples}
    for n in range(0, len(table), 17):
        frames = source.read(by_id[table.id_N[n]])
        np.testing.assert_array_equal(image[n], frames.image_TCHW)
        np.testing.assert_array_equal(table.valid_NT[n], frames.valid_T)
    more = ingest_samples(labelled(uri, settings, *places), store, SampleIngest())
    assert (len(more.added), len(more.replaced)) == (2, 0)
    other = ingest_samples(labelled(uri, replace(settings, steps=6), *places), store, SampleIngest())
    assert len(other.added) + len(other.refused) == len(places)
    assert read_table(store).layout.frames == 6


def test_windows_with_too_few_frames_are_refused(uri: str) -> None:
    source = labelled(uri, WindowSettings(1, steps=12, min_frames=12), (5, 6, YEAR, "a"), (5, 7, YEAR, "b"))
    with pytest.raises(SceneRefused, match=r"few-usable: \d+ of 12 frames are valid; source.min_frames asks for 12"):
        source.read(source.list_samples().samples[0])


def write_raster(path: Path, values: np.ndarray, grid: Grid, nodata: float | None) -> Path:
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype, crs=grid.crs,
        transform=grid.affine, nodata=nodata,
    ) as raster:  # fmt: skip
        raster.write(values, 1)
    return path


def test_a_raster_of_numbers_is_read_where_its_pixels_lie(tmp_path: Path) -> None:
    grid = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (4, 6))
    values = np.arange(24, dtype="float32").reshape(4, 6) / 8
    values[0, 0], values[3, 5], values[1, 1] = 99, np.nan, -1
    given = read_values(write_raster(tmp_path / "same.tif", values, grid, 99), grid, YEAR, nodata=-1)
    expected = {(r, c): f"{values[r, c]:.9g}" for r in range(4) for c in range(6)}
    del expected[0, 0], expected[3, 5], expected[1, 1]
    assert dict(zip(zip(given.row_P, given.column_P, strict=True), given.names, strict=True)) == expected
    assert given.notes == ()
    coarse = Grid("EPSG:32633", (20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0), (2, 3))
    path = write_raster(tmp_path / "coarse.tif", np.array([[1, 2, 3], [4, 255, 6]], "uint8"), coarse, 255)
    given = read_values(path, grid, YEAR)
    found = np.full((4, 6), np.nan)
    found[given.row_P, given.column_P] = list(map(float, given.names))
    np.testing.assert_array_equal(found, np.kron([[1, 2, 3], [4, np.nan, 6]], np.ones((2, 2))))
    assert "another grid" in given.notes[0]
    with pytest.raises(RequestError, match="hold no number on the images"):
        read_values(write_raster(tmp_path / "empty.tif", np.full((4, 6), 7, "uint8"), grid, 7), grid, YEAR)


def test_another_version_of_the_cube_is_cut_again(uri: str) -> None:
    windows = labelled(uri, WindowSettings(steps=4), (5, 6, YEAR, "a"), (5, 7, YEAR, "b"))
    assert windows.snapshot == head_snapshot(uri)
    later = replace(windows, snapshot="another")
    assert later.places == windows.places
    assert {one.state for one in windows.list_samples().samples} == {f"{windows.snapshot} 1"}


@pytest.mark.parametrize(
    "compute", [Compute(workers=3), pytest.param(Compute("processes", workers=2), marks=pytest.mark.exhaustive)]
)
def test_windows_read_by_workers_are_stored_as_those_of_one(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compute: Compute
) -> None:
    """Two spans of parts of 8 pixels, at most 25 windows in a file; some windows are refused."""
    monkeypatch.setattr("pipelines.samples.cube_windows.TILE_PX", 8)
    monkeypatch.setattr("pipelines.samples.window_reading.AT_ONCE", 25)
    places = [(row, column, span, "ab"[row % 2]) for row in range(SIDE) for column in range(0, SIDE, 2) for span in (HALF, YEAR)]
    stored = []
    for who in (HERE, compute):
        source = labelled(uri, WindowSettings(3, 4, steps=12, min_frames=7), *places)
        folder, staging = tmp_path / str(who.workers), tmp_path / str(who.workers) / "staging"
        report = ingest_samples(source, str(folder / "store"), SampleIngest(compute=who, staging=staging))
        table = read_table(str(folder / "store"))
        image = decode_images(str(folder / "store"), report.snapshot, table, folder / "decoded")
        facts = {name: values.tolist() for name, values in table.facts.items()}
        refused = [(one.scene_id, one.reason, one.detail) for one in report.refused]
        known = [table.id_N, table.answer_N, table.group_N, table.row_N, table.valid_NT, table.seconds_NT]
        stored.append((report.added, refused, image.tobytes(), facts, [values.tolist() for values in known]))
        assert not staging.exists()
    assert 0 < len(stored[0][1]) < len(places) / 2
    assert stored[0] == stored[1]
