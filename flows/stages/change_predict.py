"""Detector + sites -> published change: probability and mask per site, patches, pictures; then the report."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.folder import finished, require, stage_key, write_json
from flows.invocation import Invocation
from flows.stages.change_networks import Sites, index_scores, logits_of, open_sites
from flows.stages.change_report import change_report, product_lines
from flows.stages.change_train import load_trained, require_detector
from flows.stages.reported import is_reported
from flows.stages.verdict import require_verdict
from pipelines.errors import NotPublished, RequestError
from pipelines.progress import Progress

NOT_SEEN = 255
STRIP_PX = 1 << 22


def change_predict(invocation: Invocation) -> dict[str, Any]:
    """Predicts and publishes if anything has changed; hands back the record of the stage.

    Raises NotPublished, after the report is written, if the detector does not beat what it must and `even_if_worse` is not set.
    """
    folder, steps = invocation.folder, invocation.steps
    trained, evaluated = require_detector(invocation), require_verdict(invocation)
    if not evaluated["is_publishable"] and not invocation.even_if_worse:
        steps.skip("predict", "not published: the detector does not beat what it must beat")
        change_report(invocation)
        raise NotPublished(
            f"{evaluated['message']} The report says so: {folder.report}. To publish all the same: --even-if-worse; "
            "to lower the bar: evaluation.must_beat"
        )
    ingested = require(folder, "ingest", "ingest")
    chosen = invocation.run.prediction.model_dump(mode="json")
    key = stage_key(
        detector=trained["model_hash"],
        evaluated=evaluated["key"],
        snapshot=ingested["snapshot"],
        prediction=chosen,
        even_if_worse=invocation.even_if_worse,
    )
    record = finished(folder, "predict", key)
    if record is not None and all((folder.path / name).exists() for name in record["products"]):
        steps.skip("predict", "up to date")
        if not is_reported(invocation):
            change_report(invocation)
        return {**record, "lines": product_lines(folder, record), "skipped": True}
    record = make_change(invocation, key, trained["model_hash"], ingested["snapshot"])
    change_report(invocation)
    return {**record, "lines": product_lines(folder, record)}


def make_change(invocation: Invocation, key: str, model_hash: str, snapshot: str) -> dict[str, Any]:
    from flows.stages.change_products import publish

    folder, steps = invocation.folder, invocation.steps
    sites = open_sites(invocation, "predict")
    names = requested_sites(invocation, sites)
    detector = steps.do("predict", "load the detector", lambda progress: load_trained(invocation))
    fields = {
        name: steps.do("predict", f"find change in {name}", partial(predict_site, invocation, sites, detector, model_hash, name))
        for name in names
    }
    about = steps.do(
        "predict",
        "write and publish",
        lambda progress: publish(invocation, sites, fields, detector.threshold, model_hash, progress),
    )
    dates = [date for facts in about["sites"].values() for date in (facts["from_utc"], facts["to_utc"])]
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": model_hash,
        "issue_utc": max(dates),
        "target_utc": sorted({facts["to_utc"] for facts in about["sites"].values()}),
        "products": about["products"],
        "sites": about["sites"],
        "largest": about["largest"],
        "threshold": detector.threshold,
        "even_if_worse": invocation.even_if_worse,
        "message": f"change in {len(names)} sites: {sum(p['patches'] for p in about['sites'].values())} patches",
    }
    write_json(folder.done("predict"), record)
    return record


def requested_sites(invocation: Invocation, sites: Sites) -> list[str]:
    """The sites to predict. Raises RequestError for one that the run does not have."""
    requested = invocation.run.prediction.sites
    if requested is None:
        return list(sites.all)
    left_out = {one["scene_id"] for one in require(invocation.folder, "ingest", "ingest")["refused"] if one["reason"] == "site"}
    found = [name for name in dict.fromkeys(requested) if name not in left_out]
    if unknown := [name for name in found if name not in sites.all]:
        raise RequestError(
            f"prediction.sites names {', '.join(unknown)}, which is no site of this run; the sites are {', '.join(sites.all)}"
        )
    if not found:
        raise RequestError(f"none of prediction.sites ({', '.join(requested)}) can be used: {invocation.folder.refused} says why")
    return found


def predict_site(
    invocation: Invocation, sites: Sites, detector: Any, model_hash: str, name: str, progress: Progress
) -> dict[str, Any]:
    """Memory maps `probability` (float32, NaN not seen) and `mask` (uint8) of a site below runs/NAME/staging.

    A part that was learnt from is judged by the network that has not seen it, everything else by all networks.
    """
    from pipelines.change.decision import fused_probability
    from pipelines.change.frames import new_array

    shape_yx = sites.all[name].shape_yx
    asked = sorted({m for chosen in members_of(sites, detector, name).values() for m in chosen})
    logits = {}
    for done, i in enumerate(asked):
        progress(done, len(asked))
        key = stage_key(detector=model_hash, member=i, sites=sites.key)
        logits[i] = logits_of(invocation, sites, detector.members[i], key, name)
    index_HW = index_scores(invocation, sites, detector.fuse_with, name)
    staging: Path = invocation.folder.staging / name
    staging.mkdir(parents=True, exist_ok=True)
    p_HW, mask_HW = (
        new_array(staging / f"{what}.npy", dtype, shape_yx) for what, dtype in (("probability", np.float32), ("mask", np.uint8))
    )
    rows = max(1, STRIP_PX // shape_yx[1])
    for tile, chosen in members_of(sites, detector, name).items():
        for row in range(tile.row0, tile.row1, rows):
            at = slice(row, min(row + rows, tile.row1)), tile.columns
            index = None if index_HW is None else index_HW[at]
            p_HW[at] = fused_probability(detector, [(i, logits[i][at]) for i in chosen], index)
            seen = ~np.isnan(p_HW[at])
            mask_HW[at] = np.where(seen, np.where(seen, p_HW[at], 0) >= detector.threshold, NOT_SEEN)
    p_HW.flush()
    mask_HW.flush()
    return {"probability": p_HW, "mask": mask_HW}


def members_of(sites: Sites, detector: Any, name: str) -> dict[Any, list[int]]:
    """tile -> the members that judge it; later tiles lie over earlier ones."""
    from pipelines.tiles import Tile

    height, width = sites.all[name].shape_yx
    chosen = {Tile(0, height, 0, width): list(range(len(detector.members)))}
    for g, group in enumerate(sites.grouping.groups):
        chosen |= {region.tile: [g] for region in group if region.site == name}
    return chosen
