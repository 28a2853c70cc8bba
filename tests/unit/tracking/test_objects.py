import numpy as np
import pytest
from skimage.measure import regionprops

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.tracking.objects import Space, describe_objects, label_objects

METRES = Space.of_spacing((10.0, 10.0), "m")


def rectangles(shape, *boxes):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[tuple(slice(start, stop) for start, stop in box)] = True
    return mask


def describe(mask, space, **options):
    return describe_objects(label_objects(mask, **options), space)


def test_a_rectangle_by_hand():
    shapes = describe(rectangles((20, 30), [(2, 6), (3, 9)]), METRES)
    assert shapes.pixels_N.tolist() == [24]
    assert shapes.size_N.tolist() == [2400.0]
    assert shapes.outline_N.tolist() == [2 * 40 + 2 * 60]
    assert shapes.centroid_ND.tolist() == [[3.5, 5.5]]
    assert shapes.box_ND2.tolist() == [[[2, 6], [3, 9]]]
    assert shapes.major_N[0] == pytest.approx(60 * 4 / np.sqrt(12))  # a bar of length a has the variance a²/12
    assert shapes.minor_N[0] == pytest.approx(40 * 4 / np.sqrt(12))
    assert not shapes.at_edge_N[0]
    assert METRES.world(shapes.centroid_ND).tolist() == [[55.0, 35.0]]


def test_a_volume_by_hand_in_mm():
    space = Space.of_spacing((3.0, 1.0, 0.5))
    shapes = describe(rectangles((5, 10, 10), [(1, 3), (2, 6), (0, 8)]), space)
    assert shapes.size_N.tolist() == [2 * 4 * 8 * 1.5]
    dz, dy, dx = 6.0, 4.0, 4.0
    assert shapes.outline_N.tolist() == [2 * (dz * dy + dz * dx + dy * dx)]
    assert space.world(shapes.centroid_ND).tolist() == [[1.75, 3.5, 4.5]]  # x, y, z
    assert shapes.major_N[0] == pytest.approx(6 * 2 * np.sqrt(5 / 12))
    assert shapes.at_edge_N[0]


def test_a_hole_counts_for_the_outline_and_not_for_the_area():
    mask = rectangles((9, 9), [(1, 8), (1, 8)])
    mask[3:6, 3:6] = False
    shapes = describe(mask, METRES)
    assert shapes.size_N.tolist() == [(49 - 9) * 100]
    assert shapes.outline_N.tolist() == [(4 * 7 + 4 * 3) * 10]


def test_corners_join_or_do_not():
    mask = np.eye(3, dtype=bool)
    assert len(describe(mask, METRES)) == 1
    assert len(describe(mask, METRES, corners=False)) == 3


def test_touching_codes_are_objects_of_their_own():
    codes = np.array([[7, 7, 3], [7, 0, 3]])
    assert describe_objects(label_objects(codes), METRES).pixels_N.tolist() == [3, 2]


def test_shapes_agree_with_scikit_image():
    rng = np.random.default_rng(0)
    mask = rng.random((60, 80)) < 0.45
    label = label_objects(mask, corners=False)
    spacing = (2.0, 3.0)
    shapes = describe_objects(label, Space.of_spacing(spacing))
    theirs = regionprops(label, spacing=spacing)
    assert shapes.size_N == pytest.approx([one.area for one in theirs])
    assert shapes.centroid_ND * spacing == pytest.approx(np.array([one.centroid for one in theirs]))
    boxes = np.array([one.bbox for one in theirs]).reshape(-1, 2, 2).transpose(0, 2, 1)
    assert np.array_equal(shapes.box_ND2, boxes)
    # theirs are the moments of points, without the extent of a pixel; a square pixel adds the same to all directions
    square = describe_objects(label, Space.of_spacing((2.0, 2.0)))
    points = [one.axis_major_length for one in regionprops(label, spacing=(2.0, 2.0))]
    assert np.sqrt(square.major_N**2 - 16 * 4 / 12) == pytest.approx(points, abs=1e-6)


def test_doubling_the_spacing_quadruples_areas_and_doubles_lengths():
    mask = np.random.default_rng(1).random((40, 40)) < 0.5
    small, large = describe(mask, Space.of_spacing((1.0, 1.5))), describe(mask, Space.of_spacing((2.0, 3.0)))
    assert large.size_N == pytest.approx(4 * small.size_N)
    for name in ("outline_N", "major_N", "minor_N"):
        assert getattr(large, name) == pytest.approx(2 * getattr(small, name))


def test_nothing_is_no_object():
    shapes = describe(np.zeros((5, 5), bool), METRES)
    assert len(shapes) == 0
    assert shapes.box_ND2.shape == (0, 2, 2)
    grid = Grid("EPSG:4326", (0.1, 0, 20, 0, -0.1, 50), (5, 5))
    assert len(describe(np.zeros((5, 5), bool), Space.of_grid(grid))) == 0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (0.001, 0, 25, 0, -0.001, 60)),
        ("EPSG:32635", (10, 0, 300000, 0, -10, 6000000)),
        ("EPSG:3857", (10, 0, 500000, 0, -10, 8399737)),
        ("EPSG:3035", (20, 0, 5000000, 0, -20, 2700000)),
        ("EPSG:4326", (0.001, 0.0005, 25, 0.0003, -0.001, 60)),  # augmented and sheared
    ],
)
def test_sizes_on_a_map_are_those_of_the_polygons_on_the_ellipsoid(crs, transform):
    from pyproj import CRS, Transformer
    from rasterio.features import shapes as outlines

    mask = rectangles((40, 50), [(3, 20), (4, 30)], [(30, 33), (40, 48)])
    grid = Grid(crs, tuple(map(float, transform)), (40, 50))
    shapes = describe(mask, Space.of_grid(grid))
    geod, to_lonlat = CRS(crs).get_geod(), Transformer.from_crs(crs, CRS(crs).geodetic_crs, always_xy=True)
    expected = []
    for outline, _ in outlines(mask.astype(np.uint8), mask=mask, transform=grid.affine):
        x, y = np.array(outline["coordinates"][0]).T
        ring = [np.interp(np.linspace(0, len(x) - 1, 2001), np.arange(len(x)), v) for v in (x, y)]  # many points an edge
        area, length = geod.polygon_area_perimeter(*to_lonlat.transform(*ring))
        expected.append((abs(area), length))
    assert np.stack([shapes.size_N, shapes.outline_N], axis=1) == pytest.approx(np.array(sorted(expected)[::-1]), rel=1e-4)


def test_a_quarter_of_the_earth_in_degrees():
    grid = Grid("EPSG:4326", (1.0, 0, 0, 0, -1.0, 90), (180, 90))
    shapes = describe(np.ones((180, 90), bool), Space.of_grid(grid))
    assert shapes.size_N[0] == pytest.approx(510_065_621_724_088 / 4, rel=3e-4)  # area of the WGS 84 ellipsoid in m2


def test_the_centroid_on_a_map_is_a_pixel_centre():
    grid = Grid("EPSG:32635", (10, 0, 500000, 0, -10, 6000000), (20, 20))
    space = Space.of_grid(grid)
    shapes = describe(rectangles((20, 20), [(0, 1), (0, 1)]), space)
    assert space.world(shapes.centroid_ND).tolist() == [[500005.0, 5999995.0]]
    assert space.lonlat(shapes.centroid_ND)[0] == pytest.approx([27.00008, 54.14806], abs=1e-5)


def test_bad_spaces_and_labels_are_named():
    with pytest.raises(RequestError, match="steps larger than 0"):
        Space.of_spacing((1.0, 0.0))
    with pytest.raises(RequestError, match=r"two \(y, x\) or three"):
        Space.of_spacing((1.0,))
    with pytest.raises(RequestError, match="not a place on Earth"):
        Space.of_grid(Grid('LOCAL_CS["a table",UNIT["metre",1]]', (1, 0, 0, 0, -1, 0), (4, 4)))
    with pytest.raises(ValueError, match="without a gap; 1 is missing"):
        describe_objects(np.array([[0, 2]], np.int32), METRES)
    with pytest.raises(ValueError, match="has 2 axes, the spacing 3"):
        describe_objects(np.zeros((3, 3), np.int32), Space.of_spacing((1.0, 1.0, 1.0)))
