"""`summary.json`: what a run did and found, for programs and for the next run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.products.stac import write_json

VERSION = 1


@dataclass(frozen=True)
class Stage:
    """One step of a run. `skipped`: it was up to date."""

    name: str
    seconds: float
    peak_memory_mb: float | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Summary:
    """What a run leaves behind in numbers.

    `metrics[name]` (the model and every baseline) holds `overall` and `by_lead` as in `Evaluation.to_json`; `skill`,
    `verdict` and `intervals` (the measured coverage) likewise. `split` is the audit's facts with `ok` and `problems`.
    `products` are paths relative to the run's folder. `refused` are `{scene_id, reason, detail}`.
    """

    name: str
    task: str
    cube_snapshot: str
    split: dict[str, Any]
    metrics: dict[str, Any]
    verdict: dict[str, Any]
    stages: tuple[Stage, ...]
    products: dict[str, Any]
    skill: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] | None = None
    refused: tuple[dict[str, str], ...] = ()
    model_hash: str = ""
    config_hash: str = ""
    driftline_version: str = ""
    started_utc: str = ""
    version: int = VERSION


def write_summary(summary: Summary, path: Path) -> None:
    """Writes the summary in one rename. Numbers that are not finite become null."""
    write_json(path, finite(asdict(summary)))


def read_summary(path: Path) -> Summary:
    """The summary at `path`; raises MissingInput or ArtefactDamaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["stages"] = tuple(Stage(**stage) for stage in content["stages"])
        content["refused"] = tuple(content["refused"])
        summary = Summary(**content)
    except FileNotFoundError as e:
        raise MissingInput(f"{path}: no summary here; run `driftline run` first") from e
    except (ValueError, TypeError, KeyError) as e:
        raise ArtefactDamaged(f"{path}: not a summary of this version ({e}); run `driftline run` again") from e
    if summary.version != VERSION:
        raise ArtefactDamaged(f"{path}: version {summary.version}, expected {VERSION}; run `driftline run` again")
    return summary


def finite(value: Any) -> Any:
    """`value` with tuples as lists, numpy numbers as Python's, and NaN or infinity as None, at any depth."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
