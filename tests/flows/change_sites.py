"""Sites with a known change, small enough for a whole run in seconds: a bright square that stands on the second date only."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml

CHANGED, UNCHANGED = 7, 3  # codes of the labels: any will do
SIDE_PX = 48

TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "change",
    "source": {
        "kind": "sites",
        "path": "sites",
        "pattern": "{site}/{step}/{band}.tif",
        "dates": "{site}/dates.txt",
        "bands": ["red", "nir"],
    },
    "cube": {"chunk_px": 32, "workers": 1},
    "labels": {"path": "{site}/label.tif", "changed": [CHANGED], "unchanged": [UNCHANGED]},
    "model": {"kind": "siamese_dcrn", "widths": [4, 6], "dropout": 0.0},
    "training": {"epochs": 2, "windows": 12, "window_px": 16, "learning_rate": 0.01, "accelerator": "cpu"},
    "evaluation": {"must_beat": [], "references": ["change_vector", "ir_mad"]},
}


def write_sites(folder: Path, names: tuple[str, ...] = ("alpha", "beta", "gamma"), **changes: Any) -> Path:
    """`sites/NAME/...` of every name and `tiny.yaml` in `folder`; the config's path. `changes` replace whole sections."""
    for number, name in enumerate(names):
        write_site(folder / "sites" / name, seed=number)
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return config


def write_site(folder: Path, seed: int, *, with_label: bool = True, dates: int = 2) -> np.ndarray:
    """Two or more dates of two bands and the label; the square stands on the last date. Returns where it changed (bool)."""
    rng = np.random.default_rng(seed)
    ground = rng.normal(1000, 200, (2, SIDE_PX, SIDE_PX))
    row, column = rng.integers(8, SIDE_PX - 16, 2)
    changed = np.zeros((SIDE_PX, SIDE_PX), bool)
    changed[row : row + 8, column : column + 8] = True
    for step in range(1, dates + 1):
        image = (1 + 0.3 * (step - 1)) * ground + rng.normal(0, 20, ground.shape)
        if step == dates:
            image[:, changed] += 1500
        for band, values in zip(("red", "nir"), image, strict=True):
            write_raster(folder / str(step) / f"{band}.tif", values.astype(np.uint16))
    (folder / "dates.txt").write_text("".join(f"date_{step}: {2017 + step}0601\n" for step in range(1, dates + 1)))
    if with_label:
        write_raster(folder / "label.tif", np.where(changed, CHANGED, UNCHANGED).astype(np.uint8))
    return changed


def write_raster(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype.name}
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32635", transform=transform, **shape) as file:
        file.write(values, 1)
