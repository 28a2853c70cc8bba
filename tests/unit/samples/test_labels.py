"""Labels of every kind come onto the grid, and every one that is dropped is counted with its reason."""

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform
from shapely.geometry import Polygon, box

from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.samples.labels import Fields, Span, read_points, read_polygons, read_raster, resolve_labels

GRID = Grid("EPSG:32721", (10.0, 0.0, 500_000.0, 0.0, -10.0, 8_000_000.0), (4, 6))
FIELDS = Fields(x="x", y="y")


def span(start, stop):
    return Span(np.datetime64(start, "s"), np.datetime64(stop, "s"))


YEAR = span("2020-01-01", "2021-01-01")


def points(tmp_path, *lines):
    path = tmp_path / "points.csv"
    path.write_text("\n".join(["x,y,from,to,label", *lines]), encoding="utf-8")
    return read_points(path, FIELDS, GRID.crs, GRID, None)


def line(row, column, label, start="2020-01-01", stop="2021-01-01"):
    return f"{500_005 + 10 * column},{7_999_995 - 10 * row},{start},{stop},{label}"


def test_every_reason_to_drop_a_label_is_counted(tmp_path):
    given = points(
        tmp_path, line(0, 0, "maize"), line(3, 5, "soy"), line(9, 0, "soy"), line(1, 1, "lake"),
        line(2, 2, "soy", "2010-01-01", "2011-01-01"), line(0, 0, "maize"), line(2, 3, "soy"), line(2, 3, "maize"),
    )  # fmt: skip
    labels = resolve_labels(given, GRID, ("maize", "soy"), YEAR)
    assert list(zip(labels.row_P, labels.column_P, labels.class_P, strict=True)) == [(0, 0, 0), (3, 5, 1)]
    assert labels.dropped == {"outside": 1, "other class": 1, "other span": 1, "duplicate": 1, "contradictory": 2}
    assert labels.sentence.startswith("2 of 8 labels used; dropped: 1 outside the grid, 1 of a class that is not listed")


def test_a_pixel_may_have_another_class_at_another_time_but_not_at_an_overlapping_one(tmp_path):
    given = points(tmp_path, line(0, 0, "a", stop="2020-07-01"), line(0, 0, "b", start="2020-07-01"), line(1, 0, "b"),
                   line(1, 0, "a", start="2020-12-01", stop="2021-06-01"))  # fmt: skip
    labels = resolve_labels(given, GRID)
    assert sorted(zip(labels.row_P, labels.class_P, strict=True)) == [(0, 0), (0, 1)]
    assert labels.dropped == {"contradictory": 2}


def test_points_in_degrees_fall_on_the_pixel_that_holds_them(tmp_path):
    path = tmp_path / "points.csv"
    lon, lat = transform(GRID.crs, "EPSG:4326", [500_015.0, 500_059.9], [7_999_985.0, 7_999_960.1])
    path.write_text(
        "\n".join(["longitude,latitude,label", *(f"{x},{y},k{i}" for i, (x, y) in enumerate(zip(lon, lat, strict=True)))])
    )
    given = read_points(path, Fields(), "EPSG:4326", GRID, YEAR)
    assert (given.row_P.tolist(), given.column_P.tolist()) == ([1, 3], [1, 5])


def test_polygons_label_the_pixels_whose_centre_they_hold(tmp_path):
    left, top = 500_000, 8_000_000
    shapes = [box(left, top - 20, left + 26, top), box(left + 31, top - 39, left + 34, top - 36)]
    geopandas.GeoDataFrame({"label": ["field", "pond"]}, geometry=shapes, crs=GRID.crs).to_crs("EPSG:4326").to_file(
        tmp_path / "a.gpkg"
    )
    labels = resolve_labels(read_polygons(tmp_path / "a.gpkg", FIELDS, GRID, YEAR), GRID)
    assert labels.counts() == {"field": 6, "pond": 1}, "three columns of two rows; a pond smaller than a pixel still counts"
    assert "2 polygons cover 7 pixels" in labels.notes[0]


def write_raster(path, codes, affine, crs="EPSG:32721"):
    with rasterio.open(path, "w", driver="GTiff", height=codes.shape[0], width=codes.shape[1], count=1, dtype="uint8", crs=crs,
                       transform=affine) as raster:  # fmt: skip
        raster.write(codes, 1)


def test_a_label_raster_on_a_coarser_grid_is_read_by_the_nearest_pixel_and_says_so(tmp_path):
    codes = np.array([[1, 2, 9], [1, 1, 2]], np.uint8)
    write_raster(tmp_path / "a.tif", codes, rasterio.Affine(20, 0, 500_000, 0, -20, 8_000_000))
    given = read_raster(tmp_path / "a.tif", {1: "land", 2: "water"}, GRID, YEAR)
    labels = resolve_labels(given, GRID)
    assert labels.counts() == {"land": 12, "water": 8}
    assert "another grid" in labels.notes[0]


def test_a_label_raster_without_a_place_is_refused_until_it_is_said_to_be_on_the_cube(tmp_path):
    with pytest.warns(NotGeoreferencedWarning):
        write_raster(tmp_path / "a.tif", np.array([[1, 2, 1, 1, 1, 1]] * 4, np.uint8), rasterio.Affine.identity(), None)
    with pytest.raises(RequestError, match=r"no georeferencing; set labels.on_cube_grid"):
        read_raster(tmp_path / "a.tif", {1: "a", 2: "b"}, GRID, YEAR)
    assert len(read_raster(tmp_path / "a.tif", {1: "a", 2: "b"}, GRID, YEAR, on_grid=True).names) == 24
    with pytest.raises(RequestError, match=r"none of the codes 7, 8 on the images, only 1, 2; correct labels.codes"):
        read_raster(tmp_path / "a.tif", {7: "a", 8: "b"}, GRID, YEAR, on_grid=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,label\n1,2,a", "no column 'from', only x, y, label; name it in labels.columns, or set"),
        ("x,y,from,to,label\nleft,2,2020-01-01,2021-01-01,a", r"points.csv:2: .* expected numbers such as 45.14 in x and y"),
        ("x,y,label,label\n1,2,a,b", "two columns 'label'"),
        ("x;y;from;to;label\n1;2;2020-01-01", "points.csv:2: 5 columns in the heading"),
        ("x;y;from;to;label\n1,5;2;2020-01-01;2021-01-01;a", "expected numbers such as 45.14"),
        ("x,y,from,to,label\n1,2,2020-01-01,2019-01-01,a", r"points.csv:2: the span 2020-01-01 to 2019-01-01 ends before"),
        ("x,y,from,to,label\n1,2,spring,2019-01-01,a", "are no dates; write them as"),
        ("x,y,from,to,label", "holds no labels"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line_and_remedy(tmp_path, text, message):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=message):
        read_points(tmp_path / "points.csv", FIELDS, GRID.crs, GRID, None)


def test_missing_files_and_a_single_class_are_refused(tmp_path):
    with pytest.raises(MissingInput, match="no labels at"):
        read_points(tmp_path / "none.csv", FIELDS, GRID.crs, GRID, None)
    (tmp_path / "latin.csv").write_text("x,y,label\n1,2,Grünland", encoding="latin-1")
    with pytest.raises(RequestError, match="is not UTF-8"):
        read_points(tmp_path / "latin.csv", FIELDS, GRID.crs, GRID, YEAR)
    with pytest.raises(RequestError, match="are needed, there are labels of soy"):
        resolve_labels(points(tmp_path, line(0, 0, "soy"), line(1, 0, "soy")), GRID)


def test_labels_without_a_class_are_dropped_and_names_are_stripped(tmp_path):
    labels = resolve_labels(points(tmp_path, line(0, 0, " maize "), line(0, 1, "maize"), line(1, 0, ""), line(1, 1, "soy")), GRID)
    assert (labels.classes, labels.counts(), labels.dropped) == (("maize", "soy"), {"maize": 2, "soy": 1}, {"no class": 1})


def test_polygons_that_cannot_be_used_as_they_are_are_counted(tmp_path):
    crossing = Polygon([(500_000, 8_000_000), (500_040, 7_999_960), (500_040, 8_000_000), (500_000, 7_999_960)])
    frame = geopandas.GeoDataFrame(
        {"label": ["a", "b", None]}, geometry=[crossing, None, box(500_040, 7_999_960, 500_060, 8_000_000)]
    )
    frame.set_crs(GRID.crs).to_file(tmp_path / "areas.gpkg")
    given = read_polygons(tmp_path / "areas.gpkg", FIELDS, GRID, YEAR)
    assert any("1 polygons cross themselves" in note for note in given.notes)
    assert any("1 features without a geometry" in note for note in given.notes)
    assert set(given.names) == {"a", ""}


def test_a_code_that_is_the_nodata_value_of_its_raster_is_refused(tmp_path):
    path, where = tmp_path / "codes.tif", {"crs": GRID.crs, "transform": GRID.affine}
    with rasterio.open(path, "w", driver="GTiff", count=1, height=4, width=6, dtype="uint8", nodata=0, **where) as file:
        file.write(np.eye(4, 6, dtype=np.uint8), 1)
    with pytest.raises(RequestError, match=r"0 means no data, labels.codes that it is 'wheat'"):
        read_raster(path, {0: "wheat", 1: "soy"}, GRID, YEAR)
    assert len(read_raster(path, {1: "soy", 2: "lake"}, GRID, YEAR).names) == 4


def test_a_vector_file_is_opened_by_what_it_holds(tmp_path):
    path, square = tmp_path / "labels.geojson", box(500_000, 7_999_960, 500_020, 8_000_000)
    path.write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>'
    )
    with pytest.raises(RequestError, match="cannot be read as GeoJSON"):
        read_polygons(path, FIELDS, GRID, YEAR)
    frame = geopandas.GeoDataFrame({"label": ["soy", "ma\x1b[31mize"]}, geometry=[square, square.buffer(1)], crs=GRID.crs)
    frame.to_file(path, driver="GeoJSON")
    given = read_polygons(path, FIELDS, GRID, YEAR)
    assert set(given.names) == {"soy", "ma\\x1b[31mize"}  # a class names rasters, rows and tags: no control characters
    assert len(given.names) == 16
