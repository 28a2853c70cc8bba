"""Sentences by the networks of a `SequenceModel`, word by word: beam search, and the probability of a given sentence.

Several members write one sentence: at every word the mean of their probabilities counts, each after its temperature (Vinyals et
al. 2015, arXiv:1411.4555, section 4.3.2). The probability of a sentence is the product over its words and its end. The beams are
not normalised by length: what is published is the probability itself.

Shapes: B samples, W beams, N rows (B x W), L words with the end, K words of the vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.networks.caption_lstm import BOUNDARY, UNKNOWN, CaptionLSTM, WordState
from models.sequence_model import SequenceModel


@torch.no_grad()
def write_captions(
    model: SequenceModel, members: Sequence[int], x_BTCHW: Tensor, valid_BT: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """(words_BWL, log_p_BW), the likeliest sentence first; after its end a sentence has the boundary alone. `width` 1: greedy.

    `x_BTCHW` in physical values. The unknown word is never said. A sentence that has not ended after `longest` words is cut.
    Where there are fewer sentences than `width`, the others have the log probability -inf.
    """
    networks, batch = writers(model, members), len(x_BTCHW)
    longest = networks[0].config.longest
    words_BWL = torch.full((batch, width, longest + 1), BOUNDARY)
    log_p_BW = torch.full((batch, width), -torch.inf, dtype=torch.float64)
    log_p_BW[:, 0] = 0.0  # all beams begin alike
    is_done_BW = torch.zeros(batch, width, dtype=torch.bool)
    row_N = torch.arange(batch).repeat_interleave(width)
    states = [one.chosen(row_N) for one in begin(model, members, x_BTCHW, valid_BT)]
    before_N = torch.full((batch * width,), BOUNDARY)
    for place in range(longest):
        log_p_NK, states = next_word(model, members, states, before_N)
        log_p_NK[:, UNKNOWN] = -torch.inf
        log_p_BWK = log_p_NK.unflatten(0, (batch, width))
        log_p_BWK[is_done_BW] = -torch.inf
        log_p_BWK[..., BOUNDARY] = torch.where(is_done_BW, 0.0, log_p_BWK[..., BOUNDARY])  # what has ended stays as it is
        every_BX = (log_p_BW[..., None] + log_p_BWK).flatten(1)
        best_BX, order_BX = every_BX.sort(dim=1, descending=True, stable=True)
        log_p_BW, chosen_BW = best_BX[:, :width], order_BX[:, :width]
        from_BW, word_BW = chosen_BW // len(model.outputs), chosen_BW % len(model.outputs)
        words_BWL = words_BWL.gather(1, from_BW[..., None].expand_as(words_BWL)).clone()
        words_BWL[..., place] = word_BW
        is_done_BW = is_done_BW.gather(1, from_BW) | (word_BW == BOUNDARY)
        if bool(is_done_BW.all()):
            break
        row_N = (from_BW + torch.arange(batch)[:, None] * width).flatten()
        states, before_N = [one.chosen(row_N) for one in states], word_BW.flatten()
    return words_BWL, log_p_BW


@torch.no_grad()
def score_words(model: SequenceModel, members: Sequence[int], x_BTCHW: Tensor, valid_BT: Tensor, words_BL: Tensor) -> Tensor:
    """log_p_BL float64 of each word given those before it, in one pass."""
    before_BL = torch.nn.functional.pad(words_BL[:, :-1].long(), (1, 0), value=BOUNDARY)
    spoken = []
    for i, state in zip(members, begin(model, members, x_BTCHW, valid_BT), strict=True):
        y_BLK, _ = writer(model, i).speak(state, before_BL)
        spoken.append(calibrated(model, i, y_BLK))
    return mean_of(spoken).gather(-1, words_BL[..., None].long())[..., 0]


def begin(model: SequenceModel, members: Sequence[int], x_BTCHW: Tensor, valid_BT: Tensor) -> list[WordState]:
    """The state of each member before the first word."""
    return [writer(model, i).begin(model.standardise(i, x_BTCHW), valid_BT) for i in members]


def next_word(
    model: SequenceModel, members: Sequence[int], states: Sequence[WordState], before_N: Tensor
) -> tuple[Tensor, list[WordState]]:
    """(log_p_NK float64 of the next word, the states after) where `before_N` was said last."""
    spoken, after = [], []
    for i, state in zip(members, states, strict=True):
        y_N1K, state_after = writer(model, i).speak(state, before_N[:, None])
        spoken.append(calibrated(model, i, y_N1K[:, 0]))
        after.append(state_after)
    return mean_of(spoken), after


def calibrated(model: SequenceModel, i: int, y: Tensor) -> Tensor:
    """Log probabilities float64 of member i over the last axis."""
    return torch.log_softmax(y.double() / model.temperature_M[i].double(), dim=-1)


def mean_of(log_p: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean probability."""
    return torch.logsumexp(torch.stack(list(log_p)), dim=0) - torch.log(torch.tensor(float(len(log_p)), dtype=torch.float64))


def writers(model: SequenceModel, members: Sequence[int]) -> list[CaptionLSTM]:
    return [writer(model, i) for i in members]


def writer(model: SequenceModel, i: int) -> CaptionLSTM:
    """Member i. Raises TypeError for a network that writes no sentences."""
    network = model.members[i]
    if not isinstance(network, CaptionLSTM):
        raise TypeError(f"{type(network).__name__} writes no sentences: a model of task: describe is needed")
    return network
