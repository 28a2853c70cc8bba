import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipelines.samples.cache import build_samples
from pipelines.samples.sampling import ShapeBatches, augmented


def prepare(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
    return {"x_TCHW": x_NCHW[context_T], "valid_THW": valid_NHW[context_T], "days_T": days_N[context_T]}


@pytest.fixture
def cache(cube, plan, ndvi, tmp_path):
    return build_samples(cube, "S1", tmp_path, plan, ndvi, prepare, prepare_key="context")


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_training_blocks_have_several_shapes(cache):
    assert len(set(cache.part("train").shapes)) > 1


def test_a_gathered_batch_equals_its_samples(cache):
    samples = cache.part("train")
    for indices in ShapeBatches(samples, 5, shuffle=True, seed=3):
        batch = samples.gather(indices)
        for b, index in enumerate(indices):
            assert_equal({name: tensor[b] for name, tensor in batch.items()}, samples[index])


def test_an_epoch_has_every_window_once_in_batches_of_one_shape(cache):
    samples = cache.part("train")
    batches = ShapeBatches(samples, 4, shuffle=True, seed=0)
    lists = list(batches)
    assert sorted(i for indices in lists for i in indices) == list(range(len(samples)))
    assert len(lists) == len(batches)
    assert all(len({samples.shapes[i] for i in indices}) == 1 for indices in lists)


def test_batches_mix_blocks(cache):
    samples = cache.part("train")
    groups = [samples.groups[samples.group_W[i[0]]].slot_W[samples.row_W[i]] for i in ShapeBatches(samples, 8, seed=0)]
    assert max(len(set(slots.tolist())) for slots in groups) > 1


def test_the_order_depends_on_seed_and_epoch_alone(cache):
    samples = cache.part("train")
    first, second = ShapeBatches(samples, 4, seed=1), ShapeBatches(samples, 4, seed=1)
    assert list(first) == list(second) == list(first)
    second.set_epoch(1)
    assert list(first) != list(second)


def test_batches_of_a_generator_repeat_with_its_state(cache):
    def pass_over(seed):
        return list(cache.batches("train", 6, shuffle=True, augment=True, generator=torch.Generator().manual_seed(seed)))

    for first, second in zip(pass_over(0), pass_over(0), strict=True):
        assert_equal(first, second)
    assert any(
        not torch.equal(a["days_T"], b["days_T"])
        for a, b in zip(pass_over(0), pass_over(1), strict=True)
        if a["days_T"].shape == b["days_T"].shape
    )


def test_shapes_do_not_mix(cache):
    samples = cache.part("train")
    with pytest.raises(ValueError, match="different shapes cannot share a batch"):
        samples.gather(list(range(len(samples))))
    assert [tuple(s["x_TCHW"].shape[-2:]) for s in samples.__getitems__(list(range(len(samples))))] == samples.shapes


@pytest.mark.parametrize("workers", [0, 1])
def test_it_feeds_a_data_loader(cache, workers):
    samples = cache.part("train")
    loader = DataLoader(samples, batch_sampler=ShapeBatches(samples, 16, shuffle=False), num_workers=workers)
    assert sum(len(batch["x_TCHW"]) for batch in loader) == len(samples)


def test_it_pickles_as_paths(cache):
    samples = cache.part("train")
    samples[0]
    content = pickle.dumps(samples)
    assert len(content) < 20_000
    assert_equal(pickle.loads(content)[1], samples[1])


def test_augmentation_is_equal_for_every_image_of_a_window(cache):
    plain, augmented_samples = cache.part("train"), cache.part("train", augment=True, seed=5)
    changed = 0
    for i in range(len(plain)):
        before, after = plain[i], augmented_samples[i]
        is_square = before["x_TCHW"].shape[-1] == before["x_TCHW"].shape[-2]
        symmetry = int(augmented_samples.symmetries(np.array([i]))[0])
        for name in before:
            expected = augmented(before[name].numpy(), symmetry, is_square) if name.endswith("HW") else before[name].numpy()
            np.testing.assert_array_equal(after[name], expected)
        changed += not torch.equal(before["x_TCHW"], after["x_TCHW"])
    assert changed > len(plain) // 2


def test_augmentation_changes_each_epoch_and_not_the_files(cache):
    samples = cache.part("train", augment=True)
    first = [samples[i]["x_TCHW"] for i in range(len(samples))]
    samples.set_epoch(1)
    assert any(not torch.equal(a, samples[i]["x_TCHW"]) for i, a in enumerate(first))
    samples.set_epoch(0)
    assert all(torch.equal(a, samples[i]["x_TCHW"]) for i, a in enumerate(first))


def test_the_eight_symmetries_differ_and_form_the_square():
    image = np.arange(9).reshape(3, 3)
    views = {augmented(image, s, True).tobytes() for s in range(8)}
    assert len(views) == 8
    assert len({augmented(image, s, False).tobytes() for s in range(8)}) == 4


def test_indices_outside_end_iteration(cache):
    samples = cache.part("test")
    with pytest.raises(IndexError, match="window"):
        samples[len(samples)]
    assert_equal(samples[-1], samples[len(samples) - 1])
