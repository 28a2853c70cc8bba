"""What is published of probabilities: a map per target date and threshold, members of an ensemble where asked for, a picture.

    probability_DATE.tif   float32, 0 to 1, NaN where nothing is forecast; a band for each threshold
    members_DATE.tif       float32 in the variable's unit; a band for each member

made from the finished forecast, rows of a block at a time. They are of the first variable, as the thresholds are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.inference.staging import Field, Staged
from pipelines.products.canvas import day, drawing, title_row
from pipelines.products.cog import Band, Lineage, date_for_name, iso, write_bands
from pipelines.products.frames import Frame, Shades, step_for
from pipelines.products.pictures import MOST_COLUMNS, draw_map
from pipelines.products.stac import COG_TYPE, asset, band_of

if TYPE_CHECKING:  # of these modules some need torch, which products do not
    from pipelines.grid import Grid
    from pipelines.learning.error_distribution import ErrorDistribution
    from pipelines.learning.error_fields import ErrorFields
    from pipelines.learning.threshold_scores import Thresholds

PICTURE = "probability.png"
SHADES = Shades("YlGnBu", 0.0, 1.0)


@dataclass(frozen=True)
class Chances:
    """What probabilities are made from; `fields` and `members` of the ensemble, which `seed` draws."""

    distribution: ErrorDistribution
    thresholds: Thresholds
    fields: ErrorFields | None = None
    members: int = 0
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """`at least 0.5 mm/h` of each threshold."""
        return [f"at least {value:g} {self.thresholds.unit}".strip() for value in self.thresholds.values]

    def exceedance(self, staged: Staged, field: Field, g: int, rows: slice, step: int = 1) -> np.ndarray:
        """The probability of threshold `g` on these rows, of every `step`-th column, float32."""
        y_RW = staged.read(field, rows, slice(None, None, step))
        return self.distribution.exceedance(field.target, y_RW, self.thresholds.values[g] / self.thresholds.scale)

    def member(self, staged: Staged, field: Field, member: int, rows: slice) -> np.ndarray:
        """The values of a member on these rows, float32."""
        from pipelines.inference.members import member_values

        assert self.fields is not None
        rows = slice(*rows.indices(staged.shape[0])[:2])
        return member_values(staged.read(field, rows), field.target, rows, self.distribution, self.fields, self.seed, member)


def write_chances(
    chances: Chances, staged: Staged, grid: Grid, dates: Sequence[np.datetime64], variable: str, unit: str, lineage: Lineage,
    folder: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    """Writes the files of all target dates; of each the assets that its STAC item has of them."""
    found = []
    for k, date in enumerate(dates):
        field, name, tags = Field(k, variable, "forecast"), date_for_name(date), lineage.tags(iso(date))
        texts = [{"DESCRIPTION": f"probability of {said}"} for said in chances.names]
        bands = [
            Band(f"{variable}_ge_{value:g}", "1", text, partial(chances.exceedance, staged, field, g))
            for g, (value, text) in enumerate(zip(chances.thresholds.values, texts, strict=True))
        ]
        path = folder / f"probability_{name}.tif"
        write_bands(bands, grid, path, tags)
        about = [band_of(grid, band.name, band.tags["DESCRIPTION"], "1") for band in bands]
        assets = {"probability": asset(path, COG_TYPE, f"Probability of {', '.join(chances.names)}", bands=about)}
        if chances.members:
            path, text = folder / f"members_{name}.tif", f"{variable}, one member of the ensemble"
            bands = [
                Band(f"member_{m + 1}", unit, {"DESCRIPTION": text}, partial(chances.member, staged, field, m))
                for m in range(chances.members)
            ]
            write_bands(bands, grid, path, {**tags, "DRIFTLINE_SEED": str(chances.seed)})
            about = [band_of(grid, band.name, text, unit) for band in bands]
            assets["members"] = asset(path, COG_TYPE, f"{chances.members} members of the ensemble", bands=about)
        found.append(assets)
    return found


def draw_chances(chances: Chances, staged: Staged, grid: Grid, dates: Sequence[np.datetime64], variable: str, path: Path) -> None:
    """Writes a PNG: a row of maps for each threshold, target dates along it, the last one among them."""
    shown = np.unique(np.linspace(0, len(dates) - 1, min(len(dates), MOST_COLUMNS)).round().astype(int)).tolist()
    step, count = step_for(staged.shape), len(chances.thresholds.values)
    rows = range(0, staged.shape[0], step)
    with drawing(path, (2.1 * len(shown) + 1.0, 2.35 * count + 0.3)) as figure:
        axes_GK = figure.subplots(count, len(shown), squeeze=False)
        for g, axes_K in enumerate(axes_GK):
            image = None
            for axes, k in zip(axes_K, shown, strict=True):
                field = Field(k, variable, "forecast")
                values = np.concatenate([chances.exceedance(staged, field, g, slice(row, row + 1), step) for row in rows])
                image = draw_map(axes, Frame(dates[k], values), SHADES, grid) or image
                if g == count - 1:
                    axes.set_xlabel(day(dates[k]), size=8.5)
            title_row(axes_K[0], f"{variable}, {chances.names[g]}")
            if image is not None:
                bar = figure.colorbar(image, ax=list(axes_K), shrink=0.85, pad=0.01)
                bar.outline.set_linewidth(0.4)
                bar.ax.tick_params(labelsize=8, length=2, width=0.5)
                bar.set_label("probability", size=8.5)
