"""Recurrent layers over the rows of one image, top to bottom: row t is the vector x_t (C W values), the last state the answer.

    h_t = tanh(W_xh x_t + W_hh h_{t-1} + b)

in the plain RNN (Elman 1990); LSTM and GRU as in `models.cells.vector_recurrence`. Images as sequences: Graves & Schmidhuber 2009
(lines of handwriting); Le et al. 2015, arXiv:1504.00941, section 4.2 (digits as sequences). Several frames are refused.

Shapes as in `models.blocks.sequence`; x_B1CHW -> rows_BHE, E = C W -> features_BHD, of which the last is the answer, or
(`per_step`) each is one.
"""

from dataclasses import dataclass

from torch import Tensor

from models.blocks.sequence import RecurrentConfig, SequenceNetwork


@dataclass(frozen=True)
class RowRecurrentConfig(RecurrentConfig):
    """`kind`: row_rnn, row_lstm or row_gru."""

    hidden: int = 128


class RowRecurrent(SequenceNetwork):
    config: RowRecurrentConfig

    def __init__(self, config: RowRecurrentConfig):
        super().__init__(config, config.features)
        self.recurrence = config.recurrence(config.bands * config.width)

    @property
    def steps_within(self) -> int:
        return self.config.height

    def reading_flops(self, steps: int) -> int:
        return self.recurrence.flops(self.config.height)

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        self.require_one_image(x_BTCHW)
        rows_BHE = x_BTCHW[:, 0].transpose(1, 2).flatten(2)
        each_BHD, last_BD, _ = self.recurrence(rows_BHE)
        return each_BHD, last_BD
