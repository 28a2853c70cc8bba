"""Files of a folder that hold many times each: one scene for every step of a file's time coordinate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.cf import axes_of, times_of_planes
from pipelines.sources.cf_times import CfTimes, cf_times
from pipelines.sources.dates import parse_date
from pipelines.sources.isolation import isolate
from pipelines.sources.layers import BandRequest
from pipelines.sources.opening import hdf5_data_set, open_hdf5
from pipelines.sources.source import compact_date


def expand_times(
    scenes: list[Scene], requested: BandRequest, date_format: str
) -> tuple[list[Scene], list[SceneRefused], list[str]]:
    """(scenes, refusals, notes), where a file whose variable has a time axis of several steps is one scene for each step.

    The id is that of the file and the step's date, so it does not change when steps are added. The date in the file's name must
    be that of a step, as exactly as `date_format` says it. Files that share one variable among bands are left as they are, and so
    is a folder of which the first, the middle and the last file hold one time each.
    """
    if not scenes or not any(_holds_several(scenes[at], requested) for at in {0, len(scenes) // 2, len(scenes) - 1}):
        return scenes, [], []
    expanded: list[Scene] = []
    refused: list[SceneRefused] = []
    notes: dict[str, None] = {}
    for scene in scenes:
        try:
            steps = _steps_of(scene, requested)
            if not steps:
                expanded.append(scene)
                continue
            times = _common_times(scene, steps)
            _check_name(scene, times.values, date_format)
        except SceneRefused as refusal:
            refused.append(refusal)
            continue
        notes |= dict.fromkeys(times.notes)
        for index, time in enumerate(times.values):
            if np.isnat(time):
                why = times.problems.get(index, "its value is missing")
                refused.append(
                    SceneRefused(f"{scene.id}[{index}]", "no-date", f"step {index} of its time coordinate is no date: {why}")
                )
                continue
            at_step = {name: dataclasses.replace(scene.assets[name], index=index, is_step=True) for name in steps}
            expanded.append(Scene(f"{scene.id}_{compact_date(time)}", time, scene.assets | at_step))
    count = len(expanded)
    notes[f"the files hold several times each: {len(scenes)} files are {count} scenes, dated by their time coordinates"] = None
    return expanded, refused, list(notes)


def _holds_several(scene: Scene, requested: BandRequest) -> bool:
    try:
        return bool(_steps_of(scene, requested))
    except SceneRefused:  # of several times that cannot be read
        return True


def _steps_of(scene: Scene, requested: BandRequest) -> dict[str, CfTimes]:
    """Band -> times, of the bands whose variable has several; {} for a scene that is read as it is. Raises SceneRefused."""
    assets = {name: asset for name, asset in scene.assets.items() if asset.variable}
    shared = [(asset.path, asset.variable) for asset in assets.values()]
    if len(set(shared)) < len(shared) or any(requested.name_in_file(name).isdigit() for name in assets):
        return {}
    found: dict[str, CfTimes] = {}
    for name, asset in assets.items():
        if (times := _times_in(asset, scene.id)) is not None:
            found[name] = times
    return found


def _times_in(asset: Asset, label: str) -> CfTimes | None:
    """The times of a variable with several steps; None for any other, and for what reading will refuse."""
    try:
        status = Path(asset.path).stat()
        return _kept_times(asset.path, asset.variable, (status.st_mtime_ns, status.st_ctime_ns, status.st_size))
    except (MissingInput, OSError):
        return None
    except SceneRefused as refusal:
        if refusal.reason == "no-date":
            raise SceneRefused(label, refusal.reason, refusal.detail) from refusal
        return None


@lru_cache(maxsize=100_000)
def _kept_times(path: str, variable: str, stamp: tuple[int, ...]) -> CfTimes | None:
    """Kept, since the files of a folder are listed several times in an ingest."""
    return _read_times(Path(path), variable)


@isolate
def _read_times(path: Path, variable: str) -> CfTimes | None:
    with open_hdf5(path) as file:
        data = hdf5_data_set(file, variable, path.name)
        scale = times_of_planes(data, axes_of(data, path.name))
        return None if scale is None else cf_times(scale, path.name)


def _common_times(scene: Scene, steps: Mapping[str, CfTimes]) -> CfTimes:
    """Raises SceneRefused(wrong-grid) for bands with different times."""
    (first, times), *others = steps.items()
    for name, other in others:
        if not np.array_equal(times.values, other.values):
            detail = f"band {name} has other times ({len(other.values)}) than band {first} ({len(times.values)})"
            raise SceneRefused(scene.id, "wrong-grid", f"{detail}; write them with one time coordinate")
    return times


def _check_name(scene: Scene, times: np.ndarray, date_format: str) -> None:
    """Raises SceneRefused(no-date) unless a step has the date of the file's name."""
    dates = times[~np.isnat(times)]
    in_name = [time for time in dates if parse_date(_written(time, date_format), date_format) == scene.observed_utc]
    if dates.size and not in_name:
        said, first, last = (str(time.astype("datetime64[s]")) for time in (scene.observed_utc, dates.min(), dates.max()))
        detail = f"the file's name says {said}, its times are {first} to {last}; correct the name, the pattern or the time units"
        raise SceneRefused(scene.id, "no-date", detail)


def _written(time: np.datetime64, date_format: str) -> str:
    moment: datetime = time.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC).strftime(date_format)
