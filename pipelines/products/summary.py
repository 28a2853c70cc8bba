"""`summary.json`: what a run did and found, one schema for every task, for programs and for the next run.

The JSON Schema in docs/summary.schema.json is made from the classes of this module (`python -m pipelines.products.summary`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.files import write_json
from pipelines.learning.result import Criterion, Figure, Verdict
from pipelines.products.json_values import plain

VERSION: Literal[2] = 2


@dataclass(frozen=True)
class StageCost:
    """What a stage cost when it last did something."""

    name: str
    seconds: float
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Cost:
    """Wall clock; CPU seconds and peak memory of all processes; what the run's folder and the cube grew by at most; bytes that
    were read, from a disk or from memory that keeps what was read before. None: not known here.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    memory_mb: float | None = None
    disk_mb: float | None = None
    read_mb: float | None = None


@dataclass(frozen=True)
class StageCosts:
    """What a stage took when it last did something, beside its plan; of the stage that writes the summary, up to then.

    `past_runs`: how many runs on this machine corrected the plan. planned: None where there was none.
    """

    stage: str
    actual: Cost
    planned: Cost | None = None
    past_runs: int = 0
    at_utc: str = ""


@dataclass(frozen=True)
class Refusal:
    """A scene or a site that did not enter the cube, and why."""

    scene_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Published:
    """What lies in `products/`; empty where nothing was published. Paths are relative to the run's folder.

    `issued_utc`: the last date that was used. `target_utc`: the dates that a forecast is for. All ISO 8601.
    """

    files: tuple[str, ...] = ()
    collection: str = ""
    cube_snapshot: str = ""
    model_hash: str = ""
    issued_utc: str = ""
    target_utc: tuple[str, ...] = ()
    even_if_worse: bool = False
    even_if_confounded: bool = False


@dataclass(frozen=True)
class Summary:
    """What a run leaves behind in numbers.

    sentence: what is expected or has changed, where, when and how sure, for a person who knows none of the terms. verdict: None
    before the first evaluation. methods: name -> flat figures; `shipped` is the one that is published. found: facts about what
    was found (patches, area, dates). largest, alerts, sites: rows of tables. computed: counts of what was done. evaluation: all
    else that was measured; its keys belong to the task. trained: of a model that was trained elsewhere: on what, and what does
    not fit; empty for one that was trained here. products: see `Published`. refused: what did not enter the cube.
    privacy: of patients' images, whether they were de-identified, and if not why. costs: planned and actual, of each stage.
    """

    name: str
    task: str
    sentence: str
    verdict: Verdict | None = None
    criteria: tuple[Criterion, ...] = ()
    shipped: str = ""
    methods: dict[str, dict[str, Figure]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    largest: tuple[dict[str, Any], ...] = ()
    alerts: tuple[dict[str, Any], ...] = ()
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    computed: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    products: Published = Published()
    stages: tuple[StageCost, ...] = ()
    costs: tuple[StageCosts, ...] = ()
    refused: tuple[Refusal, ...] = ()
    cube_snapshot: str = ""
    model_hash: str = ""
    config_hash: str = ""
    driftline_version: str = ""
    started_utc: str = ""
    privacy: str = ""
    version: Literal[2] = VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values: dates as ISO 8601, numbers that are not finite as None, each criterion with its `is_met`."""
        content: dict[str, Any] = asdict(self)
        content["criteria"] = [criterion.to_json() for criterion in self.criteria]
        plain_content: dict[str, Any] = plain(content)
        return plain_content


def write_summary(summary: Summary, path: Path) -> None:
    """Writes the summary in one rename."""
    write_json(path, summary.to_json(), is_strict=True)


def read_summary(path: Path) -> dict[str, Any]:
    """The content of `summary.json`. Raises MissingInput or ArtefactDamaged, also for one of another version."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
    except FileNotFoundError as e:
        raise MissingInput(f"{path}: no summary here; run `driftline run CONFIG` first") from e
    except (ValueError, TypeError, KeyError) as e:
        raise ArtefactDamaged(f"{path}: not a summary ({e}); `driftline report CONFIG` writes it anew") from e
    if version != VERSION:
        raise ArtefactDamaged(f"{path}: version {version}, expected {VERSION}; `driftline report CONFIG` writes it anew")
    return content


def schema() -> dict[str, Any]:
    """The JSON Schema of `summary.json`. Every key is always there; objects are open, so that later releases may add keys."""
    from pydantic import TypeAdapter

    content = TypeAdapter(Summary).json_schema(mode="serialization")
    content["$defs"]["Criterion"]["properties"]["is_met"] = {"title": "Is Met", "type": "boolean"}
    for one in (content, *content["$defs"].values()):
        one["description"] = one["description"].split("\n\n>>>")[0]
        one["required"] = list(one["properties"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
