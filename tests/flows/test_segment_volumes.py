"""A class map of volumes over time, from a made dynamic contrast series whose truth is known to its NIfTI files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from flows.planning import make_plan
from flows.task import open_invocation
from models.segmenter import build_segmenter
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import head_snapshot, open_cube
from pipelines.errors import ConfigError, RequestError
from pipelines.inference.class_map import MapWork, finished_maps, mapped_span
from pipelines.inference.staged_work import make_all
from pipelines.products.drawn_volumes import made_grid, write_series
from pipelines.products.nifti import affine_ras, write_nifti
from pipelines.samples.drawn_uptake import TISSUES, Uptake, draw_uptake
from pipelines.samples.variables import Variable
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource
from tests.flows.small_runs import perform

SHAPE, TIMES, NAMES = (6, 24, 26), 16, list(TISSUES)
TINY: dict[str, Any] = {
    "name": "uptake",
    "task": "segment",
    "source": {"kind": "nifti", "path": "mueller-bold.nii.gz", "bands": ["intensity"]},
    "cube": {"chunk_px": 64, "workers": 1},
    "privacy": {"key_file": "key"},
    "labels": {"kind": "raster", "path": "mueller-seg.nii.gz", "codes": dict(enumerate(NAMES, start=1)), "classes": NAMES},
    "split": {"block_px": 6, "folds": 2},
    "model": {"kind": "gru", "hidden": 16},
    "training": {"epochs": 50, "windows": 256, "batch": 32, "accelerator": "cpu", "learning_rate": 0.02, "patience": 50,
                 "augment": {"early": 0, "hidden_dates": 0}},
    "evaluation": {"margin": 0.05, "references": ["nearest_mean_curve"], "must_equal": ["nearest_mean_curve"]},
    "prediction": {"tile_px": 16},
}  # fmt: skip


@pytest.fixture
def made(here: Path) -> Uptake:
    """The series and its labels in the working folder, in files that name a patient."""
    uptake = draw_uptake(SHAPE, times=TIMES, step_s=9.0, noise=6.0, labelled=0.3)
    write_series(Path("mueller-bold.nii.gz"), uptake.signal_TDHW, 9.0)
    labels = nibabel.Nifti1Image(uptake.labels_DHW.T, affine_ras(made_grid(SHAPE)))
    labels.header["descrip"] = b"Mueller, Erna"
    nibabel.save(labels, "mueller-seg.nii.gz")
    return uptake


def carry_out(verb: str, *overrides: str, **changes: Any) -> dict[str, Any]:
    Path("uptake.yaml").write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return perform(open_invocation("uptake.yaml", overrides), verb)


def volume(name: str) -> np.ndarray:
    """(z, y, x), or (k, z, y, x)."""
    return np.asarray(nibabel.load(f"runs/uptake/products/{name}.nii.gz").dataobj).T


def test_a_curve_tells_the_tissue_of_every_voxel_and_the_products_lie_where_the_series_lies(made: Uptake) -> None:
    carry_out("run")
    folder, mapped = Path("runs/uptake"), volume("class")
    assert np.mean(mapped == made.truth_DHW) > 0.9
    for name in ("class", "confidence", "probability", "mean"):
        image = nibabel.load(folder / f"products/{name}.nii.gz")
        np.testing.assert_allclose(image.affine, nibabel.load("mueller-bold.nii.gz").affine, atol=1e-5)
    p_KDHW = volume("probability")
    np.testing.assert_allclose(p_KDHW.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(p_KDHW.argmax(axis=0) + 1, mapped)
    np.testing.assert_array_equal(p_KDHW.max(axis=0), volume("confidence"))
    np.testing.assert_allclose(volume("mean"), made.signal_TDHW.mean(axis=0), rtol=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    voxel = abs(np.linalg.det(affine_ras(made_grid(SHAPE))[:3, :3]))
    rows = {row["class"]: row for row in summary["found"]["volumes"]}
    for code, name in enumerate(NAMES, start=1):
        assert rows[name]["mapped_mm3"] == pytest.approx(voxel * np.count_nonzero(mapped == code))
        assert rows[name]["low"] < voxel * np.count_nonzero(made.truth_DHW == code) < rows[name]["high"]
    assert summary["products"]["collection"] == "products/index.json"
    index = json.loads((folder / "products/index.json").read_text())
    assert {one["file"] for one in index["files"]} == {path.name for path in (folder / "products").iterdir()} - {"index.json"}
    assert (folder / "quicklook.png").exists()
    assert carry_out("run")["skipped"]
    carry_out("predict", "prediction.tile_px=64")
    np.testing.assert_allclose(volume("probability"), p_KDHW, rtol=0, atol=1e-5)  # tiled = whole
    texts = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".yaml", ".html", ".md", ".csv")]
    written = "".join(path.read_text(errors="replace") for path in texts).lower()
    assert "mueller" not in written  # neither the series nor its labels
    assert "1800-01-01" not in (folder / "report.html").read_text() + (folder / "summary.json").read_text()
    assert nibabel.load(folder / "labels.nii.gz").header["descrip"] == b""


def test_networks_over_space_learn_from_voxels_too_and_a_plan_knows_the_slices(made: Uptake) -> None:
    training = {**TINY["training"], "epochs": 1, "windows": 16, "batch": 8, "window_px": 8}
    model = {"kind": "unet_convgru", "widths": [4, 8]}
    alone = {"references": [], "must_equal": []}
    carry_out("ingest", model=model, training=training, evaluation=alone)
    config = open_invocation("uptake.yaml")
    plan = make_plan(config.run, "run")
    assert (plan["extent"]["z"], plan["extent"]["dates"]) == (SHAPE[0], TIMES)
    perform(config, "train")
    perform(open_invocation("uptake.yaml"), "evaluate")
    trained = json.loads(Path("runs/uptake/model/model.json").read_text())["segmenter"]["members"][0]
    assert (trained["axes"], trained["kernel"]) == (3, 1)
    assert trained["year_days"] == pytest.approx((TIMES - 1) * 9 / 86_400)
    evaluation = json.loads(Path("runs/uptake/evaluation.json").read_text())
    assert "blocks of 6 x 6 x 6 voxels" in evaluation["protocol"]


def test_what_has_no_voxels_is_refused(made: Uptake) -> None:
    with pytest.raises(ConfigError, match="is for images, and the source has volumes"):
        carry_out("ingest", model={"kind": "siamese_dcrn"})
    with pytest.raises(ConfigError, match="have a place on Earth, and volumes have none"):
        carry_out("ingest", labels={"kind": "points", "path": "mueller-seg.nii.gz"})
    with pytest.raises(ConfigError, match="frames without a place"):
        carry_out("ingest", source={"kind": "video", "path": "mueller-seg.nii.gz", "bands": ["intensity"]})
    write_nifti(Path("mueller-seg.nii.gz"), [made.labels_DHW], made_grid(SHAPE), (), None, dtype="|u1")
    carry_out("ingest")
    Path("mueller-seg.nii.gz").write_bytes(b"no labels")
    with pytest.raises(RequestError, match="the labels cannot be used: ") as error:
        carry_out("train")
    assert "mueller" not in str(error.value)


# ---------------------------------------------------------------- tiles and memory, without training


def cube_of(folder: Path, shape: tuple[int, ...], times: int) -> str:
    """A cube of noise."""
    folder.mkdir()
    values = np.random.default_rng(0).normal(100, 10, (times, *shape)).astype("float32")
    write_series(folder / "series.nii.gz", values, 2.0)
    uri = str(folder / "cube")
    ingest(
        NiftiSource(folder / "series.nii.gz", Band("t1")), None, uri, None, IngestSettings(chunk_px=64, workers=1, commit_mb=16)
    )
    return uri


def work_of(uri: str, kind: str, folder: Path, tile_px: int) -> MapWork:
    size = {"hidden": 8} if kind == "gru" else {"widths": (4, 4), "kernel": 1}
    segmenter = build_segmenter({"kind": kind, "bands": 1, "axes": 3, "year_days": 1e-4, **size}, ("a", "b", "c"), 2, 0).eval()
    for member in segmenter.members:
        for weight in member.parameters():
            weight.data += 0.3  # so that classes differ from voxel to voxel
    segmenter.mean_MC[:], segmenter.std_MC[:] = 100, 10
    mapped = mapped_span(open_cube(uri), (uri, head_snapshot(uri)), None, None, (Variable("t1", "band", ("t1",)),))
    return MapWork({"": mapped}, segmenter, "model", tile_px, str(folder))


@pytest.mark.parametrize("kind", ["gru", "unet_convlstm"])
def test_tiles_are_the_whole_along_every_axis(kind: str, tmp_path: Path) -> None:
    uri = cube_of(tmp_path / "made", (34, 30, 31), 3)
    found = []
    for name, tile_px in (("whole", 80), ("tiled", 16)):
        work = work_of(uri, kind, tmp_path / name, tile_px)
        make_all(work)
        (one,) = finished_maps(work, tmp_path / name).values()
        found.append(np.stack(one.probability_KHW))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)
    assert found[0].std() > 1e-3


@pytest.mark.exhaustive  # mapped as forecasts are, whose memory test_volumes measures
@pytest.mark.slow
def test_the_memory_of_a_class_map_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    peaks = []
    for name, shape in (("small", (24, 64, 64)), ("large", (48, 128, 128))):
        script = [sys.executable, "-c", MEASURED, str(tmp_path / name), *map(str, shape)]
        peaks.append(float(subprocess.run(script, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.2 * peaks[0], peaks


MEASURED = """
import resource, sys
from pathlib import Path
from tests.flows.test_segment_volumes import *
folder, shape = Path(sys.argv[1]), tuple(map(int, sys.argv[2:]))
work = work_of(cube_of(folder, shape, 4), "gru", folder / "staging", 16)
make_all(work)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
