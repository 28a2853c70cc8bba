"""The section `privacy`: on by default, off with a reason alone, and for images of patients alone."""

from pathlib import Path

import pytest

from configs.privacy import PrivacyConfig, build_privacy, path_to_read
from configs.samples import MovingDigitsSource, SampleFilesSource
from configs.schema import Strict
from configs.sources import MemorySource, PicturesSource, VideoSource
from pipelines.errors import RequestError


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


NOT_DEIDENTIFIED = PrivacyConfig(deidentify=False, reason="phantoms")


def test_it_is_for_images_of_patients() -> None:
    (finding,) = PrivacyConfig().check({"source": MemorySource(kind="memory", bands=["red"])})
    assert "images of places" in finding.problem


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (VideoSource(kind="video", path="a.mp4"), []),
        (VideoSource(kind="video", path="a.mp4", start="2020-03-01"), ["source.start"]),
        (PicturesSource(kind="images", path="a", pattern="{frame}.png", frame_time=1), []),
        (PicturesSource(kind="images", path="a", pattern="{frame}.png", frame_time=1, start="2020-03-01"), ["source.start"]),
        (SampleFilesSource(kind="files", path="a", start="2020-03-01"), ["source.start"]),
        (MovingDigitsSource(kind="moving_digits", path="a"), ["privacy"]),
    ],
)
def test_clips_and_pictures_of_patients_keep_no_date_and_no_names(source: Strict, wrong: list[str]) -> None:
    assert [".".join(map(str, finding.key)) for finding in PrivacyConfig().check({"source": source})] == wrong
    assert "source.start" not in [".".join(map(str, one.key)) for one in NOT_DEIDENTIFIED.check({"source": source})]


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


def test_a_reader_gets_the_copy_or_with_a_reason_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydicom")
    from tests.unit.privacy.planted import as_bytes, image

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    source, copy = tmp_path / "in", tmp_path / "copy"
    source.mkdir()
    (source / "report.dcm").write_bytes(as_bytes(image()).replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.5.1.4.1.1.9\0"))
    with pytest.raises(RequestError, match=r"1 x no-image: .*only images are passed on"):
        path_to_read(None, source, copy)
    (source / "image.dcm").write_bytes(as_bytes(image()))
    path, manifest = path_to_read(None, source, copy)
    assert manifest is not None
    assert (path, manifest.copied, len(manifest.refused)) == (copy, 1, 1)
    assert path_to_read(PrivacyConfig(deidentify=False, reason="phantoms"), source, copy) == (source, None)
