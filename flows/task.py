"""What a task is: one object that says what it needs and what it makes. Everything else is written once, in stage and publish.

A new task is a file in flows/tasks, a file in configs/tasks and a line in the table of `flows.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flows.folder import RunFolder
from flows.invocation import Invocation
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep

Record = dict[str, Any]  # what a stage leaves in stages/NAME.json: JSON values


@dataclass(frozen=True)
class Building:
    """Where `predict` writes. Both folders are empty, and published by renames when `predict` has returned.

    `products` becomes runs/NAME/products; the files of `pictures` replace those of their names in runs/NAME.
    """

    products: Path
    pictures: Path


@dataclass(frozen=True)
class Findings:
    """What the summary says of the products beyond the evaluation; see `pipelines.products.summary.Summary`.

    lines: where the most important files lie, for a person, e.g. ("map", path).
    """

    sentence: str
    found: Mapping[str, Any]
    largest: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    sites: Mapping[str, Mapping[str, Any]] | None = None
    computed: Mapping[str, Any] | None = None
    cube: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    lines: tuple[tuple[str, Path], ...] = ()


class Task(Protocol):
    """A task. `stages` in the order of `driftline run`; the last one publishes. `verbs`: verb -> the stages that it carries out.

    `code`: stage -> modules that its output depends on, with everything that they import (`flows.code`).
    `is_gated`: the last stage publishes only what the verdict allows.
    """

    name: str
    stages: tuple[str, ...]
    verbs: Mapping[str, tuple[str, ...]]
    code: Mapping[str, tuple[str, ...]]
    is_gated: bool

    def plan(self, run: Any, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
        """What a verb would cost, for `--dry-run`; `run` is of the task's own class."""

    def check(self, context: Invocation, stage: str) -> None:
        """Whether what lies in the run's folder may be used (model, cube, state); called before "up to date". Raises."""

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        """What the stage's output depends on beside its code, JSON values: unchanged means that it need not run."""

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        """True if what the record speaks of is there, beside the files of products and evaluation, which are checked for all."""

    def ingest(self, context: Invocation) -> Record:
        """Scenes into the cube: `snapshot`, `refused`, `message`, `lines` (refusals in words), `is_new`."""

    def fit(self, context: Invocation, key: str) -> Record:
        """A trained model in the run's folder: `snapshot`, `model_hash`, `message`."""

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """Everything measured, and `snapshot` and `model_hash` of what it holds for."""

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Writes products and pictures: `snapshot`, `model_hash`, `message`, and what the summary's `Published` names."""

    def close(self, context: Invocation, record: Record, *, is_new: bool) -> Record:
        """Called after publishing and when nothing was to be done: the record, notifications sent, counts of nothing set."""

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        """What the summary and the report say; `predicted` is {} where nothing is published."""

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        """What the report shows between verdict and data. Pictures that only the report needs are drawn into `drafts`."""
