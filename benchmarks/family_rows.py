"""Rows of `benchmarks.family`: the config and the command of each, how it is run, and what is read of it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks import results_forecasters, results_forecasts, results_labels
from benchmarks.family_pages import stated
from benchmarks.family_tables import FAMILY, SECTIONS, Section
from benchmarks.labels_tables import read_methods, weights_of
from benchmarks.moving_mnist_gpu import slug
from benchmarks.run_rows import Config, Row, config_of, date_of, kept_row, run_row, without_paths

GATED = ("change", "segment", "classify", "regress", "detect", "generate", "describe")  # tasks whose products wait for a score


@dataclass(frozen=True)
class Line:
    """One run: a row of a section with a seed."""

    section: str
    member: str
    seed: int = 0

    @property
    def of(self) -> Section:
        return SECTIONS[self.section]

    @property
    def is_run(self) -> bool:
        """False: a row of `benchmarks.results_forecasters`."""
        return not self.of.command

    @property
    def name(self) -> str:
        """As the command of the section's page calls it, whose finished rows are found by that."""
        if self.member == self.of.as_is:
            return f"{self.section}-{self.seed}"
        return f"{self.section}-{self.member}" + (f"-seed-{self.seed}" if self.seed else "")

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the ready-made config, by dotted key."""
        table, seed = self.of.table, {self.of.seed_key: self.seed}
        if self.member == self.of.as_is:
            return {**table.changes, **seed}
        return {**table.changes, self.of.model_key: dict(table.members[self.member]), **(seed if self.seed else {})}

    def config(self, data: Path, folder: Path) -> Config:
        """What is run; of a row of another command its name alone."""
        if not self.is_run:
            return {"name": f"{self.section}-{slug(self.member)}"}
        return config_of(self.of.table.config, self.changes, self.name, data, folder)


def members_of(section: str) -> tuple[str, ...]:
    """Names of the rows of a section."""
    found = SECTIONS[section]
    return tuple(results_forecasters.MEMBERS if found.command else found.table.members)


def lines_asked(sections: Sequence[str], seeds: int) -> list[Line]:
    """All rows, those of the first seed first."""
    return [
        Line(name, member, seed)
        for seed in range(seeds)
        for name in sections
        if seed < SECTIONS[name].seeds
        for member in members_of(name)
    ]


def names_asked(rows: Sequence[str]) -> set[tuple[str, str]]:
    """(section, row) of what `--member` names: rows, or members of the family. Raises SystemExit."""
    every = {(section, member) for section in SECTIONS for member in members_of(section)}
    found = set[tuple[str, str]]()
    for row in rows:
        kin = [name for name in FAMILY if name.strip("*").lower() == row.lower()]
        of_kin = {(section, one) for name in kin for section, ones in FAMILY[name].rows.items() for one in ones}
        if not (these := of_kin | {one for one in every if one[1] == row}):
            raise SystemExit(f"--member {row!r}: no such row; members: {', '.join(name.strip('*') for name in FAMILY)}")
        found |= these
    return found


# ---------------------------------------------------------------- commands


def command_of(line: Line) -> str:
    """What reproduces a row, in the folder of the repository."""
    if not line.is_run:
        return line.of.command.format(member=line.member)
    name = config_of(line.of.table.config, {}, line.name, Path(), Path())["name"]
    sets = [f"--set {shlex.quote(f'{key}={flow(value)}')}" for key, value in {"name": name, **line.changes}.items()]
    return " ".join([f"driftline run configs/{line.of.table.config}.yaml", *sets, *options_of(line.of.task)])


def flow(value: object) -> str:
    """YAML in one line.

    >>> flow({"kind": "row_gru", "hidden": 128})
    '{kind: row_gru, hidden: 128}'
    """
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)).removesuffix("...\n").strip()


def options_of(task: str) -> tuple[str, ...]:
    return results_labels.OPTIONS if task in GATED else ()


# ---------------------------------------------------------------- what is read of a run


def reader_of(task: str) -> Callable[[Path], Row]:
    """What is kept of a finished run."""
    match task:
        case "forecast":
            return results_forecasts.read_run
        case "pretrain":
            return read_pretraining
        case "monitor":
            return read_monitoring
    return partial(results_labels.read_run, task=task)


def read_pretraining(run: Path) -> Row:
    path = run / "stages" / "train.json"
    record = json.loads(path.read_text())
    found, trained = record["pretraining"], record["training"]["members"]
    held_out = found["sites_held_out"] or [f"{found['places_held_out']} of {found['places'] + found['places_held_out']} blocks"]
    return {
        "measured": date_of(path),
        "methods": {"model": {"loss": found["loss"]}, "interpolation in time": {"loss": found["interpolation_mae"]}},
        "protocol": f"Held out: {', '.join(held_out)}.",
        "seeds": [record["made_from"]["training"]["seed"]],
        "epochs": [one["epochs"] for one in trained],
        "parameters": weights_of(run, "pretrain"),
    }


def read_monitoring(run: Path) -> Row:
    from models.checkpoint import RESIDUAL

    evaluation = json.loads((run / "evaluation.json").read_text())
    stored = sorted((run / "state").glob("**/networks/*/model.json"))
    networks = [RESIDUAL.load(path.parent)[0].members for path in stored]
    return {
        "measured": date_of(run / "evaluation.json"),
        "methods": read_methods(evaluation),
        "protocol": evaluation["protocol"],
        "seeds": [],
        "parameters": sum(one.numel() for one in networks[0][0].parameters()) if networks else 0,
    }


def uniform(line: Line, row: Row) -> Row:
    """Rows of the other commands as those of `benchmarks.results_labels` are."""
    if not line.is_run:  # of results_forecasters: the references do not depend on the row
        page = stated(line.section)
        known = {key: value for key, value in page.get(line.member, {}).items() if key != "page"}
        references: dict[str, Any] = next((one["methods"] for one in page.values()), {})
        methods = {**references, "model": {key: row[key] for key in ("mse", "mae", "ssim")}}
        return {
            "went_on": False,
            **row,
            "protocol": known.get("protocol", ""),
            "seeds": known.get("seeds", []),
            "methods": methods,
        }
    if line.of.task == "forecast":
        methods = {name: {f"mae{end}": one[key] for end, key in ENDS.items()} for name, one in row["metrics"].items()}
        combined = methods.pop("combination", {"mae": None})["mae"]
        methods["model"] |= {"combination": combined}
        return {**row, "methods": {name.replace("_", " "): one for name, one in methods.items()}}
    return row


ENDS = {"": "mae", "_low": "low", "_high": "high"}

# ---------------------------------------------------------------- running


def forecaster_row(line: Line, data: Path, folder: Path, *, is_run: bool) -> Row | None:
    """A row of `benchmarks.results_forecasters`, kept where that command keeps it."""
    protocol, members = results_forecasters.REDUCED, results_forecasters.MEMBERS
    place = folder / f"reduced-{protocol.epochs}"
    place.mkdir(exist_ok=True)
    kept = partial(results_forecasters.kept_row, line.member, protocol, members, place)
    if kept() is None and is_run:
        results_forecasters.run_row(line.member, place, [str(data), str(folder), "--epochs", str(protocol.epochs)])
    return kept()


def row_of(line: Line, data: Path, folder: Path, *, is_run: bool) -> Row | None:
    """What was measured with a line's settings; measured now if `is_run`. What fails leaves its error, and is tried again."""
    config = line.config(data, folder)
    failed = folder / f"{config['name']}.failed"
    try:
        if not line.is_run:
            row = forecaster_row(line, data, folder, is_run=is_run)
        elif is_run:
            row = run_row(config, folder, reader_of(line.of.task), options_of(line.of.task))
        else:
            row = kept_row(config, folder)
    except (SystemExit, OSError, LookupError, ValueError) as error:
        text = str(error).replace(str(folder), "FOLDER").replace(str(data), "DATA")
        failed.write_text(json.dumps({"config": of_row(config), "error": text}))
        print(f"failed: {config['name']}: {text}", file=sys.stderr, flush=True)
        return None
    if row is not None:
        failed.unlink(missing_ok=True)
        return uniform(line, row)
    return None


def error_of(line: Line, data: Path, folder: Path) -> str | None:
    """Why the row failed when it was tried last with these settings."""
    config = line.config(data, folder)
    path = folder / f"{config['name']}.failed"
    if not path.is_file() or (found := json.loads(path.read_text()))["config"] != of_row(config):
        return None
    return str(found["error"])


def of_row(config: Config) -> Any:
    return json.loads(json.dumps(without_paths(config), default=str))
