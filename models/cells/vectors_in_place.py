"""Layers of vectors without gradients, step by step: for plain RNN and GRU faster than PyTorch's layers on a CPU.

Input and state of a layer share one buffer, so a step is one matrix product and pointwise work in place. The product is oneDNN's,
on the AMD processor of docs/benchmarks.md twice as fast as that of MKL, which PyTorch takes. tanh(a) = 2 sigmoid(2 a) - 1 as in
`models.cells.in_place`. LSTMs are not here: PyTorch gives the whole layer to oneDNN, which is faster still.

Equations and shapes as in `models.cells.vector_recurrence`; a GRU's product is r, z, 2 n of the input, 2 n of the state.
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
        gates = torch.cat([W_GE, U_GD], dim=1)
        n_x, n_h = gates[2 * hidden :].clone(), gates[2 * hidden :].clone()
        n_x[:, inputs:], n_h[:, :inputs] = 0, 0
        self.weight = torch.cat([gates[: 2 * hidden], 2 * n_x, 2 * n_h])
        self.bias = torch.cat([(b_G + d_G)[: 2 * hidden], 2 * b_G[2 * hidden :], 2 * d_G[2 * hidden :]])

    def step(self, x_BE: Tensor, seen_B1: Tensor | None) -> None:
        self.x_BE.copy_(x_BE)
        gates_BG = product(self.xh_BE, self.weight, self.bias)
        if self.is_gru:
            r, z, n, n_h = gates_BG.chunk(4, dim=1)
            gates_BG[:, : 2 * r.shape[1]].sigmoid_()
            new_BD = n.addcmul_(r, n_h).sigmoid_().mul_(2).sub_(1)  # tanh
            new_BD.lerp_(self.h_BD, z)  # (1 - z) n + z h
        else:
            new_BD = gates_BG.sigmoid_().mul_(2).sub_(1)
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
