"""Configs of `task: follow_up`: messages repeat nothing that may name a patient."""

from pathlib import Path

import pytest

from configs.load import load_run
from pipelines.errors import ConfigError, RequestError

CONFIG = {"name": "made", "task": "follow_up", "source": {"kind": "visits", "path": "v", "pattern": "{patient}/v{visit}.nii"}}


@pytest.mark.parametrize(
    "override",
    [
        "lesions.masks=Doe/mask.nii",
        "evaluation.reference=Doe/gt{visit}.nii",
        "decisions=Doe/d.csv",
        "decisions=[Doe",
        "lesions.masks.x=Doe",
        "source.patients.0=Doe",
    ],
)
def test_no_message_repeats_what_may_name_a_patient(override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    with pytest.raises((ConfigError, RequestError)) as caught:
        load_run(CONFIG, [override])
    assert ".".join(override.partition("=")[0].split(".")[:2]) in str(caught.value)
    assert "Doe" not in str(caught.value)
