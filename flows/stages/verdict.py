"""The verdict on what was trained, as `evaluate` leaves it and `predict` asks for it, whatever was trained."""

import hashlib
from pathlib import Path
from typing import Any

from flows.folder import finished, require, write_json
from flows.invocation import Invocation


def standing_verdict(invocation: Invocation, key: str) -> dict[str, Any] | None:
    """The record of the evaluation with this key, if what it speaks of is there unchanged."""
    folder = invocation.folder
    record = finished(folder, "evaluate", key)
    return record if record is not None and digest_of(folder.evaluation) == record.get("evaluation_sha256") else None


def write_verdict(invocation: Invocation, key: str, content: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Writes `evaluation.json` and the record of the stage, says the verdict, hands back the record."""
    folder, verdict = invocation.folder, content["verdict"]
    write_json(folder.evaluation, {**content, "model_hash": trained["model_hash"], "snapshot": trained["snapshot"]})
    record = {
        "key": key,
        "model_hash": trained["model_hash"],
        "is_publishable": verdict["is_publishable"],
        "message": verdict["sentence"],
        "evaluation_sha256": digest_of(folder.evaluation),
    }
    write_json(folder.done("evaluate"), record)
    invocation.steps.log(verdict["sentence"])
    return record


def require_verdict(invocation: Invocation) -> dict[str, Any]:
    """The verdict on what is trained now; raises MissingInput if it has not been evaluated."""
    trained, evaluated = require(invocation.folder, "train", "train"), finished(invocation.folder, "evaluate")
    if evaluated is None or evaluated["model_hash"] != trained["model_hash"]:
        invocation.folder.done("evaluate").unlink(missing_ok=True)  # a verdict on something else
    return require(invocation.folder, "evaluate", "evaluate")


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file, "" if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
