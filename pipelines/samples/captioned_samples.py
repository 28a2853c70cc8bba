"""Samples with a sentence each, and how training shows them.

Shapes: N samples of the store, P of them with a sentence, L words with the end, K words of the vocabulary or classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.samples.caption_words import BOUNDARY, UNKNOWN, encode, frequent, spoken, vocabulary_of, words_of
from pipelines.samples.labelled import LabelledSamples, SplitSettings, folds_of
from pipelines.samples.sample_store import SampleTable
from pipelines.samples.sample_windows import SampleArrays
from pipelines.wording import counted


class Writer(Protocol):
    """A network of sentences."""

    known_K: torch.Tensor

    def set_known(self, known_K: torch.Tensor) -> None: ...


class WriterModel(Protocol):
    """A model with one."""

    @property
    def members(self) -> Sequence[torch.nn.Module] | torch.nn.ModuleList: ...


@dataclass(frozen=True)
class CaptionedSamples(LabelledSamples):
    """Samples with sentences: `words_P` as words; `outputs` is the vocabulary of all samples that some network may learn from.

    `arrays.target_NK` holds numbers of words (N, L), `weight_N` (N, L) is 1 for words and the end. There is one stratum.
    """

    words_P: tuple[tuple[str, ...], ...] = ()

    @property
    def has_classes(self) -> bool:
        return False

    @property
    def sentence(self) -> str:
        """`2500 samples in 2500 groups with 160 different captions of 24 words`."""
        words = len({word for words in self.words_P for word in words})
        captions = counted(len(set(self.words_P)), "different caption")
        return f"{len(self.known_P)} samples in {self.groups} groups with {captions} of {counted(words, 'word')}"

    def counts(self) -> dict[str, int]:
        return {"captions": len(self.known_P)}

    def as_classes(self, text_P: Sequence[str]) -> CaptionClasses:
        """The same samples and folds with the number of one of several classes each: captions as a whole, or a slot of them.

        There are no targets for a network: `with_targets` has them.
        """
        outputs = tuple(sorted(set(text_P)))
        number = {name: k for k, name in enumerate(outputs)}
        class_P = np.array([number[text] for text in text_P], np.int64)
        arrays = replace(self.arrays, target_NK=np.zeros((0, 0), np.float32), weight_N=np.zeros(0, np.float32))
        return CaptionClasses(
            self.table, arrays, outputs, False, self.known_P, class_P, self.group_P, self.fold_P, self.split, self.dropped
        )


@dataclass(frozen=True)
class CaptionClasses(LabelledSamples):
    """Samples with a phrase each. A fold may leave one phrase alone to learn from: what is learnt there is constant."""

    @property
    def has_classes(self) -> bool:
        return False

    def with_targets(self) -> CaptionClasses:
        """With target_NK, which has a column for every phrase."""
        target_NK = np.zeros((len(self.table), len(self.outputs)), np.float32)
        target_NK[self.known_P, self.class_P] = 1
        return replace(self, arrays=replace(self.arrays, target_NK=target_NK, weight_N=np.ones(len(self.table), np.float32)))


def label_captions(
    table: SampleTable, image: np.ndarray, split: SplitSettings, longest: int, vocabulary: Sequence[str] = ()
) -> CaptionedSamples:
    """Samples with their sentences; `vocabulary`: of a trained model. Raises RequestError where nothing can be learnt.

    No word counts that stands only in samples of the part that tests.
    """
    words_N = [words_of(answer) for answer in table.answer_N]
    known_P = np.flatnonzero([len(words) > 0 for words in words_N])
    words_P = tuple(words_N[n] for n in known_P)
    if len(set(words_P)) < 2:
        raise RequestError(f"at least two different captions are needed, the samples have {len(set(words_P))}; see labels")
    cut = sum(len(words) > longest for words in words_P)
    dropped = Counter({"without a caption": len(table) - len(known_P), f"words after the first {longest}, in captions": cut})
    _, group_P = np.unique(table.group_N[known_P].astype(str), return_inverse=True)
    nothing = SampleArrays(image, table.valid_NT, table.layout.bands, np.zeros((0, 0)), np.zeros(0))
    stratum_P = np.zeros(len(known_P), np.int64)
    samples = CaptionedSamples(
        table, nothing, (), False, known_P, stratum_P, group_P, np.full(len(known_P), -1), split, dropped, words_P=words_P
    )
    fold_P = folds_of(samples)
    learnt = [words for words, fold in zip(words_P, fold_P, strict=True) if split.test is None or fold < 0]
    words = tuple(vocabulary) or vocabulary_of(learnt)
    target_NL = encode(words_N, words, longest)
    arrays = replace(nothing, target_NK=target_NL, weight_N=spoken(target_NL).astype(np.float32))
    return replace(samples, arrays=arrays, outputs=words, fold_P=fold_P)


def begin_with_words(
    samples: CaptionedSamples, least: int, learner: WriterModel, arrays: SampleArrays, part_P: np.ndarray
) -> SampleArrays:
    """Tells a network the words of the sentences it learns from (at least `least` times there); all others become UNKNOWN."""
    known_K = frequent([samples.words_P[p] for p in part_P], samples.outputs, least)
    network: Writer = learner.members[0]  # type: ignore[assignment]
    network.set_known(torch.from_numpy(known_K))
    unknown = samples.outputs.index(UNKNOWN)
    target_NL = np.where(known_K[arrays.target_NK], arrays.target_NK, unknown)
    assert known_K[BOUNDARY], "a sentence can end"
    return replace(arrays, target_NK=target_NL)
