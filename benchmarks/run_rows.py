"""Rows of the documents in docs/results: a measured `driftline run` of a ready-made config for each, kept beside its config.

A row that is finished with the same config is not run again, a killed one goes on. CPU seconds are those of the whole run.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from benchmarks.measuring import run_measured

Config = dict[str, Any]
Row = dict[str, Any]
Key = TypeVar("Key")

POLLED_S = 2.0  # rows take minutes
DONE, SOME_REFUSED = 0, 3  # exit codes of a run that has all its results
READY_MADE = Path(__file__).parents[1] / "configs"
ROMANIA = "satellite/sentinel2-romania"


def config_of(ready_made: str, changes: Mapping[str, Any], name: str, data: Path, folder: Path) -> Config:
    """The config `name` of a row: the ready-made one with the changes (dotted keys), its data below `data`, its run in `folder`.

    Where the ready-made config reads the cube of another one, so does the row.
    """
    config: Config = yaml.safe_load((READY_MADE / f"{ready_made}.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = config
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = copy.deepcopy(value)
    config |= {"name": re.sub(r"[^a-z0-9]+", "-", name), "runs": str(folder / "runs")}
    source, labels = config["source"], config.get("labels", {})
    if "cube" in source:
        source["cube"] = str(folder / source["cube"])
    for section in (
        one for one in (source, labels) if "path" in one and "{site}" not in one["path"]
    ):  # a pattern below source.path
        section["path"] = str(data / below_data(section["path"]))
    return config


def below_data(path: str) -> str:
    """Where the data of a ready-made config lie in a folder of all data sets; those that `driftline demo` fetches are there too.

    >>> below_data("../../shared/data/digits/mnist")
    'digits/mnist'
    """
    _, found, rest = path.partition("shared/data/")
    return rest if found else f"{ROMANIA}/{Path(path).name}"


def without_paths(config: Config) -> Config:
    """What a row depends on, wherever data and runs lie."""
    kept = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items() if name != "runs"}
    for section in ("source", "labels"):
        kept[section] = {name: value for name, value in kept.get(section, {}).items() if name not in ("path", "cube")}
    return kept


def kept_row(config: Config, folder: Path) -> Row | None:
    """What was measured with this config, wherever the data were."""
    path, kept = (folder / f"{config['name']}.{ending}" for ending in ("yaml", "json"))
    if not (path.is_file() and kept.is_file()) or without_paths(yaml.safe_load(path.read_text())) != without_paths(config):
        return None
    row: Row = json.loads(kept.read_text())
    return row


def run_row(config: Config, folder: Path, read: Callable[[Path], Row], options: Sequence[str] = ()) -> Row:
    """The row of one run; run now unless it was finished with the same config. read: what the tables show of its folder."""
    if (found := kept_row(config, folder)) is not None:
        return found
    name, run = config["name"], Path(config["runs"]) / config["name"]
    was_begun = run.exists()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    print(f"{name} ...", file=sys.stderr, flush=True)
    said = folder / f"{name}.log"
    costs = run_measured([sys.executable, "-m", "flows.cli", "run", str(path), *options], every_s=POLLED_S, log=said)
    if costs.returncode not in (DONE, SOME_REFUSED):
        raise SystemExit(f"{name}: exit code {costs.returncode}: {last_words(said)}")
    measured = {"cpu_seconds": costs.cpu_seconds, "peak_gb": costs.peak_gb, "went_on": was_begun, "exit_code": costs.returncode}
    row = {**read(run), **measured}
    (folder / f"{name}.json").write_text(json.dumps(row))
    print(f"{name}: {costs.seconds:.0f} s", file=sys.stderr, flush=True)
    return row


def last_words(log: Path, most: int = 300) -> str:
    """The error of a run in one line, or else the end of what it wrote."""
    _, told, error = " ".join(log.read_text(errors="replace").split()).rpartition("driftline: ")
    return error[:most] if told else error[-most:]


def date_of(path: Path) -> str:
    """The day on which a file was written, UTC."""
    return f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Asked:
    """What a document is asked for. chosen: its tables; rows: names of rows to run, none = all; seeds: how many of each."""

    data: Path
    folder: Path
    chosen: list[str]
    jobs: int
    rows: list[str]
    finished: bool
    seeds: int = 1

    def rows_of(
        self, configs: Mapping[Key, Config], work: Callable[[Config], Row | None], is_run: Callable[[Key], bool]
    ) -> dict[Key, Row]:
        """The row of each config, `jobs` at a time; those that are not to be run now if they are finished."""

        def of(named: tuple[Key, Config]) -> Row | None:
            key, config = named
            return work(config) if is_run(key) and not self.finished else kept_row(config, self.folder)

        with ThreadPoolExecutor(self.jobs) as pool:
            found = zip(configs, pool.map(of, configs.items()), strict=True)
            return {key: row for key, row in found if row is not None}


def asked_for(
    description: str, tables: Sequence[str], arguments: Sequence[str] | None, member: str = "", seeds: int = 0
) -> Asked:
    """The command line of a document; member: how its option for single rows is called, if it has one; seeds: likewise, the
    default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(tables), action="append", help="tables to make; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is finished")
    if member:
        parser.add_argument(
            f"--{member}", dest="rows", action="append", default=[], help="rows to run, of any table; default: all"
        )
    if seeds:
        parser.add_argument("--seeds", type=int, default=seeds, help="of each row")
    parsed = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = parsed.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = parsed.only or list(tables)
    rows, asked_seeds = getattr(parsed, "rows", []), getattr(parsed, "seeds", 1)
    return Asked(parsed.data.resolve(), folder, chosen, parsed.jobs, rows, parsed.finished, asked_seeds)


# ---------------------------------------------------------------- what is printed


def wrapped(text: str) -> list[str]:
    """Lines of a Markdown paragraph."""
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def costs_of(row: Row) -> list[str]:
    """CPU seconds and memory; a run that was made without this command has none."""
    if row["cpu_seconds"] is None:
        return ["–", "–"]
    at_least = "at least " if row["went_on"] else ""
    return [f"{at_least}{row['cpu_seconds']:.0f}", f"{row['peak_gb']:.2f}"]
