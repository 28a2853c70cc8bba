import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError
from pipelines.samples import pairs
from pipelines.samples.decoded_sites import frame_of, write_site
from pipelines.samples.pairs import (
    ChangeFrame,
    PairSettings,
    Site,
    SiteFrame,
    measure_site,
    prepare,
    read_prepared,
    site_of_cube,
)
from pipelines.tiles import Box

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parents[1] / "cube" / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)


def site_of(x_TCHW: np.ndarray, valid_THW: np.ndarray, name: str = "paris") -> Site:
    def read(tile: Box) -> tuple[np.ndarray, np.ndarray]:
        assert tile.rows.start >= 0
        assert tile.rows.stop <= x_TCHW.shape[2]
        return x_TCHW[:, :, tile.rows, tile.columns].copy(), valid_THW[:, tile.rows, tile.columns].copy()

    dates, channels, *shape_yx = x_TCHW.shape
    return Site(name, tuple(shape_yx), np.arange(float(dates)), tuple(f"b{c}" for c in range(channels)), read)


def series(dates: int = 3, shape=(150, 170), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Dates of one scene in other lights, each half a pixel further right than the one before; a tenth not seen."""
    rng = np.random.default_rng(seed)
    from scipy.ndimage import gaussian_filter, shift

    base = np.stack([gaussian_filter(rng.normal(size=shape), 2.0) for _ in range(2)])
    base /= base.std()
    light = rng.uniform(0.5, 2.0, (dates, 2)), rng.uniform(-3, 3, (dates, 2))
    x = np.stack([[shift(base[c], (0, 0.5 * t)) * light[0][t, c] + light[1][t, c] for c in range(2)] for t in range(dates)])
    valid = np.ones((dates, *shape), bool)
    for t in range(dates):
        valid[t, 20 * t : 20 * t + 15, :150] = False
    return np.where(valid[:, None], x, 0).astype(np.float32), valid


def test_the_frame_is_mean_deviation_and_shift_of_every_date():
    x, valid = series()
    frame = measure_site(site_of(x, valid))
    for t in range(3):
        np.testing.assert_allclose(frame.mean_TC[t], x[t][:, valid[t]].mean(1), rtol=1e-5)
        np.testing.assert_allclose(frame.std_TC[t], x[t][:, valid[t]].std(1), rtol=1e-5)
    np.testing.assert_allclose(frame.shift_T_yx, [[0, 0], [0, -0.5], [0, -1.0]], atol=0.1)
    assert frame.gain_T[0] == 0
    assert (frame.gain_T[1:] > 0.001).all()
    assert frame.halo_px == 3


def test_statistics_do_not_depend_on_the_squares_they_are_read_in(monkeypatch):
    x, valid = series()
    settings = PairSettings(coregister=False)
    whole = measure_site(site_of(x, valid), settings)
    monkeypatch.setattr(pairs, "MEASURED_PX", 40)
    squares = measure_site(site_of(x, valid), settings)
    np.testing.assert_allclose(squares.mean_TC, whole.mean_TC, rtol=1e-6)
    np.testing.assert_allclose(squares.std_TC, whole.std_TC, rtol=1e-6)


def test_large_offsets_do_not_drown_the_deviation():
    x = np.random.default_rng(0).normal(1e4, 1.0, (2, 1, 64, 64)).astype(np.float32)
    frame = measure_site(site_of(x, np.ones((2, 64, 64), bool)), PairSettings(coregister=False))
    np.testing.assert_allclose(frame.std_TC, x.astype(float).std((2, 3)), rtol=1e-6)


def test_dates_of_different_sites_are_warned_of_and_those_of_one_site_are_not():
    x, valid = series(2)
    assert measure_site(site_of(x, valid)).warnings == ()
    other, _ = series(2, seed=7)
    frame = measure_site(site_of(np.stack([x[0], other[1]]), valid, "rennes"))
    assert len(frame.warnings) == 1
    assert frame.warnings[0].startswith("rennes, date 2: hardly like the first date (their edges correlate by ")


def test_bands_of_one_value_are_warned_of_and_a_date_of_one_value_is_refused():
    x, valid = series(2)
    x[1, 0] = 7
    frame = measure_site(site_of(x, valid))
    assert frame.warnings == ("paris, date 2: b0 holds one value everywhere and has no information",)
    assert frame.std_TC[1, 0] == 1
    x[1, 1] = 500
    with pytest.raises(RequestError, match=r"paris holds nothing but one value on date 2 of 2 \(7, 500 in b0, b1\).*fetch"):
        measure_site(site_of(x, valid))


def test_many_dates_are_read_in_smaller_squares():
    site = site_of(np.zeros((100, 8, 1, 1), np.float32), np.zeros((100, 1, 1), bool))
    site = replace(site, shape_yx=(5000, 3000))
    windows = pairs._windows(site)
    assert len(windows) == 9
    assert all(128 <= side < 512 for tile in windows for side in tile.shape)
    assert {(0, 0), (5000, 3000)} <= {(t.rows.start, t.columns.start) for t in windows} | {
        (t.rows.stop, t.columns.stop) for t in windows
    }


def test_prepared_dates_have_one_spread_and_lie_on_the_first():
    x, valid = series()
    ready, seen = prepare(x, valid, measure_site(site_of(x, valid)))
    assert ready.dtype == np.float32
    for t in range(3):
        np.testing.assert_allclose(ready[t][:, seen[t]].mean(1), 0, atol=0.02)
        np.testing.assert_allclose(ready[t][:, seen[t]].std(1), 1, atol=0.06)
        assert (ready[t][:, ~seen[t]] == 0).all()
    inner = np.s_[:, 80:, 10:140]
    before, after = ((a[0] - a[2])[inner].std() for a in (prepare(x, valid, _unmoved(x, valid))[0], ready))
    assert after < 0.35 * before


def _unmoved(x, valid) -> SiteFrame:
    return measure_site(site_of(x, valid), PairSettings(coregister=False))


def test_arguments_are_left_as_they_were():
    x, valid = series()
    before = x.copy(), valid.copy()
    prepare(x, valid, measure_site(site_of(x, valid)))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(valid, before[1])


def test_tiles_are_the_whole():
    x, valid = series()
    site = site_of(x, valid)
    frame = measure_site(site)
    assert frame.halo_px > 0
    whole, whole_seen = prepare(x, valid, frame)
    for tile in Box.whole(site.shape_yx).cut(61):
        part, part_seen = read_prepared(site, frame, tile)
        np.testing.assert_array_equal(part, whole[:, :, tile.rows, tile.columns])
        np.testing.assert_array_equal(part_seen, whole_seen[:, tile.rows, tile.columns])


def test_what_is_not_asked_for_is_not_done():
    x, valid = series()
    frame = measure_site(site_of(x, valid), PairSettings("none", coregister=False))
    assert (frame.mean_TC, frame.shift_T_yx)[0].any() == False  # noqa: E712
    ready, seen = prepare(x, valid, frame)
    np.testing.assert_array_equal(ready, x)
    np.testing.assert_array_equal(seen, valid)
    assert frame.halo_px == 0


def test_a_band_of_one_value_stays_at_nothing():
    x = np.random.default_rng(0).normal(size=(2, 2, 20, 20)).astype(np.float32)
    x[:, 0] = 3.3
    frame = measure_site(site_of(x, np.ones((2, 20, 20), bool)))
    np.testing.assert_allclose(prepare(x, np.ones((2, 20, 20), bool), frame)[0][:, 0], 0, atol=1e-5)


def test_a_frame_survives_json_to_the_bit(tmp_path):
    x, valid = series()
    frame = measure_site(site := site_of(x, valid), PairSettings(max_shift_px=0.7))
    assert "paris, date 3: the estimated shift of (+0.00, -1.0" in frame.notes[0]
    write_site(site, ChangeFrame(frame, np.ones(2)), np.zeros(site.shape_yx, np.uint8), tmp_path / "paris", {})
    back = frame_of(tmp_path / "paris").pair
    for name in ("mean_TC", "std_TC", "shift_T_yx", "gain_T"):
        np.testing.assert_array_equal(getattr(back, name), getattr(frame, name))
    assert back.notes == frame.notes


def test_a_date_without_pixels_is_refused():
    x, valid = series()
    valid[1] = False
    with pytest.raises(
        RequestError, match=r"the site paris has 0 usable pixels on date 2 of 3, at least 64 .*min_valid_fraction"
    ):
        measure_site(site_of(x, valid))


def test_a_site_is_read_from_its_cube(tmp_path):
    source = cube_sources.PickedSource(dates=3, shape_yx=(24, 40))
    ingest(source, cube_sources.RULE, str(tmp_path / "cube"), None, IngestSettings(chunk_px=16, workers=1))
    cube = open_cube(str(tmp_path / "cube"))
    site = site_of_cube("paris", cube)
    assert (site.shape_yx, site.bands) == ((24, 40), tuple(cube.band.values))
    np.testing.assert_array_equal(site.days_T, (cube.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D"))
    x, valid = site.read(Box((3, 5), (9, 30)))
    np.testing.assert_array_equal(valid, cube.valid.values[:, 3:9, 5:30])
    band = json.loads(cube.image.attrs["bands"])[0]
    physical = cube.image.values[:, 0, 3:9, 5:30] * band["scale"] + band["offset"]
    np.testing.assert_allclose(x[:, 0], np.where(valid, physical, 0), rtol=1e-5)
    with pytest.raises(RequestError, match=r"paris has 1 usable date\(s\) .*change needs two"):
        site_of_cube("paris", cube.isel(time=slice(0, 1)))
