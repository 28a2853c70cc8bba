import h5py
import numpy as np
import pytest
import rasterio
from source_rasters import UTM, ramp, write_cube, write_tiff

from pipelines.errors import MissingInput, RequestError
from pipelines.scene import Band
from pipelines.sources.layers import BandRequest
from pipelines.sources.series import NetcdfSource, StackSource

DAYS = [0.0, 10.0, 20.5]
CUBE = np.stack([ramp(start=index * 10) for index in range(1, 4)])


def test_a_netcdf_cube_has_one_scene_per_step(tmp_path):
    path = write_cube(
        tmp_path / "c.nc", {"B4": CUBE, "SCL": CUBE.astype("uint8")}, DAYS, _FillValue=np.uint16(3), scale_factor=0.1
    )
    source = NetcdfSource(path, BandRequest((Band("red"),), {"red": "B4"}, quality="SCL"))
    scenes = source.list_scenes().scenes
    assert [scene.id for scene in scenes] == ["c_20180101", "c_20180111", "c_20180121T120000"]
    assert source.native_grid().is_aligned(UTM)
    assert (source.bands[0].nodata, source.bands[0].scale) == (3, 0.1)
    np.testing.assert_array_equal(source.read(scenes[1], UTM, ("red",), "nearest"), CUBE[1:2])
    np.testing.assert_array_equal(source.read(scenes[1], UTM, ("SCL",), "nearest", slice(0, 5)), CUBE[1:2, :5].astype("uint8"))


def test_duplicate_and_missing_times_are_refused(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"B4": CUBE}, [0, np.nan, 0])
    refused = NetcdfSource(path, BandRequest((Band("B4"),))).list_scenes().refused
    assert sorted(refusal.reason for refusal in refused) == ["duplicate-date", "no-date"]


def test_files_that_are_not_cubes_raise_request_errors(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"B4": CUBE}, DAYS)
    with pytest.raises(MissingInput, match="no such file"):
        NetcdfSource(tmp_path / "d.nc", BandRequest((Band("B4"),))).list_scenes()
    with pytest.raises(RequestError, match="has no variable B5; it has: B4"):
        NetcdfSource(path, BandRequest((Band("B5"),))).list_scenes()
    with pytest.raises(RequestError, match="no data set 'date'"):
        NetcdfSource(path, BandRequest((Band("B4"),)), time="date").list_scenes()
    with h5py.File(path, "r+") as file:
        file["time"].attrs["units"] = "days"
    with pytest.raises(RequestError, match="'days since"):
        NetcdfSource(path, BandRequest((Band("B4"),))).list_scenes()
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(RequestError, match="is not HDF5"):
        NetcdfSource(tmp_path / "text.nc", BandRequest((Band("B4"),))).list_scenes()


def test_uneven_coordinates_are_refused(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"B4": CUBE}, DAYS)
    with h5py.File(path, "r+") as file:
        file["x"][5] += 3
    with pytest.raises(RequestError, match=r"x coordinates .* not evenly spaced"):
        NetcdfSource(path, BandRequest((Band("B4"),))).native_grid()


def stack(folder, dates="2018-01-05\n2018-01-15\n2018-01-25\n", count=3):
    write_tiff(folder / "ndvi.tif", *CUBE[:count])
    (folder / "dates.txt").write_text(dates)
    return StackSource(folder, BandRequest((Band("ndvi"),)), {"ndvi": "ndvi.tif"}, "dates.txt")


def test_a_stack_has_one_scene_per_line(tmp_path):
    source = stack(tmp_path, 'n;when;what\n1;"2018-01-05";a\n2;"2018-01-15";b\n3;never;c\n')
    listing = source.list_scenes()
    assert [str(scene.observed_utc)[:10] for scene in listing.scenes] == ["2018-01-05", "2018-01-15"]
    assert [refusal.reason for refusal in listing.refused] == ["no-date"]
    np.testing.assert_array_equal(source.read(listing.scenes[1], UTM, ("ndvi",), "nearest"), CUBE[1:2])


def test_inconsistent_stacks_raise_request_errors(tmp_path):
    with pytest.raises(RequestError, match=r"has 2 raster bands, dates.txt has 3 dates"):
        stack(tmp_path, count=2).list_scenes()
    with pytest.raises(RequestError, match="no column of dates; it begins with 'hello'"):
        stack(tmp_path, dates="hello\nworld\n").list_scenes()
    source = stack(tmp_path)
    with pytest.raises(RequestError, match="band 'evi' has no file"):
        StackSource(tmp_path, BandRequest((Band("evi"),)), source.files, "dates.txt").list_scenes()
    with pytest.raises(MissingInput, match="no such dates file"):
        StackSource(tmp_path, source.requested, source.files, "when.txt").list_scenes()
    with pytest.raises(MissingInput, match="no such file"):
        StackSource(tmp_path, source.requested, {"ndvi": "other.tif"}, "dates.txt").list_scenes()


def test_descriptions_that_contradict_the_dates_are_refused(tmp_path):
    source = stack(tmp_path)
    with rasterio.open(tmp_path / "ndvi.tif", "r+") as file:
        for index, day in enumerate(("2018-01-05", "2018-01-15", "2018-01-25"), start=1):
            file.set_band_description(index, day)
    assert len(source.list_scenes().scenes) == 3
    assert source.bands[0].name == "ndvi"
    with pytest.raises(RequestError, match=r"band 2 of ndvi.tif is described as 2018-01-15, dates.txt says 2018-01-16"):
        stack_dates(tmp_path, "2018-01-05\n2018-01-16\n2018-01-25\n").list_scenes()


def test_a_scene_reads_all_of_a_file_whose_blocks_hold_all_dates(tmp_path):
    source = stack(tmp_path)
    write_tiff(tmp_path / "ndvi.tif", *CUBE, interleave="pixel")
    assert source.repeated_bytes() == (tmp_path / "ndvi.tif").stat().st_size
    write_tiff(tmp_path / "ndvi.tif", *CUBE, interleave="band")
    assert source.repeated_bytes() == 0


def stack_dates(folder, dates):
    (folder / "dates.txt").write_text(dates)
    return StackSource(folder, BandRequest((Band("ndvi"),)), {"ndvi": "ndvi.tif"}, "dates.txt")
