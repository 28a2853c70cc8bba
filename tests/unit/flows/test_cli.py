"""The command line: fast help, exit codes, pure JSON, and never a traceback for a user's mistake."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from configs.load import load_run
from flows.cli import app
from flows.folder import RunFolder, code_version, exclusive_run
from flows.steps import Silent
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
    "sweep",
    "evaluate",
    "predict",
    "verify",
    "run",
    "info",
    "history",
    "check",
    "drop",
    "export",
    "report",
    "change",
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


def test_completion_is_for_the_named_shell() -> None:
    shown = CliRunner().invoke(app, ["--show-completion", "zsh"], prog_name="driftline")
    assert shown.output.startswith("#compdef driftline")
    assert CliRunner().invoke(app, ["--show-completion", "tcsh"]).exit_code == 2


def test_no_short_help_is_cut_off() -> None:
    assert "..." not in CliRunner().invoke(app, ["--help"]).output.replace("[ARGS]...", "")


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


def test_sigterm_is_reported_and_the_handler_restored(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert guard(lambda: signal.raise_signal(signal.SIGTERM), as_json=True) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == "interrupted"
    assert "stopped by SIGTERM; finished steps are kept" in shown.err


def test_a_step_that_python_cannot_interrupt_ends_soon_after_sigterm() -> None:
    lines = (
        "import hashlib, os, signal, threading",
        "import flows.terminal as terminal",
        "terminal.GRACE_S = 0.3",
        "work = lambda: hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",  # half an hour, which no handler interrupts
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()",
        "terminal.guard(work, as_json=True)",
    )
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 143, ended.stderr
    assert json.loads(ended.stdout)["status"] == "interrupted"
    assert "the same command resumes" in ended.stderr


@pytest.mark.parametrize(("task", "reasons", "code"), [
    (task, reasons, code)
    for task in ("forecast", "monitor", "change")
    for reasons, code in (([], 0), (["all-cloud"], 0), (["all-cloud", "truncated"], 3), (["all-nodata"], 3))
])  # fmt: skip
def test_clouds_are_no_refusals_in_any_task(monkeypatch: pytest.MonkeyPatch, task: str, reasons: list[str], code: int) -> None:
    from flows import verbs

    monkeypatch.setattr(
        verbs, "perform", lambda *arguments: {"task": task, "refused": [{"reason": reason} for reason in reasons]}
    )
    assert verbs.stage("run", "x.yaml", [], False, False) == code


def test_the_demo_ends_as_any_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its data are damaged, that is a refusal; clouds are none."""
    monkeypatch.setattr("flows.demo.fetch_data", lambda display: None)
    for reason, code in (("all-cloud", 0), ("truncated", 3)):
        monkeypatch.setattr("flows.verbs.perform", lambda *arguments, r=reason: {"task": "forecast", "refused": [{"reason": r}]})
        assert CliRunner().invoke(app, ["demo"]).exit_code == code


@pytest.mark.parametrize("is_tracked", [False, True])
def test_a_run_that_is_being_carried_out_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tracked: bool) -> None:
    """Plainly, and through Prefect, which hands the error back."""
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    Path("run.yaml").write_text(
        "name: small\nsource: {kind: folder, path: scenes, pattern: '{date:%Y%j}.tif', bands: [red]}\n"
        "samples: {variables: [{name: red, bands: [red]}]}\nsplit: {validation_from: 2019-01-01, test_from: 2020-01-01}\n"
    )
    if is_tracked:
        from flows.tracking import call_flow, carry_out

        def flow(return_state: bool, **parameters: Any) -> Any:
            return carry_out("run.yaml", [], "run")

        monkeypatch.setattr("flows.verbs.perform", lambda *arguments: call_flow(flow, Silent()))
        monkeypatch.setattr("flows.tracking.is_server_there", lambda: False)
        monkeypatch.setattr("flows.artifacts.ProgressArtifact.fail", lambda self, text: None)
    else:
        monkeypatch.setenv("PREFECT_API_URL", "")
    with exclusive_run(RunFolder.of(load_run("run.yaml"))):
        result = CliRunner().invoke(app, ["run", "run.yaml", "--json"])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["exit_code"], answer["status"]) == (4, 4, "failed")
    assert "is being carried out by" in answer["error"]


def test_the_version_is_release_and_code() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"driftline {code_version()}\n")


@pytest.mark.parametrize(("words", "offered"), [
    ("driftline in", ["init", "ingest", "info"]), ("driftline run --even", ["--even-if-worse", "--even-if-confounded"]),
    ("driftline --vers", ["--version"]),
])  # fmt: skip
def test_bash_completes_commands_and_options(tmp_path: Path, words: str, offered: list[str]) -> None:
    """The script that `--show-completion` prints, in a real bash, with a `driftline` on its path."""
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    command = tmp_path / "driftline"
    command.write_text(f"#!{sys.executable}\nfrom flows.cli import main\nmain()\n")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = f"""
eval "$(_DRIFTLINE_COMPLETE=source_bash driftline)"
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_driftline_completion driftline
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


def test_a_proposal_names_the_scenes_relative_to_where_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("cfg", "scenes"):
        Path(folder).mkdir()
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "int16", "crs": "EPSG:32633",
               "transform": (10.0, 0.0, 5e5, 0.0, -10.0, 5e6)}  # fmt: skip
    for month in range(1, 9):
        with rasterio.open(f"scenes/2020{month:02d}01_red.tif", "w", **profile) as raster:
            raster.write(np.full((1, 16, 16), month, "int16"))
    for written, path in (("cfg/run.yaml", "../scenes"), ("run.yaml", "scenes"), (str(tmp_path / "cfg" / "b.yaml"), "../scenes")):
        assert CliRunner().invoke(app, ["init", "scenes", "-o", written]).exit_code == 0
        assert f'path: "{path}"' in Path(written).read_text().replace("path: scenes", 'path: "scenes"')
        assert load_run(written).source.path == "scenes"


def test_a_proposal_into_a_missing_folder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.proposal.propose_run", lambda *arguments, **options: "name: x\n")
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
