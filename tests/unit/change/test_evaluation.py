import numpy as np
import pytest
import torch

from models.change_detector import ChangeDetector, build_network, log_score
from pipelines.change.decision import fit_decision, fused_probability
from pipelines.change.evaluation import (
    HeldOut,
    MethodScores,
    Truth,
    choose_threshold,
    evaluate_index,
    parts_of,
    standardised,
)
from pipelines.change.intervals import f1_difference
from pipelines.change.method_comparison import describe_method, markdown_table
from pipelines.change.metrics import Reliability
from pipelines.errors import RequestError
from pipelines.learning.result import detection_verdict
from pipelines.samples.decoded_sites import Region
from pipelines.samples.site_groups import group_sites
from pipelines.tiles import Box

SIDE = 64
WHOLE = Box.whole((SIDE, SIDE))


def truth_of(seed):
    label = np.zeros((SIDE, SIDE), np.uint8)
    row, column = np.random.default_rng(seed).integers(0, SIDE - 12, 2)
    label[row : row + 10, column : column + 10] = 1
    label[:2] = 255
    seen = np.ones((SIDE, SIDE), bool)
    seen[-3:] = False
    return Truth(label, seen)


def score_of(truth, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return ((truth.label_HW == 1) + noise * np.abs(rng.normal(size=truth.label_HW.shape))).astype(np.float32)


TRUTHS = {name: truth_of(seed) for seed, name in enumerate("abcd")}
GROUPING = group_sites(dict.fromkeys(TRUTHS, (SIDE, SIDE)), [["a", "b"]], least_px=1, gap_px=0)


def test_a_rules_threshold_is_chosen_on_the_other_groups():
    scores = {name: score_of(truth) for name, truth in TRUTHS.items()}
    scores["d"] = scores["d"] * 100  # alone it would be easy with a threshold of its own
    scores_of_method = evaluate_index(GROUPING, scores, TRUTHS)
    assert list(scores_of_method.thresholds) == ["a+b", "c", "d"]
    expected = choose_threshold(p for n in "abc" for p in parts_of(Region(n, WHOLE), scores[n], TRUTHS[n])).value
    assert scores_of_method.thresholds["d"] == expected
    assert scores_of_method.counts["d"].precision < 0.1
    known = int(TRUTHS["a"].known_HW().sum())
    assert scores_of_method.counts["a"].pixels == known


def test_the_left_out_group_has_no_say():
    scores = {name: score_of(truth) for name, truth in TRUTHS.items()}
    before = evaluate_index(GROUPING, scores, TRUTHS).thresholds["c"]
    other = TRUTHS | {"c": Truth(1 - (TRUTHS["c"].label_HW == 1).astype(np.uint8), TRUTHS["c"].seen_HW)}
    assert evaluate_index(GROUPING, scores, other).thresholds["c"] == before


def test_standardised_scores_are_comparable_and_keep_their_order():
    score, seen = score_of(TRUTHS["a"]), TRUTHS["a"].seen_HW
    score[20, 20] = np.nan
    one, other = standardised(score, seen), standardised(1e3 * score, seen)
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert np.isnan(one[20, 20])
    assert np.isnan(one[-1]).all()
    assert np.nanmin(one) >= 0
    usable = ~np.isnan(one)
    assert (np.argsort(one[usable], kind="stable") == np.argsort(score[usable], kind="stable")).mean() > 0.99


def test_a_region_in_strips_is_the_region():
    truth = TRUTHS["a"]
    parts = list(parts_of(Region("a", Box((4, 7), (50, 60))), score_of(truth), truth))
    np.testing.assert_array_equal(np.concatenate([known.label_HW for _, known in parts]), truth.label_HW[4:50, 7:60])


def detector(members=2, fuse_with="change_vector"):
    return ChangeDetector(
        [build_network("fc_ef", bands=1, widths=(2,), seed=i) for i in range(members)], fuse_with=fuse_with
    ).eval()


def held_out(name, sign=1.0, index=True):
    truth = TRUTHS[name]
    logit = sign * (6 * score_of(truth, seed=1) - 4).astype(np.float32)
    return HeldOut(name, logit, score_of(truth, seed=2) if index else None, truth)


def test_members_are_calibrated_on_their_own_group_and_the_threshold_on_all():
    one = detector()
    threshold = fit_decision(one, [[held_out("c")], [held_out("d", sign=-1)]], log_score)
    assert one.scale_M[0] > 0
    assert one.scale_M[1] == 0  # it says the opposite: the base rate
    assert one.index_scale_bias[0] > 0
    assert one.threshold == threshold.value
    p = fused_probability(one, [(0, held_out("c").logit_HW), (1, held_out("c").logit_HW)], held_out("c").index_HW)
    network = (
        one.member_probability(0, torch.from_numpy(held_out("c").logit_HW)) + one.member_probability(1, torch.zeros(SIDE, SIDE))
    ) / 2
    expected = one.fuse(network, one.index_probability(torch.from_numpy(held_out("c").index_HW)))
    np.testing.assert_allclose(p, expected.numpy(), rtol=1e-5)


def test_fusion_of_two_weak_scores_beats_either():
    def f1(fuse_with, use_rule):
        one = detector(2, fuse_with)
        noisy = [
            [
                HeldOut(
                    h.site,
                    (3 * score_of(h.truth, 0.5, seed=5) - 2),
                    score_of(h.truth, 0.5, seed=6) if use_rule else None,
                    h.truth,
                )
            ]
            for h in (held_out("c"), held_out("d"))
        ]
        return fit_decision(one, noisy, log_score).counts.f1

    assert f1("change_vector", True) > f1("none", False) + 0.02


def test_what_is_fused_is_a_probability_again():
    one, regions = detector(), [[held_out("c")], [held_out("d")]]
    fit_decision(one, regions, log_score)
    assert one.fusion_scale_bias.tolist() != [1.0, 0.0]
    reliability = Reliability()
    for i, (region,) in enumerate(regions):
        p_HW = fused_probability(one, [(i, region.logit_HW)], region.index_HW)
        reliability.add(p_HW, region.truth.label_HW, region.truth.seen_HW)
    known = [row for row in reliability.table() if row["pixels"] > 50]
    assert len(known) >= 2
    assert all(abs(row["claimed"] - row["happened"]) < 0.1 for row in known)


def test_a_group_of_one_class_is_refused():
    corner = Box.whole((2, 2))
    only = HeldOut("c", held_out("c").logit_HW[:2, :2], None, TRUTHS["c"].cut(corner))
    with pytest.raises(RequestError, match=r"c has 0 changed and 0 unchanged pixels"):
        fit_decision(detector(1, "none"), [[only]], log_score)


def test_no_change_at_all_has_no_threshold():
    still = Truth(np.zeros((SIDE, SIDE), np.uint8), np.ones((SIDE, SIDE), bool))
    with pytest.raises(RequestError, match="no pixel of the sites that the threshold is chosen on is labelled changed"):
        choose_threshold(parts_of(Region("a", WHOLE), score_of(still), still))


def test_the_table_says_how_sure_and_the_verdict_what_was_to_be_beaten():
    good, bad = MethodScores(), MethodScores()
    for name, truth in TRUTHS.items():
        good.add(Region(name, WHOLE), score_of(truth, 0.1), 0.5, truth)
        bad.add(Region(name, WHOLE), score_of(truth, 0.6, seed=8), 0.9, truth)
    methods = {"net": describe_method([good, bad], 0.95), "rule": describe_method([bad], 0.95)}
    assert methods["net"]["pooled"]["f1"] == pytest.approx(1.0)
    assert methods["net"]["spread"]["seeds"] == 2
    assert methods["rule"]["spread"] is None
    assert 0 < methods["rule"]["pooled"]["average_precision"] < 1
    difference = {"rule": f1_difference(good.blocks_B3, bad.blocks_B3)}
    verdict = detection_verdict("net", methods, difference, ["rule"], margin=0.01, confidence=0.95)
    assert verdict.is_publishable
    assert verdict.outcomes == {"rule": "beats"}
    assert "net finds change on sites that it has not seen with F1 1.000" in verdict.sentence
    assert "4 sites): the model beats it" in verdict.sentence
    differences = {"net": f1_difference(bad.blocks_B3, good.blocks_B3)}
    mirrored = detection_verdict("rule", methods, differences, ["net"], margin=0.01, confidence=0.95, are_strips=True)
    assert not mirrored.is_publishable
    assert mirrored.outcomes == {"net": "loses"}
    assert "Not to be published: it must beat net" in mirrored.sentence
    assert "strips of these sites that it has not learnt from" in mirrored.sentence
    lines = markdown_table(methods, "net")
    assert len(lines) == 4
    assert "| interval (4 sites) |" in lines[0]
    assert lines[2].startswith("| **net** | 1.000 |")
    assert len({line.count("|") for line in lines}) == 1


def test_strips_of_one_site_add_up():
    scores_of_method, truth = MethodScores(), TRUTHS["a"]
    for rows in ((0, 32), (32, 64)):
        scores_of_method.add(Region("a", Box.from_edges((*rows, 0, SIDE))), score_of(truth, 0.1), 0.5, truth)
    whole = MethodScores()
    whole.add(Region("a", WHOLE), score_of(truth, 0.1), 0.5, truth)
    assert scores_of_method.counts == whole.counts
    np.testing.assert_array_equal(scores_of_method.blocks_B3["a"], whole.blocks_B3["a"])
