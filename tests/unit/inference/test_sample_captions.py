"""The temperature of words: what it is of words that were drawn from known probabilities."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from models.baselines.class_references import RandomForest
from pipelines.inference.caption_references import Nearest, filled_templates, row_captions, slot_rows
from pipelines.inference.sample_captions import fit_word_temperature, unsayable
from pipelines.learning.sample_training import parts_of_fold
from pipelines.samples.captioned_samples import CaptionClasses, CaptionedSamples, label_captions
from pipelines.samples.labelled import SplitSettings
from tests.unit.samples.test_labelled import images_of, table_of


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


def captioned(texts: list[str], parts: list[str] | None = None, **split: Any) -> CaptionedSamples:
    table = table_of(texts, [f"g{n}" for n in range(len(texts))], parts)
    return label_captions(table, images_of(len(texts)), SplitSettings(**split), longest=4)


def test_captions_that_cannot_match_are_counted_for_the_networks_that_answer_them() -> None:
    """A word of one sample alone is never known to the networks that do not learn from it, with folds and without."""
    samples = captioned(["a cat", "a dog", "a cat", "a dog", "a yak", "a cat that sits on it"], folds=3)
    samples = replace(samples, fold_P=np.array([0, 0, 1, 1, 2, 2]))
    assert "yak" in samples.outputs
    known = [[samples.fold_P[n] != fold for n in range(6)] for fold in range(3)]
    learnt = [{w for words, has in zip(samples.words_P, one, strict=True) if has for w in words} for one in known]
    members = [SimpleNamespace(known_K=torch.tensor([word in one for word in samples.outputs])) for one in learnt]
    model: Any = SimpleNamespace(members=members, outputs=samples.outputs)
    assert unsayable(samples, model, 9).tolist() == [False, False, False, False, True, True]
    assert unsayable(samples, model, 9, by_all=True).tolist() == [False] * 6
    assert unsayable(samples, model, 4, by_all=True).tolist() == [False] * 5 + [True]


def test_a_slot_of_which_one_phrase_was_learnt_is_constant() -> None:
    samples = captioned(
        [*["goes left"] * 3, "stays left", "goes right", "stays left"], [*["train"] * 4, "test", "test"], test="test"
    )
    features_PF = np.array([[0.0], [0.0], [0.0], [9.0], [0.1], [8.0]])
    slots = {"way": ["left", "right"], "what": ["goes", "stays"]}

    def answer(classes: CaptionClasses, name: str) -> np.ndarray:
        targets = classes.with_targets().arrays.target_NK
        assert np.array_equal(targets.argmax(axis=1), classes.class_P)
        assert len(parts_of_fold(classes, 0).train_P), "networks of a slot are trained all the same"
        return slot_rows(features_PF, lambda count: RandomForest(count) if name == "way" else Nearest(), 100, 0)(classes, name)

    assert filled_templates(samples, slots, answer) == [("goes", "left"), ("stays", "left")]


def test_many_different_captions_need_no_table_of_all_of_them() -> None:
    """The captions of 20,000 samples as columns would be 1.6 GB."""
    samples = captioned([f"a word{n}" for n in range(20_000)], ["train"] * 19_999 + ["test"], test="test")
    assert samples.as_classes([" ".join(words) for words in samples.words_P]).arrays.target_NK.size == 0
    number = itertools.count()
    said = row_captions(samples, lambda x, _: np.array([[float(next(number))] for _ in x]), Nearest, 5000, 0)
    assert said == [samples.words_P[19_998]]
