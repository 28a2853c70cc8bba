"""Labels that metadata give away are found out; those that only images can tell are not."""

import numpy as np
import pytest

from models.baselines.class_references import MetadataForest
from pipelines.change.shortcut_audit import audit_change, sample_pixels
from pipelines.change.sites import Sites
from pipelines.learning.result import NOT_TO_BE_PUBLISHED, detection_verdict
from pipelines.learning.shortcuts import Audit
from pipelines.samples.decoded_sites import LabelledSite
from pipelines.samples.site_groups import group_sites

SIDE, NAMES = 40, ("a", "b", "c", "d")
POOLED = {"f1": 0.9, "precision": 0.9, "recall": 0.9}
INTERVAL = {"low": 0.8, "high": 1.0, "basis": "4 sites", "unit": "sites", "reason": ""}


def sites_of(kind: str) -> Sites:
    """Four sites; what changed is a square at the same `position`, or at random, then perhaps `missing` on one date."""
    found = {}
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng(number)
        row, column = (8, 24) if kind == "position" else rng.integers(0, SIDE - 10, 2)
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[row : row + 10, column : column + 10] = 1
        valid = np.ones((3, SIDE, SIDE), bool)
        if kind == "missing share":
            valid[1] = label == 0
        days = np.array([17000.0, 17200.0, 17400.0]) + number
        found[name] = LabelledSite(name, np.zeros((3, 1, SIDE, SIDE), np.float32), valid, days, label)
    grouping = group_sites(dict.fromkeys(NAMES, (SIDE, SIDE)), [], least_px=1, gap_px=0)
    return Sites(found, {}, NAMES, grouping, kind)


def audit(sites: Sites) -> Audit:
    """That of a detector that says 98 % of the pixels rightly."""
    sample, rng = sample_pixels(sites, 400), np.random.default_rng(9)
    labels = {region: sites.all[region.site].label_HW[*pixels.T] == 1 for region, pixels in sample.items()}
    said = {region: label ^ (rng.random(len(label)) > 0.98) for region, label in labels.items()}
    return audit_change(sites, sample, said, lambda: MetadataForest(2, 0), near=0.05, confidence=0.95)


@pytest.mark.parametrize("kind", ["position", "missing share"])
def test_metadata_that_give_changed_pixels_away_shut_the_gate(kind: str) -> None:
    found = audit(sites_of(kind))
    assert kind in found.confounded_by
    by, methods = found.confounded_by, {"net": {"pooled": POOLED, "f1_interval": INTERVAL}}
    verdict = detection_verdict("net", methods, {}, [], margin=0.01, confidence=0.95, confounded_by=by, confounded=found.sentence)
    assert not verdict.allows(even_if_worse=True)
    assert verdict.allows(even_if_confounded=True)
    assert verdict.gate.startswith(NOT_TO_BE_PUBLISHED)
    assert "CONFOUNDED by" in verdict.sentence


def test_change_that_only_images_show_is_no_shortcut() -> None:
    found = audit(sites_of("random"))
    assert found.confounded_by == ()
    assert found.model == pytest.approx(0.98, abs=0.02)


def test_the_sample_is_of_known_pixels_and_of_both_classes() -> None:
    sites = sites_of("random")
    sites.all["a"].label_HW[:5] = 255
    sample = sample_pixels(sites, 300)
    codes = np.concatenate([sites.all[region.site].label_HW[*pixels.T] for region, pixels in sample.items()])
    assert np.bincount(codes).tolist() == [300, 300]
    assert len({(region.site, *pixel) for region, pixels in sample.items() for pixel in pixels.tolist()}) == 600
