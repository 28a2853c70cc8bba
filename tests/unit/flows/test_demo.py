"""The demo's data come out of the wheel by bare name, and nothing else does."""

import zipfile
from pathlib import Path

import pytest

from flows import demo, demo_medical
from flows.steps import Silent
from pipelines.errors import ArtefactDamaged, RequestError, StateError


def test_only_data_is_unpacked_and_never_outside(tmp_path: Path) -> None:
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nrt/data/a.nc", b"a")
        archive.writestr("../../evil.nc", b"e")
        archive.writestr("nrt/code.py", b"import os")
    demo.unpack(wheel, tmp_path / "in" / "data")
    assert sorted(p.name for p in (tmp_path / "in" / "data").iterdir()) == ["a.nc", "complete", "evil.nc"]
    assert not (tmp_path / "evil.nc").exists()


def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "REQUIREMENT", "./no-such-wheel-here==0")
    with pytest.raises(StateError, match=r"pip could not fetch .*Check the network, or put nrt-0.2.1"):
        demo.fetch_data(Silent(), tmp_path / "data")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_clip_comes_out_of_the_installed_package_if_it_is_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom")
    clip = demo_medical.fetch_clip(tmp_path / "data")
    clip.write_bytes(b"altered")
    assert demo.hash_file(demo_medical.fetch_clip(tmp_path / "data")) == demo_medical.CLIP_SHA256
    monkeypatch.setattr(demo_medical, "CLIP_SHA256", "0" * 64)
    with pytest.raises(ArtefactDamaged, match=r"examples_ybr_color.dcm of pydicom: expected sha256 0000.*it was not used"):
        demo_medical.fetch_clip(tmp_path / "data")


def test_without_pydicom_the_demo_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"driftline\[medical\]"):
        demo_medical.fetch_clip(tmp_path / "data")
