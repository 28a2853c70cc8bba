"""The temperature of words: what it is of words that were drawn from known probabilities."""

import numpy as np
import pytest
from scipy.special import softmax

from pipelines.inference.sample_captions import fit_word_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_words_were_drawn_with_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logit_XK = rng.normal(0, 3, (4000, 40))
    word_X = np.array([rng.choice(40, p=p) for p in softmax(logit_XK / temperature, axis=1)])
    assert fit_word_temperature(logit_XK, word_X) == pytest.approx(temperature, rel=0.06)


def test_a_few_words_that_are_all_right_do_not_make_it_certain() -> None:
    logit_XK = np.eye(6)[np.arange(20) % 6] * 4
    found = fit_word_temperature(logit_XK, np.arange(20) % 6)
    p = softmax(logit_XK / found, axis=1).max(axis=1)
    assert (p > 0.9).all()
    assert (p < 0.999).all()
    assert fit_word_temperature(logit_XK[:0], np.zeros(0, np.int64)) == 1.0
