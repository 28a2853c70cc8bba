"""Prefect around the steps: whether a server is named, task runs for steps, and a history that is complete at the end.

Prefect is imported inside functions: it takes two seconds, and a run without a server never needs it.
"""

import logging
import os
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flows import Json, stage
from flows.prefect_api import open_url
from flows.steps import Display, Silent
from flows.task import open_invocation, remembering_folder
from pipelines.errors import DriftlineError, RequestError, StateError
from pipelines.progress import Progress
from pipelines.wording import without_secrets

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

HISTORY_TIMEOUT_S = 90.0  # an ephemeral server was seen to need 1 to 15 s


@dataclass
class Outcome:
    """What a flow run hands back to the process that called it; Prefect itself keeps only states."""

    display: Display = field(default_factory=Silent)
    result: Any = None
    error: Exception | None = None


_outcome: ContextVar[Outcome | None] = ContextVar("driftline_outcome", default=None)

# ---------------------------------------------------------------- which server


def server_url() -> str | None:
    """The Prefect API that the environment or the active profile names; None if neither does."""
    url = os.environ.get("PREFECT_API_URL")
    if url is not None:
        return url or None
    try:
        home = Path(os.environ.get("PREFECT_HOME", "~/.prefect"))
        profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")).expanduser()
        content = tomllib.loads(profiles.read_text(encoding="utf-8"))
    except (OSError, RuntimeError, tomllib.TOMLDecodeError):  # RuntimeError: no home folder
        return None  # no profile, or one that Prefect itself could not read either
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    return content.get("profiles", {}).get(active, {}).get("PREFECT_API_URL") or None


def is_reachable(url: str, timeout_s: float = 3.0) -> bool:
    """True if a Prefect API answers at `url`; any HTTP answer counts, so that a server that wants a key is not missed."""
    if not url.startswith(("http://", "https://")):
        raise RequestError(f"PREFECT_API_URL is {url!r}, expected http://HOST:PORT/api; unset it to run without a server")
    try:
        with open_url(urllib.request.Request(f"{url.rstrip('/')}/health"), timeout_s):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def require_access() -> None:
    """Raises RequestError if the server that is configured refuses this shell: it wants another password, or any."""
    from httpx import HTTPStatusError
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        try:
            client.request("GET", "/admin/version")
        except HTTPStatusError as e:
            status = e.response.status_code
            token = "set PREFECT_API_AUTH_STRING (`driftline serve` prints where its token lies)"
            problem = f"refuses this shell ({status}); {token}"
            if status == 404:
                problem = "has no such page; the address of an API ends in /api"
            elif status not in (401, 403):
                raise
            remedy = "or unset PREFECT_API_URL to run without one"
            raise RequestError(f"the Prefect server at {server_url()} {problem}, {remedy}") from e


# ---------------------------------------------------------------- steps as task runs


class TaskCaller:
    """Carries out steps as Prefect task runs of the current flow run, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, stage: str, name: str, work: Callable[[], Result]) -> Result:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Failed

        results: list[Result] = []
        errors: list[DriftlineError] = []

        def step() -> Any:
            try:
                results.append(work())
            except DriftlineError as e:  # returned as a state: raised, Prefect would log a traceback for a user's mistake
                errors.append(e)
                return Failed(message=str(e))
            return None

        self.count += 1
        # no tags: with tags every step asks the server for a concurrency slot, about 2 s, and waits for ever if it is gone
        options: Json = {"persist_result": False, "cache_policy": NO_CACHE}
        task(name=f"{stage}: {name}", task_run_name=f"{stage}: {name}", **options)(step)(return_state=True)
        if errors:
            raise errors[0]
        if not results:
            raise StateError(f"{stage}: {name}: Prefect stopped the step before it had finished (cancelled or crashed)")
        return results[0]


def await_history(count: int, timeout_s: float = HISTORY_TIMEOUT_S) -> int:
    """Wait until the server has recorded `count` task runs of this flow run as finished; how many it has in the end.

    Task runs reach the server as events, after the fact. A process that leaves at once takes the rest of them with it,
    and with Prefect's temporary server the server too (6 of 100 were left).
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if count == 0 or context is None or context.flow_run is None:
        return 0
    requested = FlowRunFilter(id=FlowRunFilterId(any_=[context.flow_run.id]))
    deadline, recorded = time.monotonic() + timeout_s, 0
    try:
        with get_client(sync_client=True) as client:
            while recorded < count and time.monotonic() < deadline:
                pages = [client.read_task_runs(flow_run_filter=requested, limit=200, offset=at) for at in range(0, count, 200)]
                recorded = sum(1 for page in pages for run in page if run.state is not None and run.state.is_final())
                time.sleep(0.0 if recorded >= count else 0.25)
    except Exception as e:  # the server went away; whatever kind of error its client makes of that, the work is done
        logger.warning("the Prefect server could not be asked for its history: %s", e)
    if recorded < count:
        logger.warning("Prefect recorded %d of %d steps within %.0f s; steps.jsonl has all of them", recorded, count, timeout_s)
    return recorded


# ---------------------------------------------------------------- flows


def is_server_there() -> bool:
    """False, and a word in the log, if the server went away meanwhile: each call to it would be retried for a minute."""
    url = server_url()
    is_there = url is None or is_reachable(url)  # None: Prefect's temporary server, which lives as long as we do
    if not is_there:
        logger.warning("the Prefect server at %s went away; the run's folder has everything", url)
    return is_there


@dataclass(frozen=True)
class Both:
    """Shows the steps in two places: on the terminal and in Prefect's UI."""

    first: Display
    second: Display

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Progress]:
        with self.first.step(stage, name) as first_progress, self.second.step(stage, name) as second_progress:

            def progress(done: int, total: int) -> None:
                first_progress(done, total)
                second_progress(done, total)

            yield progress

    def log(self, text: str) -> None:
        self.first.log(text)
        self.second.log(text)


def name_of_run() -> str:
    """Verb and config's name, as the list of runs shows it, e.g. "predict harvest"."""
    from prefect.runtime import flow_run

    return f"{flow_run.flow_name} {Path(str(flow_run.parameters.get('config', ''))).stem}"


def carry_out(config: str, overrides: list[str] | None, verb: str, **options: Any) -> Any:
    """The body of every flow: open the run, carry out its steps as task runs, publish artifacts, wait for the history.

    Hands Prefect a state. A user's mistake is a Failed state with the message, not a traceback in the log.
    """
    from prefect.runtime import deployment, flow_run
    from prefect.states import Completed, Failed

    from flows.artifacts import ProgressArtifact, publish_artifacts

    outcome = _outcome.get() or Outcome()
    call = TaskCaller()
    try:
        display = Both(outcome.display, ProgressArtifact())
        options = {**options, "flow_run": str(flow_run.id or ""), "is_deployed": deployment.id is not None}
        invocation = open_invocation(config, overrides or (), display, call=call, **options)
        ending = "stopped before the end: cancelled, interrupted or crashed; run it again, it goes on where it was"
        try:
            with remembering_folder(invocation):
                outcome.result = stage.carry_out(invocation, verb)
            ending = outcome.result.get("message", "done")
        except Exception as e:
            ending = without_secrets(f"failed: {e}")
            raise
        finally:
            if is_server_there():
                publish_artifacts(invocation, ending)
        return Completed(message=ending)
    except DriftlineError as e:
        outcome.error = e
        ProgressArtifact().fail(without_secrets(str(e)))
        return Failed(message=without_secrets(str(e)))
    except Exception as e:
        outcome.error = e
        raise
    finally:
        if is_server_there():
            await_history(call.count)


def call_flow(flow: Any, display: Display, **parameters: Any) -> Json:
    """Run a flow in this process against the server that is configured, and hand back what its body returned or raised."""
    outcome = Outcome(display)
    token = _outcome.set(outcome)
    try:
        state = flow(**parameters, return_state=True)
    except Exception as e:
        if outcome.error is None and outcome.result is None:
            raise
        display.log(f"the Prefect server did not take the end of the run ({e}); the run's folder has everything")
        state = None
    finally:
        _outcome.reset(token)
    if outcome.error is not None:
        raise outcome.error
    result: Json = outcome.result
    if state is None:
        return result
    if not state.is_completed():
        raise StateError(f"Prefect ended the flow run as {state.name}: {state.message}")
    return result
