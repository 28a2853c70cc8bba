"""A small cube in memory that scenes come into in any order, and its monitoring. Shared with the test that kills."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.monitoring.areas import MonitoredCube
from pipelines.monitoring.blocks import Monitoring
from pipelines.monitoring.detector import Calibration, Detector
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum
from pipelines.monitoring.state import Identity
from pipelines.samples.variables import Variable

SHAPE_YX, TILE_PX, KEEP_EVERY, BLOCK_PX = (8, 12), 4, 3, 8  # two blocks
FIRST, EVERY_DAYS, HISTORY = np.datetime64("2015-01-03", "ns"), 23, 40
DATES = 60  # the last 20 are monitored
START_NS = int((FIRST + np.timedelta64(EVERY_DAYS * HISTORY - 1, "D")).astype(np.int64))
DETECTOR = Detector(HarmonicModel(1), Cusum(1.0, 4.0), Calibration(5.0), "down", 6)
CLOUDED = "clouded"  # the version of a scene that shows nothing
Scenes = Mapping[int, str]  # number of the date -> version of its scene


def scene(number: int, version: str) -> tuple[np.ndarray, np.ndarray]:
    """(image_YX uint16, valid_YX): a season, noise, clouds over whole tiles, and from date 50 on a loss in the north-west."""
    rng = np.random.default_rng([number, *version.encode()])
    season = 5000 + 1500 * np.sin(2 * np.pi * number * EVERY_DAYS / 365.25)
    image_YX = season + rng.normal(0, 200, SHAPE_YX)
    if number >= 50:
        image_YX[:5, :5] -= 2500
    hidden = rng.random((SHAPE_YX[0] // TILE_PX, SHAPE_YX[1] // TILE_PX)) < 0.3
    valid_YX = ~np.kron(hidden, np.ones((TILE_PX, TILE_PX), bool)) & (rng.random(SHAPE_YX) > 0.2)
    if version == CLOUDED:
        valid_YX[:] = False
    return image_YX.astype(np.uint16), valid_YX


def make_cube(scenes: Scenes) -> xr.Dataset:
    """What `open_cube` would return for these scenes."""
    numbers = sorted(scenes)
    images, valids = zip(*(scene(n, scenes[n]) for n in numbers), strict=True)
    time = FIRST + np.array(numbers) * np.timedelta64(EVERY_DAYS, "D")
    image, valid = np.stack(images)[:, None], np.stack(valids)
    hashes = [hashlib.sha256(i.tobytes() + v.tobytes()).hexdigest() for i, v in zip(images, valids, strict=True)]
    dataset = xr.Dataset(
        {"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)},
        coords={
            "time": time,
            "band": ["red"],
            "scene_id": ("time", np.array([f"S{n:03d}" for n in numbers], object)),
            "content_hash": ("time", np.array(hashes, object)),
            "valid_fraction": ("time", valid.mean(axis=(1, 2))),
        },
    )
    dataset["image"].attrs["bands"] = json.dumps([{"name": "red", "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": ""}])
    dataset["image"].encoding["chunks"] = (1, 1, 8, 8)
    return dataset


def make_monitoring(
    scenes: Scenes, folder: Path | str, tile_px: int = TILE_PX, detector: Detector = DETECTOR, block_px: int = BLOCK_PX
) -> Monitoring:
    cube = MonitoredCube(make_cube(scenes), "S", Variable("red", "band", ("red",)), START_NS)
    made_for = Identity(detector.key, "red", "start", "grid", tile_px)
    return Monitoring(cube, detector, made_for, str(folder), KEEP_EVERY, block_px)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the state and the layers, but for drafts of layers that a killed process left."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".r"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
