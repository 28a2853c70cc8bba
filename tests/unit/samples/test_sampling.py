import pickle

import numpy as np
import pytest
import torch

from pipelines.learning.epoch_batches import EpochBatches
from pipelines.samples.cache import build_samples
from pipelines.samples.sampling import augmented


def prepare(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
    return {"x_TCHW": x_NCHW[context_T], "valid_THW": valid_NHW[context_T], "days_T": days_N[context_T]}


@pytest.fixture
def cache(cube, plan, ndvi, tmp_path):
    return build_samples(cube, "S1", tmp_path, plan, ndvi, prepare, prepare_key="context")


def sample_of(samples, i: int) -> dict:
    return {name: tensor[0] for name, tensor in samples.gather([i]).items()}


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_training_blocks_have_several_shapes(cache):
    assert len(set(cache.part("train").shapes)) > 1


def test_a_gathered_batch_equals_its_samples(cache):
    samples = cache.part("train")
    mixes_blocks = False
    for indices in EpochBatches(samples, 5, seed=3, shuffle=True).indices():
        batch = samples.gather(indices.tolist())
        for b, index in enumerate(indices):
            assert_equal({name: tensor[b] for name, tensor in batch.items()}, sample_of(samples, index))
        mixes_blocks |= len(set(samples.groups[samples.group_W[indices[0]]].slot_W[samples.row_W[indices]].tolist())) > 1
    assert mixes_blocks


def test_a_pass_has_every_window_once_in_batches_of_one_shape(cache):
    batches = list(cache.batches("train", 4))
    assert all(len(batch["x_TCHW"]) <= 4 for batch in batches)
    days = [int(day) for batch in batches for day in batch["target_seconds_K"][:, 0]]
    assert sorted(days) == sorted(round(w.target_days_K[0].item() * 86_400) for w in cache.windows("train"))


def test_shapes_do_not_mix(cache):
    samples = cache.part("train")
    with pytest.raises(ValueError, match="different shapes cannot share a batch"):
        samples.gather(list(range(len(samples))))
    assert [tuple(sample_of(samples, i)["x_TCHW"].shape[-2:]) for i in range(len(samples))] == samples.shapes


def test_parts_that_do_not_exist_are_refused(cache):
    for read in (cache.part, cache.windows):
        with pytest.raises(ValueError, match="no part 'training'; parts are train, validation, test"):
            read("training")


def test_it_pickles_as_paths(cache):
    samples = cache.part("train")
    samples.gather([0])
    content = pickle.dumps(samples)
    assert len(content) < 20_000
    assert_equal(pickle.loads(content).gather([1]), samples.gather([1]))


def test_augmentation_is_equal_for_every_image_of_a_window(cache):
    plain, augmented_samples = cache.part("train"), cache.part("train", augment=True, seed=5)
    changed = 0
    for i in range(len(plain)):
        before, after = sample_of(plain, i), sample_of(augmented_samples, i)
        is_square = before["x_TCHW"].shape[-1] == before["x_TCHW"].shape[-2]
        symmetry = int(augmented_samples.symmetry_W[i])
        for name in before:
            expected = augmented(before[name].numpy(), symmetry, is_square) if name.endswith("HW") else before[name].numpy()
            np.testing.assert_array_equal(after[name], expected)
        changed += not torch.equal(before["x_TCHW"], after["x_TCHW"])
    assert changed > len(plain) // 2


def test_augmentation_changes_each_epoch_and_not_the_files(cache):
    samples = cache.part("train", augment=True)
    first = [sample_of(samples, i)["x_TCHW"] for i in range(len(samples))]
    samples.set_epoch(1)
    assert any(not torch.equal(a, sample_of(samples, i)["x_TCHW"]) for i, a in enumerate(first))
    samples.set_epoch(0)
    assert all(torch.equal(a, sample_of(samples, i)["x_TCHW"]) for i, a in enumerate(first))


def test_the_eight_symmetries_differ_and_form_the_square():
    image = np.arange(9).reshape(3, 3)
    views = {augmented(image, s, True).tobytes() for s in range(8)}
    assert len(views) == 8
    assert len({augmented(image, s, False).tobytes() for s in range(8)}) == 4
