import h5py
import numpy as np
import pytest
import yaml
from source_rasters import UTM, ramp, shifted, write_cube, write_tiff

from configs.tasks.forecast import ForecastRun
from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest
from pipelines.sources.proposal import propose_run

DAYS = [f"2018{month:02d}{day:02d}" for month in (1, 2, 3, 4) for day in (5, 15, 25)]


def proposed(folder, name="try") -> ForecastRun:
    return ForecastRun.model_validate(yaml.safe_load(propose_run(folder, name)))


def test_a_folder_of_bands_becomes_ndvi(tmp_path):
    for day in DAYS:
        for band in ("B02", "B04", "B08", "SCL"):
            write_tiff(tmp_path / f"T33_{day}_{band}.tif", nodata=0 if band != "SCL" else None)
    run = proposed(tmp_path)
    assert run.source.pattern == "T33_{date:%Y%m%d}_{band}.tif"
    assert [band if isinstance(band, str) else band.name for band in run.source.bands] == ["B04", "B08"]
    assert (run.source.scale, run.source.nodata, run.quality.kind) == (1e-4, 0, "scl")
    assert run.samples.variables[0].bands == ["B08", "B04"]
    assert (str(run.split.validation_from), str(run.split.test_from)) == ("2018-03-15 00:00:00", "2018-04-05 00:00:00")
    assert (run.model.kind, run.samples.context) == ("auto", "auto")
    assert run.samples.horizon <= 0.2 * len(DAYS)
    assert run.cube.on_other_grid == "refuse"


def test_irregularities_are_reported(tmp_path):
    for index, day in enumerate(DAYS):
        write_tiff(tmp_path / f"T1_{day}.tif", ramp(), ramp(), grid=shifted(UTM, index, 0))
    write_tiff(tmp_path / f"T2_{DAYS[0]}.tif", ramp(), ramp())
    run = proposed(tmp_path)
    assert (run.cube.on_other_grid, run.cube.same_date) == ("reproject", "mosaic")
    assert run.source.bands[0].source == "1"
    assert "also there: b2" in propose_run(tmp_path, "try")


def test_a_stack_with_its_dates(tmp_path):
    planes = [ramp(dtype="int16") for _ in DAYS]
    for band in ("ndvi", "evi"):
        write_tiff(tmp_path / f"crop-{band}.tif", *planes, nodata=-3000)
    (tmp_path / "dates.txt").write_text("\n".join(DAYS))
    run = proposed(tmp_path)
    assert (run.source.kind, run.source.files, run.source.dates) == ("stack", {"ndvi": "crop-ndvi.tif"}, "dates.txt")
    assert (run.source.valid_range, run.source.nodata) == ((-2000, 10000), -3000)


def test_a_cube_in_a_folder_or_alone(tmp_path):
    cube = np.stack([ramp()] * 12)
    path = write_cube(tmp_path / "c.nc", {"red": cube, "nir": cube}, [10.0 * i for i in range(12)])
    write_cube(tmp_path / "small.nc", {"red": cube[:, :9, :9]}, [10.0 * i for i in range(12)], grid=shifted(UTM, 0, 0))
    assert proposed(tmp_path) == proposed(path)
    text = propose_run(tmp_path, "try", written_as="./data")
    assert 'path: "./data/c.nc"  # also there: small.nc' in text
    assert 'path: "../c.nc"' in propose_run(path, "try", written_as="../c.nc")
    assert proposed(path).samples.variables[0].name == "ndvi"


def test_an_index_takes_its_name_from_the_files(tmp_path):
    for day in DAYS:
        write_tiff(tmp_path / f"NDVI_{day}.tif", ramp(dtype="int16"))
        write_tiff(tmp_path / "other" / f"haze_{day}.tif", ramp(dtype="int16"))
    source = proposed(tmp_path / "other").source
    assert (source.bands[0].name, source.scale) == ("b1", 1)
    assert "# scale: 0.0001" in propose_run(tmp_path / "other", "try")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    source = proposed(tmp_path).source
    assert (source.bands[0].name, source.scale, source.valid_range) == ("NDVI", 1e-4, (-2000, 10000))


@pytest.mark.parametrize(("size", "away_px"), [(10.0, 2), (60.0, 1), (3000.0, 0)])
def test_the_distance_from_clouds_is_of_the_pixel_size(tmp_path, size, away_px):
    grid = Grid("EPSG:32633", (size, 0.0, 500_000.0, 0.0, -size, 5_000_000.0), (40, 56))
    for day in DAYS:
        for band in ("B4", "BQA"):
            write_tiff(tmp_path / f"{day}_{band}.tif", grid=grid)
    assert proposed(tmp_path).quality.away_px == away_px


def test_names_that_yaml_would_change_are_quoted(tmp_path):
    for day in DAYS:
        write_tiff(tmp_path / f"no # '{day}'.tif")
    run = proposed(tmp_path, "my run: 1")
    assert (run.name, run.source.pattern) == ("my_run_1", "no # '{date:%Y%m%d}'.tif")


def test_landsat_is_proposed_with_its_packing_and_mask(tmp_path):
    for month in range(1, 13):
        for band in ("SR_B4", "SR_B5", "QA_PIXEL"):
            write_tiff(tmp_path / f"LC08_L2SP_182032_2020{month:02d}05_20210120_02_T1_{band}.TIF")
    (tmp_path / "MTL.txt").write_text("hello")
    text = propose_run(tmp_path, "try", "monitor")
    run = yaml.safe_load(text)
    assert (run["source"]["scale"], run["source"]["offset"], run["source"]["nodata"]) == (2.75e-5, -0.2, 0)
    assert run["quality"] == {"kind": "landsat", "band": "QA_PIXEL", "collection": 2, "away_px": 2}
    assert run["variable"]["bands"] == ["SR_B5", "SR_B4"]
    assert run["monitoring"]["min_history"] == 7
    assert "# the pattern does not match 1 of 37 files: MTL.txt" in text


def test_masks_of_bit_fields_become_lists_of_values(tmp_path):
    for doy in range(1, 180, 16):
        for band in ("B04", "B8A", "Fmask"):
            write_tiff(tmp_path / f"HLS.S30.T13TEF.2020{doy:03d}T175659.v2.0.{band}.tif", ramp(dtype="uint8"))
    run = proposed(tmp_path)
    assert run.source.pattern == "HLS.S30.T13TEF.{date:%Y%jT%H%M%S}.v2.0.{band}.tif"
    assert run.quality.band == "Fmask"
    assert {0, 32, 64, 192} <= set(run.quality.valid_values)
    assert not {2, 4, 8, 16} & set(run.quality.valid_values)


def test_a_guess_is_checked_against_the_data(tmp_path):
    path = write_cube(tmp_path / "c.nc", {"red": np.stack([ramp()] * 12)}, [10.0 * i for i in range(12)])
    with h5py.File(path, "r+") as file:
        del file["crs"]
    with pytest.raises(RequestError, match="is in degrees, the pixels lie at x 500000"):
        propose_run(path, "try")


def test_unreadable_inputs_state_what_was_found(tmp_path):
    with pytest.raises(MissingInput, match="no such folder or file"):
        propose_run(tmp_path / "nowhere", "try")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RequestError, match=r"holds nothing that a source can read; there are notes\.txt; expected"):
        propose_run(tmp_path, "try")
    for day in DAYS[:3]:
        write_tiff(tmp_path / f"{day}.tif")
    with pytest.raises(RequestError, match=r"holds 3 dates; a forecast needs at least 5 \(change .* docs/change.md"):
        propose_run(tmp_path, "try")


def test_a_monitoring_run_is_proposed(tmp_path):
    from configs.tasks.monitor import MonitorRun

    for day in DAYS:
        for band in ("B04", "B08"):
            write_tiff(tmp_path / f"{day}_{band}.tif", nodata=0)
    with pytest.raises(RequestError, match=r"history of at least 6 dates in 183 days; .* of the 12 dates .* are 7 in 69 days"):
        propose_run(tmp_path, "try", "monitor")
    for day in DAYS:
        for band in ("B04", "B08"):
            write_tiff(tmp_path / f"2017{day[4:]}_{band}.tif", nodata=0)
    proposed = MonitorRun.model_validate(yaml.safe_load(propose_run(tmp_path, "try", "monitor")))
    assert proposed.variable.formula == "normalized_difference"
    assert proposed.monitoring.test.direction == "down"
    assert proposed.monitoring.test.threshold == 9  # the history is too short for calibration


SAFE = "S2A_MSIL2A_{day}T095031_N{baseline}_R079_T33TVF_{day}T120000.SAFE/IMG_DATA/T33TVF_{day}T095031_{band}_10m.tif"


@pytest.mark.parametrize(
    ("baselines", "offset", "said"), [(["0301"], 0, ""), (["0500"], -0.1, ""), (["0301", "0500"], 0, "6 of 12 Sentinel-2 files")]
)
def test_the_offset_of_sentinel2_is_that_of_the_baseline_in_the_names(tmp_path, baselines, offset, said):
    for number, day in enumerate(DAYS[:6]):
        for band in ("B04", "B08"):
            write_tiff(tmp_path / SAFE.format(day=day, band=band, baseline=baselines[number % len(baselines)]), nodata=0)
    text = propose_run(tmp_path, "try")
    run = ForecastRun.model_validate(yaml.safe_load(text))
    assert (run.source.scale, run.source.offset) == (1e-4, offset)
    assert said in text
    assert ("unless they were harmonised" in text) == bool(said)
    source = FolderSource(tmp_path, BandRequest((Band("B04_10m", scale=1e-4),)), run.source.pattern)
    notes, _ = source.remarks(source.list_scenes().scenes)
    assert any("unless they were harmonised" in note for note in notes) == (baselines != ["0301"])


def test_a_time_zone_in_the_names_is_said(tmp_path):
    for day in DAYS[:6]:
        write_tiff(tmp_path / f"S_{day}T233000+0200.tif")
    assert "the names state the time zone +0200, which is not taken off" in propose_run(tmp_path, "try")
