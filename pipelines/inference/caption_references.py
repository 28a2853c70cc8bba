"""References of sentences, on the folds of the model: sentences that others have, and templates filled by classifiers.

Shapes: P tested samples, F features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from pipelines.inference.sample_references import Features, RowReference, commonest, features_of, held_out_rows
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.caption_words import Slots, slots_of
from pipelines.samples.captioned_samples import CaptionClasses, CaptionedSamples

Sentences = list[tuple[str, ...]]
Answer = Callable[[CaptionClasses, str], np.ndarray]  # of samples with classes, the slot's name: class of the tested ones


def commonest_caption(samples: CaptionedSamples) -> Sentences:
    """The commonest sentence of the samples that are learnt from."""
    texts = [" ".join(words) for words in samples.words_P]
    classes = samples.as_classes(texts)
    return [tuple(classes.outputs[k].split(" ")) for k in commonest(classes).class_P]


def row_captions(
    samples: CaptionedSamples, compute: Features, build: Callable[[], RowReference], most: int, seed: int,
    progress: Progress = ignore_progress,
) -> Sentences:  # fmt: skip
    """The sentence that a model of rows of features chooses among those that are learnt from."""
    classes = samples.as_classes([" ".join(words) for words in samples.words_P])
    class_P = held_out_rows(classes, features_of(samples, compute), build, most, seed, progress)
    return [tuple(classes.outputs[k].split(" ")) for k in class_P]


def filled_templates(samples: CaptionedSamples, slots: Slots, answer: Answer) -> Sentences:
    """The sentences with what a classifier says of each slot: of those learnt from the commonest that says so, or else the
    commonest of all.
    """
    tested_P, known = samples.tested_P, [slots_of(words, slots) for words in samples.words_P]
    said: list[Mapping[str, str]] = [{} for _ in tested_P]
    for name in slots:
        classes = samples.as_classes([one[name] for one in known])
        class_P = answer(classes, name) if len(classes.outputs) > 1 else np.zeros(len(tested_P), np.int64)
        said = [{**one, name: classes.outputs[k]} for one, k in zip(said, class_P, strict=True)]
    found: Sentences = [()] * len(tested_P)
    for fold in range(samples.folds):
        learnt = np.flatnonzero(samples.fold_P != fold).tolist()
        of_slots: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
        for p in learnt:
            of_slots.setdefault(tuple(known[p].values()), Counter())[samples.words_P[p]] += 1
        most_common = _commonest(Counter(samples.words_P[p] for p in learnt))
        for at in np.flatnonzero(samples.fold_P[tested_P] == fold).tolist():
            own = of_slots.get(tuple(said[at].values()))
            found[at] = _commonest(own) if own else most_common
    return found


def _commonest(counts: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """The first in the alphabet of several that are as common."""
    return min(counts, key=lambda words: (-counts[words], words))


class Nearest:
    """The answer of the nearest row (Euclidean distance of features in standard deviations)."""

    def fit(self, features_PF: np.ndarray, answer_P: np.ndarray) -> Nearest:
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler

        self.scale = StandardScaler()
        self.rows = NearestNeighbors(n_neighbors=1).fit(self.scale.fit_transform(features_PF))
        self.answer_P = answer_P
        return self

    def predict(self, features_PF: np.ndarray) -> np.ndarray:
        nearest_P: np.ndarray = self.rows.kneighbors(self.scale.transform(features_PF), return_distance=False)[:, 0]
        said: np.ndarray = self.answer_P[nearest_P]
        return said


def slot_rows(features_PF: np.ndarray, build: Callable[[int], RowReference], most: int, seed: int) -> Answer:
    """An `Answer` by models of rows of features; `build` takes the number of classes."""

    def answer(classes: CaptionClasses, name: str) -> np.ndarray:
        return held_out_rows(classes, features_PF, lambda: build(len(classes.outputs)), most, seed)

    return answer
