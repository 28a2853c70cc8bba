"""What is expected of a variable, or has changed in sites, and how sure that is, in sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.learning.result import Evaluation
from pipelines.products.json_values import Json
from pipelines.products.report import when

HECTARE_M2 = 10_000


@dataclass(frozen=True)
class Course:
    """Means of a variable over the pixels that its last observation shows. Dates are ISO 8601; None: nothing to compare."""

    variable: str
    unit: str
    observed_utc: str
    observed: float | None
    expected_utc: str
    expected: float | None


def expected_sentence(name: str, course: Course) -> str:
    """What is expected, without the full stop; `name` is that of the run.

    >>> expected_sentence("forest", Course("NDVI", "", "2020-08-01T00:00:00Z", 0.71, "2020-10-15T00:00:00Z", 0.63))
    'Mean NDVI (forest) is expected to fall from 0.71 to 0.63 between 2020-08-01 and 2020-10-15'
    """
    mean, (first, last) = f"Mean {course.variable} ({name}) is expected", (when(course.observed_utc), when(course.expected_utc))
    if course.expected is None:
        return f"{course.variable} ({name}) is expected to be what the maps show on {last}"
    then = with_unit(course.expected, course.unit)
    if course.observed is None:
        return f"{mean} to be {then} on {last}"
    period = f"between {first} and {last}"
    if last.endswith(" s"):
        period = f"between {first} and {last} after the first frame"
    elif first[:10] == last[:10]:
        times = [one[11:].rstrip("Z") for one in (course.observed_utc, course.expected_utc)]
        from_, to = [one[:5] for one in times] if times[0][:5] != times[1][:5] else times  # frames of one minute: whole
        period = f"between {from_} and {to} UTC on {first[:10]}"
    now = with_unit(course.observed, course.unit)
    if now == then:
        return f"{mean} to stay at {now} {period}"
    return f"{mean} to {'fall' if course.expected < course.observed else 'rise'} from {now} to {then} {period}"


def with_unit(value: float, unit: str) -> str:
    """`0.0482 mm`, to three significant digits."""
    return f"{value:.3g} {unit}".strip() if unit != "1" else f"{value:.3g}"


def summary_sentence(name: str, course: Course | None, mae: float | None, unit: str = "") -> str:
    """What is expected, and the error on held-out blocks and dates; `course` is None where nothing is published."""
    error = "is not measured" if mae is None else f"on dates and blocks it had not seen is {with_unit(mae, unit)}"
    if course is None:
        return f"No forecast of {name} is published; the model's mean absolute error {error}."
    return f"{expected_sentence(name, course)}; the forecast's mean absolute error {error}."


def scale_notes(baseline: str, scale_K: Sequence[float], skill: float | None = None) -> list[str]:
    """How much of the network's correction of its baseline ("none": it has none) the validation windows support.

    `skill` against the baseline, on the test windows.
    """
    if baseline == "none" or not scale_K:
        return []
    share = sum(scale_K) / len(scale_K)
    if share == 0:
        text = f"this forecast is the baseline ({baseline}) itself, as fitted on the training dates"
        return [f"Validation supports none of the network's correction: {text}."]
    text = f"The network corrects a baseline ({baseline}): residual scaling s = {share:.2f}, from the validation windows"
    if skill is not None and skill <= 0:
        text += "; on the test windows, where the baseline is refitted on every date up to the issue date, it did not help"
    return [f"{text}."]


def change_sentence(name: str, sites: Mapping[str, Json], evaluation: Evaluation | None) -> str:
    """What is mapped as changed, where, when and how sure. `sites`: name -> facts of what is published, {} for nothing."""
    measured = ""
    if evaluation is not None:
        pooled = evaluation.details["methods"][evaluation.shipped]["pooled"]
        precision, recall = pooled["precision"], pooled["recall"]
        where = "strips of these sites" if evaluation.details["note"] else "labelled sites"
        if precision is not None and recall is not None:
            measured = (
                f"; on {where} that the model had not seen, {precision * 100:.0f} % of the pixels that it maps as changed "
                f"have changed, and it finds {recall * 100:.0f} % of those that have"
            )
    if not sites:
        return f"No change is published for {name}{measured}."
    patches, area = sum(one["patches"] for one in sites.values()), sum(one["area_m2"] for one in sites.values()) / HECTARE_M2
    first, last = min(one["from_utc"] for one in sites.values())[:10], max(one["to_utc"] for one in sites.values())[:10]
    where = f"{len(sites)} sites" if len(sites) > 1 else f"the site {next(iter(sites))}"
    found = f"{patches} patches ({area:.3g} ha) are" if patches != 1 else f"1 patch ({area:.3g} ha) is"
    return f"In {where} {found} mapped as changed between {first} and {last}{measured or '; not checked'}."
