"""How well sentences agree with known ones: exact match, BLEU, and what is said of each slot.

Shapes: P tested samples, W sentences of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.learning.class_metrics import accuracy_of, block_confusions, over_blocks
from pipelines.learning.intervals import Interval, Unit
from pipelines.samples.caption_words import Slots, slots_of

Sentences = Sequence[Sequence[str]]
BINS = 10  # of probabilities


@dataclass(frozen=True)
class Captions:
    """Of each sample the likeliest sentences as words, the likeliest first, and their probabilities."""

    words_PW: tuple[tuple[tuple[str, ...], ...], ...]
    probability_PW: np.ndarray

    @property
    def first_P(self) -> tuple[tuple[str, ...], ...]:
        return tuple(one[0] for one in self.words_PW)

    @property
    def probability_P(self) -> np.ndarray:
        first: np.ndarray = self.probability_PW[:, 0]
        return first


def is_exact(said_P: Sentences, known_P: Sentences) -> np.ndarray:
    """Whether every word is the known one, (P,) bool."""
    return np.array([tuple(said) == tuple(known) for said, known in zip(said_P, known_P, strict=True)], bool)


def bleu_order(known_P: Sentences) -> int:
    """So many words in a row BLEU compares at most: 4, or the words of the longest known sentence where that is shorter.

    The effective order of sacreBLEU (Post 2018, WMT), of the known sentences, so that it is the same for all methods.
    """
    return min(4, max(map(len, known_P), default=0))


def bleu(said_P: Sentences, known_P: Sentences) -> float:
    """BLEU of all sentences together, up to `bleu_order` words, not smoothed, of one known sentence each (Papineni et al. 2002,
    ACL); 0 without sentences.

    >>> bleu([("a", "b", "c", "d")], [("a", "b", "c", "d")]), bleu([("a", "cat")], [("a", "cat")])
    (1.0, 1.0)
    """
    from torchmetrics.functional.text import bleu_score

    order, known = bleu_order(known_P), [[" ".join(words)] for words in known_P]
    return float(bleu_score([" ".join(words) for words in said_P], known, n_gram=order)) if order else 0.0


def right_slots(said_P: Sentences, known_P: Sentences, slots: Slots) -> dict[str, np.ndarray]:
    """slot -> whether the sentence says what the known one says of it; samples whose known sentence says nothing are False."""
    said, known = ([slots_of(words, slots) for words in sentences] for sentences in (said_P, known_P))
    return {
        name: np.array([k[name] != "" and s[name] == k[name] for s, k in zip(said, known, strict=True)], bool) for name in slots
    }


def counts_of(is_right_P: np.ndarray, group_P: np.ndarray) -> np.ndarray:
    """counts_B22 of right (0) and wrong (1) answers of each group, as of classes of which the first is always true."""
    return block_confusions(np.zeros(len(is_right_P), np.int64), (~is_right_P).astype(np.int64), group_P, 2)


def share_right(is_right_P: np.ndarray, group_P: np.ndarray, confidence: float, unit: Unit) -> Interval:
    """The share that is right, with its jackknife interval over groups."""
    return over_blocks(counts_of(is_right_P, group_P), accuracy_of, confidence, unit=unit)


def describe_captions(
    said_P: Sentences, known_P: Sentences, group_P: np.ndarray, slots: Slots, confidence: float, unit: Unit
) -> dict[str, Any]:
    """JSON values: exact match and slots with intervals, BLEU. A slot counts the samples whose known sentence has it."""
    found: dict[str, Any] = {
        "exact": share_right(is_exact(said_P, known_P), group_P, confidence, unit).to_json(),
        "bleu4": bleu(said_P, known_P),
        "bleu_order": bleu_order(known_P),
        "slots": {},
    }
    for name, is_right_P in right_slots(said_P, known_P, slots).items():
        has_P = np.array([slots_of(words, slots)[name] != "" for words in known_P], bool)
        right = share_right(is_right_P[has_P], group_P[has_P], confidence, unit).to_json() if has_P.any() else None
        found["slots"][name] = {"samples": int(has_P.sum()), "accuracy": right}
    return found


def reliability(probability_P: np.ndarray, is_right_P: np.ndarray) -> dict[str, Any]:
    """How often sentences are right against their probability, in bins of `charts.draw_reliability`.

    `expected_error`: mean |claimed - happened| over bins by their samples (Guo et al. 2017, arXiv:1706.04599, eq. 3).
    """
    bin_P = np.minimum((probability_P * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for number in np.unique(bin_P).tolist():
        is_in_P = bin_P == number
        claimed, happened, count = float(probability_P[is_in_P].mean()), float(is_right_P[is_in_P].mean()), int(is_in_P.sum())
        error += abs(claimed - happened) * count / len(bin_P)
        bins.append({"from": number / BINS, "to": (number + 1) / BINS, "pixels": count, "claimed": claimed, "happened": happened})
    return {"bins": bins, "expected_error": error}


def sure_and_unsure(probability_P: np.ndarray, is_right_P: np.ndarray, least: float) -> Mapping[str, Any]:
    """How many sentences have at least the probability `least`, and how many of these and of the others are right."""
    is_sure_P = probability_P >= least
    shares = {
        name: float(is_right_P[chosen_P].mean()) if chosen_P.any() else None
        for name, chosen_P in (("sure_exact", is_sure_P), ("unsure_exact", ~is_sure_P))
    }
    return {"least_probability": least, "sure": int(is_sure_P.sum()), "unsure": int((~is_sure_P).sum()), **shares}
