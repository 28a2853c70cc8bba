"""Visits of made patients from files to cubes: on one grid, checked, de-identified; what is wrong is left out and named."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flows import stage
from flows.task import Invocation, open_invocation, remembering_folder
from flows.verbs import info_lines
from flows.visits import files_at_hand, open_patient, patients_of
from pipelines.cube.history import describe
from pipelines.errors import ConfigError, CubeMismatch, RequestError
from pipelines.registration.resampling import resample
from tests.made_visits import Head, brain_on, grid_of, made_visit, rigid, write_nifti, write_patient

pytest.importorskip("SimpleITK")
pytest.importorskip("nibabel")
SECOND, MOVED = grid_of((24, 50, 48), (3.5, 3.7, 5.5), (8, -4, 3)), rigid((4, -6, 8), (5, -3, 7))
GIVEN = {
    "pattern": "{patient}/study{visit}_FLAIR.nii.gz",
    "grid": "{patient}/brain.nii.gz",
    "brain": "{patient}/brain.nii.gz",
    "transforms": "{patient}/study{visit}_to_common.txt",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "keys"))
    return tmp_path / "originals"


def config(folder: Path, source: dict[str, Any], **sections: object) -> Path:
    path = Path("follow.yaml")
    content = {"name": "follow", "task": "follow_up", "source": {"kind": "visits", "path": str(folder), **source}, **sections}
    path.write_text(yaml.safe_dump(content))
    return path


def ingest(path: Path) -> tuple[Invocation, dict[str, Any]]:
    context = open_invocation(path)
    with remembering_folder(context):
        return context, stage.carry_out(context, "ingest")


def test_visits_with_given_transforms_lie_on_the_common_grid_and_a_second_call_changes_nothing(folder: Path) -> None:
    write_patient(folder / "doe", [np.eye(4), MOVED], [grid_of(), SECOND], transforms=True)
    write_patient(folder / "roe", [rigid((1, 1, 1)), MOVED], [SECOND, grid_of()], head=Head(5), transforms=True)
    context, record = ingest(config(folder, GIVEN))
    assert (record["refused"], len(patients_of(context))) == ([], 2)
    again, second = ingest(Path("runs/follow/config.yaml"))  # which names the copy alone
    assert (second["skipped"], second["snapshot"]) == (True, record["snapshot"])
    for name in patients_of(again):
        patient = open_patient(again, name)
        assert patient.grid.is_aligned(grid_of())
        assert (patient.visits, patient.is_dated, patient.lesions_TZYX) == (("1", "2"), False, None)
        assert np.array_equal(patient.brain_ZYX, brain_on(grid_of()))
        head = Head() if abs(patient.images_TZYX[0] - made_visit(Head(), np.eye(4), grid_of()).values_ZYX).mean() < 5 else Head(5)
        truth_ZYX = made_visit(head, np.eye(4), grid_of(), noise=0).values_ZYX
        inner_ZYX = brain_on(grid_of((22, 54, 46))) & np.isfinite(patient.images_TZYX).all(axis=0)
        for image_ZYX in patient.images_TZYX:
            assert np.abs(image_ZYX - truth_ZYX)[inner_ZYX].mean() < 6
    lines = "\n".join(info_lines(describe(context.folder.cube_of(name))))
    assert "how long they are apart is not known" in lines
    assert "registration: given, onto visit 1\n  visit 2: used, mutual information" in lines


def test_a_badly_registered_visit_is_refused_and_the_others_go_on(folder: Path) -> None:
    wrong = MOVED @ rigid((0, 0, 6))
    write_patient(folder / "doe", [np.eye(4), MOVED, MOVED], [grid_of(), SECOND, grid_of()], transforms=True)
    write_patient(folder / "roe", [np.eye(4), MOVED], [grid_of(), SECOND], head=Head(5), transforms=True)
    for patient, visit in (("doe", 3), ("roe", 2)):
        from pipelines.registration.transforms import format_transform

        (folder / patient / f"study{visit}_to_common.txt").write_bytes(format_transform(wrong))
    context, record = ingest(config(folder, GIVEN))
    reasons = sorted((one["reason"], one["scene_id"].partition("/")[2]) for one in record["refused"])
    assert reasons == [("badly-registered", "visit-2"), ("badly-registered", "visit-3"), ("left-out", "")]
    assert all("second registration still moves it" in one["detail"] for one in record["refused"])
    [name] = patients_of(context)
    assert open_patient(context, name).visits == ("1", "2")
    assert json.loads(Path("runs/follow/refused.json").read_text()) == record["refused"]


def test_a_visit_whose_files_are_gone_stays_in_the_cube_and_a_new_one_is_added(folder: Path) -> None:
    home = write_patient(folder / "doe", [np.eye(4)] * 3, [grid_of()] * 3, transforms=True)
    late = (home / "study3_FLAIR.nii.gz").rename(folder.parent / "late.nii.gz")
    context, _ = ingest(config(folder, GIVEN))
    late.rename(home / "study3_FLAIR.nii.gz")
    (home / "study2_FLAIR.nii.gz").unlink()
    context, record = ingest(config(folder, GIVEN))
    [name] = patients_of(context)
    patient = open_patient(context, name)
    assert patient.visits == tuple(record["sites"][name]["visits"]) == ("1", "2", "3")
    assert patient.brain_ZYX is not None


def test_rigid_visits_come_onto_the_grid_of_the_first_and_masks_go_with_them(folder: Path) -> None:
    home = write_patient(folder / "doe", [np.eye(4), MOVED], [grid_of(), SECOND])
    spot_ZYX = np.zeros(SECOND.shape, np.uint8)
    spot_ZYX[10:13, 20:24, 20:25] = 7
    write_nifti(home / "study2_lesions.nii.gz", spot_ZYX, SECOND)
    source = {"pattern": "{patient}/study{visit}_FLAIR.nii.gz"}
    context, record = ingest(config(folder, source))
    assert record["refused"] == []
    [name] = patients_of(context)
    patient = open_patient(context, name)
    assert patient.grid.is_aligned(grid_of())
    assert (patient.brain_ZYX, patient.reference_ZYX) == (None, None)
    from pipelines.sources.visits import mask_on_grid

    matrix = record["sites"][name]["registration"]["visits"][1]["matrix"]
    mask_ZYX = mask_on_grid(home / "study2_lesions.nii.gz", grid_of(), places=[(SECOND, matrix)])
    expected_ZYX = np.nan_to_num(resample(spot_ZYX, SECOND, MOVED, grid_of(), "nearest"))
    assert set(np.unique(mask_ZYX)) == {0, 7}
    assert 2 * np.count_nonzero((mask_ZYX > 0) & (expected_ZYX > 0)) > 1.8 * np.count_nonzero(expected_ZYX)


def test_dates_are_moved_and_their_distance_stays(folder: Path) -> None:
    home = write_patient(folder, [np.eye(4), MOVED], [grid_of(), SECOND])
    (home / "study1_FLAIR.nii.gz").rename(home / "doe_20190301.nii.gz")
    (home / "study2_FLAIR.nii.gz").rename(home / "doe_20200115.nii.gz")
    context, record = ingest(config(folder, {"pattern": "doe_{date:%Y%m%d}.nii.gz"}))
    [name] = patients_of(context)
    patient = open_patient(context, name)
    assert patient.is_dated
    assert patient.times[1] - patient.times[0] == np.timedelta64(320, "D")
    assert patient.times[0] < np.datetime64("2019-03-01")
    assert not any("exchanged" in note for note in record["notes"])


def test_no_name_and_no_date_of_a_patient_is_in_what_the_run_leaves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write_patient(folder / "Harker_Jane_1970", [np.eye(4), MOVED], [grid_of(), SECOND], transforms=True)
    first = home / "study1_to_common.txt"
    first.write_text("# Harker Jane\n" + first.read_text().split("\n", 1)[1])
    with pytest.raises(RequestError) as e:
        ingest(config(folder, GIVEN))
    assert "Harker" not in str(e.value)
    first.write_text("#Insight Transform File V1.0\n# Harker Jane\n" + first.read_text().split("\n", 1)[1])
    (home / "study1_FLAIR.json").write_text('{"PatientName": "Harker^Jane"}')
    ingest(config(folder, GIVEN))
    left = [path for path in Path("runs").rglob("*") if path.is_file()]
    year = re.compile(rb"(?<![0-9a-f.])1970(?![0-9a-f])")  # not the digits of a checksum or of a fraction
    assert not [
        path for path in left if "Harker" in str(path) or b"Harker" in path.read_bytes() or year.search(path.read_bytes())
    ]
    assert "Harker" not in capsys.readouterr().out


@pytest.mark.parametrize(("change", "said"), [
    ({"pattern": "{patient}/nothing{visit}.nii.gz"}, "fits none of the"),
    ({"pattern": "{patient}/study_FLAIR.nii.gz"}, "nothing in the pattern tells the visits apart"),
    ({"pattern": "{patient}/study{vist}_FLAIR.nii.gz"}, "did you mean {visit}"),
    ({"brain": "{patient}/mask.nii.gz"}, "the pattern fits no file"),
    ({"transforms": "{patient}/to_common.txt"}, "every visit would have the same file"),
    ({"patients": ["roe"]}, "1 of source.patients are not among"),
])  # fmt: skip
def test_a_config_that_finds_nothing_is_refused_at_its_key(folder: Path, change: dict[str, Any], said: str) -> None:
    write_patient(folder / "doe", [np.eye(4), MOVED], [grid_of(), SECOND], transforms=True)
    with pytest.raises(ConfigError, match=said) as e:
        open_invocation(config(folder, {**GIVEN, **change}))
    assert "doe" not in str(e.value).replace(str(folder), "")


RIGID = {"pattern": GIVEN["pattern"]}


def alike(folder: Path, names: str = "123", shift_mm: float = 3) -> Path:
    """Visits with one header grid; those after the first lie `shift_mm` further."""
    for name in names:
        visit = made_visit(Head(), np.eye(4) if name == "1" else rigid((shift_mm, 0, 0)), grid_of(), seed=int(name))
        write_nifti(folder / "doe" / f"study{name}_FLAIR.nii.gz", np.round(visit.values_ZYX).astype(np.int16), grid_of())
    write_nifti(folder / "doe/brain.nii.gz", brain_on(grid_of()).astype(np.uint8), grid_of())
    return folder / "doe"


def test_a_visit_that_the_cube_keeps_on_another_reference_stops_the_ingest(folder: Path) -> None:
    home = alike(folder)
    ingest(config(folder, RIGID))
    (home / "study1_FLAIR.nii.gz").unlink()
    with pytest.raises(CubeMismatch, match="keeps visit 1, whose files are gone or damaged, in the space of visit 1"):
        ingest(config(folder, RIGID))


def test_masks_of_visits_with_one_header_go_with_their_visits_and_what_has_none_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = alike(folder)
    for name in "123":
        codes_ZYX = np.zeros(grid_of().shape, np.uint8)
        codes_ZYX[11, 27, 20:25] = 1
        write_nifti(home / f"lesions{name}.nii.gz", codes_ZYX, grid_of())
    masks = {"masks": "{patient}/lesions{visit}.nii.gz"}
    context, record = ingest(config(folder, RIGID, lesions=masks))
    [name] = patients_of(context)
    lesions_TZYX = open_patient(context, name).lesions_TZYX
    assert lesions_TZYX is not None
    first, second, _ = (np.argwhere(mask)[:, 2] for mask in lesions_TZYX)
    assert (set(first), set(second)) == ({20, 21, 22, 23, 24}, {19, 20, 21, 22, 23})

    whole = (home / "study3_FLAIR.nii.gz").read_bytes()
    (home / "study3_FLAIR.nii.gz").write_bytes(whole[: len(whole) // 2])
    context, record = ingest(config(folder, RIGID, lesions=masks))
    site = record["sites"][name]
    assert site["visits"] == ["1", "2", "3"]
    assert [(one["visit"], one.get("kept", False)) for one in site["registration"]["visits"]] == [
        ("1", False), ("2", False), ("3", True)
    ]  # fmt: skip
    said: list[str] = []
    monkeypatch.setattr(context.steps.display, "log", said.append)
    patient = open_patient(context, name)
    assert patient.lesions_TZYX is not None
    assert (patient.visits, len(patient.images_TZYX), len(patient.lesions_TZYX)) == (("1", "2"), 2, 2)
    assert "without visit 3" in "".join(said)


def test_a_brain_of_the_first_visit_is_not_taken_for_another_reference(folder: Path) -> None:
    home = alike(folder, "123")
    other = made_visit(Head(9), np.eye(4), grid_of())
    write_nifti(home / "study1_FLAIR.nii.gz", np.round(other.values_ZYX).astype(np.int16), grid_of())
    with pytest.raises(RequestError, match=r"visit 2 is the reference in place of visit 1; whether source\.brain lies"):
        ingest(config(folder, {**RIGID, "brain": GIVEN["brain"]}))


def test_figures_of_registration_in_the_cube_follow_the_limits_and_the_mask(folder: Path) -> None:
    still = {"kind": "none"}  # the brain changes figures alone
    alike(folder, "12", 0)
    context, record = ingest(config(folder, RIGID, registration=still))
    [name] = patients_of(context)
    context, record = ingest(config(folder, {**RIGID, "brain": GIVEN["brain"]}, registration=still))
    about = describe(context.folder.cube_of(name))["registration"]
    assert about == record["sites"][name]["registration"]
    _, second = ingest(config(folder, {**RIGID, "brain": GIVEN["brain"]}, registration=still))
    assert second["snapshot"] == record["snapshot"]


def test_a_role_that_goes_from_one_file_to_another_keeps_its_copy(folder: Path) -> None:
    home = alike(folder, "12", 0)
    source = {**RIGID, "grid": "{patient}/brain.nii.gz", "brain": "{patient}/brain.nii.gz"}
    ingest(config(folder, source))
    better_ZYX = brain_on(grid_of()).astype(np.uint8) * 2
    write_nifti(home / "a_better.nii.gz", better_ZYX, grid_of())
    context, _ = ingest(config(folder, {**source, "brain": "{patient}/a_better.nii.gz"}))
    files = files_at_hand(context.run)
    [patient] = files.names()
    assert all(files.file_of(role, patient).is_file() for role in ("grid", "brain"))
