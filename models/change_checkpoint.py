"""A change detector on disk, in the two files of `models.checkpoint`: `model.safetensors` and `model.json`. No pickle."""

from pathlib import Path
from typing import Any

from models.change_detector import ChangeDetector
from models.change_networks import describe_network, rebuild_network
from models.checkpoint import hash_model, read_model, write_model

WORD = "change-detector"


def save_detector(detector: ChangeDetector, folder: Path, metadata: dict[str, Any]) -> str:
    """Writes both files into `folder` (made if missing) and returns the detector's hash.

    `metadata` is anything JSON holds: band order, places that each member did not see, normalisation, code version... It comes
    back from `load_detector` as it went in. Raises ValueError if a tensor is not finite.
    """
    return write_model(detector, describe_detector(detector), folder, metadata, WORD)


def hash_detector(folder: Path) -> str:
    """The hash of a saved detector, hex. Raises FileNotFoundError."""
    return hash_model(folder, WORD)


def load_detector(folder: Path) -> tuple[ChangeDetector, dict[str, Any]]:
    """(detector in evaluation mode on the CPU, metadata). Raises FileNotFoundError or CheckpointDamaged."""
    return read_model(folder, rebuild_detector, WORD)


def describe_detector(detector: ChangeDetector) -> dict[str, Any]:
    """All that `rebuild_detector` needs, as JSON; the numbers (calibration, threshold) are among the tensors."""
    return {"fuse_with": detector.fuse_with, "members": [describe_network(member) for member in detector.members]}


def rebuild_detector(description: dict[str, Any]) -> ChangeDetector:
    """An untrained detector of the same build."""
    return ChangeDetector([rebuild_network(member) for member in description["members"]], fuse_with=description["fuse_with"])
