"""Predicts fields for a whole cube, in bounded memory: plan regions, predict one, finish.

    job = plan_job(...)                                   plain values with a key
    prediction = Prediction(job, dataset, ...)            what every worker needs
    for region in open_staging(prediction): predict_region(prediction, region)   pure: writes only its own region
    finish(prediction)                                    checks that every region exists -> Staged

`predict` does all but the first, here or on the workers of `compute`; `predict_slice` a share of the regions. Shapes: N usable
dates, T context steps, K target dates, C variables, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.compute import HERE, Compute
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, NotPublished
from pipelines.inference.job import BLEND_PX, Intervals, Job, Prediction, Request, plan_job
from pipelines.inference.regions import Plane, Record, Regions
from pipelines.inference.staged_work import Piece, check_worker, make_all, make_slice, missing_of, pieces_of
from pipelines.inference.staging import Staged
from pipelines.inference.window import Strip, blend
from pipelines.predictors import Forecaster, networks_of
from pipelines.progress import Progress
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import absolute
from pipelines.tiles import Box

if TYPE_CHECKING:
    import xarray as xr


def predict(prediction: Prediction, compute: Compute = HERE, progress: Progress | None = None) -> Staged:
    """Predicted fields of the whole cube in the prediction's folder, float32, NaN where no usable date shows the pixel.

    Called again with the same job after a kill, it resumes; the bytes equal those of an undisturbed run. Called with another
    job, it starts again. `progress` counts regions. Raises CubeBusy if another process predicts into the folder, StorageFull.
    """
    make_all(PredictWork(prediction), compute, progress)
    return finish(prediction)


def predict_slice(prediction: Prediction, share: Slice, compute: Compute = HERE, progress: Progress | None = None) -> SliceDone:
    """Predicts those regions of a slice that are missing. Other slices may be at work beside it."""
    return make_slice(PredictWork(prediction), share, compute, progress)


@dataclass(frozen=True)
class PredictWork:
    """A prediction as work for other processes: models travel by value, the cube by name (`pipelines.compute`)."""

    prediction: Prediction

    @property
    def key(self) -> str:
        return self.prediction.job.key

    @property
    def on_gpu(self) -> bool:
        return bool(self.prediction.job.device)

    @property
    def folder(self) -> str:
        return str(self.prediction.folder)

    @property
    def rasters(self) -> Mapping[str, Regions]:
        return {"": self.prediction.regions}

    def open(self) -> Callable[[Piece], Record]:
        device = self.prediction.job.device
        check_worker(self, device)
        for network in networks_of(self.prediction.forecaster):
            network.to(device or "cpu")
        return lambda piece: predict_region(self.prediction, piece.region)

    def __reduce__(self) -> tuple[Callable[..., PredictWork], tuple[object, ...]]:
        one = self.prediction
        uri = absolute(one.uri) if one.uri else ""
        return _reopened, (
            one.job,
            uri or one.dataset,
            one.forecaster,
            one.intervals,
            absolute(str(one.folder)),
            one.covariates,
            uri,
        )

    def limit(self, threads: int) -> None:
        torch.set_num_threads(threads)  # each thread of ours has its own OpenMP team


def _reopened(job: Job, dataset: xr.Dataset | str, *others: Any) -> PredictWork:
    cube = open_cube(dataset, job.snapshot) if isinstance(dataset, str) else dataset
    return PredictWork(Prediction(job, cube, *others))


def predict_fields(
    request: Request, forecaster: Forecaster, intervals: Intervals, staging: Path | str, tile_px: int, margin_px: int,
    compute: Compute, model_hash: str, progress: Progress | None = None,
) -> Staged:  # fmt: skip
    """The fields of the forecast and its bounds, in the folder `staging`; see `predict`."""
    prediction = plan_prediction(request, forecaster, intervals, staging, tile_px, margin_px, compute, model_hash)
    return predict(prediction, compute, progress)


def plan_prediction(
    request: Request, forecaster: Forecaster, intervals: Intervals, staging: Path | str, tile_px: int, margin_px: int,
    compute: Compute, model_hash: str,
) -> Prediction:  # fmt: skip
    """What is to be predicted for a request.

    margin_px: what the windows saw around their tile when they were scored; a method without a finite halo gets as much here, as
    far as tiles are twice as wide.
    """
    dataset, variables, steps = request.dataset, request.variables, request.steps
    job = plan_job(
        dataset, request.snapshot, forecaster, variables, steps, intervals, tile_px=tile_px,
        blend_px=max(BLEND_PX, min(margin_px, tile_px // 2)), model_hash=model_hash, covariates=request.covariates,
        device="cuda" if compute.gpus else "",
    )  # fmt: skip
    return Prediction(job, dataset, forecaster, intervals, staging, request.covariates, request.uri)


def open_staging(prediction: Prediction) -> list[Box]:
    """The regions still to be predicted; says of those that are damaged that they are."""
    work = PredictWork(prediction)
    return [piece.region for piece in missing_of(work, pieces_of(work))]


def finish(prediction: Prediction) -> Staged:
    """The finished fields. Raises StateError if a region is missing, ArtefactDamaged if a forecast is NaN everywhere."""
    records = prediction.regions.records()
    for field in (field for field in prediction.staged.fields if field.role == "forecast"):
        if not any(record.facts[known(field.plane)] for record in records):
            raise ArtefactDamaged(
                f"the forecast of {field.variable} for target {field.target + 1} has no number on any pixel: no date that may be "
                "used shows one, or the model is damaged (then run `driftline train CONFIG`); nothing was published"
            )
    return prediction.staged


def known(plane: Plane) -> str:
    """The name of the figure that counts the pixels with a forecast."""
    return f"known {plane.name}"


def predict_region(prediction: Prediction, region: Box) -> Record:
    """Predicts one region and writes it; idempotent."""
    job, intervals, strip = prediction.job, prediction.intervals, Strip(prediction, region)
    with prediction.regions.writing(region) as writer:
        if job.halo_px is None:
            y_KCHW, seam = blend(strip, region, intervals)
            writer.add(seam)
        for tile in region.cut(job.tile_px):
            y = strip.forecast(tile) if job.halo_px is not None else y_KCHW[:, :, *tile.within(region)]
            blocks = _blocks(prediction, y)
            writer.write(tile, blocks)
            forecasts = (plane for plane in blocks if plane.name.endswith("-forecast"))
            writer.add({known(plane): int(np.isfinite(blocks[plane]).sum()) for plane in forecasts})
    return prediction.regions.record(region)


def _blocks(prediction: Prediction, y_KCHW: np.ndarray) -> dict[Plane, np.ndarray]:
    """The fields of a tile, clipped to their variable's valid range, such as rain >= 0 or NDVI <= 1. NaN stays."""
    arrays = {"forecast": y_KCHW}
    if prediction.intervals is not None:
        arrays["lower"], arrays["upper"] = map(np.asarray, prediction.intervals.bounds(y_KCHW))
    number = {variable.name: c for c, variable in enumerate(prediction.job.variables)}
    blocks = {}
    for field in prediction.job.fields:
        c = number[field.variable]
        limits, image_HW = prediction.job.variables[c].valid_range, arrays[field.role][field.target, c]
        clipped = image_HW if limits is None else np.clip(image_HW, np.float32(limits[0]), np.float32(limits[1]))
        blocks[field.plane] = clipped
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


def seam_error(staged: Staged) -> SeamError:
    """The disagreement over all regions."""
    facts = [record.facts for record in staged.regions.records() if record.facts.get("seam_count")]
    count = sum(int(one["seam_count"]) for one in facts)
    if not count:
        return SeamError()
    mean, share = (sum(one[name] * one["seam_count"] for one in facts) / count for name in ("seam_mean", "seam_share"))
    return SeamError(mean, max(one["seam_max"] for one in facts), share, count)


def check_seam(staged: Staged, max_seam: float, *, must_agree: bool = True) -> SeamError:
    """The seam error. Raises NotPublished if its share is above `max_seam`, unless that is allowed."""
    seam = seam_error(staged)
    if must_agree and not seam.share <= max_seam:
        raise NotPublished(
            f"{staged.uri}: overlapping tiles of the network, which has no finite halo, disagree by {seam.share:.3f} half widths "
            f"of the prediction intervals on average; prediction.max_seam allows {max_seam:g}. Raise prediction.tile_px, or use "
            "a network with a finite halo"
        )
    return seam
