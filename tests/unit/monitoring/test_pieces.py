"""Tensors as bytes: without loss, and the same bytes for the same tensors."""

import numpy as np
import pytest

from pipelines.monitoring.state import Piece, Pieces, pack, unpack

ARRAYS = {
    "scalar": np.array(3.5),
    "none": np.empty((0, 4), np.float32),
    "seen": np.array([[True, False]]),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "day": np.where(np.arange(10_000).reshape(100, 100) % 97 == 0, 18_000.0, np.nan),
}


def test_arrays_come_back_as_they_were_and_gaps_take_no_room():
    content = pack(ARRAYS)
    assert content == pack(dict(reversed(ARRAYS.items())))
    found = unpack(content)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert len(content) < ARRAYS["day"].nbytes / 20


@pytest.mark.parametrize("in_memory", [2**26, 10])
def test_pieces_wait_in_memory_and_beyond_that_in_a_file(in_memory, monkeypatch):
    monkeypatch.setattr("pipelines.monitoring.state.IN_MEMORY", in_memory)
    with Pieces() as made:
        pieces = [made.put({"x": np.full(3, number)}) for number in (1, 2, 1)]
        assert pieces[0] == pieces[2] != pieces[1]
        assert [unpack(made.get(piece))["x"][0] for piece in pieces] == [1, 2, 1]
        assert pieces[0] in made
        assert Piece("0" * 64, 3) not in made
