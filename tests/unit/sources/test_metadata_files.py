"""Files beside rasters: what Sentinel-2's metadata and .aux.xml say of values is compared with how the values are read."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from source_rasters import UTM, ramp, write_tiff

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.metadata_files import MAX_BYTES, product_metadata

OFFSET = '<BOA_ADD_OFFSET_VALUES_LIST><BOA_ADD_OFFSET band_id="{}">-1000</BOA_ADD_OFFSET></BOA_ADD_OFFSET_VALUES_LIST>'
DAYS = ("20210605", "20210615", "20220605", "20220615")


def metadata(day: str, more: str = "") -> str:
    late = day >= "2022"
    return f"""<?xml version="1.0"?><n1:Level-2A_User_Product>{more}
    <PRODUCT_START_TIME>{day[:4]}-{day[4:6]}-{day[6:]}T10:05:59.024Z</PRODUCT_START_TIME>
    <PROCESSING_BASELINE>{"04.00" if late else "03.00"}</PROCESSING_BASELINE>
    <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
    <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
    <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
    {OFFSET.format(0) + OFFSET.format(1) if late else ""}</n1:Level-2A_User_Product>"""


def products(folder: Path, suffix: str) -> FolderSource:
    """A product a day, the later ones with the offset of processing baseline 04.00; the same reflectance in all."""
    jpeg = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if suffix == "jp2" else {}
    for day in DAYS:
        root = folder / f"S2A_MSIL2A_{day}T100559.SAFE"
        plane = ramp() + np.uint16(2000 if day >= "2022" else 1000)
        write_tiff(root / "GRANULE" / "L2A" / "IMG_DATA" / f"T32TQM_{day}_B04.{suffix}", plane, **jpeg)
        (root / "MTD_MSIL2A.xml").write_text(metadata(day))
    return source_in(folder, suffix)


def source_in(folder: Path, suffix: str) -> FolderSource:
    return FolderSource(folder, BandRequest((Band("v"),)), "*/*/*/*/T32TQM_{date:%Y%m%d}_B04." + suffix)


def test_the_agencys_own_files_are_read_as_their_metadata_say(tmp_path):
    source = products(tmp_path, "jp2")
    listing = source.list_scenes()
    (band,) = source.bands
    assert (band.scale, band.offset, band.nodata) == (pytest.approx(1e-4), 0, 0)
    for scene in listing.scenes:
        np.testing.assert_array_equal(source.read(scene, UTM, ("v",), "nearest")[0], ramp() + 1000)
    assert listing.unused == []
    assert "have scale 0.0001 and offset -0.1, the cube 0.0001 and 0: converted" in source.remarks(listing.scenes)[0][0]


def test_other_files_beside_metadata_are_read_as_they_are_and_the_contradiction_is_said(tmp_path):
    source = products(tmp_path, "tif")
    (line,) = source.remarks(source.list_scenes().scenes)[0]
    assert line.startswith("band v: 2 of 4 scenes (first S2A_MSIL2A_20220605")
    assert "offset -0.1 by MTD_MSIL2A.xml (processing baseline 04.00), and are read with 1 and 0: state source.offset" in line


@pytest.mark.parametrize(
    ("name", "text", "is_read"),
    [
        ("T32TQM_20220605_B04.tif", metadata("20220605"), True),
        ("T32TQM_2022-06-05_B04.tif", metadata("20220605"), True),
        ("T32TQM_20220615_B04.tif", metadata("20220605"), False),  # of another product
        ("T32TQM_20220605_SCL.tif", metadata("20220605"), False),
        ("T32TQM_20220605_B04.tif", metadata("20220605", "<!--" + "x" * MAX_BYTES + "-->"), False),
        ("T32TQM_20220605_B04.tif", '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>', False),
    ],
)
def test_metadata_beside_files_count_for_those_of_their_product(tmp_path, name, text, is_read):
    (tmp_path / "MTD_MSIL2A.xml").write_text(text)
    found = product_metadata(tmp_path / name)
    assert (found is not None) == is_read
    assert found is None or (found.scale, found.offset, found.nodata) == (pytest.approx(1e-4), pytest.approx(-0.1), (0,))


def test_what_an_aux_xml_says_otherwise_is_in_the_note(tmp_path):
    for day in DAYS:
        write_tiff(tmp_path / f"{day}.tif")
    aux = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>{}</NoDataValue><Scale>0.5</Scale></PAMRasterBand></PAMDataset>'
    (tmp_path / f"{DAYS[0]}.tif.aux.xml").write_text(aux.format(0))
    source = FolderSource(tmp_path, BandRequest((Band("v"),)), "{date:%Y%m%d}.tif")
    (line,) = source.remarks(source.list_scenes().scenes)[0]
    expected = "1 of 4 scenes (first 20210605) state .aux.xml:nodata=0, .aux.xml:scale=0.5 in a way that is not read"
    assert line.startswith(f"band v: {expected}")
    stated = FolderSource(tmp_path, BandRequest((Band("v", nodata=0, scale=0.5),)), "{date:%Y%m%d}.tif")
    assert stated.remarks(stated.list_scenes().scenes)[0] == []


def test_an_assumed_crs_and_pixels_without_an_echo_are_noted(tmp_path):
    for day in DAYS:
        with h5py.File(tmp_path / f"{day}.h5", "w") as file:
            file["dataset1/data1/data"] = np.zeros((4, 5), "uint8")
            what = file.create_group("dataset1/data1/what")
            what.attrs.update({"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0})
            for axis, (name, unit, size) in enumerate((("lat", "degrees_north", 4), ("lon", "degrees_east", 5))):
                file[name] = np.arange(size, dtype=float)
                file[name].make_scale(name)
                file[name].attrs["units"] = unit
                file["dataset1/data1/data"].dims[axis].attach_scale(file[name])
    source = FolderSource(tmp_path, BandRequest((Band("v"),)), "{date:%Y%m%d}.h5", "dataset1/data1/data")
    (line,) = source.remarks(source.list_scenes().scenes)[0]
    assert "state no CRS: EPSG:4326 (WGS 84) is assumed" in line
    assert "state undetect 0 (no echo): these pixels are not missing, they have the value -32" in line
    stated = FolderSource(tmp_path, BandRequest((Band("v"),), crs="EPSG:4258"), "{date:%Y%m%d}.h5", "dataset1/data1/data")
    assert "assumed" not in str(stated.remarks(stated.list_scenes().scenes)[0])


def test_metadata_that_alone_changed_is_read_again(tmp_path):
    source, settings = products(tmp_path / "in", "jp2"), IngestSettings(chunk_px=16, workers=1)
    uri = str(tmp_path / "cube")
    ingest(source, None, uri, None, settings)
    assert not ingest(source, None, uri, None, settings).is_new
    (said,) = (tmp_path / "in").glob(f"*{DAYS[-1]}*/MTD_MSIL2A.xml")
    said.write_text(said.read_text().replace(">-1000<", ">-900<"))
    report = ingest(source_in(tmp_path / "in", "jp2"), None, uri, None, settings)
    assert [DAYS[-1] in name for name in report.replaced] == [True]
    cube = open_cube(uri)
    difference = cube["image"].values[-1].astype(int) - cube["image"].values[0].astype(int)
    assert (difference == 100).all()  # stored: 2000 - 900 in place of 2000 - 1000
