"""For every network: a window with the stated halo, cropped, equals the same pixels of the whole image.

In float64, where a halo that is one pixel too small shows; float32, which is used in production, differs in the last
digits only, because PyTorch uses another convolution for small images on a CPU (docs/design/001-spine.md).
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks_under_test import CASES, ONE_SIZE, Case

TILED = {name: case for name, case in CASES.items() if case.kind not in ONE_SIZE}
CHANGE = {name: case for name, case in CASES.items() if case.kind in ("change", "segment")}
POOLING = {name: case for name, case in CHANGE.items() if case.build().stride_px != (1, 1)}


def worst_difference(case: Case, seed: int, steps: int, shape_yx: tuple[int, int], rows: slice, columns: slice, halo_yx) -> float:
    """Largest difference of a window's output from the whole's, relative to the spread of the output."""
    network, known = case.ready(seed), case.inputs(seed, steps, shape_yx)
    top, left = max(rows.start - halo_yx[0], 0), max(columns.start - halo_yx[1], 0)
    window = slice(top, rows.stop + halo_yx[0]), slice(left, columns.stop + halo_yx[1])
    part = {name: value[..., *window] if name.endswith("HW") else value for name, value in known.items()}
    with torch.no_grad():
        whole, cropped = case.call(network, known), case.call(network, part)
    inside = cropped[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return float((whole[..., rows, columns] - inside).abs().max() / whole.std())


@pytest.mark.parametrize("name", TILED)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 3),
    steps=st.integers(2, 5),
    shape_yx=st.tuples(st.integers(60, 90), st.integers(60, 90)),
    start_yx=st.tuples(st.integers(0, 59), st.integers(0, 59)),
    size_yx=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_a_cropped_window_equals_the_whole_image(name, seed, steps, shape_yx, start_yx, size_yx):
    case = CASES[name]
    steps, network = case.steps(steps), case.build()
    row, column = (start // stride * stride for start, stride in zip(start_yx, network.stride_px, strict=True))
    rows, columns = slice(row, min(row + size_yx[0], shape_yx[0])), slice(column, min(column + size_yx[1], shape_yx[1]))
    halo = network.halo_px(steps)
    assert halo is not None
    assert worst_difference(case, seed, steps, shape_yx, rows, columns, halo) < 1e-11


@pytest.mark.parametrize("name", [name for name, case in TILED.items() if case.build().halo_px(3) > (1, 1)])
def test_the_halo_is_needed(name):
    """Half of the halo is not enough: the test above can fail."""
    case = CASES[name]
    network, steps = case.build(), case.steps(4)
    halo = tuple(side // 2 // stride * stride for side, stride in zip(network.halo_px(steps), network.stride_px, strict=True))
    assert worst_difference(case, 0, steps, (96, 96), slice(48, 52), slice(48, 52), halo) > 1e-9


@pytest.mark.parametrize("name", POOLING)
def test_the_start_must_be_aligned(name):
    case = POOLING[name]
    halo = case.build().halo_px(2)
    assert worst_difference(case, 0, 2, (96, 96), slice(46, 50), slice(48, 52), halo) > 1e-6


@pytest.mark.parametrize("name", CHANGE)
def test_in_float32_only_the_last_digits_differ(name):
    case = CHANGE[name]
    network, known = case.ready(0, torch.float32), case.inputs(0, 2, (97, 110), torch.float32)
    halo = network.halo_px(2)
    rows, columns = slice(48 - min(halo[0], 48), 61 + halo[0]), slice(40 - min(halo[1], 40), 70 + halo[1])
    part = {key: value[..., rows, columns] if key.endswith("HW") else value for key, value in known.items()}
    with torch.no_grad():
        whole, cropped = case.call(network, known), case.call(network, part)
    inside = cropped[..., 48 - rows.start : 61 - rows.start, 40 - columns.start : 70 - columns.start]
    assert float((whole[..., 48:61, 40:70] - inside).abs().max() / whole.std()) < 1e-4
