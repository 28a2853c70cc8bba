"""One sentence for a patch of change: what, where, when, how large, and never surer than the product is.

A rule, not a network: all of it stands in the patch's attributes, and a wrong word would claim what nobody measured. Words of
certainty follow Mastrandrea et al. 2010 (IPCC guidance note on uncertainties): likely from 0.66, very likely from 0.90. What they
are said of: the smaller of the patch's own calibrated probability and the share of mapped pixels that had changed where labels
were left out. A rank is no probability, so a monitored patch is at most what "appears". Without any measure: not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pipelines.grid import Grid
from pipelines.learning.result import Evaluation
from pipelines.products.footprint import box, footprint
from pipelines.products.json_values import Json
from pipelines.products.report import is_there, shown
from pipelines.products.section import Column, Table
from pipelines.wording import counted, harmless

MOST_TOLD = 10
LIKELY_FROM, VERY_LIKELY_FROM = 0.66, 0.90
FALSE_ALARMS = "false alarms per 1000 stable pixels and year"  # the criterion of `pipelines.monitoring.assessment`
MOVED = {"decrease": "fallen", "increase": "risen"}


class Certainty(IntEnum):
    """How sure a sentence may sound."""

    UNCHECKED = 0
    POSSIBLE = 1
    TESTED = 2
    LIKELY = 3
    VERY_LIKELY = 4


VERBS = {
    Certainty.UNCHECKED: "may have",
    Certainty.POSSIBLE: "may have",
    Certainty.TESTED: "appears to have",
    Certainty.LIKELY: "has likely",
    Certainty.VERY_LIKELY: "has very likely",
}


@dataclass(frozen=True)
class Basis:
    """What is known of how sure a product is: the most that its sentences may claim, and why, in words.

    `precision`: the share of the pixels mapped as changed that had changed, where labels were left out. `short`: ends a sentence.
    """

    most: Certainty
    text: str
    short: str
    precision: float | None = None


@dataclass(frozen=True)
class Told:
    """What is the same for all patches of a map: `variable` ("": not known which), its unit, and [west, south, east, north].

    `between`: the two dates that were compared, "" where they are not known; None: each patch has its own dates.
    """

    basis: Basis
    bounds: Sequence[float]
    variable: str = ""
    unit: str = ""
    between: tuple[str, str] | None = None
    of: str = "the map"


NOT_CHECKED = Basis(Certainty.UNCHECKED, "Nothing is measured here of how often such a patch is real.", "not checked")


def bounds_of(grid: Grid) -> list[float]:
    """[west, south, east, north] of a map in degrees; west > east where it crosses the 180th meridian."""
    return box(footprint(grid))


def monitored_basis(evaluation: Evaluation | None) -> Basis:
    """Of monitoring: tested where no more false alarms than asked for were measured; never more, for there are no labels."""
    criteria = {} if evaluation is None else {one.name: one for one in evaluation.criteria}
    rate = criteria.get(FALSE_ALARMS)
    if rate is None or rate.value is None:
        return NOT_CHECKED
    measured = f"{rate.value:.3g} {FALSE_ALARMS}, at most {rate.requested:g} are asked for"
    if not rate.is_met:
        text = f"The test raises more false alarms than it should: {measured}."
        return Basis(Certainty.POSSIBLE, text, f"{rate.value:.3g} {FALSE_ALARMS}, more than asked for")
    text = (
        f"The test was checked on stable pixels of the history ({measured}); no label says of a single patch whether it is real."
    )
    return Basis(Certainty.TESTED, text, f"tested, {rate.value:.3g} {FALSE_ALARMS}")


def compared_basis(evaluation: Evaluation | None, *, is_own: bool) -> Basis:
    """Of labelled change: as sure as the precision on what was left out; of a model of elsewhere no more than possible."""
    precision = None if evaluation is None else evaluation.details["methods"][evaluation.shipped]["pooled"]["precision"]
    if evaluation is None or precision is None:
        return NOT_CHECKED
    share, mapped = f"{100 * precision:.0f} %", "of the pixels that it maps as changed had changed"
    if not is_own:
        text = f"On the labelled sites {share} {mapped}; whether the model has learnt from these sites is not known here."
        return Basis(Certainty.POSSIBLE, text, f"{share} of such pixels had changed on labelled sites", precision)
    part = "strips of these sites" if evaluation.details["note"] else "sites"
    text = f"On {part} that the model had not seen, {share} {mapped}."
    if not evaluation.verdict.is_publishable:
        return Basis(Certainty.POSSIBLE, f"{text} It did not pass its evaluation.", "its model did not pass", precision)
    return Basis(certainty_of(precision), text, f"{share} of such pixels had changed on {part} left out", precision)


def certainty_of(probability: float) -> Certainty:
    """The words that a probability supports."""
    if probability >= VERY_LIKELY_FROM:
        return Certainty.VERY_LIKELY
    return Certainty.LIKELY if probability >= LIKELY_FROM else Certainty.POSSIBLE


def certainty_of_patch(row: Json, basis: Basis) -> Certainty:
    """Of one patch: no more than its product, and no more than its own probability."""
    if basis.precision is None:
        return basis.most
    own: Any = row.get("probability")
    return min(basis.most, certainty_of(float(own)) if is_there(own) else Certainty.POSSIBLE)


def patch_sentence(row: Json, told: Told) -> str:
    """The sentence of a patch; `row` as `pipelines.products.polygons` describes it.

    >>> row = {"id": "r1-c2", "pixels": 9, "area_m2": 900.0, "lon": 25.0, "lat": 45.0, "direction": "unknown"}
    >>> patch_sentence(row, Told(NOT_CHECKED, [20, 40, 30, 50], between=("2019-01-01", "2020-01-01")))
    'In the centre of the map (45.00000° N, 25.00000° E), 900 m² (9 pixels) may have changed between 2019-01-01 and 2020-01-01; \
not checked.'
    """
    level = certainty_of_patch(row, told.basis)
    where = f"{position(row['lon'], row['lat'], told.bounds, told.of)} ({coordinates(row['lon'], row['lat'])})"
    extent = f"{shown(row['area_m2'], 'area')} ({counted(int(row['pixels']), 'pixel')})"
    parts = [f"{where[0].upper()}{where[1:]}, {what(row, told, extent, VERBS[level])}{when(row, told)}"]
    if row.get("recovered_px"):
        parts.append(f"{row['recovered_px']} of the pixels are as expected again")
    if is_there(row.get("probability")):
        parts.append(f"mean probability {float(row['probability']):.2f}")
    return f"{'; '.join([*parts, told.basis.short])}."


def what(row: Json, told: Told, extent: str, verb: str) -> str:
    """What happened on which area, with the verb."""
    if not told.variable or row["direction"] == "unknown":
        return f"{extent} {verb} changed"
    name, moved = harmless(told.variable), MOVED.get(row["direction"])
    if moved is None:
        return f"{name} {verb} changed, up and down, on {extent}"
    unit = "" if told.unit == "1" else told.unit
    amount = f" by {abs(float(row['magnitude'])):.2g} {unit}".rstrip() if is_there(row["magnitude"]) else ""
    return f"{name} {verb} {moved}{amount} on average on {extent}"


def when(row: Json, told: Told) -> str:
    """When, as closely as the product knows, with what stands before it."""
    if told.between is not None:
        first, last = (one[:10] for one in told.between)
        return f" between {first} and {last}" if first and last else " between the two images, whose dates are not known"
    if not is_there(row.get("first_date")):
        return " at a time that is not known"
    first, last = (shown(row[key], "date") for key in ("first_date", "last_date"))
    seen = f", first seen on {first}" if first == last else f", first seen between {first} and {last}"
    return f"{seen}, alarm on {shown(row['detected'], 'date')}" if is_there(row.get("detected")) else seen


def position(lon: float, lat: float, bounds: Sequence[float], of: str) -> str:
    """Which ninth of the map a place lies in.

    >>> position(29.0, 41.0, [20, 40, 30, 50], "the map"), position(25.0, 49.0, [20, 40, 30, 50], "paris")
    ('in the south-east of the map', 'in the north of paris')
    """
    west, south, east, north = bounds
    east, lon = (east + 360, lon + 360 * (lon < west)) if west > east else (east, lon)
    across, up = third(lon, west, east), third(lat, south, north)
    words = [word for word in (("south", "", "north")[up], ("west", "", "east")[across]) if word]
    return f"in the {'-'.join(words) or 'centre'} of {of}"


def third(value: float, low: float, high: float) -> int:
    """0, 1 or 2: the part of the span from low to high."""
    return min(max(int(3 * (value - low) / (high - low)), 0), 2) if high > low else 1


def coordinates(lon: float, lat: float) -> str:
    """`45.00000° N, 25.00000° E`."""
    return f"{abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"


def told_table(rows: Sequence[Json], told: Mapping[str, Told]) -> Table:
    """The largest patches, a sentence each; `told` by the site of a row, "" where there are none."""
    said: list[dict[str, Any]] = [
        {"id": row["id"], "sentence": patch_sentence(row, told[row.get("site", "")])} for row in rows[:MOST_TOLD]
    ]
    bases = list(dict.fromkeys(one.basis.text for one in told.values()))
    note = " ".join([*bases, "Sentences are made by rule from the attributes of the patches; areas are as mapped."])
    return Table(
        "The largest patches in words", [Column("id", "patch", "name"), Column("sentence", "in words", "text")], said, note
    )
