import pytest
import torch
from torch import Tensor

from models.cells.convlstm import ConvLSTM, ConvLSTMCell
from models.cells.in_place import InPlaceRun


def written_out(
    cell: ConvLSTMCell, x: Tensor, h: Tensor, c: Tensor, valid: Tensor, elapsed: float, time: Tensor
) -> tuple[Tensor, Tensor]:
    """One step for one sample, pixel by pixel and gate by gate, in float64: Shi et al. 2015 eq. 3, decay and hold."""
    hidden, radius = cell.hidden, cell.kernel // 2
    weight, bias = cell.gates.weight.double(), cell.gates.bias.double() + cell.time.weight.double() @ time.double()
    keep = torch.exp(-torch.log1p(torch.exp(cell.raw_rate_D.double())) * elapsed)
    h, c = h.double() * keep[:, None, None], c.double() * keep[:, None, None]
    both = torch.cat([x.double(), h])
    _, height, width = both.shape
    h_new, c_new = h.clone(), c.clone()
    for row in range(height):
        for column in range(width):
            if not valid[row, column]:
                continue
            total = bias.clone()
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= row + dy < height and 0 <= column + dx < width:
                        total += weight[:, :, dy + radius, dx + radius] @ both[:, row + dy, column + dx]
            i, f, o, g = (total[n * hidden : (n + 1) * hidden] for n in range(4))
            peephole = cell.peephole_3D.double()
            before = c[:, row, column]
            after = torch.sigmoid(f + peephole[1] * before) * before + torch.sigmoid(i + peephole[0] * before) * torch.tanh(g)
            c_new[:, row, column] = after
            h_new[:, row, column] = torch.sigmoid(o + peephole[2] * after) * torch.tanh(after)
    return h_new, c_new


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module with every parameter changed, so that initial zeros hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    return module


def sequence(
    batch: int = 2, steps: int = 5, channels: int = 3, height: int = 7, width: int = 6, dtype=torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x_BTCHW": torch.randn(batch, steps, channels, height, width, generator=generator, dtype=dtype),
        "valid_BT1HW": (torch.rand(batch, steps, 1, height, width, generator=generator) > 0.3).to(dtype),
        "elapsed_BT": torch.rand(batch, steps, generator=generator, dtype=dtype) * 3,
        "time_BTF": torch.randn(batch, steps, 4, generator=generator, dtype=dtype),
    }


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_cell_equals_the_written_out_equations(kernel):
    cell = randomised(ConvLSTMCell(3, 4, kernel, peepholes=True, time_features=4))
    inputs = sequence(batch=1, steps=1)
    generator = torch.Generator().manual_seed(2)
    h, c = torch.randn(2, 1, 4, 7, 6, generator=generator)
    got = cell(
        inputs["x_BTCHW"][:, 0],
        (h, c),
        valid_B1HW=inputs["valid_BT1HW"][:, 0],
        elapsed_B=inputs["elapsed_BT"][:, 0],
        time_BF=inputs["time_BTF"][:, 0],
    )
    want = written_out(
        cell,
        inputs["x_BTCHW"][0, 0],
        h[0],
        c[0],
        inputs["valid_BT1HW"][0, 0, 0],
        float(inputs["elapsed_BT"][0, 0]),
        inputs["time_BTF"][0, 0],
    )
    torch.testing.assert_close(got[0][0].double(), want[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(got[1][0].double(), want[1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("peepholes", [False, True])
def test_stepping_frame_by_frame_equals_the_whole_sequence(peepholes):
    stack = randomised(ConvLSTM(3, [4, 5], peepholes=peepholes, time_features=4))
    inputs = sequence()
    whole, state = stack(**inputs)
    stepped, outputs = None, []
    for t in range(5):
        part = {name: values[:, t : t + 1] for name, values in inputs.items()}
        output, stepped = stack(**part, state=stepped)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, atol=1e-6, rtol=0)
    for one, other in zip(state, stepped, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_initial_state_is_used_and_not_changed():
    cell = ConvLSTMCell(3, 4)
    x = torch.randn(1, 3, 5, 5)
    h, c = torch.randn(2, 1, 4, 5, 5)
    h_before, c_before = h.clone(), c.clone()
    assert not torch.allclose(cell(x, (h, c))[0], cell(x)[0])
    assert torch.equal(h, h_before)
    assert torch.equal(c, c_before)


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_the_in_place_run_equals_the_plain_one(peepholes, with_mask, channels):
    stack = randomised(ConvLSTM(channels, [4, 6], peepholes=peepholes, time_features=4))
    inputs = sequence(channels=channels, height=41, width=30)
    if not with_mask:
        inputs["valid_BT1HW"] = None
    state = tuple((torch.randn(2, d, 41, 30), torch.randn(2, d, 41, 30)) for d in (4, 6))
    with torch.no_grad():
        want, state_after = stack(**inputs, state=state)
        run = InPlaceRun(stack, inputs["x_BTCHW"][:, 0], state)
        for t in range(5):
            mask = None if not with_mask else inputs["valid_BT1HW"][:, t]
            got = run.step(
                inputs["x_BTCHW"][:, t], valid_B1HW=mask, elapsed_B=inputs["elapsed_BT"][:, t], time_BF=inputs["time_BTF"][:, t]
            ).clone()
            torch.testing.assert_close(got, want[:, t], atol=2e-6, rtol=1e-5)
    for (h, c), (h_run, c_run) in zip(state_after, run.state(), strict=True):
        torch.testing.assert_close(h_run, h, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(c_run, c, atol=2e-6, rtol=1e-5)


def test_the_in_place_run_works_in_float64_and_on_tiny_images():
    stack = randomised(ConvLSTM(1, [1])).double()
    x = torch.randn(3, 2, 1, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        want, _ = stack(x)
        run = InPlaceRun(stack, x[:, 0])
        run.step(x[:, 0])
        torch.testing.assert_close(run.step(x[:, 1]), want[:, 1], atol=1e-13, rtol=0)


def test_gradients_equal_finite_differences():
    stack = randomised(ConvLSTM(1, [2], peepholes=True, time_features=4).double())
    inputs = sequence(batch=1, steps=2, channels=1, height=3, width=3, dtype=torch.float64)
    names = [name for name, _ in stack.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        known = {**inputs, "x_BTCHW": x}
        return torch.func.functional_call(stack, dict(zip(names, parameters, strict=True)), kwargs=known)[0]

    parameters = [p.detach().clone().requires_grad_() for p in stack.parameters()]
    assert torch.autograd.gradcheck(output, (inputs["x_BTCHW"].requires_grad_(), *parameters))


@pytest.mark.parametrize("peepholes", [False, True])
def test_every_parameter_gets_a_gradient_from_the_start(peepholes):
    stack = ConvLSTM(3, [4, 4], peepholes=peepholes, time_features=4)
    stack(**sequence())[0].square().sum().backward()
    assert [name for name, p in stack.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_samples_of_a_batch_do_not_mix():
    stack = randomised(ConvLSTM(3, [4, 4], time_features=4))
    inputs = sequence(batch=3)
    together = stack(**inputs)[0]
    inputs["x_BTCHW"] = inputs["x_BTCHW"].clone().requires_grad_()
    stack(**inputs)[0][1].sum().backward()
    assert inputs["x_BTCHW"].grad[1].abs().sum() > 0
    assert inputs["x_BTCHW"].grad[[0, 2]].abs().sum() == 0
    alone = stack(**{name: values[1:2] for name, values in inputs.items()})[0]
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=0)


def test_an_invalid_pixel_keeps_its_state():
    cell = ConvLSTMCell(3, 4)
    h, c = torch.randn(2, 1, 4, 5, 5)
    valid = torch.ones(1, 1, 5, 5)
    valid[..., 2, 3] = 0
    h_new, c_new = cell(torch.randn(1, 3, 5, 5), (h, c), valid_B1HW=valid)
    held = (h_new == h) & (c_new == c)
    assert held[0, :, 2, 3].all()
    assert held.sum() == 4


def test_elapsed_time_decays_the_state_and_hardly_at_the_start():
    cell = ConvLSTMCell(1, 2, time_features=4)
    keep = cell.keep_BD(torch.tensor([0.0, 1.0, 100.0, -5.0]))
    assert torch.equal(keep[0], torch.ones(2))
    torch.testing.assert_close(keep[1], torch.full((2,), 0.999), atol=1e-5, rtol=0)
    torch.testing.assert_close(keep[2], torch.full((2,), 0.9048), atol=1e-3, rtol=0)
    assert torch.equal(keep[3], torch.ones(2)), "negative time counts as 0"


def test_the_forget_bias_is_in_the_forget_gate():
    torch.manual_seed(0)
    plain = ConvLSTMCell(1, 2, forget_bias=0.0).gates.bias.detach()
    torch.manual_seed(0)
    biased = ConvLSTMCell(1, 2, forget_bias=1.5).gates.bias.detach()
    torch.testing.assert_close(biased - plain, torch.tensor([0, 0, 1.5, 1.5, 0, 0, 0, 0]))


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="the kernel must be odd to keep the size, got 4"):
        ConvLSTMCell(1, 2, 4)


def test_peepholes_move_with_the_module():
    assert "peephole_3D" in ConvLSTMCell(1, 2, peepholes=True).state_dict()
    assert "peephole_3D" not in ConvLSTMCell(1, 2).state_dict()


def test_dropout_drops_whole_channels_in_training_only():
    stack = ConvLSTM(1, [64], dropout=0.5)
    x = torch.randn(1, 1, 1, 4, 4)
    assert torch.equal(stack.eval()(x)[0], stack(x)[0])
    output, state = stack.train()(x)
    dropped = (output[0, 0] == 0).flatten(1)
    assert dropped.all(dim=1).sum() == dropped.any(dim=1).sum()
    assert 10 < dropped.all(dim=1).sum() < 54
    assert (state[0][0] != 0).all(), "dropout does not change the state"
