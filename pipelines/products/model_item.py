"""The model as a STAC item, by the machine learning model extension: https://github.com/stac-extensions/mlm (v1.4)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.files import write_json
from pipelines.grid import Grid
from pipelines.products.stac import box, footprint

NAME = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What a stranger must know to use the model: the extension's terms, and the lineage.

    `trained_from`, `trained_to`: first and last date that training saw (ISO 8601, UTC). `weights` is the safetensors file.
    """

    name: str
    model_hash: str
    architecture: str
    variables: tuple[str, ...]
    context: int
    horizon: int
    parameters: int
    trained_from: str
    trained_to: str
    cube_snapshot: str
    framework_version: str
    hyperparameters: dict[str, Any]
    weights: Path


def write_model_item(card: ModelCard, grid: Grid, folder: Path, *, at: Path | None = None) -> Path:
    """Writes `model.json` into `folder` and returns its path; the link to the weights is relative to `at`, where it will stand.

    Shapes use -1 for what is free: batch, rows and columns. Raises OSError if the folder cannot be written.
    """
    from pystac import Asset, Item
    from pystac.extensions.mlm import Hyperparameters, MLMExtension, TaskType
    from pystac.extensions.raster import DataType

    geometry = footprint(grid)
    start, end = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (card.trained_from, card.trained_to))
    item = Item(f"model_{card.model_hash[:12]}", geometry, box(geometry), None, {}, start_datetime=start, end_datetime=end)
    item.common_metadata.title = f"driftline forecaster {card.name}"
    mlm = MLMExtension.ext(item, add_if_missing=True)
    mlm.apply(
        name=card.name,
        architecture=card.architecture,
        tasks=[TaskType.REGRESSION],
        input=[_input(card, DataType.FLOAT32)],
        output=[_output(card, DataType.FLOAT32, TaskType.REGRESSION)],
        framework="PyTorch",
        framework_version=card.framework_version,
        total_parameters=card.parameters,
        pretrained=True,
        hyperparameters=Hyperparameters(card.hyperparameters),
    )
    item.properties |= {"driftline:model_hash": card.model_hash, "driftline:cube_snapshot": card.cube_snapshot}
    href = Path(os.path.relpath(card.weights, at or folder)).as_posix()
    weights = Asset(href, "Weights", media_type="application/x-safetensors", roles=["mlm:model", "mlm:weights"])
    weights.extra_fields["mlm:artifact_type"] = "safetensors"
    item.add_asset("model", weights)
    path = folder / NAME
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False), is_strict=True)
    return path


def _input(card: ModelCard, dtype: Any) -> Any:
    from pystac.extensions.mlm import InputStructure, ModelInput

    axes, shape = ["batch", "time", "variable", "height", "width"], [-1, card.context, len(card.variables), -1, -1]
    text = "physical values, 0 where not valid; a mask, elapsed days and the climatology go beside them"
    return ModelInput.create(
        "past", bands=list(card.variables), input=InputStructure.create(shape, axes, dtype), description=text
    )


def _output(card: ModelCard, dtype: Any, task: Any) -> Any:
    from pystac.extensions.mlm import ModelOutput, ResultStructure

    axes, shape = ["batch", "time", "variable", "height", "width"], [-1, card.horizon, len(card.variables), -1, -1]
    return ModelOutput.create("forecast", tasks=[task], result=ResultStructure.create(shape, axes, dtype))
