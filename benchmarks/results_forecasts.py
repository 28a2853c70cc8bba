"""Forecasts of all ready-made series, the network beside every baseline, with their intervals -> docs/results/forecasts.md.

    python -m benchmarks.results_forecasts DATA FOLDER [--only SERIES] [--jobs 2] [--finished] > docs/results/forecasts.md

`DATA` holds `satellite/...`. Every series is a `driftline run` of a ready-made config (`configs/NAME.yaml`) in FOLDER, for each
seed of `benchmarks.forecasts_rows`. A run that is finished with the same config is not made again, a killed one goes on: after a
change of the code take another folder. `--finished` runs nothing and prints what there is, and what is missing. What the README
says of the demo's forecast is printed too (`tests/unit/test_results_forecasts.py` compares).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.forecasts_rows import SERIES, Series
from benchmarks.run_rows import Row, asked_for, config_of, costs_of, date_of, grid, run_row, wrapped

MODEL, COMBINATION = "model", "combination"
MOST_SEEDS = 3
README = "demo"  # the series that the README shows
NO_METHODS = ("climatological", "constant")  # intervals to compare with
HEAD = """# Forecasts: the network, the baselines and what is published

Printed by `python -m benchmarks.results_forecasts DATA FOLDER`: a `driftline run` of each ready-made config as it is, for
each seed (`benchmarks/forecasts_rows.py`), with one thread for PyTorch, on two shared cores of an x86-64 VM. CPU seconds
and peak memory are those of the whole run of the first seed (ingest, training, baselines, intervals, products); a run
that was killed and went on says "at least". How it is measured: [evaluation.md](../evaluation.md).
"""
COLUMNS = """MAE: with its 95 % interval over target dates. Skill: of the network over the method, 1 - MAE / MAE, with the
paired 95 % interval over target dates. Covered: share of the test pixels inside the 90 % interval, and from which to which
share that is on the single dates (10th to 90th percentile of the dates). Width, interval score and CRPS are in the unit of the
variable, smaller is better. **Bold**: what is published. The combination is the mean of the methods that it names ([design note
024](../design/024-combined-forecasts.md)). *Italics*: intervals that anybody could give, around no forecast of
their own: quantiles of each pixel's past values in the season, and quantiles of the network's errors on validation.
"""


def read_run(run: Path) -> Row:
    """What the tables show of a finished run."""
    evaluation, trained = read(run / "evaluation.json"), read(run / "stages" / "train.json")
    details, dates = evaluation["details"], evaluation["details"]["by_date"]
    refused = read(run / "refused.json") if (run / "refused.json").exists() else []
    return {
        "measured": date_of(run / "evaluation.json"),
        "protocol": evaluation["protocol"],
        "published": evaluation["shipped"],
        "metrics": {name: {**found["overall"], **interval_of_mae(dates, name)} for name, found in details["metrics"].items()},
        "skill": {name: found["overall"] for name, found in details["skill"].items()},
        "combined_skill": {name: found["overall"] for name, found in details.get("combined_skill", {}).items()},
        "choice": details["choice"],
        "intervals": {key: details["intervals"][key] for key in ("nominal", "calibration_dates", "is_bounded", "methods")},
        "counts": details["counts"],
        "windows": trained["windows"],
        "parts": read(run / "split.json").get("parts", {}),
        "epochs": [one["epochs"] for one in trained["training"]["members"]],
        "networks": len(trained["training"]["members"]),
        "parameters": parameters_of(run),
        "refused": [f"{one['scene_id']} ({one['reason']})" for one in refused],
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def interval_of_mae(by_date: Mapping[str, Any], name: str) -> dict[str, float | None]:
    """The 95 % interval of a mean absolute error, over target dates: 1 - MAE is the skill over an error of 1 at each pixel."""
    from pipelines.learning.intervals import paired_skill

    pixels_D = np.array(by_date["pixels"], np.float64)
    found = paired_skill(np.array(by_date["mae"][name]) * pixels_D, pixels_D)
    low, high = (None if bound is None else 1 - bound for bound in (found.high, found.low))
    return {"low": None if low is None else max(low, 0.0), "high": high}


def parameters_of(run: Path) -> int:
    """Weights of one network."""
    from models.checkpoint import FORECASTER

    model, _ = FORECASTER.load(run / "model")
    return sum(one.numel() for one in model.members[0].parameters())


# ---------------------------------------------------------------- what is printed


def series_lines(series: Series, rows: Mapping[int, Row]) -> list[str]:
    """Markdown: the heading, what was measured, the methods side by side, what is published, the seeds, the cost."""
    lines = [f"## {series.title}", "", *wrapped(f"`configs/{series.config}.yaml`. {series.about}"), ""]
    missing = [str(seed) for seed in series.seeds if seed not in rows]
    if rows:
        first = next(iter(rows.values()))
        lines += [*wrapped(tested(first)), "", *method_lines(first), "", *wrapped(chosen(first)), ""]
        lines += [*wrapped(f"{seeds_of(rows)} {costs(first)} Measured {first['measured']}."), ""]
    if missing:
        lines += [f"Not run yet: seed {', '.join(missing)}.", ""]
    return lines


def tested(row: Row) -> str:
    counts, windows, intervals = row["counts"], row["windows"], row["intervals"]
    few = "" if intervals["is_bounded"] else ", which are too few for 90 %"
    return (
        f"Test: {counts['windows']} windows, {counts['dates']} target dates, {counts['pixels']} pixels; learnt from "
        f"{windows['train']} windows, chosen and calibrated with {windows['validation']}. Intervals are calibrated on "
        f"{intervals['calibration_dates']} dates{few}."
    )


def method_lines(row: Row) -> list[str]:
    metrics, methods, skills = row["metrics"], row["intervals"]["methods"], row["skill"]
    heads = ["method", "MAE", "of persistence's", "network's skill", "covered", "on dates", "width", "score", "CRPS"]
    reference, cells = metrics.get("persistence"), []
    for name in sorted(metrics, key=lambda name: (name != MODEL, float(metrics[name]["mae"]))):
        found = metrics[name]
        share = f"{found['mae'] / reference['mae']:.3f}" if reference else ""
        skill = with_bounds(skills[name]["skill"], skills[name]["low"], skills[name]["high"]) if name in skills else ""
        shown = f"**{said(name)}**" if name == row["published"] else said(name)
        cells.append(
            [shown, with_bounds(found["mae"], found["low"], found["high"], 4), share, skill, *interval_cells(methods, name)]
        )
    cells += [[f"*{name}*", "", "", "", *interval_cells(methods, name)] for name in NO_METHODS if name in methods]
    return grid(heads, cells)


def interval_cells(methods: Mapping[str, Any], name: str) -> list[str]:
    one = methods.get(name)
    if one is None or one["coverage"] is None:
        return [""] * 5
    dates = f"{one['coverage_of_dates'][0]:.2f} to {one['coverage_of_dates'][1]:.2f}"
    return [f"{one['coverage']:.3f}", dates, *(f"{one[key]:.3g}" for key in ("mean_width", "interval_score", "crps"))]


def with_bounds(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """Such as 0.0612 (0.051 to 0.072)."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def said(name: str) -> str:
    return "network" if name == MODEL else name.replace("_", " ")


def chosen(row: Row) -> str:
    published = row["published"]
    told = f"Published is {with_article(published)}: {reason_of(row)}."
    if not (members := row["choice"].get("members")):
        return told
    skills = {name: of for name, of in row["combined_skill"].items() if name in (MODEL, best_baseline(row))}
    over = [f"{with_article(name)} {with_bounds(of['skill'], of['low'], of['high'])}" for name, of in skills.items()]
    mean_of = ", ".join(said(name) for name in members)
    return f"{told} The combination is the mean of {mean_of}; its skill over {', over '.join(over)}."


def with_article(name: str) -> str:
    return f"the {said(name)}" if name in (MODEL, COMBINATION) else said(name)


def best_baseline(row: Row) -> str:
    """The baseline with the smallest error on the test part."""
    errors = {name: float(found["mae"]) for name, found in row["metrics"].items() if name not in (MODEL, COMBINATION)}
    return min(errors, key=lambda name: errors[name])


def reason_of(row: Row) -> str:
    """Why it is published, with the names of methods in words."""
    reason: str = row["choice"]["reason"]
    for name in row["metrics"]:
        reason = reason.replace(name, said(name)) if name != MODEL else reason
    return reason


def seeds_of(rows: Mapping[int, Row]) -> str:
    """The network's error with every seed, and what is published with each."""
    errors = [row["metrics"][MODEL]["mae"] for row in rows.values()]
    if len(rows) == 1:
        return f"Seed {next(iter(rows))} alone."
    best = [row["metrics"][best_baseline(row)]["mae"] for row in rows.values()]
    combined = [row["metrics"][COMBINATION]["mae"] for row in rows.values() if COMBINATION in row["metrics"]]
    of_combined = f"of the combination {listed(combined, 4)}, " if combined else ""
    covered = [row["intervals"]["methods"][row["published"]]["coverage"] for row in rows.values()]
    published = ", ".join(said(row["published"]) for row in rows.values())
    return (
        f"Seeds {', '.join(map(str, rows))}: MAE of the network {listed(errors, 4)} (mean {mean(errors):.4f}, standard deviation "
        f"{stdev(errors):.4f}), {of_combined}of the best baseline {listed(best, 4)}; "
        f"published: {published}, covered {listed(covered, 3)}."
    )


def listed(numbers: Sequence[float], digits: int) -> str:
    return ", ".join(f"{number:.{digits}f}" for number in numbers)


def costs(row: Row) -> str:
    seconds, memory = costs_of(row)
    network = f"{row['parameters']} parameters a network"
    if row["networks"]:  # a run that found its networks trained does not say how
        network = f"{row['networks']} x {row['parameters']} parameters, {'/'.join(map(str, row['epochs']))} epochs"
    ended = "" if row["exit_code"] == 0 else f" Exit code {row['exit_code']}: not used {', '.join(row['refused'])}."
    return f"{seconds} CPU seconds, {memory} GB; {network}.{ended}"


def overview(rows: Mapping[tuple[str, int], Row]) -> Iterator[str]:
    """A line per series: the errors, what is published, and how its intervals do."""
    heads = ["series", "persistence", "best baseline", "network", "combination", "published", "its MAE", "covered", "width"]
    cells = []
    for name, series in SERIES.items():
        if (name, series.seeds[0]) not in rows:
            continue
        row = rows[name, series.seeds[0]]
        metrics, published = row["metrics"], row["published"]
        errors = {method: float(found["mae"]) for method, found in metrics.items()}
        best, combined = best_baseline(row), errors.get(COMBINATION)
        interval = row["intervals"]["methods"][published]
        cells.append([
            name, f"{errors['persistence']:.4f}", f"{errors[best]:.4f} ({said(best)})", f"{errors[MODEL]:.4f}",
            "" if combined is None else f"{combined:.4f}", said(published),
            f"{errors[published]:.4f}", f"{interval['coverage']:.3f}", f"{interval['mean_width']:.3g}",
        ])  # fmt: skip
    yield from grid(heads, cells)


def readme_lines(row: Row) -> list[str]:
    """What the README says of the demo: each paragraph and table stands there in these words."""
    counts, metrics, published = row["counts"], row["metrics"], row["published"]
    order = sorted(metrics, key=lambda name: (name != published, float(metrics[name]["mae"])))
    interval = row["intervals"]["methods"][published]
    lines = wrapped(f"Here that is {with_article(published)}: {reason_of(row)}.")
    lines += ["", *wrapped(f"{counts['windows']} windows, {counts['dates']} target dates"), ""]
    lines += [*grid([said(name) for name in order], [[f"{metrics[name]['mae']:.3f}" for name in order]]), ""]
    lines += wrapped(
        f"The 90 % intervals of what is published cover {100 * interval['coverage']:.0f} % of the held-out pixels and are "
        f"{interval['mean_width']:.2f} NDVI wide on average."
    )
    is_combined = published == COMBINATION
    ours, skills = (COMBINATION, row["combined_skill"]) if is_combined else ("network", row["skill"])
    for name in dict.fromkeys(("persistence", best_baseline(row))):
        lines += ["", *wrapped(against(ours, skills[name], name))]
    return lines


def against(ours: str, skill: Mapping[str, Any], name: str) -> str:
    said_of = {"beats": "beats", "equal": "equals", "loses": "loses to", "not distinguishable": "is not distinguishable from"}
    size = f"{100 * abs(skill['skill']):.1f} % {'smaller' if skill['skill'] > 0 else 'larger'}"
    ends = f"95 % interval of the skill {skill['low']:.2f} to {skill['high']:.2f}"
    dates = f"{skill['dates']} dates counted as {skill['effective_dates']:.0f} independent ones"
    return f"The {ours} {said_of[skill['outcome']]} {said(name)}: its error is {size} ({ends}, {dates})."


def document(rows: Mapping[tuple[str, int], Row]) -> list[str]:
    lines = [HEAD, *overview(rows), ""]
    if rows:
        lines += ["## How to read the tables", "", COLUMNS, *wrapped(next(iter(rows.values()))["protocol"]), ""]
    for name, series in SERIES.items():
        lines += series_lines(series, {seed: rows[name, seed] for seed in series.seeds if (name, seed) in rows})
    if (shown := rows.get((README, 0))) is not None:
        lines += ["## What the README says of the demo", "", *readme_lines(shown)]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    asked = asked_for((__doc__ or "").splitlines()[0], list(SERIES), arguments)
    configs = {
        (name, seed): config_of(series.config, {"training.seed": seed}, f"{name}-{seed}", asked.data, asked.folder)
        for seed in range(MOST_SEEDS)  # the first seed of every series comes first
        for name, series in SERIES.items()
        if seed in series.seeds
    }
    rows = asked.rows_of(configs, lambda config: run_row(config, asked.folder, read_run), lambda key: key[0] in asked.chosen)
    print("\n".join(document(rows)).rstrip())


if __name__ == "__main__":
    main()
