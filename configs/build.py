"""What the tasks' configs share -> objects: source, quality mask, grid, bands, variables. Every choice is a visible `match`.

Packages are imported where they are needed: a command that only reads a cube must not wait for torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import sources
from configs.privacy import NAMES_OF_FILES, privacy_of
from configs.run import CubeRun, LandsatQuality, MaskQuality, Run, SclQuality, VariableConfig
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band

if TYPE_CHECKING:
    from torch import Tensor

    from models.baselines.change_indices import ChangeVector, ImageDifference, IrMad, PlainChangeVector
    from models.baselines.class_references import NearestMeanCurve, RandomForest
    from pipelines.cube.ingest import IngestSettings
    from pipelines.samples.variables import Variable
    from pipelines.sources.image_bands import ImageRequest
    from pipelines.sources.layers import BandRequest
    from pipelines.sources.quality import LandsatMask, SclMask, ValueMask
    from pipelines.sources.source import Source


def build_bands(source: sources.SourceDefaults) -> tuple[Band, ...]:
    """Bands with the source's defaults filled in; nodata is None where the files say it."""
    names = ("scale", "offset", "nodata", "unit", "valid_range")

    def fill(band: sources.BandConfig) -> Band:
        return Band(band.name, *(getattr(source if getattr(band, name) is None else band, name) for name in names))

    return tuple(map(fill, source.bands))


def build_request(run: Run) -> BandRequest:
    """What is read of every scene."""
    from pipelines.sources.layers import BandRequest

    source, quality = run.source, run.quality.band if run.quality else None
    in_file = {band.name: band.source for band in source.bands if band.source}
    corrected = {name: getattr(source, name) for name in ("read_as", "crs", "transform")}
    return BandRequest(bands=build_bands(source), in_file=in_file, quality=quality, **corrected)


def build_source(run: CubeRun, path: Path | None = None, left_out: tuple[SceneRefused, ...] = ()) -> Source:
    """The source of scenes; it opens files only when asked. Raises RequestError for scenes that were in memory.

    path: where the scenes lie, in place of `source.path`. left_out: files of patients that de-identification refused.
    """
    source, same_date, requested = run.source, run.cube.same_date, build_request(run)
    if isinstance(source, sources.MemorySource):
        raise RequestError(f"the scenes of {run.name} were in memory (`kind: memory`): pass them to driftline.train again")
    path = path or Path(source.path)
    match source:
        case sources.NetcdfSource():
            from pipelines.sources.series import NetcdfSource

            return NetcdfSource(path, requested, time=source.time, same_date=same_date)
        case sources.FolderSource():
            from pipelines.sources.folder import FolderSource

            return FolderSource(path, requested, pattern=source.pattern, variable=source.variable, same_date=same_date)
        case sources.StackSource():
            from pipelines.sources.series import StackSource

            return StackSource(path, requested, files=source.files, dates=source.dates, same_date=same_date)
        case sources.DicomSource():
            from pipelines.sources.dicom import DicomSource

            series = "" if source.series is None else str(source.series)
            return DicomSource(path, requested.bands[0], series, source.frame_time, left_out)
        case sources.NiftiSource():
            from pipelines.sources.nifti import NiftiSource

            pattern = source.pattern or ""
            return NiftiSource(path, requested.bands[0], pattern, source.frame_time, source.affine, left_out)
        case sources.VideoSource():
            from pipelines.sources.video import VideoSource

            return VideoSource(path, build_image_request(source), source.clip, source.stream, source.frame_time)
        case sources.PicturesSource():
            from pipelines.sources.image_folder import ImageFolderSource

            frames = build_image_request(source)
            return ImageFolderSource(path, frames, source.pattern, source.frame_time, source.times or "", left_out)


def build_image_request(source: sources.PictureDefaults) -> ImageRequest:
    """What is read of every frame of a source without a position."""
    from pipelines.sources.frame_mask import FrameMask
    from pipelines.sources.image_bands import ImageRequest

    mask = FrameMask(tuple(one.box for one in source.mask), None if source.mask_file is None else Path(source.mask_file))
    start = None if source.start is None else np.datetime64(source.start, "ns")
    return ImageRequest(build_bands(source), tuple(source.names_in_files().values()), mask, source.pixel_mm, start)


def build_quality_mask(run: Run) -> SclMask | LandsatMask | ValueMask | None:
    """What turns the quality band into `valid`; None: every pixel with data may be used."""
    from pipelines.sources.quality import LandsatMask, SclMask, ValueMask

    match run.quality:
        case None:
            return None
        case SclQuality() as q:
            return SclMask(tuple(q.keep), q.away_px, q.band)
        case LandsatQuality() as q:
            return LandsatMask(q.collection, q.away_px, band=q.band)
        case MaskQuality() as q:
            return ValueMask(q.band, tuple(q.valid_values), q.away_px)


def build_ingest_settings(run: Run, refused_json: Path, *, retry_refused: bool = False) -> IngestSettings:
    """How scenes are written; the cube carries the part of the config that made it, without names of patients' files."""
    from pipelines.cube.ingest import IngestSettings
    from pipelines.cube.policy import Policy

    made_by = run.model_dump(mode="json", include={"source", "quality", "grid", "cube", "policy"})
    made_by["cube"].pop("staging", None)
    privacy = privacy_of(run)
    if privacy:
        made_by["source"] = {name: value for name, value in made_by["source"].items() if name not in NAMES_OF_FILES}
    attributes = {"driftline_config": json.dumps(made_by, sort_keys=True)} | ({"driftline_privacy": privacy} if privacy else {})
    how = {
        **run.cube.model_dump(exclude={"uri", "staging"}),
        "compute": run.compute.build(),
        "policy": Policy(**run.policy.model_dump()),
    }
    return IngestSettings(**how, attributes=attributes, refused_json=refused_json, retry_refused=retry_refused)


def build_grid(run: CubeRun) -> Grid | None:
    """The grid that the config asks for: whole pixels from the upper-left corner that cover the bounds. None: the scene's."""
    if run.grid is None:
        return None
    left, bottom, right, top = run.grid.bounds
    size = run.grid.resolution
    rows, columns = (math.ceil(round(extent / size, 6)) for extent in (top - bottom, right - left))
    return Grid(run.grid.crs, (size, 0.0, left, 0.0, -size, top), (max(rows, 1), max(columns, 1)))


def grid_notes(run: CubeRun) -> list[str]:
    """A line if the grid that the config asks for is not exactly within its bounds."""
    grid = build_grid(run)
    if grid is None or run.grid is None:
        return []
    asked = tuple(run.grid.bounds)
    if max(abs(one - other) for one, other in zip(asked, grid.bounds_xy, strict=True)) <= 1e-6 * run.grid.resolution:
        return []
    size = " x ".join(f"{extent:.10g}" for extent in (asked[2] - asked[0], asked[3] - asked[1]))
    taken = ", ".join(f"{edge:.10g}" for edge in grid.bounds_xy)
    return [f"grid.bounds: {size} is no multiple of the resolution {run.grid.resolution:g}; the grid has the bounds {taken}"]


def build_variables(variables: Iterable[VariableConfig]) -> tuple[Variable, ...]:
    """What is computed from the bands, in the order of the config."""
    from pipelines.samples.variables import Variable

    return tuple(Variable(v.name, v.formula, tuple(v.bands), v.transform, v.valid_range) for v in variables)


def build_change_index(name: str) -> ImageDifference | ChangeVector | PlainChangeVector | IrMad:
    """A change index of image pairs: it answers `score(x_TCHW, valid_THW) -> score_HW`."""
    from models.baselines.change_indices import ChangeVector, ImageDifference, IrMad, PlainChangeVector

    match name:
        case "image_difference":
            return ImageDifference()
        case "change_vector":
            return ChangeVector()
        case "change_vector_plain":
            return PlainChangeVector()
        case _:
            return IrMad()


def automatic_threshold(name: str, score_HW: np.ndarray | Tensor, bands: int) -> tuple[str, float]:
    """(its name, the threshold) that the index's own literature sets without any label: chi square for IR-MAD, else Otsu."""
    import torch

    from models.baselines.change_indices import chi_square_threshold, otsu_threshold

    if name == "ir_mad":
        return "chi square, 1 %", chi_square_threshold(bands)
    return "Otsu", otsu_threshold(torch.from_numpy(np.array(score_HW)))


def build_class_references(
    names: Iterable[str], classes: int, seed: int
) -> dict[str, Callable[[], RandomForest | NearestMeanCurve]]:
    """What class maps are compared with, by name; each call makes an unfitted one."""
    from models.baselines.class_references import NearestMeanCurve, RandomForest

    known: dict[str, Callable[[], RandomForest | NearestMeanCurve]] = {
        "random_forest": partial(RandomForest, classes, seed),
        "nearest_mean_curve": partial(NearestMeanCurve, classes),
    }
    return {name: known[name] for name in names}
