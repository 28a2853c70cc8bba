"""The text of `driftline info` and `driftline history`."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.verbs import check_lines, default_name, history_lines, info_lines
from pipelines.cube.history import Version

RADAR = {
    "uri": "runs/radar/cube",
    "snapshot": "SNAP",
    "versions": 1,
    "shape": {"time": 60, "band": 1, "y": 210, "x": 200},
    "chunks": [1, 1, 210, 210],
    "shards": [],
    "dtype": "uint16",
    "pixel_bytes": 7_938_000,
    "stored_bytes": 663_113,
    "first": "2010-08-26T00:00:00",
    "last": "2010-08-26T04:55:00",
    "median_step_days": 0.003472,
    "mean_valid_fraction": 0.7827,
    "damaged": [],
    "kept_out": ["RAD_201008260100"],
    "refused": [],
    "bands": [{"name": "rain", "scale": 0.01, "offset": 0.0, "nodata": 65535.0, "unit": "mm"}],
    "grid": {
        "crs": "+proj=stere +lat_0=90 +lat_ts=60 +a=6378137 +b=6356752 +units=m",
        "resolution_xy": [2000.0, -2000.0],
        "bounds_xy": [160000.0, -4288000.0, 580000.0, -3868000.0],
    },
    "dates": [{"time": "2010-08-26T04:55:00", "scene_id": "a", "valid_fraction": 0.5}],
}


def test_a_cube_of_minutes_without_an_epsg_code():
    lines = list(info_lines(RADAR))
    assert lines[2] == "dates:     60, 2010-08-26 to 2010-08-26 04:55:00 UTC, 5 minutes apart (median)"
    assert "CRS:       Polar Stereographic (variant B)" in lines
    assert "pixels:    210 x 200 (rows x columns) of 2000 x 2000 m" in lines
    assert "bands:     rain: stored x 0.01, nodata 65535, in mm" in lines
    assert lines[-1].split() == ["2010-08-26", "04:55:00", "50%", "usable", "a"]


def test_an_empty_cube_has_no_dates():
    empty = {**RADAR, "shape": {**RADAR["shape"], "time": 0}, "dates": [], "first": None, "mean_valid_fraction": None}
    assert "dates:     none" in list(info_lines(empty))


def test_versions_list_a_few_scenes_and_every_reason():
    refused = tuple((f"r{i}", "truncated", "its end is missing") for i in range(7))
    when = datetime(2026, 11, 21, 11, 7, 6, 353260, tzinfo=UTC)
    scenes = tuple(f"s{i}" for i in range(60))
    lines = list(history_lines([Version("SNAP", when, "ingest: 60 added", scenes, ("late",), ("gone",), refused)]))
    assert lines[0] == "SNAP  2026-11-21 11:07:06 UTC  ingest: 60 added"
    assert lines[1:4] == ["  added: s0, s1 ... s59", "  replaced: late", "  dropped: gone"]
    assert lines[4] == "  refused: r0, truncated: its end is missing"
    assert lines[-1] == "  and 2 more refused; all of them: --json"


def test_a_check_of_the_server_says_what_it_leaves_behind():
    lines = check_lines({"deployments": ["run", "train"], "listening": ["127.0.0.1:4200"], "logs": "/x/runs/.prefect"})
    assert "2 deployments" in lines[0]
    assert "/x/runs/.prefect" in lines[2]
    assert "[" not in "".join(lines)


@pytest.mark.parametrize(("name", "is_kept"), [("Doe_Jane.nii.gz", False), ("Doe_Jane.mp4", False), ("harvest.nc", True)])
def test_runs_of_volumes_and_clips_are_not_named_after_the_file(name: str, is_kept: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    found = default_name(tmp_path / name)
    assert found == "harvest" if is_kept else re.fullmatch("series-[0-9a-f]{6}", found)
