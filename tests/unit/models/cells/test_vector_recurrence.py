"""Recurrent layers over vectors against their equations, written out in NumPy step by step, with a mask that holds the state."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cells.vector_recurrence import LAYERS, VectorRecurrence

STEPS, INPUTS, HIDDEN = 6, 3, 4
VALID = torch.tensor(  # whole, gaps inside, at the begin, at the end, one step only, none
    [[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0] * 6],
    dtype=torch.bool,
)
every_kind = pytest.mark.parametrize("kind", LAYERS)


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def one_step(kind: str, weights: list[np.ndarray], x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h', c') by the equations in the docstring of models.cells.vector_recurrence; blocks i, f, g, o, or r, z, n."""
    W, U, b, d = weights
    if kind == "rnn":
        return np.tanh(W @ x + b + U @ h + d), c
    if kind == "lstm":
        i, f, g, o = np.split(W @ x + b + U @ h + d, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(W @ x + b, 3), np.split(U @ h + d, 3)
    z = sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h, c


def written_out(network: VectorRecurrence, x_TE: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    """The output after every step of one sample (T, O); a masked step copies the one before."""
    named = {name: values.detach().numpy() for name, values in network.layers.named_parameters()}
    for layer in range(network.layers.num_layers):
        directions = []
        for suffix in ("", "_reverse")[: 2 if network.bidirectional else 1]:
            weights = [named[f"{part}_l{layer}{suffix}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            h = c = np.zeros(network.hidden)
            outputs = np.zeros((len(x_TE), network.hidden))
            for t in range(len(x_TE))[:: -1 if suffix else 1]:
                if valid_T[t]:
                    h, c = one_step(network.kind, weights, x_TE[t], h, c)
                outputs[t] = h
            directions.append(outputs)
        x_TE = np.concatenate(directions, axis=1)
    return x_TE


def network_of(kind: str, layers: int = 1, *, bidirectional: bool = False) -> VectorRecurrence:
    torch.manual_seed(0)
    network = VectorRecurrence(kind, INPUTS, HIDDEN, layers, bidirectional=bidirectional).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network


def noise() -> Tensor:
    return torch.randn(len(VALID), STEPS, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@every_kind
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True), (2, True)])
def test_masked_sequences_equal_the_written_out_equations(kind, layers, bidirectional):
    network, x = network_of(kind, layers, bidirectional=bidirectional), noise()
    each, last, _ = network(x, VALID)
    for sample, valid in enumerate(VALID):
        wanted = written_out(network, x[sample].numpy(), valid.numpy())
        np.testing.assert_allclose(each[sample].detach(), wanted, atol=1e-12, rtol=0)
        ends = np.concatenate([wanted[-1, :HIDDEN], wanted[0, HIDDEN:]])
        np.testing.assert_allclose(last[sample].detach(), ends, atol=1e-12, rtol=0)
    everywhere = network(x)[0]
    torch.testing.assert_close(everywhere[0], each[0], atol=1e-12, rtol=0)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("valid", [VALID, None], ids=["masked", "whole"])
def test_without_gradients_the_numbers_are_the_same(kind, bidirectional, dtype, valid, monkeypatch):
    monkeypatch.setattr("models.cells.vector_recurrence.ROWS", 4)
    network, x = network_of(kind, 2, bidirectional=bidirectional).to(dtype), noise().to(dtype)
    state = None if bidirectional else network(x[:, :2])[2]
    wanted = network(x, valid, state)
    with torch.no_grad():
        got = network(x, valid, state)
    torch.testing.assert_close(got, wanted, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_and_in_parts_equals_the_whole_sequence(kind, layers):
    network, x = network_of(kind, layers).float(), noise().float()
    whole, last, after = network(x, VALID)
    outputs, state = [], None
    for t in range(STEPS):
        output, _, state = network(x[:, t : t + 1], VALID[:, t : t + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, after, atol=1e-6, rtol=0)
    _, _, halfway = network(x[:, :3], VALID[:, :3])
    torch.testing.assert_close(network(x[:, 3:], VALID[:, 3:], halfway)[1], last, atol=1e-6, rtol=0)


@every_kind
def test_gradients_equal_finite_differences_and_do_not_mix_samples(kind):
    network, x = network_of(kind, bidirectional=True), noise()[1:4, :4].requires_grad_()
    valid = VALID[1:4, :4]
    names = [name for name, _ in network.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (x, valid))[0]

    assert torch.autograd.gradcheck(output, (x, *(p.detach().clone().requires_grad_() for p in network.parameters())))
    (gradient,) = torch.autograd.grad(network(x, valid)[0][1].sum(), x)
    assert (gradient[1][valid[1]] != 0).any(dim=1).all()
    assert gradient[1][~valid[1]].abs().sum() == gradient[[0, 2]].abs().sum() == 0


def test_the_forget_gate_starts_open():
    layers = VectorRecurrence("lstm", 2, 3, 2, bidirectional=True).layers
    for name, bias in layers.named_parameters():
        if name.startswith("bias_ih"):
            assert bias.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected one of rnn, lstm, gru, got the recurrent layer 'elman'"):
        VectorRecurrence("elman", 1, 1)
    network = network_of("gru", bidirectional=True)
    state = network(noise())[2]
    with pytest.raises(ValueError, match="reads the whole sequence at once: it takes no state"):
        network(noise(), state=state)
