"""What a person at a terminal sees: bars with the time left on stderr, results on stdout, mistakes without a traceback."""

import errno
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, CubeBusy, DriftlineError, RequestError, RunBusy, SceneRefused
from pipelines.progress import Progress

DONE, FAILED, WRONG_REQUEST, SOME_REFUSED, BUSY, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 130, 143


class Bars:
    """Rich progress bars on stderr; on a pipe or in a log, one line when a step begins and one when it ends."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Progress]:
        started = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"{stage}: {name} ...", markup=False)
            yield Milestones(self.console, stage, name)
        else:
            with self._bar() as bar:
                task = bar.add_task(f"{stage}: {name}", total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
                bar.update(task, total=1, completed=1, visible=False)
        seconds = time.monotonic() - started
        self.console.print(f"{stage}: {name}  {seconds:.1f} s", markup=False)

    def log(self, text: str) -> None:
        self.console.print(one_line(text), markup=False)

    def _bar(self) -> Any:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        left = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        return RichProgress(*columns, *left, console=self.console, transient=True, refresh_per_second=5)


def one_line(text: str) -> str:
    """The text without control characters: a file may be named with a newline or an escape sequence."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Milestones:
    """Progress for logs: a line at most every ten seconds, with the time left."""

    def __init__(self, console: Any, stage: str, name: str):
        self.console, self.label = console, f"{stage}: {name}"
        self.started = self.reported = time.monotonic()
        self.lock = threading.Lock()

    def __call__(self, done: int, total: int) -> None:
        with self.lock:
            now = time.monotonic()
            if now - self.reported < 10 or not 0 < done < total:
                return
            self.reported = now
            left = (now - self.started) / done * (total - done)
            self.console.print(f"{self.label}  {done}/{total}, about {left:.0f} s left", markup=False)


def guard(action: Callable[[], Any], as_json: bool) -> int:
    """The exit code of `action`; whatever it raises is shown as one message, never as a traceback."""
    with only_results_on_stdout() if as_json else nullcontext():
        return carry_out(action, as_json)


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """SIGTERM (a scheduler, `timeout`, a shutdown) raises SystemExit(143), so that it gets a last word; a second one kills."""
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_ours:
        yield
        return
    owner = os.getpid()

    def unwind(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked worker ends as it always did
            os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """What libraries in C or Rust write to file descriptor 1 goes to stderr; `print` still reaches stdout."""
    python_out = sys.stdout
    try:
        is_descriptor_1 = python_out.fileno() == 1
    except (OSError, AttributeError):  # a stdout in memory, as tests have it
        is_descriptor_1 = False
    if not is_descriptor_1:
        yield
        return
    python_out.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    with open(kept, "w", encoding="utf-8", closefd=False) as results:
        sys.stdout = results
        try:
            yield
        finally:
            sys.stdout = python_out
            results.flush()
            os.dup2(kept, 1)
            os.close(kept)


def carry_out(action: Callable[[], Any], as_json: bool) -> int:
    try:
        with sigterm_unwinds():
            code = action()
        return code if isinstance(code, int) else DONE
    except KeyboardInterrupt:
        return _complain("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED, as_json)
    except SystemExit as e:
        if e.code != TERMINATED:
            raise
        return _complain(
            "stopped by SIGTERM; what was finished is kept, the same command goes on from there", TERMINATED, as_json
        )
    except SceneRefused as e:
        return _complain(str(e), FAILED, as_json)
    except ConfigError as e:
        mistakes = [{"place": m.position, "key": m.key, "problem": m.problem, "remedy": m.remedy} for m in e.mistakes]
        return _complain(str(e), WRONG_REQUEST, as_json, mistakes=mistakes)
    except RequestError as e:
        return _complain(str(e), WRONG_REQUEST, as_json)
    except (RunBusy, CubeBusy) as e:
        return _complain(str(e), BUSY, as_json)
    except DriftlineError as e:
        return _complain(str(e), FAILED, as_json)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stdout = None  # type: ignore[assignment]
        return DONE
    except OSError as e:
        text = explain_os_error(e)
        return _complain(text, FAILED, as_json) if text else _complain_unexpected(e, as_json)
    except Exception as e:
        text = explain_lost_object(e)
        return _complain(text, FAILED, as_json) if text else _complain_unexpected(e, as_json)


def explain_lost_object(error: Exception) -> str | None:
    """Words for a cube with a file missing. Told here, at the outermost ring: cubes are read lazily, from anywhere."""
    lost = re.search(r"Object at location (\S.*?) not found", str(error))
    if lost is None or not type(error).__module__.startswith(("icechunk", "_icechunk")):
        return None
    return (
        f"the cube is damaged: {lost[1]} is not there; put the cube back from a copy, or remove its folder "
        "and run `driftline ingest CONFIG`, which lays every scene anew"
    )


def explain_os_error(error: OSError) -> str | None:
    """Words and a remedy for what the machine refuses; None for what would be a fault of ours."""
    position = f"{error.filename}: " if error.filename else ""
    remedies = {
        "free some, or set `runs` or `cube.uri` to another disk; the same command goes on from there": (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        ),
        "give yourself the right, or set `runs` to a folder that you may write": (errno.EACCES, errno.EPERM, errno.EROFS),
        "name a folder that can be made (in a config: `runs` and `name`)": (
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
            errno.ELOOP,
        ),
        "look at the disk and its cable, or at the network drive": (errno.EIO, errno.ESTALE),
        "raise the limit of open files (ulimit -n)": (errno.EMFILE, errno.ENFILE),
    }
    for remedy, numbers in remedies.items():
        if error.errno in numbers:
            return f"{position}{error.strerror}; {remedy}"
    return None


def _complain_unexpected(e: Exception, as_json: bool) -> int:
    log = write_traceback(e)
    text = f"unexpected {type(e).__name__}: {e}\nThis is a fault of driftline or of the machine; the full traceback is in {log}"
    return _complain(text, FAILED, as_json, traceback=str(log))


def write_traceback(error: Exception) -> Path:
    """Where the traceback was written: `error.log` in the run's folder if a run was under way, else a temporary file."""
    folder = getattr(error, "driftline_folder", None)
    text = "".join(traceback.format_exception(error))
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "error.log"
            path.write_text(text, encoding="utf-8")
            return path
        except OSError:
            pass  # a full or read-only disk may be the very fault; the temporary folder is the second try
    with tempfile.NamedTemporaryFile("w", prefix="driftline-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(text)
    return Path(file.name)


def _complain(text: str, code: int, as_json: bool, **more: Any) -> int:
    if as_json:
        status = "interrupted" if code in (INTERRUPTED, TERMINATED) else "failed"
        print(json.dumps({"status": status, "exit_code": code, "error": text, **more}))
    print(f"driftline: {text}", file=sys.stderr)
    return code


def show(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The result of a verb on stdout: one JSON object, or `lines` for people."""
    if as_json:
        print(json.dumps(result, default=str))
    else:
        print("\n".join(lines))
