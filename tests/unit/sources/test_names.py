"""Dates and bands in file names: detected, matched, proposed."""

import random
import re
import time

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.sources.dates import detect_date, find_dates, parse_date
from pipelines.sources.file_names import FilePattern, propose_pattern


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20180605", "2018-06-05"),
        ("2018-06-05", "2018-06-05"),
        ("201806051530", "2018-06-05T15:30"),
        ("2018156", "2018-06-05"),
        ("2018-06-05T15:30:00Z", "2018-06-05T15:30"),
        ("20180605T153000", "2018-06-05T15:30"),
        ("20181345", None),
        ("2018400", None),
        ("10180605", None),
        ("hello", None),
    ],
)
def test_dates_in_every_format(text, date):
    assert detect_date(text) == (None if date is None else np.datetime64(date, "ns"))


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("S2A_MSIL2A_20200605T093041_N0214_R136_T34TGR_20200605T122525", ["%Y%m%dT%H%M%S"] * 2),
        ("MOD13Q1.A2013257.h12v10.006.2015261234801.hdf", ["%Y%j"]),
        ("LC08_L1TP_013032_20180131_20180207_01_T1", ["%Y%m%d", "%Y%m%d"]),
        ("x_2018-06-05_y", ["%Y-%m-%d"]),
        ("123456789", []),
    ],
)
def test_dates_in_names(name, formats):
    assert [date_format for date_format, _ in find_dates(name)] == formats


def test_parse_requires_the_format():
    assert parse_date("05062018", "%d%m%Y") == np.datetime64("2018-06-05")
    assert parse_date("2018", "%d%m%Y") is None


def test_patterns_match_whole_paths():
    pattern = FilePattern("{band}/x*_{date:%Y}/{date:%j}_{band}.tif")
    named = pattern.match("B4/x1_2018/156_B4.tif", ("B4", "B8"))
    assert named is not None
    assert (named.band, named.date_text, pattern.date_format) == ("B4", "2018 156", "%Y %j")
    assert named.key == "{band}/x1_2018/156_{band}.tif"
    assert pattern.match("B4/x1_2018/156_B8.tif", ("B4", "B8")) is None
    assert pattern.match("B4/x1/y_2018/156_B4.tif") is None
    assert FilePattern("a.{date:%Y}").match("ax2018") is None


@pytest.mark.parametrize("text", ["*a" * 36, "*" * 36, "*{band}" + "*a" * 30, "*a_" * 18 + "{band}" + "*a" * 18])
@pytest.mark.parametrize("name", ["a" * 250, "a_" * 120, "/".join(["a" * 20] * 10)])
def test_a_name_that_does_not_match_many_stars_is_refused_at_once(text, name):
    started = time.perf_counter()
    assert FilePattern(text + "x{date:%Y}.tif").match(name) is None
    assert time.perf_counter() - started < 1


def test_stars_match_what_they_matched_with_backtracking():
    draw = random.Random(5)
    pieces, letters = ["*", "*", "a", "b", "ab", "/", "_", "{band}"], "aab/_"
    matched = 0
    for _ in range(3000):
        parts = [draw.choice(pieces) for _ in range(draw.randrange(1, 8))]
        name = "".join(draw.choice(letters) for _ in range(draw.randrange(12)))
        count, plain = 0, ""
        for part in parts:
            is_band = part == "{band}"
            plain += "[^/]*?" if part == "*" else "(?P=band0)" if is_band and count else "(?P<band0>[^/]+?)" if is_band else part
            count += is_band
        expected = re.fullmatch(f"{plain}([0-9]{{4}})", name + "2020")
        found = FilePattern("".join(parts) + "{date:%Y}").match(name + "2020")
        assert (found is None) == (expected is None), (parts, name)
        if found is not None:
            assert found.band == (expected["band0"] if count else "")
            matched += 1
    assert matched > 100


def test_too_many_fields_are_refused():
    with pytest.raises(RequestError, match="more than 8 fields"):
        FilePattern("{date:%Y}" + "*{band}" * 8).match("2020")


def test_a_format_without_a_year_is_refused():
    with pytest.raises(RequestError, match="has no year"):
        _ = FilePattern("{date:%m%d}").regex()


@pytest.mark.parametrize(
    ("paths", "pattern", "bands"),
    [
        (["T_NDVI_2013-09-14.jp2", "T_EVI_2013-09-14.jp2", "T_NDVI_2013-09-30.jp2", "T_EVI_2013-09-30.jp2"],
         "T_{band}_{date:%Y-%m-%d}.jp2", ("EVI", "NDVI")),
        (["201609281545_F.tif", "201609281550_F.tif"], "{date:%Y%m%d%H%M}_F.tif", ()),
        ([f"201801{day}/{band}.tif" for day in ("01", "11") for band in ("B10", "B2")],
         "{date:%Y%m%d}/{band}.tif", ("B2", "B10")),
        (["A2013257.x.tif", "A2013273.x.tif"], "A{date:%Y%j}.x.tif", ()),
        (["a_20180101_20180108.tif", "a_20180111_20180119.tif"], "a_{date:%Y%m%d}_*.tif", ()),
        (["T1_20180101.tif", "T2_20180101.tif", "T1_20180111.tif"], "*_{date:%Y%m%d}.tif", ()),
    ],
)  # fmt: skip
def test_patterns_are_proposed(paths, pattern, bands):
    names = propose_pattern(["README.md", *paths])
    assert names is not None
    assert (names.pattern, names.bands, names.matched) == (pattern, bands, len(paths))


def test_nothing_is_proposed_for_names_without_dates():
    assert propose_pattern(["a.tif", "b.tif", "20180101.txt"]) is None
