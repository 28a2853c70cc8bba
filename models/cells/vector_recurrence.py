"""Recurrent layers over vectors (plain RNN, LSTM, GRU), stacked and bidirectional; masked steps hold the state.

Equations (`o` elementwise; Elman 1990; Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014,
arXiv:1406.1078, with the reset gate after the product, as in cuDNN and Keras):

    rnn   h' = tanh(W_xh x + W_hh h + b)
    lstm  i, f, o = sigmoid(W x + U h + b);  g = tanh(W_g x + U_g h + b_g);  c' = f o c + i o g;  h' = o o tanh(c')
    gru   r, z = sigmoid(W x + U h + b);  n = tanh(W_n x + b_n + r o (U_n h + d_n));  h' = (1 - z) o n + z o h

A masked step changes nothing, so the layers run over the valid steps alone, moved together, and their outputs are put back where
they belong: the same numbers as step by step with a mask, by PyTorch's fast layers, wherever the gaps are.

Without gradients `ROWS` samples at a time go through all layers, so only the outputs of the last one are in memory for the whole
batch; RNN and GRU then run step by step on a CPU, see `models.cells.vectors_in_place`.

Shapes: B batch, T steps, E inputs, D hidden, O outputs (D, or 2 D if bidirectional: onward, then backward), L layers.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.cells.vectors_in_place import read_in_place

LAYERS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
ROWS = 256  # samples at once without gradients
VectorState = tuple[Tensor, ...]  # (h_LBD,), of an LSTM (h_LBD, c_LBD)


class VectorRecurrence(nn.Module):
    """`kind`: rnn, lstm or gru. Dropout is between the layers. The forget gate's bias starts at 1 (Jozefowicz et al. 2015)."""

    def __init__(
        self, kind: str, inputs: int, hidden: int, layers: int = 1, *, bidirectional: bool = False, dropout: float = 0.0
    ):
        super().__init__()
        if kind not in LAYERS:
            raise ValueError(f"expected one of {', '.join(LAYERS)}, got the recurrent layer {kind!r}")
        self.kind, self.hidden, self.bidirectional = kind, hidden, bidirectional
        between = dropout if layers > 1 else 0.0
        self.layers = LAYERS[kind](inputs, hidden, layers, batch_first=True, bidirectional=bidirectional, dropout=between)
        for name, parameter in self.layers.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
                if kind == "lstm" and name.startswith("bias_ih"):
                    nn.init.ones_(parameter[hidden : 2 * hidden])

    @property
    def outputs(self) -> int:
        return self.hidden * (2 if self.bidirectional else 1)

    def flops(self, steps: int) -> int:
        """Operations for one sample with `steps` valid steps."""
        return 2 * steps * sum(p.numel() for name, p in self.layers.named_parameters() if name.startswith("weight"))

    def forward(
        self, x_BTE: Tensor, valid_BT: Tensor | None = None, state: VectorState | None = None
    ) -> tuple[Tensor, Tensor, VectorState]:
        """(h_BTO of the last layer after every step, last_BO after the last valid one, state of all layers).

        `valid_BT` is bool, None: all. With `state`, of an earlier call, a sequence can be read in parts; what is bidirectional
        needs the whole: ValueError.
        """
        if self.bidirectional and state is not None:
            raise ValueError("a bidirectional layer reads the whole sequence at once: it takes no state of an earlier part")
        before = self.initial_state(x_BTE) if state is None else state
        is_whole = valid_BT is None or bool(valid_BT.all())
        each_BTO, after = self._each(x_BTE, None if is_whole else valid_BT, before)
        onward_BD, backward_BD = each_BTO[:, -1, : self.hidden], each_BTO[:, 0, self.hidden :]
        return each_BTO, torch.cat([onward_BD, backward_BD], dim=1), after

    def _each(self, x_BTE: Tensor, valid_BT: Tensor | None, before: VectorState) -> tuple[Tensor, VectorState]:
        """(outputs of every step, state after the last)."""
        if torch.is_grad_enabled():
            return self._run(x_BTE, before) if valid_BT is None else self._run_valid(x_BTE, valid_BT, before)
        each_BTO = x_BTE.new_empty(*x_BTE.shape[:2], self.outputs)
        after = tuple(torch.empty_like(one) for one in before)
        for start in range(0, len(x_BTE), ROWS):
            rows = slice(start, start + ROWS)
            valid = None if valid_BT is None else valid_BT[rows]
            each_BTO[rows], ran = self._without_gradients(x_BTE[rows], valid, tuple(one[:, rows] for one in before))
            for into, one in zip(after, ran, strict=True):
                into[:, rows] = one
        return each_BTO, after

    def _without_gradients(self, x_BTE: Tensor, valid_BT: Tensor | None, before: VectorState) -> tuple[Tensor, VectorState]:
        has_dropout = self.training and self.layers.dropout > 0
        if x_BTE.device.type == "cpu" and not isinstance(self.layers, nn.LSTM) and not has_dropout:
            each_BTO, after_LBD = read_in_place(self.layers, x_BTE, valid_BT, before[0])
            return each_BTO, (after_LBD,)
        if valid_BT is None:
            return self._run(x_BTE, tuple(one.contiguous() for one in before))
        return self._run_valid(x_BTE, valid_BT, before)

    def initial_state(self, x_BTE: Tensor) -> VectorState:
        shape = (self.layers.num_layers * (2 if self.bidirectional else 1), len(x_BTE), self.hidden)
        return tuple(x_BTE.new_zeros(shape) for _ in range(2 if self.kind == "lstm" else 1))

    def _run(self, x: Tensor, before: VectorState) -> tuple[Tensor, VectorState]:
        each, after = self.layers(x, before if self.kind == "lstm" else before[0])
        return each, tuple(after) if self.kind == "lstm" else (after,)

    def _run_valid(self, x_BTE: Tensor, valid_BT: Tensor, before: VectorState) -> tuple[Tensor, VectorState]:
        steps, seen_BT = x_BTE.shape[1], valid_BT.long()
        count_B = seen_BT.sum(1)
        order_BT = torch.argsort(1 - seen_BT, dim=1, stable=True)  # valid steps first, in their order
        packed = pack_padded_sequence(
            x_BTE.gather(1, order_BT[..., None].expand_as(x_BTE)), count_B.clamp(min=1).cpu(), batch_first=True,
            enforce_sorted=False,
        )  # fmt: skip
        each, ran = self._run(packed, before)  # type: ignore[arg-type]
        is_seen_B1 = (count_B > 0)[:, None]
        after = tuple(torch.where(is_seen_B1, new, old) for new, old in zip(ran, before, strict=True))
        together_BTO, _ = pad_packed_sequence(each, batch_first=True, total_length=steps)  # type: ignore[arg-type]
        onward_BTD, backward_BTD = together_BTO[..., : self.hidden], together_BTO[..., self.hidden :]
        read_BT = seen_BT.cumsum(1)  # valid steps up to here, this one included
        held_BTD = _at(torch.cat([before[0][-1][:, None], onward_BTD], dim=1), read_BT)
        if not self.bidirectional:
            return held_BTD, after
        next_BT = read_BT - seen_BT
        next_BT = torch.where(next_BT < count_B[:, None], next_BT, steps)  # no valid step from here on: a state of zeros
        ahead_BTD = _at(nn.functional.pad(backward_BTD, (0, 0, 0, 1)), next_BT)
        return torch.cat([held_BTD, ahead_BTD], dim=-1), after


def _at(values_BSD: Tensor, index_BT: Tensor) -> Tensor:
    return values_BSD.gather(1, index_BT[..., None].expand(-1, -1, values_BSD.shape[-1]))
