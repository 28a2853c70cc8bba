"""Detector + places -> published change: probability and mask per place, patches, pictures; then the report."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.folder import finished, require, stage_key, write_json
from flows.invocation import Invocation
from flows.stages.change_networks import Places, logits_of, open_places, rule_scores
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
    places = open_places(invocation, "predict")
    names = wanted_places(invocation, places)
    detector = steps.do("predict", "load the detector", lambda progress: load_trained(invocation))
    fields = {
        name: steps.do(
            "predict", f"find change in {name}", partial(predict_place, invocation, places, detector, model_hash, name)
        )
        for name in names
    }
    about = steps.do(
        "predict",
        "write and publish",
        lambda progress: publish(invocation, places, fields, detector.threshold, model_hash, progress),
    )
    dates = [date for facts in about["places"].values() for date in (facts["from_utc"], facts["to_utc"])]
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": model_hash,
        "issue_utc": max(dates),
        "target_utc": sorted({facts["to_utc"] for facts in about["places"].values()}),
        "products": about["products"],
        "places": about["places"],
        "largest": about["largest"],
        "threshold": detector.threshold,
        "even_if_worse": invocation.even_if_worse,
        "message": f"change in {len(names)} places: {sum(p['patches'] for p in about['places'].values())} patches",
    }
    write_json(folder.done("predict"), record)
    return record


def wanted_places(invocation: Invocation, places: Places) -> list[str]:
    """The places to predict. Raises RequestError for one that the run does not have."""
    wanted = invocation.run.prediction.places
    if wanted is None:
        return list(places.all)
    left_out = {one["scene_id"] for one in require(invocation.folder, "ingest", "ingest")["refused"] if one["reason"] == "place"}
    found = [name for name in dict.fromkeys(wanted) if name not in left_out]
    if unknown := [name for name in found if name not in places.all]:
        raise RequestError(
            f"prediction.places names {', '.join(unknown)}, which is no place of this run; the places are {', '.join(places.all)}"
        )
    if not found:
        raise RequestError(f"none of prediction.places ({', '.join(wanted)}) can be used: {invocation.folder.refused} says why")
    return found


def predict_place(
    invocation: Invocation, places: Places, detector: Any, model_hash: str, name: str, progress: Progress
) -> dict[str, Any]:
    """Memory maps `probability` (float32, NaN not seen) and `mask` (uint8) of a place below runs/NAME/staging.

    A part that was learnt from is judged by the network that has not seen it, everything else by all networks.
    """
    from pipelines.learning.change_decision import fused_probability
    from pipelines.samples.change_frames import new_array

    shape_yx = places.all[name].shape_yx
    asked = sorted({m for chosen in members_of(places, detector, name).values() for m in chosen})
    logits = {}
    for done, i in enumerate(asked):
        progress(done, len(asked))
        key = stage_key(detector=model_hash, member=i, places=places.key)
        logits[i] = logits_of(invocation, places, detector.members[i], key, name)
    rule_HW = rule_scores(invocation, places, detector.fuse_with, name)
    staging: Path = invocation.folder.staging / name
    staging.mkdir(parents=True, exist_ok=True)
    p_HW, mask_HW = (
        new_array(staging / f"{what}.npy", dtype, shape_yx) for what, dtype in (("probability", np.float32), ("mask", np.uint8))
    )
    rows = max(1, STRIP_PX // shape_yx[1])
    for tile, chosen in members_of(places, detector, name).items():
        for row in range(tile.row0, tile.row1, rows):
            at = slice(row, min(row + rows, tile.row1)), tile.columns
            rule = None if rule_HW is None else rule_HW[at]
            p_HW[at] = fused_probability(detector, [(i, logits[i][at]) for i in chosen], rule)
            seen = ~np.isnan(p_HW[at])
            mask_HW[at] = np.where(seen, np.where(seen, p_HW[at], 0) >= detector.threshold, NOT_SEEN)
    p_HW.flush()
    mask_HW.flush()
    return {"probability": p_HW, "mask": mask_HW}


def members_of(places: Places, detector: Any, name: str) -> dict[Any, list[int]]:
    """tile -> the members that judge it; later tiles lie over earlier ones."""
    from pipelines.tiles import Tile

    height, width = places.all[name].shape_yx
    chosen = {Tile(0, height, 0, width): list(range(len(detector.members)))}
    for g, group in enumerate(places.grouping.groups):
        chosen |= {region.tile: [g] for region in group if region.place == name}
    return chosen
