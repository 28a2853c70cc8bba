"""Values planted into volumes, NIfTI files, videos, pictures: none is in what ingest, tracking, SEG, audit and refusals leave."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import nibabel
import numpy as np
import pytest
import yaml

pytest.importorskip("pydicom")
pytest.importorskip("av")
pytest.importorskip("torch")

from numcodecs.zstd import Zstd

from flows.artifacts import overview_markdown, refused_markdown
from flows.task import open_invocation
from pipelines.cube.store import open_cube
from pipelines.privacy.folder import read_manifest
from tests.unit.privacy import planted_series as series
from tests.unit.privacy.conftest import Left
from tests.unit.privacy.planted import Canaries
from tests.unit.privacy.planted_masks import masks_of, seg_masks
from tests.unit.privacy.searching import found_in
from tests.unit.privacy.test_canaries_of_run import planted_folder

pytestmark = pytest.mark.slow
AFFINE = np.array([[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1.0]])  # of the slices, in RAS
Maker = Callable[[Path, Canaries], Path]


def planted_clip(root: Path, canaries: Canaries) -> Path:
    planted_folder(root / canaries.text(), canaries)
    return next(root.iterdir())


COUNTS_OF_SR = {series.classic_volumes: 3, series.enhanced_volumes: 3, planted_clip: 1}  # of others there is none
FORECAST = {
    "samples": {"variables": [{"name": "v", "formula": "band", "bands": ["intensity"]}], "context": 2, "horizon": 1},
    "split": {"block_px": 8, "buffer_px": 0, "validation_from": "9 s", "test_from": "13.5 s"},
    "model": {"hidden": [2], "baseline": "persistence"},
    "training": {"epochs": 1, "accelerator": "cpu"},
    "evaluation": {"baselines": ["persistence"], "publish": "network"},
}


def written(left: Left, kind: str, path: Path, band: str = "intensity", **source: object) -> Path:
    """A config beside the originals, which is not searched."""
    variables = {"variables": [{"name": "v", "formula": "band", "bands": [band]}], "context": 2, "horizon": 1}
    content = {"name": "one", "task": "forecast", "source": {"kind": kind, "path": str(path), **source}, **FORECAST}
    privacy = {"key_file": str(left.key), "burned_in": "checked"}
    config = left.path.parent / f"{kind}.yaml"
    config.write_text(yaml.safe_dump({**content, "samples": variables, "privacy": privacy, "cube": {"chunk_px": 64}}))
    return config


@pytest.mark.parametrize(
    ("kind", "make", "times", "band"),
    [
        ("dicom", series.classic_volumes, 3, "intensity"),
        ("dicom", series.enhanced_volumes, 3, "intensity"),
        ("nifti", series.nifti_visits, len(series.DATES), "intensity"),
        ("video", series.video, 12, "gray"),
        ("images", series.pictures, len(series.DATES), "gray"),
    ],
    ids=["classic", "enhanced", "visits", "video", "pictures"],
)
def test_no_planted_value_is_left_by_ingest(kind: str, make: Maker, times: int, band: str, left: Left) -> None:
    path = make(left.root, left.canaries)
    assert len(set(left.canaries.planted)) > 1000
    source = {"pattern": next(path.glob("*.gz")).name.split("_")[0] + "_{date:%Y%m%d}.nii.gz"} if kind == "nifti" else {}
    if kind == "images":
        source = {"pattern": "*_{date:%Y%m%d}.*"}
    config = written(left, kind, path, band, **source)
    left.forget()
    key = ("--key", left.key, "--checked")
    audited = left.call("deidentify", path, "--audit", "--json", *key)
    answer = json.loads(left.outputs[-3])
    assert kind != "images" or left.call("ingest", config, "--dry-run") in (0, 3), left.outputs[-3:]
    assert list(left.path.iterdir()) == []  # an audit leaves nothing
    assert audited == (3 if answer["refused"] else 0)
    assert left.call("ingest", config, "--quarantine", "held") == audited, left.outputs[-3:]
    assert left.call("info", "runs/one/cube") == left.call("check", "runs/one/cube") == 0
    cube = open_cube("runs/one/cube")
    assert cube.sizes["time"] == times
    assert cube.attrs["driftline_privacy"] == "read from a de-identified copy"
    assert left.call("ingest", "runs/one/config.yaml") == 0, left.outputs[-3:]  # without the originals
    assert left.call("deidentify", path, "copy", *key) == audited
    assert left.call("ingest", config, "--set", f"source.path={left.root / left.canaries.text()}") == 2
    context = open_invocation(str(config), [])
    stored = [json.dumps(cube.attrs, default=str), *(str(cube[name].values) for name in ("scene_id", "source", "time"))]
    assert left.found(*stored, overview_markdown(context, "done"), refused_markdown(context.folder)) == {}
    counted = [one for one in read_manifest(left.path / "copy") if one["status"] == "copied"]
    assert answer["copied"] == len(counted)
    assert len({Path(one["target"]).parts[0] for one in counted}) == 1  # one patient


REPEATED = pytest.mark.exhaustive  # their files: test_canaries_of_series


@pytest.mark.parametrize(
    ("kind", "make", "band"),
    [
        ("dicom", series.classic_volumes, "intensity"),
        ("dicom", series.enhanced_volumes, "intensity"),
        pytest.param("dicom", planted_clip, "intensity", marks=REPEATED),
        pytest.param("nifti", series.nifti_series, "intensity", marks=REPEATED),
        pytest.param("video", series.video, "gray", marks=REPEATED),
        pytest.param("images", series.pictures, "gray", marks=REPEATED),
    ],
    ids=["classic", "enhanced", "cine", "nifti", "video", "pictures"],
)
def test_no_planted_value_is_left_by_tracks_of_a_run(kind: str, make: Maker, band: str, left: Left) -> None:
    """Tables, pictures, pages, SEG and SR of masks whose own files hold values too."""
    source = {"pattern": "*_{date:%Y%m%d}.*"} if kind == "images" else {}
    config = written(left, kind, make(left.root, left.canaries), band, **source)
    assert left.call("ingest", config) in (0, 3), left.outputs[-3:]
    track, given = left.path / "runs/one/track", left.root / "masks"
    for masks in masks_of(open_cube("runs/one/cube"), given, left.canaries):
        left.forget()
        assert left.call("track", masks, "--run", "runs/one", "--class", "1=lesion") == 0, left.outputs[-3:]
        assert left.found() == {}
    count = COUNTS_OF_SR.get(make, 0)
    assert (track / "key_images.png").is_file()
    assert len(list((track / "sr").glob("*.dcm"))) == len(list((track / "seg-objects").glob("*.dcm"))) == count
    if count:
        masks = seg_masks(track / "seg", given, left.canaries)
        left.forget()
        assert left.call("track", masks, "--run", "runs/one", "--made-by", "MANUAL") == 0, left.outputs[-3:]
    assert left.found() == {}


def test_no_planted_value_is_left_by_a_forecast_tracks_and_segmentations(left: Left) -> None:
    """A run over a NIfTI series, whose page shows its volumes; masks of a DICOM series as SEG, and their tracks."""
    config = written(left, "nifti", series.nifti_series(left.root / "a", left.canaries))
    scans = series.classic_volumes(left.root / "b", left.canaries)
    masks = scans / f"{left.canaries.text()}.nii.gz"
    values = np.zeros((5, 6, 4, 3), np.uint8)
    values[1:3, 1:4, 1:3] = 1
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), masks)
    left.forget()
    assert left.call("run", config) == 0, left.outputs[-3:]
    assert (left.path / "runs/one/products/viewer.html").is_file()
    assert left.call("deidentify", scans, "copy", "--checked", "--key", left.key) == 3
    exported = left.call("export-seg", masks, "--source", "copy", "--class", "1=lesion", "--out", "seg")
    assert exported == 0, left.outputs[-3:]
    assert left.call("track", "seg", "--out", "tracks") == left.call("track", masks, "--out", "more") == 0, left.outputs[-3:]
    assert left.found() == {}


def test_messages_on_what_is_refused_name_nothing(left: Left) -> None:
    clip = series.video(left.root, left.canaries)
    config = written(left, "video", clip.parent, "gray")
    (clip.parent / f"{left.canaries.text()}.mkv").write_bytes(clip.read_bytes()[:-500])
    left.forget()
    assert left.call("ingest", config) == 2
    assert "2 clips" in "".join(left.outputs)
    is_first = sorted(clip.parent.iterdir()).index(clip) == 0
    assert left.call("ingest", config, "--set", f"source.clip='#{2 if is_first else 1}'") == 2
    assert "truncated" in "".join(left.outputs[-3:])
    assert left.call("ingest", config, "--set", "privacy.burned_in=quarantine", "--set", "source.clip='#1'") == 2
    assert "may show text" in "".join(left.outputs[-3:])
    assert left.found() == {}
    assert not [path for path in left.path.rglob("*") if path.suffix in (".mkv", ".partial")]


def zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", data)
    return packed.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        bytes.lower,
        lambda data: quote(data.decode(), safe="").replace("C", "%43").encode(),
        lambda data: data[:3] + b"-" + data[3:7] + b" " + data[7:],
        base64.b64encode,
        lambda data: b'"x/' + base64.urlsafe_b64encode(b"ab?>" + data) + b'"',
        lambda data: data.hex().encode(),
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.decode().encode("utf-32-be"),
        lambda data: b"head" + gzip.compress(data) + b"tail",
        lambda data: b"head" + zlib.compress(data),
        lambda data: Zstd().encode(data),
        lambda data: base64.b64encode(gzip.compress(data)),
        zipped,
    ],
)
def test_the_search_finds_what_is_written_otherwise(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / "file").write_bytes(change(canaries.text().encode()))
    assert list(found_in(canaries, [], [tmp_path])) == canaries.planted


def test_the_search_finds_names_and_dates(tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / canaries.text().lower()).mkdir()
    (tmp_path / "b").write_text(f"{canaries.keep('19590101')[:4]}-01-01")
    assert set(found_in(canaries, [], [tmp_path])) == set(canaries.planted)
