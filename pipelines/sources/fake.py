"""A source of synthetic scenes: small, seasonal, cloudy, and identical for the same seed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS, from_days, to_days
from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.source import Listing, Resampling

VEGETATION, CLOUD = 4, 9  # Sentinel-2 SCL classes


@dataclass(frozen=True)
class FakeSource:
    """Seasonal uint16 reflectance x 10000 (0 = missing) on EPSG:32633 at 10 m, with an `SCL` quality band.

    Every scene depends on (`seed`, its index) only, so scenes can be read in any order. Bands named `nir` increase in the
    season, all others decrease. Clouds are discs, bright in every band and class 9 in SCL.
    """

    dates: int = 24
    shape_yx: tuple[int, int] = (40, 56)
    bands: tuple[Any, ...] = ("red", "nir")  # names or Band; stored as Band
    seed: int = 0
    cloud_fraction: float = 0.2
    every_days: float = 10.0
    first: str = "2018-01-05"

    def __post_init__(self) -> None:
        bands = tuple(b if isinstance(b, Band) else Band(b, scale=1e-4, nodata=0, unit="1") for b in self.bands)
        object.__setattr__(self, "bands", bands)

    def dtype(self) -> np.dtype:
        return np.dtype("uint16")

    def native_grid(self) -> Grid:
        return Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), self.shape_yx)

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.native_grid()

    def list_scenes(self) -> Listing:
        dates = from_days(to_days(np.array(self.first, "datetime64[D]")) + self.every_days * np.arange(self.dates))
        names = (*(band.name for band in self.bands), "SCL")
        assets = [{name: Asset("fake", name, index) for name in names} for index in range(self.dates)]
        return Listing([Scene(f"fake-{self.seed}-{index:04d}", date, assets[index]) for index, date in enumerate(dates)])

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        native = self.native_grid()
        if not grid.is_aligned(native):
            raise SceneRefused(scene.id, "wrong-grid", f"the fake source supports only {native}; requested {grid}")
        layers = []
        for name in names:
            if name not in scene.assets:
                raise SceneRefused(scene.id, "missing-band", f"requested {name!r}; the scene has {sorted(scene.assets)}")
            layers.append(self._layer(scene.assets[name].index, scene.observed_utc, name))
        return np.stack(layers)[:, rows or slice(None)]

    def _layer(self, index: int, observed_utc: np.datetime64, name: str) -> np.ndarray:
        is_cloud_YX = self._clouds(index)
        if name == "SCL":
            return np.where(is_cloud_YX, CLOUD, VEGETATION).astype("uint8")
        rng = np.random.default_rng([self.seed, 7_919])  # the phase and level of the season are the same for every date
        blocks = tuple(-(-size // 8) for size in self.shape_yx)
        fields = np.stack([rng.uniform(0, 0.1, blocks), rng.uniform(0.4, 1.0, blocks)]).repeat(8, axis=1).repeat(8, axis=2)
        phase_YX, level_YX = fields[:, : self.shape_yx[0], : self.shape_yx[1]]
        year = float(to_days(np.array(observed_utc))) / TROPICAL_YEAR_DAYS
        season_YX = 0.5 - 0.5 * np.cos(2 * np.pi * (year - phase_YX))  # 0 in winter, 1 in summer
        clear_YX = 0.15 + 0.35 * level_YX * season_YX if name == "nir" else 0.12 - 0.08 * level_YX * season_YX
        noise = np.random.default_rng([self.seed, index, *name.encode()])
        clear_YX = clear_YX + noise.normal(0, 0.004, self.shape_yx)
        return np.where(is_cloud_YX, 6500, np.clip(clear_YX * 1e4, 1, 1e4)).astype("uint16")

    def _clouds(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index, 104_729])
        rows, columns = np.ogrid[: self.shape_yx[0], : self.shape_yx[1]]
        is_cloud_YX = np.zeros(self.shape_yx, bool)
        requested = min(rng.uniform(0, 2) * self.cloud_fraction, 1.0)
        while is_cloud_YX.mean() < requested:
            y, x = rng.uniform(0, 1, 2) * self.shape_yx
            radius = rng.uniform(2, max(self.shape_yx) / 6 + 3)
            is_cloud_YX |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        return is_cloud_YX
