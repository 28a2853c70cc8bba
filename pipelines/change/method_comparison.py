"""Every method of labelled change on sites that it has not seen: detectors, change indices, and the evaluation of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.change.decision import fused_probability
from pipelines.change.detectors import fit_detector
from pipelines.change.evaluation import Comparison, MethodScores, compare, describe_method, estimate_area, evaluate_index
from pipelines.change.metrics import Reliability
from pipelines.change.networks import Do, NamedIndex, Recipe, TrainedNetwork, train_networks
from pipelines.change.site_scores import SiteScores
from pipelines.change.sites import Sites
from pipelines.learning.result import Criterion, Evaluation, Figure, detection_verdict
from pipelines.progress import Progress

AREA_SAMPLE_PX = 1000  # pixels of a site that its area estimate is drawn from
FIGURES = ("f1", "precision", "recall", "iou", "average_precision")
PROTOCOL = (
    "Each group of sites is left out in turn; networks, calibration, fusion and threshold are chosen on the other groups, and "
    "what was left out is scored once."
)


# ---------------------------------------------------------------- detectors


def score_detectors(
    scores: SiteScores, methods: Mapping[str, Sequence[Mapping[str, Recipe]]], folder: Path, do: Do
) -> dict[str, list[MethodScores]]:
    """name of a variant -> its scores for each seed. `methods`: model -> for each seed the recipes of its variants, by name."""
    scored: dict[str, list[MethodScores]] = {}
    for name, seeds in methods.items():
        for variants in seeds:
            recipe = next(iter(variants.values()))
            text = f"train {name}, seed {recipe.seed},"
            networks = train_networks(scores.sites, recipe, scores.sites.grouping.pairs(), folder, do, text)
            for variant, one in variants.items():
                work = partial(evaluate_detector, scores, one, networks)
                scored.setdefault(variant, []).append(do(f"evaluate {variant}, seed {recipe.seed}", work))
    return scored


def evaluate_detector(
    scores: SiteScores,
    recipe: Recipe,
    networks: Mapping[tuple[int, ...], TrainedNetwork],
    progress: Progress,
) -> MethodScores:
    """Each group scored by a detector of the networks that have not seen it, which is fitted on the other groups.

    `networks`: (the two groups left out, the smaller first) -> network.
    """
    sites, scores_of_method = scores.sites, MethodScores(reliability=Reliability())
    for outer, name in enumerate(sites.grouping.names):
        progress(outer, len(sites.grouping))
        others = sites.grouping.others(outer)
        members = [networks[min(outer, h), max(outer, h)] for h in others]
        detector, threshold = fit_detector(scores, recipe, members, others)
        scores_of_method.thresholds[name] = threshold.value
        for region in sites.grouping.groups[outer]:
            site = region.site
            logits = [(i, scores.logits(site, member.detector, 0, member.key)) for i, member in enumerate(members)]
            p_HW = fused_probability(detector, logits, scores.fused_index(site, recipe.fused))
            scores_of_method.add(region, p_HW, threshold.value, sites.truths[site])
    return scores_of_method


# ---------------------------------------------------------------- change indices


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
    sites, scores_of_method, title = scores.sites, MethodScores(), ""
    for name in sites.labelled:
        score_HW = scores.reference(name, named)
        title, threshold = named.threshold_of(score_HW, sites.bands)
        scores_of_method.thresholds[name] = threshold
        for region in (region for group in sites.grouping.groups for region in group if region.site == name):
            scores_of_method.add(region, score_HW, threshold, sites.truths[name])
    return f"{named.name}, {title}", scores_of_method


# ---------------------------------------------------------------- all of them


def conclude(
    scored: Mapping[str, Sequence[MethodScores]],
    asked: Comparison,
    sites: Sites,
    pixel_m2: Mapping[str, float],
    _progress: Progress,
) -> Evaluation:
    """Everything measured, and the verdict on the first method. `scored`: name -> its scores, one for each seed.

    `pixel_m2`: site -> area of a pixel. The first seed counts; the others show the spread.
    """
    shipped, grouping = next(iter(scored)), sites.grouping
    methods = {name: describe_method(seeds, asked.confidence, asked.groups) for name, seeds in scored.items()}
    others = {name: seeds[0] for name, seeds in scored.items() if name != shipped}
    differences = compare(scored[shipped][0], others, asked.confidence, asked.groups)
    verdict = detection_verdict(
        shipped, methods, differences, asked.must_beat,
        margin=asked.margin, confidence=asked.confidence, are_strips=bool(grouping.note),
    )  # fmt: skip
    details = {
        "groups": sites.describe_groups(),
        "note": grouping.note,
        "confidence": asked.confidence,
        "methods": methods,
        "differences": {name: {**one.to_json(), "outcome": one.outcome(asked.margin)} for name, one in differences.items()},
        "area": estimate_sites(scored[shipped][0], pixel_m2, asked.confidence),
    }
    return Evaluation(
        shipped=shipped,
        methods={name: figures_of(method) for name, method in methods.items()},
        verdict=verdict,
        criteria=tuple(Criterion(f"F1 above {name}", differences[name].value, asked.margin) for name in asked.must_beat),
        details=details,
        notes=(grouping.note,) if grouping.note else (),
        protocol=PROTOCOL,
    )


def figures_of(method: Mapping[str, Any]) -> dict[str, Figure]:
    """The flat figures of a method: pooled ones, the spread over seeds, and F1 of every site."""
    pooled, spread = method["pooled"], method["spread"]
    of_sites = {f"f1_{site}": scores["f1"] for site, scores in method["sites"].items()}
    return {**{key: pooled[key] for key in FIGURES}, "spread": spread["std"] if spread else None, **of_sites}


def estimate_sites(scores_of_method: MethodScores, pixel_m2: Mapping[str, float], confidence: float) -> dict[str, dict[str, Any]]:
    """Per site the changed area: mapped, labelled, and estimated from a sample of pixels as if only these had been labelled."""
    counts = scores_of_method.counts
    return {name: estimate_area(counts[name], area_m2, AREA_SAMPLE_PX, confidence) for name, area_m2 in pixel_m2.items()}
