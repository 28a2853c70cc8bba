"""Dates and bands in file names: detected, matched, proposed."""

import random
import re
import time

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.sources.dates import detect_date, find_dates, parse_date, read_dates
from pipelines.sources.file_names import FilePattern, propose_pattern
from pipelines.sources.products import mask_band, product_of


@pytest.mark.parametrize(("zone", "hour"), [("+0200", "04T22:30"), ("-02:00", "05T02:30"), ("Z", "05T00:30")])
def test_times_of_names_with_a_time_zone_become_utc(zone, hour):
    pattern = FilePattern("S_{date:%Y%m%dT%H%M%z}_{band}.tif")
    named = pattern.match(f"S_20200105T0030{zone}_B4.tif")
    assert named is not None
    assert parse_date(named.date_text, pattern.date_format) == np.datetime64(f"2020-01-{hour}", "ns")


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
        ("HLS.S30.T13TEF.2020005T175659.v2.0.B04", ["%Y%jT%H%M%S"]),
        ("LE71820322012273ASN00_B3", ["%Y%j"]),
        ("LC08_L1TP_200012_20180131_20180207_01_T1", ["%Y%m%d", "%Y%m%d"]),
        ("ndvi_05062016", ["%d%m%Y"]),
        ("ndvi_05Jun2016", ["%d%b%Y"]),
        ("ndvi_2016-06", ["%Y-%m"]),
        ("ndvi_201606", ["%Y%m"]),
        ("ndvi_2016", ["%Y"]),
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


@pytest.mark.parametrize("any_date", [False, True])
def test_a_long_name_is_tried_once_at_each_place(any_date):
    name = "20180605_B04_" * 18 + ".jp2"
    started = time.perf_counter()
    assert FilePattern("*{date:%Y%m%d}*{band}*_{date:%Y}*.tif").match(name, ("B04",), any_date) is None
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


def test_too_many_stars_are_refused():
    with pytest.raises(RequestError, match="more than 100"):
        FilePattern("{date:%Y}" + "*a" * 101).match("2020")


def test_a_format_without_a_year_is_refused():
    with pytest.raises(RequestError, match="has no year"):
        _ = FilePattern("{date:%m%d}").date_format


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


DAYS, DOYS = ("20200105", "20200121", "20200206"), ("2020005", "2020021", "2020037")
SAFE = "S2A_MSIL2A_{0}T093041_N0214_R136_T34TGR_{0}T1225.SAFE/GRANULE/L2A_T34TGR/IMG_DATA/R{2}/T34TGR_{0}T093041_{1}_{2}.jp2"
STANDARD = [  # name, dates, bands, pattern, mask band, product
    ("LC08_L2SP_182032_{0}_20200301_02_T1_{1}.TIF", DAYS, ("SR_B4", "SR_B5", "QA_PIXEL", "SR_QA_AEROSOL"),
     "LC08_L2SP_182032_{date:%Y%m%d}_20200301_02_T1_{band}.TIF", "QA_PIXEL", "Landsat Collection 2 level 2 (OLI)"),
    ("LE07_L2SP_182032_{0}_20200301_02_T1_{1}.TIF", DAYS, ("SR_B3", "SR_B4", "QA_PIXEL"),
     "LE07_L2SP_182032_{date:%Y%m%d}_20200301_02_T1_{band}.TIF", "QA_PIXEL", "Landsat Collection 2 level 2 (TM, ETM+)"),
    ("LC08_L1TP_200012_{0}_20200301_01_T1_{1}.TIF", DAYS, ("B4", "B5", "BQA"),
     "LC08_L1TP_200012_{date:%Y%m%d}_20200301_01_T1_{band}.TIF", "BQA", "Landsat level 1 (OLI)"),
    ("LE7182032{0}ASN00_{1}.TIF", DOYS, ("B3", "B4"), "LE7182032{date:%Y%j}ASN00_{band}.TIF", None, "Landsat level 1 (TM, ETM+)"),
    ("HLS.S30.T13TEF.{0}T175659.v2.0.{1}.tif", DOYS, ("B04", "B8A", "Fmask"),
     "HLS.S30.T13TEF.{date:%Y%jT%H%M%S}.v2.0.{band}.tif", "Fmask", "HLS S30"),
    ("S2A_34TGR_{0}_0_L2A/{1}.tif", DAYS, ("B02", "B04", "B08", "SCL"),
     "S2A_34TGR_{date:%Y%m%d}_0_L2A/{band}.tif", "SCL", "Sentinel-2"),
    ("MOD13Q1.006__{1}_doy{0}_aid0001.tif", DOYS, ("250m_16_days_NDVI", "250m_16_days_pixel_reliability"),
     "MOD13Q1.006__{band}_doy{date:%Y%j}_aid0001.tif", "250m_16_days_pixel_reliability", "MODIS or VIIRS vegetation indices"),
    ("VNP13A1.A{0}.h12v10.001.2020300123456.{1}.tif", DOYS, ("500m_16_days_NDVI", "500m_16_days_EVI"),
     "VNP13A1.A{date:%Y%j}.h12v10.001.2020300123456.{band}.tif", None, "MODIS or VIIRS vegetation indices"),
    ("{0}_093041_1040_3B_{1}.tif", DAYS, ("AnalyticMS_SR", "udm2"),
     "{date:%Y%m%d_%H%M%S}_1040_3B_AnalyticMS_SR.tif", None, "PlanetScope"),
    ("S1A_IW_{0}T043041_DVP_RTC30_G_gpuned_1A3B_{1}.tif", DAYS, ("VV", "VH"),
     "S1A_IW_{date:%Y%m%dT%H%M%S}_DVP_RTC30_G_gpuned_1A3B_{band}.tif", None, "Sentinel-1 RTC"),
    ("CBERS_4A_WFI_{0}_207_140_L4_{1}.tif", DAYS, ("BAND15", "BAND16", "CMASK"),
     "CBERS_4A_WFI_{date:%Y%m%d}_207_140_L4_{band}.tif", "CMASK", "CBERS (WFI, AWFI)"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "dates", "bands", "pattern", "mask", "product"), STANDARD)
def test_standard_products_are_known_by_their_names(template, dates, bands, pattern, mask, product):
    paths = [template.format(date, band) for date in dates for band in bands]
    names = propose_pattern(paths)
    assert names.pattern == pattern
    assert set(names.bands) == (set(bands) if "{band}" in pattern else set())
    assert (mask_band(names.bands), product_of(paths).name) == (mask, product)


def test_a_safe_folder_has_bands_of_several_resolutions():
    sizes = {"10m": ("B02", "B04", "B08"), "20m": ("B04", "B8A", "SCL"), "60m": ("B01", "SCL")}
    paths = [SAFE.format(day, band, size) for day in DAYS for size, bands in sizes.items() for band in bands]
    names = propose_pattern(paths)
    assert names.matched == len(paths)
    assert names.pattern.endswith(".SAFE/GRANULE/L2A_T34TGR/IMG_DATA/*/T34TGR_{date:%Y%m%dT%H%M%S}_{band}.jp2")
    assert {"B04_10m", "B08_10m", "SCL_20m"} <= set(names.bands)


COLUMNS = [
    ("id,acquired\n2019001,2020-01-05\n2019002,2020-02-05\n", "2020-01-05"),
    ("acquired,processed\n2020-01-05,2021-03-01\n2020-02-05,2021-03-02\n", "2020-01-05"),
    ("scene,when,date\na,2019-01-01,2020-01-05\nb,2019-01-02,2020-02-05\n", "2020-01-05"),
    ("2020-01-05,0.5\n2020-02-05,0.6\n", "2020-01-05"),
]


@pytest.mark.parametrize(("text", "first"), COLUMNS)
def test_the_column_of_dates_is_chosen_by_its_heading(tmp_path, text, first):
    (tmp_path / "dates.csv").write_text(text)
    dates, _ = read_dates(tmp_path / "dates.csv")
    assert [str(date)[:10] for date in dates] == [first, "2020-02-05"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,end\n2020-01-05,2020-01-09\n2020-02-05,2020-02-09\n", "several columns of dates that differ"),
        ("id,value\n2019001,1.5\n2019002,2.5\n", "no column of dates"),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path, text, message):
    (tmp_path / "dates.csv").write_text(text)
    with pytest.raises(RequestError, match=message):
        read_dates(tmp_path / "dates.csv")


def test_nothing_is_proposed_for_names_without_dates():
    assert propose_pattern(["a.tif", "b.tif", "20180101.txt"]) is None
