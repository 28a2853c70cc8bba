import numpy as np
from tiny_forecaster import TinyWindows

from pipelines.learning.epoch_batches import EpochBatches


def drawn(batches):
    return [indices.tolist() for indices in batches.indices()]


def test_every_window_comes_once_per_epoch_and_batches_hold_one_shape():
    windows = TinyWindows(20)
    batches = EpochBatches(windows, 4, seed=0, shuffle=True)
    assert sorted(i for batch in drawn(batches) for i in batch) == list(range(20))
    assert all(len({windows.shapes[i] for i in batch}) == 1 for batch in drawn(batches))
    assert len(batches) == len(list(batches)) == 6  # 14 windows of 6x6 in 4 batches, 6 of 5x4 in 2


def test_the_order_is_that_of_the_seed_and_the_epoch():
    first, second = (EpochBatches(TinyWindows(20), 4, seed=7, shuffle=True) for _ in range(2))
    second.epoch = 3
    list(second)
    assert drawn(first) != drawn(second)
    second.epoch = 0
    assert drawn(first) == drawn(second)
    assert drawn(first) != drawn(EpochBatches(TinyWindows(20), 4, seed=8, shuffle=True))


def test_without_shuffling_the_order_is_that_of_the_windows():
    assert drawn(EpochBatches(TinyWindows(6), 2, seed=0, shuffle=False)) == [[0, 1], [3, 4], [2, 5]]


def test_ranks_share_every_batch_and_take_equally_many_steps():
    whole = EpochBatches(TinyWindows(10), 3, seed=1, shuffle=True)
    parts = [EpochBatches(TinyWindows(10), 3, seed=1, shuffle=True) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.rank, part.world = rank, 2
    for batch, first, second in zip(whole, *parts, strict=True):
        assert first["x_THW"].shape == second["x_THW"].shape
        seen = {frame.numpy().tobytes() for half in (first, second) for frame in half["x_THW"]}
        assert seen == {frame.numpy().tobytes() for frame in batch["x_THW"]}


def test_the_windows_are_told_an_epoch_of_their_own_for_every_member_and_epoch():
    windows = TinyWindows(4)
    for seed in range(3):
        batches = EpochBatches(windows, 2, seed=seed, shuffle=True)
        for batches.epoch in range(3):
            list(batches)
    assert len(set(windows.epochs)) == 9
    assert all(isinstance(epoch, int) and epoch >= 0 for epoch in windows.epochs)
    assert np.isfinite(windows.epochs).all()
