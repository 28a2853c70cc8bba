"""Which runs are taken for dead: those that nothing was heard of, and no others."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows import liveness


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
def test_a_run_is_dead_when_nothing_was_heard_of_it(
    kind: str, age_s: float, heartbeats: int, is_dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(api: str, path: str, content: dict[str, Any]) -> Any:
        asked.append((path, content))
        return [run(kind, age_s)] if path == "/flow_runs/filter" else {"total": heartbeats}

    monkeypatch.setattr(liveness, "ask", ask)
    assert liveness.mark_silent("http://127.0.0.1:1/api", 90) == ([kind] if is_dead else [])
    marked = [content["state"]["type"] for path, content in asked if path.endswith("/set_state")]
    assert marked == (["CRASHED"] if is_dead else [])
    assert set(asked[0][1]["flows"]["name"]["any_"]) == set(liveness.FLOWS)
