"""A CRS is a code, a PROJ string, WKT or PROJJSON; GDAL would also read a file or fetch an address of that name."""

import pytest
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
def test_what_names_a_crs_is_read(text: str) -> None:
    assert parse_crs(text).to_epsg() == 3035


def test_other_forms_are_read_too() -> None:
    assert parse_crs("OGC:CRS84").is_geographic
    assert parse_crs("WGS84").to_epsg() == 4326
    assert parse_crs("+proj=longlat +datum=WGS84 +nadgrids=@null").is_geographic


@pytest.mark.parametrize(
    "text",
    [
        "{tmp}/crs.wkt", "crs.wkt", "crs", "ESRI::{tmp}/crs.wkt", "http://127.0.0.1:9/crs", "file://{tmp}/crs.wkt", "/vsicurl/http://x/y",
        "+proj=utm +zone=35 +nadgrids=/etc/passwd", "+proj=longlat +geoidgrids=@../x.gtx", "+init={tmp}/crs:1", "",
    ],
)  # fmt: skip
def test_names_of_files_and_addresses_are_not_followed(text: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("crs.wkt", "crs"):
        (tmp_path / name).write_text(LAEA.to_wkt())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CRSError, match="names of files are not read"):
        parse_crs(text.format(tmp=tmp_path))
