"""Networks of single pixels: no pixel sees a later one, all probabilities sum to 1, step by step = whole."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from configs.tasks.generate import PixelModelConfig
from models.networks.masked_row_lstm import MaskedRowLSTM, MaskedRowLSTMConfig
from models.pixel_model import PIXEL_MODEL, PixelModel, build_pixel_model
from tests.networks_under_test import CASES, FRAME

PIXELS = {name: case for name, case in CASES.items() if case.kind == "pixels"}
ROWS, COLUMNS = FRAME["height"], FRAME["width"]


def gradient_of(network: nn.Module, x_HW: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """Of the logit of pixel (y, x) with respect to all pixels."""
    image_1HW = x_HW[None].clone().requires_grad_()
    network(image_1HW)[0, y, x].backward()
    assert image_1HW.grad is not None
    return image_1HW.grad[0]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "changes", [{}, {"cell": "gru", "layers": 2, "above": 0}, {"kind": "masked_row_lstm", "hidden": 8, "layers": 3, "kernel": 5}]
)
def test_a_plan_counts_the_operations_of_the_network_without_building_it(changes: dict[str, Any]) -> None:
    chosen = PixelModelConfig(**changes)
    assert chosen.flops((5, 7)) == build_pixel_model(chosen.description((5, 7)), 0).network.image_flops()


@pytest.mark.parametrize("name", PIXELS)
def test_a_pixel_depends_on_those_before_it_and_on_no_other(name: str) -> None:
    network = PIXELS[name].ready()
    for y, x in ((0, 0), (0, COLUMNS - 1), (4, 0), (4, 5), (ROWS - 1, COLUMNS - 1)):
        seen_P = gradient_of(network, noise(ROWS, COLUMNS), y, x).flatten()
        assert (seen_P[y * COLUMNS + x :] == 0).all()
        if (y, x) != (0, 0):
            assert (seen_P[: y * COLUMNS + x] != 0).any()


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (1, 5)])
def test_a_pixel_of_the_row_lstm_sees_the_triangle_and_nothing_else(layers: int, kernel: int) -> None:
    torch.manual_seed(0)
    network = MaskedRowLSTM(
        MaskedRowLSTMConfig("masked_row_lstm", 7, 31, hidden=5, layers=layers, kernel=kernel, head=6)
    ).double()
    nn.init.normal_(network.head.weight)
    y, x = 5, 15
    seen_HW = sum(gradient_of(network, noise(7, 31, seed=seed), y, x).abs() for seed in range(3)) > 0
    for above in range(y + 1):
        first, last = network.reach(above)
        expected_W = torch.zeros(31, dtype=torch.bool)
        expected_W[max(0, x + first) : x + last + 1] = True
        assert torch.equal(seen_HW[y - above], expected_W)
    assert not seen_HW[y + 1 :].any()


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_by_pixel_gives_what_the_whole_image_gives(name: str) -> None:
    network, x_BHW = PIXELS[name].ready(), (noise(3, ROWS, COLUMNS) > 0.5).double()
    with torch.no_grad():
        whole_BHW, state, each = network(x_BHW), network.start(x_BHW), []
        for y, x in product(range(ROWS), range(COLUMNS)):
            hidden = x_BHW.clone()
            hidden.flatten(1)[:, y * COLUMNS + x :] = 9  # what is not drawn yet must not be read
            logit_B, state = network.logit_at(hidden, y, x, state)
            each.append(logit_B)
    torch.testing.assert_close(torch.stack(each, dim=1).view(whole_BHW.shape), whole_BHW)


def small_model(kind: str, height: int = 3, width: int = 3) -> PixelModel:
    """With random weights and a random mean image."""
    model = build_pixel_model({"kind": kind, "height": height, "width": width, "hidden": 6}, 0).double()
    nn.init.normal_(model.network.head.weight)
    model.set_base(0.2 + 0.6 * noise(height, width))
    return model


@pytest.mark.parametrize("kind", ["masked_row_lstm", "pixel_rnn"])
def test_the_probabilities_of_all_images_sum_to_one(kind: str) -> None:
    every_BHW = torch.tensor(list(product((0.0, 1.0), repeat=9)), dtype=torch.float64).view(-1, 3, 3)
    nats_B = small_model(kind).nats(every_BHW)
    assert torch.exp(-nats_B).sum().item() == pytest.approx(1, abs=1e-9)
    assert nats_B.std() > 0.5  # they differ


def test_an_untrained_model_gives_every_pixel_its_share_in_the_mean_image() -> None:
    model = build_pixel_model({"kind": "pixel_rnn", "height": 3, "width": 4, "hidden": 6}, 0)
    p_HW = (0.2 + 0.6 * noise(3, 4)).float()
    model.set_base(p_HW)
    x_BHW = (noise(5, 3, 4, seed=1) > 0.5).float()
    expected_B = -(x_BHW * p_HW.log() + (1 - x_BHW) * (1 - p_HW).log()).sum(dim=(1, 2))
    torch.testing.assert_close(model.nats(x_BHW), expected_B.double())
    with pytest.raises(ValueError, match="expected shares between 0 and 1 of 3 x 4 pixels"):
        model.set_base(torch.zeros(3, 4))


def test_a_saved_model_gives_the_same_numbers(tmp_path) -> None:
    made = build_pixel_model({"kind": "masked_row_lstm", "height": 4, "width": 5, "hidden": 3}, 1)
    made.set_base(torch.full((4, 5), 0.3))
    PIXEL_MODEL.save(made, tmp_path, {"a": 1})
    loaded, metadata = PIXEL_MODEL.load(tmp_path)
    x_BHW = (noise(2, 4, 5) > 0.5).float()
    assert metadata == {"a": 1}
    assert torch.equal(loaded.nats(x_BHW), made.nats(x_BHW))
    with pytest.raises(ValueError, match=r"expected images of 4 x 5 pixels \(B, H, W\), got \(2, 5, 4\)"):
        loaded.nats(x_BHW.transpose(1, 2))
