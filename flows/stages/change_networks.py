"""What training, judging and predicting of labelled change share: sites on disk, networks by what they left out, and scores."""

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
from configs.tasks.change import ChangeModel
from flows.folder import code_version, require, stage_key
from flows.invocation import Invocation
from flows.stages.change_ingest import label_path
from pipelines.errors import RequestError, StateError
from pipelines.progress import Progress

VALIDATION_WINDOWS = 48  # fixed windows of the training sites on which the training loss is watched
STRIP_GAP_PX = 30  # between the strips of a site, so that windows do not share their surroundings


@dataclass(frozen=True)
class Sites:
    """All sites of a run, decoded; `labelled` are those with a label, and `grouping` is theirs."""

    all: dict[str, Any]  # name -> LabelledSite
    labelled: tuple[str, ...]
    grouping: Any
    snapshots: dict[str, str]
    key: str  # of what the sites were made from

    @property
    def bands(self) -> int:
        return next(iter(self.all.values())).x_TCHW.shape[1]

    @cached_property
    def truths(self) -> dict[str, Any]:
        """name -> Truth of the labelled sites; seen is what at least two dates saw."""
        from pipelines.change.evaluation import Truth

        return {
            name: Truth(np.asarray(self.all[name].label_HW), np.asarray(np.sum(self.all[name].valid_THW, axis=0) >= 2))
            for name in self.labelled
        }


def open_sites(invocation: Invocation, stage: str) -> Sites:
    """The sites of the last ingest, each decoded once. Raises MissingInput, RequestError (bands or dates differ, one class)."""
    from pipelines.change.groups import group_sites
    from pipelines.change.windows import check_classes

    run = invocation.run
    ingested = require(invocation.folder, "ingest", "ingest")
    sites = invocation.steps.do(stage, "prepare the sites", lambda progress: prepare_sites(invocation, ingested, progress))
    labelled = tuple(name for name, about in ingested["sites"].items() if about["label_sha256"])
    check_dates(sites, [run.model, *run.evaluation.compare])
    shapes = {name: sites[name].shape_yx for name in labelled}
    grouping = group_sites(shapes, run.evaluation.groups, least_px=run.training.window_px // 2, gap_px=STRIP_GAP_PX)
    for name, group in zip(grouping.names, grouping.groups, strict=True):
        check_classes(sites.values(), group, f"the group {name}", is_strip=bool(grouping.note))
    key = stage_key(snapshot=ingested["snapshot"], pairs=run.pairs.model_dump(mode="json"))
    snapshots = {name: about["snapshot"] for name, about in ingested["sites"].items()}
    return Sites(sites, labelled, grouping, snapshots, key)


def check_dates(sites: dict[str, Any], models: Sequence[ChangeModel]) -> None:
    """Raises RequestError where a network that compares a pair would be given a series."""
    longer = {name: len(site.days_T) for name, site in sites.items() if len(site.days_T) > 2}
    pair = next((model.kind for model in models if model.kind.startswith("fc_")), None)
    if longer and pair:
        name, dates = next(iter(longer.items()))
        raise RequestError(
            f"{pair} compares exactly 2 dates, and {name} has {dates}; set model.kind to siamese_dcrn or l_unet, or leave "
            "dates out of the site's folder"
        )


def prepare_sites(invocation: Invocation, ingested: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """name -> LabelledSite below runs/NAME/samples; what is up to date there is opened."""
    from pipelines.change.frames import about_site, open_site

    for left in invocation.folder.samples.glob(".*.[0-9]*"):  # half a site that a killed process left; the run's lock is ours
        shutil.rmtree(left, ignore_errors=True)
    sites = {}
    for done, (name, about) in enumerate(ingested["sites"].items()):
        progress(done, len(ingested["sites"]))
        folder = invocation.folder.samples / name
        made_from = {
            "snapshot": about["snapshot"],
            "label": about["label_sha256"],
            "pairs": invocation.run.pairs.model_dump(mode="json"),
            "code": code_version(),
        }
        is_there = about_site(folder) == made_from
        sites[name] = open_site(folder) if is_there else decode_site(invocation, name, about["snapshot"], made_from)
    return sites


def decode_site(invocation: Invocation, name: str, snapshot: str, made_from: dict[str, Any]) -> Any:
    """Measures a site, writes what the networks see of it, and tells what had to be noted on the way."""
    from pipelines.change.frames import measure_change_frame, write_site
    from pipelines.change.pairs import measure_site, site_of_cube
    from pipelines.change.windows import UNKNOWN
    from pipelines.cube.store import open_cube

    site = site_of_cube(name, open_cube(invocation.folder.cube_of(name), snapshot))
    pair = measure_site(site, build_change.build_pair_settings(invocation.run))
    for note in pair.notes:
        invocation.steps.log(f"  {note}")
    for warning in pair.warnings:
        invocation.steps.log(f"  WARNING {warning}")
    frame = measure_change_frame(site, pair)
    path = label_path(invocation.folder, name)
    label_HW = np.load(path, allow_pickle=False) if made_from["label"] else np.full(site.shape_yx, UNKNOWN, np.uint8)
    if label_HW.shape != site.shape_yx:
        raise StateError(f"{path} has shape {label_HW.shape}, the cube of {name} {site.shape_yx}; run `driftline ingest CONFIG`")
    return write_site(site, frame, label_HW, invocation.folder.samples / name, made_from)


# ---------------------------------------------------------------- networks


def network_folder(invocation: Invocation, model: ChangeModel, seed: int, left_out: Sequence[int]) -> Path:
    digest = hashlib.sha256(json.dumps(model.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    groups = "-".join(str(g) for g in left_out)
    return invocation.folder.model / "networks" / f"{model.kind}-{digest}-seed{seed}-without-{groups}"


def train_network(
    invocation: Invocation, sites: Sites, model: ChangeModel, seed: int, left_out: Sequence[int], progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """(network trained on all groups but `left_out`, its training report); goes on where an interrupted call stopped.

    Nothing is chosen on a site that is left out: the epoch that is kept has the smallest loss on fixed windows of the sites
    that it learns from.
    """
    from pipelines.change.windows import ChangeWindows
    from pipelines.learning.training import train

    chosen, regions = invocation.run.training, sites.grouping.outside(left_out)
    number = network_seed(seed, left_out)
    learner = build_change.build_learner(model, sites.bands, number)
    common = {"window_px": chosen.window_px, "changed_share": chosen.changed_share}
    windows = ChangeWindows(
        sites.all,
        regions,
        windows=chosen.windows,
        augment=chosen.augment,
        reverse_time=chosen.reverse_time,
        seed=number,
        **common,
    )
    watched = ChangeWindows(
        sites.all, regions, windows=min(chosen.windows, VALIDATION_WINDOWS), seed=number, is_fixed=True, **common
    )
    report = train(
        learner,
        windows,
        watched,
        build_change.build_change_loss(invocation.run),
        build_change.build_training_settings(invocation.run, number),
        network_folder(invocation, model, seed, left_out),
        progress,
        key=network_key(invocation, sites, model, seed, left_out),
    )
    return learner.members[0], report.to_json()["members"][0]


def network_seed(seed: int, left_out: Sequence[int]) -> int:
    """Another seed for every network, the same wherever it is trained."""
    return int(np.random.SeedSequence([seed, *left_out]).generate_state(1)[0] >> 1)


def network_key(invocation: Invocation, sites: Sites, model: ChangeModel, seed: int, left_out: Sequence[int]) -> str:
    """Everything that the weights of a network depend on."""
    return stage_key(
        sites=sites.key,
        model=model.model_dump(mode="json", exclude={"fuse_with"}),
        training=invocation.run.training.model_dump(mode="json", exclude={"seed"}),
        regions=[str(region) for region in sites.grouping.outside(left_out)],
        seed=seed,
        left_out=list(left_out),
    )


# ---------------------------------------------------------------- scores over whole sites


def logits_of(invocation: Invocation, sites: Sites, network: Any, key: str, name: str) -> np.ndarray:
    """logit_HW of a network over a whole site, a memory map; made once for each `key`."""
    import torch

    from models.change_detector import ChangeDetector
    from pipelines.change.scoring import score_file

    site, alone = sites.all[name], ChangeDetector([network], fuse_with="none").eval()

    def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, days_T: np.ndarray) -> np.ndarray:
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW, days_T))
        return alone.member_logit(0, *tensors).numpy()

    def fill(out_HW: np.ndarray) -> None:
        fill_scores(invocation, site, score, alone.halo_px(len(site.days_T)), alone.stride_px, out_HW)

    return score_file(score_path(invocation, key, name), site.shape_yx, fill)


def index_scores(invocation: Invocation, sites: Sites, index: str, name: str) -> np.ndarray | None:
    """score_HW of the rule that the networks are fused with, on what the networks see; None for "none"."""
    import torch

    from pipelines.change.scoring import score_file

    if index == "none":
        return None
    site, scorer = sites.all[name], build_change.build_change_index(index)  # type: ignore[arg-type]

    def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, _days_T: np.ndarray) -> np.ndarray:
        return scorer.score(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW))).numpy()

    def fill(out_HW: np.ndarray) -> None:
        fill_scores(invocation, site, score, scorer.halo_px(len(site.days_T)), scorer.stride_px, out_HW)

    return score_file(score_path(invocation, stage_key(index=index, sites=sites.key), name), site.shape_yx, fill)


def fill_scores(
    invocation: Invocation,
    site: Any,
    score: Any,
    halo_px: tuple[int, ...] | None,
    stride_px: tuple[int, ...],
    out_HW: np.ndarray,
) -> None:
    """`score` over a decoded site, tile by tile (prediction.tile_px)."""
    from pipelines.change.scoring import score_site

    def read(tile: Any) -> tuple[np.ndarray, np.ndarray]:
        return site.x_TCHW[..., tile.rows, tile.columns], site.valid_THW[..., tile.rows, tile.columns]

    score_site(
        read,
        site.days_T,
        site.shape_yx,
        score,
        halo_px=halo_px,
        stride_px=stride_px,
        tile_px=invocation.run.prediction.tile_px,
        out_HW=out_HW,
    )


def score_path(invocation: Invocation, key: str, name: str) -> Path:
    return invocation.folder.path / "scores" / f"{name}-{key[:16]}.npy"


def held_out_of(invocation: Invocation, sites: Sites, model: ChangeModel, network: Any, key: str, group: int) -> list[Any]:
    """The regions of a group as a network sees them that was not trained on it."""
    from pipelines.change.decision import HeldOut

    return [
        HeldOut(
            region,
            logits_of(invocation, sites, network, key, region.site),
            index_scores(invocation, sites, model.fuse_with, region.site),
            sites.truths[region.site],
        )
        for region in sites.grouping.groups[group]
    ]
