"""Two patients with multiple sclerosis: the proposal against simple differencing, and the whole run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

pytestmark = [pytest.mark.torch, pytest.mark.slow]
CONFIG = Path(__file__).parents[2] / "configs" / "ms-follow-up.yaml"


def test_the_proposal_beats_simple_differencing_on_both_patients(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_data("medical/ms-lesions")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    result = CliRunner().invoke(app, ["run", str(CONFIG), "--set", f"source.path={source}", "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(Path("runs/ms-follow-up/summary.json").read_text())
    patients = summary["evaluation"]["patients"]
    assert len(patients) == 2
    for figures in patients.values():
        ours, plain = figures["proposal"], figures["differencing"]
        assert ours["lesion_f1"]["value"] > plain["lesion_f1"]["value"] + 0.1
        assert ours["dice"]["value"] > 0.55
        assert ours["dice"]["value"] > plain["dice"]["value"] + 0.1
    for facts in summary["sites"].values():
        assert facts["events"]["new"] >= 2
    names = " ".join(path.name for path in Path("runs/ms-follow-up/products").iterdir())
    assert "patient01" not in names  # pseudonyms
