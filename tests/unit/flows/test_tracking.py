"""Which Prefect server is meant, without importing Prefect."""

from pathlib import Path

import pytest

from flows.tracking import is_reachable, server_url
from pipelines.errors import RequestError


def test_the_environment_comes_before_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.delenv("PREFECT_PROFILES_PATH", raising=False)
    assert server_url() is None
    (tmp_path / "profiles.toml").write_text('active = "here"\n[profiles.here]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n')
    assert server_url() == "http://127.0.0.1:1/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:2/api")
    assert server_url() == "http://127.0.0.1:2/api"
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert server_url() is None


def test_a_server_that_is_not_there_is_not_reachable() -> None:
    assert not is_reachable("http://127.0.0.1:9/api", timeout_s=0.5)
    with pytest.raises(RequestError, match="expected http://HOST:PORT/api"):
        is_reachable("file:///etc/passwd")
