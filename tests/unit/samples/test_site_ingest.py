from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine

from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.samples.label_codes import change_labels
from pipelines.samples.site_ingest import class_share
from pipelines.samples.site_ingest import read_label as read_with

UTM = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (4, 5))
CODES = np.array([[1, 1, 2, 1, 1], [1, 2, 2, 1, 1], [1, 1, 1, 0, 0], [1, 1, 9, 1, 1]], np.uint8)
CLASSES = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 255, 255], [0, 0, 255, 0, 0]], np.uint8)
OSCD = {"changed": (2,), "unchanged": (1,)}
# rasterio warns where a file has no georeferencing, also where one is written on purpose
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def read_label(path, grid, grid_of=None, **settings) -> SimpleNamespace:
    label_YX, notes = read_with(path, grid, change_labels(**settings), None if grid_of is None else {"B02": grid_of})
    return SimpleNamespace(label_YX=label_YX, notes=tuple(notes))


def write(path, codes=CODES, grid=None, **options):
    where = {} if grid is None else {"crs": grid.crs, "transform": grid.affine}
    shape = {"height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": codes.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where, **options) as file:
        file.write(codes, 1)
    return path


def test_codes_become_unchanged_changed_unknown(tmp_path):
    label = read_label(write(tmp_path / "cm.tif"), UTM, **OSCD, grid_of=UTM)
    assert label.label_YX.dtype == np.uint8
    np.testing.assert_array_equal(label.label_YX, CLASSES)
    assert class_share(label.label_YX) == 3 / 17
    assert label.notes == ("cm.tif: 15.0% of the pixels are unknown and left out (codes 0 (2 px), 9 (1 px) mean neither)",)


def test_a_georeferenced_label_is_put_where_it_lies(tmp_path):
    there = Grid(UTM.crs, tuple(UTM.affine @ Affine.translation(1, -1))[:6], UTM.shape_yx)  # one column right, one row up
    label = read_label(write(tmp_path / "cm.tif", grid=there), UTM, **OSCD)
    expected = np.full(UTM.shape_yx, 255)
    expected[:3, 1:] = CLASSES[1:, :4]
    np.testing.assert_array_equal(label.label_YX, expected)
    assert "warped" not in "".join(label.notes)  # its pixels are the grid's: they were copied


def test_a_label_between_the_pixels_is_warped_and_said(tmp_path):
    between = Grid(UTM.crs, tuple(UTM.affine @ Affine.translation(0.3, 0.3))[:6], UTM.shape_yx)
    label = read_label(write(tmp_path / "cm.tif", grid=between), UTM, **OSCD)
    np.testing.assert_array_equal(label.label_YX, CLASSES)
    assert "was warped (nearest) onto the cube's grid of 4 x 5 pixels" in label.notes[0]


def test_a_site_where_nothing_changed_is_a_label_too(tmp_path):
    label = read_label(write(tmp_path / "cm.tif", np.ones((4, 5), np.uint8), UTM), UTM, **OSCD)
    assert not label.label_YX.any()
    assert label.notes == ("cm.tif has no changed pixel",)
    with_nodata = np.ones((4, 5), np.uint8)
    with_nodata[0, 0] = 9
    label = read_label(write(tmp_path / "cm.tif", with_nodata, UTM, nodata=9), UTM, **OSCD)
    assert label.notes == (
        "cm.tif has no changed pixel",
        "cm.tif: 5.0% of the pixels are unknown and left out (nodata, or outside of the label)",
    )


def test_classes_are_never_interpolated(tmp_path):
    half = Grid(UTM.crs, (20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0), (2, 3))
    codes = np.array([[1, 2, 1], [2, 1, 1]], np.uint8)
    label = read_label(write(tmp_path / "cm.tif", codes, half), UTM, **OSCD)
    np.testing.assert_array_equal(label.label_YX, np.kron(codes - 1, np.ones((2, 2), int))[:4, :5])


def test_a_label_on_a_scene_of_another_crs_is_warped_with_it(tmp_path):
    from rasterio.warp import transform

    (x0, x1), (y0, y1) = transform("EPSG:32633", "EPSG:4326", [500_000, 500_000 + 4000], [5_000_000, 5_000_000 - 4000])
    there = Grid("EPSG:4326", ((x1 - x0) / 400, 0.0, x0, 0.0, (y1 - y0) / 400, y0), (400, 400))
    here = Grid(UTM.crs, UTM.transform, (400, 400))
    codes = np.ones((400, 400), np.uint8)
    codes[100:200, 50:250] = 2
    label_YX = read_label(write(tmp_path / "cm.tif", codes), here, **OSCD, grid_of=there).label_YX
    assert (label_YX[105:195, 55:245] == 1).all()
    assert (label_YX[205:, 255:] != 1).all()
    assert np.isin(label_YX, (0, 1, 255)).all()


@pytest.mark.parametrize("shape", [(5, 5), (3, 4), (4, 6)])
def test_a_pixel_more_or_less_is_cut_or_unknown_and_said(tmp_path, shape):
    scene = Grid(UTM.crs, UTM.transform, shape)
    label = read_label(write(tmp_path / "cm.tif"), scene, **OSCD, grid_of=scene)
    expected = np.full(shape, 255)
    rows, columns = min(4, shape[0]), min(5, shape[1])
    expected[:rows, :columns] = CLASSES[:rows, :columns]
    np.testing.assert_array_equal(label.label_YX, expected)
    assert "cut or padded with unknown" in label.notes[0]


def test_a_label_is_put_on_the_band_whose_pixels_it_has(tmp_path):
    path = write(tmp_path / "cm.tif")
    a, b, c, d, e, f = UTM.transform
    coarse = Grid(UTM.crs, (2 * a, b, c, d, 2 * e, f), (UTM.shape_yx[0] // 2, UTM.shape_yx[1] // 2))
    bands = {"B05": coarse, "B02": UTM}
    label_YX, notes = read_with(path, UTM, change_labels(**OSCD), bands)
    expected, _ = read_with(path, UTM, change_labels(**OSCD), {"B02": UTM})
    np.testing.assert_array_equal(label_YX, expected)
    assert "has the pixels of band B02" in notes[0]
    with pytest.raises(RequestError, match=r"its scene \d+ x \d+; they may"):
        read_with(path, UTM, change_labels(**OSCD), {"B05": coarse})


def test_nodata_of_the_label_is_unknown_unless_it_is_listed(tmp_path):
    path = write(tmp_path / "cm.tif", grid=UTM, nodata=0)
    np.testing.assert_array_equal(read_label(path, UTM, **OSCD).label_YX, CLASSES)
    listed = read_label(path, UTM, changed=(2,), unchanged=(0, 1, 9)).label_YX
    np.testing.assert_array_equal(listed, CODES == 2)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint16"])
def test_any_dtype_will_do(tmp_path, dtype):
    label = read_label(write(tmp_path / "cm.tif", CODES.astype(dtype), UTM), UTM, **OSCD)
    np.testing.assert_array_equal(label.label_YX, CLASSES)


def test_nan_is_no_code_but_unknown(tmp_path):
    codes = np.where(CODES == 2, np.nan, CODES).astype("float32")
    label = read_label(write(tmp_path / "cm.tif", codes, UTM, nodata=np.nan), UTM, changed=(0,), unchanged=(1,)).label_YX
    np.testing.assert_array_equal(label == 255, ~np.isin(codes, (0, 1)))
    with pytest.raises(RequestError, match="no changed pixel") as error:
        read_label(write(tmp_path / "cm.tif", codes, UTM, nodata=np.nan), UTM, changed=(7,), unchanged=(1,))
    assert "codes 0 (2 px), 9 (1 px): correct" in str(error.value)


def refused(tmp_path, message, codes=CODES, grid=None, grid_of=UTM, error=RequestError, **codes_of):
    with pytest.raises(error, match=message):
        read_label(write(tmp_path / "cm.tif", codes, grid), UTM, **{**OSCD, **codes_of}, grid_of=grid_of)


def test_what_cannot_be_a_label_is_refused_with_the_remedy(tmp_path):
    refused(tmp_path, "no georeferencing; set labels.grid_of to first or last", grid_of=None)
    refused(tmp_path, r"has none of the codes 7, 8; it holds 1 \(14 px\), 2 \(3 px\)", changed=(7,), unchanged=(8,))
    refused(
        tmp_path,
        r"no changed pixel .*0 changed, 14 unchanged, 6 unknown\); the file also holds the codes 2 \(3 px\), .*correct",
        changed=(7,),
    )
    refused(tmp_path, r"has no unchanged pixel .*the file also holds the codes 1 \(14 px\)", unchanged=(7,))
    refused(tmp_path, r"codes \[2\] stand for changed and for unchanged", unchanged=(1, 2))
    refused(tmp_path, "4 x 5 pixels, its scene 4 x 7", grid_of=Grid(UTM.crs, UTM.transform, (4, 7)))
    far = Grid(UTM.crs, (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0), (4, 5))
    refused(tmp_path, "outside of the images .* it is of another site", grid=far, grid_of=None)


def test_codes_of_another_band_are_looked_for_there(tmp_path):
    shape = {"height": 4, "width": 5, "count": 2, "dtype": "uint8", "crs": UTM.crs, "transform": UTM.affine}
    with rasterio.open(tmp_path / "cm.tif", "w", driver="GTiff", **shape) as file:
        file.write(np.stack([np.full((4, 5), 77, np.uint8), CODES]))
    with pytest.raises(RequestError, match=r"or labels\.band to the right one of its 2 bands"):
        read_label(tmp_path / "cm.tif", UTM, **OSCD)
    np.testing.assert_array_equal(read_label(tmp_path / "cm.tif", UTM, **OSCD, band=2).label_YX, CLASSES)


def test_a_label_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(MissingInput, match=r"no such label: .*correct labels.path"):
        read_label(tmp_path / "none.tif", UTM, **OSCD)
    (tmp_path / "vrt.tif").write_text("<VRTDataset/>")
    with pytest.raises(RequestError, match=r"cannot be used: .*neither GeoTIFF nor JPEG2000"):
        read_label(tmp_path / "vrt.tif", UTM, **OSCD)
    with pytest.raises(RequestError, match="has no band 2, only 1"):
        read_label(write(tmp_path / "cm.tif"), UTM, **OSCD, band=2)
