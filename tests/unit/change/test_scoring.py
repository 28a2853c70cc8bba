import numpy as np
import pytest
import torch

from models.baselines.change_indices import ChangeVector
from models.change_detector import ChangeDetector, build_network
from pipelines.change.scoring import score_file, score_site
from pipelines.errors import RequestError, StateError

SHAPE = 331, 290


def series(dates=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(dates, 2, *SHAPE)).astype(np.float32)
    valid = rng.random((dates, *SHAPE)) > 0.05
    valid[0, 200:, 200:] = False
    return np.where(valid[:, None], x, 0).astype(np.float32), valid


def score_all(score, halo_px, stride_px, tile_px, dates=2):
    x, valid = series(dates)
    out = np.zeros(SHAPE, np.float32)
    read = lambda tile: (x[..., tile.rows, tile.columns], valid[..., tile.rows, tile.columns])  # noqa: E731
    days = 30.0 * np.arange(dates)
    score_site(read, days, SHAPE, score, halo_px=halo_px, stride_px=stride_px, tile_px=tile_px, out_HW=out)
    return out, valid


@pytest.mark.parametrize("kind", ["siamese_dcrn", "fc_siam_conc"])
def test_a_network_on_tiles_is_the_network_on_the_whole(kind):
    detector = ChangeDetector([build_network(kind, bands=2, widths=(3, 4, 5), seed=1)]).eval()

    def score(x, valid, days):
        return detector.member_logit(0, *(torch.from_numpy(np.ascontiguousarray(a)) for a in (x, valid, days))).numpy()

    tiled, valid = score_all(score, detector.halo_px(2), detector.stride_px, 100)
    whole, _ = score_all(score, detector.halo_px(2), detector.stride_px, 1000)
    np.testing.assert_array_equal(np.isnan(tiled), ~valid.all(0))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert np.nanstd(whole) > 1e-3  # it says something


def test_a_rule_on_tiles_is_the_rule_on_the_whole():
    index = ChangeVector()
    score = lambda x, valid, _days: index.score(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (x, valid))).numpy()  # noqa: E731
    tiled, _ = score_all(score, index.halo_px(2), index.stride_px, 64)
    whole, _ = score_all(score, index.halo_px(2), index.stride_px, 1000)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_score_that_needs_the_whole_is_not_cut():
    score = lambda x, valid, _days: np.full(x.shape[-2:], x.mean(), np.float32)  # noqa: E731
    whole, valid = score_all(score, None, (1, 1), 331)
    assert len(np.unique(whole[valid.all(0)])) == 1
    with pytest.raises(RequestError, match=r"needs the whole raster of \(331, 290\) .* prediction.tile_px to at least 331"):
        score_all(score, None, (1, 1), 330)


def test_a_window_that_no_two_dates_saw_is_not_asked_for():
    asked = []

    def score(x, valid, days):
        asked.append(x.shape)
        return np.zeros(x.shape[-2:], np.float32)

    out = np.zeros((20, 20), np.float32)
    read = lambda tile: (np.zeros((2, 1, *tile.shape_yx), np.float32), np.zeros((2, *tile.shape_yx), bool))  # noqa: E731
    score_site(read, np.array([0.0, 1.0]), (20, 20), score, halo_px=(2, 2), stride_px=(1, 1), tile_px=10, out_HW=out)
    assert asked == []
    assert np.isnan(out).all()


def test_a_score_of_another_shape_is_said():
    with pytest.raises(StateError, match=r"the score of a window of \(331, 290\) \(y, x\) has shape \(331, 289\)"):
        score_all(lambda x, valid, days: np.zeros((331, 289)), (2, 2), (1, 1), 1000)


def test_a_file_of_scores_is_made_once_and_whole(tmp_path):
    path, calls = tmp_path / "scores" / "a.npy", []

    def fill(out_HW):
        calls.append(1)
        out_HW[:] = 7

    for _ in range(2):
        assert (score_file(path, (3, 4), fill) == 7).all()
    assert calls == [1]

    def fail(out_HW):
        raise StateError("stopped")

    with pytest.raises(StateError):
        score_file(tmp_path / "b.npy", (3, 4), fail)
    assert not (tmp_path / "b.npy").exists()
