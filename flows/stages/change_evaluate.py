"""Detector -> verdict: every group of sites left out in turn, the rules and other models judged in the same way."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from configs import build_change
from configs.tasks.change import ChangeIndexName, ChangeModel
from flows.folder import read_json, stage_key
from flows.invocation import Invocation
from flows.stages.change_networks import Sites, held_out_of, index_scores, logits_of, network_key, open_sites, train_network
from flows.stages.change_train import describe_groups, require_detector
from flows.stages.verdict import standing_verdict, write_verdict
from pipelines.progress import Progress

AREA_SAMPLE_PX = 1000  # pixels of a site that its area estimate looks at
FUSED_INDEX = "change_vector"  # measured in the place's own deviations
ALONE = "alone"  # a network without the rule


def change_evaluate(invocation: Invocation) -> dict[str, Any]:
    """Evaluates if the detector or the settings have changed; hands back the record of the stage."""
    from pipelines.change.evaluation import markdown_table

    steps = invocation.steps
    trained = require_detector(invocation)
    run = invocation.run.model_dump(mode="json")
    key = stage_key(trained=trained["key"], model=trained["model_hash"], evaluation=run["evaluation"])
    if (record := standing_verdict(invocation, key)) is not None:
        steps.skip("evaluate", "up to date")
        return {**record, **headline(read_change_evaluation(invocation)), "skipped": True}
    sites = open_sites(invocation, "evaluate")
    models, automatic = evaluate_models(invocation, sites), evaluate_automatic(invocation, sites)
    indices = evaluate_indices(invocation, sites)
    content = steps.do("evaluate", "compare", lambda progress: tabulate(invocation, sites, models, indices, automatic))
    record = write_verdict(invocation, key, content, trained)
    invocation.folder.evaluation.with_suffix(".md").write_text("\n".join(markdown_table(content)) + "\n", encoding="utf-8")
    return {**record, **headline(content)}


def read_change_evaluation(invocation: Invocation) -> dict[str, Any]:
    return read_json(invocation.folder.evaluation, "run `driftline evaluate CONFIG`")


def headline(content: dict[str, Any]) -> dict[str, Any]:
    """Verdict and pooled figures, for `--json`."""
    return {"verdict": content["verdict"], "metrics": {name: m["pooled"] for name, m in content["methods"].items()}}


# ---------------------------------------------------------------- models


def evaluate_models(invocation: Invocation, sites: Sites) -> dict[str, list[Any]]:
    """name -> one MethodScores per seed: the config's model, then those to compare with, each also without the change index."""
    run = invocation.run
    methods: dict[str, list[Any]] = {}
    for name, model in name_models([run.model, *run.evaluation.compare]).items():
        for seed in range(run.training.seed, run.training.seed + run.evaluation.seeds):
            networks = train_pairs(invocation, sites, name, model, seed)
            for variant, fused in variants_of(name, model).items():
                work = partial(evaluate_model, invocation, sites, fused, networks, seed)
                methods.setdefault(variant, []).append(invocation.steps.do("evaluate", f"judge {variant}, seed {seed}", work))
    return methods


def name_models(models: Sequence[ChangeModel]) -> dict[str, ChangeModel]:
    """A name for each different model: its kind, with a number where a kind comes twice."""
    named: dict[str, ChangeModel] = {}
    for model in models:
        if model in named.values():
            continue
        count = sum(other.kind == model.kind for other in named.values())
        named[model.kind if not count else f"{model.kind}-{count + 1}"] = model
    return named


def variants_of(name: str, model: ChangeModel) -> dict[str, ChangeModel]:
    """The model as it is and, where it is fused with a rule, the networks alone."""
    if model.fuse_with == "none":
        return {name: model}
    return {name: model, f"{name} {ALONE}": model.model_copy(update={"fuse_with": "none"})}


def train_pairs(
    invocation: Invocation, sites: Sites, name: str, model: ChangeModel, seed: int
) -> dict[tuple[int, ...], tuple[Any, str]]:
    """(the two groups left out) -> (network, its key)."""
    networks = {}
    for pair in sites.grouping.pairs():
        words = " and ".join(sites.grouping.names[g] for g in pair)
        work = partial(train_network, invocation, sites, model, seed, pair)
        network, _ = invocation.steps.do("evaluate", f"train {name} without {words}, seed {seed}", work)
        networks[pair] = network.eval(), network_key(invocation, sites, model, seed, pair)
    return networks


def evaluate_model(
    invocation: Invocation,
    sites: Sites,
    model: ChangeModel,
    networks: Mapping[tuple[int, ...], tuple[Any, str]],
    seed: int,
    _progress: Progress | None = None,
) -> Any:
    """The scores of a model: for each group a detector of the networks that have not seen it, decided on the other groups."""
    from pipelines.change.decision import fit_decision, fused_probability
    from pipelines.change.evaluation import MethodScores
    from pipelines.change.metrics import Reliability

    scores_of_method = MethodScores(reliability=Reliability())
    for outer, name in enumerate(sites.grouping.names):
        others = sites.grouping.others(outer)
        members = [networks[min(outer, h), max(outer, h)] for h in others]
        detector = build_change.build_detector(model, [network for network, _ in members]).eval()
        held_out = [
            held_out_of(invocation, sites, model, network, key, h) for (network, key), h in zip(members, others, strict=True)
        ]
        threshold = fit_decision(detector, held_out, build_change.log_score()).value
        scores_of_method.thresholds[name] = threshold
        for region in sites.grouping.groups[outer]:
            site = region.site
            logits = [(i, logits_of(invocation, sites, network, key, site)) for i, (network, key) in enumerate(members)]
            p_HW = fused_probability(detector, logits, index_scores(invocation, sites, model.fuse_with, site))
            scores_of_method.add(region, p_HW, threshold, sites.truths[site])
    return scores_of_method


# ---------------------------------------------------------------- rules


def evaluate_indices(invocation: Invocation, sites: Sites) -> dict[str, Any]:
    """rule -> MethodScores, its scores comparable between sites and its threshold chosen on the other groups."""
    from pipelines.change.evaluation import evaluate_index

    scores_of_method: dict[str, Any] = {}
    for index in requested_indices(invocation):
        scores = {name: comparable_scores(invocation, sites, index, name) for name in sites.labelled}
        work = partial(evaluate_index, sites.grouping, scores, sites.truths)
        scores_of_method[index] = invocation.steps.do("evaluate", f"judge {index}", lambda progress, work=work: work())  # type: ignore[misc]
    return scores_of_method


def evaluate_automatic(invocation: Invocation, sites: Sites) -> dict[str, Any]:
    """`index, threshold's name` -> MethodScores with the threshold of the index's literature, without labels, site by site."""
    from pipelines.change.evaluation import MethodScores

    methods: dict[str, Any] = {}
    for index in requested_indices(invocation):
        for name in sites.labelled:
            score_HW = reference_scores(invocation, sites, index, name)
            words, threshold = build_change.automatic_threshold(index, score_HW, sites.bands)
            scores_of_method = methods.setdefault(f"{index}, {words}", MethodScores())
            scores_of_method.thresholds[name] = threshold
            for region in (r for group in sites.grouping.groups for r in group if r.site == name):
                scores_of_method.add(region, score_HW, threshold, sites.truths[name])
    return methods


def requested_indices(invocation: Invocation) -> list[ChangeIndexName]:
    chosen = invocation.run.evaluation
    return list(dict.fromkeys([*chosen.references, *chosen.must_beat]))


def comparable_scores(invocation: Invocation, sites: Sites, index: ChangeIndexName, name: str) -> np.ndarray:
    """score_HW for which one threshold serves every site: as it is where it is in the place's deviations, else standardised."""
    from pipelines.change.evaluation import standardised

    score_HW = reference_scores(invocation, sites, index, name)
    return score_HW if index == FUSED_INDEX else standardised(score_HW, sites.truths[name].seen_HW)


def reference_scores(invocation: Invocation, sites: Sites, index: ChangeIndexName, name: str) -> np.ndarray:
    """score_HW of a rule over a whole site, on its dates as `pairs` prepares them; the site is in memory.

    The rule that networks are fused with sees what they see: the same figures, fused or alone.
    """
    import torch

    from pipelines.change.frames import frame_of
    from pipelines.change.pairs import read_prepared, site_of_cube
    from pipelines.change.scoring import score_file
    from pipelines.cube.store import open_cube
    from pipelines.tiles import Tile

    if index == FUSED_INDEX:
        return index_scores(invocation, sites, index, name)  # type: ignore[return-value]
    folder = invocation.folder
    site = sites.all[name]

    def fill(out_HW: np.ndarray) -> None:
        about = sites.snapshots[name]
        source = site_of_cube(name, open_cube(folder.cube_of(name), about))
        whole = Tile(0, site.shape_yx[0], 0, site.shape_yx[1])
        x_TCHW, valid_THW = read_prepared(source, frame_of(folder.samples / name).pair, whole)
        out_HW[:] = build_change.build_change_index(index).score(torch.from_numpy(x_TCHW), torch.from_numpy(valid_THW)).numpy()

    key = stage_key(reference=index, sites=sites.key)
    return score_file(folder.path / "scores" / f"{name}-{key[:16]}.npy", site.shape_yx, fill)


# ---------------------------------------------------------------- table


def tabulate(
    invocation: Invocation,
    sites: Sites,
    models: dict[str, list[Any]],
    indices: dict[str, Any],
    automatic: dict[str, Any],
) -> dict[str, Any]:
    """Everything measured, as JSON values, and the verdict."""
    from pipelines.change.evaluation import compare, describe_method
    from pipelines.learning.verdict import detection_verdict

    chosen = invocation.run.evaluation
    shipped = next(iter(models))
    everything = {**models, **{name: [one] for name, one in {**indices, **automatic}.items()}}
    methods = {name: describe_method(seeds, chosen.confidence, chosen.groups) for name, seeds in everything.items()}
    others = {name: seeds[0] for name, seeds in everything.items() if name != shipped}
    differences = compare(models[shipped][0], others, chosen.confidence, chosen.groups)
    verdict = detection_verdict(
        shipped,
        methods,
        differences,
        chosen.must_beat,
        margin=chosen.margin,
        confidence=chosen.confidence,
        are_strips=bool(sites.grouping.note),
    )
    return {
        "model": shipped,
        "groups": describe_groups(sites),
        "note": sites.grouping.note,
        "confidence": chosen.confidence,
        "methods": methods,
        "differences": {name: {**one.to_json(), "outcome": one.outcome(chosen.margin)} for name, one in differences.items()},
        "area": estimate_sites(invocation, sites, models[shipped][0]),
        "verdict": verdict.to_json(),
    }


def estimate_sites(invocation: Invocation, sites: Sites, scores_of_method: Any) -> dict[str, Any]:
    """Per site the changed area: mapped, labelled, and estimated from a sample of pixels as if only these had been labelled."""
    from pipelines.change.evaluation import estimate_area
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.tracking.objects import Space

    areas = {}
    for name in sites.labelled:
        grid = grid_of(open_cube(invocation.folder.cube_of(name)))
        pixel_m2 = float(Space.of_grid(grid).pixel_size((np.array([grid.shape_yx]) - 1) / 2)[0])
        areas[name] = estimate_area(scores_of_method.counts[name], pixel_m2, AREA_SAMPLE_PX, invocation.run.evaluation.confidence)
    return areas
