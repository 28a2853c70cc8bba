"""Sites -> detector: a network for each group of sites, trained on all the others; calibration, fusion, threshold; saved."""

from functools import partial
from typing import Any

from configs import build_change
from configs.load import config_hash
from flows.folder import code_version, finished, require, stage_key, write_json
from flows.invocation import Invocation
from flows.stages.change_networks import Sites, held_out_of, network_key, open_sites, train_network
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.progress import Progress


def change_train(invocation: Invocation) -> dict[str, Any]:
    """Trains if anything that the detector depends on has changed; hands back the record of the stage."""
    folder, steps = invocation.folder, invocation.steps
    snapshot = require(folder, "ingest", "ingest")["snapshot"]
    key = stage_key(snapshot=snapshot, **sections(invocation))
    record = finished(folder, "train", key)
    if record is not None and is_detector_whole(invocation, record):
        steps.skip("train", "up to date")
        return {**record, "skipped": True}
    sites = open_sites(invocation, "train")
    if sites.grouping.note:
        steps.log(f"  {sites.grouping.note}")
    networks, reports = [], []
    for g, name in enumerate(sites.grouping.names):
        network, report = steps.do("train", f"train without {name}", partial(train_member, invocation, sites, g))
        networks.append(network)
        reports.append(report)
    detector, threshold = steps.do("train", "calibrate and fuse", lambda progress: decide(invocation, sites, networks))
    model_hash = steps.do("train", "save the detector", lambda progress: save(invocation, sites, detector, snapshot))
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": model_hash,
        "made_from": sections(invocation),
        "groups": describe_groups(sites),
        "note": sites.grouping.note,
        "threshold": threshold.value,
        "calibration_f1": threshold.f1,
        "training": {"members": reports},
        "message": f"trained {len(networks)} networks, each without one group of sites",
    }
    write_json(folder.done("train"), record)
    return record


def sections(invocation: Invocation) -> dict[str, Any]:
    """The parts of the config that a detector depends on."""
    run = invocation.run.model_dump(mode="json")
    return {**{name: run[name] for name in ("labels", "pairs", "model", "training")}, "groups": run["evaluation"]["groups"]}


def require_detector(invocation: Invocation) -> dict[str, Any]:
    """The record of the training that this config describes. Raises MissingInput, RequestError."""
    record, requested = require(invocation.folder, "train", "train"), sections(invocation)
    if record.get("made_from", requested) != requested:
        names = [name for name in requested if record["made_from"].get(name) != requested[name]]
        raise RequestError(
            f"the detector in {invocation.folder.model} was trained with another {', '.join(names)} than the config says; "
            "run `driftline train CONFIG` first, or set it back"
        )
    return record


def is_detector_whole(invocation: Invocation, record: dict[str, Any]) -> bool:
    from models.checkpoint import hash_detector

    try:
        return hash_detector(invocation.folder.model) == record["model_hash"]
    except FileNotFoundError:
        return False


def train_member(invocation: Invocation, sites: Sites, group: int, progress: Progress) -> tuple[Any, dict[str, Any]]:
    run = invocation.run
    return train_network(invocation, sites, run.model, run.training.seed, (group,), progress)


def decide(invocation: Invocation, sites: Sites, networks: list[Any]) -> tuple[Any, Any]:
    """(detector, threshold): each network calibrated on the group that it has not seen, the threshold on all of them together."""
    from pipelines.change.decision import fit_decision

    run = invocation.run
    detector = build_change.build_detector(run.model, networks)
    held_out = [
        held_out_of(invocation, sites, run.model, network, network_key(invocation, sites, run.model, run.training.seed, (g,)), g)
        for g, network in enumerate(networks)
    ]
    return detector.eval(), fit_decision(detector, held_out, build_change.log_score())


def describe_groups(sites: Sites) -> dict[str, list[str]]:
    return {
        name: [f"{region.site} {region.tile.key}" if sites.grouping.note else region.site for region in group]
        for name, group in zip(sites.grouping.names, sites.grouping.groups, strict=True)
    }


def save(invocation: Invocation, sites: Sites, detector: Any, snapshot: str) -> str:
    from models.checkpoint import save_detector

    run = invocation.run
    metadata = {
        "run": run.name,
        "task": run.task,
        "bands": [band.name for band in run.source.bands],
        "pairs": run.pairs.model_dump(mode="json"),
        "left_out": describe_groups(sites),
        "cube_snapshot": snapshot,
        "training": run.training.model_dump(mode="json"),
        "config_sha256": config_hash(run),
        "code_version": code_version(),
    }
    return save_detector(detector, invocation.folder.model, metadata)


def load_trained(invocation: Invocation) -> Any:
    """The detector that was trained here. Raises MissingInput or ArtefactDamaged, also for a whole one of another training."""
    from models.checkpoint import CheckpointDamaged, hash_detector, load_detector

    trained = require(invocation.folder, "train", "train")
    try:
        detector, _ = load_detector(invocation.folder.model)
        found = hash_detector(invocation.folder.model)
    except FileNotFoundError as e:
        raise MissingInput(f"{e}; run `driftline train CONFIG`") from e
    except CheckpointDamaged as e:
        raise ArtefactDamaged(f"{e} (delete {invocation.folder.model} and run `driftline train CONFIG`)") from e
    if found != trained["model_hash"]:
        raise ArtefactDamaged(
            f"{invocation.folder.model} holds the detector {found[:12]}, but {trained['model_hash'][:12]} was trained here: "
            "run `driftline train CONFIG`, which makes it anew, or put it back"
        )
    return detector
