"""`task: follow_up`: what changed between the visits of patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.tasks.follow_up import FollowUpRun
from flows.folder import RunFolder
from flows.task import Invocation, Record, Task
from flows.visits import extent_of, ingest_visits

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep


class FollowUp(Task):
    """Visits of patients. See `flows.task.Task`."""

    name = "follow_up"
    stages: tuple[str, ...] = ("ingest",)
    verbs: Mapping[str, tuple[str, ...]] = {"ingest": ("ingest",), "run": stages}
    code: Mapping[str, tuple[str, ...]] = {}
    is_gated = False

    def plan(
        self, run: FollowUpRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from flows.planning import plan_ingest

        extent = extent_of(run, folder, reads_source=ingested is None)
        steps = {"ingest": plan_ingest(run.cube, extent)}
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def ingest(self, context: Invocation) -> Record:
        """The visits of every patient, see `flows.visits.ingest_visits`."""
        return ingest_visits(context)
