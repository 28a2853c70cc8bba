"""The page with the volumes of a run: the files as they are, no address, nothing unescaped; what becomes of large files."""

import base64
import gzip
import hashlib
import json
import re
from html import unescape
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipelines.products import viewer
from pipelines.products.viewer import NIIVUE, Layer, write_viewer

HOSTILE = '</script><script>alert("1")</script><!--volumes-->'
VENDOR = files("pipelines.products") / "vendor"


def volume(path: Path, frames: int) -> Layer:
    values = np.random.default_rng(frames).normal(size=(6, 5, 4, frames)).astype("float32")
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return Layer(path, f"{path.name} {HOSTILE}", [f"{k} s" for k in range(frames)], HOSTILE)


def embedded(page: str) -> list[bytes]:
    return [
        base64.b64decode(text)
        for text in re.findall(r'<script type="application/octet-stream" id="volume-\d">(.*?)</script>', page)
    ]


def listed(page: str) -> list[dict]:
    return json.loads(page.split('id="layers">')[1].split("</script>")[0])


def own_part(page: str) -> str:
    niivue = (files("pipelines.products") / NIIVUE).read_text(encoding="utf-8")
    assert page.count(niivue) == 1
    return page.replace(niivue, "")


def test_the_page_holds_the_files_as_they_are_and_no_address(tmp_path: Path) -> None:
    layers = [volume(tmp_path / f"{name}.nii.gz", frames) for name, frames in (("forecast", 3), ("observed", 7))]
    assert write_viewer(tmp_path / "viewer.html", f"run {HOSTILE}", HOSTILE, layers) == []
    page = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    assert embedded(page) == [layer.path.read_bytes() for layer in layers]
    assert [(one["file"], len(one["frames"])) for one in listed(page)] == [("forecast.nii.gz", 3), ("observed.nii.gz", 7)]
    assert re.search(r'<input id="frame" type="range" min="0" max="2" value="0">', page)
    own = own_part(page)
    assert not re.search(r"https?:|//[a-z]|src=|@import", own)
    assert "default-src 'none'" in own
    assert "<script>alert" not in own
    assert HOSTILE in unescape(own)


@pytest.mark.parametrize("limit", ["MOST_PACKED", "MOST_UNPACKED"])
def test_files_over_the_limit_are_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    small, large = volume(tmp_path / "small.nii.gz", 2), volume(tmp_path / "large.nii.gz", 40)
    size = 6 * 5 * 4 * 2 * 4
    monkeypatch.setattr(viewer, limit, {"MOST_PACKED": small.path.stat().st_size, "MOST_UNPACKED": size}[limit])
    assert write_viewer(tmp_path / "viewer.html", "run", "", [large, small]) == ["large.nii.gz"]
    page = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    assert embedded(page) == [small.path.read_bytes()]
    assert len(gzip.decompress(embedded(page)[0])) == 352 + size
    assert re.search(r"Too large for this page .*: large.nii.gz\. Open it with", page)
    monkeypatch.setattr(viewer, limit, 1)
    assert write_viewer(tmp_path / "viewer.html", "run", "", [large, small]) == ["large.nii.gz", "small.nii.gz"]
    assert embedded((tmp_path / "viewer.html").read_text(encoding="utf-8")) == []


def test_what_is_vendored_is_what_its_readme_says() -> None:
    found = re.findall(r"\| `(\S+)` .*`([0-9a-f]{64})` \|", (VENDOR / "README.md").read_text())
    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name, _ in found} == dict(found)
    assert NIIVUE.removeprefix("vendor/") in dict(found)
    assert "BSD 2-Clause" in (VENDOR / "LICENSE.niivue").read_text()
