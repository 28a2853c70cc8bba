"""What files say of their values, bands, axes and places: compared over all scenes, converted or refused, and said."""

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from source_rasters import UTM, ramp, shifted, write_cube, write_tiff

from pipelines.cube.comparison import RECORDED
from pipelines.cube.ingest import IngestReport, IngestSettings, ingest
from pipelines.cube.integrity import SEAL
from pipelines.cube.store import open_cube, open_repository
from pipelines.errors import RequestError, StateError
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.series import NetcdfSource

PATTERN = "{date:%Y%m%d}.tif"
SOUTH_FIRST = Grid(UTM.crs, (10.0, 0.0, UTM.bounds_xy[0], 0.0, 10.0, UTM.bounds_xy[1]), UTM.shape_yx)
MONTHS = [f"2020{month:02d}05" for month in range(1, 8)]


def flat(value: float, dtype: str = "uint16") -> np.ndarray:
    return np.full(UTM.shape_yx, value, dtype)


def holed(value: float, hole: float, dtype: str = "int16") -> np.ndarray:
    """`value`, `hole` in the first eight rows."""
    plane = flat(value, dtype)
    plane[:8] = hole
    return plane


def tagged(path: Path, *planes: np.ndarray, scale: float = 1, offset: float = 0, names: tuple[str, ...] = (), **options) -> Path:
    write_tiff(path, *planes, **options)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [scale] * len(planes), [offset] * len(planes)
        for index, name in enumerate(names, start=1):
            file.set_band_description(index, name)
    return path


def folder(path: Path, *bands: str | Band, **request) -> FolderSource:
    wanted = tuple(band if isinstance(band, Band) else Band(band) for band in bands or ("v",))
    return FolderSource(path, BandRequest(wanted, **request), PATTERN)


def ingested(source, where: Path, **settings) -> tuple[IngestReport, np.ndarray, np.ndarray]:
    """(report, physical values, valid), (time, band, y, x) and (time, y, x)."""
    report = ingest(source, None, str(where / "cube"), None, IngestSettings(workers=2, **settings))
    cube = open_cube(str(where / "cube"))
    physical = cube["image"].values.astype(float)
    for index, band in enumerate(source.bands):
        physical[:, index] = physical[:, index] * band.scale + band.offset
    return report, physical, cube["valid"].values


# ---------------------------------------------------------------- values of rasters


def test_each_scene_is_converted_by_its_own_scale_and_offset(tmp_path):
    for index, day in enumerate(MONTHS):
        is_new = index >= 4
        tagged(tmp_path / f"{day}.tif", flat(4000 if is_new else 3000), scale=1e-4, offset=-0.1 if is_new else 0.0, nodata=0)
    report, physical, valid = ingested(folder(tmp_path), tmp_path)
    np.testing.assert_allclose(physical, 0.3)
    assert valid.all()
    assert any(
        "3 of 7 scenes (first 20200505) have scale 0.0001 and offset -0.1, the cube 0.0001 and 0" in n for n in report.notes
    )


@pytest.mark.parametrize(("scale", "offset"), [(3e-4, 0.0), (1e-4, -0.10004)])
def test_packing_that_is_no_whole_step_is_refused_for_integers_and_converted_for_floats(tmp_path, scale, offset):
    for dtype in ("uint16", "float32"):
        for day in MONTHS[:3]:
            tagged(tmp_path / dtype / f"{day}.tif", flat(3000, dtype), scale=2e-4)
        tagged(tmp_path / dtype / f"{MONTHS[3]}.tif", flat(3000, dtype), scale=scale, offset=offset)
    report, _, _ = ingested(folder(tmp_path / "uint16"), tmp_path / "uint16")
    assert [(one.scene_id, one.reason) for one in report.refused] == [(MONTHS[3], "wrong-scale")]
    _, physical, _ = ingested(folder(tmp_path / "float32"), tmp_path / "float32")
    np.testing.assert_allclose(physical[3], 3000 * scale + offset, rtol=1e-6)


def test_converted_values_that_do_not_fit_are_missing(tmp_path):
    for day in MONTHS[:2]:
        tagged(tmp_path / f"{day}.tif", flat(3000), scale=1e-4, nodata=0)
    tagged(tmp_path / f"{MONTHS[2]}.tif", holed(4000, 900, "uint16"), scale=1e-4, offset=-0.1, nodata=0)
    _, _, valid = ingested(folder(tmp_path), tmp_path)
    assert not valid[2, :8].any()
    assert valid[2, 8:].all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("by_scene", [(-9999, -32768), (-9999, None), (None, -9999), (None, None, -9999)])
def test_nodata_of_every_scene_counts(tmp_path, by_scene, resampling):
    for day, nodata in zip(MONTHS, by_scene, strict=False):
        write_tiff(tmp_path / f"{day}.tif", holed(3000, -9999 if nodata is None else nodata), nodata=nodata)
    moved = shifted(UTM, 0.0 if resampling == "nearest" else 0.5, 0.0)
    settings = IngestSettings(workers=2, on_other_grid="reproject", resampling=resampling)
    ingest(folder(tmp_path), None, str(tmp_path / "cube"), moved, settings)
    cube = open_cube(str(tmp_path / "cube"))
    assert not cube.valid.values[:, :8].any()
    assert (cube.image.values[:, 0][cube.valid.values] == 3000).all()
    assert (cube.image.values[:, 0, :8] == -9999).all()


def test_bits_keep_the_nodata_of_the_file(tmp_path):
    for day in MONTHS[:2]:
        write_tiff(tmp_path / f"{day}.tif", holed(3000, -32768).view("uint16"), nodata=32768)
    source = folder(tmp_path, read_as="int16")
    _, _, valid = ingested(source, tmp_path)
    assert source.bands[0].nodata == -32768
    assert not valid[:, :8].any()


def write_masked(path: Path, kind: str) -> None:
    mask, planes = np.where(np.arange(40)[:, None] < 8, 0, 255).astype("uint8") + np.zeros(56, "uint8"), [flat(0, "uint8")]
    planes = [*planes, mask] if kind == "alpha" else planes
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal"):
        write_tiff(path, *planes)
        with rasterio.open(path, "r+") as file:
            if kind == "alpha":
                file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
            else:
                file.write_mask(mask)


@pytest.mark.parametrize("shift", [0, 0.5], ids=["copied", "warped"])
@pytest.mark.parametrize("kind", ["internal", "external", "alpha"])
def test_a_mask_is_a_mask(tmp_path, kind, shift):
    write_masked(tmp_path / f"{MONTHS[0]}.tif", kind)
    assert (tmp_path / f"{MONTHS[0]}.tif.msk").exists() == (kind == "external")
    settings = IngestSettings(workers=1, on_other_grid="reproject")
    report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), shifted(UTM, shift, 0), settings)
    np.testing.assert_array_equal(open_cube(str(tmp_path / "cube")).valid.values[0, :, :-1].all(axis=1), np.arange(40) >= 8)
    assert any("masked pixels are missing" in note for note in report.notes)
    assert not any("not used" in note for note in report.notes)


@pytest.mark.parametrize("bands", [("v",), ("v", "w")])
def test_an_alpha_band_is_no_data_wherever_it_stands(tmp_path, bands):
    planes = [holed(255, 0, "uint8"), *[flat(9 + number, "uint8") for number in range(len(bands))]]
    write_tiff(tmp_path / f"{MONTHS[0]}.tif", *planes)
    with rasterio.open(tmp_path / f"{MONTHS[0]}.tif", "r+") as file:
        file.colorinterp = [ColorInterp.alpha, *[ColorInterp.gray] * len(bands)]
    _, physical, valid = ingested(folder(tmp_path, *bands), tmp_path)
    assert physical[0, :, 20, 20].tolist() == [9 + number for number in range(len(bands))]
    np.testing.assert_array_equal(valid[0].all(axis=1), np.arange(40) >= 8)


def test_a_fourth_band_of_bytes_that_is_requested_is_no_mask(tmp_path):
    planes = [flat(value, "uint8") for value in (10, 20, 30, 0)]
    write_tiff(tmp_path / f"{MONTHS[0]}.tif", *planes)  # GDAL takes four bands of bytes for RGBA
    _, physical, valid = ingested(folder(tmp_path, "blue", "green", "red", "nir"), tmp_path)
    assert physical[0, :, 0, 0].tolist() == [10, 20, 30, 0]
    assert valid.all()


def test_text_tags_of_a_conversion_from_netcdf_count(tmp_path):
    write_tiff(tmp_path / f"{MONTHS[0]}.tif", holed(3000, -28672))
    with rasterio.open(tmp_path / f"{MONTHS[0]}.tif", "r+") as file:
        file.update_tags(1, valid_range="{-2000,10000}")
    _, _, valid = ingested(folder(tmp_path), tmp_path)
    assert not valid[0, :8].any()


def write_coded(path: Path, kind: str) -> None:
    if kind == "palette":
        write_tiff(path, flat(3, "uint8"), photometric="palette")
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {code: (code, 0, 0, 255) for code in range(256)})
    else:
        write_cube(path, {"v": flat(3, "uint8")[None]}, [735], flag_values=np.array([1, 3], "u1"), flag_meanings="a b")


@pytest.mark.parametrize(("kind", "suffix"), [("palette", "tif"), ("flag_values", "nc")])
def test_codes_are_said_and_never_averaged(tmp_path, kind, suffix):
    (tmp_path / "in").mkdir()
    write_coded(tmp_path / "in" / f"{MONTHS[0]}.{suffix}", kind)
    source = FolderSource(
        tmp_path / "in", BandRequest((Band("v"),)), f"{{date:%Y%m%d}}.{suffix}", "v" if suffix == "nc" else None
    )
    report, _, _ = ingested(source, tmp_path)
    assert any(f"hold codes ({'a palette' if kind == 'palette' else kind})" in note for note in report.notes)
    settings = IngestSettings(workers=1, on_other_grid="reproject", resampling="bilinear")
    with pytest.raises(StateError, match=r"wrong-dtype: its values are codes .* bilinear would mix"):
        ingest(source, None, str(tmp_path / "warped"), shifted(UTM, 0.5, 0), settings)


@pytest.mark.parametrize(("dtype", "nodata", "value"), [("int8", -128, 50), ("int64", -1, 2**50 + 1), ("int64", -1, 2**60 + 1)])
def test_integers_of_every_size_are_warped_exactly_or_refused(tmp_path, dtype, nodata, value):
    write_tiff(tmp_path / f"{MONTHS[0]}.tif", holed(value, nodata, dtype), nodata=nodata)
    settings = IngestSettings(workers=1, on_other_grid="reproject")
    if value > 2**53:
        with pytest.raises(StateError, match=r"wrong-dtype: it holds integers beyond 2\*\*53"):
            ingest(folder(tmp_path), None, str(tmp_path / "cube"), shifted(UTM, 0.5, 0), settings)
        return
    ingest(folder(tmp_path), None, str(tmp_path / "cube"), shifted(UTM, 0.5, 0), settings)
    cube = open_cube(str(tmp_path / "cube"))
    assert (cube.image.values[0, 0][cube.valid.values[0]] == value).all()
    assert not cube.valid.values[0, :8].any()


def test_half_floats_are_warped(tmp_path):
    values = np.where(CUBE < 0, -9999, 0.5).astype("f2")
    path = write_cube(tmp_path / "c.nc", {"v": values}, [0, 10, 20], _FillValue=np.float16(-9999))
    settings = IngestSettings(workers=1, on_other_grid="reproject", resampling="bilinear")
    ingest(NetcdfSource(path, BandRequest((Band("v"),))), None, str(tmp_path / "cube"), shifted(UTM, 0.5, 0), settings)
    cube = open_cube(str(tmp_path / "cube"))
    assert cube.image.dtype == np.float16
    assert (cube.image.values[:, 0][cube.valid.values] == 0.5).all()


# ---------------------------------------------------------------- bands


def test_bands_are_found_by_their_descriptions_in_any_order(tmp_path):
    for index, day in enumerate(MONTHS):
        planes, names = [flat(500), flat(4000)], ("Red", "NIR")
        order = slice(None, None, -1 if index % 2 else 1)
        tagged(tmp_path / f"{day}.tif", *planes[order], names=names[order])
    _, physical, _ = ingested(folder(tmp_path, "red", "nir"), tmp_path)
    assert (physical[:, 0] == 500).all()
    assert (physical[:, 1] == 4000).all()


def test_bands_that_are_not_clear_are_refused(tmp_path):
    for index, day in enumerate(MONTHS[:3]):
        names = ("nir", "red") if index == 2 else ("red", "nir")
        tagged(tmp_path / "numbered" / f"{day}.tif", flat(500), flat(4000), names=names)
        tagged(tmp_path / "eight" / f"{day}.tif", *[flat(value) for value in range(1, 9)])
    report, _, _ = ingested(folder(tmp_path / "numbered", "a", "b", in_file={"a": "1", "b": "2"}), tmp_path)
    assert [(one.scene_id, one.reason) for one in report.refused] == [(MONTHS[2], "missing-band")]
    with pytest.raises(RequestError, match=r'has 8 bands \(without names\), the config names red, nir .* source: "1"'):
        folder(tmp_path / "eight", "red", "nir").native_grid()
    with pytest.raises(RequestError, match=r"has 2 bands \(red, nir\), the config names red, swir"):
        folder(tmp_path / "numbered", "red", "swir").native_grid()


def test_units_that_differ_are_refused(tmp_path):
    for day, unit in zip(MONTHS, ("K", "K", "degC"), strict=False):
        write_tiff(tmp_path / f"{day}.tif")
        with rasterio.open(tmp_path / f"{day}.tif", "r+") as file:
            file.units = [unit]
    report, _, _ = ingested(folder(tmp_path), tmp_path)
    assert [one.reason for one in report.refused] == ["wrong-unit"]
    assert folder(tmp_path, Band("v", unit="K")).bands[0].unit == "K"


def test_the_grid_is_that_of_most_scenes(tmp_path):
    for index, day in enumerate(MONTHS):
        write_tiff(tmp_path / f"{day}.tif", grid=shifted(UTM, 7, 7) if index == 0 else UTM)
    report, _, _ = ingested(folder(tmp_path), tmp_path)
    assert [(one.scene_id, one.reason) for one in report.refused] == [(MONTHS[0], "wrong-grid")]
    assert any("2 different grids" in note for note in report.notes)


# ---------------------------------------------------------------- a cube that is there


def test_new_scenes_are_compared_with_the_cube_that_is_there(tmp_path):
    for day in MONTHS[:3]:
        tagged(tmp_path / f"{day}.tif", flat(3000), scale=1e-4, nodata=0)
    ingested(folder(tmp_path), tmp_path)
    for day in MONTHS[3:]:  # now most files say something else
        tagged(tmp_path / f"{day}.tif", holed(4000, 65535, "uint16"), scale=1e-4, offset=-0.1, nodata=65535)
    report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), None, IngestSettings(workers=1))
    cube = open_cube(str(tmp_path / "cube"))
    assert (len(report.added), report.refused) == (4, ())
    assert (cube.image.values[:, 0][cube.valid.values] == 3000).all()
    assert cube.valid.values[3:].mean(axis=(1, 2)).tolist() == [0.8] * 4


def test_scenes_that_an_earlier_version_read_wrongly_are_read_again(tmp_path, monkeypatch):
    for index, day in enumerate(MONTHS):
        is_new = index >= 4
        tagged(tmp_path / f"{day}.tif", flat(4000 if is_new else 3000), scale=1e-4, offset=-0.1 if is_new else 0.0, nodata=0)
    with monkeypatch.context() as before:
        before.setattr("pipelines.sources.worker.is_worker", True)  # read in this process
        before.setattr("pipelines.sources.layered.convert", lambda values, *_: values)
        ingested(folder(tmp_path), tmp_path)
    session = open_repository(str(tmp_path / "cube")).writable_session("main")
    for name in (RECORDED, SEAL):
        del zarr.open_group(session.store).attrs[name]
    session.commit("as an earlier version left it")
    report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), None, IngestSettings(workers=1))
    assert (len(report.replaced), len(report.unchanged)) == (3, 4)
    assert any("3 scenes of an earlier version are read again" in note for note in report.notes)
    assert (open_cube(str(tmp_path / "cube")).image.values == 3000).all()
    assert not ingest(folder(tmp_path), None, str(tmp_path / "cube"), None, IngestSettings()).is_new


def test_nothing_new_opens_no_file(tmp_path, monkeypatch):
    for day in MONTHS[:3]:
        write_tiff(tmp_path / f"{day}.tif")
    ingested(folder(tmp_path), tmp_path)
    monkeypatch.setattr("pipelines.sources.worker.is_worker", True)  # read in this process
    monkeypatch.setattr(rasterio, "open", lambda *_, **__: pytest.fail("a file was opened"))
    assert not ingest(folder(tmp_path), None, str(tmp_path / "cube"), None, IngestSettings()).is_new


def test_a_file_that_changed_after_it_was_read_is_read_again_whatever_its_time_says(tmp_path):
    def ingested():
        return ingest(folder(tmp_path), None, uri, None, IngestSettings())

    uri, path = str(tmp_path / "cube"), tmp_path / "20200105.tif"
    for start in (1, 2):
        write_tiff(path, ramp(start=start))
        os.utime(path, (1.6e9, 1.6e9))
        time.sleep(0.02)  # the clock of the file system is coarser than that of the process
        report = ingested()
        assert report.is_new
        assert open_cube(uri).image.values[0, 0, 0, 0] == start
    os.utime(path, (1.6e9, 1.6e9))
    time.sleep(0.02)
    assert (ingested().unchanged, ingested().is_new) == (("20200105",), False)


# ---------------------------------------------------------------- what is not used


def test_what_is_not_used_is_counted_and_named(tmp_path):
    below, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for day in MONTHS[:2]:
        write_tiff(below / f"{day}.tif")
    write_tiff(elsewhere / f"{MONTHS[2]}.tif")
    (below / "2021").symlink_to(elsewhere)
    for name in ("notes.txt", ".hidden/20200501.tif", ".hidden/b/20200601.tif", ".20200501.tif", ".DS_Store", "._a", "Thumbs.db"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text("hello")
    listing = folder(below).list_scenes()
    hidden = [".20200501.tif (hidden)", ".hidden (a hidden folder with 2 files)"]
    assert listing.unused == [*hidden, "2021 (a folder that is a link)", "notes.txt"]
    assert listing.remarks() == [f"not used: 4 files, folders or variables: {', '.join(listing.unused[:3])} and 1 more"]
    write_tiff(below / "bands" / "20200105_B4.tif")
    write_tiff(below / "bands" / "20200105_B8.tif")
    one = FolderSource(below / "bands", BandRequest((Band("B4"),)), "{date:%Y%m%d}_{band}.tif").list_scenes()
    assert one.remarks() == ["not used: 1 files of other bands (B8)"]


def test_dates_seconds_apart_are_noted(tmp_path):
    for day in MONTHS[:3]:
        for seconds in ("101000", "101017"):
            write_tiff(tmp_path / f"{day}T{seconds}.tif")
    (note,) = FolderSource(tmp_path, BandRequest((Band("v"),)), "{date:%Y%m%dT%H%M%S}.tif").list_scenes().remarks()
    assert note.startswith("3 times, scenes lie at most 17 seconds apart")
    for minute in range(0, 60, 5):
        write_tiff(tmp_path / "radar" / f"20200105T10{minute:02d}.tif")
    radar = FolderSource(tmp_path / "radar", BandRequest((Band("v"),)), "{date:%Y%m%dT%H%M}.tif")
    assert radar.list_scenes().remarks() == []


# ---------------------------------------------------------------- CF


CUBE = np.stack([holed(3000, -28672)] * 3)


@pytest.mark.parametrize(
    ("cube", "attributes"),
    [
        (CUBE, {"valid_range": np.array([-2000, 10000], "i2")}),
        (CUBE, {"valid_min": np.int16(-2000)}),
        (CUBE, {"scale_factor": 1e-4, "valid_range": np.array([-0.2, 1.0])}),
        (CUBE, {"_FillValue": np.int16(-1), "missing_value": np.int16(-28672)}),
        (CUBE, {"missing_value": np.array([-28672, -28671], "i2")}),
        (CUBE, {"_Unsigned": b"true", "_FillValue": np.int16(-28672)}),
        (CUBE, {"_Unsigned": "true", "missing_value": np.int32(-28672)}),
        (np.where(CUBE < 0, 200, 20).astype("u1"), {"_Unsigned": "false", "_FillValue": np.uint8(200)}),
        (np.where(CUBE < 0, -1, 100).astype("i1"), {"_Unsigned": "true", "valid_range": np.array([0, -56], "i1")}),
        (CUBE, {"missing_value": "-28672"}),
        (CUBE, {"valid_range": "-2000, 10000"}),
        (CUBE, {"scale_factor": -1e-4, "valid_max": 1.0}),
        (CUBE, {"add_offset": -1.0, "valid_min": -2000.0}),
        (CUBE.astype(">i2"), {"_FillValue": np.array(-28672, ">i2")}),
        (np.where(CUBE < 0, 2**64 - 1, np.uint64(2**60 + 1)).astype("u8"), {"_FillValue": np.uint64(2**64 - 1)}),
        (np.where(CUBE < 0, -9999, 0.5).astype("f2"), {"_FillValue": np.float16(-9999)}),
        (np.where(CUBE < 0, 1e20, CUBE).astype("f4"), {"_FillValue": np.float32(1e20)}),
    ],
)
def test_every_cf_attribute_of_missing_values_counts(tmp_path, cube, attributes):
    path = write_cube(tmp_path / "c.nc", {"v": cube}, [0, 10, 20], **attributes)
    _, _, valid = ingested(NetcdfSource(path, BandRequest((Band("v"),))), tmp_path)
    np.testing.assert_array_equal(valid.all(axis=(0, 2)), np.arange(40) >= 8)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_factor": np.array([1e-4, 1e-3])}, "wrong-scale.*states 2 values as scale_factor"),
        ({"scale_factor": "by hand"}, "wrong-scale.*'by hand' as scale_factor, which is no number"),
        ({"valid_range": np.array([-2000, 0, 10000], "i2")}, "wrong-scale.*3 values as valid_range, expected 2"),
    ],
)
def test_cf_attributes_that_cannot_be_meant_are_refused(tmp_path, attributes, message):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20], **attributes)
    with pytest.raises(RequestError, match=message):
        NetcdfSource(path, BandRequest((Band("v"),))).native_grid()


@pytest.mark.parametrize(("scale", "offset"), [("0.0001", "-0.1"), (np.float32(1e-4), np.array([-0.1]))])
def test_packing_may_be_text_or_an_array_of_one(tmp_path, scale, offset):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20], scale_factor=scale, add_offset=offset)
    _, physical, _ = ingested(NetcdfSource(path, BandRequest((Band("v"),))), tmp_path)
    np.testing.assert_allclose(physical[:, 0, 8:], 0.2, rtol=1e-6)


def relabel(path: Path, axis: str, **attributes: object) -> None:
    with h5py.File(path, "r+") as file:
        for key, value in attributes.items():
            if key == "values":
                file[axis][:] = value
            else:
                file[axis].attrs[key] = value


def test_axes_go_by_what_they_say(tmp_path):
    path = tmp_path / "c.nc"
    with h5py.File(path, "w") as file:
        scales = {"lon": 10 + np.arange(5) * 0.1, "lat": 50 - np.arange(4) * 0.1, "when": np.arange(3.0)}
        for name, values in scales.items():
            file[name] = values
            file[name].make_scale(name)
        file["when"].attrs["units"] = "days since 2018-01-01"
        file["lon"].attrs["units"], file["lat"].attrs["units"] = "degrees_east", "degrees_north"
        data = file.create_dataset("v", data=np.arange(60, dtype="f4").reshape(5, 4, 3))
        for axis, name in enumerate(scales):
            data.dims[axis].attach_scale(file[name])
    source = NetcdfSource(path, BandRequest((Band("v"),)), time="when")
    grid = source.native_grid()
    assert (grid.crs, grid.shape_yx) == ("EPSG:4326", (4, 5))
    np.testing.assert_allclose(grid.bounds_xy, (9.95, 49.65, 10.45, 50.05))
    image = source.read(source.list_scenes().scenes[1], grid, ("v",), "nearest")[0]
    np.testing.assert_array_equal(image, np.arange(60).reshape(5, 4, 3)[:, :, 1].T)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ({"units": "km", "values": UTM.centres("x") / 1000}, {"units": "km", "values": UTM.centres("y") / 1000}),
        ({"scale_factor": 0.5, "add_offset": 9.0, "values": (UTM.centres("x") - 9) * 2}, {"units": "metre"}),
    ],
)
def test_coordinates_are_read_with_units_and_packing(tmp_path, x, y):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    relabel(path, "x", **x)
    relabel(path, "y", **y)
    assert NetcdfSource(path, BandRequest((Band("v"),))).native_grid().is_aligned(UTM)


@pytest.mark.parametrize(
    ("crs", "unit", "message"),
    [(None, "rad", "in 'rad', the CRS in metre"), ("EPSG:4326", "", r"is in degrees, the pixels lie at x 500000 to 500560")],
)
def test_coordinates_that_contradict_the_crs_are_refused(tmp_path, crs, unit, message):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    relabel(path, "x", units=unit)
    with pytest.raises(RequestError, match=message):
        NetcdfSource(path, BandRequest((Band("v"),), crs=crs)).native_grid()


def with_levels(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["v"]
        file["level"] = np.arange(3.0)
        file["level"].make_scale("level")
        file["once"] = [0.0]
        file["once"].make_scale("once")
        file["once"].attrs["units"] = "days since 2018-01-01"
        data = file.create_dataset("v", data=CUBE[None])
        data.attrs["grid_mapping"] = "crs"
        for axis, name in enumerate(("once", "level", "y", "x")):
            data.dims[axis].attach_scale(file[name])


def with_curved_places(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name, size in (("y", 40), ("x", 56)):
            file[name][:] = np.arange(size)
        file["lat"], file["lon"] = np.ones((2, 40, 56))
        file["v"].attrs["coordinates"] = "lat lon"


@pytest.mark.parametrize(
    ("make", "time", "message"),
    [
        (with_levels, "once", r"has 4 axes \(1 x 3 x 40 x 56\); expected \(time, y, x\): select a level first"),
        (with_curved_places, "time", "latitudes and longitudes of /v have two axes each"),
    ],
)
def test_axes_that_would_be_misread_are_refused(tmp_path, make, time, message):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    make(path)
    with pytest.raises(RequestError, match=message):
        NetcdfSource(path, BandRequest((Band("v"),), crs="EPSG:4326"), time=time).native_grid()


def test_missing_and_packed_times(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, -1])
    relabel(path, "time", scale_factor=2.0, _FillValue=-1.0)
    listing = NetcdfSource(path, BandRequest((Band("v"),))).list_scenes()
    assert [str(scene.observed_utc)[:10] for scene in listing.scenes] == ["2018-01-01", "2018-01-21"]
    assert [one.reason for one in listing.refused] == ["no-date"]


@pytest.mark.parametrize("where", ["an outer group", "one of two"])
def test_a_grid_mapping_is_found(tmp_path, where):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    with h5py.File(path, "r+") as file:
        if where == "one of two":
            file["wgs"] = 0
            file["wgs"].attrs["crs_wkt"] = rasterio.crs.CRS.from_epsg(4326).to_wkt()
            file["v"].attrs["grid_mapping"] = "wgs: lat lon crs: x y"
        else:
            file.create_group("a/b")
            file.move("v", "a/b/v")
            file.move("crs", "a/crs")
    name = "v" if where == "one of two" else "a/b/v"
    assert NetcdfSource(path, BandRequest((Band(name),))).native_grid().is_aligned(UTM)


def test_the_ellipsoid_of_a_grid_mapping_counts(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    with h5py.File(path, "r+") as file:
        del file["crs"].attrs["crs_wkt"]
        file["crs"].attrs.update(
            grid_mapping_name="transverse_mercator", longitude_of_central_meridian=15.0, latitude_of_projection_origin=0.0,
            scale_factor_at_central_meridian=1.0, false_easting=500_000.0, false_northing=0.0,
            reference_ellipsoid_name="Bessel 1841",
        )  # fmt: skip
    assert "Bessel" in NetcdfSource(path, BandRequest((Band("v"),))).native_grid().wkt


def test_a_grid_mapping_without_wkt_is_read(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"v": CUBE}, [0, 10, 20])
    with h5py.File(path, "r+") as file:
        del file["crs"].attrs["crs_wkt"]
        file["crs"].attrs.update(
            grid_mapping_name="transverse_mercator", longitude_of_central_meridian=15.0, latitude_of_projection_origin=0.0,
            scale_factor_at_central_meridian=0.9996, false_easting=500_000.0, false_northing=0.0,
            semi_major_axis=6378137.0, inverse_flattening=298.257223563,
        )  # fmt: skip
    grid = NetcdfSource(path, BandRequest((Band("v"),))).native_grid()
    np.testing.assert_allclose(
        rasterio.warp.transform(grid.crs, "EPSG:4326", *[[value] for value in grid.bounds_xy[:2]]),
        rasterio.warp.transform(UTM.crs, "EPSG:4326", *[[value] for value in UTM.bounds_xy[:2]]),
        atol=1e-7,
    )


def test_global_grids_and_longitudes_beyond_180_have_a_place(tmp_path):
    for grid in (
        Grid("EPSG:4326", (5.0, 0.0, -2.5, 0.0, -5.0, 92.5), (37, 72)),
        Grid("EPSG:4326", (0.1, 0.0, 200.0, 0.0, -0.1, 20.0), (37, 72)),
    ):
        write_tiff(tmp_path / str(grid.shape_yx[0] + grid.transform[2]) / f"{MONTHS[0]}.tif", ramp((37, 72)), grid=grid)
    assert [folder(path).native_grid().crs for path in sorted(tmp_path.iterdir())] == ["EPSG:4326"] * 2


def unplaced(path: Path, **options: object) -> None:
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", count=1, height=40, width=56, **options) as file:
        file.write(ramp(), 1)


def by_points(path: Path) -> None:
    corners = [GroundControlPoint(row, column, 5e5 + 10 * column, 5e6 - 10 * row) for row in (0, 40) for column in (0, 56)]
    unplaced(path, gcps=corners, crs="EPSG:32633")


def by_polynomials(path: Path) -> None:
    unplaced(path)
    one, none = [1.0] + [0.0] * 19, [0.0] * 20
    with rasterio.open(path, "r+") as file:
        file.rpcs = RPC(0, 1, 45, 1, one, none, 1, 1, 15, 1, one, none, 1, 1)


def two_pages(path: Path) -> None:
    first, second = (Image.fromarray(flat(value)) for value in (1, 2))
    first.save(path, save_all=True, append_images=[second])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (by_points, "wrong-grid: its position is stated by ground control points only; rectify"),
        (by_polynomials, r"wrong-grid: its position is stated by rational polynomials \(RPC\) only"),
        (two_pages, "missing-band: 20200105.tif holds 2 images, of which only the first would be read"),
        (lambda path: write_tiff(path, crs="EPSG:4978"), "wrong-crs: the CRS EPSG:4978 has its axes through the centre"),
        (lambda path: (unplaced(path), path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n5\n5\n")), "the file has no CRS"),
    ],
)
def test_what_gives_no_grid_is_refused_by_name(tmp_path, make, message):
    make(tmp_path / f"{MONTHS[0]}.tif")
    with pytest.raises(RequestError, match=message):
        folder(tmp_path).native_grid()


@pytest.mark.parametrize(
    ("grid", "reason", "says"),
    [
        (shifted(UTM, 0.5, 0), "wrong-grid", "; set cube.on_other_grid"),
        (SOUTH_FIRST, "wrong-grid", "rows from the south"),
        (Grid("EPSG:32630", UTM.transform, UTM.shape_yx), "wrong-crs", "EPSG:32630"),
    ],
)  # fmt: skip
def test_a_scene_on_another_grid_is_refused_in_the_same_words_before_and_during_ingest(tmp_path, grid, reason, says):
    for day in MONTHS[:3]:
        write_tiff(tmp_path / f"{day}.tif", flat(3000), grid=UTM if day != MONTHS[2] else grid)
    source = folder(tmp_path)
    _, planned = source.remarks(source.list_scenes().scenes, UTM)
    report, _, _ = ingested(source, tmp_path)
    assert [str(one) for one in planned] == [str(one) for one in report.refused]
    assert [one.reason for one in planned] == [reason]
    assert says in planned[0].detail
    assert "first, or" not in planned[0].detail
