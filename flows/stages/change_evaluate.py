"""Detector -> verdict: every group of places left out in turn, the rules and other models judged in the same way."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from configs import build_change
from configs.change import ChangeModel, Rule
from flows.folder import read_json, stage_key
from flows.invocation import Invocation
from flows.stages.change_networks import Places, held_out_of, logits_of, network_key, open_places, rule_scores, train_network
from flows.stages.change_train import describe_groups, require_detector
from flows.stages.verdict import standing_verdict, write_verdict
from pipelines.progress import Progress

AREA_SAMPLE_PX = 1000  # pixels of a place that its area estimate looks at
FUSED_RULE = "change_vector"  # measured in the place's own deviations
ALONE = "alone"  # a network without the rule


def change_evaluate(invocation: Invocation) -> dict[str, Any]:
    """Evaluates if the detector or the settings have changed; hands back the record of the stage."""
    from pipelines.learning.change_judging import markdown_table

    steps = invocation.steps
    trained = require_detector(invocation)
    run = invocation.run.model_dump(mode="json")
    key = stage_key(trained=trained["key"], model=trained["model_hash"], evaluation=run["evaluation"])
    if (record := standing_verdict(invocation, key)) is not None:
        steps.skip("evaluate", "up to date")
        return {**record, **headline(read_change_evaluation(invocation)), "skipped": True}
    places = open_places(invocation, "evaluate")
    models, automatic = judge_models(invocation, places), judge_automatic(invocation, places)
    rules = judge_rules(invocation, places)
    content = steps.do("evaluate", "compare", lambda progress: tabulate(invocation, places, models, rules, automatic))
    record = write_verdict(invocation, key, content, trained)
    invocation.folder.evaluation.with_suffix(".md").write_text("\n".join(markdown_table(content)) + "\n", encoding="utf-8")
    return {**record, **headline(content)}


def read_change_evaluation(invocation: Invocation) -> dict[str, Any]:
    return read_json(invocation.folder.evaluation, "run `driftline evaluate CONFIG`")


def headline(content: dict[str, Any]) -> dict[str, Any]:
    """Verdict and pooled figures, for `--json`."""
    return {"verdict": content["verdict"], "metrics": {name: m["pooled"] for name, m in content["methods"].items()}}


# ---------------------------------------------------------------- models


def judge_models(invocation: Invocation, places: Places) -> dict[str, list[Any]]:
    """name -> one Judged per seed: the config's model first, then those that it is compared with, each also without the rule."""
    run = invocation.run
    methods: dict[str, list[Any]] = {}
    for name, model in name_models([run.model, *run.evaluation.compare]).items():
        for seed in range(run.training.seed, run.training.seed + run.evaluation.seeds):
            networks = train_pairs(invocation, places, name, model, seed)
            for variant, fused in variants_of(name, model).items():
                work = partial(judge_model, invocation, places, fused, networks, seed)
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
    invocation: Invocation, places: Places, name: str, model: ChangeModel, seed: int
) -> dict[tuple[int, ...], tuple[Any, str]]:
    """(the two groups left out) -> (network, its key)."""
    networks = {}
    for pair in places.grouping.pairs():
        words = " and ".join(places.grouping.names[g] for g in pair)
        work = partial(train_network, invocation, places, model, seed, pair)
        network, _ = invocation.steps.do("evaluate", f"train {name} without {words}, seed {seed}", work)
        networks[pair] = network.eval(), network_key(invocation, places, model, seed, pair)
    return networks


def judge_model(
    invocation: Invocation,
    places: Places,
    model: ChangeModel,
    networks: Mapping[tuple[int, ...], tuple[Any, str]],
    seed: int,
    _progress: Progress | None = None,
) -> Any:
    """The Judged of a model: for each group a detector of the networks that have not seen it, decided on the other groups."""
    from pipelines.learning.change_decision import fit_decision, fused_probability
    from pipelines.learning.change_judging import Judged
    from pipelines.learning.change_metrics import Reliability

    judged = Judged(reliability=Reliability())
    for outer, name in enumerate(places.grouping.names):
        others = places.grouping.others(outer)
        members = [networks[min(outer, h), max(outer, h)] for h in others]
        detector = build_change.build_detector(model, [network for network, _ in members]).eval()
        held_out = [
            held_out_of(invocation, places, model, network, key, h) for (network, key), h in zip(members, others, strict=True)
        ]
        threshold = fit_decision(detector, held_out, build_change.log_score()).value
        judged.thresholds[name] = threshold
        for region in places.grouping.groups[outer]:
            place = region.place
            logits = [(i, logits_of(invocation, places, network, key, place)) for i, (network, key) in enumerate(members)]
            p_HW = fused_probability(detector, logits, rule_scores(invocation, places, model.fuse_with, place))
            judged.add(region, p_HW, threshold, places.truths[place])
    return judged


# ---------------------------------------------------------------- rules


def judge_rules(invocation: Invocation, places: Places) -> dict[str, Any]:
    """rule -> Judged, its scores comparable between places and its threshold chosen on the other groups."""
    from pipelines.learning.change_judging import judge_rule

    judged: dict[str, Any] = {}
    for rule in wanted_rules(invocation):
        scores = {name: comparable_scores(invocation, places, rule, name) for name in places.labelled}
        work = partial(judge_rule, places.grouping, scores, places.truths)
        judged[rule] = invocation.steps.do("evaluate", f"judge {rule}", lambda progress, work=work: work())  # type: ignore[misc]
    return judged


def judge_automatic(invocation: Invocation, places: Places) -> dict[str, Any]:
    """`rule, threshold's name` -> Judged with the threshold that the rule's literature sets without labels, place by place."""
    from pipelines.learning.change_judging import Judged

    methods: dict[str, Any] = {}
    for rule in wanted_rules(invocation):
        for name in places.labelled:
            score_HW = reference_scores(invocation, places, rule, name)
            words, threshold = build_change.automatic_threshold(rule, score_HW, places.bands)
            judged = methods.setdefault(f"{rule}, {words}", Judged())
            judged.thresholds[name] = threshold
            for region in (r for group in places.grouping.groups for r in group if r.place == name):
                judged.add(region, score_HW, threshold, places.truths[name])
    return methods


def wanted_rules(invocation: Invocation) -> list[Rule]:
    chosen = invocation.run.evaluation
    return list(dict.fromkeys([*chosen.references, *chosen.must_beat]))


def comparable_scores(invocation: Invocation, places: Places, rule: Rule, name: str) -> np.ndarray:
    """score_HW for which one threshold serves every place: as it is where it is in the place's deviations, else standardised."""
    from pipelines.learning.change_judging import standardised

    score_HW = reference_scores(invocation, places, rule, name)
    return score_HW if rule == FUSED_RULE else standardised(score_HW, places.truths[name].seen_HW)


def reference_scores(invocation: Invocation, places: Places, rule: Rule, name: str) -> np.ndarray:
    """score_HW of a rule over a whole place, on its dates as `pairs` prepares them; the place is in memory.

    The rule that networks are fused with sees what they see: the same figures, fused or alone.
    """
    import torch

    from pipelines.cube.store import open_cube
    from pipelines.inference.change_predict import score_file
    from pipelines.samples.change_frames import frame_of
    from pipelines.samples.pairs import place_of_cube, read_prepared
    from pipelines.tiles import Tile

    if rule == FUSED_RULE:
        return rule_scores(invocation, places, rule, name)  # type: ignore[return-value]
    folder = invocation.folder
    place = places.all[name]

    def fill(out_HW: np.ndarray) -> None:
        about = places.snapshots[name]
        source = place_of_cube(name, open_cube(folder.cube_of(name), about))
        whole = Tile(0, place.shape_yx[0], 0, place.shape_yx[1])
        x_TCHW, valid_THW = read_prepared(source, frame_of(folder.samples / name).pair, whole)
        out_HW[:] = build_change.build_change_rule(rule).score(torch.from_numpy(x_TCHW), torch.from_numpy(valid_THW)).numpy()

    key = stage_key(reference=rule, places=places.key)
    return score_file(folder.path / "scores" / f"{name}-{key[:16]}.npy", place.shape_yx, fill)


# ---------------------------------------------------------------- table


def tabulate(
    invocation: Invocation,
    places: Places,
    models: dict[str, list[Any]],
    rules: dict[str, Any],
    automatic: dict[str, Any],
) -> dict[str, Any]:
    """Everything measured, as JSON values, and the verdict."""
    from pipelines.learning.change_judging import compare, describe_method
    from pipelines.learning.verdict import judge_detector

    chosen = invocation.run.evaluation
    shipped = next(iter(models))
    everything = {**models, **{name: [one] for name, one in {**rules, **automatic}.items()}}
    methods = {name: describe_method(seeds, chosen.confidence, chosen.groups) for name, seeds in everything.items()}
    others = {name: seeds[0] for name, seeds in everything.items() if name != shipped}
    differences = compare(models[shipped][0], others, chosen.confidence, chosen.groups)
    verdict = judge_detector(
        shipped,
        methods,
        differences,
        chosen.must_beat,
        margin=chosen.margin,
        confidence=chosen.confidence,
        are_strips=bool(places.grouping.note),
    )
    return {
        "model": shipped,
        "groups": describe_groups(places),
        "note": places.grouping.note,
        "confidence": chosen.confidence,
        "methods": methods,
        "differences": {name: {**one.to_json(), "outcome": one.outcome(chosen.margin)} for name, one in differences.items()},
        "area": estimate_places(invocation, places, models[shipped][0]),
        "verdict": verdict.to_json(),
    }


def estimate_places(invocation: Invocation, places: Places, judged: Any) -> dict[str, Any]:
    """Per place the changed area: mapped, labelled, and estimated from a sample of pixels as if only these had been labelled."""
    from pipelines.change.objects import Space
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.learning.change_judging import estimate_area

    areas = {}
    for name in places.labelled:
        grid = grid_of(open_cube(invocation.folder.cube_of(name)))
        pixel_m2 = float(Space.of_grid(grid).pixel_size((np.array([grid.shape_yx]) - 1) / 2)[0])
        areas[name] = estimate_area(judged.counts[name], pixel_m2, AREA_SAMPLE_PX, invocation.run.evaluation.confidence)
    return areas
