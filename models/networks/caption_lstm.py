"""A sentence about a sequence: CNN encoder and LSTM over the frames, LSTM over words.

Vinyals et al. 2015, "Show and Tell", arXiv:1411.4555, section 3, and for video Venugopalan et al. 2015, "Sequence to Sequence --
Video to Text" (S2VT), arXiv:1505.00487. The vector of the sequence sets the first state of the word LSTM, and stands beside its
output where a word is chosen (Mao et al. 2015, m-RNN, arXiv:1412.6632); with `attention` a mean of the vectors of the valid
frames does, weighted anew for every word (Luong et al. 2015, arXiv:1508.04025, eq. 7, 8, "general").

Word 0 is the boundary: it begins and ends a sentence. Words that the network has not learnt (`known_K`) have the probability 0,
and are read as word 1, the unknown one.

Shapes as in `models.blocks.sequence`; L words, K words of the vocabulary, W beams. x_BTCHW -> each_BTD, last_BD -> y_BLK.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.sequence import FrameEncoder, RecurrentConfig, SequenceNetwork
from models.cells.vector_recurrence import VectorRecurrence, VectorState
from models.contract import layer_flops

BOUNDARY, UNKNOWN = 0, 1  # numbers of the words that every vocabulary begins with


@dataclass(frozen=True)
class CaptionLSTMConfig(RecurrentConfig):
    """`kind`: caption_lstm. `outputs`: words of the vocabulary; `longest`: words of a sentence, without its end."""

    widths: tuple[int, ...] = (16, 32, 64)  # channels of each scale, finest first
    grid: int = 1  # parts of each axis whose means are kept
    embedding: int = 32  # numbers that stand for a word
    word_hidden: int = 64  # units of the LSTM over words
    attention: bool = False  # each word looks at the frames anew
    longest: int = 20


@dataclass(frozen=True)
class WordState:
    """Between two words: state of the word LSTM, and the vectors of the sequence (BD), with attention of its frames (BTD, BT)."""

    words: VectorState
    vector_BD: Tensor
    frames: tuple[Tensor, Tensor] | None = None

    def chosen(self, index_N: Tensor) -> "WordState":
        """The states of these rows, for beams that go on from others."""
        frames = None if self.frames is None else (self.frames[0][index_N], self.frames[1][index_N])
        return WordState(tuple(one[:, index_N] for one in self.words), self.vector_BD[index_N], frames)


class CaptionLSTM(SequenceNetwork):
    config: CaptionLSTMConfig
    known_K: Tensor

    def __init__(self, config: CaptionLSTMConfig):
        super().__init__(config, config.word_hidden + config.features)
        self.encoder = FrameEncoder(config.bands, config.widths, self.frame_shape[1:], config.grid)
        self.recurrence = config.recurrence(self.encoder.outputs)
        self.embedding = nn.Embedding(config.outputs, config.embedding)
        self.start = nn.Linear(config.features, 2 * config.word_hidden)
        self.words = VectorRecurrence("lstm", config.embedding, config.word_hidden)
        self.look = nn.Linear(config.word_hidden, config.features, bias=False) if config.attention else None
        self.register_buffer("known_K", torch.ones(config.outputs, dtype=torch.bool))

    def set_known(self, known_K: Tensor) -> None:
        """Which words it may say (bool); the boundary always. Raises ValueError for another vocabulary."""
        if known_K.shape != self.known_K.shape or known_K.dtype != torch.bool:
            raise ValueError(f"expected a bool for each of {len(self.known_K)} words, got {known_K.dtype} {tuple(known_K.shape)}")
        self.known_K.copy_(known_K)
        self.known_K[BOUNDARY] = True

    def reading_flops(self, steps: int) -> int:
        """With the words of a longest sentence; the head of the last one is counted by `flops`."""
        spoken, features = self.config.longest + 1, self.config.features
        read = steps * self.encoder.flops() + self.recurrence.flops(steps)
        words = self.words.flops(spoken) + layer_flops(self.start, 0, rows=1) + layer_flops(self.head, 0, rows=spoken - 1)
        looked = 0 if self.look is None else layer_flops(self.look, 0, rows=spoken) + 4 * spoken * steps * features
        return read + words + looked

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        each_BTD, last_BD, _ = self.recurrence(self.encoder.each(x_BTCHW), valid_BT)
        return each_BTD, last_BD

    def begin(self, x_BTCHW: Tensor, valid_BT: Tensor) -> WordState:
        """The state before the first word. `x_BTCHW` is standardised. Raises ValueError for other shapes."""
        self.require_shapes(x_BTCHW, valid_BT)
        each_BTD, last_BD = self.read(torch.where(valid_BT[:, :, None, None, None], x_BTCHW, 0), valid_BT)
        h_BD, c_BD = torch.tanh(self.start(self.dropout(last_BD))).chunk(2, dim=-1)
        frames = (each_BTD, valid_BT) if self.look is not None else None
        return WordState((h_BD[None].contiguous(), c_BD[None].contiguous()), last_BD, frames)

    def speak(self, state: WordState, before_BL: Tensor) -> tuple[Tensor, WordState]:
        """(y_BLK, the state after) of the word that follows each of `before_BL`, the first of which follows `state`.

        Words that it has not learnt are read as UNKNOWN, as in training: their embedding is that of before it.
        """
        before_BL = torch.where(self.known_K[before_BL], before_BL, UNKNOWN)
        spoken_BLD, _, after = self.words(self.embedding(before_BL), None, state.words)
        context_BLD = state.vector_BD[:, None].expand(-1, before_BL.shape[1], -1)
        if self.look is not None and state.frames is not None:
            each_BTD, valid_BT = state.frames
            score_BLT = self.look(spoken_BLD) @ each_BTD.transpose(1, 2)
            weight_BLT = torch.softmax(score_BLT.masked_fill(~valid_BT[:, None], -torch.inf), dim=-1)
            context_BLD = weight_BLT @ each_BTD
        y_BLK = self.head(self.dropout(torch.cat([spoken_BLD, context_BLD], dim=-1)))
        return y_BLK.masked_fill(~self.known_K, -torch.inf), WordState(after, state.vector_BD, state.frames)

    def forward(self, x_BTCHW: Tensor, valid_BT: Tensor, words_BL: Tensor | None = None) -> Tensor:
        """y_BLK, logits of each word of `words_BL` (int) given the true words before it; without words y_BK of the first."""
        state = self.begin(x_BTCHW, valid_BT)
        if words_BL is None:
            return self.speak(state, torch.full((len(x_BTCHW), 1), BOUNDARY, device=x_BTCHW.device))[0][:, 0]
        before_BL = torch.nn.functional.pad(words_BL[:, :-1].long(), (1, 0), value=BOUNDARY)
        return self.speak(state, before_BL)[0]
