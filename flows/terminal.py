"""Terminal output: progress bars with the remaining time on stderr, results on stdout, errors without a traceback."""

import errno
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flows import Json
from pipelines.errors import ConfigError, CubeBusy, DriftlineError, RequestError, RunBusy
from pipelines.progress import Progress
from pipelines.wording import printable, without_secrets

DONE, FAILED, WRONG_REQUEST, SOME_REFUSED, BUSY, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 130, 143
GRACE_S = 5.0  # from SIGTERM until a process ends that could not unwind
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
REMEDIES = (  # for errors of the machine
    (
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "free space, or set `runs` or `cube.uri` to another disk; the same command resumes",
    ),
    ((errno.EACCES, errno.EPERM, errno.EROFS), "change the permissions, or set `runs` to a writable folder"),
    (NO_PLACE, "name a folder that can be created (in a config: `runs` and `name`)"),
    ((errno.EIO, errno.ESTALE), "check the disk and its cable, or the network drive"),
    ((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
)


class Bars:
    """Rich progress bars on stderr; without a terminal, one line at the start and one at the end of a step."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Progress]:
        started, name = time.monotonic(), one_line(name)
        shown: BarProgress | Milestones
        if not self.console.is_terminal:
            self.console.print(f"{stage}: {name} ...", markup=False)
            yield (shown := Milestones(self.console, stage, name))
        else:
            with self._bar() as bar:
                shown = BarProgress(bar, f"{stage}: {name}")
                yield shown
                shown.end()
        seconds, noted = time.monotonic() - started, f", {shown.noted}" if shown.noted else ""
        self.console.print(f"{stage}: {name}  {seconds:.1f} s{noted}", markup=False)

    def log(self, text: str) -> None:
        self.console.print(one_line(text), markup=False)

    def _bar(self) -> Any:
        from rich import progress as rich

        columns = (rich.SpinnerColumn(), rich.TextColumn("{task.description}", markup=False), rich.BarColumn())
        left = (rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn())
        return rich.Progress(*columns, *left, console=self.console, transient=True, refresh_per_second=5)


def safe(text: str) -> str:
    """What any text becomes before it is shown: no escape sequences (of file names), no passwords and tokens (of URIs)."""
    return printable(without_secrets(text))


def one_line(text: str) -> str:
    """As `safe`, with line breaks written out too."""
    return safe(text).replace("\n", "\\n")


class BarProgress:
    """One bar; what is noted stands behind its name."""

    def __init__(self, bar: Any, label: str):
        self.bar, self.label, self.noted = bar, label, ""
        self.task = bar.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)

    def note(self, text: str) -> None:
        self.noted = one_line(text)
        self.bar.update(self.task, description=f"{self.label}, {self.noted}")

    def end(self) -> None:
        self.bar.update(self.task, total=1, completed=1, visible=False)


class Milestones:
    """Progress for logs: at most one line every ten seconds, with the remaining time."""

    def __init__(self, console: Any, stage: str, name: str):
        self.console, self.label = console, f"{stage}: {name}"
        self.started = self.reported = time.monotonic()
        self.lock, self.noted = threading.Lock(), ""

    def note(self, text: str) -> None:
        self.noted = one_line(text)

    def __call__(self, done: int, total: int) -> None:
        with self.lock:
            now = time.monotonic()
            if now - self.reported < 10 or not 0 < done < total:
                return
            self.reported = now
            left = (now - self.started) / done * (total - done)
            noted = f"{self.noted}, " if self.noted else ""
            self.console.print(f"{self.label}  {done}/{total}, {noted}about {left:.0f} s left", markup=False)


def guard(action: Callable[[], object], as_json: bool) -> int:
    """The exit code of `action`; an exception is shown as one message, never as a traceback."""
    with only_results_on_stdout() if as_json else nullcontext():
        return run_action(action, as_json)


@contextmanager
def sigterm_unwinds(late: Callable[[], object]) -> Iterator[None]:
    """SIGTERM (a scheduler, `timeout`, a shutdown) raises SystemExit(143), so that a message can be shown; a second one kills.

    Python raises it between two of its instructions: a batch of a large network may be one of them for a minute. Where nothing
    has come of it after `GRACE_S`, `late()` is called in another thread and the process ends, as by a kill, with that exit code.
    """
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_ours:
        yield
        return
    owner = os.getpid()

    def unwind(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked worker keeps the default action
            os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, unwind)
    try:
        with ending_after_sigterm(late):
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def ending_after_sigterm(late: Callable[[], object]) -> Iterator[None]:
    """Ends this process, after `late()`, `GRACE_S` after a SIGTERM, unless the block has been left by then."""
    before = signal.set_wakeup_fd(-1)
    if before != -1:  # an event loop's
        signal.set_wakeup_fd(before)
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_left = threading.Event()

    def watch() -> None:
        while number := os.read(reader, 1):  # written by C code at once, whatever Python waits for
            if number[0] == signal.SIGTERM and not is_left.wait(GRACE_S):
                late()
                exit_now()
        os.close(reader)

    threading.Thread(target=watch, name="end after SIGTERM", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=partial(forget_wakeup, writer))
    try:
        yield
    finally:
        is_left.set()
        signal.set_wakeup_fd(-1)
        os.close(writer)


def forget_wakeup(writer: int) -> None:
    """In a forked process: signals that it gets are not those of the process that it was forked from."""
    if (there := signal.set_wakeup_fd(-1)) not in (writer, -1):
        signal.set_wakeup_fd(there)


def exit_now() -> None:
    """Ends the process without waiting for threads; what it has said is shown."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(TERMINATED)


def exit_soon() -> None:
    """As `exit_now` after `GRACE_S`, if threads that go on working keep the process until then."""
    timer = threading.Timer(GRACE_S, exit_now)
    timer.daemon = True
    timer.start()


@contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Redirects output of C or Rust libraries to file descriptor 1 to stderr; `print` still writes to stdout."""
    python_out = sys.stdout
    try:
        is_descriptor_1 = python_out.fileno() == 1
    except (OSError, AttributeError):  # a stdout in memory, as in tests
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


def run_action(action: Callable[[], object], as_json: bool) -> int:
    stopped = partial(_report_error, "stopped by SIGTERM; finished steps are kept, the same command resumes", TERMINATED, as_json)
    try:
        with sigterm_unwinds(late=stopped):
            code = action()
        return code if isinstance(code, int) else DONE
    except KeyboardInterrupt:
        return _report_error("interrupted; finished steps are kept, the same command resumes", INTERRUPTED, as_json)
    except SystemExit as e:
        if e.code != TERMINATED:
            raise
        return stopped()
    except ConfigError as e:
        mistakes = [{"place": m.position, "key": m.key, "problem": m.problem, "remedy": m.remedy} for m in e.mistakes]
        return _report_error(str(e), WRONG_REQUEST, as_json, mistakes=mistakes)
    except DriftlineError as e:
        code = WRONG_REQUEST if isinstance(e, RequestError) else BUSY if isinstance(e, CubeBusy | RunBusy) else FAILED
        return _report_error(" ".join([str(e), *place_of(e)]), code, as_json)
    except BrokenPipeError:  # the reader of the output closed it, as `head` does
        sys.stdout = None
        return DONE
    except Exception as e:
        text = explain_os_error(e) if isinstance(e, OSError) else None
        return _report_error(text, FAILED, as_json) if text else _report_unexpected(e, as_json)


def explain_os_error(error: OSError) -> str | None:
    """Message and remedy for an error of the machine; None for an error of driftline."""
    position = f"{error.filename}: " if error.filename else ""
    for numbers, remedy in REMEDIES:
        if error.errno in numbers:
            return f"{position}{error.strerror}; {remedy}"
    return None


def place_of(error: Exception) -> list[str]:
    """At which piece of some work (`pipelines.compute`) it happened, in brackets."""
    return [f"({note})" for note in getattr(error, "__notes__", ()) if note.startswith("at ") and "\n" not in note]


def _report_unexpected(e: Exception, as_json: bool) -> int:
    log, what = write_traceback(e), " ".join([f"{type(e).__name__}: {e}", *place_of(e)])
    text = f"unexpected {what}\nThis is an error of driftline or of the machine; the full traceback is in {log}"
    return _report_error(text, FAILED, as_json, traceback=str(log))


def write_traceback(error: Exception) -> Path:
    """The file with the traceback: `error.log` in the run's folder during a run, else a temporary file."""
    folder: Path | None = getattr(error, "driftline_folder", None)
    text = without_secrets("".join(traceback.format_exception(error)))
    if folder is not None:
        with suppress(OSError):  # the disk may be full or read-only; then the temporary folder
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "error.log"
            path.write_text(text, encoding="utf-8")
            return path
    with tempfile.NamedTemporaryFile("w", prefix="driftline-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(text)
    return Path(file.name)


def _report_error(text: str, code: int, as_json: bool, **more: object) -> int:
    if as_json:
        status = "interrupted" if code in (INTERRUPTED, TERMINATED) else "failed"
        print(without_secrets(json.dumps({"status": status, "exit_code": code, "error": text, **more})))
    print(f"driftline: {safe(text)}", file=sys.stderr)
    return code


def show(result: Json, lines: list[str], as_json: bool) -> int:
    """Prints the result of a verb to stdout: one JSON object (ASCII), or `lines` for people. The exit code."""
    print(without_secrets(json.dumps(result, default=str)) if as_json else safe("\n".join(lines)))
    return DONE
