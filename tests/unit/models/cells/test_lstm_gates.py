import pytest

torch = pytest.importorskip("torch")

from models.cells import lstm_gates  # noqa: E402
from models.cells.convlstm import ConvLSTM  # noqa: E402
from models.cells.lstm_gates import next_state  # noqa: E402


def plainly(gates, c):
    i, f, o, g = gates.chunk(4, dim=1)
    c_new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c_new), c_new


def with_gradients(step, gates, c):
    gates, c = gates.clone().requires_grad_(), c.clone().requires_grad_()
    h, c_new = step(gates, c)
    (h.square().sum() + (c_new * 0.3).sum()).backward()
    return h, c_new, gates.grad, c.grad


@pytest.mark.parametrize("space", [(7, 5), (3, 4, 5), (1, 1)])
@pytest.mark.parametrize("block_bytes", [1, 1 << 10, 1 << 21])
def test_values_and_gradients_are_those_of_the_written_out_equations(monkeypatch, space, block_bytes):
    monkeypatch.setattr(lstm_gates, "BLOCK_BYTES", block_bytes)
    gates, c = torch.randn(2, 12, *space), torch.randn(2, 3, *space)
    for ours, theirs in zip(with_gradients(next_state, gates, c), with_gradients(plainly, gates, c), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # the end of a row may be rounded otherwise


def test_gradients_equal_finite_differences():
    gates, c = (torch.randn(2, n, 3, 2, dtype=torch.float64, requires_grad=True) for n in (8, 2))
    assert torch.autograd.gradcheck(next_state, (gates, c))


def test_gates_of_less_precision_keep_a_state_of_full_precision():
    gates, c = torch.randn(1, 8, 3, 3).bfloat16(), torch.randn(1, 2, 3, 3)
    h, c_new = next_state(gates, c)
    assert c_new.dtype == torch.float32
    assert torch.allclose(c_new, plainly(gates.float(), c)[1], atol=0.02)
    assert h.shape == c.shape


def test_a_compiler_sees_a_stack_as_one_graph_with_the_same_numbers():
    torch.manual_seed(0)
    stack, x = ConvLSTM(2, [3, 4]), torch.randn(2, 3, 2, 5, 6)
    plain = stack(x)[0]
    traced = torch.compile(stack, backend="eager", fullgraph=True)(x)[0]
    torch.testing.assert_close(traced, plain, atol=1e-6, rtol=0)
    for weight in stack.parameters():
        ours, theirs = (torch.autograd.grad(y.square().sum(), weight, retain_graph=True)[0] for y in (traced, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
