"""The server's token: made once, kept to its owner; and the user's own auth string."""

import stat
from pathlib import Path

import pytest

from flows.access import access_of, make_private
from flows.prefect_api import AUTH_VARIABLES
from pipelines.errors import RequestError, StateError


@pytest.fixture(autouse=True)
def no_auth_string(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AUTH_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "runs" / ".prefect"
    make_private(home)
    access = access_of(home)
    assert len(access.auth) >= 48
    assert access.token_file == home / "token"
    assert stat.S_IMODE(access.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert access_of(home).auth == access.auth
    assert access.auth not in repr(access)
    assert access_of(tmp_path).auth != access.auth


def test_a_token_that_others_could_know_or_set_is_replaced(tmp_path: Path) -> None:
    first = access_of(tmp_path).auth
    (tmp_path / "token").chmod(0o644)
    second = access_of(tmp_path).auth
    (tmp_path / "token").write_text("short\n")
    third = access_of(tmp_path).auth
    (tmp_path / "other").write_text("a" * 48)
    (tmp_path / "token").unlink()
    (tmp_path / "token").symlink_to(tmp_path / "other")
    fourth = access_of(tmp_path).auth
    assert len({first, second, third, fourth, "a" * 48}) == 5
    assert (tmp_path / "other").read_text() == "a" * 48
    assert stat.S_IMODE((tmp_path / "token").lstat().st_mode) == 0o600


@pytest.mark.parametrize("variable", AUTH_VARIABLES)
def test_an_auth_string_of_the_users_own_is_used_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "me:secret & more")
    assert (access_of(tmp_path).auth, access_of(tmp_path).token_file) == ("me:secret & more", None)
    assert list(tmp_path.iterdir()) == []
    for wrong in ("pässword", " spaced ", "two\nlines"):
        monkeypatch.setenv(variable, wrong)
        with pytest.raises(RequestError, match="printable ASCII"):
            access_of(tmp_path)


def test_the_servers_name_of_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AUTH_VARIABLES:
        monkeypatch.setenv(name, name)
    assert access_of(tmp_path).auth == "PREFECT_SERVER_API_AUTH_STRING"


def test_a_folder_that_cannot_be_made_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/\.prefect: Not a directory"):
        make_private(tmp_path / "file" / ".prefect")
