"""A place in which all that commands leave, show and log is kept, to be searched for canaries."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.unit.privacy.planted import Canaries
from tests.unit.privacy.searching import found_in


class Left:
    """The folder `path`, in which commands run, and what they have shown and logged."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder):
        self.path, self.canaries, self.outputs = path, Canaries(), list[str]()
        self.root = path.parent / "originals"
        self._caplog, self._recwarn = caplog, recwarn

    @property
    def key(self) -> Path:
        path = self.path.parent / "study.key"
        if not path.exists():
            path.write_text(f"driftline-privacy-key-1 {'5' * 64}\n")
            path.chmod(0o600)
        return path

    def call(self, *arguments: str | Path) -> int:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        self.outputs += [result.stdout, result.stderr, str(result.exception or "")]
        return result.exit_code

    def forget(self) -> None:
        """What the making of the originals has logged."""
        self._caplog.clear()
        self._recwarn.clear()

    def found(self, *more: str) -> dict[str, str]:
        """Canaries that are in anything that was left, shown, logged, or is given."""
        logged = [record.getMessage() + str(record.exc_info) for record in self._caplog.records]
        warned = [str(one.message) for one in self._recwarn]
        return found_in(self.canaries, [*self.outputs, *logged, *warned, *more], [self.path])


@pytest.fixture
def left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> Left:
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "left"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PREFECT_API_URL", "")
    return Left(folder, caplog, recwarn)
