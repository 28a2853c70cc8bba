"""The server's token: created once, readable by its owner only; and the user's own auth string."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flows.access import AUTH_VARIABLE, access_of, make_private
from flows.prefect_api import without_proxies
from pipelines.errors import RequestError, StateError


@pytest.fixture(autouse=True)
def no_auth_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "the token of an earlier start, in a shell that used it")


def test_every_start_has_a_new_token_readable_by_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "runs" / ".prefect"
    make_private(home)
    access = access_of(home)
    assert access.token_file == home / "token"
    assert (len(access.auth), access.token_file.read_text()) == (48, f"{access.auth}\n")
    assert stat.S_IMODE(access.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert access.auth not in repr(access)
    assert access_of(home).auth != access.auth


def test_a_link_at_the_path_of_the_token_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "token").symlink_to(tmp_path / "other")
    access_of(tmp_path)
    assert (tmp_path / "other").read_text() == "theirs"
    assert not (tmp_path / "token").is_symlink()


def test_an_auth_string_of_the_user_is_used_and_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_VARIABLE, "me:secret & more")
    assert (access_of(tmp_path).auth, access_of(tmp_path).token_file) == ("me:secret & more", None)
    assert list(tmp_path.iterdir()) == []
    for wrong in ("pässword", " spaced ", "two\nlines"):
        monkeypatch.setenv(AUTH_VARIABLE, wrong)
        with pytest.raises(RequestError, match="printable ASCII"):
            access_of(tmp_path)
    monkeypatch.setenv(AUTH_VARIABLE, "")
    assert access_of(tmp_path).token_file


def test_a_folder_that_cannot_be_created_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/\.prefect: Not a directory"):
        make_private(tmp_path / "file" / ".prefect")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StateError, match="is a link, or belongs to another user"):
        make_private(tmp_path / "link")


@pytest.mark.parametrize("name", ["prefect.toml", "pyproject.toml", ".env", "profiles.toml", "logging.yml", "server.log"])
def test_settings_in_the_servers_folder_are_refused(tmp_path: Path, name: str) -> None:
    """A folder from somebody else may hold settings; Prefect would read them, and run code from them."""
    (tmp_path / "theirs").write_text("")
    home = tmp_path / ".prefect"
    make_private(home)
    (home / name).symlink_to(tmp_path / "theirs") if name == "server.log" else (home / name).write_text("")
    with pytest.raises(StateError, match=f"holds {name}, which"):
        make_private(home)


def test_child_processes_of_a_run_do_not_load_prefect() -> None:
    """They import flows.engine again, in the working folder of the run, from which Prefect would read settings."""
    code = "import sys, flows.engine; print([name for name in sys.modules if name.split('.')[0] == 'prefect'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateError, match="belongs to another user"):
        make_private(tmp_path)


def test_no_proxy_is_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    assert without_proxies() == {"NO_PROXY": "example.org,127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
