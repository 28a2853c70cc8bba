import re

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from pipelines.errors import MissingInput, RequestError
from pipelines.tracking.mask_files import MonitorMasks, find_masks, grid_of, read_masks

NORTH_UP = Affine(10, 0, 5000000, 0, -10, 2700000)


def write(path, values, nodata=None, crs="EPSG:3035", transform=NORTH_UP):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    profile = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, nodata=nodata, **profile) as raster:
        raster.write(bands)
    return path


def mask(code=1, dtype=np.uint8, shape=(6, 8)):
    values = np.zeros(shape, dtype)
    values[1:3, 1:4] = code
    return values


def test_dates_come_from_names_in_any_order(tmp_path):
    for name in ("b_20200701.tif", "a_20200901.tif", "notes.tif", "c_20200601.tif"):
        write(tmp_path / name, mask())
    found = find_masks([tmp_path])
    assert [file.path.name[0] for file in found] == ["c", "b", "a"]
    assert found[0].date == np.datetime64("2020-06-01")


def test_a_pattern_says_which_date_counts_and_which_files(tmp_path):
    for name in ("x/20190101_seen_2020-06-01.tif", "x/20190101_seen_2020-07-01.tif", "x/other_2020-07-01.tif"):
        write(tmp_path / name, mask())
    found = find_masks([tmp_path], "x/*_seen_{date:%Y-%m-%d}.tif")
    assert [str(file.date)[:10] for file in found] == ["2020-06-01", "2020-07-01"]


def read(paths, **options):
    return list(read_masks(find_masks(paths), **options))


def test_masks_of_any_kind_mean_the_same(tmp_path):
    kinds = {
        "20200101": (mask(), None), "20200102": (mask(1, np.uint16), None), "20200103": (mask(1, np.float32), None),
        "20200104": (mask(1, np.int16), -9999), "20200105": (mask(), 0),
    }  # fmt: skip
    paths = [write(tmp_path / f"m_{date}.tif", values, nodata) for date, (values, nodata) in kinds.items()]
    one = read(paths, code=None)
    assert all(np.array_equal(dated.mask_YX != 0, mask() != 0) for dated in one)
    assert all(dated.seen_YX is None for dated in one)


def test_what_was_not_seen_is_told(tmp_path):
    hidden = np.zeros((6, 8), bool)
    hidden[:, 6:] = True
    files = [
        write(tmp_path / "m_20200101.tif", np.where(hidden, 255, mask()).astype(np.uint8)),
        write(tmp_path / "m_20200102.tif", np.where(hidden, 255, mask()).astype(np.uint8), 255),
        write(tmp_path / "m_20200103.tif", np.where(hidden, np.nan, mask()).astype(np.float32), np.nan),
    ]
    for dated in read(files):
        assert np.array_equal(dated.seen_YX, ~hidden)
        assert np.array_equal(dated.mask_YX, mask() == 1)
        assert dated.mask_YX.dtype == bool


def test_a_date_without_an_object_is_read_as_the_others_of_its_series(tmp_path):
    """0 and 255 only: alone it would be a mask of 255; beside one of 0, 1 and 255 it is a date with a cloud and nothing else."""
    cloud = np.where(mask() == 1, 255, 0).astype(np.uint8)
    cloudy, clear = write(tmp_path / "m_20200101.tif", cloud), write(tmp_path / "m_20200102.tif", mask())
    first, second = read([cloudy, clear])
    assert not first.mask_YX.any()
    assert np.array_equal(first.seen_YX, cloud == 0)
    assert second.mask_YX.dtype == bool
    other = write(tmp_path / "m_20200103.tif", cloud)
    assert all(dated.mask_YX.any() and dated.seen_YX is None for dated in read([cloudy, other]))


def test_files_with_several_codes_hold_objects_and_a_code_picks_one(tmp_path):
    codes = mask(3, np.int32)
    codes[1:3, 4:6] = 7
    files = [write(tmp_path / "m_20200101.tif", codes), write(tmp_path / "m_20200102.tif", codes)]
    assert [dated.mask_YX.max() for dated in read(files)] == [7, 7]
    assert [dated.mask_YX.sum() for dated in read(files, code=7)] == [4, 4]


def test_a_monitor_run_is_what_had_changed_by_each_date(tmp_path):
    missing = -(2**31)
    day = np.full((6, 8), missing, np.int32)
    day[1, 1:4], day[2, 1:4] = 18000, 18100
    recovered = np.full((6, 8), missing, np.int32)
    recovered[1, 1] = 18100
    status = np.where(day > 0, 2, 1).astype(np.uint8)
    status[5] = 0
    products = tmp_path / "forest" / "products"
    write(products / "change_date.tif", np.stack([day, day]), missing)
    write(products / "recovered_date.tif", np.stack([recovered, recovered]), missing)
    write(products / "status.tif", status, 0)
    found = find_masks([tmp_path / "forest"])
    assert found == MonitorMasks(tmp_path / "forest")
    assert grid_of(found).shape_yx == (6, 8)
    dated = list(read_masks(found))
    assert [str(one.date)[:10] for one in dated] == ["2019-04-13", "2019-04-14", "2019-07-23"]
    assert [int(one.mask_YX.sum()) for one in dated] == [0, 3, 5]
    assert not dated[0].seen_YX[5].any()
    assert dated[0].seen_YX[:5].all()
    write(products / "change_date.tif", np.full((6, 8), missing, np.int32), missing)
    with pytest.raises(RequestError, match="nothing has changed in this run so far"):
        list(read_masks(found))


def test_a_monitor_run_is_followed_beyond_its_last_change(tmp_path):
    """A recovery after the last change, and the last look after both, are dates of their own."""
    missing = -(2**31)
    day = np.full((6, 8), missing, np.int32)
    day[1, 1:4] = 18000
    recovered = np.full((6, 8), missing, np.int32)
    recovered[1, 1] = 18200
    products = tmp_path / "forest" / "products"
    path = write(products / "change_date.tif", np.stack([day, day]), missing)
    write(products / "recovered_date.tif", np.stack([recovered, recovered]), missing)

    def dated():
        return [(str(one.date)[:10], int(one.mask_YX.sum())) for one in read_masks(find_masks([tmp_path / "forest"]))]

    assert dated() == [("2019-04-13", 0), ("2019-04-14", 3), ("2019-10-31", 2)]
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(DRIFTLINE_ISSUED_UTC="2020-12-30T09:21:00Z")
    assert dated() == [("2019-04-13", 0), ("2019-04-14", 3), ("2019-10-31", 2), ("2020-12-30", 2)]
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(DRIFTLINE_ISSUED_UTC="2019-10-31T09:21:00Z")
    assert len(dated()) == 3  # the day of the recovery is the last look


def test_bad_input_is_named_with_a_remedy(tmp_path):
    one = write(tmp_path / "m_20200101.tif", mask())
    two = write(tmp_path / "m_20200102.tif", mask())
    with pytest.raises(MissingInput, match=r"no such file or folder: .*nothing"):
        find_masks([tmp_path / "nothing"])
    with pytest.raises(
        RequestError, match=r"only one mask \(m_20200101.tif\) with a date in its name; objects are followed through two dates"
    ):
        find_masks([one])
    with pytest.raises(RequestError, match="no mask with a date that fits"):
        find_masks([tmp_path], "felled_{date:%Y}.tif")
    twice = write(tmp_path / "again_20200101.tif", mask())
    with pytest.raises(RequestError, match=r"again_20200101\.tif and m_20200101\.tif are both of 2020-01-01"):
        find_masks([one, two, twice])
    undated = write(tmp_path / "mask.tif", mask())
    (tmp_path / "more").mkdir()
    with pytest.raises(RequestError, match=r"mask\.tif has no date"):
        find_masks([tmp_path / "more", undated])
    with pytest.raises(RequestError, match=re.escape("mask.tif has no date in its name; say where it stands: --pattern")):
        find_masks([one, undated])
    with pytest.raises(RequestError, match="has no date; write"):
        find_masks([one, two], "m_*.tif")


def test_masks_of_different_grids_are_refused(tmp_path):
    one = write(tmp_path / "m_20200101.tif", mask())
    small = write(tmp_path / "m_20200102.tif", mask(shape=(6, 7)))
    with pytest.raises(RequestError, match=r"m_20200102.tif is 6 x 7 px .* m_20200101.tif is 6 x 8 px .* \(gdalwarp"):
        grid_of(find_masks([one, small]))
    moved = write(tmp_path / "m_20200103.tif", mask(), transform=NORTH_UP * Affine.translation(1, 0))
    with pytest.raises(RequestError, match="bring all masks onto one grid"):
        grid_of(find_masks([one, moved]))
    nowhere = write(tmp_path / "m_20200104.tif", mask(), crs=None)
    with pytest.raises(RequestError, match=r"m_20200104\.tif has no CRS"):
        grid_of(find_masks([one, nowhere]))


def test_images_are_no_masks(tmp_path):
    good = write(tmp_path / "m_20200101.tif", mask())
    probability = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    image = write(tmp_path / "m_20200102.tif", probability)
    with pytest.raises(
        RequestError, match=r"48 different values from .*: that is an image, not a mask; compare it with a threshold"
    ):
        read([good, image])
    huge = write(tmp_path / "m_20200104.tif", mask(1e30, np.float64))
    with pytest.raises(RequestError, match=r"2 different values from 0 to 1e\+30"):
        read([good, huge])
    counts = np.arange(4800, dtype=np.uint16).reshape(60, 80)
    with pytest.raises(RequestError, match="4800 different values from 0 to 4799: that is an image"):
        read([write(tmp_path / "n_20200101.tif", counts), write(tmp_path / "n_20200102.tif", counts)])
    ndvi = np.random.default_rng(0).integers(2000, 9000, (12, 8)).astype(np.int16)
    images = [write(tmp_path / f"ndvi_{date}.tif", ndvi) for date in ("20200101", "20200117")]
    with pytest.raises(RequestError, match=r"9\d different values .*: that is an image.* --code K"):
        read(images)
    assert read(images, code=int(ndvi[0, 0]))[0].mask_YX[0, 0]
    fields = np.repeat(np.arange(1, 41, dtype=np.int16), 2)[None].repeat(6, 0)
    assert read([write(tmp_path / f"field_{date}.tif", fields) for date in ("20200101", "20200117")])[0].mask_YX.max() == 40
    bands = write(tmp_path / "m_20200103.tif", np.stack([mask(), mask()]))
    with pytest.raises(RequestError, match="has 2 bands: a mask has one"):
        read([good, bands])
