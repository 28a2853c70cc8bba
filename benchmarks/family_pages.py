"""Rows that a page of docs/results states, so that `benchmarks.family` does not measure them twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.family_tables import SECTIONS, Section
from benchmarks.forecasts_rows import SERIES
from benchmarks.run_rows import Row

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NUMBER = r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Part:
    """What stands below a heading: the prose in one line, and the first table as head -> cell."""

    prose: str
    rows: tuple[Mapping[str, str], ...]


@cache
def stated(section: str) -> Mapping[str, Row]:
    """Row -> what the section's page states of it. Empty where the page has no such table, or says another protocol of it."""
    found = SECTIONS[section]
    if not found.page:
        return {}
    parts = parts_of((RESULTS / found.page).read_text(encoding="utf-8"))
    match found.page:
        case "forecasters.md":
            return of_forecasters(next(iter(parts.values())), found)
        case "forecasts.md":
            part = parts.get(SERIES[section].title)
            return {} if part is None or not found.as_is else {found.as_is: of_series(part)}
    part = parts.get(found.table.title)
    if part is None or " ".join(found.table.about.split()) not in part.prose:
        return {}
    return of_labels(part, found)


def parts_of(text: str) -> dict[str, Part]:
    """Heading -> what stands below it."""
    parts: dict[str, Part] = {}
    for block in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, below = block.partition("\n")
        lines = below.splitlines()
        prose = " ".join(" ".join(line for line in lines if not line.startswith("|")).split())
        parts[title] = Part(prose, tuple(table_of(lines)))
    return parts


def table_of(lines: list[str]) -> Iterator[Mapping[str, str]]:
    heads: list[str] | None = None
    for line in lines:
        if not line.startswith("|"):
            if heads is not None:
                return
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if heads is None:
            heads = cells
        elif not set(line) <= {"|", "-"}:
            yield dict(zip(heads, cells, strict=False))


def figures_of(cells: Mapping[str, str], section: Section) -> dict[str, float | None]:
    """The figures of a row, with the ends of intervals."""
    found: dict[str, float | None] = {}
    for figure in section.table.figures:
        numbers = [float(one) for one in re.findall(NUMBER, cells.get(figure.title, ""))]
        found |= dict(zip((figure.key, f"{figure.key}_low", f"{figure.key}_high"), numbers, strict=False))
    return found


def costs_in(cells: Mapping[str, str]) -> Row:
    seconds = re.search(NUMBER, cells["CPU s"])
    return {
        "parameters": int(cells["parameters"]),
        "cpu_seconds": float(seconds[0]) if seconds else None,
        "peak_gb": float(cells["peak GB"]) if seconds else None,
        "went_on": "at least" in cells["CPU s"],
    }


def of_table(part: Part, section: Section, first: str) -> dict[str, Row]:
    """Rows of a table whose references are in italics."""
    known = {row[first].strip("*"): figures_of(row, section) for row in part.rows if row[first].startswith("*")}
    return {
        row[first]: {"methods": {"model": figures_of(row, section), **known}, **costs_in(row), "page": section.page}
        for row in part.rows
        if not row[first].startswith("*")
    }


def of_labels(part: Part, section: Section) -> dict[str, Row]:
    told = re.search(r"Seeds ([\d, ]+); measured ([^.]+)\.", part.prose)
    seeds, measured = ([int(one) for one in told[1].split(",")], told[2]) if told else ([], "")
    rows = of_table(part, section, "member")
    for name, row in rows.items():
        cells = next(cells for cells in part.rows if cells["member"] == name)
        row |= {"seeds": seeds, "measured": measured, "protocol": protocol_in(part.prose, section)}
        row["alone"] = next((cell for head, cell in cells.items() if "of one network" in head), "")
        row["confounded"] = dict(re.findall(rf"[:;] {re.escape(name)} {NUMBER}, ([a-z ]+) ({NUMBER})", part.prose))
    return rows


def protocol_in(prose: str, section: Section) -> str:
    """What stands between what is said of the table and the seeds."""
    _, _, after = prose.partition(" ".join(section.table.about.split()))
    return after.partition(" Seeds ")[0].strip()


def of_forecasters(part: Part, section: Section) -> dict[str, Row]:
    """The page of Moving MNIST."""
    told = re.search(r"seed (\d+); ([\d and-]+)\.", part.prose)
    row_of = {"seeds": [int(told[1])] if told else [], "measured": told[2] if told else ""}
    protocol = re.search(r"\d+ training sequences .*?(?=; seed )", part.prose)
    row_of["protocol"] = f"{protocol[0]}." if protocol else ""
    return {name: {**row, **row_of} for name, row in of_table(part, section, "network").items()}


def of_series(part: Part) -> Row:
    """The model of a ready-made config of a forecast, with its seeds."""
    errors = {
        row["method"].strip("*"): dict(
            zip(("mae", "mae_low", "mae_high"), map(float, re.findall(NUMBER, row["MAE"])), strict=False)
        )
        for row in part.rows
        if row["MAE"]
    }
    told = re.search(r"Seeds ([\d, ]+): MAE of the network ([\d., ]+) \(", part.prose)
    costs = re.search(rf"({NUMBER}) CPU seconds, ({NUMBER}) GB; \d+ x (\d+) parameters.*?Measured ([\d-]+)\.", part.prose)
    if told is None or costs is None:
        raise LookupError(f"seeds or costs of a series are not in forecasts.md, where it says: {part.prose[-300:]}")
    combination = errors.pop("combination", {"mae": None})["mae"]
    model = {**errors.pop("network"), "combination": combination}
    return {
        "methods": {"model": model, **errors},
        "seeds": [int(one) for one in told[1].split(",")],
        "values": [float(one) for one in told[2].split(",")],
        "protocol": next(iter(re.findall(r"Test: .*? dates\.", part.prose)), ""),
        "cpu_seconds": float(costs[1]), "peak_gb": float(costs[2]), "parameters": int(costs[3]), "measured": costs[4],
        "went_on": "at least" in part.prose, "page": "forecasts.md",
    }  # fmt: skip
