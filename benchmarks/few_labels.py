"""Accuracy against the number of labels, from nothing and begun from pretraining without labels -> a page of tables.

    python -m benchmarks.few_labels DATA FOLDER [--only TABLE] [--column NAME] [--seeds 3] [--finished] > few-labels.md

A row is a `driftline train` (ingest, train) of a ready-made config with `training.most_labels` (or `most_blocks`), a seed, and
`training.start_from` or not; then its networks are scored on the labels of the folds that they have not seen, as `driftline
evaluate` does, and a random forest that was fitted on the same few labels. All rows of a table share a run folder, so scenes are
read once. What is finished is kept in FOLDER and not done again. `--finished` runs nothing. A plot is written beside the page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.run_rows import Config, config_of, grid, without_paths, wrapped

Figures = dict[str, float]
NOTHING, STATISTICS = "from nothing", "only its mean and deviation"
FOREST = "random forest"
HEAD = """# Few labels: what pretraining without labels saves

Printed by `python -m benchmarks.few_labels DATA FOLDER`. Networks learn from so many labels; what is tested is the same in
every row: all labels, each by a network that has not seen its fold. Labels that choose the epoch count among the few. Mean and
standard deviation over seeds, which draw the labels and the first weights; a seed draws the same labels in every column.
"{statistics}": networks that begin from random weights with the standardisation of the pretraining,
which is all that labels could not tell. [How it works](../pretrain.md).
"""


@dataclass(frozen=True)
class Curve:
    """`config`: the ready-made one with labels; `key`: of the number of labels; `pretrained`: column -> (config, changes)."""

    title: str
    config: str
    about: str
    key: str
    counts: Sequence[int]
    unit: str
    pretrained: Mapping[str, tuple[str, Mapping[str, Any]]]
    figure: str = "accuracy"
    changes: Mapping[str, Any] = field(default_factory=dict)


UNTRAINED = {"training.learning_rate": 1e-12, "training.weight_decay": 0.0, "training.epochs": 1, "training.windows": 16}
PORTO, MORE = "porto-dos-gauchos-pretrain", "oscd-more-pretrain"
CHANGE = {
    "task": "segment", "pairs": {}, "model": {"kind": "siamese_dcrn", "widths": [8, 16, 32], "dropout": 0.1},
    "labels": {"kind": "site_rasters", "path": "{site}/{site}-cm.tif", "codes": {1: "unchanged", 2: "changed"},
               "grid_of": "first"},
    "split": {"groups": [["bercy", "paris"]]}, "evaluation": {},
    "training": {"loss": "dice_focal", "draw": "classes", "decision": "largest_f1", "class_weights": False, "window_px": 32,
                 "windows": 256, "batch": 8, "epochs": 12, "learning_rate": 0.003,
                 "augment": {"noise": 0.0, "hidden_dates": 0.0, "early": 0.0}},
}  # fmt: skip
CURVES: dict[str, Curve] = {
    "crops": Curve(
        "Crops of one season",
        "porto-dos-gauchos",
        "`task: segment`, L-TAE, 222 points of three classes. Pretrained on the four seasons before, on the same places without "
        "labels (the labelled season was not seen). Three folds of blocks; 10 epochs of 256 windows in steps of 16, set once.",
        "training.most_labels",
        (1, 4, 16),
        "labels of each class",
        {
            STATISTICS: (PORTO, UNTRAINED),
            "filling hidden dates": (PORTO, {}),
            "forecasting 3 dates": (PORTO, {"training.objective": "forecast"}),
        },
        changes={"split.folds": 3, "training.windows": 256, "training.epochs": 10, "training.batch": 16},
    ),
    "oscd": Curve(
        "Change between two dates in five cities",
        "oscd",
        "`task: segment` with siamese_dcrn on the five cities of OSCD in four groups, each left out in turn; learnt from one, "
        "two or three of the other groups. Pretrained on five other cities (`oscd-more`), whose labels were not "
        "read. F1 of changed. 12 epochs of 256 windows; with 6 of 128 and class weights, tried first, no column was better than "
        "chance (0.03). These settings were chosen by looking at the tested cities, from nothing, with all groups.",
        "training.most_blocks",
        (1, 2, 3),
        "groups of labelled cities",
        {"filling hidden squares": (MORE, {})},
        figure="f1",
        changes=CHANGE,
    ),
}

# ---------------------------------------------------------------- rows


def measured(config: Config) -> Figures:
    """Figures of a trained run on labels that its networks have not seen, with those of a forest on the same labels."""
    import numpy as np

    from flows.task import open_invocation, remembering_folder
    from flows.tasks.segment_cubes import load_model, open_samples, side_of_tiles
    from models.baselines.class_references import RandomForest
    from pipelines.inference.class_scores import held_out_references, held_out_scores
    from pipelines.learning.class_metrics import accuracy_of, class_figure_of, confusion

    carry_out(config, "ingest", "train")
    context = open_invocation(config)
    with remembering_folder(context):
        model = load_model(context, "evaluate")
        samples = open_samples(context, "evaluate", model.classes)
        every, true_P, classes = np.arange(len(samples.labels)), samples.labels.class_P, len(model.classes)
        said = {"": held_out_scores(samples, model, every, side_of_tiles(context.run, samples))}
        if "start_from" not in config["training"]:  # one for all columns
            seed = config["training"]["seed"]
            builders = {FOREST: partial(RandomForest, classes, seed)}
            said["forest_"] = held_out_references(samples, builders, every, 5000, seed)[FOREST]
    tables = {name: confusion(true_P, one.class_P, classes).reshape(1, -1) for name, one in said.items()}
    return {
        **{f"{name}accuracy": float(accuracy_of(table)[0]) for name, table in tables.items()},
        **{f"{name}f1": float(class_figure_of("f1", classes - 1, table)[0]) for name, table in tables.items()},
    }


def pretrained(config: Config) -> Figures:
    """Loss of a pretraining on places held out, beside interpolation."""
    carry_out(config, "ingest", "train")
    record = json.loads((Path(config["runs"]) / config["name"] / "stages" / "train.json").read_text())
    figures: Figures = record["pretraining"]
    return figures


def carry_out(config: Config, *verbs: str) -> None:
    from flows import stage
    from flows.task import open_invocation, remembering_folder

    context = open_invocation(config)
    with remembering_folder(context):
        for verb in verbs:
            stage.carry_out(context, verb)


def kept(
    folder: Path, name: str, config: Config, work: Callable[[Config], Figures] | None, also: Sequence[Config] = ()
) -> Figures | None:
    """The figures of a row, measured now by `work` unless they were with the same config; None: not finished, and no work.

    also: configs of runs that it begins from.
    """
    path = folder / f"{name}.json"
    content = [without_paths({**one, "training": without_folder(one["training"])}) for one in (config, *also)]
    asked = json.loads(json.dumps(content, default=str))
    if path.is_file() and (found := json.loads(path.read_text()))["config"] == asked:
        figures: Figures = found["figures"]
        return figures
    if work is None:
        return None
    print(f"{name} ...", file=sys.stderr, flush=True)
    figures = work(config)
    path.write_text(json.dumps({"config": asked, "figures": figures}))
    return figures


def without_folder(training: Mapping[str, Any]) -> dict[str, Any]:
    """The model that training begins from by its name alone, wherever it lies."""
    return {name: Path(value).name if name == "start_from" else value for name, value in training.items()}


def rows_of(name: str, curve: Curve, asked: argparse.Namespace) -> dict[tuple[str, int, int], Figures]:
    """(column, number of labels, seed) -> figures."""
    found = {}
    columns: dict[str, tuple[str, Mapping[str, Any]] | None] = {NOTHING: None, **curve.pretrained}
    for seed, count, (column, source) in product(range(asked.seeds), curve.counts, columns.items()):  # whole curves first
        is_run = not asked.finished and column in (asked.column or columns)
        changes, before = {**curve.changes, curve.key: count, "training.seed": seed}, list[Config]()
        if source is not None:
            before = [config_of(source[0], source[1], f"{name}-{column}", asked.data, asked.folder)]
            changes["training.start_from"] = str(Path(before[0]["runs"]) / before[0]["name"])
            kept(asked.folder, before[0]["name"], before[0], pretrained if is_run else None)
        config = config_of(curve.config, changes, name, asked.data, asked.folder)
        row_name = f"{name}-{column}-{count}-{seed}".replace(" ", "-")
        row = kept(asked.folder, row_name, config, measured if is_run else None, before)
        if row is not None:
            found[column, count, seed] = row
    return found


# ---------------------------------------------------------------- what is printed


def table_lines(curve: Curve, rows: Mapping[tuple[str, int, int], Mapping[str, float]]) -> list[str]:
    """Markdown: how it was measured, a line for each number of labels."""
    columns = [NOTHING, *curve.pretrained]
    has_forest = any(f"forest_{curve.figure}" in row for row in rows.values())
    lines = []
    for count in curve.counts:
        cells = [spread([row[curve.figure] for key, row in rows.items() if key[:2] == (column, count)]) for column in columns]
        if has_forest:
            forest = [row[f"forest_{curve.figure}"] for key, row in rows.items() if key[:2] == (NOTHING, count)]
            cells.append(spread(forest))
        lines.append([str(count), *cells])
    seeds = sorted({key[2] for key in rows})
    heads = [curve.unit, *columns, *([FOREST] if has_forest else [])]
    about = wrapped(f"`configs/{curve.config}.yaml`. {curve.about} {curve.figure}; seeds {', '.join(map(str, seeds))}.")
    return [f"## {curve.title}", "", *about, "", *grid(heads, lines), ""]


def spread(values: Sequence[float]) -> str:
    """Such as 0.712 ± 0.021 (3)."""
    if not values:
        return "not run"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") + f" ({len(values)})"


def plot(name: str, curve: Curve, rows: Mapping[tuple[str, int, int], Mapping[str, float]], path: Path) -> None:
    """Mean and standard deviation over seeds against the number of labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for column in (NOTHING, *curve.pretrained, FOREST):
        key, of = (f"forest_{curve.figure}", NOTHING) if column == FOREST else (curve.figure, column)
        values = {n: [row[key] for (c, m, _), row in rows.items() if (c, m) == (of, n) and key in row] for n in curve.counts}
        shown = {n: one for n, one in values.items() if one}
        if shown:
            spreads = [stdev(one) if len(one) > 1 else 0.0 for one in shown.values()]
            axes.errorbar(list(shown), [mean(one) for one in shown.values()], spreads, label=column, capsize=3, marker="o")
    axes.set(xscale="log", xlabel=curve.unit, ylabel=curve.figure, title=curve.title)
    axes.set_xticks(list(curve.counts), [str(count) for count in curve.counts], minor=False)
    axes.legend(fontsize="small")
    figure.savefig(path / f"few-labels-{name}.png", dpi=100)


def lines_of(found: Mapping[str, Mapping[tuple[str, int, int], Mapping[str, float]]]) -> Iterator[str]:
    for name, rows in found.items():
        yield from table_lines(CURVES[name], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=lambda text: Path(text).resolve())
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", choices=list(CURVES), action="append", help="tables to make; default: all")
    parser.add_argument("--column", action="append", help="columns to run, of any table; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is finished")
    asked = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = {name: rows_of(name, CURVES[name], asked) for name in asked.only or CURVES}
    for name, rows in found.items():
        if rows:
            plot(name, CURVES[name], rows, asked.folder)
    print(
        "\n".join([HEAD.format(statistics=STATISTICS), *lines_of({name: rows for name, rows in found.items() if rows})]).rstrip()
    )


if __name__ == "__main__":
    main()
