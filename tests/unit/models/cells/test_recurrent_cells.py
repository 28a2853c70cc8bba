"""What holds for all convolutional recurrent layers, of images and of volumes; the ConvGRU and the DCRN layer against their
equations, written out pixel by pixel (the ConvLSTM: test_convlstm), and all against PyTorch's layers of vectors.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.cells.conv_gru import ConvGRU, ConvGRUCell
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN, DCRNCell
from models.cells.recurrent_stack import RecurrentStack, read_both_ways

STACKS = {"convgru": ConvGRU, "convlstm": ConvLSTM, "dcrn": DCRN}
every_stack = pytest.mark.parametrize(("kind", "axes"), [(kind, axes) for kind in STACKS for axes in (2, 3)])


def stack_of(kind: str, axes: int, hidden: tuple[int, ...] = (4, 5), inputs: int = 3) -> RecurrentStack:
    torch.manual_seed(0)
    return STACKS[kind](inputs, hidden, axes=axes).double()


def convolved(image_CHW: Tensor, weight: Tensor, row: int, column: int) -> Tensor:
    """A convolution with zero padding at one pixel, in float64."""
    radius = weight.shape[-1] // 2
    total = torch.zeros(weight.shape[0], dtype=torch.float64)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 <= row + dy < image_CHW.shape[1] and 0 <= column + dx < image_CHW.shape[2]:
                total += weight[:, :, dy + radius, dx + radius].double() @ image_CHW[:, row + dy, column + dx].double()
    return total


def sequence(axes: int = 2, steps: int = 5, channels: int = 3, batch: int = 3, side: int = 4) -> dict[str, Tensor]:
    """Noise of `axes` axes of space, with invalid pixels and, in sample 0, an invalid frame."""
    generator = torch.Generator().manual_seed(1)
    space = (side, side - 1, side - 2)[:axes]
    valid = (torch.rand(batch, steps, 1, *space, generator=generator) > 0.3).double()
    valid[0, 1] = 0
    return {
        "x_BTCHW": torch.randn(batch, steps, channels, *space, generator=generator, dtype=torch.float64),
        "valid_BT1HW": valid,
    }


def gradients(stack: RecurrentStack, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(stack.parameters())))


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


@every_stack
def test_stepping_date_by_date_equals_the_whole_sequence(kind, axes):
    stack, inputs = stack_of(kind, axes).float(), {name: values.float() for name, values in sequence(axes).items()}
    whole, state = stack(**inputs)
    stepped, outputs = None, []
    for t in range(5):
        output, stepped = stack.step(inputs["x_BTCHW"][:, t], stepped, valid_B1HW=inputs["valid_BT1HW"][:, t])
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(stepped, state, atol=1e-6, rtol=0)
    _, halfway = stack(**{name: values[:, :3] for name, values in inputs.items()})
    again, _ = stack(state=halfway, **{name: values[:, 3:] for name, values in inputs.items()})
    torch.testing.assert_close(again, whole[:, 3:], atol=1e-6, rtol=0)


@every_stack
@pytest.mark.parametrize("mask", ["pixels", "frames", None])
def test_without_gradients_the_numbers_are_the_same(kind, axes, mask):
    stack, inputs = stack_of(kind, axes).float(), {name: values.float() for name, values in sequence(axes).items()}
    frames = torch.tensor([[1.0, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])[(..., *[None] * (1 + axes))]
    inputs["valid_BT1HW"] = {"pixels": inputs["valid_BT1HW"], "frames": frames, None: None}[mask]
    start = tuple(cell.initial_state(inputs["x_BTCHW"][:, 0]) for cell in stack.cells)
    start = tuple(tuple(torch.randn_like(one) for one in layer) for layer in start)
    kept = tuple(tuple(one.clone() for one in layer) for layer in start)
    wanted = stack(state=start, **inputs)
    with torch.no_grad():
        got = stack(state=start, **inputs)
        again = stack(inputs["x_BTCHW"], got[1])[0]
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again, stack(inputs["x_BTCHW"], wanted[1])[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(start, kept, atol=0, rtol=0)


@every_stack
def test_reading_both_ways_joins_a_stack_and_one_that_reads_the_reversed_sequence(kind, axes):
    onward, inputs = stack_of(kind, axes), sequence(axes)
    reverse = STACKS[kind](3, [5], axes=axes).double()
    reversed_BTDHW = reverse(**{name: values.flip(1) for name, values in inputs.items()})[0].flip(1)
    wanted = torch.cat([onward(**inputs)[0], reversed_BTDHW], dim=2)
    torch.testing.assert_close(read_both_ways(onward, reverse, *inputs.values()), wanted, atol=1e-12, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(read_both_ways(onward, reverse, *inputs.values()), wanted, atol=1e-12, rtol=0)


@every_stack
def test_an_invalid_pixel_keeps_its_state_and_its_value_has_no_effect(kind, axes):
    cell, x = stack_of(kind, axes).cells[0], sequence(axes)["x_BTCHW"][:, 0]
    before = tuple(torch.randn_like(one) for one in cell.initial_state(x))
    valid = torch.ones(3, 1, *x.shape[2:])
    valid[..., 1, 0] = 0
    for new, old in zip(cell(x, before, valid_B1HW=valid), before, strict=True):
        held = new == old
        assert held[..., 1, 0].all()
        assert held.sum() == held[..., 1, 0].numel()
    pointwise = STACKS[kind](3, [4], kernel=1, axes=axes).double()
    inputs = sequence(axes)
    hidden = torch.where(inputs["valid_BT1HW"] > 0, inputs["x_BTCHW"], 1e3)
    torch.testing.assert_close(pointwise(**{**inputs, "x_BTCHW": hidden}), pointwise(**inputs), atol=0, rtol=0)


@every_stack
def test_samples_of_a_batch_do_not_mix(kind, axes):
    stack, inputs = stack_of(kind, axes), sequence(axes)
    together = stack(**inputs)[0]
    alone = stack(**{name: values[1:2] for name, values in inputs.items()})[0]
    torch.testing.assert_close(alone[0], together[1], atol=1e-12, rtol=0)
    inputs["x_BTCHW"].requires_grad_()
    (gradient,) = torch.autograd.grad(stack(**inputs)[0][1].sum(), inputs["x_BTCHW"])
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0


@every_stack
def test_gradients_equal_finite_differences(kind, axes):
    stack = stack_of(kind, axes, hidden=(2,), inputs=1)
    inputs = sequence(axes, steps=3, channels=1, batch=1, side=3)
    names = [name for name, _ in stack.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        known = {**inputs, "x_BTCHW": x}
        return torch.func.functional_call(stack, dict(zip(names, parameters, strict=True)), kwargs=known)[0]

    parameters = (p.detach().clone().requires_grad_() for p in stack.parameters())
    assert torch.autograd.gradcheck(output, (inputs["x_BTCHW"].requires_grad_(), *parameters))


@every_stack
def test_truncated_backpropagation_cuts_the_gradient_and_nothing_else(kind, axes):
    stack, inputs = stack_of(kind, axes), sequence(axes)
    whole = stack(**inputs)[0]
    everything = gradients(stack, whole.square().sum())
    parts, state = [], None
    for start in (0, 2, 4):  # by hand: the state enters the next part as a constant
        part = {name: values[:, start : start + 2] for name, values in inputs.items()}
        outputs, state = stack(state=None if state is None else [[one.detach() for one in layer] for layer in state], **part)
        parts.append(outputs)
    wanted = gradients(stack, torch.cat(parts, dim=1).square().sum())
    stack.detach_every = 2
    outputs = stack(**inputs)[0]
    torch.testing.assert_close(outputs, whole, atol=0, rtol=0)
    got = gradients(stack, outputs.square().sum())
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    assert not any(torch.allclose(one, other) for one, other in zip(got, everything, strict=True))


@every_stack
def test_checkpointed_steps_give_the_same_gradients_from_less_memory(kind, axes):
    stack, inputs, kept = stack_of(kind, axes), sequence(axes), []

    def count(values: Tensor) -> Tensor:
        kept[-1] += values.numel()
        return values

    runs = []
    for checkpointed in (False, True):
        stack.checkpointed = checkpointed
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda values: values):
            outputs = stack(**inputs)[0]
        runs.append([outputs, *gradients(stack, outputs.square().sum())])
    torch.testing.assert_close(runs[1], runs[0], atol=0, rtol=0)
    assert kept[1] < kept[0] / 3


def gates_of(layer: nn.Module, kind: str) -> dict[str, Tensor]:
    """The parameters of PyTorch's layer of vectors as those of a cell with a kernel of one pixel."""
    inner, state = layer.weight_ih_l0, layer.weight_hh_l0
    joined, bias = torch.cat([inner, state], dim=1), layer.bias_ih_l0 + layer.bias_hh_l0
    if kind == "dcrn":
        return {"from_input.weight": inner, "from_input.bias": bias, "from_state.weight": state}
    if kind == "convlstm":  # PyTorch: i, f, g, o
        order = torch.arange(16).view(4, 4)[[0, 1, 3, 2]].flatten()
        return {"gates.weight": joined[order], "gates.bias": bias[order]}
    order = torch.arange(8).view(2, 4)[[1, 0]].flatten()  # PyTorch: r, z, n, and (1 - z) n + z h
    keep = torch.cat([-torch.ones(4), torch.ones(4)])
    gates = {"gates.weight": joined[order] * keep[:, None], "gates.bias": bias[order] * keep}
    return {**gates, "candidate.weight": joined[8:], "candidate.bias": bias[8:]}


@every_stack
def test_on_images_of_one_pixel_the_cells_are_pytorch_s_layers(kind, axes):
    """PyTorch's GRU resets after the product, the ConvGRU before: both are the same if the product is with a diagonal matrix."""
    layer = {"dcrn": nn.RNN, "convlstm": nn.LSTM, "convgru": nn.GRU}[kind](3, 4, batch_first=True).double().requires_grad_(False)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(parameter)))
    if kind == "convgru":
        layer.weight_hh_l0[8:] *= torch.eye(4)
        layer.bias_hh_l0[8:] = 0
    stack = STACKS[kind](3, [4], kernel=1, axes=axes).double().requires_grad_(False)
    stack.cells[0].load_state_dict(
        {
            name: values[(..., *[None] * axes)] if name.endswith("weight") else values
            for name, values in gates_of(layer, kind).items()
        }
    )
    x_BTC = torch.randn(2, 6, 3, dtype=torch.float64)
    got = stack(x_BTC[(..., *[None] * axes)])[0]
    torch.testing.assert_close(got.flatten(2), layer(x_BTC)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["convgru", "dcrn"])
@pytest.mark.parametrize("has_gradients", [True, False])
def test_dates_are_refused_by_layers_that_cannot_read_them(kind, has_gradients):
    with torch.set_grad_enabled(has_gradients), pytest.raises(TypeError, match="elapsed"):
        stack_of(kind, 2)(**sequence(), elapsed_BT=torch.zeros(3, 5))


@pytest.mark.parametrize("kind", STACKS)
def test_an_even_kernel_is_refused(kind):
    with pytest.raises(ValueError, match="the kernel must be odd to keep the size, got 2"):
        STACKS[kind](1, [1], 2)


def outputs_and_gradients(stack: RecurrentStack, known: dict[str, Any]) -> list[Tensor]:
    h_BTDHW, state = stack(**known)
    return [h_BTDHW.detach(), *(one.detach() for layer in state for one in layer), *gradients(stack, h_BTDHW.square().mean())]


@every_stack
def test_no_state_is_a_state_of_zeros(kind, axes):
    stack, known = stack_of(kind, axes), sequence(axes)
    zeros = tuple(cell.initial_state(known["x_BTCHW"][:, 0]) for cell in stack.cells)
    given = outputs_and_gradients(stack, {**known, "state": zeros})
    for ours, theirs in zip(outputs_and_gradients(stack, known), given, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-14, rtol=1e-12)


@every_stack
def test_channels_last_memory_keeps_the_numbers_and_reaches_every_state(kind, axes):
    known, channels_last = sequence(axes), {2: torch.channels_last, 3: torch.channels_last_3d}[axes]
    plain = outputs_and_gradients(stack_of(kind, axes), known)
    stack = stack_of(kind, axes).to(memory_format=channels_last)
    for ours, theirs in zip(outputs_and_gradients(stack, known), plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    first, x_BCHW = stack.cells[0], known["x_BTCHW"][:, 0]
    state = first(x_BCHW, valid_B1HW=known["valid_BT1HW"][:, 0]) if axes == 2 else first.initial_state(x_BCHW)
    assert all(one.is_contiguous(memory_format=channels_last) for one in state)


@every_stack
def test_mixed_precision_without_gradients_is_as_close_as_with_them(monkeypatch, kind, axes):
    """With the convolution that a GPU gets, which autocast makes in bfloat16."""
    stack = stack_of(kind, axes, (8, 8)).float()
    known = {name: one.float() for name, one in sequence(axes).items()}
    exact = stack(**known)[0].detach()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.autocast("cpu", torch.bfloat16):
        trained, (*_, last) = stack(**known)
        with torch.no_grad():
            inferred = stack(**known)[0]
    assert {trained.dtype, inferred.dtype, *(one.dtype for one in last)} == {torch.float32}
    trained_error, inferred_error = (float((one.detach() - exact).abs().mean()) for one in (trained, inferred))
    assert 0 < trained_error < 0.02 * float(exact.abs().mean())
    assert inferred_error < 1.5 * trained_error
