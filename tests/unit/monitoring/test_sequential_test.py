"""Sequential tests on written-out residuals: the statistic, the run it rests on, and what a cloud does to both."""

import numpy as np
import pytest

from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum, Run

TESTS = [Cusum(), Ewma(), Mosum(3), Run(2)]


def follow(test, z_N, seen_N=None, directions=1):
    """The states after each date of one pixel; the residual is a tenth of z, the days are 10, 20, ..."""
    state, states = test.begin(directions, (1, 1)), []
    signs = [1] if directions == 1 else [-1, 1]
    for n, z in enumerate(z_N):
        z_DYX = np.array(signs, np.float32)[:, None, None] * np.full((1, 1), z, np.float32)
        seen = np.array([[seen_N is None or seen_N[n]]])
        state = test.advance(state, z_DYX, np.full((1, 1), z / 10, np.float32), seen, 10.0 * (n + 1))
        states.append(state)
    return states


def statistic(states):
    return [float(state["statistic"][0, 0, 0]) for state in states]


def test_cusum_adds_what_exceeds_the_drift_and_never_falls_below_zero():
    assert statistic(follow(Cusum(drift=2, cap=4), [1, 3, 3.5, 0, 0, 5])) == [0, 1, 2.5, 0.5, 0, 2]


def test_cusum_counts_an_outlier_at_most_at_the_cap():
    assert statistic(follow(Cusum(drift=2, cap=4), [100])) == [2]
    assert statistic(follow(Cusum(drift=2, cap=6), [100])) == [4]


def test_a_run_begins_on_the_first_date_of_evidence_and_is_forgotten_when_it_ends():
    states = follow(Cusum(), [0, 3, 4, -9, 3])
    assert [state["onset_day"][0, 0, 0] for state in states] == pytest.approx([np.nan, 20, 20, np.nan, 50], nan_ok=True)
    assert [int(state["run_length"][0, 0, 0]) for state in states] == [0, 1, 2, 0, 1]
    assert float(states[2]["run_sum"][0, 0, 0]) == pytest.approx(0.7)


def test_ewma_forgets_and_is_in_units_of_its_own_deviation():
    deviation = np.sqrt(0.5 / 1.5)
    assert statistic(follow(Ewma(weight=0.5), [2, 2])) == pytest.approx([1 / deviation, 1.5 / deviation])


def test_mosum_sums_the_last_dates_only():
    assert statistic(follow(Mosum(window=4), [2, 2, 2, 2, 0])) == [1, 2, 3, 4, 3]


def test_run_wants_all_of_the_last_dates():
    assert statistic(follow(Run(2), [5, 3, 4, -1, 9])) == [0, 3, 3, 0, 0]


def test_both_directions_are_followed_apart():
    states = follow(Cusum(), [-4, -4], directions=2)
    assert states[-1]["statistic"][:, 0, 0].tolist() == [4, 0]


@pytest.mark.parametrize("test", TESTS, ids=lambda t: type(t).__name__)
def test_an_unseen_date_changes_no_bit(test):
    before, after = follow(test, [3, 4, 50], [True, True, False])[1:]
    for name in before:
        assert before[name].tobytes() == after[name].tobytes(), name
        assert before[name].dtype == after[name].dtype


@pytest.mark.parametrize("test", TESTS, ids=lambda t: type(t).__name__)
def test_clouds_between_looks_do_not_matter(test):
    plain = follow(test, [3, 1, 4])[-1]
    clouded = follow(test, [3, -9, 1, 9, 4], [True, False, True, False, True])[-1]
    assert plain["statistic"] == clouded["statistic"]


@pytest.mark.parametrize("test", TESTS, ids=lambda t: type(t).__name__)
def test_a_step_does_not_write_into_the_state_it_was_given(test):
    state = test.begin(1, (1, 1))
    copies = {name: value.copy() for name, value in state.items()}
    test.advance(state, np.full((1, 1, 1), 3, np.float32), np.zeros((1, 1), np.float32), np.ones((1, 1), bool), 1.0)
    assert all(state[name].tobytes() == copies[name].tobytes() for name in state)
