import numpy as np
import pytest

from pipelines.errors import ArtefactDamaged
from pipelines.samples.decoded_sites import about_site, open_site, write_site
from pipelines.samples.pairs import (
    PairSettings,
    Site,
    measure_change_frame,
    measure_site,
    read_frames,
    without_low_frequency,
)
from pipelines.tiles import Box

SHAPE = 90, 110


def site(scale=1.0):
    """Two dates: texture, haze that grows to the right on the second one, a bright square on the second one; clouds."""
    rng = np.random.default_rng(0)
    ground = rng.normal(size=(2, *SHAPE))
    haze = np.linspace(0, 8, SHAPE[1])
    x = np.stack([ground, ground + 0.2 * rng.normal(size=ground.shape) + haze])
    x[1, :, 40:48, 50:58] += 4
    valid = np.ones((2, *SHAPE), bool)
    valid[1, :9, :30] = False
    x = np.where(valid[:, None], scale * x, 0).astype(np.float32)
    read = lambda tile: (x[..., tile.rows, tile.columns], valid[..., tile.rows, tile.columns])  # noqa: E731
    return Site("here", SHAPE, np.array([0.0, 365.0]), ("a", "b"), read)


def frames(one, tile=None):
    frame = measure_change_frame(one, measure_site(one, PairSettings(coregister=False)), low_frequency_px=21)
    return frame, read_frames(one, frame, tile or Box.whole((SHAPE[0], SHAPE[1])))


def test_a_plane_is_slow_and_a_point_is_not():
    rows, columns = np.mgrid[:50, :60].astype(np.float32)
    x = (3 * rows - 2 * columns + 5)[None, None]
    x[0, 0, 25, 30] += 100
    quick = without_low_frequency(x, np.ones((1, 50, 60), bool), 11)[0, 0]
    assert quick[25, 30] == pytest.approx(100 * (1 - 1 / 121), rel=1e-4)
    assert np.abs(quick[25 + 6 : -5, 5:-5]).max() < 1e-3


def test_what_was_not_seen_has_no_say_and_is_zero():
    x = np.ones((1, 1, 20, 20), np.float32)
    valid = np.ones((1, 20, 20), bool)
    valid[0, 5:15, 5:15] = False
    x[0, 0, 5:15, 5:15] = 1e6
    assert (np.abs(without_low_frequency(x, valid, 7)) < 1e-6).all()


def test_haze_goes_and_the_square_stays_in_units_of_the_site():
    _, (x, valid) = frames(site())
    difference = np.where(valid.all(0), x[1] - x[0], 0)
    assert difference[:, valid.all(0)].std(axis=1) == pytest.approx(1, abs=1e-3)
    assert np.abs(difference[:, 30:60, 10:20].mean()) < 0.1
    assert difference[:, 40:48, 50:58].mean() > 2


def test_the_unit_of_the_files_does_not_matter():
    (_, (x, _)), (_, (other, _)) = frames(site()), frames(site(scale=1e4))
    np.testing.assert_allclose(x, other, atol=1e-4)


def test_tiles_are_the_whole():
    one = site()
    frame, (whole, valid) = frames(one)
    for tile in Box.whole(SHAPE).cut(37):
        x, seen = read_frames(one, frame, tile)
        np.testing.assert_allclose(x, whole[..., tile.rows, tile.columns], atol=1e-5)
        np.testing.assert_array_equal(seen, valid[..., tile.rows, tile.columns])


def test_a_site_comes_back_from_disk(tmp_path):
    one = site()
    frame, (x, valid) = frames(one)
    label = np.zeros(SHAPE, np.uint8)
    label[3, 4] = 1
    written = write_site(one, frame, label, tmp_path / "here", {"snapshot": "s1"})
    opened, back = open_site(tmp_path / "here")
    for found in (written, opened):
        np.testing.assert_allclose(found.x_TCHW, x, atol=1e-6)
        np.testing.assert_array_equal(found.valid_THW, valid)
        np.testing.assert_array_equal(found.label_HW, label)
        assert found.elapsed_T.tolist() == [0, 365]
    assert about_site(tmp_path / "here") == {"snapshot": "s1"}
    assert about_site(tmp_path / "nowhere") is None
    np.testing.assert_array_equal(back.spread_C, frame.spread_C)
    assert back.low_frequency_px == 21
    np.testing.assert_array_equal(back.pair.mean_TC, frame.pair.mean_TC)
    assert (back.pair.notes, back.pair.warnings) == (frame.pair.notes, frame.pair.warnings)
    assert [p.name for p in tmp_path.iterdir()] == ["here"]
    (tmp_path / "here" / "x.npy").write_bytes(b"cut")
    with pytest.raises(ArtefactDamaged, match=r"the decoded site cannot be read.*delete it and run"):
        open_site(tmp_path / "here")


def test_a_band_that_does_not_differ_is_no_division_by_zero():
    image_HW = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    twice_TCHW, seen_THW = np.stack([image_HW, image_HW])[:, None], np.ones((2, 30, 30), bool)
    still = Site(
        "still",
        (30, 30),
        np.array([0.0, 1.0]),
        ("a",),
        lambda tile: (twice_TCHW[..., tile.rows, tile.columns], seen_THW[:, tile.rows, tile.columns]),
    )
    frame = measure_change_frame(still, measure_site(still, PairSettings(coregister=False)))
    assert frame.spread_C.tolist() == [1.0]
    first_CHW, last_CHW = read_frames(still, frame, Box.whole((30, 30)))[0]
    assert np.isfinite(first_CHW).all()
    np.testing.assert_array_equal(first_CHW, last_CHW)
