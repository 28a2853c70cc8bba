"""The deployments of a prefect.yaml, without a server."""

from pathlib import Path

import pytest

from flows.deployments import read_deployments


def test_entrypoints_of_version_0_1_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There each flow had a module of its own."""
    monkeypatch.chdir(tmp_path)
    Path("prefect.yaml").write_text(
        "deployments: [{name: nightly, entrypoint: flows.run.run_flow, work_pool: {name: cpu}, schedules: []}]\n"
    )
    assert [one["entrypoint"] for one in read_deployments(None, None)] == ["flows.entrypoints.run_flow"]
