"""The command line: fast help, exit codes, pure JSON, and never a traceback for a user's mistake."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.folder import code_version
from flows.terminal import guard
from pipelines.errors import CubeBusy, NotPublished, RequestError, RunBusy

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "torch",
    "xarray",
    "rasterio",
    "lightning",
    "matplotlib",
    "sklearn",
    "prefect",
    "icechunk",
    "dask",
    "pydantic",
    "numpy",
    "zarr",
)
COMMANDS = (
    "init",
    "ingest",
    "train",
    "evaluate",
    "predict",
    "run",
    "info",
    "history",
    "export",
    "report",
    "serve",
    "doctor",
    "demo",
)


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, flows.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"driftline {command}" in result.output
    assert "--json" in result.output


def test_a_wrong_request_is_exit_code_2_with_pure_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("nam: x\n")
    result = CliRunner().invoke(app, ["run", "run.yaml", "--json"])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert {"place": "run.yaml:1", "key": "nam", "problem": "unknown key", "remedy": "did you mean 'name'?"} in answer["mistakes"]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(RequestError("x"), 2), (CubeBusy("x"), 4), (RunBusy("x"), 4), (NotPublished("x"), 1), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert guard(fail, as_json=False) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("driftline: ")


def test_the_version_is_that_of_release_and_code() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"driftline {code_version()}\n")


def test_the_shell_can_complete_verbs() -> None:
    environment = {"_DRIFTLINE_COMPLETE": "complete_bash", "COMP_WORDS": "driftline pre", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], prog_name="driftline", env=environment).stdout.split() == ["predict"]


def test_an_unexpected_error_is_one_message_and_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        error = ZeroDivisionError("oh")
        error.driftline_folder = tmp_path  # type: ignore[attr-defined]
        raise error

    assert guard(fail, as_json=True) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["traceback"] == str(tmp_path / "error.log")
    assert "Traceback" not in shown.err
    assert "ZeroDivisionError: oh" in (tmp_path / "error.log").read_text()


def test_a_missing_cube_is_a_wrong_request(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "no cube at" in result.stderr


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EACCES, "change the permissions"),
        (errno.EROFS, "set `runs` to a writable folder"),
        (errno.ENAMETOOLONG, "a folder that can be created"),
        (errno.EEXIST, "a folder that can be created"),
    ],
)
def test_errors_of_the_machine_have_a_remedy(number: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        raise OSError(number, os.strerror(number), "runs/x")

    assert guard(action, as_json=False) == 1
    text = capsys.readouterr().err
    assert "runs/x" in text
    assert words in text
    assert "unexpected" not in text


def test_a_missing_file_of_a_cube_has_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    lost = type("IcechunkError", (Exception,), {"__module__": "icechunk"})

    def action() -> None:
        raise lost("object store error Object at location runs/x/cube/chunks/ABC not found: No such file")

    assert guard(action, as_json=False) == 1
    text = capsys.readouterr().err
    assert "the cube is damaged: runs/x/cube/chunks/ABC is missing" in text
    assert "driftline ingest CONFIG" in text


def test_sigterm_is_reported_and_the_handler_restored(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert guard(lambda: signal.raise_signal(signal.SIGTERM), as_json=True) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == "interrupted"
    assert "stopped by SIGTERM; finished steps are kept" in shown.err


@pytest.mark.parametrize(("task", "reasons", "code"), [
    ("monitor", ["all-cloud"], 0), ("monitor", ["all-cloud", "truncated"], 3),
    ("forecast", ["all-cloud"], 0), ("change", ["all-cloud", "truncated"], 3), ("forecast", [], 0),
])  # fmt: skip
def test_clouds_are_no_refusals_in_any_task(monkeypatch: pytest.MonkeyPatch, task: str, reasons: list[str], code: int) -> None:
    from flows import verbs

    monkeypatch.setattr(
        verbs, "perform", lambda *arguments: {"task": task, "refused": [{"reason": reason} for reason in reasons]}
    )
    assert verbs.stage("run", "x.yaml", [], False, False) == code


def test_a_proposal_into_a_missing_folder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.proposal.propose_run", lambda *arguments: "name: x\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path), "-o", str(tmp_path / "no" / "x.yaml")])
    assert result.exit_code == 2
    assert "make it first" in result.stderr


def test_libraries_that_write_to_the_descriptor_do_not_spoil_the_json() -> None:
    code = """
import os
from flows.terminal import guard, show
def action():
    os.write(1, b"a warning from Rust\\n")
    show({"a": 1}, [], True)
    os.write(1, b"and another\\n")
raise SystemExit(guard(action, True))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == '{"a": 1}\n'
    assert "a warning from Rust" in done.stderr
