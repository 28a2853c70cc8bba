"""The ST-LSTM against the ConvLSTM, which it is with a closed memory; there is no independent implementation to install."""

import pytest
import torch
from torch import Tensor

from models.cells.convlstm import ConvLSTMCell
from models.cells.st_lstm import STLSTM, Decoupling, STLSTMCell


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close_memory(cell: STLSTMCell) -> None:
    """The output gate and the output see c alone."""
    hidden = cell.hidden
    with torch.no_grad():
        cell.to_output.weight.zero_()
        cell.mix.weight.zero_()
        cell.mix.weight[:, :hidden] = torch.eye(hidden, dtype=torch.float64)[(..., *[None] * cell.axes)]


@pytest.mark.parametrize("axes", [2, 3])
def test_with_a_closed_memory_it_is_a_conv_lstm(axes):
    torch.manual_seed(0)
    cell, lstm = STLSTMCell(3, 4, 3, axes).double(), ConvLSTMCell(3, 4, 3, axes=axes).double()
    close_memory(cell)
    of_gate = dict(zip("ifgo", (0, 1, 2, 6), strict=True))  # among the products of the input
    with torch.no_grad():
        x_rows = torch.cat([torch.arange(4) + 4 * of_gate[gate] for gate in "ifog"])
        h_rows = torch.cat([torch.arange(4) + 4 * "ifgo".index(gate) for gate in "ifog"])
        lstm.gates.weight.copy_(torch.cat([cell.from_input.weight[x_rows], cell.from_state.weight[h_rows]], dim=1))
        lstm.gates.bias.copy_(cell.from_input.bias[x_rows])
    space = (5, 6, 4)[:axes]
    h, c, m = (noise(2, 4, *space, seed=seed) for seed in (1, 2, 3))
    for step in range(3):
        x, valid = noise(2, 3, *space, seed=step + 4), (noise(2, 1, *space, seed=step + 9) > -0.5).double()
        expected = lstm(x, (h, c), valid_B1HW=valid)
        h, c, m = cell(x, (h, c, m), valid_B1HW=valid)
        torch.testing.assert_close((h, c), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
def test_its_gradient_is_that_of_the_numbers(axes, layer_norm):
    torch.manual_seed(0)
    cell = STLSTMCell(1, 2, 3, axes, layer_norm=layer_norm).double()
    space = (3, 4, 2)[:axes]
    known = [noise(1, 1, *space), *(noise(1, 2, *space, seed=seed) for seed in (1, 2, 3))]
    parameters = dict(cell.named_parameters())

    def stepped(x: Tensor, h: Tensor, c: Tensor, m: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return torch.func.functional_call(cell, dict(zip(parameters, weights, strict=True)), (x, (h, c, m)))

    inputs = (*(one.requires_grad_() for one in known), *parameters.values())
    assert torch.autograd.gradcheck(stepped, inputs, eps=1e-6, atol=1e-6, fast_mode=True)


def test_the_memory_runs_in_zigzag():
    """A change of the top layer's memory reaches the lowest layer at the next step, whose own states are unchanged."""
    torch.manual_seed(0)
    stack = STLSTM(2, (3, 3)).double()
    x = noise(1, 2, 6, 6)
    _, state, _ = stack.step(x)
    *layers, (m,) = state
    other = (*layers, (m + 1,))
    (h_before, _), *_ = stack.step(x, state)[1]
    (h_after, _), *_ = stack.step(x, other)[1]
    assert not torch.equal(h_before, h_after)
    assert torch.equal(stack.step(x, state, valid_B1HW=torch.zeros(1, 1, 6, 6))[1][-1][0], m)


def test_a_step_s_memory_is_that_of_the_last_layer():
    torch.manual_seed(0)
    stack = STLSTM(2, (3, 3)).double()
    x, zeros = noise(1, 2, 6, 6), torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    h, _, m = stack.cells[0](x, (zeros, zeros, zeros))
    expected = stack.cells[1](h, (zeros, zeros, m))
    output, (_, top, memory), _ = stack.step(x)
    torch.testing.assert_close((output, *top, *memory), (expected[0], *expected), atol=0, rtol=0)


def test_layers_of_unequal_width_are_refused():
    with pytest.raises(ValueError, match=r"hand on one memory and need equally many channels, got \[3, 4\]"):
        STLSTM(1, (3, 4))


def test_the_decoupling_loss_is_the_mean_cosine_over_the_pixels():
    loss = Decoupling(2).double().requires_grad_(False)
    with torch.no_grad():
        loss.adapter.weight.copy_(torch.eye(2)[..., None, None])
    one = noise(3, 2, 4, 5)
    assert float(loss((one, -2 * one))) == pytest.approx(1)
    other = one.clone()
    other[..., ::2] *= -1
    cosine = (one * other).sum(dim=(2, 3)) / (one.norm(dim=(2, 3)) * other.norm(dim=(2, 3)))
    assert float(loss((one, other))) == pytest.approx(float(cosine.abs().mean()))
