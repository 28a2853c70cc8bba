"""Answers, folds of groups, and windows of samples as training takes them."""

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import RequestError
from pipelines.learning.sample_training import audit_groups, parts_of_fold
from pipelines.samples.labelled import SplitSettings, label_classes, label_numbers
from pipelines.samples.sample_store import SampleLayout, SampleTable
from pipelines.samples.sample_windows import NO_AUGMENTATION, SampleAugmentation, SampleWindows, measure_bands
from pipelines.scene import Band

LAYOUT = SampleLayout(3, (Band("gray", scale=0.5, offset=1.0),), (6, 6), np.dtype(np.uint8), {})
FOLDS = SplitSettings(folds=4, networks=2)


def table_of(answers: list[str], groups: list[str], parts: list[str] | None = None) -> SampleTable:
    count = len(answers)
    texts = {name: np.array(values, object) for name, values in (("answer_N", answers), ("group_N", groups))}
    texts["part_N"] = np.array(parts or [""] * count, object)
    names = np.array([f"s{n:03d}" for n in range(count)], object)
    valid_NT = np.ones((count, 3), bool)
    valid_NT[::2, 2] = False
    return SampleTable(LAYOUT, np.arange(count), id_N=names, file_N=names, valid_NT=valid_NT,
                       seconds_NT=np.zeros((count, 3)), facts={}, **texts)  # fmt: skip


def images_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, *LAYOUT.shape), np.uint8)


def labelled(count: int = 60, groups: int = 12, split: SplitSettings = FOLDS, **kwargs: Any) -> Any:
    answers = ["b" if n % 3 else "a" for n in range(count)]
    table = table_of(answers, [f"g{n % groups}" for n in range(count)], kwargs.pop("parts", None))
    return label_classes(table, images_of(count), (), split, class_weights=True, **kwargs)


def test_no_group_is_in_two_parts_of_a_network() -> None:
    samples = labelled()
    tested: list[int] = []
    for fold in range(samples.folds):
        for turn in range(2):
            parts = parts_of_fold(samples, fold, turn)
            groups = [set(samples.group_P[part]) for part in (parts.train_P, parts.validation_P, parts.test_P)]
            assert not groups[0] & groups[1]
            assert not groups[2] & (groups[0] | groups[1])
            assert sum(map(len, (parts.train_P, parts.validation_P, parts.test_P))) == 60
        tested += parts.test_P.tolist()
    assert sorted(tested) == list(range(60))
    assert audit_groups(samples)["shared_groups"] == 0


def test_the_part_that_tests_is_never_learnt_from() -> None:
    parts = ["train"] * 40 + ["test"] * 20
    samples = labelled(60, 60, SplitSettings(test="test", validation_parts=8), parts=parts)
    assert samples.tested_P.tolist() == list(range(40, 60))
    found = parts_of_fold(samples, 0)
    assert max(found.train_P.max(), found.validation_P.max()) < 40
    assert len(found.validation_P) == 5


@pytest.mark.parametrize(
    ("answers", "groups", "parts", "split", "said"),
    [
        (["a"] * 8, list("abcdefgh"), None, SplitSettings(), "two classes"),
        (["a", "b"] * 4, ["g"] * 8, None, SplitSettings(folds=2), "1 groups"),
        (["a", "b"] * 4, ["g"] * 8, ["x"] * 4 + ["y"] * 4, SplitSettings(test="x"), "both inside and outside"),
        (["a", "b"] * 4, list("abcdefgh"), None, SplitSettings(test="x"), "no sample belongs"),
        (["a", "b"] * 4, list("abcdefgh"), ["x"] * 8, SplitSettings(test="x"), "none is left"),
    ],
)
def test_what_cannot_be_divided_is_said(
    answers: list[str], groups: list[str], parts: list[str] | None, split: SplitSettings, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        label_classes(table_of(answers, groups, parts), images_of(8), (), split, class_weights=False)


def test_class_weights_make_classes_count_alike() -> None:
    samples = labelled()
    weight_P = samples.arrays.weight_N[samples.known_P]
    sums = [weight_P[samples.class_P == k].sum() for k in (0, 1)]
    assert sums[0] == pytest.approx(sums[1])


def test_chosen_classes_keep_their_order_and_drop_others() -> None:
    table = table_of(["c", "a", "b", "", "a", "b"], list("uvwxyz"))
    samples = label_classes(table, images_of(6), ("b", "a"), SplitSettings(folds=2), class_weights=False)
    assert samples.outputs == ("b", "a")
    assert samples.known_P.tolist() == [1, 2, 4, 5]
    assert samples.class_P.tolist() == [1, 0, 1, 0]
    assert dict(samples.dropped) == {"without an answer": 1, "of another class": 1}


def test_numbers_and_what_is_none() -> None:
    values = [str(n * 0.5) for n in range(10)]
    samples = label_numbers(table_of(["", *values], list("abcdefghijk")), images_of(11), "cover", SplitSettings(folds=3))
    np.testing.assert_allclose(samples.target_PK[:, 0], np.arange(10) * 0.5)
    with pytest.raises(RequestError, match="'high', which is no number"):
        label_numbers(table_of(["high", "1"], ["a", "b"]), images_of(2), "cover", SplitSettings())


class TestWindows:
    def windows(self, augment: SampleAugmentation, **kwargs: Any) -> SampleWindows:
        samples = labelled()
        return SampleWindows(samples.arrays, samples.known_P, np.ones(1), augment, 7, **kwargs)

    def test_values_are_physical(self) -> None:
        batch = self.windows(NO_AUGMENTATION).gather([3, 5])
        expected = images_of(60)[[3, 5]] * np.float32(0.5) + 1
        np.testing.assert_allclose(batch["x_TCHW"].numpy(), expected)
        assert batch["target"].tolist() == [[1, 0], [0, 1]]
        assert batch["valid_T"].tolist() == [[True, True, True], [True, True, True]]

    def test_weights_of_frames(self) -> None:
        batch = self.windows(NO_AUGMENTATION, per_step=True).gather([2])
        assert (batch["weight"] > 0).tolist() == [[True, True, False]]

    def test_classes_that_are_drawn_alike_do_not_weigh_more_as_well(self) -> None:
        class_P = labelled().class_P
        chance_P = 1 / np.bincount(class_P)[class_P]
        batch = self.windows(NO_AUGMENTATION, per_epoch=600, draw_P=chance_P / chance_P.sum()).gather(list(range(600)))
        of_class_K = (batch["target"] * batch["weight"][:, None]).sum(0)
        assert of_class_K.tolist() == pytest.approx([300, 300], rel=0.15)

    @pytest.mark.parametrize(
        "augment",
        [
            SampleAugmentation(flip="both", rotate_degrees=20, crop=0.8),
            SampleAugmentation(noise=0.1, brightness=0.2, contrast=0.1),
            SampleAugmentation(hidden_frames=0.4, time_jitter=0.3),
            SampleAugmentation(mixup=0.4),
        ],
    )
    def test_every_epoch_is_another_and_the_same_again(self, augment: SampleAugmentation) -> None:
        windows, found = self.windows(augment), []
        for epoch in (1, 2, 1):
            windows.set_epoch(epoch)
            batch = windows.gather(list(range(12)))
            assert torch.isfinite(batch["x_TCHW"]).all()
            assert batch["valid_T"].any(1).all()
            torch.testing.assert_close(batch["target"].sum(1), torch.ones(12))
            found.append(torch.cat([batch["x_TCHW"].flatten(), batch["valid_T"].flatten().float()]))
        assert torch.equal(found[0], found[2])
        assert not torch.equal(found[0], found[1])

    def test_mixed_samples_weigh_what_their_classes_weigh(self) -> None:
        samples = labelled()
        weight_K = np.array([samples.arrays.weight_N[samples.known_P][samples.class_P == k][0] for k in (0, 1)])
        assert weight_K[0] != weight_K[1]
        batch = self.windows(SampleAugmentation(mixup=1.0)).gather(list(range(24)))
        assert ((batch["target"] > 0.1) & (batch["target"] < 0.9)).any(), "some are mixed of two classes"
        np.testing.assert_allclose(batch["weight"], batch["target"].numpy() @ weight_K, rtol=1e-5)

    def test_flips_alone_keep_all_values(self) -> None:
        plain, flipped = (self.windows(a).gather([1, 2, 3, 4]) for a in (NO_AUGMENTATION, SampleAugmentation(flip="both")))
        for one, other in zip(plain["x_TCHW"], flipped["x_TCHW"], strict=True):
            torch.testing.assert_close(one.flatten().sort().values, other.flatten().sort().values, atol=1e-3, rtol=0)

    def test_statistics_are_those_of_the_valid_frames(self) -> None:
        samples = labelled()
        part = samples.known_P[:10]
        mean_C, std_C = measure_bands(samples.arrays, part, 0)
        values = samples.arrays.physical(part).numpy()[samples.arrays.valid_NT[part]]
        assert mean_C[0] == pytest.approx(values.mean(), rel=1e-5)
        assert std_C[0] == pytest.approx(values.std(), rel=1e-5)
