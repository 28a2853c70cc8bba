"""Images as memory maps are those of the cube; rare classes are drawn and kept; what is capped is drawn at random."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.samples.class_samples import (
    ClassSamples,
    SpanImages,
    at_most,
    decode_span,
    read_span,
    samples_of_sites,
    seen_dates,
)
from pipelines.samples.class_windows import Augmentation, ClassWindows, WindowSettings, evenly, training_statistics
from pipelines.samples.decoded_sites import Region
from pipelines.samples.label_codes import UNKNOWN
from pipelines.samples.labels import Labels, Span
from pipelines.samples.site_groups import Grouping, group_sites
from pipelines.samples.variables import Variable
from pipelines.tiles import Box

SPAN = Span(np.datetime64("2016-01-01", "s"), np.datetime64("2017-01-01", "s"))
VARIABLES = (Variable("red", "band", ("red",)), Variable("i", "ratio", ("nir", "red")))


def samples_with(class_P: np.ndarray, side: int = 40) -> ClassSamples:
    row_P, column_P = np.divmod(np.arange(len(class_P)), side)
    labels = Labels(tuple("abc"), (SPAN,), row_P, column_P, np.zeros(len(class_P), np.int64), class_P, len(class_P))
    images = SpanImages(SPAN, np.zeros((2, 1, side, side), np.float32), np.ones((2, side, side), bool), np.zeros(2, np.float32))
    return ClassSamples(labels, (images,), row_P // 10, row_P % 2)


def test_a_decoded_span_is_that_of_the_cube_and_is_decoded_again_only_for_another_one(cube: xr.Dataset, tmp_path: Path) -> None:
    whole = read_span(cube, SPAN, VARIABLES)
    decoded = decode_span(cube, SPAN, VARIABLES, tmp_path / "span", {"snapshot": "a"}, "alpha")
    np.testing.assert_array_equal(decoded.x_TCHW, whole.x_TCHW)
    np.testing.assert_array_equal(decoded.valid_THW, whole.valid_THW)
    np.testing.assert_array_equal(decoded.years_T, whole.years_T)
    window = Box((3, 5), (9, 20))
    np.testing.assert_array_equal(decoded.part(window).x_TCHW, read_span(cube, SPAN, VARIABLES, window).x_TCHW)
    cube["image"].values[:] = 7
    same = decode_span(cube, SPAN, VARIABLES, tmp_path / "span", {"snapshot": "a"})
    np.testing.assert_array_equal(same.x_TCHW, whole.x_TCHW)
    other = decode_span(cube, SPAN, VARIABLES, tmp_path / "span", {"snapshot": "b"})
    assert other.x_TCHW[:, 0][other.valid_THW].max() == pytest.approx(7e-4)


def test_rare_classes_are_drawn_as_often_and_validate_as_well() -> None:
    class_P = np.repeat([0, 1, 2], [1488, 96, 16])
    samples, everything = samples_with(class_P), np.arange(1600)
    settings = WindowSettings(1, 300, draw="classes")
    windows = ClassWindows(samples, everything, settings, np.ones(1, np.float32), Augmentation(), 0)
    assert np.bincount(class_P[windows.chosen]).tolist() == [100, 100, 100]
    assert windows.weight_K.tolist() == [1, 1, 1]
    fixed = ClassWindows(samples, everything, settings, np.ones(1, np.float32), None, 0)
    kept = np.bincount(class_P[fixed.chosen])
    assert kept[2] == 16
    assert kept[1] == 96
    assert kept.sum() == 300
    assert max(fixed.chosen[:188]) > 1400  # from all over the commonest class, not its first rows


def test_few_enough_labels_are_all_kept_in_their_order() -> None:
    class_P = np.array([0, 1, 0, 0, 1])
    assert evenly(np.arange(5), class_P, 9).tolist() == [0, 1, 2, 3, 4]
    assert at_most(class_P, np.arange(5), 3, 0).tolist() == [0, 1, 2, 3, 4]
    capped = at_most(np.repeat([0, 1], [100, 3]), np.arange(103), 10, 0)
    assert (np.count_nonzero(capped < 100), capped[-3:].tolist()) == (10, [100, 101, 102])


def test_sites_are_folds_and_pixels_between_strips_or_with_too_few_dates_are_left_out() -> None:
    valid_THW = np.ones((2, 4, 4), bool)
    valid_THW[0, 0, 0] = False
    images = [SpanImages(SPAN, np.zeros((2, 1, 4, 4), np.float32), valid_THW, np.zeros(2, np.float32), name) for name in "ab"]
    label_HW = np.zeros((4, 4), np.uint8)
    label_HW[1, 1], label_HW[3, 3] = 1, UNKNOWN
    grouping = group_sites({"a": (4, 4), "b": (4, 4), "c": (4, 4)}, [], least_px=1, gap_px=0)
    found = samples_of_sites(images, {"a": label_HW, "b": label_HW}, ("no", "yes"), grouping, min_dates=2, is_comparable=True)
    assert (len(found.labels), found.labels.dropped) == (28, {"missing data": 2})
    assert found.labels.counts() == {"no": 26, "yes": 2}
    assert found.fold_P.tolist() == found.labels.span_P.tolist()
    assert training_statistics(found, np.arange(28))[1].tolist() == [1]
    half = Grouping(((Region("a", Box((0, 0), (2, 4))), Region("b", Box((0, 0), (2, 4)))),), ("upper",))
    upper = samples_of_sites(images, {"a": label_HW, "b": label_HW}, ("no", "yes"), half, min_dates=1, is_comparable=False)
    assert upper.labels.dropped == {"between strips": 14}
    assert seen_dates(upper.labels, images).min() == 1
