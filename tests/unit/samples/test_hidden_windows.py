"""Windows that are hidden in part: what is hidden and where, nothing of it in what the network gets, the same at every call."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.samples.class_samples import Few, SpanImages
from pipelines.samples.hidden_windows import (
    HiddenSettings,
    HiddenWindows,
    Hiding,
    divide,
    error_of_interpolation,
    interpolated,
    statistics_of,
)
from pipelines.samples.labels import Instant, Span

pytestmark = pytest.mark.torch
DATES, SIDE = 9, 12
HIDINGS = {"dates": Hiding(0.4), "squares": Hiding(0.4, patch_px=3), "forecast": Hiding(horizon=2)}


def images(site: str = "", seed: int = 0) -> SpanImages:
    """A straight line in time at every pixel, with clouds."""
    rng, years_T = np.random.default_rng(seed), np.linspace(0, 0.9, DATES).astype(np.float32)
    slope_CHW = rng.normal(0, 1, (2, SIDE, SIDE)).astype(np.float32)
    x_TCHW = 5 + slope_CHW * years_T[:, None, None, None]
    span = Span(Instant("2020-01-01", "s"), Instant("2021-01-01", "s"))
    return SpanImages(span, x_TCHW, rng.random((DATES, SIDE, SIDE)) < 0.9, years_T, site)


@pytest.fixture
def windows() -> Callable[..., HiddenWindows]:
    def build(hiding: Hiding, *, is_fixed: bool = False) -> HiddenWindows:
        spans = [images()]
        learnt, _ = divide(spans, 4, 0.2, 0)
        return HiddenWindows(spans, learnt, HiddenSettings(4, 24), hiding, seed=3, is_fixed=is_fixed)

    return build


@pytest.mark.parametrize("hiding", HIDINGS.values(), ids=HIDINGS)
def test_what_is_hidden_counts_and_is_not_seen(windows: Callable[..., HiddenWindows], hiding: Hiding) -> None:
    batch = windows(hiding).gather(list(range(24)))
    visible, counts = batch["valid_THW"].numpy(), batch["weight"][:, :, 0].numpy() > 0
    assert counts.any()
    assert not (visible & counts).any()
    assert (batch["x_TCHW"].numpy()[~np.broadcast_to(visible[:, :, None], batch["x_TCHW"].shape)] == 0).all()
    assert visible.any(axis=(1, 2, 3)).all()
    if hiding.horizon:
        last = np.array([np.flatnonzero(one.any(axis=(1, 2)))[-1] for one in visible])
        first = [np.flatnonzero(one.any(axis=(1, 2)))[[0, -1]] for one in counts]
        assert all(after[0] == before + 1 and after[1] <= before + 2 for before, after in zip(last, first, strict=True))


def test_a_window_depends_on_seed_epoch_and_number_alone_and_fixed_ones_stay(windows: Callable[..., HiddenWindows]) -> None:
    one, other, fixed = windows(HIDINGS["dates"]), windows(HIDINGS["dates"]), windows(HIDINGS["dates"], is_fixed=True)
    for epoch in (1, 2):
        one.set_epoch(epoch)
        other.set_epoch(epoch)
        before = fixed.window(5)
        fixed.set_epoch(epoch)
        assert all(np.array_equal(one.window(5)[name], other.window(5)[name]) for name in before)
        assert all(np.array_equal(fixed.window(5)[name], array) for name, array in before.items())
    other.set_epoch(3)
    epochs = [built.gather(list(range(24)))["valid_THW"].numpy() for built in (one, other)]
    assert not np.array_equal(*epochs)


def test_what_validates_is_not_learnt_from() -> None:
    learnt, held = divide([images(), images()], 4, 0.3, 1)
    assert {box for _, box in learnt}.isdisjoint({box for _, box in held})
    assert {s for s, _ in held} == {0, 1}
    assert len(learnt) + len(held) == 2 * 9
    learnt, held = divide([images("a"), images("b"), images("c")], 4, 0.3, 1)
    assert (len(learnt), len(held), {s for s, _ in learnt} & {s for s, _ in held}) == (2, 1, set())
    with pytest.raises(RequestError, match=r"none is left to learn from; set a smaller split\.block_px"):
        divide([images()], 40, 0.2, 0)


def test_interpolation_fills_a_straight_line_exactly(windows: Callable[..., HiddenWindows]) -> None:
    years_T, visible_TP = np.array([0.0, 0.2, 0.5, 1.0]), np.array([[True, False, True, True]]).T
    np.testing.assert_allclose(interpolated(np.array([[1.0], [99.0], [2.0], [3.0]]), visible_TP, years_T).ravel(), [1, 1.4, 2, 3])
    error = error_of_interpolation(windows(HIDINGS["dates"], is_fixed=True))
    assert error is not None
    assert 0 < error < 0.1  # of dates at the ends, which it continues as constant
    mean_C, std_C = statistics_of(windows(HIDINGS["dates"], is_fixed=True))
    np.testing.assert_allclose(mean_C, 5, atol=0.3)
    assert (std_C > 0.2).all()


@pytest.mark.parametrize("most", ["labels", "blocks"])
def test_few_labels_are_nested_and_those_that_choose_the_epoch_are_among_them(most: str) -> None:
    rng = np.random.default_rng(0)
    class_P, block_P = rng.integers(0, 3, 200), rng.integers(0, 10, 200)
    known_P, earlier = np.flatnonzero(block_P > 1), np.zeros(0, int)
    for count in (1, 2, 5, 8):
        few = Few(**{most: count}, seed=4)
        chosen_P, chooses_P = few.choose(known_P, class_P, block_P, fold=1)
        assert np.isin(earlier, chosen_P).all()
        assert np.isin(chosen_P, known_P).all()
        found = np.bincount(class_P[chosen_P], minlength=3) if most == "labels" else [len(np.unique(block_P[chosen_P]))]
        assert set(found) == {count}
        if most == "labels":
            assert set(np.bincount(class_P[chosen_P[chooses_P]], minlength=3)) == {count // 5}
        else:
            assert len(np.unique(block_P[chosen_P[chooses_P]])) == int(count > 1)
        earlier = chosen_P
