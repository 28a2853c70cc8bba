"""What the UI shows of a run: one page, also of one that failed or was stopped; nothing in it can break a table."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.artifacts import artifact_key, overview_markdown, publish_artifacts, refused_markdown
from flows.folder import RunFolder
from flows.steps import Steps


def invocation(folder: Path) -> Any:
    return SimpleNamespace(
        run=SimpleNamespace(name="harvest"),
        folder=RunFolder(folder, str(folder / "cube")),
        steps=Steps(folder / "steps.jsonl"),
    )


def test_the_overview_tells_what_was_done_what_failed_and_what_was_stopped(tmp_path: Path) -> None:
    one = invocation(tmp_path)
    Steps(tmp_path / "steps.jsonl", invocation="an older run").do("ingest", "an older step", lambda progress: None)
    one.steps.do("ingest", "write scenes", lambda progress: None)
    one.steps.skip("train", "up to date")
    with pytest.raises(ValueError, match="no"):
        one.steps.do("predict", "predict tiles", lambda progress: (_ for _ in ()).throw(ValueError("no | room\nleft")))
    one.steps._note("report", "write", "started")
    (tmp_path / "refused.json").write_text(json.dumps([{"scene_id": "a|b.tif", "reason": "truncated", "detail": "<b>"}]))
    text = overview_markdown(one, "failed: no room")
    assert "**failed: no room**" in text
    assert "| ingest | write scenes | done | 0.0 |" in text
    assert "| train |  | skipped: up to date | | |" in text
    assert "failed: ValueError: no \\| room left" in text
    assert "| report | write | stopped | | |" in text
    assert "| a\\|b.tif | truncated | &lt;b> |" in text
    assert "an older step" not in text


def test_many_refusals_are_cut_and_counted(tmp_path: Path) -> None:
    entries = [{"scene_id": f"s{i}", "reason": "all nodata", "detail": ""} for i in range(250)]
    (tmp_path / "refused.json").write_text(json.dumps(entries))
    text = refused_markdown(RunFolder(tmp_path, ""))
    assert text.startswith("250 scenes were refused.")
    assert "... and 50 more" in text
    assert text.count("| all nodata |") == 200


def test_a_server_that_went_away_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("flows.artifacts._publish", gone)
    publish_artifacts(invocation(tmp_path), "done")
    assert "did not reach the Prefect server" in caplog.text


def test_keys_hold_what_prefect_allows() -> None:
    assert artifact_key("Harvest_2020.é") == "harvest-2020"
    assert artifact_key("é") == "run"
