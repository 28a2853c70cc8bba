"""The trained models below a folder, and the card of one: from checkpoints and evaluations alone, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.trained import CARDS, DESCRIPTION, WEIGHTS, Trained, find_model, reading
from flows import Json
from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.files import write_json, write_text
from pipelines.products.model_card import Card, figures, item, markdown


def list_models(folder: Path) -> list[Json]:
    """A row for each model below `folder`, by name; one that cannot be read is listed with the reason."""
    rows = []
    for path in sorted(folder.glob(f"*/model/{DESCRIPTION}")):
        try:
            with reading(path.parent):
                rows.append(row_of(find_model(path.parent)))
        except (ArtefactDamaged, MissingInput) as e:
            rows.append({"path": str(path.parents[1]), "problem": f"cannot be read: {e}"})
    return rows


def row_of(trained: Trained) -> Json:
    inputs, card = trained.inputs, card_of(trained.folder)
    return {
        "path": str(trained.folder.parent),
        "run": trained.name,
        "taken_from": trained.taken_from,
        "task": trained.task or trained.kind,
        "predicts": card.predicts,
        "bands": [band.name for band in inputs.bands],
        "from_utc": inputs.first_utc,
        "to_utc": inputs.last_utc,
        "pixel_m": inputs.pixel_m,
        "scores": figures(card),
        "is_publishable": (card.scores or {}).get("verdict", {}).get("is_publishable"),
        "hash": trained.hash,
    }


def lines_of(rows: Sequence[Json], where: str) -> list[str]:
    """The list for people."""
    if not rows:
        return [f"no trained model below {where}; `driftline run CONFIG` trains one"]
    return [line for row in rows for line in ([f"{row['path']}: {row['problem']}"] if "problem" in row else row_lines(row))]


def row_lines(row: Json) -> list[str]:
    period = f"{row['from_utc'][:10]} to {row['to_utc'][:10]}" if row["from_utc"] else "dates unknown"
    pixel = f"{row['pixel_m']:.4g} m pixels" if row["pixel_m"] else "pixel size unknown"
    scores = "; ".join(f"{name}: {text}" for name, text in row["scores"].items()) or "not known"
    may = {True: "may be published", False: "not to be published", None: "no verdict"}[row["is_publishable"]]
    copy = f" (taken from {row['taken_from']})" if row["taken_from"] else ""
    return [
        f"{row['path']}{copy}  {row['task']}: {row['predicts']} from {', '.join(row['bands']) or 'unknown bands'}",
        f"    trained on {row['run'] or 'an unknown run'}, {period}, {pixel}",
        f"    on data held out where it was trained: {scores} ({may})",
    ]


def card_of(path: str | Path) -> Card:
    """The card of the model at `path`. Raises MissingInput, ArtefactDamaged."""
    trained = find_model(path)
    with reading(trained.folder):
        return _card(trained)


def _card(trained: Trained) -> Card:
    if hashlib.sha256((trained.folder / WEIGHTS).read_bytes()).hexdigest() != trained.content["tensors_sha256"]:
        raise ValueError(f"{WEIGHTS} is not the file that {DESCRIPTION} describes")
    metadata, whole = trained.metadata, trained.architecture
    variables = (trained.sections.get("samples") or trained.sections).get("variables") or []
    classes = f"the classes {', '.join(whole['classes'])}" if "classes" in whole else ""
    return Card(
        name=trained.name or str(trained.folder.parent.name),
        task=trained.task
        or {"forecaster": "forecast", "change-detector": "change", "segmenter": "segment"}.get(trained.kind, trained.kind),
        kind=trained.kind,
        model_hash=trained.hash,
        predicts=classes or ", ".join(one["name"] for one in variables) or "change",
        inputs=trained.inputs,
        context=whole.get("context"),
        horizon=whole.get("horizon"),
        config=trained.sections,
        training=metadata.get("training", {}),
        held_out=metadata.get("split", metadata.get("left_out", {})),
        cube_snapshot=metadata.get("cube_snapshot", ""),
        code_version=metadata.get("code_version", ""),
        parameters=count_numbers(trained.folder / WEIGHTS),
        scores=trained.scores,
        choice=metadata.get("choice", {}),
        folder=trained.folder,
    )


def count_numbers(path: Path) -> int:
    """How many numbers the networks in a safetensors file hold, from its header (https://github.com/huggingface/safetensors)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: Mapping[str, Any] = json.loads(file.read(length))
    total = 0
    for name, tensor in header.items():
        if name.startswith("members."):
            count = 1
            for size in tensor["shape"]:
                count *= size
            total += count
    return total


def write_card(card: Card) -> list[Path]:
    """card.md and card.json beside the weights."""
    paths = [card.folder / name for name in CARDS]
    write_text(paths[0], markdown(card))
    write_json(paths[1], item(card), is_strict=True)
    return paths
