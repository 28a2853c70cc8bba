from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.baselines.change_indices import ChangeVector
from models.change_detector import ChangeDetector, build_network
from pipelines.change.site_scores import score_file, score_site
from pipelines.errors import RequestError, StateError
from pipelines.samples.decoded_sites import LabelledSite

SHAPE = 331, 290


def series():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, *SHAPE)).astype(np.float32)
    valid = rng.random((2, *SHAPE)) > 0.05
    valid[0, 200:, 200:] = False
    return np.where(valid[:, None], x, 0).astype(np.float32), valid


def site_of(x, valid):
    return LabelledSite("here", x, valid, 30.0 * np.arange(len(x)), np.zeros(x.shape[-2:], np.uint8))


class Reach:
    """What is asked of a model beside its scores."""

    stride_px = 1, 1

    def __init__(self, halo_px):
        self.halo_px = lambda steps: halo_px


def score_all(score, model, tile_px):
    x, valid = series()
    out = np.zeros(SHAPE, np.float32)
    score_site(site_of(x, valid), SimpleNamespace(score=score, model=model), tile_px, out)
    return out, valid


@pytest.mark.parametrize("kind", ["siamese_dcrn", "fc_siam_conc"])
def test_a_network_on_tiles_is_the_network_on_the_whole(kind):
    detector = ChangeDetector([build_network(kind, bands=2, widths=(3, 4, 5), seed=1)]).eval()
    score = partial(detector.member_logit, 0)
    tiled, valid = score_all(score, detector, 100)
    whole, _ = score_all(score, detector, 1000)
    np.testing.assert_array_equal(np.isnan(tiled), ~valid.all(0))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert np.nanstd(whole) > 1e-3  # it says something


def test_a_rule_on_tiles_is_the_rule_on_the_whole():
    index = ChangeVector()
    score = lambda x, valid, _days: index.score(x, valid)  # noqa: E731
    tiled, _ = score_all(score, index, 64)
    whole, _ = score_all(score, index, 1000)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_score_that_needs_the_whole_is_not_cut():
    score = lambda x, valid, _days: torch.full(x.shape[-2:], float(x.mean()))  # noqa: E731
    whole, valid = score_all(score, Reach(None), 331)
    assert len(np.unique(whole[valid.all(0)])) == 1
    with pytest.raises(RequestError, match=r"needs the whole raster of \(331, 290\) .* prediction.tile_px to at least 331"):
        score_all(score, Reach(None), 330)


def test_a_window_that_no_two_dates_saw_is_not_asked_for():
    asked = []

    def score(x, valid, days):
        asked.append(x.shape)
        return torch.zeros(x.shape[-2:])

    out = np.zeros((20, 20), np.float32)
    unseen = site_of(np.zeros((2, 1, 20, 20), np.float32), np.zeros((2, 20, 20), bool))
    score_site(unseen, SimpleNamespace(score=score, model=Reach((2, 2))), 10, out)
    assert asked == []
    assert np.isnan(out).all()


def test_a_score_of_another_shape_is_said():
    with pytest.raises(StateError, match=r"the score of a window of \(331, 290\) \(y, x\) has shape \(331, 289\)"):
        score_all(lambda x, valid, days: torch.zeros((331, 289)), Reach((2, 2)), 1000)


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
