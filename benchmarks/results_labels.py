"""Members of the recurrent family on images, clips, series, boxes, crops and pairs of dates -> docs/results/labels.md.

    python -m benchmarks.results_labels DATA FOLDER [--only TABLE] [--member ROW] [--jobs 2] [--finished] > docs/results/labels.md

`DATA` holds the folders that `benchmarks.labels_tables` names. Every row is a `driftline run` in FOLDER of a ready-made config
(`configs/NAME.yaml`) with what `benchmarks.labels_tables` changes. A row that is finished with the same config is not run again,
a killed one goes on. Times are CPU seconds of the whole run: ingest, training, references, products. `--finished` runs nothing
and prints what there is, and what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from benchmarks.labels_tables import TABLES, Config, Figure, Table, config_of, read_methods, weights_of, without_paths
from benchmarks.measuring import run_measured

Row = dict[str, Any]
POLLED_S = 2.0  # rows take minutes
HEAD = """# Labels, numbers and boxes: members and data

Printed by `python -m benchmarks.results_labels DATA FOLDER`: a `driftline run` for each row, of the ready-made config
that the heading names with another `model` (`benchmarks/labels_tables.py`). CPU seconds are those of the whole run
(ingest, training of all networks, references, products), with one thread for PyTorch, on two shared cores of an x86-64
VM; a run that was killed and went on says "at least", and a dash stands where a run was made before without a meter.
Memory is the peak of the run, parameters are those of one network. Intervals (95 %) leave out one group after the
other. Rows in italics are references on the same tested samples. Settings were chosen on validation parts, but for what
is said of boxes. How it is measured: [labels.md](../labels.md#how-it-is-measured).
"""


def run_row(config: Config, folder: Path, data: Path) -> Row:
    """The row of one member; run now unless it was finished with the same config."""
    if (found := kept_row(config, folder)) is not None:
        return found
    name, run = config["name"], Path(config["runs"]) / config["name"]
    was_begun = run.exists()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    print(f"{name} ...", file=sys.stderr, flush=True)
    if "cube" in config["source"]:
        ingest_cube(folder, data)
    command = [sys.executable, "-m", "flows.cli", "run", str(path), "--even-if-worse", "--even-if-confounded"]
    costs = run_measured(command, every_s=POLLED_S)
    if costs.returncode:
        raise SystemExit(f"{name}: exit code {costs.returncode}")
    row = {**read_run(run, config["task"]), "cpu_seconds": costs.cpu_seconds, "peak_gb": costs.peak_gb, "went_on": was_begun}
    (folder / f"{name}.json").write_text(json.dumps(row))
    print(f"{name}: {costs.seconds:.0f} s", file=sys.stderr, flush=True)
    return row


def kept_row(config: Config, folder: Path) -> Row | None:
    """What was measured with this config, wherever the data were."""
    path, kept = (folder / f"{config['name']}.{ending}" for ending in ("yaml", "json"))
    if not (path.is_file() and kept.is_file()) or without_paths(yaml.safe_load(path.read_text())) != without_paths(config):
        return None
    row: Row = json.loads(kept.read_text())
    return row


def ingest_cube(folder: Path, data: Path) -> None:
    """The cube of the table of tree cover; nothing is done where it is there."""
    config = config_of("romania-20m", {}, "romania-20m", data, folder)
    path = folder / "romania-20m.yaml"
    path.write_text(yaml.safe_dump(config))
    if costs := run_measured([sys.executable, "-m", "flows.cli", "ingest", str(path)], every_s=POLLED_S).returncode:
        raise SystemExit(f"romania-20m: exit code {costs}")


def read_run(run: Path, task: str) -> Row:
    """What the table shows of a finished run."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    trained = json.loads((run / "stages" / "train.json").read_text())["training"]["members"]
    return {
        "measured": f"{datetime.fromtimestamp((run / 'evaluation.json').stat().st_mtime, UTC):%Y-%m-%d}",
        "methods": read_methods(evaluation),
        "protocol": evaluation["protocol"],
        "single": evaluation["details"].get("single_networks", []),
        "confounded": evaluation["verdict"]["confounded_by"],
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
    confounded = {name: row["confounded"] for name, row in rows.items() if row["confounded"]}
    if confounded:
        said = "; ".join(f"{name} by {', '.join(by)}" for name, by in confounded.items())
        lines += [*wrapped(f"**CONFOUNDED**: {said}. Metadata alone comes near to the model: nothing would be published."), ""]
    if missing:
        lines += [f"Not run yet: {'; '.join(missing)}.", ""]
    return lines


def grid_lines(table: Table, rows: Mapping[str, Row]) -> list[str]:
    has_single = any(len(row["single"]) > 1 for row in rows.values())
    alone = [f"{table.alone} of one network, mean (spread)"] if has_single else []
    heads = ["member", *(one.title for one in table.figures), *alone, "parameters", "CPU s", "peak GB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [name, *(shown(one, row["methods"]["model"]) for one in table.figures)]
        cells += [spread_of(row["single"])] if has_single else []
        lines.append(f"| {' | '.join([*cells, str(row['parameters']), *costs_of(row)])} |")
    known = {name: scores for row in rows.values() for name, scores in row["methods"].items() if name != "model"}
    for name, scores in known.items():
        cells = [f"*{name}*", *(shown(one, scores) for one in table.figures), *([""] if has_single else []), "", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def shown(figure: Figure, scores: Mapping[str, float | None]) -> str:
    """Such as 0.912 (0.897 to 0.926)."""
    value, low, high = (scores.get(f"{figure.key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return f"{value:.{figure.digits}f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def spread_of(single: Sequence[float]) -> str:
    return f"{mean(single):.4f} ({stdev(single):.4f})" if len(single) > 1 else ""


def costs_of(row: Row) -> list[str]:
    """CPU seconds and memory; a run that was made without this command has none."""
    if row["cpu_seconds"] is None:
        return ["–", "–"]
    at_least = "at least " if row["went_on"] else ""
    return [f"{at_least}{row['cpu_seconds']:.0f}", f"{row['peak_gb']:.2f}"]


def wrapped(text: str) -> list[str]:
    """Lines of a Markdown paragraph."""
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(TABLES), action="append", help="tables to make; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--member", action="append", default=[], help="rows to run, of any table; default: all")
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is finished")
    parsed = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = parsed.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: TABLES[name] for name in parsed.only or TABLES}
    configs = {
        (name, member): config_of(table.config, {**table.changes, "model": model}, f"{name}-{member}", parsed.data, folder)
        for name, table in chosen.items()
        for member, model in table.members.items()
    }

    def work(named: tuple[tuple[str, str], Config]) -> Row | None:
        (_, member), config = named
        if parsed.finished or (parsed.member and member not in parsed.member):
            return kept_row(config, folder)
        return run_row(config, folder, parsed.data)

    with ThreadPoolExecutor(parsed.jobs) as pool:
        rows = dict(zip(configs, pool.map(work, configs.items()), strict=True))
    print("\n".join([HEAD, *printed(chosen, rows)]).rstrip())


def printed(chosen: Mapping[str, Table], rows: Mapping[tuple[str, str], Row | None]) -> Iterable[str]:
    for name, table in chosen.items():
        found = {member: row for member in table.members if (row := rows[name, member]) is not None}
        yield from table_lines(table, found)


if __name__ == "__main__":
    main()
