"""Records what the recurrent layers of Keras 3 answer, the oracle of the project's users, beside the weights in our names.

In an environment with keras and torch: `PYTHONPATH=. KERAS_BACKEND=torch python tests/unit/models/cells/record_keras.py`, which
writes keras.npz beside this file. Gates of Keras are i, f, c, o (LSTM) and z, r, h (GRU).
"""

import os
from pathlib import Path

import numpy as np
import torch

from models.cells.convlstm import ConvLSTM
from models.cells.vector_recurrence import LAYERS, VectorRecurrence

RECORDED = Path(__file__).with_name("keras.npz")
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


def of_vectors(keras, kind: str, bidirectional: bool) -> dict[str, np.ndarray]:
    network = VectorRecurrence(kind, 3, HIDDEN, bidirectional=bidirectional)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    layer = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind](
        HIDDEN, return_sequences=True
    )
    weights = weights_of(network.layers, kind, "")
    if bidirectional:
        layer, weights = keras.layers.Bidirectional(layer), weights + weights_of(network.layers, kind, "_reverse")
    x_BTE = noise(*VALID.shape, 3)
    layer.build(x_BTE.shape)
    layer.set_weights(weights)
    y_BTE = layer(x_BTE, mask=torch.from_numpy(VALID)).detach().numpy()
    return {"x": x_BTE, "y": y_BTE, **{f"w/{name}": value.numpy() for name, value in network.state_dict().items()}}


def of_frames(keras) -> dict[str, np.ndarray]:
    stack = ConvLSTM(3, [HIDDEN])
    x_BTCHW = noise(*VALID.shape, 3, 6, 5)
    layer = keras.layers.ConvLSTM2D(HIDDEN, 3, padding="same", return_sequences=True, recurrent_activation="sigmoid")
    x_BTHWC = np.moveaxis(x_BTCHW, 2, -1)
    layer.build(x_BTHWC.shape)
    bias = keras.ops.convert_to_numpy(layer.weights[2])
    order = np.arange(4 * HIDDEN).reshape(4, HIDDEN)[[0, 1, 3, 2]].ravel()  # ours: i, f, o, g
    gates = {name: values.detach().numpy()[order] for name, values in stack.cells[0].gates.named_parameters()}
    kernel = gates["weight"].transpose(2, 3, 1, 0)
    layer.set_weights([kernel[:, :, :3], kernel[:, :, 3:], gates["bias"]])
    y_BTHWC = layer(x_BTHWC, mask=torch.from_numpy(VALID)).detach().numpy()
    weights = {f"w/{name}": value.numpy() for name, value in stack.state_dict().items()}
    return {"x": x_BTCHW, "y": np.moveaxis(y_BTHWC, -1, 2), "bias": bias, **weights}


def record() -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    torch.manual_seed(0)
    found = {"convlstm": of_frames(keras)}
    for kind in LAYERS:
        for bidirectional in (False, True):
            found[f"{kind}{'-bidirectional' if bidirectional else ''}"] = of_vectors(keras, kind, bidirectional)
    arrays = {f"{case}/{name}": value for case, of_case in found.items() for name, value in of_case.items()}
    np.savez_compressed(RECORDED, version=keras.__version__, valid=VALID, **arrays)


if __name__ == "__main__":
    record()
