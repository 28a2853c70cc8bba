"""The password of `driftline serve`: the user's own auth string, or a new token for every start."""

import logging
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import RequestError, StateError

# of the server; PREFECT_API_AUTH_STRING belongs to clients, and may hold the token of an earlier start
AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
# files in the working folder from which Prefect and its libraries read settings
SETTINGS = ("prefect.toml", "pyproject.toml", ".env", "profiles.toml", "logging.yml")


@dataclass(frozen=True)
class Access:
    """What a client of the server must send; `token_file` is the file of the token, None if it is the user's own."""

    auth: str
    token_file: Path | None

    def __repr__(self) -> str:  # never in a log
        return f"Access(token_file={self.token_file})"


def access_of(home: Path) -> Access:
    """The auth string in the environment, else a new token, which other shells read from `home`.

    New for each start: after the server ends, open pages would send an old token to whoever takes its port. Raises
    RequestError for an auth string that no browser can send, StateError if the token cannot be stored.
    """
    own = os.environ.get(AUTH_VARIABLE)
    if own:
        if not (own.isascii() and own.isprintable() and own.strip() == own):
            raise RequestError(f"{AUTH_VARIABLE}: expected printable ASCII without spaces around it")
        return Access(own, None)
    file = home / "token"
    return Access(_write_token(file), file)


def make_private(home: Path) -> None:
    """Creates the folder and restricts it to its owner. Raises StateError if it belongs to somebody else."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        status = home.lstat()
        problem = "" if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() else "is a link, or belongs to another user"
        if not problem:
            home.chmod(stat.S_IRWXU)
    except OSError as e:
        problem = e.strerror or str(e)
    if problem:
        raise StateError(f"{home}: {problem}; it holds the server's database and token: use a folder of your own")
    foreign = sorted(entry.name for entry in home.iterdir() if entry.name in SETTINGS or entry.is_symlink())
    if foreign:
        raise StateError(f"{home} holds {', '.join(foreign)}, which `driftline serve` never writes; check it, and remove it")


def keep_password_out_of_logs() -> None:
    """At level DEBUG Prefect's WebSocket client would log its first message, which contains the password."""
    logging.getLogger("websockets").setLevel(logging.INFO)


def _write_token(file: Path) -> str:
    token = secrets.token_hex(24)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(descriptor, "w", encoding="ascii") as content:
            content.write(f"{token}\n")
        partial.replace(file)
    except OSError as e:
        raise StateError(f"the server's token cannot be written to {file}: {e.strerror}") from e
    return token
