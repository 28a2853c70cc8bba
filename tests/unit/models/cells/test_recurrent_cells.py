"""The ConvGRU and the DCRN layer equal their equations, written out pixel by pixel."""

import pytest
import torch
from torch import Tensor

from models.cells.conv_gru import ConvGRU, ConvGRUCell
from models.cells.dcrn import DCRN, DCRNCell

STACKS = {"convgru": ConvGRU, "dcrn": DCRN}
CELLS = {"convgru": ConvGRUCell, "dcrn": DCRNCell}


def convolved(image_CHW: Tensor, weight: Tensor, row: int, column: int) -> Tensor:
    """A convolution with zero padding at one pixel, in float64."""
    radius = weight.shape[-1] // 2
    total = torch.zeros(weight.shape[0], dtype=torch.float64)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 <= row + dy < image_CHW.shape[1] and 0 <= column + dx < image_CHW.shape[2]:
                total += weight[:, :, dy + radius, dx + radius].double() @ image_CHW[:, row + dy, column + dx].double()
    return total


def sequence(steps: int = 5, dtype=torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x_BTCHW": torch.randn(2, steps, 3, 6, 5, generator=generator, dtype=dtype),
        "valid_BT1HW": (torch.rand(2, steps, 1, 6, 5, generator=generator) > 0.3).to(dtype),
    }


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_dcrn_layer_equals_its_equation(kernel):
    torch.manual_seed(0)
    cell = DCRNCell(3, 4, kernel).requires_grad_(False)
    x, h = torch.randn(1, 3, 6, 5), torch.randn(1, 4, 6, 5)
    got = cell(x, (h,))[0][0]
    for row in range(6):
        for column in range(5):
            said = convolved(h[0], cell.from_state.weight, row, column) + convolved(x[0], cell.from_input.weight, row, column)
            want = torch.tanh(said + cell.from_input.bias.double())
            torch.testing.assert_close(got[:, row, column].double(), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_gru_layer_equals_its_equations(kernel):
    torch.manual_seed(0)
    cell = ConvGRUCell(3, 4, kernel).requires_grad_(False)
    x, h = torch.randn(1, 3, 6, 5), torch.randn(1, 4, 6, 5)
    got = cell(x, (h,))[0][0]
    z, r = (torch.zeros(4, 6, 5, dtype=torch.float64) for _ in range(2))
    pixels = [(row, column) for row in range(6) for column in range(5)]
    for row, column in pixels:
        said = convolved(torch.cat([x[0], h[0]]), cell.gates.weight, row, column) + cell.gates.bias.double()
        z[:, row, column], r[:, row, column] = torch.sigmoid(said[:4]), torch.sigmoid(said[4:])
    chosen = torch.cat([x[0].double(), r * h[0].double()])
    for row, column in pixels:
        g = torch.tanh(convolved(chosen, cell.candidate.weight, row, column) + cell.candidate.bias.double())
        want = (1 - z[:, row, column]) * h[0, :, row, column].double() + z[:, row, column] * g
        torch.testing.assert_close(got[:, row, column].double(), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", STACKS)
def test_stepping_date_by_date_equals_the_whole_sequence(kind):
    torch.manual_seed(0)
    stack, inputs = STACKS[kind](3, [4, 5]), sequence()
    whole, state = stack(**inputs)
    stepped, outputs = None, []
    for t in range(5):
        output, stepped = stack.step(inputs["x_BTCHW"][:, t], stepped, valid_B1HW=inputs["valid_BT1HW"][:, t])
        outputs.append(output)
    assert torch.equal(torch.stack(outputs, dim=1), whole)
    assert all(torch.equal(*one, *other) for one, other in zip(state, stepped, strict=True))
    again, _ = stack(
        inputs["x_BTCHW"][:, 3:], stack(**{k: v[:, :3] for k, v in inputs.items()})[1], valid_BT1HW=inputs["valid_BT1HW"][:, 3:]
    )
    torch.testing.assert_close(again, whole[:, 3:])


@pytest.mark.parametrize("kind", CELLS)
def test_an_invalid_pixel_keeps_its_state(kind):
    torch.manual_seed(0)
    cell, h = CELLS[kind](3, 4), torch.randn(1, 4, 5, 5)
    valid = torch.ones(1, 1, 5, 5)
    valid[..., 2, 3] = 0
    held = cell(torch.randn(1, 3, 5, 5), (h,), valid_B1HW=valid)[0] == h
    assert held[0, :, 2, 3].all()
    assert held.sum() == 4


@pytest.mark.parametrize("kind", STACKS)
def test_gradients_equal_finite_differences(kind):
    torch.manual_seed(0)
    stack = STACKS[kind](1, [2]).double()
    x = torch.randn(1, 3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    valid = (torch.rand(1, 3, 1, 3, 3) > 0.3).double()
    names = [name for name, _ in stack.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        known = {"x_BTCHW": x, "valid_BT1HW": valid}
        return torch.func.functional_call(stack, dict(zip(names, parameters, strict=True)), kwargs=known)[0]

    assert torch.autograd.gradcheck(output, (x, *(p.detach().clone().requires_grad_() for p in stack.parameters())))


@pytest.mark.parametrize("kind", CELLS)
def test_an_even_kernel_is_refused(kind):
    with pytest.raises(ValueError, match="the kernel must be odd to keep the size, got 2"):
        CELLS[kind](1, 1, 2)
