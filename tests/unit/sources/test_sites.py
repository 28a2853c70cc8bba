import numpy as np
import pytest
from source_rasters import UTM, ramp, shifted, write_tiff

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.sites import SiteSource, date_steps, list_sites, read_steps, site_file

WANTED = BandRequest((Band("B02", nodata=0), Band("B08", nodata=0)))
PATTERN = "{site}/imgs_{step}/*_{band}.tif"
DATES = "{site}/dates.txt"


def write_site(folder, name="paris", steps=("1", "2"), dates="date_1: 20150916\ndate_2: 20171026\n", grids=None):
    for index, step in enumerate(steps):
        grid = (grids or {}).get(step, UTM)
        for offset, band in enumerate(("B02", "B08")):
            plane = ramp(grid.shape_yx, start=1 + 100 * index + offset)
            write_tiff(folder / name / f"imgs_{step}" / f"S2A_20190101_{band}.tif", plane, grid=grid)
    (folder / name / "dates.txt").write_text(dates)


def source(folder, name="paris", pattern=PATTERN, dates=DATES, **options):
    return SiteSource(folder, WANTED, pattern, name, dates, **options)


def days(dates: dict) -> dict[str, str]:
    return {step: str(date)[:10] for step, date in dates.items()}


# ---------------------------------------------------------------- sites


def test_sites_are_the_names_that_the_pattern_finds(tmp_path):
    for name in ("rennes", "bercy", "_odd"):
        write_site(tmp_path, name) if name != "_odd" else (tmp_path / name).mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no image")
    assert list_sites(tmp_path, PATTERN) == ["bercy", "rennes"]


def test_a_site_twice_in_the_pattern_must_match_equal_text(tmp_path):
    write_tiff(tmp_path / "paris" / "paris_20150916_B02.tif")
    write_tiff(tmp_path / "paris" / "rennes_20150916_B02.tif")
    assert list_sites(tmp_path, "{site}/{site}_{date:%Y%m%d}_{band}.tif") == ["paris"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("imgs_{step}/{band}.tif", r"has no \{site\}; write \{site\} in place"),
        ("{site}/imgs_1/{band}.tif", "has no date"),
        ("{site}/{date:%Y%m%d}_{step}_{band}.tif", r"both a date and \{step\}"),
        ("../{site}/imgs_{step}/{band}.tif", "points out of source.path"),
        (
            "{site}/img_{step}_{tile}.tif",
            r"\{tile\} in the pattern .* fields are .*\{site\}, \{step\}, \{band\} and \*",
        ),
        ("{site}/nothing_{step}/{band}.tif", r"finds no site below .* there are paris/.*correct source.pattern"),
    ],
)
def test_a_pattern_without_sites_states_the_reason(tmp_path, pattern, message):
    write_site(tmp_path)
    with pytest.raises(RequestError, match=message):
        list_sites(tmp_path, pattern)


def test_a_folder_source_supports_neither_site_nor_step(tmp_path):
    write_site(tmp_path)
    for pattern in (PATTERN, "paris/imgs_{step}/*_{band}.tif"):
        with pytest.raises(RequestError, match=r"is unknown; supported fields are \{date:%Y%m%d\}, \{band\} and \*"):
            FolderSource(tmp_path, WANTED, pattern).list_scenes()


def test_invalid_site_names_are_refused(tmp_path):
    write_site(tmp_path, "old town")
    with pytest.raises(RequestError, match=r"'old town' .* letters, digits .* rename the folder"):
        list_sites(tmp_path, PATTERN)


@pytest.mark.parametrize("name", ["../paris", "..", "paris/../../etc", "/etc", ".hidden", ""])
def test_a_site_name_never_points_out_of_the_folder(tmp_path, name):
    write_site(tmp_path)
    with pytest.raises(RequestError, match="is not a valid site name"):
        source(tmp_path, name).list_scenes()
    with pytest.raises(RequestError, match="is not a valid site name"):
        site_file(tmp_path, "{site}/dates.txt", name)


def test_a_site_file_is_below_the_folder(tmp_path):
    folder = tmp_path / "data"
    write_site(folder)
    (tmp_path / "secret.txt").write_text("1: 2020-01-01")
    (folder / "paris" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert site_file(folder, DATES, "paris") == folder / "paris" / "dates.txt"
    with pytest.raises(RequestError, match=r"labels.path: '../secret.txt' points out of source.path"):
        site_file(folder, "../secret.txt", "paris", "labels.path")
    with pytest.raises(RequestError, match="is a link that points out of"):
        site_file(folder, "{site}/link.txt", "paris")
    with pytest.raises(RequestError, match=r"may contain \{site\} and no other field"):
        site_file(folder, "{site}/{step}.txt", "paris")
    with pytest.raises(MissingInput, match=r"no such file: .*labels.path: \{site\}/cm.tif names for the site paris"):
        site_file(folder, "{site}/cm.tif", "paris", "labels.path")


# ---------------------------------------------------------------- scenes


@pytest.mark.parametrize(
    ("pattern", "dates"), [(PATTERN, DATES), ("{site}/imgs_*/S2A_{date:%Y%m%d}_{band}.tif", None)], ids=["steps", "dates"]
)
def test_files_of_the_site_that_nothing_uses_are_named(tmp_path, pattern, dates):
    write_site(tmp_path, "rennes")
    write_site(tmp_path)
    if dates is None:
        (tmp_path / "paris" / "imgs_2" / "S2A_20190101_B02.tif").rename(tmp_path / "paris" / "imgs_2" / "S2A_20200101_B02.tif")
        (tmp_path / "paris" / "imgs_2" / "S2A_20190101_B08.tif").rename(tmp_path / "paris" / "imgs_2" / "S2A_20200101_B08.tif")
        (tmp_path / "paris" / "dates.txt").unlink()
    write_tiff(tmp_path / "paris" / "imgs_1" / "S2A_20190101_B11.tif")
    for name in ("paris/cm.tif", "paris/preview.png", "readme.txt"):
        (tmp_path / name).write_text("x")
    listing = source(tmp_path, pattern=pattern, dates=dates, others=("paris/cm.tif",)).list_scenes()
    assert listing.unused == ["paris/preview.png"]
    assert [note[:34] for note in listing.notes] == ["not used: 1 files of other bands ("]
    assert "others" not in repr(source(tmp_path, others=("paris/cm.tif",)))


def test_a_step_is_dated_by_the_dates_file(tmp_path):
    write_site(tmp_path)
    listing = source(tmp_path).list_scenes()
    assert [scene.id for scene in listing.scenes] == ["paris/imgs_1", "paris/imgs_2"]
    assert [str(scene.observed_utc)[:10] for scene in listing.scenes] == ["2015-09-16", "2017-10-26"]
    assert listing.refused == []
    image = source(tmp_path).read(listing.scenes[1], UTM, ("B08", "B02"), "nearest")
    np.testing.assert_array_equal(image, [ramp(start=102), ramp(start=101)])


def test_dates_in_the_names_are_used_if_the_pattern_has_them(tmp_path):
    for day in ("20150916", "20171026"):
        for band in ("B02", "B08"):
            write_tiff(tmp_path / "paris" / f"{day}_{band}.tif")
            write_tiff(tmp_path / "rennes" / f"{day}_{band}.tif")
    listing = source(tmp_path, pattern="{site}/{date:%Y%m%d}_{band}.tif", dates=None).list_scenes()
    assert [scene.id for scene in listing.scenes] == ["paris/20150916", "paris/20171026"]


def test_multi_band_files_are_read_in_requested_order(tmp_path):
    for step in "12":
        write_tiff(tmp_path / "paris" / f"t{step}.tif", ramp(), ramp(start=7))
    (tmp_path / "paris" / "dates.txt").write_text("2015-09-16\n2017-10-26\n")
    listing = source(tmp_path, pattern="{site}/t{step}.tif").list_scenes()
    assert [scene.id for scene in listing.scenes] == ["paris/t1", "paris/t2"]
    image = source(tmp_path, pattern="{site}/t{step}.tif").read(listing.scenes[0], UTM, ("B08",), "nearest")
    np.testing.assert_array_equal(image[0], ramp(start=7))


def test_every_site_becomes_a_cube_on_the_grid_of_its_first_scene(tmp_path):
    larger = Grid(UTM.crs, shifted(UTM, 0.5, -0.25).transform, (41, 57))
    write_site(tmp_path, grids={"2": larger})
    settings = IngestSettings(chunk_px=16, on_other_grid="reproject", resampling="bilinear")
    report = ingest(source(tmp_path), None, str(tmp_path / "cube"), None, settings)
    cube = open_cube(str(tmp_path / "cube"))
    assert report.added == ("paris/imgs_1", "paris/imgs_2")
    assert cube.image.shape == (2, 2, *UTM.shape_yx)
    np.testing.assert_array_equal(cube.image[0, 0].values, ramp())
    inner = (slice(5, -5), slice(5, -5))
    expected = ramp(larger.shape_yx, start=101).astype(float)
    # cube column i is half a column before the scene's i, cube row j a quarter row below the scene's j
    along = (expected[:, :-1] + expected[:, 1:]) / 2
    below = 0.75 * along[:40, :] + 0.25 * along[1:41, :]
    found = cube.image[1, 0].values.astype(float)
    np.testing.assert_allclose(found[:, 1:][inner], below[:, : found.shape[1] - 1][inner], atol=1)
    again = ingest(source(tmp_path), None, str(tmp_path / "cube"), None, settings)
    assert (again.added, again.unchanged) == ((), report.added)


def test_a_pair_of_different_sites_is_refused(tmp_path):
    write_site(tmp_path, grids={"2": shifted(UTM, 500, 0)})
    with pytest.raises(RequestError, match=r"paris/imgs_2 and paris/imgs_1 show different sites: they do not overlap"):
        source(tmp_path).list_scenes()


@pytest.mark.parametrize(
    ("steps", "dates", "message"),
    [
        (("1",), "date_1: 20150916", r"the site paris has 1 date\(s\) \(paris/imgs_1\), change needs two"),
        (
            ("1", "2"),
            "date_1: 20150916",
            r"dates.txt of paris has no date for step 2, only for date_1 \(2015-09-16\): add a line",
        ),
        (
            ("1", "2"),
            "date_1: 20171026\ndate_2: 20150916",
            "wrong order: step 1 is 2017-10-26, step 2 is 2015-09-16; step 2 must be later",
        ),
        (("1", "2"), "date_1: 20171026\ndate_2: 20171026", "wrong order"),
    ],
)
def test_dates_without_a_pair_are_refused(tmp_path, steps, dates, message):
    write_site(tmp_path, steps=steps, dates=dates)
    with pytest.raises(RequestError, match=message):
        source(tmp_path).list_scenes()


def test_parts_of_one_date_may_be_adjacent(tmp_path):
    height, width = UTM.shape_yx
    a, b, c, d, e, f = UTM.transform
    right = Grid(UTM.crs, (a, b, c + a * width, d, e, f), (height, width))
    for day in ("20150916", "20171026"):
        for part, grid in (("T1", UTM), ("T2", right)):
            write_tiff(tmp_path / "paris" / f"{part}_{day}_B02.tif", ramp(), grid=grid)
            write_tiff(tmp_path / "paris" / f"{part}_{day}_B08.tif", ramp(), grid=grid)
    listing = source(tmp_path, pattern="{site}/*_{date:%Y%m%d}_{band}.tif", dates=None, same_date="mosaic").list_scenes()
    assert [len(scene.parts) for scene in listing.scenes] == [2, 2]


def test_a_step_with_two_dates_is_refused_and_words_have_no_order():
    twice = {"date_1": np.datetime64("2015-09-16"), "01": np.datetime64("2017-01-01")}
    with pytest.raises(RequestError, match=r"has two dates for step 1: date_1 \(2015-09-16\), 01 \(2017-01-01\)"):
        date_steps(["1"], twice, "dates.txt")
    words = {"pre_1": np.datetime64("2015-09-16"), "post_1": np.datetime64("2017-01-01")}
    assert days(date_steps(["post_1", "pre_1"], words, "dates.txt")) == {"post_1": "2017-01-01", "pre_1": "2015-09-16"}


def test_a_missing_band_is_reported_with_the_remaining_date(tmp_path):
    write_site(tmp_path)
    (tmp_path / "paris" / "imgs_2" / "S2A_20190101_B08.tif").unlink()
    with pytest.raises(RequestError, match=r"has 1 date.*\n.*missing-band: no file for band B08; paris/imgs_2 has B02"):
        source(tmp_path).list_scenes()


def test_two_files_for_one_band_are_refused(tmp_path):
    write_site(tmp_path)
    write_tiff(tmp_path / "paris" / "imgs_2" / "other_B08.tif")
    with pytest.raises(RequestError, match="are both band 'B08' of step 2; narrow the pattern"):
        source(tmp_path).list_scenes()


def test_missing_sites_dates_and_bands_are_reported(tmp_path):
    write_site(tmp_path)
    with pytest.raises(RequestError, match=r"no site 'london' .* finds: paris"):
        source(tmp_path, "london").list_scenes()
    with pytest.raises(RequestError, match=r"no dates file gives the dates of the steps; set source.dates"):
        source(tmp_path, dates=None).list_scenes()
    with pytest.raises(MissingInput, match=r"no such file: .*when.txt"):
        source(tmp_path, dates="{site}/when.txt").list_scenes()
    only_red = SiteSource(tmp_path, BandRequest((Band("B04"),)), PATTERN, "paris", DATES)
    with pytest.raises(RequestError, match=r"has none of the bands B04; its files have: .*B02, .*B08"):
        only_red.list_scenes()


# ---------------------------------------------------------------- the dates file


@pytest.mark.parametrize(
    "text",
    [
        "date_1: 20150916\ndate_2: 20171026\n",
        "1 2015-09-16\n2 2017-10-26",
        "step,date\n1,2015-09-16\n2,2017-10-26\n",
        "1;2015/09/16\r\n2;2017/10/26\r\n",
        "\ufeff# when\n\n01 = 2015-09-16T00:00:00\n02 = 2017-10-26T00:00:00Z",
        '"1","2015-09-16"\n"2","2017-10-26"',
        "2015-09-16\n2017-10-26",
    ],
)
def test_dates_files_in_several_notations(tmp_path, text):
    path = tmp_path / "dates.txt"
    path.write_text(text, encoding="utf-8")
    assert days(date_steps(["1", "2"], read_steps(path), "dates.txt")) == {"1": "2015-09-16", "2": "2017-10-26"}


def test_steps_may_be_words_or_exceed_nine(tmp_path):
    path = tmp_path / "dates.txt"
    path.write_text("date_before: 2015-09-16\nafter: 2017-10-26")
    assert days(date_steps(["after", "before"], read_steps(path), "")) == {"after": "2017-10-26", "before": "2015-09-16"}
    path.write_text("".join(f"date_{n}: 2020-01-{n:02d}\n" for n in range(1, 13)))
    assert list(days(date_steps([str(n) for n in range(1, 13)], read_steps(path), "")).values())[9:] == [
        "2020-01-10",
        "2020-01-11",
        "2020-01-12",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no dates; write lines such as date_1: 20150916"),
        ("date_1: soon\n", "dates.txt:1: 'date_1: soon' holds no date"),
        ("date_1: 20150916\ndate_1: 20171026", "dates.txt:2: the step 'date_1' has two dates"),
    ],
)
def test_dates_files_without_dates_are_refused(tmp_path, text, message):
    path = tmp_path / "dates.txt"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        read_steps(path)
