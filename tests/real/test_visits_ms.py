"""Visits of the shared patients with multiple sclerosis: what their transforms mean, and movements that are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flows import stage
from flows.task import Invocation, open_invocation, remembering_folder
from flows.visits import open_patient, patients_of
from pipelines.errors import RequestError
from pipelines.registration.resampling import resample
from pipelines.registration.rigid import register_rigid
from pipelines.registration.volumes import Volume, foreground, surface_points
from pipelines.sources.visits import load_visit
from tests.made_visits import rigid

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.slow
SOURCE = {
    "kind": "visits",
    "pattern": "{patient}/study{visit}_FLAIR.nii.gz",
    "grid": "{patient}/gt.nii.gz",
    "transforms": "{patient}/study{visit}_FLAIR_to_common_space.txt",
    "brain": "{patient}/brainmask.nii.gz",
    "patients": ["patient12"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "keys"))
    return shared_data("medical/ms-lesions")


def ingest(folder: Path, **registration: str) -> tuple[Invocation, dict[str, Any]]:
    content = {"name": "ms", "task": "follow_up", "source": {**SOURCE, "path": str(folder)}, "registration": registration}
    Path("ms.yaml").write_text(yaml.safe_dump(content))
    context = open_invocation("ms.yaml")
    with remembering_folder(context):
        return context, stage.carry_out(context, "ingest")


@pytest.mark.exhaustive
def test_the_given_transforms_map_from_the_common_space_to_the_visit(folder: Path) -> None:
    context, record = ingest(folder)
    [name] = patients_of(context)
    figures = record["sites"][name]["registration"]["visits"][1]["figures"]
    assert record["refused"] == []
    assert (figures["information"] > 1.2, figures["edge_overlap"] > 0.8, figures["residual_mm"] < 0.7) == (True, True, True)
    assert figures["information"] > figures["mirrored"] + 0.1
    patient = open_patient(context, name)
    assert patient.grid.shape == (60, 352, 334)
    both = patient.brain_ZYX & np.isfinite(patient.images_TZYX).all(axis=0)
    assert np.corrcoef(*patient.images_TZYX[:, both])[0, 1] > 0.95
    with pytest.raises(RequestError, match=r"set registration\.maps: to_visit"):
        ingest(folder, maps="to_common")


def test_a_known_movement_of_a_real_volume_is_found_to_a_third_of_a_millimetre(folder: Path) -> None:
    first, second = (load_visit(folder / f"patient12/study{k}_FLAIR.nii.gz", "visit") for k in (1, 2))
    moved = rigid((6, -4, 8), (4, -3, 6))
    noise = np.random.default_rng(0).normal(0, 8, second.values_ZYX.shape)
    values_ZYX = resample(first.values_ZYX, first.grid, np.linalg.inv(moved), second.grid, "linear") + noise
    found = register_rigid(first, Volume(values_ZYX.astype(np.float32), second.grid))
    points, apart = surface_points(foreground(first), first.grid), found - moved
    assert np.linalg.norm(points @ apart[:3, :3].T + apart[:3, 3], axis=1).max() < 0.3
