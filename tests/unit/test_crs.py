"""A CRS is a code, a PROJ string or WKT; GDAL would also open a file or fetch an address of that name."""

import os
from pathlib import Path

import pytest
from pyproj.database import query_crs_info
from pyproj.enums import PJType
from rasterio.crs import CRS
from rasterio.errors import CRSError

from pipelines.grid import parse_crs

LAEA = CRS.from_epsg(3035)


@pytest.mark.parametrize(
    "text",
    [
        "EPSG:3035", "epsg:3035", "urn:ogc:def:crs:EPSG::3035", LAEA.to_wkt(), LAEA.to_wkt(version="WKT2_2019"),
        "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +units=m +no_defs",
    ],
)  # fmt: skip
def test_names_of_a_crs_are_parsed(text: str) -> None:
    assert parse_crs(text).to_epsg() == 3035


def test_other_forms_are_parsed_too() -> None:
    assert parse_crs("OGC:CRS84").is_geographic
    assert parse_crs("WGS84").to_epsg() == 4326
    assert parse_crs('VERTCS["EGM96_Geoid",VDATUM["EGM96_Geoid"],UNIT["Meter",1.0]]').to_wkt()
    assert parse_crs("+proj=longlat +datum=WGS84 +nadgrids=@null").is_geographic


@pytest.mark.parametrize(
    "text",
    [
        "TMP/crs.wkt", "crs.wkt", "crs", "ESRI::TMP/crs.wkt", "http://127.0.0.1:9/crs", "file://TMP/crs.wkt", "/vsicurl/http://x/y",
        "+proj=utm +zone=35 +nadgrids=TMP/grid", "+proj=longlat +geoidgrids=@../x.gtx", "+init=TMP/crs:1", "x[/../crs.wkt", "",
        'BOUNDCRS[SOURCECRS[GEOGCRS["x"]],PARAMETERFILE["Latitude and longitude difference file","TMP/grid"]]',
        'BOUNDCRS[SOURCECRS[GEOGCRS["x"]],PARAMETERFILE["Latitude and longitude difference file","http://127.0.0.1:9/grid.tif"]]',
        'GEOGCS["x",DATUM["y",SPHEROID["z",6378137,298],EXTENSION["PROJ4_GRIDS", "TMP/grid"]],PRIMEM["G",0]]',
        '{"$schema": "https://proj.org/schemas/v0.7/projjson.schema.json", "type": "BoundCRS", "x": "TMP/grid"}',
    ],
)  # fmt: skip
def test_file_names_and_addresses_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x[").mkdir()
    for name in ("crs.wkt", "crs"):
        (tmp_path / name).write_text(LAEA.to_wkt())
    os.mkfifo(tmp_path / "grid")  # opening it would block for ever
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CRSError, match="file names are not read"):
        parse_crs(text.replace("TMP", str(tmp_path)))


def test_no_crs_of_proj_is_refused_as_a_file_name() -> None:
    """A sample of PROJ's database, in the forms found in files."""
    for info in query_crs_info(auth_name="EPSG", pj_types=[PJType.PROJECTED_CRS, PJType.GEOGRAPHIC_2D_CRS])[::40]:
        crs = CRS.from_epsg(int(info.code))
        for text in (f"EPSG:{info.code}", crs.to_wkt(), crs.to_wkt(version="WKT2_2019"), crs.to_proj4()):
            assert parse_crs(text).is_geographic == crs.is_geographic, text
