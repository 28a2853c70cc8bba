"""Predicts fields for a whole cube, in bounded memory: plan batches, predict one, finish.

    job = plan_job(...)                                       the request, as plain values with a key
    for region in plan_batches(...): predict_batch(job, region, ...)   pure: writes only its own region
    finish(job, staging)                                      checks that every region exists -> Staged

`predict` does all three in this process; a scheduler maps `predict_batch` over the regions instead. Shapes: N usable
dates, T context steps, K target dates, C variables, H rows, W columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from filelock import FileLock, Timeout

from pipelines.errors import CubeBusy, NotPublished, StateError
from pipelines.inference.job import Intervals, Job, plan_job
from pipelines.inference.ledger import Record, append_record, read_header, read_records, start_ledger
from pipelines.inference.staging import Field, Staged
from pipelines.inference.tiling import tiles_of
from pipelines.inference.window import Strip, blend
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.variables import Variable
from pipelines.tiles import Tile

logger = logging.getLogger(__name__)


def predict(
    dataset: xr.Dataset,
    snapshot: str,
    forecaster: Forecaster,
    variables: Sequence[Variable],
    context_T: np.ndarray,
    usable_N: np.ndarray,
    target_days_K: np.ndarray,
    intervals: Intervals | None,
    staging: Path,
    tile_px: int = 256,
    *,
    blend_px: int = 32,
    memory_mb: int = 256,
    model_hash: str = "",
    workers: int = 1,
    progress: Progress | None = None,
) -> Staged:
    """Predicted fields of the whole cube in the folder `staging`, float32, NaN where no usable date shows the pixel.

    Called again with the same arguments after a kill, it resumes; the bytes equal those of an undisturbed run. Called with
    other arguments, it starts again. `progress` counts batches. Raises CubeBusy if another process predicts into `staging`,
    StorageFull, RequestError.
    """
    job = plan_job(
        dataset, snapshot, forecaster, variables, context_T, usable_N, target_days_K, intervals,
        tile_px=tile_px, blend_px=blend_px, memory_mb=memory_mb, model_hash=model_hash,
    )  # fmt: skip
    staging.mkdir(parents=True, exist_ok=True)
    with _exclusive(staging):
        missing = open_staging(job, staging)
        total = len(job.batches())
        if progress:
            progress(total - len(missing), total)
        done = total - len(missing)
        for record in _predict_all(job, missing, dataset, forecaster, intervals, staging, workers):
            append_record(staging, record)
            done += 1
            if progress:
                progress(done, total)
        return finish(job, staging)


def _predict_all(
    job: Job, regions: Sequence[Tile], dataset: xr.Dataset, forecaster: Forecaster, intervals: Intervals | None, staging: Path,
    workers: int,
) -> Iterator[Record]:  # fmt: skip
    """Records as batches finish. Uses threads: reading and torch both release the interpreter lock."""
    arguments = (dataset, forecaster, intervals, staging)
    if workers <= 1 or len(regions) <= 1:
        yield from (predict_batch(job, region, *arguments) for region in regions)
        return
    share = max(1, torch.get_num_threads() // workers)  # each thread has its own OpenMP team
    with ThreadPoolExecutor(workers, "predict", initializer=torch.set_num_threads, initargs=(share,)) as pool:
        futures: list[Future[Record]] = [pool.submit(predict_batch, job, region, *arguments) for region in regions]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _exclusive(staging: Path) -> FileLock:
    lock = FileLock(staging / "lock", timeout=0)  # held by the kernel, released when its owner ends
    try:
        lock.acquire()
    except Timeout as e:
        raise CubeBusy(f"{staging}: another process predicts into this folder; wait for it or choose another run") from e
    return lock


def open_staging(job: Job, staging: Path) -> list[Tile]:
    """The regions still to be predicted; creates the files and the ledger of this job if there are none.

    Regions in the ledger are verified by checksum; mismatches are predicted again.
    """
    staged = Staged(staging, job.fields, job.shape_yx)
    header = read_header(staging)
    if header is None or header.get("key") != job.key:
        for old in staging.glob("*.f32"):
            old.unlink()
        staged.allocate()
        fields = [[f.target, f.variable, f.role] for f in job.fields]
        start_ledger(staging, {"key": job.key, "fields": fields, "shape_yx": job.shape_yx, "tile_px": job.tile_px})
        return list(job.batches())
    finished = {record.region: record.sha256 for record in read_records(staging)}
    return [region for region in job.batches() if not _is_intact(staged, region, job.tile_px, finished.get(region.key))]


def _is_intact(staged: Staged, region: Tile, tile_px: int, sha256: str | None) -> bool:
    if sha256 is None:
        return False
    is_same = staged.checksum(region, tile_px) == sha256
    if not is_same:
        logger.warning("%s: region %s differs from its ledger entry; it is predicted again", staged.folder, region.key)
    return is_same


def finish(job: Job, staging: Path) -> Staged:
    """The finished fields. Raises StateError if the ledger lacks a region."""
    finished = {record.region for record in read_records(staging)}
    missing = [region.key for region in job.batches() if region.key not in finished]
    if missing:
        raise StateError(
            f"{staging}: {len(missing)} of {len(job.batches())} regions are not predicted, first {missing[0]}; run again"
        )
    return Staged(staging, job.fields, job.shape_yx)


def predict_batch(
    job: Job, region: Tile, dataset: xr.Dataset, forecaster: Forecaster, intervals: Intervals | None, staging: Path
) -> Record:
    """Predicts one region and writes it to the files in `staging`; idempotent. The caller appends the record to the ledger."""
    staged = Staged(staging, job.fields, job.shape_yx)
    strip = Strip(job, region, dataset, forecaster)
    with staged.writing() as writer:
        if job.halo_px is not None:
            for tile in tiles_of(region, job.tile_px):
                writer.write(tile, _blocks(job, strip.forecast(tile), intervals))
            return Record(region.key, writer.digest.hexdigest())
        y_KCHW, seam = blend(job, region, strip, intervals)
        for tile in tiles_of(region, job.tile_px):
            rows, across = tile.within(region)
            writer.write(tile, _blocks(job, y_KCHW[:, :, rows, across], intervals))
        return replace(seam, sha256=writer.digest.hexdigest())


def _blocks(job: Job, y_KCHW: np.ndarray, intervals: Intervals | None) -> dict[Field, np.ndarray]:
    arrays = {"forecast": y_KCHW}
    if intervals is not None:
        lower, upper = intervals.bounds(y_KCHW)
        arrays |= {"lower": np.asarray(lower), "upper": np.asarray(upper)}
    number = {variable.name: c for c, variable in enumerate(job.variables)}
    return {field: _within(job, arrays[field.role][field.target], number[field.variable]) for field in job.fields}


def _within(job: Job, image_CHW: np.ndarray, c: int) -> np.ndarray:
    """Channel `c` clipped to its variable's valid range, such as rain >= 0 or NDVI <= 1. NaN stays."""
    limits = job.variables[c].valid_range
    image_HW: np.ndarray = image_CHW[c]
    return image_HW if limits is None else np.clip(image_HW, np.float32(limits[0]), np.float32(limits[1]))


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
    """The seam error of all regions in the ledger of `staging`."""
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
