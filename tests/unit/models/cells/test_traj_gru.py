"""The TrajGRU against grid_sample and the ConvGRU; there is no independent implementation to install."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.cells.conv_gru import ConvGRUCell
from models.cells.traj_gru import TrajGRU, TrajGRUCell, warp

SPACE = {2: (6, 5), 3: (4, 6, 5)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sampled(h: Tensor, flow_BLAHW: Tensor) -> Tensor:
    """The warp by PyTorch's grid_sample, link by link."""
    space = h.shape[2:]
    places = torch.stack(torch.meshgrid(*(torch.arange(side, dtype=h.dtype) for side in space), indexing="ij"))
    size = torch.tensor(space, dtype=h.dtype).reshape(-1, *[1] * len(space))
    links = []
    for flow in flow_BLAHW.unbind(1):
        grid = ((places + flow) * 2 + 1) / size - 1
        links.append(F.grid_sample(h, grid.flip(1).movedim(1, -1), padding_mode="zeros", align_corners=False))
    return torch.cat(links, dim=1)


@pytest.mark.parametrize("axes", SPACE)
def test_the_warp_equals_grid_sample(axes):
    h, flow = noise(2, 3, *SPACE[axes]), 2 * noise(2, 4, axes, *SPACE[axes], seed=1)
    torch.testing.assert_close(warp(h, flow), sampled(h, flow), atol=1e-12, rtol=0)


def test_whole_pixels_are_moved_exactly_and_come_from_outside_as_zero():
    h, flow = noise(1, 2, 6, 5), torch.zeros(1, 1, 2, 6, 5, dtype=torch.float64)
    assert torch.equal(warp(h, flow), h)
    flow[:, :, 0] = 2
    assert torch.equal(warp(h, flow), F.pad(h[:, :, 2:], (0, 0, 0, 2)))


@pytest.mark.parametrize("axes", SPACE)
def test_without_flow_and_with_one_link_it_is_a_conv_gru(axes):
    """Its products with the state are 1 x 1 and the reset gate follows them: so does the ConvGRU if that weight is diagonal."""
    torch.manual_seed(0)
    gru, traj = ConvGRUCell(3, 4, 3, axes).double(), TrajGRUCell(3, 4, 3, axes, links=1).double()
    centre = (..., *[1] * axes)
    with torch.no_grad():
        for layer in (gru.gates, gru.candidate):
            kept = layer.weight[:, 3:][centre].clone()
            layer.weight[:, 3:] = 0
            layer.weight[:, 3:][centre] = kept if layer is gru.gates else kept.diag().diag()
        of_input, of_state = (
            torch.cat([layer.weight[:, part] for layer in (gru.gates, gru.candidate)]) for part in (slice(3), slice(3, None))
        )
        traj.from_input.weight.copy_(of_input)
        traj.from_input.bias.copy_(torch.cat([gru.gates.bias, gru.candidate.bias]))
        traj.from_links.weight.copy_(of_state[centre][(..., *[None] * axes)])
        for parameter in traj.flow.parameters():
            parameter.zero_()
        state = (noise(2, 4, *SPACE[axes], seed=1),)
        valid = (noise(2, 1, *SPACE[axes], seed=2) > 0).double()
        x = noise(2, 3, *SPACE[axes])
        torch.testing.assert_close(traj(x, state, valid_B1HW=valid), gru(x, state, valid_B1HW=valid), atol=1e-14, rtol=0)


def test_the_flow_is_bounded_and_every_link_has_its_own():
    torch.manual_seed(0)
    cell = TrajGRUCell(2, 3, links=4, max_flow=1.5).double()
    flow = cell.flow_BLAHW(1e4 * noise(1, 2, 8, 8), noise(1, 3, 8, 8)).detach()
    assert flow.shape == (1, 4, 2, 8, 8)
    assert float(flow.abs().max()) <= 1.5
    assert float(flow.std(dim=1).max()) > 0


@pytest.mark.parametrize("axes", SPACE)
def test_its_gradient_is_that_of_the_numbers(axes):
    torch.manual_seed(0)
    cell = TrajGRUCell(1, 2, 3, axes, links=2).double()
    space = (3, 4, 2)[:axes]
    x, h = noise(1, 1, *space).requires_grad_(), noise(1, 2, *space, seed=1).requires_grad_()
    parameters = dict(cell.named_parameters())

    def stepped(x: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(cell, dict(zip(parameters, weights, strict=True)), (x, (h,)))[0]

    assert torch.autograd.gradcheck(stepped, (x, h, *parameters.values()), eps=1e-6, atol=1e-6, fast_mode=True)


def test_invalid_pixels_keep_their_state_and_steps_in_a_row_are_the_sequence():
    torch.manual_seed(0)
    stack = TrajGRU(2, (3, 4), links=2).double()
    x, valid = noise(2, 4, 2, 6, 5), (noise(2, 4, 1, 6, 5, seed=1) > -0.5).double()
    whole, after = stack(x, valid_BT1HW=valid)
    first, state = stack(x[:, :2], valid_BT1HW=valid[:, :2])
    second, state = stack(x[:, 2:], state, valid_BT1HW=valid[:, 2:])
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-14, rtol=0)
    nothing = torch.zeros(2, 1, 6, 5, dtype=torch.float64)
    for kept, before in zip(stack.step(x[:, 0], after, valid_B1HW=nothing)[1], after, strict=True):
        assert torch.equal(kept[0], before[0])


@pytest.mark.parametrize("wrong", [{"links": 0}, {"max_flow": 0.0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one link and a positive largest flow"):
        TrajGRUCell(1, 1, **wrong)
