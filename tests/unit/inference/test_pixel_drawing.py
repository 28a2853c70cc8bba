"""Images drawn pixel by pixel: as probable as the whole image says, as often as that; what is given stays."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from models.baselines.pixel_references import BernoulliMixture, IndependentPixels, LogisticPixels
from models.pixel_model import PixelModel, build_pixel_model
from pipelines.inference.pixel_drawing import draw_images, nearest_images, score_images

KINDS = ("masked_row_lstm", "pixel_rnn")


def model_of(kind: str, height: int, width: int) -> PixelModel:
    torch.manual_seed(0)
    model = build_pixel_model({"kind": kind, "height": height, "width": width, "hidden": 5}, 0)
    nn.init.normal_(model.network.head.weight, std=2.0)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_image_is_as_probable_as_the_whole_image_is(kind: str) -> None:
    model = model_of(kind, 6, 7)
    x_BHW, nats_B = draw_images(model, np.zeros((5, 6, 7), np.uint8), 0, seed=3)
    assert 0 < x_BHW.mean() < 1
    np.testing.assert_allclose(nats_B, score_images(model, x_BHW), rtol=1e-5)
    again_BHW, _ = draw_images(model, np.ones((5, 6, 7), np.uint8), 0, seed=3)
    assert again_BHW.tobytes() == x_BHW.tobytes()
    assert draw_images(model, x_BHW, 0, seed=4)[0].tobytes() != x_BHW.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_keeps_what_is_given_and_does_not_read_the_rest(kind: str) -> None:
    model, given_BHW = model_of(kind, 6, 7), np.random.default_rng(0).integers(0, 2, (4, 6, 7)).astype(np.uint8)
    other_BHW = given_BHW.copy()
    other_BHW[:, 3:] = 1 - other_BHW[:, 3:]
    first_BHW, nats_B = draw_images(model, given_BHW, 3, seed=1)
    assert np.array_equal(first_BHW[:, :3], given_BHW[:, :3])
    assert first_BHW.tobytes() == draw_images(model, other_BHW, 3, seed=1)[0].tobytes()
    upper_B = score_images(model, first_BHW) - nats_B  # log p(x) = log p(upper) + log p(lower | upper)
    np.testing.assert_allclose(upper_B, score_images(model, other_BHW) - lower_nats(model, other_BHW, 3), rtol=1e-4)


def lower_nats(model: PixelModel, x_BHW: np.ndarray, rows: int) -> np.ndarray:
    """Of the rows from `rows` on, given those above, from the logits of whole images."""
    x = torch.from_numpy(x_BHW.astype(np.float32))
    with torch.no_grad():
        logit = model.compute_member(0, {"x_HW": x}).double()
    nats: np.ndarray = nn.functional.softplus(torch.where(x == 1, -logit, logit))[:, rows:].sum(dim=(1, 2)).numpy()
    return nats


def test_images_are_drawn_as_often_as_their_probability_says() -> None:
    model, draws = model_of("pixel_rnn", 2, 2), 4000
    x_BHW, _ = draw_images(model, np.zeros((draws, 2, 2), np.uint8), 0, seed=0)
    every = np.array(list(product((0, 1), repeat=4)), np.uint8).reshape(-1, 2, 2)
    expected = np.exp(-score_images(model, every))
    found = np.bincount((x_BHW.reshape(draws, 4) * [8, 4, 2, 1]).sum(axis=1), minlength=16) / draws
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / draws)


@pytest.mark.parametrize("reference", [IndependentPixels(), BernoulliMixture(3), LogisticPixels(most_steps=6)])
def test_references_are_probabilities_of_images_too(reference: IndependentPixels | BernoulliMixture | LogisticPixels) -> None:
    rng = np.random.default_rng(0)
    x_PHW = (rng.random((400, 3, 3)) < rng.choice([0.1, 0.8], (400, 1, 1))).astype(np.uint8)
    every = np.array(list(product((0, 1), repeat=9)), np.uint8).reshape(-1, 3, 3)
    fitted = reference.fit(x_PHW[:300], x_PHW[300:])
    assert np.exp(-fitted.nats(every)).sum() == pytest.approx(1, abs=1e-4)


def test_a_mixture_finds_two_kinds_of_images_and_independent_pixels_do_not() -> None:
    rng = np.random.default_rng(0)
    x_PHW = (rng.random((2000, 4, 5)) < rng.choice([0.1, 0.9], (2000, 1, 1))).astype(np.uint8)
    split = x_PHW[:1500], x_PHW[1500:]
    entropy = np.log(2) + 20 * -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))  # which kind is known from 20 pixels
    assert BernoulliMixture(2).fit(*split).nats(x_PHW[1500:]).mean() == pytest.approx(entropy, abs=0.4)
    assert IndependentPixels().fit(*split).nats(x_PHW[1500:]).mean() == pytest.approx(20 * np.log(2), abs=0.4)


def test_logistic_regression_finds_that_a_pixel_is_like_the_one_above() -> None:
    rng = np.random.default_rng(0)
    changes = rng.random((2500, 3, 4)) < np.array([0.5, 0.1, 0.1])[:, None]
    x_PHW = np.logical_xor.accumulate(changes, axis=1).astype(np.uint8)
    entropy = 4 * np.log(2) - 8 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    fitted = LogisticPixels(learning_rate=0.03).fit(x_PHW[:1200], x_PHW[1200:1500])
    assert fitted.nats(x_PHW[1500:]).mean() == pytest.approx(entropy, abs=0.25)


def test_the_nearest_training_image_of_a_copy_is_its_original() -> None:
    among = np.random.default_rng(0).integers(0, 2, (9000, 4, 5)).astype(np.uint8)
    copy = among[[3, 8500]].copy()
    copy[1, 0, 0] ^= 1
    number, apart = nearest_images(copy, among)
    assert apart.tolist()[0] == 0
    assert [int((among[n] != x).sum()) for n, x in zip(number, copy, strict=True)] == apart.tolist()
