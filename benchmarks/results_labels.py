"""Members of the recurrent family on MNIST rows, moving digits and lung ultrasound -> docs/results/labels.md; resumable.

    python -m benchmarks.results_labels DATA FOLDER [--only NAME] > docs/results/labels.md

`DATA` holds `digits/mnist` (IDX files) and `medical/lung-ultrasound`. Every row is a `driftline run` in FOLDER; one that is
finished is not run again, a killed one goes on. Times are CPU seconds of the whole run: ingest, training, references, products.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring import run_measured

ROWS = {
    "task": "classify",
    "source": {"kind": "idx"},
    "labels": {"kind": "source"},
    "split": {"test": "t10k", "networks": 3, "validation_parts": 12},
    "training": {"epochs": 14, "batch": 128, "learning_rate": 4e-3, "augment": {"rotate_degrees": 8.0, "crop": 0.9}},
    "evaluation": {"references": ["commonest", "nearest_mean"]},
}
CLIPS = {
    "task": "classify",
    "source": {"kind": "moving_digits", "clips": 2000, "test_clips": 500, "frames": 8, "side": 36},
    "labels": {"kind": "source"},
    "split": {"test": "test", "networks": 3, "validation_parts": 10},
    "training": {"epochs": 12, "batch": 32, "learning_rate": 4e-3},
    "evaluation": {"references": ["commonest"]},
}
LUNG = {
    "task": "classify",
    "source": {"kind": "files", "pattern": "*.avi"},
    "labels": {"kind": "table"},
    "frames": {"count": 12, "size": [64, 64], "crop": [0.12, 0.15, 0.88, 0.85]},
    "split": {"folds": 5},
    "training": {
        "epochs": 15,
        "batch": 8,
        "learning_rate": 2e-3,
        "augment": {"flip": "horizontal", "noise": 0.1, "brightness": 0.2},
    },
    "evaluation": {"references": ["commonest", "nearest_mean", "random_forest"]},
}
LSTM = {"kind": "row_lstm", "hidden": 128, "dropout": 0.2}
SMALL = {"widths": [8, 16]}
TABLES: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Mapping[str, Any]]]] = {
    "mnist": (
        "MNIST, an image as a sequence of its rows or of its patches",
        ROWS,
        {
            "rnn": {**LSTM, "kind": "row_rnn"},
            "gru": {**LSTM, "kind": "row_gru"},
            "lstm": LSTM,
            "lstm, bidirectional": {**LSTM, "bidirectional": True, "hidden": 96},
            "lstm, two layers": {**LSTM, "layers": 2, "hidden": 96},
            "regions, lstm": {"kind": "region_lstm", "patch_px": 7, "hidden": 64, **SMALL},
        },
    ),
    "direction": (
        "Direction of a moving digit",
        {**CLIPS, "source": {**CLIPS["source"], "answer": "direction"}},  # type: ignore[dict-item]
        {
            "frame_cnn": {"kind": "frame_cnn", "grid": 4, **SMALL},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 48, "grid": 4, **SMALL},
            "dcrn": {"kind": "dcrn", **SMALL},
            "convgru": {"kind": "convgru", **SMALL},
            "convlstm": {"kind": "convlstm", **SMALL},
        },
    ),
    "digit": (
        "Which digit moves",
        {**CLIPS, "source": {**CLIPS["source"], "answer": "digit"}},  # type: ignore[dict-item]
        {
            "frame_cnn": {"kind": "frame_cnn", "widths": [16, 32, 64]},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 64, "widths": [16, 32, 64]},
            "dcrn": {"kind": "dcrn", "widths": [16, 32]},
        },
    ),
    "lung": (
        "Lung ultrasound: pneumonia or regular, 30 clips of one hospital in 12 groups",
        LUNG,
        {
            "frame_cnn": {"kind": "frame_cnn", "widths": [8, 16, 32]},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 32, "widths": [8, 16, 32]},
            "dcrn": {"kind": "dcrn", **SMALL},
        },
    ),
}
PATHS = {"idx": "digits/mnist", "moving_digits": "digits/mnist", "files": "medical/lung-ultrasound"}


def config_of(table: str, member: str, data: Path, folder: Path) -> dict[str, Any]:
    """The config of one row."""
    _, base, members = TABLES[table]
    source = {**base["source"], "path": str(data / PATHS[base["source"]["kind"]])}
    name = f"{table}-{member.replace(', ', '-').replace(' ', '-').replace('_', '-')}"
    found = {**base, "name": name, "source": source, "model": dict(members[member]), "runs": str(folder / "runs")}
    if base["labels"]["kind"] == "table":
        found["labels"] = {"kind": "table", "path": str(data / PATHS["files"] / "labels.csv")}
    return found


def row_of(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The row of one member; run now unless it was finished with the same config."""
    path, kept = folder / f"{config['name']}.yaml", folder / f"{config['name']}.json"
    text = yaml.safe_dump(dict(config))
    if kept.is_file() and path.is_file() and path.read_text() == text:
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    path.write_text(text)
    print(f"{config['name']} ...", file=sys.stderr, flush=True)
    costs = run_measured([sys.executable, "-m", "flows.cli", "run", str(path), "--even-if-worse", "--even-if-confounded"])
    if costs.returncode:
        raise SystemExit(f"{config['name']}: exit code {costs.returncode}")
    run = Path(config["runs"]) / config["name"]
    evaluation = json.loads((run / "evaluation.json").read_text())
    trained = json.loads((run / "stages" / "train.json").read_text())
    row = {
        "methods": evaluation["methods"],
        "single": evaluation["details"]["single_networks"],
        "confounded": evaluation["verdict"]["confounded_by"],
        "networks": len(trained["training"]["members"]),
        "train_seconds": sum(one["seconds"] for one in trained["training"]["members"]),
        "cpu_seconds": costs.cpu_seconds,
        "peak_gb": costs.peak_gb,
        "parameters": parameters_of(run),
    }
    kept.write_text(json.dumps(row))
    return row


def parameters_of(run: Path) -> int:
    """Weights of one network."""
    from models.sequence_model import SEQUENCE_MODEL

    model, _ = SEQUENCE_MODEL.load(run / "model")
    return sum(one.numel() for one in model.members[0].parameters())


def table_of(table: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown lines."""
    title, base, members = TABLES[table]
    split = base["split"]
    how = f"{split['networks']} seeds" if "test" in split else f"{split['folds']} folds of whole groups"
    lines = [f"## {title}", "", f"{how}; the model is the mean of the networks.", ""]
    lines += ["| member | accuracy | interval | one network, mean (spread) | calibration error | parameters | CPU s | peak GB |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name in members:
        row, ours = rows[name], rows[name]["methods"]["model"]
        alone = row["single"]
        spread = (sum((one - sum(alone) / len(alone)) ** 2 for one in alone) / max(len(alone) - 1, 1)) ** 0.5
        shown = f"{sum(alone) / len(alone):.4f} ({spread:.4f})" if len(alone) > 1 else "–"
        interval = f"{ours['accuracy_low']:.3f} to {ours['accuracy_high']:.3f}"
        figures = f"{ours['calibration_error']:.3f} | {row['parameters']} | {row['cpu_seconds']:.0f} | {row['peak_gb']:.2f}"
        lines.append(f"| {name} | {ours['accuracy']:.4f} | {interval} | {shown} | {figures} |")
    first = rows[next(iter(members))]["methods"]
    for name in (one for one in first if one != "model"):
        interval = f"{first[name]['accuracy_low']:.3f} to {first[name]['accuracy_high']:.3f}"
        lines.append(f"| *{name}* | {first[name]['accuracy']:.4f} | {interval} | | | | | |")
    confounded = {name: rows[name]["confounded"] for name in members if rows[name]["confounded"]}
    if confounded:
        lines += ["", "CONFOUNDED: " + "; ".join(f"{name} by {', '.join(by)}" for name, by in confounded.items()) + "."]
    return [*lines, ""]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(TABLES), action="append", help="tables to make; default: all")
    parsed = parser.parse_args(arguments)
    parsed.folder.mkdir(parents=True, exist_ok=True)
    for table in parsed.only or TABLES:
        rows = {
            member: row_of(config_of(table, member, parsed.data, parsed.folder), parsed.folder) for member in TABLES[table][2]
        }
        print("\n".join(table_of(table, rows)), flush=True)


if __name__ == "__main__":
    main()
