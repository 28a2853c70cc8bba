"""What training, judging and predicting of labelled change share: places on disk, networks by what they left out, and scores."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from configs import build_change
from configs.change import ChangeModel
from flows.folder import code_version, require, stage_key
from flows.invocation import Invocation
from flows.stages.change_ingest import label_path
from pipelines.errors import RequestError, StateError
from pipelines.progress import Progress

WATCHED_WINDOWS = 48  # fixed windows of the training places on which the training loss is watched
STRIP_GAP_PX = 30  # between the strips of a place, so that windows do not share their surroundings


@dataclass(frozen=True)
class Places:
    """All places of a run, decoded; `labelled` are those with a label, and `grouping` is theirs."""

    all: dict[str, Any]  # name -> LabelledPlace
    labelled: tuple[str, ...]
    grouping: Any
    snapshots: dict[str, str]
    key: str  # of what the places were made from

    @property
    def bands(self) -> int:
        return next(iter(self.all.values())).x_TCHW.shape[1]

    @cached_property
    def truths(self) -> dict[str, Any]:
        """name -> Truth of the labelled places; seen is what at least two dates saw."""
        from pipelines.learning.change_judging import Truth

        return {
            name: Truth(np.asarray(self.all[name].label_HW), np.asarray(np.sum(self.all[name].valid_THW, axis=0) >= 2))
            for name in self.labelled
        }


def open_places(invocation: Invocation, stage: str) -> Places:
    """The places of the last ingest, each decoded once. Raises MissingInput, RequestError (bands or dates differ, one class)."""
    from pipelines.learning.change_groups import group_places
    from pipelines.samples.change_windows import check_classes

    run = invocation.run
    ingested = require(invocation.folder, "ingest", "ingest")
    places = invocation.steps.do(stage, "prepare the places", lambda progress: prepare_places(invocation, ingested, progress))
    labelled = tuple(name for name, about in ingested["places"].items() if about["label_sha256"])
    check_dates(places, [run.model, *run.evaluation.compare])
    shapes = {name: places[name].shape_yx for name in labelled}
    grouping = group_places(shapes, run.evaluation.groups, least_px=run.training.window_px // 2, gap_px=STRIP_GAP_PX)
    for name, group in zip(grouping.names, grouping.groups, strict=True):
        check_classes(places.values(), group, f"the group {name}", is_strip=bool(grouping.note))
    key = stage_key(snapshot=ingested["snapshot"], pairs=run.pairs.model_dump(mode="json"))
    snapshots = {name: about["snapshot"] for name, about in ingested["places"].items()}
    return Places(places, labelled, grouping, snapshots, key)


def check_dates(places: dict[str, Any], models: Sequence[ChangeModel]) -> None:
    """Raises RequestError where a network that compares a pair would be given a series."""
    longer = {name: len(place.days_T) for name, place in places.items() if len(place.days_T) > 2}
    pair = next((model.kind for model in models if model.kind.startswith("fc_")), None)
    if longer and pair:
        name, dates = next(iter(longer.items()))
        raise RequestError(
            f"{pair} compares exactly 2 dates, and {name} has {dates}; set model.kind to siamese_dcrn or l_unet, or leave "
            "dates out of the place's folder"
        )


def prepare_places(invocation: Invocation, ingested: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """name -> LabelledPlace below runs/NAME/samples; what is up to date there is opened."""
    from pipelines.samples.change_frames import about_place, open_place

    for left in invocation.folder.samples.glob(".*.[0-9]*"):  # half a place that a killed process left; the run's lock is ours
        shutil.rmtree(left, ignore_errors=True)
    places = {}
    for done, (name, about) in enumerate(ingested["places"].items()):
        progress(done, len(ingested["places"]))
        folder = invocation.folder.samples / name
        made_from = {
            "snapshot": about["snapshot"],
            "label": about["label_sha256"],
            "pairs": invocation.run.pairs.model_dump(mode="json"),
            "code": code_version(),
        }
        is_there = about_place(folder) == made_from
        places[name] = open_place(folder) if is_there else decode_place(invocation, name, about["snapshot"], made_from)
    return places


def decode_place(invocation: Invocation, name: str, snapshot: str, made_from: dict[str, Any]) -> Any:
    """Measures a place, writes what the networks see of it, and tells what had to be noted on the way."""
    from pipelines.cube.store import open_cube
    from pipelines.samples.change_frames import measure_change_frame, write_place
    from pipelines.samples.change_windows import UNKNOWN
    from pipelines.samples.pairs import measure_place, place_of_cube

    place = place_of_cube(name, open_cube(invocation.folder.cube_of(name), snapshot))
    pair = measure_place(place, build_change.build_pair_settings(invocation.run))
    for note in pair.notes:
        invocation.steps.say(f"  {note}")
    for warning in pair.warnings:
        invocation.steps.say(f"  WARNING {warning}")
    frame = measure_change_frame(place, pair)
    path = label_path(invocation.folder, name)
    label_HW = np.load(path, allow_pickle=False) if made_from["label"] else np.full(place.shape_yx, UNKNOWN, np.uint8)
    if label_HW.shape != place.shape_yx:
        raise StateError(f"{path} has shape {label_HW.shape}, the cube of {name} {place.shape_yx}; run `driftline ingest CONFIG`")
    return write_place(place, frame, label_HW, invocation.folder.samples / name, made_from)


# ---------------------------------------------------------------- networks


def network_folder(invocation: Invocation, model: ChangeModel, seed: int, left_out: Sequence[int]) -> Path:
    digest = hashlib.sha256(json.dumps(model.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    groups = "-".join(str(g) for g in left_out)
    return invocation.folder.model / "networks" / f"{model.kind}-{digest}-seed{seed}-without-{groups}"


def train_network(
    invocation: Invocation, places: Places, model: ChangeModel, seed: int, left_out: Sequence[int], progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """(network trained on all groups but `left_out`, its training report); goes on where an interrupted call stopped.

    Nothing is chosen on a place that is left out: the epoch that is kept has the smallest loss on fixed windows of the places
    that it learns from.
    """
    from pipelines.learning.training import train
    from pipelines.samples.change_windows import ChangeWindows

    chosen, regions = invocation.run.training, places.grouping.outside(left_out)
    number = network_seed(seed, left_out)
    learner = build_change.build_learner(model, places.bands, number)
    common = {"window_px": chosen.window_px, "changed_share": chosen.changed_share}
    windows = ChangeWindows(
        places.all, regions, windows=chosen.windows, augment=chosen.augment, swap_dates=chosen.swap_dates, seed=number, **common
    )
    watched = ChangeWindows(
        places.all, regions, windows=min(chosen.windows, WATCHED_WINDOWS), seed=number, is_fixed=True, **common
    )
    report = train(
        learner,
        windows,
        watched,
        build_change.build_change_loss(invocation.run),
        build_change.build_training_settings(invocation.run, number),
        network_folder(invocation, model, seed, left_out),
        progress,
        key=network_key(invocation, places, model, seed, left_out),
    )
    return learner.members[0], report.to_json()["members"][0]


def network_seed(seed: int, left_out: Sequence[int]) -> int:
    """Another seed for every network, the same wherever it is trained."""
    return int(np.random.SeedSequence([seed, *left_out]).generate_state(1)[0] >> 1)


def network_key(invocation: Invocation, places: Places, model: ChangeModel, seed: int, left_out: Sequence[int]) -> str:
    """Everything that the weights of a network depend on."""
    return stage_key(
        places=places.key,
        model=model.model_dump(mode="json", exclude={"fuse_with"}),
        training=invocation.run.training.model_dump(mode="json", exclude={"seed"}),
        regions=[str(region) for region in places.grouping.outside(left_out)],
        seed=seed,
        left_out=list(left_out),
    )


# ---------------------------------------------------------------- scores over whole places


def logits_of(invocation: Invocation, places: Places, network: Any, key: str, name: str) -> np.ndarray:
    """logit_HW of a network over a whole place, a memory map; made once for each `key`."""
    import torch

    from models.change_detector import ChangeDetector
    from pipelines.inference.change_predict import score_file

    place, alone = places.all[name], ChangeDetector([network], fuse_with="none").eval()

    def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, days_T: np.ndarray) -> np.ndarray:
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW, days_T))
        return alone.member_logit(0, *tensors).numpy()

    def fill(out_HW: np.ndarray) -> None:
        fill_scores(invocation, place, score, alone.halo_px(len(place.days_T)), alone.stride_px, out_HW)

    return score_file(score_path(invocation, key, name), place.shape_yx, fill)


def rule_scores(invocation: Invocation, places: Places, rule: str, name: str) -> np.ndarray | None:
    """score_HW of the rule that the networks are fused with, on what the networks see; None for "none"."""
    import torch

    from pipelines.inference.change_predict import score_file

    if rule == "none":
        return None
    place, scorer = places.all[name], build_change.build_change_rule(rule)  # type: ignore[arg-type]

    def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, _days_T: np.ndarray) -> np.ndarray:
        return scorer.score(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW))).numpy()

    def fill(out_HW: np.ndarray) -> None:
        fill_scores(invocation, place, score, scorer.halo_px(len(place.days_T)), scorer.stride_px, out_HW)

    return score_file(score_path(invocation, stage_key(rule=rule, places=places.key), name), place.shape_yx, fill)


def fill_scores(
    invocation: Invocation,
    place: Any,
    score: Any,
    halo_px: tuple[int, ...] | None,
    stride_px: tuple[int, ...],
    out_HW: np.ndarray,
) -> None:
    """`score` over a decoded place, tile by tile (prediction.tile_px)."""
    from pipelines.inference.change_predict import score_place

    def read(tile: Any) -> tuple[np.ndarray, np.ndarray]:
        return place.x_TCHW[..., tile.rows, tile.columns], place.valid_THW[..., tile.rows, tile.columns]

    score_place(
        read,
        place.days_T,
        place.shape_yx,
        score,
        halo_px=halo_px,
        stride_px=stride_px,
        tile_px=invocation.run.prediction.tile_px,
        out_HW=out_HW,
    )


def score_path(invocation: Invocation, key: str, name: str) -> Path:
    return invocation.folder.path / "scores" / f"{name}-{key[:16]}.npy"


def held_out_of(invocation: Invocation, places: Places, model: ChangeModel, network: Any, key: str, group: int) -> list[Any]:
    """The regions of a group as a network sees them that was not trained on it."""
    from pipelines.learning.change_decision import HeldOut

    return [
        HeldOut(
            region,
            logits_of(invocation, places, network, key, region.place),
            rule_scores(invocation, places, model.fuse_with, region.place),
            places.truths[region.place],
        )
        for region in places.grouping.groups[group]
    ]
