"""Series of a patient through a whole run: made NIfTI and DICOM files, and a real functional series."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from configs.load import load_run
from flows.stage import carry_out
from flows.task import open_invocation
from flows.track import track
from models.baselines.pointwise import Persistence
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.inference.job import Prediction, plan_job
from pipelines.inference.predict import predict
from pipelines.samples.plan import Sampling
from pipelines.samples.variables import Variable
from pipelines.samples.windows import steps_from
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.proposal import propose_run

AFFINE = nibabel.affines.from_matvec(np.array([[0, 0, -4], [2, 0.1, 0], [-0.1, 2, 0]]), [31.5, -20, 7])  # sagittal, oblique


def write_series(path: Path, times: int = 12) -> np.ndarray:
    """A NIfTI series (20, 18, 4, t) of 1.5 s whose values rise by 10 a frame; its values."""
    values = np.random.default_rng(0).normal(500, 50, (20, 18, 4, 1)) + 10 * np.arange(times)
    image = nibabel.Nifti1Image(values.astype("int16"), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 1.5
    nibabel.save(image, path)
    return np.asarray(image.dataobj)


def carry(config: dict[str, Any] | str, **options: bool) -> dict[str, Any]:
    return carry_out(open_invocation(config, [], **options), "run")


def test_a_series_without_dates_goes_in_and_its_forecast_comes_out(tmp_path: Path) -> None:
    values = write_series(tmp_path / "bold.nii.gz")
    config = tmp_path / "run.yaml"
    proposed = propose_run(tmp_path / "bold.nii.gz", "bold", written_as="bold.nii.gz")
    proposed = proposed.replace("[16]", "[4]").replace("epochs: 20", "epochs: 1").replace(", gradient_boosting]", "]")
    config.write_text(f"{proposed}runs: {tmp_path / 'runs'}\n")
    assert load_run(str(config)).split.test_from.year == 1800
    result = carry(str(config), even_if_worse=True)
    folder = tmp_path / "runs" / "bold"
    assert result["target_utc"] == ["18 s"]
    index = json.loads((folder / "products" / "index.json").read_text())
    assert {one["file"] for one in index["files"]} == {path.name for path in (folder / "products").iterdir()} - {"index.json"}
    came, left = nibabel.load(tmp_path / "bold.nii.gz"), nibabel.load(folder / "products" / "forecast_intensity.nii.gz")
    np.testing.assert_allclose(left.affine, came.affine, rtol=0, atol=1e-6)
    assert (left.header.get_xyzt_units(), left.header["pixdim"][4], left.header["toffset"]) == (("mm", "sec"), 1.5, 18.0)
    assert np.abs(np.asarray(left.dataobj)[..., 0] - values[..., -1]).mean() < 30
    assert (folder / "products" / "measurements.csv").read_text().splitlines()[1].startswith("16.5 s,0,observed,intensity,,1440,")
    observed = np.asarray(nibabel.load(folder / "products" / "observed_intensity.nii.gz").dataobj)
    np.testing.assert_array_equal(observed, values[..., -observed.shape[-1] :])
    page = (folder / "products" / "viewer.html").read_text(encoding="utf-8")
    for name in ("forecast", "observed", "lower", "upper"):
        assert base64.b64encode((folder / "products" / f"{name}_intensity.nii.gz").read_bytes()).decode() in page
    assert '<a href="products/viewer.html">' in (folder / "report.html").read_text()
    assert (folder / "planes.png").exists()
    assert (folder / "quicklook.png").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["products"]["collection"] == "products/index.json"
    shown = "".join(path.read_text() for path in (folder / "report.md", folder / "config.yaml", folder / "summary.json"))
    assert not re.search(r"1[89][07]0-01-01", shown)  # neither 1800 nor 1970 for a person to see


def test_dicom_files_are_read_from_a_deidentified_copy(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    config = {
        "name": "scan", "runs": str(tmp_path / "runs"), "privacy": {"key_file": str(tmp_path / "key")},
        "source": {"kind": "dicom", "path": str(shared_data("medical/dicom-series")), "series": 401},
        "samples": {"variables": [{"name": "intensity", "bands": ["intensity"]}]},
        "split": {"validation_from": "2001-01-01", "test_from": "2001-01-02"},
    }  # fmt: skip
    record = carry_out(open_invocation(config, []), "ingest")
    cube = open_cube(str(tmp_path / "runs" / "scan" / "cube"))
    assert (record["added"], cube.image.shape) == (4, (4, 1, 2, 80, 80))
    assert str(cube.time.values[0])[10:19] == "T14:30:47"
    assert not str(cube.time.values[0]).startswith("2016-03-09")
    assert any("read from a de-identified copy" in note for note in record["notes"])


@pytest.mark.parametrize("step_s", [1.5, None])
def test_masks_of_volumes_are_tracked_and_their_tracks_are_nifti(tmp_path: Path, step_s: float | None) -> None:
    masks = np.zeros((20, 18, 4, 3), "uint8")
    for t in range(3):
        masks[4 : 8 + t, 5:9, 1:3, t] = 1
    image = nibabel.Nifti1Image(masks, AFFINE)
    if step_s is not None:  # else 1 of an unknown unit, as nibabel writes it
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = step_s
    nibabel.save(image, tmp_path / "masks.nii.gz")
    record = track([tmp_path / "masks.nii.gz"], tmp_path / "out")
    voxel = abs(np.linalg.det(AFFINE[:3, :3]))
    assert (record["tracks"], record["events"]) == (1, {"grown": 2, "first seen": 1})
    assert record["volume_mm3_on_last_date"] == pytest.approx(6 * 4 * 2 * voxel)
    tracks = nibabel.load(tmp_path / "out" / "tracks.nii.gz")
    np.testing.assert_array_equal(np.asarray(tracks.dataobj), masks)
    np.testing.assert_allclose(tracks.affine, AFFINE, atol=1e-6)
    assert base64.b64encode((tmp_path / "out" / "tracks.nii.gz").read_bytes()) in (tmp_path / "out" / "viewer.html").read_bytes()
    rows = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    assert rows[0].startswith(f"{'seconds' if step_s else 'step'},track_id,event,parents,volume_mm3,surface_mm2")
    assert rows[2].startswith("1.5,1,grown" if step_s else "1,1,grown")
    stated = tracks.header["pixdim"][4], tracks.header.get_xyzt_units()
    assert stated == ((1.5, ("mm", "sec")) if step_s else (0, ("mm", "unknown")))


@pytest.mark.parametrize("name", [pytest.param("brain-pcasl", marks=pytest.mark.exhaustive), "spinal-cord-fmri"])
def test_tiles_of_a_real_series_equal_the_whole(shared_data: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    source = NiftiSource(shared_data(f"medical/fmri/{name}.nii.gz"), Band("bold"))
    ingest(source, None, str(tmp_path / "cube"), None, IngestSettings())
    dataset, variable = open_cube(str(tmp_path / "cube")), Variable("bold", "band", ("bold",))
    network, scaling = ConvLSTMSettings(hidden=(2,)), Scaling((330.0,), (220.0,), ("none",), step_days=2e-5)
    forecaster = build_forecaster(Persistence(), scaling, context=2, horizon=1, network=network, axes=3)
    steps = steps_from(dataset.time.values, Sampling(), 2, 1)

    def field(folder: str, **options: int) -> np.ndarray:
        job = plan_job(dataset, "snapshot", forecaster, [variable], steps, **options)
        staged = predict(Prediction(job, dataset, forecaster, None, tmp_path / folder))
        return staged.read(staged.fields[0], slice(None))

    whole = field("whole", tile_px=128)
    np.testing.assert_allclose(field("tiled", tile_px=16, memory_mb=1), whole, rtol=0, atol=5e-3)  # of values up to 2000
