"""Sentences that trained networks write about samples: in batches that are kept, so that a killed call goes on.

Shapes: N samples of the store, P some of them, W sentences of each, L words with the end, K words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch

from pipelines.compute import HERE, Compute
from pipelines.inference.sample_batches import BatchWork, Kept, answer_batches, batches_of, save
from pipelines.inference.sample_labels import BATCH_BYTES, SampleModel
from pipelines.learning.caption_metrics import Captions
from pipelines.learning.class_metrics import TEMPERATURES
from pipelines.learning.sample_training import parts_of_fold
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.caption_words import decode
from pipelines.samples.captioned_samples import CaptionedSamples, Writer
from pipelines.samples.sample_windows import SampleArrays

STORED_SAMPLES = 1024  # in a file
EVERY_BYTES = 12  # for each value of a frame: what a network has inside


class Write(Protocol):
    """Writes sentences: (words_BWL, log_p_BW), see `models.captions.write_captions`."""

    def __call__(
        self, model: SampleModel, members: Sequence[int], x_BTCHW: torch.Tensor, valid_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def find_captions(
    model: SampleModel, members: Sequence[int], write: Write, arrays: SampleArrays, index_P: np.ndarray,
    kept: Kept | None = None, progress: Progress = ignore_progress, compute: Compute = HERE,
) -> Captions:  # fmt: skip
    """Of the samples `index_P`, by those members together."""
    batches = [] if kept is None else batches_of(kept, members, index_P, STORED_SAMPLES)
    answer = partial(_find, write=write)
    answer_batches(BatchWork(model, arrays, answer), batches, compute, progress)
    found = []
    for number, start in enumerate(range(0, len(index_P), STORED_SAMPLES)):
        if kept is not None and batches[number].path.is_file():
            found.append(np.load(batches[number].path))
        else:
            found.append(answer(model, members, arrays, index_P[start : start + STORED_SAMPLES]))
            if kept is not None:
                save(batches[number].path, found[-1])
        progress(min(start + STORED_SAMPLES, len(index_P)), len(index_P))
    table_PWX = np.concatenate(found) if found else np.zeros((0, 1, 1))
    words_PW = tuple(tuple(decode(one[:-1].astype(int), model.outputs) for one in rows) for rows in table_PWX)
    return Captions(words_PW, np.exp(table_PWX[..., -1]))


def _find(model: SampleModel, members: Sequence[int], arrays: SampleArrays, index_P: np.ndarray, write: Write) -> np.ndarray:
    """(P, W, L + 1): numbers of the words, and last the log probability."""
    each = max(1, min(256, BATCH_BYTES // max(1, int(np.prod(arrays.image_NTCHW.shape[1:])) * EVERY_BYTES)))
    found = []
    for start in range(0, len(index_P), each):
        rows = index_P[start : start + each]
        valid_PT = torch.from_numpy(np.ascontiguousarray(arrays.valid_NT[rows]))
        words_PWL, log_p_PW = write(model, members, arrays.physical(rows), valid_PT)
        found.append(torch.cat([words_PWL.double(), log_p_PW.double()[..., None]], dim=-1).numpy())
    return np.concatenate(found)


def held_out_captions(
    samples: CaptionedSamples, model: SampleModel, write: Write, kept: Kept | None = None, compute: Compute = HERE,
    progress: Progress = ignore_progress,
) -> Captions:  # fmt: skip
    """Of the tested samples, in their order, by the networks that have not seen their group; all folds are one work."""
    networks, tested_P = samples.split.networks, samples.tested_P
    own_F = [np.flatnonzero(samples.fold_P[tested_P] == fold) for fold in range(samples.folds)]
    members_F = [range(fold * networks, (fold + 1) * networks) for fold in range(samples.folds)]
    if kept is not None:
        asked = [(members, samples.known_P[tested_P[own]]) for members, own in zip(members_F, own_F, strict=True)]
        batches = [batch for members, own_P in asked for batch in batches_of(kept, members, own_P, STORED_SAMPLES)]
        answer_batches(BatchWork(model, samples.arrays, partial(_find, write=write)), batches, compute, progress)
    words: list[tuple[tuple[str, ...], ...]] = [()] * len(tested_P)
    probability_P: list[np.ndarray] = [np.zeros(0)] * len(tested_P)
    for fold, (members, own) in enumerate(zip(members_F, own_F, strict=True)):
        found = find_captions(model, members, write, samples.arrays, samples.known_P[tested_P[own]], kept)
        for k, at in enumerate(own.tolist()):
            words[at], probability_P[at] = found.words_PW[k], found.probability_PW[k]
        progress(fold + 1, samples.folds)
    return Captions(tuple(words), np.stack(probability_P))


def unsayable(samples: CaptionedSamples, model: SampleModel, longest: int, *, by_all: bool = False) -> np.ndarray:
    """Which of the tested samples have a sentence that the networks that answer them cannot write, (P,) bool.

    It has more than `longest` words, or one that none of these networks has learnt. by_all: all networks answer, not those of the
    sample's fold alone.
    """
    tested_P, networks = samples.tested_P, samples.split.networks
    writers: list[Writer] = [model.members[i] for i in range(len(model.members))]  # type: ignore[misc]
    known = [{model.outputs[k] for k in np.flatnonzero(one.known_K.numpy())} for one in writers]
    found = np.zeros(len(tested_P), bool)
    for at, p in enumerate(tested_P.tolist()):
        fold = int(samples.fold_P[p])
        members = known if by_all else known[fold * networks : (fold + 1) * networks]
        words = samples.words_P[p]
        found[at] = len(words) > longest or any(not any(word in one for one in members) for word in words)
    return found


class TaughtModel(SampleModel, Protocol):
    """A model of sentences."""

    def raw(self, i: int, x_BTCHW: torch.Tensor, valid_BT: torch.Tensor, *words_BL: torch.Tensor) -> torch.Tensor: ...


def calibrate_words(
    samples: CaptionedSamples, model: TaughtModel, batch: int, progress: Progress = ignore_progress
) -> tuple[list[float], int]:
    """Sets the temperature of each member: fitted on the words of the sentences that validated it, each given the true words
    before it. Words that the member has not learnt do not count, and are unknown to it where they stand before others.

    Returns the temperatures, and how many words did not count. `batch`: samples at a time.
    """
    temperatures, left_out = list[float](), 0
    for member in range(len(model.members)):
        rows = samples.known_P[parts_of_fold(samples, *divmod(member, samples.split.networks)).validation_P]
        logits, words = [np.zeros((0, len(model.outputs)))], [np.zeros(0, np.int64)]
        for start in range(0, len(rows), batch):
            index_P = rows[start : start + batch]
            target_PL = torch.from_numpy(samples.arrays.target_NK[index_P])
            valid_PT = torch.from_numpy(np.ascontiguousarray(samples.arrays.valid_NT[index_P]))
            with torch.no_grad():
                y_PLK = model.raw(member, samples.arrays.physical(index_P), valid_PT, target_PL).double().numpy()
            is_spoken = samples.arrays.weight_N[index_P] > 0
            logits.append(y_PLK[is_spoken])
            words.append(target_PL.numpy()[is_spoken])
        logit_XK, word_X = np.concatenate(logits), np.concatenate(words)
        is_known_K: np.ndarray = np.asarray(np.isfinite(logit_XK).all(axis=0))
        left_out += int((~is_known_K[word_X]).sum())
        logit_XK, word_X = logit_XK[is_known_K[word_X]][:, is_known_K], word_X[is_known_K[word_X]]
        temperatures.append(fit_word_temperature(logit_XK, np.cumsum(is_known_K)[word_X] - 1))
        model.set_calibration(member, temperatures[-1])
        progress(member + 1, len(model.members))
    return temperatures, left_out


def fit_word_temperature(logit_XK: np.ndarray, word_X: np.ndarray) -> float:
    """The temperature that makes softmax(logit / temperature) of the words most likely (Guo et al. 2017); 1.0 without words.

    As if one more had been seen, as likely of every word: a few words that are all right would make it 0. The smoothing of
    classes (`class_metrics.fit_temperature`) would count as many as there are words in the vocabulary, for each word.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count = len(word_X)
    if not count:
        return 1.0

    def surprise(log_temperature: float) -> float:
        log_p_XK = log_softmax(logit_XK / math.exp(log_temperature), axis=1)
        return float(-(log_p_XK[np.arange(count), word_X].sum() + log_p_XK.mean()))

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return math.exp(float(minimize_scalar(surprise, bounds=(low, high), method="bounded").x))
