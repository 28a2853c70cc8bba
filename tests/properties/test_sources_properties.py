"""Properties of every source, whatever the position, the truncation, the names or the clouds."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, Scene
from pipelines.sources.dates import FORMATS, detect_date, parse_date
from pipelines.sources.file_names import FilePattern, propose_pattern
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import open_raster
from pipelines.sources.quality import keep_away
from pipelines.sources.source import resolve_dates

GRID = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (21, 34))
PLANE = (np.arange(21 * 34).reshape(21, 34) + 1).astype("uint16")


def write(path: Path, **options) -> Path:
    profile = {"driver": "GTiff", "crs": GRID.crs, "transform": GRID.affine, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", height=21, width=34, **profile, **options) as file:
        file.write(PLANE, 1)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> FolderSource:
    folder = tmp_path_factory.mktemp("source")
    write(folder / "20180105.tif", tiled=True, blockxsize=16, blockysize=16)
    return FolderSource(folder, BandRequest((Band("a", nodata=0),)), "{date:%Y%m%d}.tif")


@settings(deadline=None)
@given(row=st.integers(-30, 30), column=st.integers(-40, 40), height=st.integers(1, 30), width=st.integers(1, 40), data=st.data())
def test_any_window_of_the_lattice_is_a_copy(source, row, column, height, width, data):
    target = Grid.from_affine(GRID.crs, GRID.affine @ rasterio.Affine.translation(column, row), (height, width))
    start = data.draw(st.integers(0, height - 1))
    rows = slice(start, data.draw(st.integers(start + 1, height)))
    found = source.read(source.list_scenes().scenes[0], target, ("a",), "cubic", rows)[0]
    padded = np.zeros((121, 154), "uint16")
    padded[60:81, 60:94] = PLANE
    np.testing.assert_array_equal(found, padded[60 + row + rows.start : 60 + row + rows.stop, 60 + column : 60 + column + width])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(cut=2453, compress="lzw", tiled=True)  # truncates the array of offsets: GDAL then reads all tiles as sparse
@given(cut=st.integers(0, 1_000_000), compress=st.sampled_from(["none", "deflate", "lzw"]), tiled=st.booleans())
def test_a_truncated_file_is_refused_or_complete(tmp_path, cut, compress, tiled):
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    whole = write(tmp_path / "whole.tif", compress=compress, **tiles).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: cut % len(whole)])
    try:
        with open_raster(tmp_path / "cut.tif") as dataset:
            found = dataset.read(1)
    except SceneRefused as refusal:
        assert refusal.reason in ("truncated", "unreadable", "driver")  # noqa: PT017 - a cut behind the last strip is no cut
    else:
        np.testing.assert_array_equal(found, PLANE)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.binary(max_size=300),
    magic=st.sampled_from([b"", b"II*\0", b"II+\0", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"]),
)
def test_any_bytes_are_refused_without_a_crash(tmp_path, junk, magic):
    (tmp_path / "a.tif").write_bytes(magic + junk)
    with pytest.raises(SceneRefused), open_raster(tmp_path / "a.tif") as dataset:
        dataset.read()


@settings(deadline=None)
@given(bad=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 14)), max_size=6), away_px=st.integers(0, 5))
def test_usable_pixels_are_farther_than_away_px_from_bad_ones(bad, away_px):
    is_bad = np.zeros((12, 15), bool)
    rows, columns = np.mgrid[:12, :15]
    expected = np.ones((12, 15), bool)
    for row, column in bad:
        is_bad[row, column] = True
        expected &= np.hypot(rows - row, columns - column) > away_px
    np.testing.assert_array_equal(keep_away(is_bad, away_px), expected)


@settings(deadline=None)
@given(moment=st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2099, 12, 31)), date_format=st.sampled_from(FORMATS))
def test_written_dates_are_parsed_unchanged(moment, date_format):
    text = moment.strftime(date_format)
    assert detect_date(text) == parse_date(text, date_format) == np.datetime64(datetime.datetime.strptime(text, date_format))


@settings(deadline=None)
@given(
    days=st.lists(st.dates(datetime.date(1980, 1, 1), datetime.date(2090, 1, 1)), min_size=3, max_size=8, unique=True),
    date_format=st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%Y%j", "%Y%m%d%H%M", "%Y_%m_%d"]),
    bands=st.lists(st.sampled_from(["B2", "B04", "B8A", "SCL", "NDVI", "red"]), min_size=2, max_size=5, unique=True),
    has_band_first=st.booleans(),
)
def test_a_proposed_pattern_matches_its_own_names(days, date_format, bands, has_band_first):
    dates = [day.strftime(date_format) for day in days]
    names = [f"x_{band}_{date}.tif" if has_band_first else f"x.{date}/{band}.tif" for date in dates for band in bands]
    naming = propose_pattern(names)
    assert naming is not None
    assert set(naming.bands) == set(bands)
    pattern = FilePattern(naming.pattern)
    assert pattern.date_format == date_format
    for name in names:
        said = pattern.match(name, naming.bands)
        assert said is not None
        assert said.date_text in dates
        assert said.band in bands


@settings(deadline=None)
@given(hours=st.lists(st.integers(0, 9), max_size=12), same_date=st.sampled_from(["refuse", "mosaic"]))
def test_a_resolved_listing_has_every_scene_and_every_date_once(hours, same_date):
    scenes = [Scene(f"s{i}", np.datetime64("2018-01-01", "ns") + np.timedelta64(hour, "h"), {}) for i, hour in enumerate(hours)]
    listing = resolve_dates(scenes, [], same_date)
    dates = [scene.observed_utc for scene in listing.scenes]
    assert dates == sorted(set(dates))
    kept = {part.id for scene in listing.scenes for part in (scene.parts or (scene,))}
    assert kept | {refusal.scene_id for refusal in listing.refused} == {scene.id for scene in scenes}
    assert len({scene.id for scene in listing.scenes}) == len(listing.scenes)
