"""Sentences against known ones, by hand."""

import numpy as np
import pytest

from pipelines.learning.caption_metrics import bleu, describe_captions, is_exact, reliability, right_slots, sure_and_unsure
from pipelines.samples.caption_words import decode, encode, frequent, sentence_of, slots_of, spoken, vocabulary_of, words_of
from pipelines.sources.moving_digits import CAPTION_SLOTS, DIGIT_WORDS, DIRECTION_WORDS, caption_of

SLOTS = {"who": ["cat", "dog"], "way": ["up", "up and left"]}


def test_bleu_is_that_of_the_paper() -> None:
    """Clipped counts 5/6, 3/5, 1/4 and 0/3 -> 0; without the last word's error by hand; a short candidate is penalised."""
    known = words_of("the cat sat on the mat today")
    assert bleu([known], [known]) == pytest.approx(1.0)
    short = words_of("the cat sat on the mat")
    assert bleu([short], [known]) == pytest.approx(np.exp(1 - 7 / 6), abs=1e-6)  # precisions of 1, brevity penalty
    wrong = words_of("the cat sat on a mat today")
    wanted = (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert bleu([wrong], [known]) == pytest.approx(wanted, abs=1e-6)


def test_bleu_of_sentences_below_four_words_counts_the_orders_that_there_are() -> None:
    known = [words_of("a cat sits"), words_of("dogs")]
    assert bleu(known, known) == pytest.approx(1.0)
    said = [words_of("a cat runs"), words_of("dogs")]
    assert bleu(said, known) == 0.0  # no three words in a row
    known[0], said[0] = words_of("a cat"), words_of("the cat")
    assert bleu([*said, known[0]], [*known, known[0]]) == pytest.approx((4 / 5 * 1 / 2) ** 0.5)
    assert bleu([()], [()]) == 0.0


def test_every_sentence_of_a_clip_is_read_back_from_its_slots() -> None:
    for digit, name in enumerate(DIGIT_WORDS):
        for direction, way in enumerate(DIRECTION_WORDS):
            words = words_of(caption_of(digit, direction, is_fast=True))
            assert slots_of(words, CAPTION_SLOTS) == {"digit": name, "direction": way, "speed": "fast"}
            assert words_of(sentence_of(words)) == words


def test_figures_by_hand() -> None:
    known = [words_of(text) for text in ("cat goes up", "dog goes up and left", "it rains", "cat goes up")]
    said = [words_of(text) for text in ("cat goes up", "dog goes up", "it rains", "dog goes up")]
    assert is_exact(said, known).tolist() == [True, False, True, False]
    assert {name: right.tolist() for name, right in right_slots(said, known, SLOTS).items()} == {
        "who": [True, True, False, False], "way": [True, False, False, True],
    }  # fmt: skip
    found = describe_captions(said, known, np.arange(4), SLOTS, 0.95, "groups")
    assert found["exact"]["value"] == 0.5
    assert (found["slots"]["way"]["samples"], found["slots"]["way"]["accuracy"]["value"]) == (3, pytest.approx(2 / 3))
    p, right = np.array([0.95, 0.91, 0.4, 0.2]), np.array([True, False, True, False])
    assert reliability(p, right)["expected_error"] == pytest.approx((0.43 * 2 + 0.6 + 0.2) / 4)
    assert sure_and_unsure(p, right, 0.5) == {
        "least_probability": 0.5, "sure": 2, "unsure": 2, "sure_exact": 0.5, "unsure_exact": 0.5,
    }  # fmt: skip


def test_words_are_numbered_and_read_back() -> None:
    learnt = [words_of("A cat, a dog."), words_of("a cat")]
    words = vocabulary_of(learnt)
    assert words == ("<end>", "<unknown>", ",", ".", "a", "cat", "dog")
    coded = encode([words_of("a bird"), (), words_of("a cat a dog a")], words, 3)
    assert coded.tolist() == [[4, 1, 0, 0], [0, 0, 0, 0], [4, 5, 4, 6]]
    assert spoken(coded).tolist() == [[True, True, True, False], [True, False, False, False], [True] * 4]
    assert decode(coded[0].tolist(), words) == ("a", "<unknown>")
    assert frequent(learnt, words, 2).tolist() == [True, True, False, False, True, True, False]
