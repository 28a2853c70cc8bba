"""Packing that files state outside of GDAL's and CF's places: read where a standard defines it, else said."""

import h5py
import numpy as np
import pytest
import rasterio
from source_rasters import UTM, write_cube, write_tiff

from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.series import NetcdfSource

DAYS = ("20200105", "20200115", "20200125")
PLANE = np.full(UTM.shape_yx, 3000, "uint16")
ODIM = {"gain": 0.5, "offset": -32.0, "nodata": 255.0}
XML = '<Item name="Gain">0.5</Item><Item name="Offset">-32.0</Item><Item name="Nodata">255</Item>'


def radar_files(folder, states):
    for day in DAYS:
        with h5py.File(folder / f"{day}.h5", "w") as file:
            file["dataset1/data1/data"] = PLANE
            states(file, day)
    request = BandRequest((Band("v"),), crs=UTM.crs, transform=UTM.transform)
    return FolderSource(folder, request, "{date:%Y%m%d}.h5", "dataset1/data1/data")


def rasters(folder, tags=None, of_band=None, unit=""):
    for day in DAYS:
        write_tiff(folder / f"{day}.tif", PLANE)
    with rasterio.open(folder / f"{DAYS[-1]}.tif", "r+") as file:
        file.update_tags(**(tags or {}))
        file.update_tags(1, **(of_band or {}))
        file.units = [unit]
    return FolderSource(folder, BandRequest((Band("v"),)), "{date:%Y%m%d}.tif")


def packing_of(source):
    return source.bands[0].scale, source.bands[0].offset, source.bands[0].nodata


@pytest.mark.parametrize("place", ["dataset1/data1/what", "dataset1/what"])
def test_odim_states_gain_offset_and_nodata_at_either_level(tmp_path, place):
    source = radar_files(tmp_path, lambda file, day: file.create_group(place).attrs.update(ODIM))
    assert packing_of(source) == (0.5, -32, 255)


def test_a_radar_file_with_another_gain_is_refused_by_name(tmp_path):
    other = {**ODIM, "gain": 0.4}
    source = radar_files(
        tmp_path, lambda file, day: file.create_group("dataset1/data1/what").attrs.update(other if day == DAYS[-1] else ODIM)
    )
    _, refused = source.remarks(source.list_scenes().scenes)
    assert [(one.scene_id, one.reason) for one in refused] == [(DAYS[-1], "wrong-scale")]


def test_knmi_states_a_formula(tmp_path):
    stated = {"calibration_formulas": np.bytes_("GEO=0.01*PV+0.0"), "calibration_missing_data": np.array([65535])}
    source = radar_files(tmp_path, lambda file, day: file.create_group("dataset1/data1/calibration").attrs.update(stated))
    assert packing_of(source) == (0.01, 0, 65535)


@pytest.mark.parametrize(
    ("tags", "of_band", "packing"),
    [({"GDAL_METADATA": XML}, {}, (0.5, -32.0, (255.0,))), ({}, {"scale_factor": "0.1", "add_offset": "2"}, (0.1, 2.0, ()))],
    ids=["weather service", "CF"],
)
def test_tags_of_rasters_are_read_where_their_notation_is_clear(tmp_path, tags, of_band, packing):
    source = rasters(tmp_path, tags, of_band)
    facts = source.look_at(source.list_scenes().scenes)[-1].facts["v"]
    assert (facts.scale, facts.offset, facts.nodata) == packing


def test_what_is_not_read_is_said_with_the_number_of_scenes(tmp_path):
    source = rasters(tmp_path, {"scale_factor": "0.0001", "_FillValue": "3100"}, unit="percent")
    notes, _ = source.remarks(source.list_scenes().scenes)
    assert any("1 of 3 scenes (first 20200125) state" in note and "scale_factor=0.0001" in note for note in notes)
    assert any("2 of 3 scenes (first 20200105) state no unit: taken as 'percent'" in note for note in notes)


def netcdf(path, **attributes):
    write_cube(path, {"v": np.full((3, *UTM.shape_yx), 3000, "uint16")}, [0, 10, 20])
    with h5py.File(path, "r+") as file:
        for key, value in attributes.items():
            file["v"].attrs[key] = value
    return NetcdfSource(path, BandRequest((Band("v"),)))


@pytest.mark.parametrize("text", ["0.0001", " 1e-4 "])
def test_numbers_that_are_written_as_text_count(tmp_path, text):
    source = netcdf(tmp_path / "a.nc", scale_factor=text, missing_value="3100")
    assert source.bands[0].scale == pytest.approx(1e-4)
    assert 3100 in source.look_at(source.list_scenes().scenes)[0].facts["v"].nodata


@pytest.mark.parametrize("value", ["one tenth", np.array([0.1, 0.2])])
def test_a_scale_that_is_not_one_number_is_refused(tmp_path, value):
    with pytest.raises(RequestError, match=r"wrong-scale: '/v' states .* as scale_factor, (which is no number|expected one)"):
        _ = netcdf(tmp_path / "a.nc", scale_factor=value).bands


@pytest.mark.parametrize(("attributes", "said"), [({"scale": 0.1}, True), ({"scale": 1.0}, False), ({"slope": "steep"}, False)])
def test_attributes_that_nothing_defines_are_said(tmp_path, attributes, said):
    source = netcdf(tmp_path / "a.nc", **attributes)
    notes, _ = source.remarks(source.list_scenes().scenes)
    assert any("in a way that is not read" in note for note in notes) == said
