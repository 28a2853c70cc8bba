"""Grey values to 0 and 1, the same in every epoch and whatever else there is; parts of whole groups."""

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.samples.binary_images import Binarisation, ImageWindows, binarise


def test_a_drawn_image_does_not_depend_on_the_others_and_has_the_shares_of_its_values() -> None:
    image = np.full((300, 1, 1, 4, 5), 51, np.uint8)
    names = [f"a{n}" for n in range(300)]
    x_NHW = binarise(image, names, Binarisation())
    assert x_NHW.mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(binarise(image[7:9], names[7:9], Binarisation()), x_NHW[7:9])
    assert not np.array_equal(binarise(image, names, Binarisation(seed=1)), x_NHW)
    extreme = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1, 1)
    assert binarise(extreme, names[:2], Binarisation()).ravel().tolist() == [0, 1]


def test_a_threshold_is_a_share_of_white() -> None:
    image = np.array([0.0, 3.9, 4.1, 8.0], np.float32).reshape(1, 1, 1, 1, 4)
    assert binarise(image, ["a"], Binarisation("threshold", 0.5, white=8.0)).ravel().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("values", [np.int32([0, 255]), np.float32([0, 255]), np.float32([0, np.nan])])
def test_numbers_that_do_not_fit_what_white_is_taken_to_be_are_refused(values: np.ndarray) -> None:
    with pytest.raises(RequestError, match=r"say what is white, for example binarise\.white: 255"):
        binarise(values.reshape(1, 1, 1, 1, 2), ["a"], Binarisation())
    binarise(np.nan_to_num(values).reshape(1, 1, 1, 1, 2), ["a"], Binarisation(white=255.0))


@pytest.mark.parametrize(("shape", "found"), [((2, 3, 1, 4, 4), "3 frames of 1 bands"), ((2, 1, 1, 4, 4, 4), "volumes")])
def test_samples_that_are_no_single_images_are_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(RequestError, match=f"reads single images of one band, the samples are {found}"):
        binarise(np.zeros(shape, np.uint8), ["a", "b"], Binarisation())


def test_an_epoch_of_some_images_shows_others_each_time_and_the_same_again() -> None:
    windows = ImageWindows(np.arange(50, dtype=np.uint8).reshape(50, 1, 1), np.arange(10, 50), seed=0, per_epoch=20)

    def shown(epoch: int) -> set[float]:
        windows.set_epoch(epoch)
        return set(windows.gather(list(range(20)))["x_HW"].flatten().tolist())

    first, second = shown(1), shown(2)
    assert len(first) == 20
    assert min(first) >= 10
    assert first != second
    assert shown(1) == first
