"""OSCD through the command line with a training of seconds: the traps of its files, the reference's figure, the products."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from pipelines.cube.store import open_cube

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("training.epochs=1", "training.windows=24", "model.widths=[4, 6]")
CHANGED_SHARE = {"aguasclaras": 0.0164, "bercy": 0.0074, "bordeaux": 0.0100, "paris": 0.0029, "rennes": 0.0258}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def oscd(tmp_path_factory: pytest.TempPathFactory, shared_data) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "flows.cli", "run", str(ROOT / "configs" / "oscd.yaml"), "--json", "--even-if-worse"]
    for change in (f"source.path={shared_data('satellite/oscd')}", f"runs={folder}", *QUICK):
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["model_hash"]
    return folder / "oscd"


def test_dates_are_those_of_the_file_and_labels_lie_on_the_first_scene(oscd: Path) -> None:
    cube = open_cube(str(oscd / "cubes" / "rennes"))
    assert [str(day)[:10] for day in cube["time"].values] == ["2015-08-21", "2017-06-21"]  # the names say 2016-07-06
    for name, share in CHANGED_SHARE.items():
        label = np.load(oscd / "labels" / f"{name}.npy")
        assert np.mean(label[label != 255] == 1) == pytest.approx(share, abs=2e-4)


def test_sites_that_touch_are_left_out_together_and_the_reference_is_the_known_one(oscd: Path) -> None:
    evaluation = json.loads((oscd / "evaluation.json").read_text())
    assert evaluation["details"]["groups"]["bercy+paris"] == ["bercy", "paris"]
    f1 = {name: method["f1"] for name, method in evaluation["methods"].items()}
    assert f1["change_vector"] == pytest.approx(0.34, abs=0.02)  # measured apart from this project: 0.343
    assert f1["ir_mad, chi square, 1 %"] < 0.06
    assert f1["change_vector_plain, Otsu"] < 0.2
    assert f1["siamese_dcrn"] > 0.25  # hardly trained, it is little else than the index
    labelled = evaluation["details"]["area"]["rennes"]
    assert labelled["estimate"]["low"] < labelled["labelled_m2"] < labelled["estimate"]["high"]


def test_products_open_elsewhere(oscd: Path) -> None:
    for layer in ("mask", "probability"):
        assert cog_validate(oscd / "products" / f"bordeaux-{layer}.tif")[0]
    with rasterio.open(oscd / "products" / "bordeaux-mask.tif") as mask:
        assert mask.shape == (517, 461)
        assert mask.crs.to_epsg() == 4326
        assert set(np.unique(mask.read(1))) <= {0, 1, 255}
        assert mask.colormap(1)[1][:3] != mask.colormap(1)[0][:3]
    assert (oscd / "report.html").stat().st_size > 100_000
