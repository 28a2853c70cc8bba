import h5py
import numpy as np
import pytest
from source_rasters import UTM, ramp, shifted, write_cube, write_tiff

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource, scene_name, take_text_names
from pipelines.sources.layers import BandRequest

RED_NIR = BandRequest((Band("red", nodata=0), Band("nir", nodata=0)), {"red": "B4", "nir": "B8"})
PATTERN = "S_{date:%Y%m%d}_{band}.tif"


def series(folder, days=("20180105", "20180115", "20180125"), bands=("B4", "B8"), **options):
    for index, day in enumerate(days):
        for offset, band in enumerate(bands):
            write_tiff(folder / f"S_{day}_{band}.tif", ramp(start=1 + index * 10 + offset), **options)
    return FolderSource(folder, RED_NIR, PATTERN)


def refusals(source) -> dict[str, str]:
    return {refusal.scene_id: refusal.reason for refusal in source.list_scenes().refused}


def read_reason(source, scene) -> str:
    with pytest.raises(SceneRefused) as refusal:
        source.read(scene, UTM, ("red", "nir"), "nearest")
    return refusal.value.reason


def test_scenes_are_found_by_date_and_band_and_read_as_stored(tmp_path):
    source = series(tmp_path)
    listing = source.list_scenes()
    assert [scene.id for scene in listing.scenes] == ["S_20180105", "S_20180115", "S_20180125"]
    assert listing.scenes[1].observed_utc == np.datetime64("2018-01-15")
    assert listing.refused == []
    assert (source.native_grid(), source.dtype()) == (UTM, np.dtype("uint16"))
    image = source.read(listing.scenes[1], UTM, ("nir", "red"), "nearest")
    np.testing.assert_array_equal(image, [ramp(start=12), ramp(start=11)])
    part = source.read(listing.scenes[1], UTM, ("nir", "red"), "nearest", slice(3, 7))
    np.testing.assert_array_equal(part, image[:, 3:7])


def test_multi_band_files_are_read_in_requested_order_or_by_number(tmp_path):
    write_tiff(tmp_path / "20180105.tif", ramp(), ramp(start=5), ramp(start=9))
    requested = BandRequest((Band("red"), Band("nir")), quality="SCL")
    source = FolderSource(tmp_path, requested, "{date:%Y%m%d}.tif")
    (scene,) = source.list_scenes().scenes
    np.testing.assert_array_equal(source.read(scene, UTM, ("nir", "SCL"), "nearest"), [ramp(start=5), ramp(start=9)])
    numbered = FolderSource(tmp_path, BandRequest((Band("nir"),), {"nir": "3"}), "{date:%Y%m%d}.tif")
    np.testing.assert_array_equal(numbered.read(numbered.list_scenes().scenes[0], UTM, ("nir",), "nearest"), [ramp(start=9)])


def test_band_metadata_is_completed_from_the_files(tmp_path):
    path = write_tiff(tmp_path / "20180105.tif", ramp(dtype="int16"), nodata=-5)
    import rasterio

    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.5], [-32.0]
    (band,) = FolderSource(tmp_path, BandRequest((Band("dbz"),)), "{date:%Y%m%d}.tif").bands
    assert (band.nodata, band.scale, band.offset) == (-5, 0.5, -32.0)
    (band,) = FolderSource(tmp_path, BandRequest((Band("dbz", scale=2, offset=1, nodata=7),)), "{date:%Y%m%d}.tif").bands
    assert (band.nodata, band.scale, band.offset) == (7, 2, 1)
    (band,) = FolderSource(tmp_path, BandRequest((Band("dbz", scale=0.5),)), "{date:%Y%m%d}.tif").bands
    assert band.offset == -32  # a scale does not hide the offset
    with pytest.raises(RequestError, match=r"scale 2 of band dbz contradicts the file, which states scale 0.5 and offset -32"):
        FolderSource(tmp_path, BandRequest((Band("dbz", scale=2),)), "{date:%Y%m%d}.tif").bands  # noqa: B018


def test_nodata_of_a_later_file_applies_to_all(tmp_path):
    write_tiff(tmp_path / "20180105.tif", ramp())
    plane = ramp()
    plane[:, :9] = 0
    write_tiff(tmp_path / "20180115.tif", plane, nodata=0)
    source = FolderSource(tmp_path, BandRequest((Band("red"),)), "{date:%Y%m%d}.tif")
    assert source.bands[0].nodata == 0
    assert ingest(source, None, str(tmp_path / "cube"), None, IngestSettings(workers=1)).refused == ()
    valid_TYX = open_cube(str(tmp_path / "cube"))["valid"].values
    np.testing.assert_array_equal(valid_TYX[1], plane > 0)
    (band,) = FolderSource(tmp_path, BandRequest((Band("red", nodata=7),)), "{date:%Y%m%d}.tif").bands
    assert band.nodata == 7  # the request overrides the files


def test_bits_are_reinterpreted(tmp_path):
    plane = ramp()
    plane[0, 0] = 65526
    write_tiff(tmp_path / "20180105.tif", plane)
    source = FolderSource(tmp_path, BandRequest((Band("evi"),), read_as="int16"), "{date:%Y%m%d}.tif")
    image = source.read(source.list_scenes().scenes[0], UTM, ("evi",), "nearest")
    assert image.dtype == np.int16
    assert image[0, 0, 0] == -10
    with pytest.raises(RequestError, match="reinterpreted as a dtype of the same size"):
        FolderSource(tmp_path, BandRequest((Band("evi"),), read_as="float32"), "{date:%Y%m%d}.tif").native_grid()


def test_a_pattern_without_matches_lists_files_and_proposes_a_pattern(tmp_path):
    series(tmp_path)
    with pytest.raises(RequestError, match=r"'x_\{date:%Y%m%d\}.tif' matches none .* S_20180105_B4.tif, .* and 3 more") as error:
        FolderSource(tmp_path, RED_NIR, "x_{date:%Y%m%d}.tif").list_scenes()
    assert f"try pattern: {PATTERN}" in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("S_{band}.tif", "has no date"), ("S_{date:%Q}.tif", "'%Q' .* is unknown"), ("{day}_{date:%Y}", "{day} .* is unknown")],
)
def test_invalid_patterns_are_refused(tmp_path, pattern, text):
    with pytest.raises(RequestError, match=text):
        FolderSource(tmp_path, RED_NIR, pattern).list_scenes()


def test_missing_bands_and_folders_are_refused(tmp_path):
    series(tmp_path)
    with pytest.raises(RequestError, match="has one of the bands B9; the names have: B4, B8"):
        FolderSource(tmp_path, BandRequest((Band("B9"),)), PATTERN).list_scenes()
    with pytest.raises(MissingInput, match="no such folder"):
        FolderSource(tmp_path / "nowhere", RED_NIR, PATTERN).list_scenes()


def test_bad_scenes_are_listed_and_the_others_used(tmp_path):
    source = series(tmp_path)
    write_tiff(tmp_path / "S_20180205_B4.tif")
    write_tiff(tmp_path / "S_20181345_B4.tif")
    write_tiff(tmp_path / "S_spring_B4.tif")
    assert refusals(source) == {"S_20180205": "missing-band", "S_20181345": "no-date", "S_spring": "no-date"}
    assert len(source.list_scenes().scenes) == 3


def test_bad_files_are_refused_on_reading(tmp_path):
    source = series(tmp_path, days=("20180105", "20180115", "20180125", "20180204", "20180214"))
    first, *others = source.list_scenes().scenes
    (tmp_path / "S_20180115_B8.tif").write_bytes(b"")
    write_tiff(tmp_path / "S_20180125_B8.tif", ramp(dtype="float32"))
    (tmp_path / "S_20180204_B8.tif").write_bytes((tmp_path / "S_20180204_B8.tif").read_bytes()[:-9])
    (tmp_path / "S_20180214_B4.tif").unlink()
    assert [read_reason(source, scene) for scene in others] == ["truncated", "wrong-dtype", "truncated", "unreadable"]
    source.read(first, UTM, ("red", "nir"), "nearest")


def test_the_most_frequent_dtype_is_used(tmp_path):
    source = series(tmp_path)
    for band in ("B4", "B8"):
        write_tiff(tmp_path / f"S_20180105_{band}.tif", ramp(dtype="float32"))
    assert source.dtype() == np.uint16
    assert read_reason(source, source.list_scenes().scenes[0]) == "wrong-dtype"


def test_bands_of_different_dtype_are_refused(tmp_path):
    source = series(tmp_path, bands=("B4",))
    for day in ("20180105", "20180115", "20180125"):
        write_tiff(tmp_path / f"S_{day}_B8.tif", ramp(dtype="float32"))
    with pytest.raises(RequestError, match="bands differ in dtype: red is uint16, nir is float32"):
        source.dtype()


def test_nodata_outside_the_dtype_is_refused(tmp_path):
    series(tmp_path)
    source = FolderSource(tmp_path, BandRequest((Band("B4", nodata=-9999),)), PATTERN)
    with pytest.raises(RequestError, match="nodata -9999 of band B4 does not fit into uint16"):
        source.dtype()


def test_unreadable_series_states_the_reason(tmp_path):
    (tmp_path / "S_20180105_B4.tif").write_text("hello")
    (tmp_path / "S_20180105_B8.tif").write_text("hello")
    with pytest.raises(RequestError, match=r"(?s)none of the 1 scenes .* neither GeoTIFF"):
        FolderSource(tmp_path, RED_NIR, PATTERN).native_grid()


def test_files_without_georeferencing_need_it_from_the_config(tmp_path):
    import rasterio

    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 40, "width": 56}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "20180105.tif", "w", **profile) as file,
    ):
        file.write(ramp(), 1)
    with pytest.raises(RequestError, match=r"set source\.transform and source\.crs"):
        FolderSource(tmp_path, BandRequest((Band("a"),)), "{date:%Y%m%d}.tif").native_grid()
    with pytest.raises(RequestError, match=r"set source\.transform"):
        FolderSource(tmp_path, BandRequest((Band("a"),), crs="EPSG:32633"), "{date:%Y%m%d}.tif").native_grid()
    placed = BandRequest((Band("a"),), crs="EPSG:32633", transform=UTM.transform)
    assert FolderSource(tmp_path, placed, "{date:%Y%m%d}.tif").native_grid() == UTM


def test_one_date_twice_is_refused_or_a_mosaic(tmp_path):
    for tile in ("T1", "T2"):
        write_tiff(tmp_path / f"{tile}_20180105.tif")
    write_tiff(tmp_path / "T1_20180115.tif")
    source = FolderSource(tmp_path, BandRequest((Band("a"),)), "*_{date:%Y%m%d}.tif")
    assert refusals(source) == {"T2_20180105": "duplicate-date"}
    mosaic = FolderSource(tmp_path, BandRequest((Band("a"),)), "*_{date:%Y%m%d}.tif", same_date="mosaic").list_scenes()
    assert [(scene.id, len(scene.parts)) for scene in mosaic.scenes] == [("mosaic_20180105", 2), ("mosaic_20180115", 1)]


def test_only_links_out_of_the_folder_are_refused(tmp_path):
    outside = write_tiff(tmp_path / "outside.tif")
    (tmp_path / "in").mkdir()
    write_tiff(tmp_path / "in" / "20180105.tif")
    (tmp_path / "in" / "20180115.tif").symlink_to(outside)
    (tmp_path / "in" / "20180125.tif").symlink_to(tmp_path / "in" / "20180105.tif")
    (tmp_path / "in" / "20180126.tif").symlink_to(tmp_path / "in" / "nowhere.tif")
    (tmp_path / "in" / "20180127.tif").symlink_to(tmp_path / "in" / "20180127.tif")
    (tmp_path / "in" / "more").symlink_to(tmp_path)
    source = FolderSource(tmp_path / "in", BandRequest((Band("a"),)), "{date:%Y%m%d}.tif")
    assert refusals(source) == {"20180115": "driver", "20180126": "driver", "20180127": "driver"}
    assert "20180126.tif is a link that leads nowhere" in str(source.list_scenes().refused)
    assert [scene.id for scene in source.list_scenes().scenes] == ["20180105", "20180125"]


def test_hdf5_files_by_data_set(tmp_path):
    for day in ("20180105", "20180115"):
        with h5py.File(tmp_path / f"{day}.h5", "w") as file:
            file["image1/data"] = ramp()
    requested = BandRequest((Band("rain", nodata=65535),), crs=UTM.crs, transform=UTM.transform)
    source = FolderSource(tmp_path, requested, "{date:%Y%m%d}.h5", variable="image1/data")
    scene = source.list_scenes().scenes[0]
    np.testing.assert_array_equal(source.read(scene, UTM, ("rain",), "nearest")[0], ramp())
    moved = source.read(scene, shifted(UTM, 3, 2), ("rain",), "nearest")[0]
    np.testing.assert_array_equal(moved[:-2, :-3], ramp()[2:, 3:])
    assert (np.ma.getdata(moved)[-2:] == 65535).all()
    assert moved.mask[-2:].all()
    with pytest.raises(RequestError, match="there are: image1/data"):
        FolderSource(tmp_path, requested, "{date:%Y%m%d}.h5", variable="image2").dtype()
    with pytest.raises(RequestError, match="neither GeoTIFF nor JPEG2000"):
        FolderSource(tmp_path, requested, "{date:%Y%m%d}.h5").dtype()


def test_netcdf_files_of_one_date_with_a_variable_per_band(tmp_path):
    write_cube(tmp_path / "20180105.nc", {"B4": ramp()[None], "B8": ramp(start=7)[None]}, [4])
    source = FolderSource(tmp_path, RED_NIR, "{date:%Y%m%d}.nc", variable="{band}")
    scene = source.list_scenes().scenes[0]
    assert source.native_grid().is_aligned(UTM)
    np.testing.assert_array_equal(source.read(scene, UTM, ("nir",), "nearest")[0], ramp(start=7))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a_{band}_2018.tif", "a_2018"),
        ("2018/{band}.tif", "2018"),
        ("{band}/2018.tif", "2018"),
        ("x2018{band}", "x2018"),
        ("a.b", "a"),
    ],
)
def test_scenes_are_named_after_their_files(key, name):
    assert scene_name(key) == name


def test_names_that_are_not_utf8_are_refused_and_the_others_read() -> None:
    paths, refused = take_text_names(["20200105_B4.tif", "2020\udcff_B4.tif"])
    assert paths == ["20200105_B4.tif"]
    assert refused[0].reason == "unreadable"
    str(refused[0]).encode()  # the message is text
