import json

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from flows.track import track
from pipelines.errors import ArtefactDamaged, RequestError


@pytest.fixture
def masks(tmp_path):
    """A patch that grows, one that comes and goes, one under cloud."""
    folder = tmp_path / "masks"
    folder.mkdir()
    frames = np.zeros((4, 30, 40), np.uint8)
    for t in range(4):
        frames[t, 4:10, 4 : 10 + 2 * t] = 1
    frames[1:3, 20:24, 20:24] = 1
    frames[:, 14:18, 30:36] = 1
    frames[2, 12:20, 28:38] = 255
    for t, frame in enumerate(frames):
        profile = {"height": 30, "width": 40, "count": 1, "dtype": "uint8", "crs": "EPSG:3035", "nodata": 255}
        transform = Affine(10, 0, 5000000, 0, -10, 2700000)
        with rasterio.open(folder / f"mask_2020-0{t + 1}-15.tif", "w", driver="GTiff", transform=transform, **profile) as raster:
            raster.write(frame, 1)
    return folder


def test_tables_picture_and_outlines_are_written_and_agree(masks, tmp_path):
    seen: list[tuple[int, int]] = []
    record = track([masks], tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert record["tracks"] == 3
    assert record["events"] == {"new": 1, "grown": 3, "gone": 1, "stable": 3, "not seen": 1, "first seen": 2}
    assert record["area_m2_on_last_date"] == pytest.approx((6 * 12 + 4 * 6) * 100, rel=1e-4)
    assert record["lines"][0].startswith("3 tracks through 4 dates: 1 new, 3 grown, 1 gone")
    objects = pd.read_csv(tmp_path / "out" / "objects.csv", parse_dates=["date"])
    assert len(objects) == 4 + 4 + 2
    assert objects[objects.event == "not seen"].area_m2.tolist() == pytest.approx([2400], rel=1e-4)
    outlines = geopandas.read_parquet(tmp_path / "out" / "outlines.parquet")
    assert outlines.crs == "EPSG:3035"
    assert outlines.area.tolist() == pytest.approx(outlines.area_m2.tolist(), rel=1e-4)
    assert outlines.track_id.tolist() == objects.track_id.tolist()
    collection = json.loads((tmp_path / "out" / "outlines.geojson").read_text())
    assert collection["features"][0]["properties"]["date"] == "2020-01-15T00:00:00Z"
    assert json.loads((tmp_path / "out" / "track.json").read_text())["tracks"] == 3
    with Image.open(tmp_path / "out" / "tracks.png") as picture:
        assert min(picture.size) > 500
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    assert not list((tmp_path / "out").glob(".*"))


def test_doing_it_again_gives_the_same_tables_and_leaves_other_files_alone(masks, tmp_path):
    out = tmp_path / "out"
    track([masks], out)
    first = {name: (out / name).read_bytes() for name in ("objects.csv", "events.csv", "tracks.csv", "tracks.png")}
    (out / "mine.txt").write_text("kept")
    track([masks], out, outlines=False)
    assert {name: (out / name).read_bytes() for name in first} == first
    assert (out / "mine.txt").exists()
    assert not (out / "outlines.parquet").exists()


def test_masks_without_an_object_are_named(masks, tmp_path):
    with pytest.raises(RequestError, match=r"no object of at least 1e\+06 m² in any of the 4 masks .* lower --min-size"):
        track([masks], tmp_path / "out", min_size=1e6)
    with pytest.raises(RequestError, match="no object with the code 7 in any of the 4 masks"):
        track([masks], tmp_path / "out", code=7)
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_tracker(masks, tmp_path):
    assert track([masks], tmp_path / "a", grow=0.7)["events"]["grown"] == 1  # of 3 widenings by a third of the first
    assert track([masks], tmp_path / "b", min_size=2000)["tracks"] == 2


def test_frames_without_georeferencing_are_in_mm(masks, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for path in masks.glob("*.tif"):
        Image.fromarray(rasterio.open(path).read(1)).save(frames / path.name)
    with pytest.raises(RequestError, match=r"has no CRS.*or give the size of a pixel: --spacing-mm"):
        track([frames], tmp_path / "out")
    record = track([frames], tmp_path / "out", spacing_mm=(0.5, 0.25))
    assert record["area_mm2_on_last_date"] == (6 * 12 + 4 * 6) * 0.125
    assert record["events"] == track([masks], tmp_path / "map")["events"]
    assert not (tmp_path / "out" / "outlines.parquet").exists()
    with pytest.raises(RequestError, match="expected 3 axes"):
        track([frames], tmp_path / "out", spacing_mm=(1.0, 1.0, 1.0))
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(frames / "mask_2021-01-01.tif")
    with pytest.raises(RequestError, match=r"2021-01-01.tif is 5 x 6 px, mask_2020-01-15.tif 30 x 40; cut them alike first"):
        track([frames], tmp_path / "out", spacing_mm=(1.0, 1.0))


@pytest.fixture
def monitor_run(tmp_path):
    """What a monitoring run leaves: an object of 12 pixels, one of 3, one of a single pixel that is not of the same date."""
    run = tmp_path / "runs" / "forest"
    (run / "products").mkdir(parents=True)
    day = np.full((20, 20), -1, np.int32)
    day[2:5, 2:6], day[10, 10:13], day[15, 15] = 18_000, 18_030, 18_060
    transform = Affine(10, 0, 5000000, 0, -10, 2700000)
    profile = {"height": 20, "width": 20, "count": 1, "dtype": "int32", "crs": "EPSG:3035", "nodata": -1}
    with rasterio.open(run / "products" / "change_date.tif", "w", driver="GTiff", transform=transform, **profile) as raster:
        raster.write(day, 1)
    (run / "config.yaml").write_text("monitoring: {min_area_px: 3}")
    return run


def test_tables_of_a_monitoring_run_are_in_its_folder_and_small_patches_are_left_out(monitor_run, tmp_path):
    record = track([monitor_run])
    assert (monitor_run / "track" / "tracks.csv").is_file()
    assert record["tracks"] == 2, "3 pixels are enough, 1 is not"
    assert record["min_size"] == pytest.approx(300, rel=0.01)
    assert "(objects of at least " in record["lines"][0]
    assert track([monitor_run], tmp_path / "all", min_size=0.0)["tracks"] == 3
    (monitor_run / "config.yaml").unlink()
    assert track([monitor_run])["tracks"] == 3
    (monitor_run / "config.yaml").write_text("monitoring: {")
    with pytest.raises(ArtefactDamaged, match=r"config.yaml: not YAML"):
        track([monitor_run])


def test_tables_of_masks_are_in_runs_track(masks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    track([masks])
    assert (tmp_path / "runs" / "track" / "tracks.csv").is_file()


def test_georeferenced_masks_are_not_measured_in_mm(masks, monitor_run, tmp_path):
    with pytest.raises(RequestError, match=r"mask_2020-01-15.tif has a CRS.*leave --spacing-mm out"):
        track([masks], tmp_path / "out", spacing_mm=(0.5, 0.25))
    with pytest.raises(RequestError, match=r"forest is a run on a map.*leave --spacing-mm out"):
        track([monitor_run], tmp_path / "out", spacing_mm=(0.5, 0.25))
    assert not (tmp_path / "out").exists()


def test_real_felling_is_followed(shared_data, tmp_path):
    """Pixels of the Romanian forest whose summer NDVI fell by .15: the table's area is that of the pixels."""
    xr = pytest.importorskip("xarray")
    folder = shared_data("satellite/sentinel2-romania")
    with xr.open_dataset(next(folder.glob("*10m.nc")), decode_coords="all") as cube:
        months, years = cube.time.dt.month.values, cube.time.dt.year.values
        x, y = cube.x.values, cube.y.values
        red, infrared = cube.B4.values, cube.B8.values
        clear = np.isin(cube.SCL.values, [4, 5]) & (red > 0) & (infrared > 0)
    ndvi = np.where(clear, (infrared - red) / np.maximum(infrared + red, 1), np.nan)
    summer = {year: np.nanmedian(ndvi[(years == year) & np.isin(months, [6, 7, 8])], axis=0) for year in range(2016, 2021)}
    felled, best = np.zeros(ndvi.shape[1:], bool), summer[2016]
    for year, now in summer.items():
        felled |= best - now > 0.15
        best = np.fmax(best, now)
        profile = {"height": 100, "width": 100, "count": 1, "dtype": "uint8", "crs": "EPSG:3035"}
        corner = Affine(10, 0, x.min() - 5, 0, -10, y.max() + 5)
        with rasterio.open(tmp_path / f"felled_{year}0901.tif", "w", driver="GTiff", transform=corner, **profile) as raster:
            raster.write(felled.astype(np.uint8), 1)
    record = track([tmp_path], tmp_path / "out", outlines=False)
    assert record["area_m2_on_last_date"] == pytest.approx(100.0 * felled.sum(), rel=1e-4)
    assert "gone" not in record["events"]
    assert "not seen" not in record["events"]
    assert record["events"]["grown"] > 3


def test_the_products_of_a_monitor_run_are_followed(tmp_path):
    from pipelines.grid import Grid
    from pipelines.products.cog import Lineage, write_layers
    from pipelines.products.layers import MONITOR_LAYERS

    grid = Grid("EPSG:3035", (10.0, 0.0, 5000000.0, 0.0, -10.0, 2700000.0), (30, 40))
    changed, recovered = np.full((30, 40), np.nan), np.full((30, 40), np.nan)
    changed[4:10, 4:10], changed[4:10, 10:14] = 17900.4, 18000.0
    changed[20:24, 20:24], recovered[20:24, 20:24] = 17900.4, 18000.0
    status = np.where(np.isfinite(changed), 2, 1).astype(np.uint8)
    status[:, 39] = 0
    arrays = {"status": status, "change_day": changed, "recovered_day": recovered}
    lineage = Lineage("S", "M", "C", "0.1.0", "2020-06-05T00:00:00Z")
    write_layers(arrays, MONITOR_LAYERS, grid, "1", lineage, tmp_path / "forest" / "products")
    record = track([tmp_path / "forest"], tmp_path / "out")
    assert record["events"] == {"new": 2, "grown": 1, "gone": 1, "stable": 1}
    events = pd.read_csv(tmp_path / "out" / "events.csv")
    assert events.date.tolist() == ["2019-01-04", "2019-01-04", "2019-04-14", "2019-04-14", "2020-06-05"]  # the last date
    assert events.change.tolist()[2:4] == pytest.approx([60 / 36 - 1, -1.0], rel=1e-4)


def test_the_folder_of_another_run_is_named(monitor_run):
    (monitor_run / "config.yaml").write_text("task: forecast")
    with pytest.raises(RequestError, match=r"forest is the folder of a forecast run: .* masks, or a monitoring run"):
        track([monitor_run])
