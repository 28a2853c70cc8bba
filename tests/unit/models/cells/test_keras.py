"""The recurrent layers against Keras 3 on PyTorch, the oracle of the project's users; only where keras is installed, see
docs/design/016-sequences-to-labels.md. Weights are set by name: gates of Keras are i, f, c, o (LSTM) and z, r, h (GRU).
"""

import os

import numpy as np
import pytest
import torch

from models.cells.convlstm import ConvLSTM
from models.cells.vector_recurrence import LAYERS, VectorRecurrence

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="keras is not installed; the equations are tested without it")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")  # Keras 3.15 under NumPy 2.4
VALID = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 1, 0, 1]], dtype=bool)
HIDDEN = 4


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def weights_of(layers: torch.nn.RNNBase, kind: str, suffix: str) -> list[np.ndarray]:
    """(kernel, recurrent kernel, bias) in Keras' order, of layer 0."""
    names = (f"{name}_l0{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    inner, state, bias, state_bias = (getattr(layers, name).detach().numpy() for name in names)
    if kind == "gru":  # PyTorch: r, z, n
        order = np.r_[HIDDEN : 2 * HIDDEN, :HIDDEN, 2 * HIDDEN : 3 * HIDDEN]
        return [inner[order].T, state[order].T, np.stack([bias[order], state_bias[order]])]
    return [inner.T, state.T, bias + state_bias]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_layers_of_vectors_equal_keras_with_a_mask(kind, bidirectional):
    torch.manual_seed(0)
    network = VectorRecurrence(kind, 3, HIDDEN, bidirectional=bidirectional)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    make = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
    layer = make(HIDDEN, return_sequences=True)
    weights = weights_of(network.layers, kind, "")
    if bidirectional:
        layer, weights = keras.layers.Bidirectional(layer), weights + weights_of(network.layers, kind, "_reverse")
    x_BTE = noise(*VALID.shape, 3)
    layer.build(x_BTE.shape)
    layer.set_weights(weights)
    wanted = layer(x_BTE, mask=torch.from_numpy(VALID))
    got = network(torch.from_numpy(x_BTE), torch.from_numpy(VALID))[0]
    compared = VALID if bidirectional else np.ones_like(VALID)  # Keras' Bidirectional gives 0 at masked steps
    np.testing.assert_allclose(got.detach().numpy()[compared], wanted.detach().cpu().numpy()[compared], atol=2e-6)


def test_the_conv_lstm_equals_keras_with_a_mask():
    torch.manual_seed(0)
    stack = ConvLSTM(3, [HIDDEN])
    x_BTCHW = noise(*VALID.shape, 3, 6, 5)
    layer = keras.layers.ConvLSTM2D(HIDDEN, 3, padding="same", return_sequences=True, recurrent_activation="sigmoid")
    x_BTHWC = np.moveaxis(x_BTCHW, 2, -1)
    layer.build(x_BTHWC.shape)
    assert (
        keras.ops.convert_to_numpy(layer.weights[2]).tolist() == [0] * HIDDEN + [1] * HIDDEN + [0] * 2 * HIDDEN
    )  # the forget bias
    order = np.arange(4 * HIDDEN).reshape(4, HIDDEN)[[0, 1, 3, 2]].ravel()  # ours: i, f, o, g
    gates = {name: values.detach().numpy()[order] for name, values in stack.cells[0].gates.named_parameters()}
    kernel = gates["weight"].transpose(2, 3, 1, 0)
    layer.set_weights([kernel[:, :, :3], kernel[:, :, 3:], gates["bias"]])
    wanted = layer(x_BTHWC, mask=torch.from_numpy(VALID))
    got = stack(torch.from_numpy(x_BTCHW), valid_BT1HW=torch.from_numpy(VALID)[:, :, None, None, None])[0]
    np.testing.assert_allclose(got.detach().movedim(2, -1).numpy(), wanted.detach().cpu().numpy(), atol=2e-6)
