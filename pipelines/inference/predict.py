"""Predicts fields for a whole cube, in bounded memory: plan batches, predict one, finish.

    job = plan_job(...)                                   plain values with a key
    prediction = Prediction(job, dataset, ...)            what every worker needs
    for region in open_staging(prediction): predict_batch(prediction, region)   pure: writes only its own region
    finish(prediction)                                    checks that every region exists -> Staged

`predict` does all but the first in this process; a scheduler maps `predict_batch` over the regions instead. Shapes: N usable
dates, T context steps, K target dates, C variables, H rows, W columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from pipelines.errors import ArtefactDamaged, CubeBusy, NotPublished, StateError
from pipelines.inference.job import BLEND_PX, Intervals, Prediction, Request, plan_job
from pipelines.inference.staging import Field, Record, Staged, append_record, read_header, read_records, start_ledger
from pipelines.inference.window import Strip, blend
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.tiles import Box

logger = logging.getLogger(__name__)


def predict(prediction: Prediction, workers: int = 1, progress: Progress | None = None) -> Staged:
    """Predicted fields of the whole cube in the prediction's folder, float32, NaN where no usable date shows the pixel.

    Called again with the same job after a kill, it resumes; the bytes equal those of an undisturbed run. Called with another
    job, it starts again. `progress` counts batches. Raises CubeBusy if another process predicts into the folder, StorageFull.
    """
    prediction.folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(prediction.folder):
        missing = open_staging(prediction)
        total = len(prediction.job.batches())
        if progress:
            progress(total - len(missing), total)
        for done, record in enumerate(_predict_all(prediction, missing, workers), start=total - len(missing) + 1):
            append_record(prediction.folder, record)
            if progress:
                progress(done, total)
        return finish(prediction)


def _predict_all(prediction: Prediction, regions: Sequence[Box], workers: int) -> Iterator[Record]:
    """Records as batches finish. Uses threads: reading and torch both release the interpreter lock."""
    if workers <= 1 or len(regions) <= 1:
        yield from (predict_batch(prediction, region) for region in regions)
        return
    share = max(1, torch.get_num_threads() // workers)  # each thread has its own OpenMP team
    with ThreadPoolExecutor(workers, "predict", initializer=torch.set_num_threads, initargs=(share,)) as pool:
        futures = [pool.submit(predict_batch, prediction, region) for region in regions]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def predict_fields(
    request: Request, forecaster: Forecaster, intervals: Intervals, staging: Path, tile_px: int, margin_px: int, workers: int,
    model_hash: str, progress: Progress | None = None,
) -> Staged:  # fmt: skip
    """The fields of the forecast and its bounds, in the folder `staging`; see `predict`.

    margin_px: what the windows saw around their tile when they were scored; a method without a finite halo gets as much here, as
    far as tiles are twice as wide.
    """
    dataset, variables, steps = request.dataset, request.variables, request.steps
    job = plan_job(
        dataset, request.snapshot, forecaster, variables, steps, intervals, tile_px=tile_px,
        blend_px=max(BLEND_PX, min(margin_px, tile_px // 2)), model_hash=model_hash, covariates=request.covariates,
    )  # fmt: skip
    return predict(Prediction(job, dataset, forecaster, intervals, staging, request.covariates), workers, progress)


def _exclusive(staging: Path) -> FileLock:
    lock = FileLock(staging / "lock", timeout=0)  # held by the kernel, released when its owner ends
    try:
        lock.acquire()
    except Timeout as e:
        raise CubeBusy(f"{staging}: another process predicts into this folder; wait for it or choose another run") from e
    return lock


def open_staging(prediction: Prediction) -> list[Box]:
    """The regions still to be predicted; creates the files and the ledger of this job if there are none.

    Regions in the ledger are verified by checksum; mismatches are predicted again.
    """
    job, folder, staged = prediction.job, prediction.folder, prediction.staged
    header = read_header(folder)
    if header is None or header.get("key") != job.key:
        for old in folder.glob("*.f32"):
            old.unlink()
        staged.allocate()
        fields = [[f.target, f.variable, f.role] for f in job.fields]
        start_ledger(folder, {"key": job.key, "fields": fields, "shape": job.shape, "tile_px": job.tile_px})
        return list(job.batches())
    finished = {record.region: record.sha256 for record in read_records(folder)}
    missing = []
    for region in job.batches():
        sha256 = finished.get(region.key)
        if sha256 is None:
            missing.append(region)
        elif staged.checksum(region, job.tile_px) != sha256:
            logger.warning("%s: region %s differs from its ledger entry; it is predicted again", folder, region.key)
            missing.append(region)
    return missing


def finish(prediction: Prediction) -> Staged:
    """The finished fields. Raises StateError if the ledger lacks a region, ArtefactDamaged if a forecast is NaN everywhere."""
    finished = {record.region for record in read_records(prediction.folder)}
    regions = [region.key for region in prediction.job.batches()]
    missing = [region for region in regions if region not in finished]
    if missing:
        raise StateError(
            f"{prediction.folder}: {len(missing)} of {len(regions)} regions are not predicted, first {missing[0]}; run again"
        )
    staged, job = prediction.staged, prediction.job
    for field in (field for field in staged.fields if field.role == "forecast"):
        if not any(np.isfinite(staged.read(field, region.slices[0])).any() for region in job.batches()):
            raise ArtefactDamaged(
                f"the forecast of {field.variable} for target {field.target + 1} has no number on any pixel: no date that may be "
                "used shows one, or the model is damaged (then run `driftline train CONFIG`); nothing was published"
            )
    return staged


def predict_batch(prediction: Prediction, region: Box) -> Record:
    """Predicts one region and writes it to the files; idempotent. The caller appends the record to the ledger."""
    job, intervals, strip = prediction.job, prediction.intervals, Strip(prediction, region)
    record = Record(region.key, "")
    with prediction.staged.writing() as writer:
        if job.halo_px is None:
            y_KCHW, record = blend(strip, region, intervals)
        for tile in region.cut(job.tile_px):
            y = strip.forecast(tile) if job.halo_px is not None else y_KCHW[:, :, *tile.within(region)]
            writer.write(tile, _blocks(prediction, y))
        return replace(record, sha256=writer.digest.hexdigest())


def _blocks(prediction: Prediction, y_KCHW: np.ndarray) -> dict[Field, np.ndarray]:
    """The fields of a tile, clipped to their variable's valid range, such as rain >= 0 or NDVI <= 1. NaN stays."""
    arrays = {"forecast": y_KCHW}
    if prediction.intervals is not None:
        arrays["lower"], arrays["upper"] = map(np.asarray, prediction.intervals.bounds(y_KCHW))
    number = {variable.name: c for c, variable in enumerate(prediction.job.variables)}
    blocks = {}
    for field in prediction.job.fields:
        c = number[field.variable]
        limits, image_HW = prediction.job.variables[c].valid_range, arrays[field.role][field.target, c]
        blocks[field] = image_HW if limits is None else np.clip(image_HW, np.float32(limits[0]), np.float32(limits[1]))
    return blocks


@dataclass(frozen=True)
class SeamError:
    """Disagreement of overlapping windows of a network with an unbounded halo, over `count` values; 0 with exact halos.

    `mean` and `largest` in physical units, over all variables; `share` is the mean in half widths of the intervals,
    infinite without intervals or with intervals of width 0.
    """

    mean: float = 0.0
    largest: float = 0.0
    share: float = 0.0
    count: int = 0


def seam_error(staging: Path) -> SeamError:
    records = [record for record in read_records(staging) if record.seam_count]
    count = sum(record.seam_count for record in records)
    if not count:
        return SeamError()
    mean, share = (sum(getattr(r, name) * r.seam_count for r in records) / count for name in ("seam_mean", "seam_share"))
    return SeamError(mean, max(r.seam_max for r in records), share, count)


def check_seam(staging: Path, max_seam: float, *, must_agree: bool = True) -> SeamError:
    """The seam error. Raises NotPublished if its share is above `max_seam`, unless that is allowed."""
    seam = seam_error(staging)
    if must_agree and not seam.share <= max_seam:
        raise NotPublished(
            f"{staging}: overlapping tiles of the network, which has no finite halo, disagree by {seam.share:.3f} half widths of "
            f"the prediction intervals on average; prediction.max_seam allows {max_seam:g}. Raise prediction.tile_px, or use a "
            "network with a finite halo"
        )
    return seam
