"""Checkpoints: `model.safetensors` (tensors) and `model.json` (everything else). No pickle, no driftline config.

The JSON is written last and holds the SHA-256 of the tensors, so an incomplete or mixed pair is detected. The model's hash is
the SHA-256 over the tensor file followed by the JSON file.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from models.change_detector import ChangeDetector, rebuild_detector
from models.contract import Description, Network
from models.covariates import CovariateScaling
from models.history_forecaster import HistoryForecaster
from models.networks.conv_gru_forecaster import ConvGRUForecaster, ConvGRUForecasterConfig
from models.networks.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from models.networks.patched import PatchedForecaster
from models.networks.pixel_history import PixelHistory, PixelHistoryConfig
from models.networks.predrnn_forecaster import PredRNNForecaster, PredRNNForecasterConfig
from models.networks.residual_gru import ResidualEnsemble, rebuild_residual
from models.networks.simvp_forecaster import SimVPForecaster, SimVPForecasterConfig
from models.networks.traj_gru_forecaster import TrajGRUForecaster, TrajGRUForecasterConfig
from models.residual_forecaster import BASELINES, Baseline, ResidualForecaster, Scaling

VERSION = 1
LARGEST = 1e9  # of a weight, scale or other number of a model: larger ones are no result of training
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
EARLIER_TENSORS = {"shrink_K": "residual_scale_K", "rule_scale_bias": "index_scale_bias"}  # names in checkpoints of 0.1.0

Model = TypeVar("Model", bound=Network)


class CheckpointDamaged(ValueError):
    """A checkpoint that is incomplete, mixed, of another version, or does not match its own tensors."""


@dataclass(frozen=True)
class Checkpoint(Generic[Model]):
    """How one kind of model is stored: its `kind` in the files; `rebuild` makes an untrained one from a description."""

    kind: str
    rebuild: Callable[[Description], Model]

    def save(self, model: Model, folder: Path, metadata: dict[str, Any]) -> str:
        """The model's hash, after writing both files to `folder` (created if missing).

        `metadata` is any JSON: variables and band order, cube snapshot, split, code version... `load` returns it unchanged.
        Raises ValueError if a tensor is not finite (the training diverged), or if `rebuild` does not make the same model, so
        that every saved model can be loaded.
        """
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        broken = sorted(name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all()))
        if broken:
            raise ValueError(
                f"the {self.kind} holds values that are not finite (training diverged?), first in {broken[0]}: not saved"
            )
        description = model.describe()
        self._check_rebuilds(model, description)
        _require_sane(state, description)
        tensors = tensors_to_bytes(state)
        whole = {
            "format": f"driftline-{self.kind}",
            "version": VERSION,
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
            self.kind: description,
            "metadata": metadata,
        }
        text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False).encode()
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / TENSORS, tensors)
        _write_whole(folder / DESCRIPTION, text)
        return hashlib.sha256(tensors + text).hexdigest()

    def _check_rebuilds(self, model: Model, description: Description) -> None:
        try:
            with torch.device("meta"):
                again = self.rebuild(json.loads(json.dumps(description)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the {self.kind} cannot be rebuilt from its description ({error}): not saved") from error
        found, expected = ({name: t.shape for name, t in one.state_dict().items()} for one in (again, model))
        if found != expected:
            raise ValueError(f"the {self.kind} has a description of other tensors: not saved; its `describe` is incomplete")

    def hash(self, folder: Path) -> str:
        """The hash of a saved model, hex. Raises FileNotFoundError."""
        tensors, text = self._read_files(folder)
        return hashlib.sha256(tensors + text).hexdigest()

    def load(self, folder: Path) -> tuple[Model, dict[str, Any]]:
        """(model in evaluation mode on the CPU, metadata). Raises FileNotFoundError or CheckpointDamaged."""
        tensors, text = self._read_files(folder)
        where = folder / DESCRIPTION
        try:
            whole = json.loads(text, parse_constant=_refuse_constant)
            if whole["format"] != f"driftline-{self.kind}" or whole["version"] != VERSION:
                found = f"{whole['format']} version {whole['version']}"
                raise CheckpointDamaged(
                    f"{where}: expected driftline-{self.kind} version {VERSION}, found {found}: train again with this version"
                )
            if whole["tensors_sha256"] != hashlib.sha256(tensors).hexdigest():
                raise CheckpointDamaged(
                    f"{where} does not match the {TENSORS} in the same folder (interrupted write or mixed files): train again"
                )
            with torch.device("meta"):  # no memory is allocated before the shapes are checked
                model = self.rebuild(whole[self.kind])
            state = {EARLIER_TENSORS.get(name, name): tensor for name, tensor in tensors_from_bytes(tensors).items()}
            _require_sane(state, whole[self.kind])
            model.load_state_dict(state, strict=True, assign=True)
            return model.eval(), whole["metadata"]
        except CheckpointDamaged:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointDamaged(
                f"{where}: not a complete {self.kind} ({type(error).__name__}: {error}): train again"
            ) from error

    def _read_files(self, folder: Path) -> tuple[bytes, bytes]:
        for name in (TENSORS, DESCRIPTION):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no {self.kind} in {folder}: {name} is missing; train one first")
        return (folder / TENSORS).read_bytes(), (folder / DESCRIPTION).read_bytes()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number that a model may hold")


def _require_sane(state: dict[str, torch.Tensor], description: object) -> None:
    """Raises ValueError for tensors and numbers that are not finite or absurdly large: they would publish a map of NaN."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool((tensor.abs() <= LARGEST).all()):  # NaN is not smaller either
            raise ValueError(f"{name} holds NaN or values beyond {LARGEST:g}")
    parts = [description]
    while parts:
        part = parts.pop()
        if isinstance(part, dict | list):
            parts += part.values() if isinstance(part, dict) else part
        elif isinstance(part, float) and not abs(part) <= LARGEST:
            raise ValueError(f"its description holds {part:g}, beyond {LARGEST:g}")


def rebuild_forecaster(description: Description) -> ResidualForecaster:
    scaling = description["scaling"]
    made = HistoryForecaster if description.get("kind") == "history" else ResidualForecaster
    return made(
        rebuild_baseline(description["baseline"] if "baseline" in description else description["guide"]),  # 0.1.0: guide
        [rebuild_forecaster_network(member) for member in description["members"]],
        Scaling(tuple(scaling["mean"]), tuple(scaling["std"]), tuple(scaling["transforms"]), scaling["step_days"]),
        context=description["context"],
        horizon=description["horizon"],
        axes=description.get("axes", 2),
        covariates=CovariateScaling.from_description(description.get("covariates")),
    )


def rebuild_forecaster_network(description: Description) -> Network:
    """An untrained network; a description without `kind` is of the ConvLSTM, once the only one. Raises ValueError."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    match fields.pop("kind", "convlstm"):
        case "convlstm":
            return EncoderForecaster(EncoderForecasterConfig(**fields))
        case "convgru":
            return ConvGRUForecaster(ConvGRUForecasterConfig(**fields))
        case "trajgru":
            return TrajGRUForecaster(TrajGRUForecasterConfig(**fields))
        case "predrnn":
            return PredRNNForecaster(PredRNNForecasterConfig(**fields))
        case "simvp":
            return SimVPForecaster(SimVPForecasterConfig(**fields))
        case "patched":
            return PatchedForecaster(rebuild_forecaster_network(fields["network"]), fields["patch_px"])
        case "history":
            return PixelHistory(PixelHistoryConfig(**fields))
        case kind:
            known = "'convlstm', 'convgru', 'trajgru', 'predrnn', 'simvp', 'patched' or 'history'"
            raise ValueError(f"expected {known}, got the forecaster's network {kind!r}")


def rebuild_baseline(description: Description) -> Baseline:
    """The baseline from its `describe_baseline`. Raises ValueError."""
    fields = dict(description)
    kind = fields.pop("kind")
    if kind == "none":
        return None
    if kind not in BASELINES:
        raise ValueError(f"expected 'none', {', '.join(map(repr, BASELINES))}, got the baseline {kind!r}")
    return BASELINES[kind](**fields)


FORECASTER = Checkpoint[ResidualForecaster]("forecaster", rebuild_forecaster)
DETECTOR = Checkpoint[ChangeDetector]("change-detector", rebuild_detector)
RESIDUAL = Checkpoint[ResidualEnsemble]("residual", rebuild_residual)


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
