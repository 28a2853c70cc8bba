"""A trained model on disk: `model.safetensors` (numbers) and `model.json` (everything else). No pickle, no driftline config.

The JSON is written last and names the SHA-256 of the tensors, so a half-written or mixed pair is recognised. The model's hash
is the SHA-256 over the tensor file followed by the JSON file.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from models.climatology import Climatology
from models.decaying_anomaly import DecayingAnomaly
from models.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from models.guided import Guide, GuidedForecaster, Scaling
from models.persistence import Persistence

VERSION = 1
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
GUIDES = {"persistence": Persistence, "climatology": Climatology, "decaying_anomaly": DecayingAnomaly}

Module = TypeVar("Module", bound=nn.Module)


class CheckpointDamaged(ValueError):
    """A checkpoint that is incomplete, mixed, of another version, or does not describe its own tensors."""


def save_forecaster(forecaster: GuidedForecaster, folder: Path, metadata: dict[str, Any]) -> str:
    """Writes both files into `folder` (made if missing) and returns the model's hash.

    `metadata` is anything JSON holds: variables and band order, cube snapshot, split, code version... It comes back from
    `load_forecaster` as it went in. Raises ValueError if a tensor is not finite: such a model diverged and is no use to anyone.
    """
    return write_model(forecaster, describe_forecaster(forecaster), folder, metadata, "forecaster")


def hash_forecaster(folder: Path) -> str:
    """The hash of a saved forecaster, hex."""
    return hash_model(folder, "forecaster")


def load_forecaster(folder: Path) -> tuple[GuidedForecaster, dict[str, Any]]:
    """(forecaster in evaluation mode on the CPU, metadata). Raises FileNotFoundError or CheckpointDamaged."""
    return read_model(folder, rebuild_forecaster, "forecaster")


def write_model(model: nn.Module, description: dict[str, Any], folder: Path, metadata: dict[str, Any], word: str) -> str:
    """Writes the tensors of `model` and its description into `folder` and returns the hash; `word` says what it is.

    Raises ValueError if a tensor is not finite.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    broken = sorted(name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise ValueError(f"the {word} holds values that are not finite (training diverged?), first in {broken[0]}: not saved")
    tensors = tensors_to_bytes(state)
    whole = {
        "format": f"driftline-{word}",
        "version": VERSION,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        word: description,
        "metadata": metadata,
    }
    text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False).encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / TENSORS, tensors)
    _write_whole(folder / DESCRIPTION, text)
    return hashlib.sha256(tensors + text).hexdigest()


def hash_model(folder: Path, word: str) -> str:
    """The hash of what `write_model` wrote, hex. Raises FileNotFoundError."""
    tensors, text = _read_files(Path(folder), word)
    return hashlib.sha256(tensors + text).hexdigest()


def read_model(folder: Path, rebuild: Callable[[dict[str, Any]], Module], word: str) -> tuple[Module, dict[str, Any]]:
    """(model in evaluation mode on the CPU, metadata) of what `write_model` wrote; `rebuild` makes one from its description.

    Raises FileNotFoundError or CheckpointDamaged.
    """
    tensors, text = _read_files(Path(folder), word)
    where = Path(folder) / DESCRIPTION
    try:
        whole = json.loads(text)
        if whole["format"] != f"driftline-{word}" or whole["version"] != VERSION:
            found = f"{whole['format']} version {whole['version']}"
            raise CheckpointDamaged(
                f"{where}: expected driftline-{word} version {VERSION}, found {found}: train again with this driftline"
            )
        if whole["tensors_sha256"] != hashlib.sha256(tensors).hexdigest():
            raise CheckpointDamaged(
                f"{where} does not belong to the {TENSORS} beside it (interrupted write or mixed files): train again"
            )
        with torch.device("meta"):  # nothing is allocated before the shapes are known to fit
            model = rebuild(whole[word])
        model.load_state_dict(tensors_from_bytes(tensors), strict=True, assign=True)
        metadata = whole["metadata"]
    except CheckpointDamaged:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointDamaged(f"{where}: not a whole {word} ({type(error).__name__}: {error}): train again") from error
    return model.eval(), metadata


def describe_forecaster(forecaster: GuidedForecaster) -> dict[str, Any]:
    """All that `rebuild_forecaster` needs, as JSON: guide, scaling, steps, and the config of every member."""
    return {
        "guide": describe_guide(forecaster.guide),
        "scaling": asdict(forecaster.scaling),
        "context": forecaster.context,
        "horizon": forecaster.horizon,
        "members": [asdict(member.config) for member in forecaster.members if isinstance(member, EncoderForecaster)],
    }


def rebuild_forecaster(description: dict[str, Any]) -> GuidedForecaster:
    """An untrained forecaster of the same build."""
    scaling = description["scaling"]
    configs = [EncoderForecasterConfig(**{**config, "hidden": tuple(config["hidden"])}) for config in description["members"]]
    return GuidedForecaster(
        rebuild_guide(description["guide"]),
        [EncoderForecaster(config) for config in configs],
        Scaling(tuple(scaling["mean"]), tuple(scaling["std"]), tuple(scaling["transforms"]), scaling["step_days"]),
        context=description["context"],
        horizon=description["horizon"],
    )


def describe_guide(guide: Guide) -> dict[str, Any]:
    """{"kind": ..., its fields...}."""
    kinds = {cls: kind for kind, cls in GUIDES.items()}
    return {"kind": "none"} if guide is None else {"kind": kinds[type(guide)], **asdict(guide)}


def rebuild_guide(description: dict[str, Any]) -> Guide:
    """The guide of `describe_guide`."""
    fields = dict(description)
    kind = fields.pop("kind")
    return None if kind == "none" else GUIDES[kind](**fields)


def _read_files(folder: Path, word: str) -> tuple[bytes, bytes]:
    for name in (TENSORS, DESCRIPTION):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {word} in {folder}: {name} is missing; train one first")
    return (folder / TENSORS).read_bytes(), (folder / DESCRIPTION).read_bytes()


def _write_whole(path: Path, content: bytes) -> None:
    """The file is there as a whole or not at all: written beside its place, flushed to disk, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
