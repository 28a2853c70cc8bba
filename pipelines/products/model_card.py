"""The card of a trained model: what it takes, what it was trained on, how good it is, where it ends; Markdown, and a STAC item.

The item has the machine learning model extension 1.4 (https://github.com/stac-extensions/mlm). Unknown is said, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.learning.reuse import LEVEL_FACTOR, PIXEL_FACTOR, STEP_FACTOR, Inputs
from pipelines.products.json_values import Json, plain
from pipelines.products.report import number
from pipelines.wording import counted

UNKNOWN = "unknown"
TASKS = {
    "forecast": "regression",
    "change": "semantic-segmentation",
    "segment": "semantic-segmentation",
}  # names of the extension
WORDS = {"forecast": "Forecast", "change": "Map", "segment": "Map"}  # `... of ...`
FIRST = {"forecast": ("mae", "mean absolute error"), "change": ("f1", "F1")}
DATETIME_UNKNOWN = "1970-01-01T00:00:00Z"  # the specification wants a date; `driftline:dates` says that it is none


@dataclass(frozen=True)
class Card:
    """`config`: sections of a config that belong to the model; `held_out`: what it did not learn from; `scores`: evaluation."""

    name: str
    task: str
    kind: str
    model_hash: str
    predicts: str
    inputs: Inputs
    context: int | None
    horizon: int | None
    parameters: int
    folder: Path
    config: Json = field(default_factory=dict)
    training: Json = field(default_factory=dict)
    held_out: Json = field(default_factory=dict)
    cube_snapshot: str = ""
    code_version: str = ""
    scores: Mapping[str, Any] | None = None
    choice: Json = field(default_factory=dict)  # what the network was chosen from (`model: auto`)

    @property
    def limits(self) -> list[str]:
        """Where the model may be used."""
        inputs = self.inputs
        found = [f"Its bands, by name: {', '.join(band.name for band in inputs.bands) or UNKNOWN}; a missing one is refused."]
        if any(band.median is not None for band in inputs.bands):
            found.append(f"Values like those above: a median that differs by a factor of {LEVEL_FACTOR:g} is refused.")
        if inputs.step_days:
            found.append(f"Steps of {inputs.step_days:.3g} days, within a factor of {STEP_FACTOR:g}.")
        if inputs.pixel_m:
            found.append(f"Pixels of {inputs.pixel_m:.4g} m; beyond a factor of {PIXEL_FACTOR:g} it is applied with a warning.")
        return [*found, "Its scores hold for data like those that were held out, and say nothing of other places or sensors."]


def figures(card: Card) -> dict[str, str]:
    """method -> its most important figure in words, the model's first, then those that it must beat; {} where unknown."""
    if card.scores is None:
        return {}
    methods, shipped = card.scores["methods"], model_among(card.scores)
    key, title = FIRST.get(card.task, (next(iter(methods[shipped]), ""), ""))
    verdict = card.scores["verdict"]
    named = [shipped, *verdict["must_beat"], *([verdict["best_baseline"]] if verdict.get("published") else ())]
    shown = {name: methods[name].get(key) for name in dict.fromkeys(named) if name in methods}
    return {name: f"{title or key} {number(value)}" for name, value in shown.items() if value is not None}


def model_among(scores: Json) -> str:
    """The trained model's name among the methods: what is published, unless that is a baseline."""
    return "model" if scores["verdict"].get("published") else str(scores["shipped"])


def markdown(card: Card) -> str:
    """The card as text."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: Card) -> Iterator[str]:
    inputs, scores = card.inputs, card.scores
    dates = f"{inputs.dates} dates, {inputs.first_utc[:10]} to {inputs.last_utc[:10]}" if inputs.first_utc else UNKNOWN
    yield from (
        f"# Model {card.name}",
        "",
        f"{WORDS.get(card.task, card.task.capitalize())} of {card.predicts}; {f'{card.parameters:,}'.replace(',', ' ')} numbers.",
        "",
    )
    yield from ("| what | value |", "|---|---|")
    rows = {
        "hash": card.model_hash,
        "trained on": f"{card.name}; {dates}",
        "areas (west, south, east, north)": "; ".join(f"{n} {', '.join(map(str, a))}" for n, a in inputs.areas.items())
        or UNKNOWN,
        "held out": ", ".join(f"{key} {value}" for key, value in card.held_out.items()) or UNKNOWN,
        "cube": card.cube_snapshot or UNKNOWN,
        "pixel": f"{inputs.pixel_m:.4g} m" if inputs.pixel_m else UNKNOWN,
        "steps": f"{inputs.step_days:.3g} days" if inputs.step_days else UNKNOWN if card.context else "any dates",
        **({"dates in, out": f"{card.context}, {card.horizon}"} if card.context else {}),
        "architecture": ", ".join(f"{key} {value}" for key, value in card.config.get("model", {}).items()) or UNKNOWN,
        **({"chosen from": chosen_from(card.choice)} if card.choice else {}),
        "training": ", ".join(f"{key} {value}" for key, value in card.training.items()) or UNKNOWN,
        "made by": card.code_version or UNKNOWN,
    }
    yield from (f"| {key} | {value} |" for key, value in rows.items())
    yield from ("", "## Bands", "", "| band | unit | median | spread |", "|---|---|---|---|")
    for band in inputs.bands:
        yield f"| {band.name} | {band.unit or UNKNOWN} | {known(band.median)} | {known(band.spread)} |"
    yield from ("", "## Scores on data held out", "")
    if scores is None:
        yield "Unknown: no evaluation lies beside the model."
    else:
        yield from ("| method | " + " | ".join(columns := _columns(scores)) + " |", "|---" * (len(columns) + 1) + "|")
        for name, method in scores["methods"].items():
            yield f"| {name} | " + " | ".join(known(method.get(column)) for column in columns) + " |"
        yield from ("", scores["verdict"]["sentence"])
    yield from ("", "## Limits", "", *(f"- {limit}" for limit in card.limits))


def chosen_from(choice: Json) -> str:
    """What a network was chosen from, in words."""
    trials = choice["trials"]
    trainings = sum(len(trial["errors"]) for trial in trials)
    among = f"{counted(len(trials), 'candidate')} at {counted(choice['origins'], 'rolling origin')} inside the training part"
    return f"{among}, {counted(trainings, 'short training')}"


def _columns(scores: Mapping[str, Any]) -> list[str]:
    return [key for key in scores["methods"][model_among(scores)] if not key.startswith("f1_")]


def known(value: float | str | None) -> str:
    return UNKNOWN if value is None else number(value)


def item(card: Card) -> Json:
    """The STAC item; links to the weights are relative to the model's folder."""
    import pystac
    from pystac.extensions import mlm
    from pystac.extensions.raster import DataType

    inputs, bands = card.inputs, [band.name for band in card.inputs.bands]
    start, end = (
        datetime.fromisoformat((text or DATETIME_UNKNOWN).replace("Z", "+00:00")) for text in (inputs.first_utc, inputs.last_utc)
    )
    geometry, bbox = outline(inputs)
    made = pystac.Item(f"model_{card.model_hash[:12]}", geometry, bbox, None, {}, start_datetime=start, end_datetime=end)
    made.common_metadata.title = f"driftline {card.kind} {card.name}"
    axes, task = ["batch", "time", "band", "height", "width"], mlm.TaskType(TASKS.get(card.task, "regression"))
    structure = mlm.InputStructure.create([-1, card.context or -1, len(bands), -1, -1], axes, DataType.FLOAT32)
    result = mlm.ResultStructure.create([-1, card.horizon or -1, -1, -1, -1], axes, DataType.FLOAT32)
    mlm.MLMExtension.ext(made, add_if_missing=True).apply(
        name=card.name,
        architecture=str(card.config.get("model", {}).get("kind", card.kind)),
        tasks=[task],
        input=[mlm.ModelInput.create("images", bands=bands, input=structure, description="physical values, a mask beside them")],
        output=[mlm.ModelOutput.create(card.predicts, tasks=[task], result=result)],
        framework="PyTorch",
        framework_version=version("torch"),
        total_parameters=card.parameters,
        pretrained=True,
        hyperparameters=mlm.Hyperparameters(plain({**card.config, "training": card.training})),
    )
    scores = {} if card.scores is None else {name: dict(one) for name, one in card.scores["methods"].items()}
    made.properties |= {
        "driftline:model_hash": card.model_hash,
        "driftline:cube_snapshot": card.cube_snapshot or UNKNOWN,
        "driftline:dates": inputs.dates or UNKNOWN,
        "driftline:bands": [plain(vars(band)) for band in inputs.bands],
        "driftline:pixel_m": inputs.pixel_m,
        "driftline:step_days": inputs.step_days,
        "driftline:held_out": plain(card.held_out),
        "driftline:scores": plain(scores) or UNKNOWN,
        "driftline:verdict": UNKNOWN if card.scores is None else card.scores["verdict"]["sentence"],
        "driftline:limits": card.limits,
    }
    roles = ["mlm:model", "mlm:weights"]
    weights = pystac.Asset("./model.safetensors", "Weights", media_type="application/x-safetensors", roles=roles)
    weights.extra_fields["mlm:artifact_type"] = "safetensors"
    made.add_asset("model", weights)
    found: Json = made.to_dict(include_self_link=False, transform_hrefs=False)
    return found


def outline(inputs: Inputs) -> tuple[dict[str, Any] | None, list[float] | None]:
    """(GeoJSON of the areas of training, their bounding box) in degrees; (None, None) where they are unknown."""
    areas = list(inputs.areas.values())
    if not areas:
        return None, None
    rings = [[[[w, s], [e, s], [e, n], [w, n], [w, s]]] for w, s, e, n in areas]
    box = [min(area[k] for area in areas) for k in (0, 1)] + [max(area[k] for area in areas) for k in (2, 3)]
    return (
        {"type": "Polygon", "coordinates": rings[0]} if len(rings) == 1 else {"type": "MultiPolygon", "coordinates": rings}
    ), box
