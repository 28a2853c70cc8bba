"""Checkpoints: `model.safetensors` (tensors) and `model.json` (everything else). No pickle, no driftline config.

The JSON is written last and holds the SHA-256 of the tensors, so an incomplete or mixed pair is detected. The model's hash is
the SHA-256 over the tensor file followed by the JSON file.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from models.baselines.climatology import Climatology
from models.baselines.decaying_anomaly import DecayingAnomaly
from models.baselines.persistence import Persistence
from models.change_detector import ChangeDetector
from models.change_networks import rebuild_network
from models.contract import Description, Network
from models.networks.conv_gru_forecaster import ConvGRUForecaster, ConvGRUForecasterConfig
from models.networks.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from models.residual_forecaster import Baseline, ResidualForecaster, Scaling

VERSION = 1
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
FORECASTER, DETECTOR = "forecaster", "change-detector"  # the kinds of model that a file can hold

EARLIER_TENSORS = {"shrink_K": "residual_scale_K", "rule_scale_bias": "index_scale_bias"}  # names in checkpoints of 0.1.0

Model = TypeVar("Model", bound=Network)


class CheckpointDamaged(ValueError):
    """A checkpoint that is incomplete, mixed, of another version, or does not match its own tensors."""


# ---------------------------------------------------------------- forecasters and detectors


def save_forecaster(forecaster: ResidualForecaster, folder: Path, metadata: dict[str, Any]) -> str:
    """The model's hash, after writing both files to `folder` (created if missing).

    `metadata` is any JSON: variables and band order, cube snapshot, split, code version... `load_forecaster` returns it
    unchanged. Raises ValueError if a tensor is not finite: the training of such a model diverged.
    """
    return write_model(forecaster, rebuild_forecaster, folder, metadata, FORECASTER)


def hash_forecaster(folder: Path) -> str:
    """The hash of a saved forecaster, hex. Raises FileNotFoundError."""
    return hash_model(folder, FORECASTER)


def load_forecaster(folder: Path) -> tuple[ResidualForecaster, dict[str, Any]]:
    """(forecaster in evaluation mode on the CPU, metadata). Raises FileNotFoundError or CheckpointDamaged."""
    return read_model(folder, rebuild_forecaster, FORECASTER)


def save_detector(detector: ChangeDetector, folder: Path, metadata: dict[str, Any]) -> str:
    """As `save_forecaster`, for a detector of labelled change."""
    return write_model(detector, rebuild_detector, folder, metadata, DETECTOR)


def hash_detector(folder: Path) -> str:
    """The hash of a saved detector, hex. Raises FileNotFoundError."""
    return hash_model(folder, DETECTOR)


def load_detector(folder: Path) -> tuple[ChangeDetector, dict[str, Any]]:
    """(detector in evaluation mode on the CPU, metadata). Raises FileNotFoundError or CheckpointDamaged."""
    return read_model(folder, rebuild_detector, DETECTOR)


# ---------------------------------------------------------------- any model


def write_model(
    model: Network, rebuild: Callable[[Description], Network], folder: Path, metadata: dict[str, Any], kind: str
) -> str:
    """The hash of the model, after writing its tensors and its description to `folder`; `kind` is the kind of model.

    `rebuild` makes a model from its description, as for `read_model`. Raises ValueError if a tensor is not finite, or if
    `rebuild` does not make the same model, so that every saved model can be loaded.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    broken = sorted(name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise ValueError(f"the {kind} holds values that are not finite (training diverged?), first in {broken[0]}: not saved")
    description = model.describe()
    _check_rebuilds(model, rebuild, description, kind)
    tensors = tensors_to_bytes(state)
    whole = {
        "format": f"driftline-{kind}",
        "version": VERSION,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        kind: description,
        "metadata": metadata,
    }
    text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False).encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / TENSORS, tensors)
    _write_whole(folder / DESCRIPTION, text)
    return hashlib.sha256(tensors + text).hexdigest()


def _check_rebuilds(model: Network, rebuild: Callable[[Description], Network], description: Description, kind: str) -> None:
    try:
        with torch.device("meta"):
            again = rebuild(json.loads(json.dumps(description)))
        found = {name: tensor.shape for name, tensor in again.state_dict().items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the {kind} cannot be rebuilt from its description ({error}): not saved") from error
    if found != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise ValueError(f"the {kind} has a description of other tensors: not saved; its `describe` is incomplete")


def hash_model(folder: Path, kind: str) -> str:
    """The hash of a model that `write_model` wrote, hex. Raises FileNotFoundError."""
    tensors, text = _read_files(Path(folder), kind)
    return hashlib.sha256(tensors + text).hexdigest()


def read_model(folder: Path, rebuild: Callable[[Description], Model], kind: str) -> tuple[Model, dict[str, Any]]:
    """(model in evaluation mode on the CPU, metadata) that `write_model` wrote; `rebuild` makes one from its description.

    Raises FileNotFoundError or CheckpointDamaged.
    """
    tensors, text = _read_files(Path(folder), kind)
    where = Path(folder) / DESCRIPTION
    try:
        whole = json.loads(text)
        if whole["format"] != f"driftline-{kind}" or whole["version"] != VERSION:
            found = f"{whole['format']} version {whole['version']}"
            raise CheckpointDamaged(
                f"{where}: expected driftline-{kind} version {VERSION}, found {found}: train again with this version"
            )
        if whole["tensors_sha256"] != hashlib.sha256(tensors).hexdigest():
            raise CheckpointDamaged(
                f"{where} does not match the {TENSORS} in the same folder (interrupted write or mixed files): train again"
            )
        with torch.device("meta"):  # no memory is allocated before the shapes are checked
            model = rebuild(whole[kind])
        state = {EARLIER_TENSORS.get(name, name): tensor for name, tensor in tensors_from_bytes(tensors).items()}
        model.load_state_dict(state, strict=True, assign=True)
        metadata = whole["metadata"]
    except CheckpointDamaged:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointDamaged(f"{where}: not a complete {kind} ({type(error).__name__}: {error}): train again") from error
    return model.eval(), metadata


# ---------------------------------------------------------------- descriptions -> networks


def rebuild_forecaster(description: Description) -> ResidualForecaster:
    """An untrained forecaster from its `describe`."""
    scaling = description["scaling"]
    return ResidualForecaster(
        rebuild_baseline(description["baseline"] if "baseline" in description else description["guide"]),  # 0.1.0: guide
        [rebuild_forecaster_network(member) for member in description["members"]],
        Scaling(tuple(scaling["mean"]), tuple(scaling["std"]), tuple(scaling["transforms"]), scaling["step_days"]),
        context=description["context"],
        horizon=description["horizon"],
    )


def rebuild_forecaster_network(description: Description) -> Network:
    """An untrained network; a description without `kind` is of the ConvLSTM, once the only one. Raises ValueError."""
    fields = {**description, "hidden": tuple(description["hidden"])}
    match fields.pop("kind", "convlstm"):
        case "convlstm":
            return EncoderForecaster(EncoderForecasterConfig(**fields))
        case "convgru":
            return ConvGRUForecaster(ConvGRUForecasterConfig(**fields))
        case kind:
            raise ValueError(f"expected 'convlstm' or 'convgru', got the forecaster's network {kind!r}")


def rebuild_baseline(description: Description) -> Baseline:
    """The baseline from its `describe_baseline`. Raises ValueError."""
    fields = dict(description)
    match fields.pop("kind"):
        case "none":
            return None
        case "persistence":
            return Persistence(**fields)
        case "climatology":
            return Climatology(**fields)
        case "decaying_anomaly":
            return DecayingAnomaly(**fields)
        case kind:
            raise ValueError(f"expected 'none', 'persistence', 'climatology' or 'decaying_anomaly', got the baseline {kind!r}")


def rebuild_detector(description: Description) -> ChangeDetector:
    """An untrained detector from its `describe`."""
    return ChangeDetector([rebuild_network(member) for member in description["members"]], fuse_with=description["fuse_with"])


# ---------------------------------------------------------------- files


def _read_files(folder: Path, kind: str) -> tuple[bytes, bytes]:
    for name in (TENSORS, DESCRIPTION):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {kind} in {folder}: {name} is missing; train one first")
    return (folder / TENSORS).read_bytes(), (folder / DESCRIPTION).read_bytes()


def _write_whole(path: Path, content: bytes) -> None:
    """Writes the file atomically: to a temporary file, flushed to disk, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
