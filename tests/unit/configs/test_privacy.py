"""The section `privacy`: on by default, off with a reason alone, and for images of patients alone."""

from pathlib import Path

import pytest

from configs.privacy import PrivacyConfig, build_privacy
from configs.sources import MemorySource


def problems(section: dict[str, object]) -> list[str]:
    return [".".join(map(str, finding.key)) for finding in PrivacyConfig.model_validate(section).check({})]


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ({}, []),
        ({"deidentify": False}, ["privacy.deidentify"]),
        ({"deidentify": False, "reason": " "}, ["privacy.deidentify"]),
        ({"deidentify": False, "reason": "phantoms, no patients"}, []),
        ({"reason": "phantoms"}, ["privacy.reason"]),
        ({"shift_days": [-5, 5]}, ["privacy.shift_days"]),
        ({"shift_days": [-1, -5]}, ["privacy.shift_days"]),
        ({"masks": [{"rows": [0, 40], "columns": [0, 800]}]}, []),
        ({"masks": [{"rows": [40, 40], "columns": [-1, 800]}]}, ["privacy.masks.0.rows", "privacy.masks.0.columns"]),
    ],
)
def test_what_the_section_accepts(section: dict[str, object], wrong: list[str]) -> None:
    assert problems(section) == wrong


def test_it_is_for_images_of_patients() -> None:
    (finding,) = PrivacyConfig().check({"source": MemorySource(kind="memory", bands=["red"])})
    assert "images of places" in finding.problem


def test_settings_are_on_by_default_and_the_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert build_privacy(PrivacyConfig(deidentify=False, reason="phantoms")) is None
    forgotten = build_privacy(PrivacyConfig(), makes_key=False)
    assert list(tmp_path.iterdir()) == []
    first, second = build_privacy(PrivacyConfig()), build_privacy(PrivacyConfig())
    assert first is not None
    assert second is not None
    assert forgotten is not None
    assert first.digest() == second.digest() != forgotten.digest()
    assert (tmp_path / "driftline" / "privacy.key").is_file()
    masked = build_privacy(PrivacyConfig.model_validate({"masks": [{"rows": [0, 4], "columns": [0, 8]}]}))
    assert masked is not None
    assert masked.digest() != first.digest()
