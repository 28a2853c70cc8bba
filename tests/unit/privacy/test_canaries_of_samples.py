"""Values planted into files that are samples, their names and their labels: none is in what runs on samples leave."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("pydicom")
pytest.importorskip("nibabel")
pytest.importorskip("av")
pytest.importorskip("torch")

from pipelines.samples.sample_store import read_table
from tests.unit.privacy import planted_series as series
from tests.unit.privacy.conftest import Left
from tests.unit.privacy.planted import Canaries
from tests.unit.sources.clips import make_clip

pytestmark = pytest.mark.slow
FLAT = {"frames": {"count": 3, "size": [16, 16]}, "model": {"kind": "cnn_gru", "hidden": 2, "widths": [2]}}
DEEP = {"frames": {"count": 1, "size": [4, 8, 8]}, "model": {"kind": "volume_gru", "hidden": 2, "widths": [2]}}


def written(left: Left, path: Path, unit: str, network: dict[str, object], **more: object) -> Path:
    """A config beside the originals, which is not searched."""
    content = {
        "name": "one",
        "task": "classify",
        "source": {"kind": "files", "path": str(path), "unit": unit},
        "split": {"folds": 2, "validation_parts": 2},
        "training": {"epochs": 1, "accelerator": "cpu"},
        "evaluation": {"references": ["commonest", "nearest_mean"]},
        "privacy": {"key_file": str(left.key), "burned_in": "checked"},
    }
    config = left.path.parent / "samples.yaml"
    config.write_text(yaml.safe_dump({**content, **network, **more}))
    return config


@pytest.mark.parametrize(
    ("make", "unit", "network", "samples", "refused"),
    [
        (series.clips, "file", FLAT, 8, 0),
        pytest.param(series.volumes_as_files, "file", DEEP, 8, 0, marks=pytest.mark.exhaustive),
        pytest.param(series.folders_of_pictures, "folder", FLAT, 8, 0, marks=pytest.mark.exhaustive),
        (series.folders_of_dicom, "folder", DEEP, 8, 1),
    ],
    ids=["clips", "NIfTI", "pictures", "DICOM"],
)
def test_no_planted_value_is_left_by_a_run_on_samples(
    make: Callable[[Path, Canaries], list[str]],
    unit: str,
    network: dict[str, object],
    samples: int,
    refused: int,
    left: Left,
) -> None:
    folder = left.root / left.canaries.text()
    table = series.table_of(make(folder, left.canaries), left.path.parent / f"{left.canaries.text()}.csv", left.canaries)
    assert len(set(left.canaries.planted)) > 1000
    config = written(left, folder, unit, network, labels={"kind": "table", "path": str(table)})
    left.forget()
    assert left.call("ingest", config, "--dry-run") in (0, 3), left.outputs[-3:]
    assert left.call("run", config, "--even-if-worse", "--even-if-confounded") in (0, 3), left.outputs[-3:]
    assert left.call("run", "runs/one/config.yaml", "--even-if-worse", "--even-if-confounded") == 0, left.outputs[-3:]
    assert "train: up to date" in "".join(left.outputs[-3:])
    assert left.call("ingest", config, "--set", f"labels.path={left.canaries.text()}") == 2
    assert left.call("ingest", config, "--set", f"source.path={left.canaries.text()}") == 2
    assert left.call("ingest", config, "--set", "labels.columns.file=nothing") == 2
    stored = read_table("runs/one/cube")
    known = [str(getattr(stored, name)) for name in vars(stored)]
    assert left.found(*known) == {}
    with (left.path / "runs/one/products/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == samples
    assert "".join(left.outputs).count("refused, truncated") >= refused


def test_no_metadata_is_left_without_a_section(left: Left) -> None:
    """Names stay, since nobody has stated that they name patients; nothing else of the files passes."""
    folder = left.root / "clips"
    for number in range(4):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        make_clip(
            folder / "ab"[number % 2] / f"{number}.mp4",
            4,
            metadata={"title": left.canaries.text(), "comment": left.canaries.text()},
        )
    left.forget()
    config = written(left, folder, "file", FLAT, privacy=None, labels={"kind": "folders"})
    assert left.call("ingest", config) == 0, left.outputs[-3:]
    assert left.found() == {}
    assert "write a section `privacy`" in "".join(left.outputs)


def test_medical_files_are_refused_until_somebody_states_whose_they_are(left: Left) -> None:
    folder = left.root / "volumes"
    series.volumes_as_files(folder, left.canaries)
    left.forget()
    config = written(left, folder, "file", DEEP, privacy=None, labels={"kind": "folders"})
    assert left.call("ingest", config) == 2
    assert "images of patients" in "".join(left.outputs)
    assert left.call("ingest", config, "--set", "privacy={deidentify: false, reason: made}") == 0, left.outputs[-3:]
