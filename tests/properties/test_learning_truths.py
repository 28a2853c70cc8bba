"""What holds for any errors: invariances of skill, quantile and coverage."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.learning.conformal import left_out_quantiles
from pipelines.learning.evaluation import frame_sums
from pipelines.learning.intervals import paired_skill

errors = st.floats(0.01, 100, allow_subnormal=False)
per_date = hnp.arrays(np.float64, st.integers(2, 12), elements=errors)


@settings(max_examples=40, deadline=None)
@given(per_date, st.sampled_from([0.25, 2.0, 1024.0]))
def test_skill_and_interval_do_not_depend_on_the_unit(model_D, factor):
    baseline_D = np.full(len(model_D), 3.0)
    here = paired_skill(model_D, baseline_D)
    assert here == paired_skill(model_D * factor, baseline_D * factor)
    assert here.low <= here.high


@settings(max_examples=40, deadline=None)
@given(per_date, st.floats(0.1, 0.9))
def test_a_model_that_is_better_on_every_date_by_the_same_share_has_that_skill_for_sure(baseline_D, share):
    skill = paired_skill(baseline_D * (1 - share), baseline_D)
    np.testing.assert_allclose([skill.value, skill.low, skill.high], share, atol=1e-9)


groups = st.lists(hnp.arrays(np.float64, st.integers(1, 9), elements=errors), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(groups, st.floats(0.05, 0.95), st.randoms())
def test_the_quantile_does_not_depend_on_order_and_grows_with_the_level(scores, level, random):
    (quantile, higher), _ = left_out_quantiles(scores, (level, min(level + 0.05, 0.99)))
    shuffled = scores.copy()
    random.shuffle(shuffled)
    assert left_out_quantiles(shuffled, (level,))[0] == quantile
    assert higher >= quantile
    assert quantile in np.concatenate(scores)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, (8, 8), elements=st.floats(-5, 5)), hnp.arrays(bool, (8, 8)))
def test_sums_do_not_see_invalid_pixels_and_do_not_turn_with_the_frame(y, valid):
    if not valid.any():
        valid[0, 0] = True
    target = np.zeros((8, 8))
    here = frame_sums(y, target, valid, 10.0)
    np.testing.assert_allclose(frame_sums(np.where(valid, y, 99.0), target, valid, 10.0), here)
    np.testing.assert_allclose(frame_sums(y[::-1, ::-1], target, valid[::-1, ::-1], 10.0), here, atol=1e-9)
