import numpy as np
import pytest

from pipelines.sources.quality import LandsatMask, SclMask, ValueMask, keep_away


def test_scl_keeps_classes_and_distance():
    scl = np.full((5, 5), 4, "uint8")
    scl[2, 2] = 9
    np.testing.assert_array_equal(SclMask((4, 5)).usable(scl), scl == 4)
    near = SclMask((4, 5), away_px=1).usable(scl)
    assert not near[2, 1:4].any()
    assert not near[1:4, 2].any()
    assert near.sum() == 20  # the four diagonal neighbours lie 1.4 pixels away


def test_mask_values():
    np.testing.assert_array_equal(ValueMask("m", (1, 3)).usable(np.array([[0, 1, 2, 3]])), [[False, True, False, True]])


@pytest.mark.parametrize(
    ("value", "is_usable"),
    [
        (2720, True),  # clear
        (2724, True),  # clear, radiometric saturation in 1-2 bands
        (1, False),  # fill
        (2800, False),  # cloud
        (2720 | 0b11 << 5, False),  # cloud confidence high
        (2976, False),  # cloud shadow confidence high
        (3744, False),  # snow confidence high
        (6816, False),  # cirrus confidence high
    ],
)
def test_landsat_collection_1(value, is_usable):
    """Values from the USGS table of BQA (LSDS-1873)."""
    assert LandsatMask(1).usable(np.array([[value]], "uint16"))[0, 0] == is_usable


@pytest.mark.parametrize(
    ("value", "is_usable"),
    [
        (21824, True),  # clear land
        (21952, True),  # clear water
        (1, False),  # fill
        (22080, True),  # cloud at medium confidence: its clear bit is set
        (22280, False),  # cloud
        (21826, False),  # dilated cloud
        (23888, False),  # shadow
        (30048, False),  # snow
        (54596, False),  # cirrus
    ],
)
def test_landsat_collection_2(value, is_usable):
    """Values from the USGS table of QA_PIXEL (LSDS-1619)."""
    assert LandsatMask(2).usable(np.array([[value]], "uint16"))[0, 0] == is_usable


def test_snow_can_be_kept():
    assert LandsatMask(1, keep_snow=True).usable(np.array([[3744]]))[0, 0]
    assert LandsatMask(2, keep_snow=True).usable(np.array([[30048]]))[0, 0]


def test_a_distance_without_bad_pixels_masks_nothing():
    assert keep_away(np.zeros((3, 3), bool), 5).all()
    assert not keep_away(np.ones((3, 3), bool), 0).any()
