"""Members of the recurrent family on images, clips, series, boxes, crops and pairs of dates -> docs/results/labels.md.

    python -m benchmarks.results_labels DATA FOLDER [--only TABLE] [--member ROW] [--jobs 2] [--finished] > docs/results/labels.md

`DATA` holds the folders that `benchmarks.labels_tables` names. Every row is a `driftline run` in FOLDER of a ready-made config
(`configs/NAME.yaml`) with what `benchmarks.labels_tables` changes. A row that is finished with the same config is not run again,
a killed one goes on. Times are CPU seconds of the whole run: ingest, training, references, products. `--finished` runs nothing
and prints what there is, and what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import yaml

from benchmarks.labels_tables import CUBE, TABLES, Figure, Table, read_methods, weights_of
from benchmarks.measuring import run_measured
from benchmarks.run_rows import POLLED_S, Config, Row, asked_for, config_of, costs_of, date_of, grid, kept_row, run_row, wrapped

OPTIONS = ("--even-if-worse", "--even-if-confounded")
HEAD = """# Labels, numbers and boxes: members and data

Printed by `python -m benchmarks.results_labels DATA FOLDER`: a `driftline run` for each row, of the ready-made config
that the heading names with another `model` (`benchmarks/labels_tables.py`). CPU seconds are those of the whole run
(ingest, training of all networks, references, products), with one thread for PyTorch, on two shared cores of an x86-64
VM; a run that was killed and went on says "at least", and a dash stands where a run was made before without a meter.
Memory is the peak of the run, parameters are those of one network. Intervals (95 %) leave out one group after the
other. Rows in italics are references on the same tested samples. Settings were chosen on validation parts, but for what
is said of boxes. How it is measured: [labels.md](../labels.md#how-it-is-measured).
"""


def ingest_cube(folder: Path, data: Path) -> None:
    """The cube of the table of tree cover; nothing is done where it is there."""
    config, path = config_of(CUBE, {}, CUBE, data, folder), folder / f"{CUBE}.yaml"
    path.write_text(yaml.safe_dump(config))
    if code := run_measured([sys.executable, "-m", "flows.cli", "ingest", str(path)], every_s=POLLED_S).returncode:
        raise SystemExit(f"{CUBE}: exit code {code}")


def read_run(run: Path, task: str) -> Row:
    """What the table shows of a finished run."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    audit = evaluation["details"].get("audit") or {"model": None, "clues": ()}
    reached = {clue["name"]: clue["accuracy"] for clue in audit["clues"]}
    trained = json.loads((run / "stages" / "train.json").read_text())["training"]["members"]
    return {
        "measured": date_of(run / "evaluation.json"),
        "methods": read_methods(evaluation),
        "protocol": evaluation["protocol"],
        "single": evaluation["details"].get("single_networks", []),
        "confounded": {name: reached[name] for name in evaluation["verdict"]["confounded_by"]},
        "balanced": audit["model"],
        "seeds": sorted({one.get("seed", 0) for one in trained}),
        "networks": len(trained),
        "epochs": [one["epochs"] for one in trained],
        "parameters": weights_of(run, task),
    }


# ---------------------------------------------------------------- what is printed


def table_lines(table: Table, rows: Mapping[str, Row]) -> list[str]:
    """Markdown: the heading, how it was measured, a line for each member, the references of the first one, what is missing."""
    lines = [f"## {table.title}", "", *wrapped(f"`configs/{table.config}.yaml`. {table.about}"), ""]
    missing = [name for name in table.members if name not in rows]
    if rows:
        first = next(iter(rows.values()))
        dates = sorted({row["measured"] for row in rows.values()})
        seeds = f"Seeds {', '.join(map(str, first['seeds']))}; measured {' and '.join(dates)}."
        lines += [*wrapped(f"{first['protocol']} {seeds}"), "", *grid_lines(table, rows), ""]
    confounded = {name: row for name, row in rows.items() if row["confounded"]}
    if confounded:
        said = "; ".join(f"{name} {row['balanced']:.3f}, {clues_of(row)}" for name, row in confounded.items())
        meaning = "balanced accuracy of the member, then of metadata alone, which comes near: nothing would be published"
        lines += [*wrapped(f"**CONFOUNDED** ({meaning}): {said}."), ""]
    if missing:
        lines += [f"Not run yet: {'; '.join(missing)}.", ""]
    return lines


def clues_of(row: Row) -> str:
    """Such as frame size 0.700."""
    return ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in row["confounded"].items())


def grid_lines(table: Table, rows: Mapping[str, Row]) -> list[str]:
    has_single = any(len(row["single"]) > 1 for row in rows.values())
    alone = [f"{table.alone} of one network, mean (spread)"] if has_single else []
    heads = ["member", *(one.title for one in table.figures), *alone, "parameters", "CPU s", "peak GB"]
    lines = []
    for name, row in rows.items():
        cells = [name, *(shown(one, row["methods"]["model"]) for one in table.figures)]
        cells += [spread_of(row["single"])] if has_single else []
        lines.append([*cells, str(row["parameters"]), *costs_of(row)])
    known = {name: scores for row in rows.values() for name, scores in row["methods"].items() if name != "model"}
    for name, scores in known.items():
        cells = [f"*{name}*", *(shown(one, scores) for one in table.figures), *([""] if has_single else []), "", "", ""]
        lines.append(cells)
    return grid(heads, lines)


def shown(figure: Figure, scores: Mapping[str, float | None]) -> str:
    """Such as 0.912 (0.897 to 0.926)."""
    value, low, high = (scores.get(f"{figure.key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return f"{value:.{figure.digits}f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def spread_of(single: Sequence[float]) -> str:
    return f"{mean(single):.4f} ({stdev(single):.4f})" if len(single) > 1 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    asked = asked_for((__doc__ or "").splitlines()[0], list(TABLES), arguments, member="member")
    chosen = {name: TABLES[name] for name in asked.chosen}
    configs = {
        (name, member): config_of(table.config, {**table.changes, "model": model}, f"{name}-{member}", asked.data, asked.folder)
        for name, table in chosen.items()
        for member, model in table.members.items()
    }

    def work(config: Config) -> Row:
        if "cube" in config["source"] and kept_row(config, asked.folder) is None:
            ingest_cube(asked.folder, asked.data)
        return run_row(config, asked.folder, partial(read_run, task=config["task"]), OPTIONS)

    rows = asked.rows_of(configs, work, lambda key: not asked.rows or key[1] in asked.rows)
    print("\n".join([HEAD, *printed(chosen, rows)]).rstrip())


def printed(chosen: Mapping[str, Table], rows: Mapping[tuple[str, str], Row]) -> Iterable[str]:
    """The cost of all rows, then the tables."""
    metered = [row["cpu_seconds"] for row in rows.values() if row["cpu_seconds"] is not None]
    every, spent = sum(len(table.members) for table in chosen.values()), sum(metered)
    cost = f"{len(metered)} of {every} rows have a meter: {spent:.0f} CPU seconds, {spent / 120:.0f} minutes on two cores."
    yield from (cost, "")
    for name, table in chosen.items():
        found = {member: rows[name, member] for member in table.members if (name, member) in rows}
        yield from table_lines(table, found)


if __name__ == "__main__":
    main()
