import numpy as np
import pytest

from pipelines.monitoring.layers import Layers
from pipelines.tiles import Box


def test_nothing_vouches_for_a_tile_while_it_is_written(tmp_path, monkeypatch):
    layers, tile = Layers.create(tmp_path, (2, 3), {"score": np.dtype("float32")}), Box.whole((2, 3))
    layers.write([(tile, {"score": np.ones((2, 3))}, "first")])
    assert layers.written() == {tile.key: "first"}

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Layers, "_note", lambda self, lines, note=Layers._note: killed() if lines[0][1] else note(self, lines))
    with pytest.raises(KeyboardInterrupt):
        layers.write([(tile, {"score": np.full((2, 3), 2)}, "second")])
    assert layers.map("score").max() == 2, "the pixels are there, and not yet noted"
    assert layers.written() == {tile.key: ""}
