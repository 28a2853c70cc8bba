"""A commented run config for DICOM or NIfTI files: what `driftline init` proposes for volumes of a patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN, elapsed_text, format_span
from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.dicom import DicomSource, list_series
from pipelines.sources.dicom_files import is_dicom
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.nifti_names import is_nifti
from pipelines.sources.source import Listing
from pipelines.sources.visit_proposal import find_visits, propose_visits

FEWEST_TIMES = 4  # one step of context, one ahead: two to learn from, one each for validation and test
MOST_AHEAD = 5  # times that are forecast, as of rasters
BAND = Band("intensity")
TITLES = {"dicom": "a DICOM series", "nifti": "NIfTI volumes"}
NO_STEP_NS = 1_000_000_000  # between times that are not there
DAY_NS = 86_400_000_000_000
SAMPLED = 200  # files that are looked at to know a folder by


def kind_of(path: Path) -> str:
    """`dicom` or `nifti` for a file of that kind, a DICOMDIR, or a folder that holds such files (the more frequent); else ""."""
    files = [path] if path.is_file() else [one for _, one in zip(range(SAMPLED), path.rglob("*"), strict=False)]
    counts = {"nifti": sum(map(is_nifti, files)), "dicom": sum(map(is_dicom, files))}
    return max(counts, key=lambda kind: counts[kind]) if any(counts.values()) else ""


def propose_volumes(path: Path, name: str, task: str, kind: str, written_as: str) -> str:
    """The text of a valid config; every guess has a comment. Raises RequestError where nothing can be read."""
    if task != "forecast":
        raise RequestError(f"{path} holds volumes of a patient; `driftline init` proposes forecasts of them, not a {task} run")
    visits = find_visits(path) if kind == "nifti" and path.is_dir() else None
    if visits is not None and visits.has_own_grids:
        return propose_visits(path, name, written_as, visits)
    source: DicomSource | NiftiSource = NiftiSource(path, BAND)
    chosen, others = "", list[str]()
    if kind == "dicom":
        source, others = DicomSource(path, BAND), list_series(path)
        if len(others) > 1:
            chosen, source = _largest(source, len(others))
    listing = source.list_scenes()
    if not listing.scenes:
        raise RequestError(f"{path} holds no time that can be read: {listing.refused[0]}")
    return "\n".join(_lines(source, listing, name, kind, written_as, chosen, others)) + "\n"


def _largest(source: DicomSource, count: int) -> tuple[str, DicomSource]:
    """The series with the most times among those that are volumes, as the config names it. Raises RequestError if none is."""
    best, most, problem = "", 0, ""
    for k in range(1, count + 1):
        try:
            times = len(replace(source, series=f"#{k}").list_scenes().scenes)
        except RequestError as e:
            problem = problem or str(e)
            continue
        if times > most:
            best, most = f"#{k}", times
    if not best:
        raise RequestError(f"none of the {count} series can be read as volumes; the first: {problem}")
    return best, replace(source, series=best)


def _lines(
    source: DicomSource | NiftiSource, listing: Listing, name: str, kind: str, written_as: str, chosen: str, others: list[str]
) -> Iterator[str]:
    times = [scene.observed_utc for scene in listing.scenes]
    grid, count = source.native_grid(), len(times)
    shape, spacing = (" x ".join(f"{v:.5g}" for v in values) for values in (grid.shape, grid.spacing))
    steps_ns = np.diff(np.array(times, "datetime64[ns]")).astype(np.int64)
    step_ns = int(np.median(steps_ns)) if count > 1 else NO_STEP_NS
    times += [times[-1] + np.timedelta64(step_ns * k, "ns") for k in range(1, FEWEST_TIMES - count + 1)]  # the config names them
    horizon = min(MOST_AHEAD, max(1, count // 10))
    context = max(1, min(10, int(0.3 * count)))
    validation = min(max(context + horizon, int(0.6 * count)), len(times) - 2 * horizon)
    test = min(max(validation + horizon, int(0.8 * count)), len(times) - horizon)
    ends = f"over {_since(times, count - 1)}"  # no dates: they identify
    known = f"{count} times, {ends}, {format_span(step_ns / 86_400e9)} apart;" if count > 1 else "1 time;"
    yield f"# Proposed from {TITLES[kind]}: {known}"
    if count < FEWEST_TIMES:
        yield f"# `driftline ingest` takes any number of times; a forecast needs at least {FEWEST_TIMES}."
    noun = "voxels" if grid.is_volume else "pixels"
    yield f"# {shape} {noun} ({', '.join(grid.dims)}) of {spacing} {grid.unit}. Every value may be changed."
    yield from (f"# note: {note}" for note in listing.notes)
    yield from (f"# refused: {refusal.reason}, {refusal.detail}" for refusal in listing.refused[:3])
    yield from opening(name, kind, written_as)
    if chosen:
        yield f"  series: {json.dumps(chosen)}  # the one with the most times, of:"
        yield from (f"  #   {line.strip()}" for line in others)
    yield "  bands: [intensity]  # the name of the one band"
    yield "  # frame_time: 2.0   # seconds between two volumes, where the files do not say it, or say it wrongly"
    yield from samples_of("intensity", "times", context, horizon)
    yield from ("", "split:                 # blocks of voxels and ranges of time")
    yield f"  block_px: {int(np.clip(min(grid.shape_yx) // 4, 8, 64))}"
    yield f"  buffer_px: {1 if grid.shape[0] > 2 else 0}"
    yield f"  validation_from: {_since(times, validation)}  # since the first frame: dates of patients are moved"
    yield f"  test_from: {_since(times, test)}"
    yield from model_of(epochs=20)
    if step_ns * count < DAY_NS:
        yield "  # climatology: within a day the mean of all earlier times of the voxel; context_*: of the context alone"
        yield "  baselines: [persistence, climatology, context_mean, context_trend, gradient_boosting]"
    else:
        yield "  # climatology and harmonics are of the year's seasons"
        yield "  baselines: [persistence, context_mean, context_trend, gradient_boosting]"


def opening(name: str, kind: str, written_as: str) -> tuple[str, ...]:
    """The first lines of a config of frames or volumes."""
    source = ("source:", f"  kind: {kind}", f"  path: {json.dumps(written_as)}")
    return (f"name: {json.dumps(name)}", "task: forecast", "", *source)


def samples_of(band: str, noun: str, context: int, horizon: int) -> tuple[str, ...]:
    """Those of the samples: one variable, the band itself."""
    lengths = (
        f"  context: {context}  # {noun} that a forecast is made from",
        f"  horizon: {horizon}  # {noun} that are forecast",
    )
    return ("", "samples:", "  variables:", f"    - {{name: {band}, formula: band, bands: [{band}]}}", *lengths)


def model_of(epochs: int) -> tuple[str, ...]:
    """Those of model and training, and the heading of the evaluation."""
    model = ("model:", "  baseline: persistence  # the baseline that the network corrects", "  hidden: [16]", "  members: 1")
    return ("", *model, "", "training:", f"  epochs: {epochs}", "", "evaluation:")


def _since(times: list[np.datetime64], index: int) -> str:
    """How long after the first the time at `index` was, as the config takes it; never later than it was."""
    return elapsed_text((UNKNOWN_ORIGIN + (times[index] - times[0])).astype("datetime64[us]"), digits=6)
