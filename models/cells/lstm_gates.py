"""The pointwise half of an LSTM step for training, with its gradient written out: a few passes over memory instead of dozens.

Shapes as in `models.cells.convlstm`; gates in the order i, f, o, g.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 1 << 21  # of gates processed at once on a CPU
tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward


def next_state(gates_BGHW: Tensor, c_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    """(h, c) after a step, from the sums that enter the gates and the cell state before; differentiable once.

        c' = sigmoid(f) o c + sigmoid(i) o tanh(g),    h' = sigmoid(o) o tanh(c')

    >>> h, c = next_state(torch.zeros(1, 4, 1, 1), torch.ones(1, 1, 1, 1))
    >>> c.item()  # half of it is forgotten, nothing comes in
    0.5
    """
    gates_BGHW = gates_BGHW.to(c_BDHW.dtype)  # of mixed precision: the state stays float32
    if torch.compiler.is_compiling():  # the compiler fuses these, and their gradient, by itself
        i, f, o, g = gates_BGHW.chunk(4, dim=1)
        c_new_BDHW = torch.sigmoid(f) * c_BDHW + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_new_BDHW), c_new_BDHW
    h_BDHW, c_new_BDHW = LSTMGates.apply(gates_BGHW, c_BDHW)  # type: ignore[no-untyped-call]
    return h_BDHW, c_new_BDHW


class LSTMGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_BGHW: Tensor, c_BDHW: Tensor) -> tuple[Tensor, Tensor]:
        hidden = c_BDHW.shape[1]
        active_BGHW = torch.empty_like(gates_BGHW)
        h_BDHW, c_new_BDHW, tanh_BDHW = (torch.empty_like(c_BDHW) for _ in range(3))
        for at in row_blocks(gates_BGHW):
            active, c_new, tanh = active_BGHW[at], c_new_BDHW[at], tanh_BDHW[at]
            torch.sigmoid(gates_BGHW[at][:, : 3 * hidden], out=active[:, : 3 * hidden])
            torch.tanh(gates_BGHW[at][:, 3 * hidden :], out=active[:, 3 * hidden :])
            i, f, o, g = active.chunk(4, dim=1)
            torch.mul(i, g, out=tanh)
            torch.mul(f, c_BDHW[at], out=c_new).add_(tanh)
            torch.tanh(c_new, out=tanh)
            torch.mul(o, tanh, out=h_BDHW[at])
        ctx.save_for_backward(active_BGHW, c_BDHW, tanh_BDHW)
        return h_BDHW, c_new_BDHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (active_BGHW, c_BDHW, tanh_BDHW), (of_h_BDHW, of_c_BDHW) = ctx.saved_tensors, gradients
        of_gates_BGHW, before_BDHW = torch.empty_like(active_BGHW), torch.empty_like(c_BDHW)
        for at in row_blocks(active_BGHW):
            (i, f, o, g), tanh, of_h = active_BGHW[at].chunk(4, dim=1), tanh_BDHW[at], of_h_BDHW[at]
            of_i, of_f, of_o, of_g = of_gates_BGHW[at].chunk(4, dim=1)
            of_c = tanh_backward(of_h * o, tanh).add_(of_c_BDHW[at])
            sigmoid_backward(of_h * tanh, o, grad_input=of_o)
            sigmoid_backward(of_c * g, i, grad_input=of_i)
            sigmoid_backward(of_c * c_BDHW[at], f, grad_input=of_f)
            tanh_backward(of_c * i, g, grad_input=of_g)
            torch.mul(of_c, f, out=before_BDHW[at])
        return of_gates_BGHW, before_BDHW


def row_blocks(gates_BGHW: Tensor) -> Iterator[tuple[slice, ...]]:
    """Parts of the first axis of space; on a CPU of at most `BLOCK_BYTES` of the gates, where a row is that small."""
    rows = gates_BGHW.shape[2]
    step = rows
    if gates_BGHW.device.type == "cpu":
        step = max(int(BLOCK_BYTES * rows / (gates_BGHW.numel() * gates_BGHW.element_size())), 1)
    return ((slice(None), slice(None), slice(start, start + step)) for start in range(0, rows, step))
