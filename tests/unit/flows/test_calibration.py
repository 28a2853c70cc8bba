"""`driftline doctor --calibrate` measures rates that plans then use."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.machine import read_machine


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_calibration_is_kept_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.calibration.SECONDS", 0.0)
    done = CliRunner().invoke(app, ["doctor", "--calibrate", "--json"])
    rates = json.loads(done.stdout)["rates"]
    assert [name for name, rate in rates.items() if not 0 < rate < 1e15] == []
    assert (vars(read_machine().rates), read_machine().note) == (rates, "")
