"""Limits: what a run may read, write and connect to when a server starts it, set at the start of `driftline serve`.

`serve` puts folders and URIs into the environment of its workers (`DRIFTLINE_LIMITS`, JSON); every process that finds them
applies them. Without them, as at a terminal, a run has the permissions of its user.
"""

from __future__ import annotations

import json
import os
import posixpath
import pwd
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

from configs.load import load_run, log
from configs.paths import NamedPath, is_uri, named_paths
from configs.renamed import Notify
from configs.tasks import AnyRun
from configs.yaml_positions import dotted
from flows.folder import RunFolder
from pipelines.errors import RequestError, StateError

LIMITS_VARIABLE = "DRIFTLINE_LIMITS"
CLOSED = ".prefect"  # the server's folder for database and token
SCHEDULERS = ("tcp://", "tls://")  # addresses of Dask schedulers
DOES = {"read": "read", "write": "write", "connect": "connect to"}


@dataclass(frozen=True)
class Limits:
    """Absolute paths (links resolved) and URIs; everything below them is included, except the folders of servers.

    Write access includes read access.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @classmethod
    def of(cls, read: Iterable[str] = (), write: Iterable[str] = ()) -> Limits:
        """Limits from paths and URIs as a user writes them."""
        writable = outermost(map(canonical, write))
        readable = tuple(one for one in outermost(map(canonical, read)) if not any(is_below(one, w) for w in writable))
        return cls(readable, writable)

    def allow(self, one: NamedPath) -> bool:
        """True if `one` is at or below one of the locations with its kind of access."""
        try:
            requested = canonical(text_of(one))
        except (ValueError, OSError, RuntimeError):  # a null byte, circular links, a URI with `..`
            return False
        locations = (*self.write, *self.read) if one.access == "read" else self.write
        around = [location for location in locations if is_below(requested, location)]
        return any(CLOSED not in requested[len(location) :].split("/") for location in around)

    def sees(self, path: Path) -> bool:
        """True if `path` is there. A path that is not allowed counts as there and is not looked at: `require` refuses it."""
        return not self.allow(NamedPath((), str(path), "read")) or path.exists()

    def require(self, paths: Iterable[NamedPath]) -> None:
        """Raises RequestError with all of `paths` that are not allowed."""
        refused = [f"  {dotted(one.key)}: may not {DOES[one.access]} {one.text}" for one in paths if not self.allow(one)]
        if refused:
            locations = [*(f"{location} (read only)" for location in self.read), *self.write]
            problem = "this server's runs are limited to the folders and URIs of its start:"
            remedy = "use a location below those, or start it with `driftline serve ... --allow LOCATION`"
            kinds = "(a folder, s3://BUCKET/PREFIX or tcp://HOST:PORT)"
            allowed = f"  allowed: {', '.join(locations) or 'nothing'}"
            raise RequestError("\n".join([problem, *refused, allowed, f"  -> {remedy} {kinds}"]))

    def as_text(self) -> str:
        return json.dumps(asdict(self))


def limits_here() -> Limits | None:
    """The limits of this process; None: there are none. Raises StateError if they cannot be parsed."""
    text = os.environ.get(LIMITS_VARIABLE)
    if text is None:
        return None
    try:
        content = json.loads(text)
        return Limits(*(tuple(map(str, content[field.name])) for field in fields(Limits)))
    except (ValueError, KeyError, TypeError) as e:
        raise StateError(f"{LIMITS_VARIABLE} cannot be parsed ({e}); only `driftline serve` sets it: unset it") from e


def canonical(location: str) -> str:
    """A comparable form: links, `.` and `..` of a path resolved; scheme and host of a URI in lower case, no trailing `/`.

    Raises ValueError for a URI whose path is not normalised: programs interpret `..` differently.
    """
    if not is_uri(location) or location.startswith("file://"):
        return str(Path(location.removeprefix("file://")).resolve())
    scheme, host, path, query, fragment = urlsplit(location)
    path = path.rstrip("/")
    if query or fragment or unquote(path) != path or (path and posixpath.normpath(path) != path):
        raise ValueError(f"{location}: expected a plain URI such as s3://bucket/prefix")
    return f"{scheme.lower()}://{host.lower()}{path}"


def is_below(location: str, other: str) -> bool:
    """True if the canonical `location` is `other` or below it."""
    return location == other or location.startswith(other.rstrip("/") + "/")


def outermost(locations: Iterable[str]) -> tuple[str, ...]:
    """Those of the canonical `locations` that are below none of the others, in their order."""
    distinct = list(dict.fromkeys(locations))
    return tuple(one for one in distinct if not any(one != other and is_below(one, other) for other in distinct))


def text_of(one: NamedPath) -> str:
    """The path or URI of `one`."""
    if not one.is_remote:
        return str(one.local)
    return one.text


def load_run_within_limits(
    config: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    inputs_must_exist: bool = True,
    is_deployed: bool = False,
    notify: Notify = log.warning,
) -> AnyRun:
    """`load_run`, which accesses no path outside the limits of this process.

    A deployment's run (`is_deployed`) without limits must have absolute paths: outside `driftline serve` it starts in a
    temporary folder that Prefect deletes. Raises the errors of `load_run`, and RequestError for a path that is not allowed.
    """
    limits = limits_here()
    if limits is None and not is_deployed:
        return load_run(config, overrides, inputs_must_exist=inputs_must_exist, notify=notify)
    exists = limits.sees if limits is not None else Path.exists
    require = limits.require if limits is not None else require_absolute
    if not isinstance(config, Mapping):
        require([NamedPath(("config",), str(config), "read")])
    run = load_run(config, overrides, inputs_must_exist=False, notify=notify, exists=exists)
    require(named_paths(run))
    if limits is not None:
        limits.require(derived_paths(run))
    again = load_run(config, overrides, inputs_must_exist=inputs_must_exist, notify=log.debug, exists=exists)  # logged already
    if again != run:
        raise RequestError(f"{config} changed while it was read; start the run again")
    return run


def derived_paths(run: AnyRun) -> list[NamedPath]:
    """The paths that a run derives from its name: its folder, its cube, and every link in these."""
    folder = RunFolder.of(run)
    cube = NamedPath(("cube", "uri"), folder.cube_uri, "write")
    own = [NamedPath(("name",), folder.stored or str(folder.path), "write"), cube]
    for one in [one for one in own if not one.is_remote]:
        for parent, folders, files in os.walk(one.local):  # follows no link
            links = [path for name in (*folders, *files) if (path := Path(parent, name)).is_symlink()]
            own += [NamedPath(one.key, str(link), "write") for link in links]
    return own


def require_absolute(paths: Iterable[NamedPath]) -> None:
    """Raises RequestError with all of `paths` that depend on the working folder."""
    relative = [f"  {dotted(one.key)}: {one.text}" for one in paths if not one.is_remote and not one.local.is_absolute()]
    if relative:
        problem = "this deployment was not started by `driftline serve`: its working folder is a temporary one that Prefect"
        remedy = "  -> write absolute paths (for example --set runs=/data/runs), or start it with `driftline serve`"
        raise RequestError("\n".join([f"{problem} deletes, together with files at relative paths:", *relative, remedy]))


def default_limits(config: str | None, run: AnyRun | None, extra: Sequence[str] = ()) -> Limits:
    """Limits of the runs of a server: the working folder, what its config names, and `extra` (read and written).

    The working folder is excluded if it is or contains the home folder, which holds keys and settings. Raises RequestError.
    """
    here = Path.cwd().resolve()
    named = named_paths(run) if run is not None else []
    write = [] if any(home.resolve().is_relative_to(here) for home in home_folders()) else [str(here)]
    write += [text_of(one) for one in named if one.access != "read"]
    read = [*([config] if config else []), *(text_of(one) for one in named if one.access == "read")]
    for location in extra:
        check_location(location)
    try:
        return Limits.of(read, [*write, *extra])
    except ValueError as e:
        raise RequestError(str(e)) from e


def home_folders() -> list[Path]:
    """The user's home, from HOME and from the user database; a container may have neither."""
    folders = [os.environ["HOME"]] if os.environ.get("HOME") else []
    with suppress(KeyError):
        folders.append(pwd.getpwuid(os.getuid()).pw_dir)
    return [Path(folder) for folder in folders]


def check_location(location: str) -> None:
    """Raises RequestError for an invalid location: otherwise a typing error would only show when a run fails."""
    if not is_uri(location):
        if not Path(location).exists():
            raise RequestError(f"--allow {location}: no such folder; create it first, or correct the path")
        return
    try:
        scheme, host, port = urlsplit(location).scheme.lower(), urlsplit(location).hostname, urlsplit(location).port
        canonical(location)
    except ValueError as e:
        raise RequestError(f"--allow {location}: {e}") from e
    if not host or not (scheme == "s3" or (f"{scheme}://" in SCHEDULERS and port)):
        raise RequestError(f"--allow {location}: expected a folder, s3://BUCKET/PREFIX, or tcp://HOST:PORT of a Dask scheduler")
