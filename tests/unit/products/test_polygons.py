import json
import time
from typing import Any

import geopandas
import numpy as np
import pytest

from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.products.polygons import COLUMNS, kept_pixels, outline_changes, read_patches, strongest_pixel, write_polygons

EUROPE = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), (30, 40))  # equal area
DAY = 18_262.4375  # 2020-01-01T10:30


def mask(*patches: Any, shape_yx=(30, 40)) -> np.ndarray:
    changed = np.zeros(shape_yx, bool)
    for patch in patches:
        changed[patch] = True
    return changed


def days(changed: np.ndarray, day: float = DAY) -> dict[str, np.ndarray]:
    when = np.where(changed, day, np.nan)
    return {"change_day": when, "detected_day": when + 30}


def test_a_square_has_its_area_in_an_equal_area_projection():
    frame = outline_changes(mask(np.s_[5:15, 7:17]), EUROPE)
    assert len(frame) == 1
    row = frame.iloc[0]
    assert row.pixels == 100
    assert row.area_m2 == pytest.approx(10_000, rel=1e-6)
    assert row.geometry.area == 10_000
    assert row.geometry.bounds == (5.5e6 + 70, 2.7e6 - 150, 5.5e6 + 170, 2.7e6 - 50)
    assert frame.crs.to_epsg() == 3035
    assert list(frame.columns) == [*COLUMNS, "geometry"]


@pytest.mark.parametrize("north", [1.0, 61.0, -59.0])
def test_a_cell_of_one_degree_has_its_area_on_the_ellipsoid(north):
    """Against the closed form of a cell between two parallels of WGS 84 (Snyder 1987, eq. 3-12)."""
    grid = Grid("EPSG:4326", (0.1, 0, 10.0, 0, -0.1, north), (10, 10))
    frame = outline_changes(np.ones((10, 10), bool), grid)
    a, e = 6378137.0, 0.0818191908426215

    def q(degrees):
        s = np.sin(np.radians(degrees))
        return (1 - e**2) * (s / (1 - e**2 * s**2) - np.log((1 - e * s) / (1 + e * s)) / (2 * e))

    expected = a**2 * np.radians(1.0) * (q(north) - q(north - 1)) / 2
    assert frame.area_m2[0] == pytest.approx(expected, rel=1e-5)
    assert frame.lon[0] == pytest.approx(10.5)
    assert frame.lat[0] == pytest.approx(north - 0.5)


@pytest.mark.parametrize(("left", "lon"), [(200.0, -159.95), (359.0, -0.95), (-190.0, 170.05)])
def test_longitudes_of_patches_are_those_of_the_world(left, lon, tmp_path):
    grid = Grid("EPSG:4326", (0.01, 0, left, 0, -0.01, 10.0), (10, 10))
    frame = outline_changes(np.ones((10, 10), bool), grid)
    assert frame.lon[0] == pytest.approx(lon)
    (feature,) = json.loads(write_polygons(frame, tmp_path, "changes")[2].read_text())["features"]
    ring = np.array(feature["geometry"]["coordinates"][0][0])
    assert np.abs(ring[:, 0].mean() - lon) < 0.1


def test_pixels_centred_on_a_pole_end_there():
    frame = outline_changes(mask(np.s_[0:1, 0:4], shape_yx=(37, 72)), Grid("EPSG:4326", (5.0, 0, -2.5, 0, -5.0, 92.5), (37, 72)))
    assert frame.area_m2[0] == pytest.approx(2 * np.pi * 6.371e6**2 * (1 - np.sin(np.radians(87.5))) * 4 / 72, rel=0.02)


def test_web_mercator_does_not_inflate_the_area():
    grid = Grid("EPSG:3857", (20.0, 0, 1e6, 0, -20.0, 8.4e6), (10, 10))  # near 60 degrees north: lengths are doubled
    frame = outline_changes(np.ones((10, 10), bool), grid)
    assert frame.geometry.area[0] == pytest.approx(40_000)
    assert frame.area_m2[0] == pytest.approx(10_000, rel=0.03)


def test_corners_join_and_gaps_do_not():
    changed = mask(np.s_[0:2, 0:2], np.s_[2:4, 2:4], np.s_[4, 1], np.s_[10:12, 10:12])
    frame = outline_changes(changed, EUROPE)
    assert sorted(frame.pixels) == [4, 9]
    assert frame.geometry.is_valid.all()
    assert set(frame.geom_type) == {"MultiPolygon"}


def test_the_last_column_is_not_the_neighbour_of_the_next_rows_first():
    frame = outline_changes(mask(np.s_[5, 39], np.s_[6, 0]), EUROPE)
    assert list(frame.pixels) == [1, 1]


@pytest.mark.parametrize("holes", [[(3, 3)], [(3, 3), (4, 4)], [(0, 0), (1, 1), (2, 2)]])
def test_holes_are_left_out_and_outlines_stay_valid(holes):
    changed = mask(np.s_[0:8, 0:8])
    for hole in holes:
        changed[hole] = False
    frame = outline_changes(changed, EUROPE)
    assert frame.pixels.sum() == 64 - len(holes)
    assert frame.geometry.is_valid.all()
    assert frame.geometry.area.sum() == 100 * (64 - len(holes))


def test_any_mask_is_covered_exactly_once():
    from rasterio.features import rasterize
    from scipy.ndimage import label

    changed = np.random.default_rng(0).random((700, 90)) < 0.4  # more rows than a strip
    grid = Grid("EPSG:3035", EUROPE.transform, (700, 90))
    frame = outline_changes(changed, grid)
    assert frame.geometry.is_valid.all()
    drawn = rasterize(((g, k + 1) for k, g in enumerate(frame.geometry)), (700, 90), transform=grid.affine)
    np.testing.assert_array_equal(drawn > 0, changed)
    assert len(frame) == label(changed, np.ones((3, 3)))[1]
    np.testing.assert_array_equal(np.bincount(drawn.ravel())[1:], frame.pixels)


def test_small_patches_are_left_out_and_the_largest_comes_first():
    frame = outline_changes(mask(np.s_[0, 0:3], np.s_[5:7, 0:2], np.s_[10:15, 10:15]), EUROPE, min_area_px=4)
    assert list(frame.pixels) == [25, 4]


def test_neighbours_of_different_times_are_split_when_asked():
    changed = mask(np.s_[5:10, 5:15])
    layers = days(changed)
    layers["change_day"][:, 10:] += 400
    layers["detected_day"][:, 10:] += 400
    assert len(outline_changes(changed, EUROPE, layers)) == 1
    frame = outline_changes(changed, EUROPE, layers, split_days=180)
    assert list(frame.pixels) == [25, 25]
    assert sorted(str(d)[:10] for d in frame.first_date) == ["2020-01-01", "2021-02-04"]


def test_recovered_pixels_are_counted_by_patch():
    changed = mask(np.s_[0, 0:3], np.s_[5, 0:2])
    recovered = np.full(changed.shape, np.nan)
    recovered[0, 1:3], recovered[9, 9] = DAY + 90, DAY + 90  # the last lies in no patch
    frame = outline_changes(changed, EUROPE, days(changed) | {"recovered_day": recovered})
    assert list(zip(frame.pixels, frame.recovered_px, strict=True)) == [(3, 2), (2, 0)]
    assert list(outline_changes(changed, EUROPE).recovered_px) == [0, 0]


def test_kept_pixels_are_those_of_the_patches():
    changed = mask(np.s_[0, 0:3], np.s_[5, 0:2], np.s_[8, 8])
    for least in (1, 2, 3, 9):
        pixels = kept_pixels(changed, EUROPE, days(changed), 1, least, None)
        assert pixels.row.size == outline_changes(changed, EUROPE, days(changed), min_area_px=least).pixels.sum()
    pixels = kept_pixels(changed, EUROPE, days(changed), 1, 3, None)
    assert (list(pixels.row), list(pixels.column), list(pixels.values["change_day"])) == ([0] * 3, [0, 1, 2], [DAY] * 3)
    assert kept_pixels(np.zeros_like(changed), EUROPE, {}, 1, 1, None).row.size == 0


def test_dates_magnitude_and_direction_are_those_of_the_pixels():
    changed = mask(np.s_[0, 0:3])
    layers = days(changed)
    layers["change_day"][0, 1], layers["detected_day"][0, 1] = DAY + 10, DAY + 60
    layers["change_day"][0, 2], layers["detected_day"][0, 2] = DAY + 20, DAY + 25
    layers["magnitude"] = np.where(changed, -0.3, 0).astype(np.float32)
    layers["magnitude"][0, 2] = -0.6
    layers["direction"] = -changed.astype(np.int8)
    layers["confidence"] = np.full(changed.shape, 0.75, np.float32)
    row = outline_changes(changed, EUROPE, layers).iloc[0]
    assert str(row.first_date) == "2020-01-01 10:30:00+00:00"
    assert str(row.median_date)[:10] == "2020-01-11"
    assert str(row.last_date)[:10] == "2020-01-21"
    assert str(row.detected)[:10] == "2020-01-26"
    assert row.magnitude == pytest.approx(-0.4)
    assert row.direction == "decrease"
    assert row.confidence == 0.75
    layers["direction"][0, 0] = 1
    assert outline_changes(changed, EUROPE, layers).direction[0] == "mixed"


def test_a_patch_keeps_its_id_while_it_grows_on_every_side():
    changed = mask(np.s_[10:12, 10:12])
    layers = days(changed)
    before = outline_changes(changed, EUROPE, layers)
    grown = mask(np.s_[8:14, 8:14])
    fresh = grown & ~changed
    layers["change_day"][fresh] = DAY - 5  # the change began before the first alarm, but was noticed later
    layers["detected_day"][fresh] = DAY + 45
    after = outline_changes(grown, EUROPE, layers)
    assert before.id[0] == after.id[0] == "20200131-r10-c10"
    assert after.pixels[0] == 36


def test_ids_are_unique_and_without_dates_name_the_place():
    frame = outline_changes(mask(np.s_[0, 0], np.s_[5, 5], np.s_[9, 0:2]), EUROPE)
    assert set(frame.id) == {"r0-c0", "r5-c5", "r9-c0"}
    assert frame.first_date.isna().all()
    assert set(frame.direction) == {"unknown"}


def test_the_three_files_say_the_same(tmp_path):
    changed = mask(np.s_[5:15, 7:17], np.s_[20:22, 0:2])
    layers = days(changed) | {"magnitude": np.full(changed.shape, np.nan)}
    frame = outline_changes(changed, EUROPE, layers)
    paths = write_polygons(frame, tmp_path, "changes")
    assert [path.name for path in paths] == ["changes.gpkg", "changes.parquet", "changes.geojson"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)  # no drafts left
    package, table, text = geopandas.read_file(paths[0]), geopandas.read_parquet(paths[1]), geopandas.read_file(paths[2])
    for read in (package, table, text):
        assert list(read.id) == list(frame.id)
        assert list(read.first_date) == list(frame.first_date)
        assert read.magnitude.isna().all()
    assert package.crs.to_epsg() == table.crs.to_epsg() == 3035
    assert text.crs.to_epsg() == 4326
    assert package.geometry.geom_equals(frame.geometry).all()
    assert table.geometry.geom_equals(frame.geometry).all()
    assert text.to_crs(3035).geometry.geom_equals_exact(frame.geometry, 0.01).all()


def test_geojson_is_rfc_7946(tmp_path):
    changed = mask(np.s_[5:15, 7:17])
    changed[8, 9] = False
    path = write_polygons(outline_changes(changed, EUROPE, days(changed)), tmp_path, "changes")[2]
    content = json.loads(path.read_text())
    assert "crs" not in content
    feature = content["features"][0]
    assert feature["properties"]["first_date"] == "2020-01-01T10:30:00Z"
    assert feature["properties"]["magnitude"] is None
    shell, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"][0])

    def turn(ring):
        return (ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum()

    origin = shell[0]
    assert turn(shell - origin) > 0  # exterior rings counter-clockwise, holes clockwise
    assert turn(hole - origin) < 0
    assert 25.4 < shell[0, 0] < 25.5  # longitude first
    assert 46.2 < shell[0, 1] < 46.4


@pytest.mark.parametrize(
    ("crs", "transform", "width"),
    [("EPSG:32601", (10.0, 0, 165_850.0, 0, -10.0, 1000.0), 0.0036), ("EPSG:4326", (0.001, 0, 179.98, 0, -0.001, 1.0), 0.04)],
)
def test_a_patch_across_180_degrees_is_cut(tmp_path, crs, transform, width):
    grid = Grid(crs, transform, (30, 40))
    frame = outline_changes(np.ones((30, 40), bool), grid)
    path = write_polygons(frame, tmp_path, "changes")[2]
    parts = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"]
    longitudes = np.array([point[0] for part in parts for point in part[0]])
    assert len(parts) == 2
    assert (longitudes.min(), longitudes.max()) == (-180, 180)
    assert sum(np.ptp([point[0] for point in part[0]]) for part in parts) == pytest.approx(width, rel=0.01)


def test_a_sphere_has_its_own_area_and_all_files(tmp_path):
    sinusoidal = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"  # of MODIS
    grid = Grid(sinusoidal, (231.65635826, 0, -6.0e6, 0, -231.65635826, -1.3e6), (5, 5))
    frame = outline_changes(np.ones((5, 5), bool), grid)
    assert frame.area_m2[0] == pytest.approx(25 * 231.65635826**2, rel=1e-4)
    package, _, text = (path for path in write_polygons(frame, tmp_path, "changes"))
    assert geopandas.read_file(package).geometry.area[0] == pytest.approx(frame.area_m2[0], rel=1e-4)
    assert geopandas.read_file(text).total_bounds[1] == pytest.approx(-11.7, abs=0.1)


def test_the_same_patches_give_the_same_bytes(tmp_path):
    changed = mask(np.s_[5:15, 7:17])
    frame = outline_changes(changed, EUROPE, days(changed))
    one = [path.read_bytes() for path in write_polygons(frame, tmp_path, "changes")]
    time.sleep(1.1)  # a GeoPackage would hold the time of writing
    assert one == [path.read_bytes() for path in write_polygons(frame, tmp_path, "changes")]


def test_nothing_found_gives_valid_empty_files(tmp_path):
    frame = outline_changes(np.zeros((30, 40), bool), EUROPE)
    assert len(frame) == 0
    for path in write_polygons(frame, tmp_path, "changes"):
        read = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
        assert len(read) == 0
    assert geopandas.read_file(tmp_path / "changes.gpkg").crs.to_epsg() == 3035
    assert set(COLUMNS) <= set(geopandas.read_parquet(tmp_path / "changes.parquet").columns)
    assert json.loads((tmp_path / "changes.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ArtefactDamaged, match=r"layer magnitude is \(3, 3\), the grid is \(30, 40\)"):
        outline_changes(mask(), EUROPE, {"magnitude": np.zeros((3, 3))})
    with pytest.raises(MissingInput, match=r"changes.parquet is not there; run the command that made it again"):
        read_patches(tmp_path)
    patient = Grid('LOCAL_CS["patient",UNIT["millimetre",0.001]]', (1.0, 0, 0, 0, -1.0, 0), (4, 4))
    with pytest.raises(RequestError, match="not a place on Earth"):
        outline_changes(np.ones((4, 4), bool), patient)


def test_the_clearest_pixel_of_a_patch_is_found():
    changed = mask(np.s_[5:12, 6:15])
    magnitude = np.where(changed, -0.1, -9).astype(np.float32)  # the largest lies outside
    magnitude[9, 11] = -0.5
    frame = outline_changes(changed, EUROPE)
    assert strongest_pixel(frame.geometry[0], EUROPE, magnitude) == (9, 11)
