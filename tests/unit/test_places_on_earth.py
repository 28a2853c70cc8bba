"""Images whose pixels have no longitude and latitude are refused before any work, with a part that has them."""

import re

import pytest

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.errors import RequestError
from pipelines.grid import Grid, PatientFrame, require_lonlat
from pipelines.sources.fake import FakeSource

GEOS, HALF = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=WGS84", 5_500_000.0
DISK = Grid(GEOS, (2 * HALF / 56, 0, -HALF, 0, -2 * HALF / 40, HALF), (40, 56))


def test_a_whole_geostationary_disk_is_refused_with_bounds_that_work():
    with pytest.raises(RequestError, match="no longitude and latitude") as refusal:
        require_lonlat(DISK)
    found = re.search(r"bounds: \[(.*)\]", str(refusal.value))
    assert found
    left, bottom, right, top = (float(edge) for edge in found[1].split(","))
    assert right - left > HALF
    require_lonlat(Grid(GEOS, ((right - left) / 10, 0, left, 0, (bottom - top) / 10, top), (10, 10)))


def test_a_crs_that_is_not_of_the_earth_is_refused():
    with pytest.raises(RequestError, match="no CRS of the Earth"):
        require_lonlat(Grid('LOCAL_CS["x",UNIT["metre",1]]', (1, 0, 0, 0, -1, 0), (16, 16)))


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:32633", (10, 0, 5e5, 0, -10, 5e6), (8, 8)),
        Grid("EPSG:4326", (1, 0, -180, 0, -1, 90), (180, 360)),
        Grid("EPSG:3413", (1e4, 0, -2e6, 0, -1e4, 2e6), (400, 400)),  # the pole in the middle
        Grid(PatientFrame(), (1, 0, 0, 0, 1, 0), (4, 4)),
    ],
)
def test_grids_with_places_pass(grid):
    assert require_lonlat(grid) is grid


def test_ingest_refuses_before_it_reads(tmp_path):
    source = type("Disk", (FakeSource,), {"native_grid": lambda self: DISK})(dates=2)
    with pytest.raises(RequestError, match="take a part"):
        ingest(source, None, str(tmp_path / "cube"), None, IngestSettings(chunk_px=16))
