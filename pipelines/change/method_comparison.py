"""Every method of labelled change on sites that it has not seen: detectors, change indices, and the evaluation of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.change.area_estimates import estimate_area
from pipelines.change.decision import fit_detector, fused_probability
from pipelines.change.evaluation import MethodScores, evaluate_index
from pipelines.change.intervals import Groups, f1_difference
from pipelines.change.metrics import Counts, Reliability
from pipelines.change.networks import Do, NamedIndex, Recipe, TrainedNetwork, train_networks
from pipelines.change.score_work import make_scores
from pipelines.change.shortcut_audit import sample_pixels
from pipelines.change.site_scores import SiteScores
from pipelines.change.sites import Sites
from pipelines.learning.result import Criterion, Evaluation, Figure, detection_verdict
from pipelines.learning.shortcuts import Audit
from pipelines.predictors import ChangeDetector
from pipelines.progress import Progress

AREA_SAMPLE_PX = 1000  # pixels of a site that its area estimate is drawn from
FIGURES = ("f1", "precision", "recall", "iou", "average_precision")
PROTOCOL = (
    "Each group of sites (strips, where sites are too few) is left out in turn; networks, calibration, fusion and threshold "
    "are chosen on the other groups, and what was left out is scored once."
)


@dataclass(frozen=True)
class Comparison:
    """What is asked of the first method: a pooled F1 larger by `margin` than all in `must_beat`. `groups` count as one site."""

    must_beat: tuple[str, ...]
    margin: float
    confidence: float
    groups: tuple[tuple[str, ...], ...]


def score_detectors(
    scores: SiteScores, methods: Mapping[str, Sequence[Mapping[str, Recipe]]], folder: Path, do: Do
) -> dict[str, list[MethodScores]]:
    """name of a variant -> its scores for each seed. `methods`: model -> for each seed the recipes of its variants, by name."""
    scored: dict[str, list[MethodScores]] = {}
    for name, variants in ((name, variants) for name, seeds in methods.items() for variants in seeds):
        recipe = next(iter(variants.values()))
        left_out, text = list(combinations(range(len(scores.sites.grouping)), 2)), f"train {name}, seed {recipe.seed},"
        networks = train_networks(scores.sites, recipe, left_out, folder, do, text)
        for variant, one in variants.items():
            wanted = [found for pair, net in networks.items() for g in pair for found in scores.of_group(net, one.fused, g)]
            make_scores(scores, wanted, do, f"score sites by {variant}, seed {recipe.seed}")
            work = partial(evaluate_detector, scores, one, networks)
            scored.setdefault(variant, []).append(do(f"evaluate {variant}, seed {recipe.seed}", work))
    return scored


def evaluate_detector(
    scores: SiteScores, recipe: Recipe, networks: Mapping[tuple[int, ...], TrainedNetwork], progress: Progress
) -> MethodScores:
    """Each group scored by those `networks` (key: the two groups left out) that have not seen it, fitted on the other groups."""
    sites, method = scores.sites, MethodScores(reliability=Reliability(), audited=sample_pixels(scores.sites))
    for outer, (name, group) in enumerate(zip(sites.grouping.names, sites.grouping.groups, strict=True)):
        progress(outer, len(sites.grouping))
        others = [g for g in range(len(sites.grouping)) if g != outer]
        members = [networks[min(outer, h), max(outer, h)] for h in others]
        detector, threshold = fit_detector(scores, recipe, members, others)
        method.thresholds[name] = threshold.value
        for region in group:
            logits = [(i, scores.logits(region.site, one.detector, 0, one.key)) for i, one in enumerate(members)]
            p_HW = fused_probability(detector, logits, scores.fused_index(region.site, recipe.fused))
            method.add(region, p_HW, threshold.value, sites.truths[region.site])
    return method


def evaluate_trained(
    scores: SiteScores, detector: ChangeDetector, model_hash: str, fused: NamedIndex | None, progress: Progress
) -> MethodScores:
    """A detector that was trained on other sites, all its networks and its threshold as they are, on every group."""
    sites, method = scores.sites, MethodScores(reliability=Reliability())
    for done, (name, group) in enumerate(zip(sites.grouping.names, sites.grouping.groups, strict=True)):
        progress(done, len(sites.grouping))
        method.thresholds[name] = detector.threshold
        for region in group:
            members = scores.of_detector(region.site, detector, model_hash, range(len(detector.members)))
            logits = [(i, scores.of(one)) for i, one in members.items()]
            p_HW = fused_probability(detector, logits, scores.fused_index(region.site, fused))
            method.add(region, p_HW, detector.threshold, sites.truths[region.site])
    return method


def score_indices(scores: SiteScores, indices: Sequence[NamedIndex], do: Do) -> dict[str, list[MethodScores]]:
    """name -> scores: every index with a threshold chosen on the other groups, then with one that needs no labels."""
    scored = {one.name: do(f"evaluate {one.name}", partial(evaluate_reference, scores, one)) for one in indices}
    scored |= dict(evaluate_without_labels(scores, one) for one in indices)
    return {name: [one] for name, one in scored.items()}


def evaluate_reference(scores: SiteScores, named: NamedIndex, progress: Progress) -> MethodScores:
    """A change index, its scores comparable between sites and its threshold chosen on the other groups."""
    sites, comparable = scores.sites, {}
    for done, name in enumerate(sites.labelled):
        progress(done, len(sites.labelled))
        comparable[name] = scores.comparable(name, named)
    return evaluate_index(sites.grouping, comparable, sites.truths)


def evaluate_without_labels(scores: SiteScores, named: NamedIndex) -> tuple[str, MethodScores]:
    """(`index, threshold's name`, scores) with the threshold that the index's literature sets without labels, site by site."""
    sites, method, title = scores.sites, MethodScores(), ""
    for name in sites.labelled:
        score_HW = scores.reference(name, named)
        title, threshold = named.threshold_of(score_HW, sites.bands)
        method.thresholds[name] = threshold
        for region in (region for group in sites.grouping.groups for region in group if region.site == name):
            method.add(region, score_HW, threshold, sites.truths[name])
    return f"{named.name}, {title}", method


def conclude(
    scored: Mapping[str, Sequence[MethodScores]],
    asked: Comparison,
    sites: Sites,
    pixel_m2: Mapping[str, float],
    audit: Audit | None,
    _progress: Progress,
) -> Evaluation:
    """Everything measured, and the verdict on the first method. `scored`: name -> its scores, one for each seed.

    `audit`: of shortcuts; None for a model that has not learnt from these labels. `pixel_m2`: site -> area of a pixel. The first
    seed counts; the others show the spread. Of each site the changed area is mapped, labelled, and estimated from a sample of
    pixels as if only these had been labelled.
    """
    shipped, note, margin = next(iter(scored)), sites.grouping.note, asked.margin
    methods = {name: describe_method(seeds, asked.confidence, asked.groups) for name, seeds in scored.items()}
    ours, others = scored[shipped][0], {name: seeds[0].blocks_B3 for name, seeds in scored.items() if name != shipped}
    differences = {name: f1_difference(ours.blocks_B3, other, asked.groups, asked.confidence) for name, other in others.items()}
    confounded_by, confounded = (audit.confounded_by, audit.sentence) if audit else ((), "")
    verdict = detection_verdict(
        shipped, methods, differences, asked.must_beat, margin=margin, confidence=asked.confidence, are_strips=bool(note),
        confounded_by=confounded_by, confounded=confounded,
    )  # fmt: skip
    details = {
        "groups": sites.grouping.describe(),
        "note": note,
        "confidence": asked.confidence,
        "methods": methods,
        "differences": {name: {**one.to_json(), "outcome": one.outcome(margin)} for name, one in differences.items()},
        "area": {
            name: estimate_area(ours.counts[name], area_m2, AREA_SAMPLE_PX, asked.confidence)
            for name, area_m2 in pixel_m2.items()
        },
        "audit": audit.to_json() if audit else None,
    }
    asked_of = [Criterion(f"F1 above {name}", differences[name].value, margin) for name in asked.must_beat]
    return Evaluation(
        shipped=shipped,
        methods={name: figures_of(method) for name, method in methods.items()},
        verdict=verdict,
        criteria=(*asked_of, *(audit.criteria if audit else ())),
        details=details,
        notes=(*([note] if note else []), *(audit.notes if audit else ())),
        protocol=PROTOCOL,
    )


def describe_method(seeds: Sequence[MethodScores], confidence: float, groups: Groups = ()) -> dict[str, Any]:
    """The first seed's figures and, where there are several, the spread of the pooled F1 over all of them."""
    f1s = [f1 for f1 in (sum(one.counts.values(), Counts()).f1 for one in seeds) if f1 is not None]
    spread = None
    if len(f1s) > 1:  # the standard deviation of a sample
        figures = {"mean": np.mean(f1s), "std": np.std(f1s, ddof=1), "min": np.min(f1s), "max": np.max(f1s)}
        spread = {"seeds": len(f1s), **{name: float(value) for name, value in figures.items()}}
    return {**seeds[0].to_json(confidence, groups), "f1_of_seeds": f1s, "spread": spread}


def figures_of(method: Mapping[str, Any]) -> dict[str, Figure]:
    """The flat figures of a method: pooled ones, the spread over seeds, and F1 of every site."""
    pooled, spread = method["pooled"], method["spread"]
    of_sites = {f"f1_{site}": scores["f1"] for site, scores in method["sites"].items()}
    return {**{key: pooled[key] for key in FIGURES}, "spread": spread["std"] if spread else None, **of_sites}


def markdown_table(methods: Mapping[str, Mapping[str, Any]], shipped: str) -> list[str]:
    """The lines of a table of methods (`describe_method`), one a line: pooled figures, then F1 per site."""
    basis, sites = methods[shipped]["f1_interval"]["basis"], list(methods[shipped]["sites"])
    rows = [["method", "F1", f"interval ({basis})", "seeds", "P", "R", "IoU", "AP", *sites]]
    for name, method in methods.items():
        pooled, interval, spread = method["pooled"], method["f1_interval"], method["spread"]
        figures = [pooled[key] for key in FIGURES] + [method["sites"][site]["f1"] for site in sites]
        f1, *others = ("undefined" if value is None else f"{value:.3f}" for value in figures)
        reach = "" if interval["low"] is None else f"{interval['low']:.3f} to {interval['high']:.3f}"
        over_seeds = f"{spread['mean']:.3f} ± {spread['std']:.3f}" if spread else ""
        rows.append([f"**{name}**" if name == shipped else name, f1, reach, over_seeds, *others])
    head, *lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *lines]
