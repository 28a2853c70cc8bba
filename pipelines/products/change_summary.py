"""`summary.json` of a run that looks for change: what was computed, found and judged, for programs and for the next run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.products.stac import write_json
from pipelines.products.summary import Stage, finite

VERSION = 1


@dataclass(frozen=True)
class Criterion:
    """One figure that was asked for: `is_met` says whether `value` is `at_least` or `at_most` what is `requested`."""

    name: str
    value: float | None
    requested: float
    kind: str = "at least"  # or "at most"
    unit: str = ""

    @property
    def is_met(self) -> bool:
        if self.value is None or self.value != self.value:
            return False
        return self.value >= self.requested if self.kind == "at least" else self.value <= self.requested


@dataclass(frozen=True)
class ChangeSummary:
    """What a run of `task: monitor` or `task: change` leaves behind in numbers.

    `criteria`: the figures asked for. `methods[name]`: flat figures of the shipped one (`shipped`) and of every reference.
    `found`: facts about the change found (patches, area, dates). `largest`: its largest patches, rows of the polygon table.
    `computed`: counts of what was done and what was up to date. `evaluation`: everything else that was measured. `products`:
    paths relative to the run's folder. `sites` (of `change`): name -> facts. `refused`: `{scene_id, reason, detail}`.
    """

    name: str
    task: str
    stages: tuple[Stage, ...]
    products: dict[str, Any]
    shipped: str = ""
    verdict: str = ""
    criteria: tuple[Criterion, ...] = ()
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    largest: tuple[dict[str, Any], ...] = ()
    alerts: tuple[dict[str, Any], ...] = ()
    computed: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    refused: tuple[dict[str, str], ...] = ()
    cube_snapshot: str = ""
    model_hash: str = ""
    config_hash: str = ""
    driftline_version: str = ""
    started_utc: str = ""
    version: int = VERSION


def write_change_summary(summary: ChangeSummary, path: Path) -> None:
    """Writes the summary in one rename, each mark with its `is_met`. Numbers that are not finite become null, dates ISO 8601."""
    content = asdict(summary)
    content["criteria"] = [asdict(criterion) | {"is_met": criterion.is_met} for criterion in summary.criteria]
    write_json(path, finite(plain(content)))


def read_change_summary(path: Path) -> ChangeSummary:
    """The summary at `path`; raises MissingInput or ArtefactDamaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("version") != VERSION:
            raise ArtefactDamaged(f"{path}: version {content.get('version')}, expected {VERSION}; run the same command again")
        content["stages"] = tuple(Stage(**stage) for stage in content["stages"])
        content["criteria"] = tuple(
            Criterion(**{k: v for k, v in criterion.items() if k != "is_met"}) for criterion in content["criteria"]
        )
        for key in ("largest", "alerts", "refused"):
            content[key] = tuple(content[key])
        return ChangeSummary(**content)
    except FileNotFoundError as e:
        raise MissingInput(f"{path}: no summary here; run `driftline run` first") from e
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ArtefactDamaged(f"{path}: not a summary of this version ({e}); run the same command again") from e


def plain(value: Any) -> Any:
    """`value` with dates as ISO 8601 in UTC, missing dates as None, at any depth."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "strftime"):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value == value else None
    return value
