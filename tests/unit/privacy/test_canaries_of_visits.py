"""Values planted into visits of patients: none is in what `follow_up` leaves (cubes, registration, tables, pages, report)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("SimpleITK")
pytest.importorskip("nibabel")

from pipelines.follow_up.decisions import COLUMNS
from pipelines.registration.transforms import LPS_RAS, format_transform
from tests.made_visits import Head, brain_on, grid_of, made_visit, rigid
from tests.unit.privacy.conftest import Left
from tests.unit.privacy.planted import Canaries
from tests.unit.privacy.planted_masks import planted_nifti

pytestmark = [pytest.mark.slow, pytest.mark.torch]
MATRICES = [rigid(), rigid((3, -2, 4), (2, 0, -3)), rigid((-2, 1, 0), (0, 3, 0))]
FLAIR = "{patient}/study{visit}_FLAIR.nii.gz"


def planted_visits(root: Path, canaries: Canaries) -> list[str]:
    """Two patients of three visits: images, sidecars, transforms, brain, lesions, reference. What their folders are called."""
    patients, grid, own = [canaries.text() for _ in range(2)], grid_of(), grid_of((24, 54, 46))
    affine, of_visit = (LPS_RAS @ np.vstack([one.matrix_of_centres, [0, 0, 0, 1]]) for one in (grid, own))
    lesions = np.zeros((len(MATRICES), *grid.shape), np.uint8)
    for n in range(len(MATRICES)):
        lesions[n, 9:12, 20:24, 18 : 20 + 2 * n] = 1
    for seed, patient in enumerate(patients):
        folder = root / patient
        for n, matrix in enumerate(MATRICES, 1):
            visit = np.round(made_visit(Head(seed), matrix, own, seed=n).values_ZYX).astype(np.int16)
            planted_nifti(folder / f"study{n}_FLAIR.nii.gz", visit, of_visit, canaries)
            planted_nifti(folder / f"study{n}_lesions.nii.gz", lesions[n - 1], affine, canaries)
            sidecar = {"PatientID": patient, "PatientName": canaries.text(), canaries.text(): [canaries.text()]}
            (folder / f"study{n}_FLAIR.json").write_text(json.dumps(sidecar))
            head, *rest = format_transform(matrix).decode().splitlines()
            lines = [head, f"# {canaries.text()}", *rest, f"#{canaries.text()}", ""]
            (folder / f"study{n}_to_common.txt").write_text("\n".join(lines))
        planted_nifti(folder / "brain.nii.gz", brain_on(grid).astype(np.uint8), affine, canaries)
        planted_nifti(folder / "change.nii.gz", lesions[0] ^ lesions[-1], affine, canaries)
        (folder / f"{canaries.text()}.txt").write_text(canaries.text())
    return patients


def config_of(root: Path, key: Path, patients: list[str], kind: str) -> dict[str, Any]:
    source = {"kind": "visits", "path": str(root), "pattern": FLAIR, "patients": patients}
    source |= {"brain": "{patient}/brain.nii.gz", "grid": "{patient}/brain.nii.gz"}
    source |= {"transforms": "{patient}/study{visit}_to_common.txt"} if kind == "given" else {}
    return {
        "name": "ms", "task": "follow_up", "source": source, "registration": {"kind": kind},
        "privacy": {"key_file": str(key), "burned_in": "checked"},
        "lesions": {"masks": "{patient}/study{visit}_lesions.nii.gz"},
        "evaluation": {"reference": "{patient}/change.nii.gz", "resamples": 200},
    }  # fmt: skip


def write_decisions(folder: Path, table: Path, canaries: Canaries) -> None:
    """Decisions of a reader on the first lesion of a table, on a place without one, and on somebody under an own name."""
    with table.open(newline="") as file:
        row = next(csv.DictReader(file))
    own = {name: row.get(name, "") for name in COLUMNS} | {"decision": "confirm", "new_x_mm": "", "new_y_mm": "", "new_z_mm": ""}
    lines = [own, own | {"x_mm": "900", "event": canaries.text()}, own | {"patient": canaries.text()}]
    lines.append(own | {"from_visit": canaries.text(), "to_visit": canaries.text()})
    folder.mkdir(parents=True)
    with (folder / f"{canaries.text()}.csv").open("w", newline="") as file:
        made = csv.DictWriter(file, [*COLUMNS, "remark"])
        made.writeheader()
        made.writerows(one | {"remark": canaries.text()} for one in lines)


@pytest.mark.parametrize("kind", ["given", pytest.param("rigid", marks=pytest.mark.exhaustive)])
def test_no_planted_value_is_left_by_a_follow_up(kind: str, left: Left) -> None:
    originals = left.root / left.canaries.text()
    patients = planted_visits(originals, left.canaries)
    content = config_of(originals, left.key, patients, kind)
    config = left.path.parent / "ms.yaml"
    config.write_text(yaml.safe_dump(content))
    left.forget()
    assert left.call("run", config) == 0, left.outputs[-3:]
    assert left.call("run", "runs/ms/config.yaml") == 0, left.outputs[-3:]  # without the originals
    tables = sorted((left.path / "runs/ms/products").glob("P*-lesions.csv"))
    assert len(tables) == 2
    write_decisions(left.root / "readers", tables[0], left.canaries)
    config.write_text(yaml.safe_dump({**content, "decisions": str(left.root / "readers")}))
    assert left.call("run", config) == 0, left.outputs[-3:]
    assert left.call("report", config) == 0, left.outputs[-3:]
    assert "confirmed" in tables[0].read_text()
    assert left.found() == {}


def test_messages_on_visits_that_are_refused_name_nothing(left: Left) -> None:
    originals = left.root / left.canaries.text()
    patients = planted_visits(originals, left.canaries)
    first, second = (originals / patient for patient in patients)
    whole = (first / "study2_FLAIR.nii.gz").read_bytes()
    (first / "study2_FLAIR.nii.gz").write_bytes(whole[:-500])
    (first / "study3_to_common.txt").write_text(f"#Insight Transform File V1.0\n{left.canaries.text()}: 1\n")
    (second / "study1_lesions.nii.gz").write_bytes(b"no")
    config = left.path.parent / "ms.yaml"
    config.write_text(yaml.safe_dump(config_of(originals, left.key, patients, "given")))
    left.forget()
    assert left.call("run", config) in (2, 3), left.outputs[-3:]
    config.write_text(yaml.safe_dump(config_of(originals, left.key, [*patients, left.canaries.text()], "given")))
    assert left.call("ingest", config) == 2
    config.write_text(yaml.safe_dump(config_of(originals / "none", left.key, patients, "given")))
    assert left.call("ingest", config) == 2
    assert left.found() == {}
