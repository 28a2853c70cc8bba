"""The section `prediction` of a forecast: what is forecast for the whole raster, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from configs.compute import STAGING, Staging
from configs.schema import Finding, Sections, Strict, UtcDate
from configs.tasks.forecast_probabilities import check_members
from configs.yaml_positions import Key
from pipelines.calendar import date_text

MAX_SEAM = 0.1


class PredictionConfig(Strict):
    """From which date, and which dates, are forecast for the whole raster."""

    issue: UtcDate | Literal["latest"] = Field("latest", description="the last date that the forecast may use")
    dates: list[UtcDate] | None = Field(None, description="what to forecast; default: the next observed or regular steps")
    tile_px: int = Field(
        256, ge=16, description="side of a tile, of volumes at most 64: smaller ones take less memory, with the same result"
    )
    staging: Staging = STAGING
    archive: bool = Field(True, description="keep every published forecast, and that of its rival, for `driftline verify`")
    archive_keep: int | None = Field(
        None, ge=1, description="how many archived forecasts keep their maps once they are scored, the newest; default: all"
    )
    members: int = Field(
        0,
        ge=0,
        le=500,
        exclude_if=lambda value: value == 0,
        description="how many members of an ensemble are published beside the maps of `evaluation.probabilities`",
    )
    max_seam: float = Field(
        MAX_SEAM,
        gt=0,
        # not written out while it is the default: products of networks with a finite halo do not depend on it
        exclude_if=lambda value: value == MAX_SEAM,
        description="networks without a finite halo: how far overlapping tiles may disagree, in half widths of the intervals",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        dates, samples = self.dates, sections.get("samples")
        yield from check_members(self.members, sections)
        if dates is None:
            return
        key: Key = ("prediction", "dates")
        if not dates:
            yield Finding(key, "the list is empty", "name at least one date, or leave it out for the next steps")
        if list(dates) != sorted(set(dates)):
            yield Finding(key, "the dates must rise and not repeat")
        if dates and self.issue != "latest" and min(dates) <= self.issue:
            problem = f"{date_text(min(dates))} is not after the issue date {date_text(self.issue)}"
            yield Finding(key, problem, "a forecast looks ahead: later dates, or an earlier issue")
        if samples is not None and len(dates) > samples.horizon:
            problem = f"{len(dates)} dates, but the model forecasts {samples.horizon} steps"
            yield Finding(key, problem, "fewer dates, or a longer samples.horizon (and train again)")
