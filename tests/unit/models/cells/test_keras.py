"""The recurrent layers against Keras 3 on PyTorch, the oracle of the project's users: its answers lie in keras.npz.

Recorded by record_keras.py, see docs/design/016-sequences-to-labels.md.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cells.convlstm import ConvLSTM
from models.cells.vector_recurrence import LAYERS, VectorRecurrence

HIDDEN = 4  # as recorded


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, np.ndarray]:
    with np.load(Path(__file__).with_name("keras.npz")) as file:
        return dict(file)


def with_weights(network: torch.nn.Module, recorded: Mapping[str, np.ndarray], case: str) -> torch.nn.Module:
    start = f"{case}/w/"
    weights = {name.removeprefix(start): torch.from_numpy(value) for name, value in recorded.items() if name.startswith(start)}
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_layers_of_vectors_equal_keras_with_a_mask(recorded, kind, bidirectional):
    case = f"{kind}{'-bidirectional' if bidirectional else ''}"
    network = with_weights(VectorRecurrence(kind, 3, HIDDEN, bidirectional=bidirectional), recorded, case)
    got = network(torch.from_numpy(recorded[f"{case}/x"]), torch.from_numpy(recorded["valid"]))[0].detach().numpy()
    compared = (
        recorded["valid"] if bidirectional else np.ones_like(recorded["valid"])
    )  # Keras' Bidirectional gives 0 at masked steps
    np.testing.assert_allclose(got[compared], recorded[f"{case}/y"][compared], atol=2e-6)


def test_the_conv_lstm_equals_keras_with_a_mask(recorded):
    stack = with_weights(ConvLSTM(3, [HIDDEN]), recorded, "convlstm")
    valid_BT1HW = torch.from_numpy(recorded["valid"])[:, :, None, None, None]
    got = stack(torch.from_numpy(recorded["convlstm/x"]), valid_BT1HW=valid_BT1HW)[0].detach().numpy()
    np.testing.assert_allclose(got, recorded["convlstm/y"], atol=2e-6)


def test_the_forget_gate_begins_open_as_in_keras(recorded):
    assert recorded["convlstm/bias"].tolist() == [0] * HIDDEN + [1] * HIDDEN + [0] * 2 * HIDDEN  # i, f, c, o
    ours = ConvLSTM(3, [HIDDEN]).cells[0].gates.bias.detach().numpy()  # i, f, o, g; with PyTorch's small random numbers
    np.testing.assert_allclose(ours, recorded["convlstm/bias"], atol=0.2)
