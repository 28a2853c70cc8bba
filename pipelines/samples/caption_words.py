"""Sentences as words, the vocabulary of a network, and the slots of a sentence: what it says of each thing that is asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

END, UNKNOWN = "<end>", "<unknown>"  # the first two words of every vocabulary
BOUNDARY = 0  # number of the word that begins and ends a sentence
CLOSING = ".,;:!?%)"
Slots = Mapping[str, Sequence[str]]  # name -> phrases, of which a sentence says at most one


def words_of(sentence: str) -> tuple[str, ...]:
    """Words in lower case; a mark of punctuation is a word.

    >>> words_of("The digit three moves, slowly.")
    ('the', 'digit', 'three', 'moves', ',', 'slowly', '.')
    """
    return tuple(re.findall(r"\w+(?:[.'-]\w+)*|[^\w\s]", sentence.lower()))


def sentence_of(words: Iterable[str]) -> str:
    """The words as a text.

    >>> sentence_of(("moves", ",", "slowly", "."))
    'moves, slowly.'
    """
    text = ""
    for word in words:
        text += word if not text or word in CLOSING or text.endswith("(") else f" {word}"
    return text


def vocabulary_of(sentences: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """END, UNKNOWN, then every word, sorted."""
    return END, UNKNOWN, *sorted({word for words in sentences for word in words})


def frequent(sentences: Iterable[Sequence[str]], vocabulary: Sequence[str], least: int) -> np.ndarray:
    """known_K: which words of the vocabulary stand at least `least` times in the sentences; END and UNKNOWN are always known."""
    counts = Counter(word for words in sentences for word in words)
    return np.array([word in (END, UNKNOWN) or counts[word] >= least for word in vocabulary])


def encode(sentences: Sequence[Sequence[str]], vocabulary: Sequence[str], longest: int) -> np.ndarray:
    """words_NL int64, L = `longest` + 1: numbers of the words, then the boundary. Longer sentences are cut and have no end."""
    number = {word: k for k, word in enumerate(vocabulary)}
    words_NL = np.full((len(sentences), longest + 1), BOUNDARY, np.int64)
    for n, words in enumerate(sentences):
        kept = [number.get(word, number[UNKNOWN]) for word in words[: longest + 1]]
        words_NL[n, : len(kept)] = kept
    return words_NL


def spoken(words_NL: np.ndarray) -> np.ndarray:
    """Which places (N, L) belong to a sentence: its words and the first boundary."""
    is_end_NL = words_NL == BOUNDARY
    is_spoken_NL: np.ndarray = np.cumsum(is_end_NL, axis=-1) - is_end_NL == 0
    return is_spoken_NL


def decode(words_L: Sequence[int], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """The words up to the first boundary."""
    found = []
    for number in words_L:
        if number == BOUNDARY:
            break
        found.append(vocabulary[number])
    return tuple(found)


def slots_of(words: Sequence[str], slots: Slots) -> dict[str, str]:
    """slot -> the longest of its phrases that stands in the sentence as whole words; "" where none does.

    >>> slots_of(words_of("moves up and to the left"), {"way": ["up", "up and to the left", "to the left"], "speed": ["fast"]})
    {'way': 'up and to the left', 'speed': ''}
    """
    text = f" {' '.join(words)} "
    return {
        name: max((one for one in phrases if f" {' '.join(words_of(one))} " in text), key=len, default="")
        for name, phrases in slots.items()
    }
