"""Only runs without heartbeats are marked dead."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.prefect_api import PrefectApi
from flows.serve import mark_silent
from flows.tasks import TASKS, task_of
from flows.verbs import UNTRACKED


def run(kind: str, age_s: float) -> dict[str, Any]:
    since = datetime.now(UTC) - timedelta(seconds=age_s)
    return {"id": kind + str(age_s), "name": kind, "state": {"type": kind, "timestamp": since.isoformat()}}


@pytest.mark.parametrize(
    ("kind", "age_s", "heartbeats", "is_dead"),
    [
        ("RUNNING", 1000, 0, True),
        ("RUNNING", 1000, 1, False),
        ("RUNNING", 10, 0, False),
        ("CANCELLING", 1000, 0, True),
        ("PENDING", 120, 0, False),
        ("PENDING", 1000, 0, True),
    ],
)
def test_a_run_without_heartbeats_is_dead(kind: str, age_s: float, heartbeats: int, is_dead: bool) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Answers(PrefectApi):
        def post(self, path: str, content: dict[str, Any]) -> Any:
            asked.append((path, content))
            return [run(kind, age_s)] if path == "/flow_runs/filter" else {"total": heartbeats}

    assert mark_silent(Answers("http://127.0.0.1:1/api"), 90) == ([kind] if is_dead else [])
    marked = [content["state"]["type"] for path, content in asked if path.endswith("/set_state")]
    assert marked == (["CRASHED"] if is_dead else [])
    looked_for = set(asked[0][1]["flows"]["name"]["any_"])
    assert all(set(task_of(name).verbs) - set(UNTRACKED) <= looked_for for name in TASKS)
