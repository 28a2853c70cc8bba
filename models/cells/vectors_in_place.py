"""Layers of vectors without gradients, step by step: for plain RNN and GRU faster than PyTorch's layers on a CPU.

Input and state of a layer share one buffer, so a step is one matrix product (of a GRU two more, for n) and pointwise work in
place. The product is oneDNN's, on the AMD processor of docs/benchmarks.md twice as fast as that of MKL, which PyTorch takes.
tanh(a) = 2 sigmoid(2 a) - 1 as in `models.cells.in_place`. LSTMs are not here: PyTorch gives the whole layer to oneDNN, which is
faster still.

Equations and shapes as in `models.cells.vector_recurrence`.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn


def read_in_place(layers: nn.RNN | nn.GRU, x_BTE: Tensor, valid_BT: Tensor | None, before_LBD: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs of the last layer (B, T, O), state of all layers and directions after the last step, L B D).

    A step that is not valid holds the state.
    """
    directions = 2 if layers.bidirectional else 1
    seen_BT1 = None if valid_BT is None else valid_BT[..., None]
    after_LBD = before_LBD.clone()
    for layer in range(layers.num_layers):
        output_BTO = x_BTE.new_empty(*x_BTE.shape[:2], directions * layers.hidden_size)
        for n, into_BTD in enumerate(output_BTO.chunk(directions, dim=-1)):
            suffix = f"_l{layer}{'_reverse' if n else ''}"
            weights = [getattr(layers, f"{part}{suffix}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            direction = _Direction(isinstance(layers, nn.GRU), weights, x_BTE, after_LBD[layer * directions + n])
            for t in range(x_BTE.shape[1])[:: -1 if n else 1]:
                direction.step(x_BTE[:, t], None if seen_BT1 is None else seen_BT1[:, t])
                into_BTD[:, t] = direction.h_BD
            after_LBD[layer * directions + n] = direction.h_BD
        x_BTE = output_BTO
    return x_BTE, after_LBD


class _Direction:
    """One layer in one direction, and its state."""

    def __init__(self, is_gru: bool, weights: list[Tensor], like_BTE: Tensor, before_BD: Tensor):
        W_GE, U_GD, b_G, d_G = weights
        inputs, hidden = W_GE.shape[1], U_GD.shape[1]
        self.is_gru = is_gru
        self.xh_BE = torch.cat([like_BTE[:, 0], before_BD], dim=1)
        self.x_BE, self.h_BD = self.xh_BE[:, :inputs], self.xh_BE[:, inputs:]
        if not is_gru:
            self.weight, self.bias = 2 * torch.cat([W_GE, U_GD], dim=1), 2 * (b_G + d_G)
            return
        new = slice(2 * hidden, None)  # rows of n
        self.weight, self.bias = torch.cat([W_GE, U_GD], dim=1)[: 2 * hidden], (b_G + d_G)[: 2 * hidden]
        self.of_input, self.of_state = (2 * W_GE[new], 2 * b_G[new]), (2 * U_GD[new], 2 * d_G[new])

    def step(self, x_BE: Tensor, seen_B1: Tensor | None) -> None:
        self.x_BE.copy_(x_BE)
        new_BD = product(self.xh_BE, self.weight, self.bias).sigmoid_()
        if self.is_gru:
            r, z = new_BD.chunk(2, dim=1)
            new_BD = product(x_BE, *self.of_input).addcmul_(r, product(self.h_BD, *self.of_state)).sigmoid_()
        new_BD.mul_(2).sub_(1)  # tanh
        if self.is_gru:
            new_BD.lerp_(self.h_BD, z)  # (1 - z) n + z h
        if seen_B1 is None:
            self.h_BD.copy_(new_BD)
        else:
            torch.where(seen_B1, new_BD, self.h_BD, out=self.h_BD)


def product(x_BE: Tensor, weight_GE: Tensor, bias_G: Tensor) -> Tensor:
    """x W' + b, (B, G)."""
    if x_BE.device.type == "cpu" and x_BE.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(x_BE, weight_GE, bias_G, "none", [], "")
        return multiplied
    return F.linear(x_BE, weight_GE, bias_G)
