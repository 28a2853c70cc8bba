import numpy as np
import pytest

from pipelines.learning.evaluation import ABSOLUTE, PIXELS, ErrorTally, frame_ssim, scores

ALL = np.ones((8, 8), bool)


def gradient() -> np.ndarray:
    return np.add.outer(np.arange(8.0), 2 * np.arange(8.0)).astype(np.float32)


def test_errors_count_on_valid_pixels_only():
    y = np.zeros((1, 1, 2, 2), np.float32)
    target = np.array([[[[1.0, -3.0], [2.0, 100.0]]]], np.float32)
    valid = np.array([[[True, True], [True, False]]])
    tally = ErrorTally()
    tally.add(y, target, valid, np.array([10.0]), np.array([1.0]))
    assert scores(tally.table().sums_DKCS.sum(axis=(0, 1, 2))) == {
        "mae": 2.0,
        "rmse": pytest.approx((14 / 3) ** 0.5),
        "bias": 0.0,
        "ssim": None,  # the frame is narrower than 3 pixels
        "pixels": 3,
    }


def test_sums_are_kept_per_target_date_and_lead():
    tally = ErrorTally()
    for days in ([10.0, 20.0], [20.0, 30.0]):  # the second date is lead 2 of one window and lead 1 of the other
        tally.add(np.ones((2, 1, 2, 2)), np.zeros((2, 1, 2, 2)), np.ones((2, 2, 2), bool), np.array(days), np.ones(1))
    table = tally.table()
    assert table.days_D.tolist() == [10.0, 20.0, 30.0]
    assert table.sums_DKCS[:, :, 0, PIXELS].tolist() == [[4, 0], [4, 4], [0, 4]]


def test_variables_of_other_units_are_added_in_units_of_their_spread():
    truth = np.stack([np.array([[0.0, 2.0]]), np.array([[0.0, 200.0]])])[None]
    tally = ErrorTally()
    tally.add(truth + np.array([1.0, 100.0])[None, :, None, None], truth, np.ones((1, 1, 2), bool), np.zeros(1), np.ones(2))
    table = tally.table()
    assert table.spread().tolist() == [1.0, 100.0]
    assert table.scaled(table.spread())[0, 0, ABSOLUTE] == 4.0


def test_ssim_of_equal_frames_is_one_and_falls_with_the_error():
    target = gradient()
    assert frame_ssim(target, target, ALL, 21.0) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(size=(8, 8))
    little, much = (frame_ssim(target + scale * noise, target, ALL, 21.0) for scale in (1, 5))
    assert 1 > little > much


def test_ssim_does_not_see_what_stands_in_invalid_pixels():
    target, y, valid = gradient(), gradient() + 1, ALL.copy()
    valid[:2] = False
    other = y.copy()
    other[:2] = 1e6
    assert frame_ssim(y, target, valid, 21.0) == frame_ssim(other, target, valid, 21.0)


@pytest.mark.parametrize("case", ["narrow", "cloudy", "flat"])
def test_ssim_is_undefined_where_it_would_say_nothing(case):
    frame = np.zeros((2, 8)) if case == "narrow" else gradient()
    valid = np.ones(frame.shape, bool)
    if case == "cloudy":
        valid[2:] = False
        valid[1] = False
    assert np.isnan(frame_ssim(frame, frame, valid, 0.0 if case == "flat" else 1.0))


def test_forecast_and_target_must_fit():
    with pytest.raises(ValueError, match=r"the forecast has shape \(1, 1, 2, 2\), the target \(1, 1, 2, 3\)"):
        ErrorTally().add(np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 3)), np.ones((1, 2, 3), bool), np.zeros(1), np.ones(1))
