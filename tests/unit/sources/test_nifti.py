"""NIfTI files as volumes in time: affine, frame times, scaling, and what cannot be believed."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from configs.tasks.forecast import ForecastRun
from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, SceneRefused
from pipelines.products.nifti import affine_ras, write_nifti
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.proposal import propose_run

BAND = Band("bold")
OBLIQUE = nibabel.affines.from_matvec(
    np.array([[0.9, -0.3, 0], [0.3, 0.9, 0.1], [0, -0.1, 1]]) @ np.diag([-2, 2, 3.5]), [10.25, -7, 33]
)


def values(*shape: int, dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def write(
    path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE, step: float = 2.0, unit: str = "sec", **fields: Any
) -> Path:
    """A NIfTI-1 file whose sform is `affine`; `fields` of the header are set last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", unit)
    if data.ndim > 3:
        image.header["pixdim"][4] = step
    nibabel.save(image, path)
    if fields:
        content = bytearray(path.read_bytes())
        header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
        for name, value in fields.items():
            header[name] = value
        content[:348] = header.binaryblock
        path.write_bytes(content)
    return path


def read_all(source: NiftiSource) -> np.ndarray:
    """(x, y, z, t) physical values, as nibabel gives them."""
    grid, band = source.native_grid(), source.bands[0]
    stored = [source.read(scene, grid, ("bold",), "nearest")[0] for scene in source.list_scenes().scenes]
    return np.stack(stored).T * band.scale + band.offset


def seconds(source: NiftiSource) -> list[float]:
    return [float((scene.observed_utc - UNKNOWN_ORIGIN) / np.timedelta64(1, "s")) for scene in source.list_scenes().scenes]


@pytest.mark.parametrize("name", ["brain-pcasl", "spinal-cord-fmri"])
def test_a_real_series_keeps_values_affine_and_times(shared_data: Callable[[str], Path], name: str) -> None:
    path = shared_data(f"medical/fmri/{name}.nii.gz")
    source, image = NiftiSource(path, BAND), nibabel.load(path)
    np.testing.assert_array_equal(read_all(source), np.asarray(image.dataobj))
    np.testing.assert_allclose(affine_ras(source.native_grid()), image.affine, rtol=0, atol=1e-9)
    step = float(str(image.header["pixdim"][4]))
    np.testing.assert_allclose(seconds(source), step * np.arange(image.shape[3]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", ">i2", "uint16", "int32", "float32", "float64"])
def test_every_dtype_and_packing_is_read(tmp_path: Path, suffix: str, dtype: str) -> None:
    data = values(3, 4, 2, 2).astype(dtype)
    source = NiftiSource(write(tmp_path / f"a{suffix}", data), BAND)
    np.testing.assert_array_equal(read_all(source), data)
    part = source.read(source.list_scenes().scenes[1], source.native_grid(), ("bold",), "nearest", slice(1, 2))
    np.testing.assert_array_equal(part[0, 0], data[:, :, 1, 1].T)


def test_scaling_is_that_of_the_band_and_nan_is_missing(tmp_path: Path) -> None:
    source = NiftiSource(write(tmp_path / "a.nii", values(3, 4, 2, 2), scl_slope=0.5, scl_inter=-3.0), BAND)
    assert (source.bands[0].scale, source.bands[0].offset) == (0.5, -3.0)
    np.testing.assert_array_equal(read_all(source), values(3, 4, 2, 2) * 0.5 - 3)
    holes = values(3, 4, 2, 2).astype("float32")
    holes[0] = np.nan
    ingest(NiftiSource(write(tmp_path / "b.nii", holes), BAND), None, str(tmp_path / "cube"), None, IngestSettings())
    cube = open_cube(str(tmp_path / "cube"))
    assert not cube.valid[..., 0].any()
    assert cube.valid[..., 1:].all()
    assert cube.time.attrs["time_origin"] == "unknown"
    assert set(cube.source.values) == {"frame 0", "frame 1"}


@pytest.mark.parametrize(
    ("step", "unit", "expected"), [(2.0, "sec", 2.0), (1130.0, "msec", 1.13), (33_333.0, "usec", 0.033333), (2.5, "unknown", 2.5)]
)
def test_units_of_time_are_converted(tmp_path: Path, step: float, unit: str, expected: float) -> None:
    source = NiftiSource(write(tmp_path / "a.nii", values(3, 4, 2, 2), step=step, unit=unit), BAND)
    np.testing.assert_allclose(seconds(source), [0, expected], rtol=1e-6)
    assert any("is taken for seconds" in note for note in source.list_scenes().notes) == (unit == "unknown")


def test_the_wrong_unit_of_a_well_known_file_is_refused_with_its_remedy() -> None:
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    with pytest.raises(RequestError, match=r"2000 sec between two volumes cannot be .*source.frame_time: 2$"):
        NiftiSource(path, BAND).list_scenes()
    source = NiftiSource(path, BAND, frame_time=2.0)
    assert seconds(source) == [0, 2]
    assert any("the header says 2000 sec" in note for note in source.list_scenes().notes)


ZEROS = {f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"}
TURNED = OBLIQUE @ np.diag([1, 1, 1.2, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixdim": [1, 2, 2, 3.5, 0, 0, 0, 0]}, "states 0 for the time between its 2 volumes"),
        ({"sform_code": 0, "qform_code": 0}, "states no position in the patient"),
        ({"srow_z": TURNED[2], "qform_code": 1}, "contradict each other by up to .*source.affine: sform or qform"),
        ({"srow_x": [0, 0, 0, 0], "qform_code": 0}, "not invertible"),
        (
            {**ZEROS, "qform_code": 1},
            "its sform has the code [12] and holds zeros only, .* set its code to 0, or .*affine: qform",
        ),
        ({"srow_x": [np.nan, 0, 0, 0], "qform_code": 0}, "not invertible"),
        ({"dim": [4, 3, 4, 2, 900, 1, 1, 1]}, "truncated: the file has 448 bytes, its header describes"),
        ({"dim": [2, 3, 4, 1, 1, 1, 1, 1]}, r"has the dimensions \[3, 4\]"),
        ({"dim": [5, 3, 4, 2, 1, 2, 1, 1]}, "vectors and tensors are no series"),
        ({"dim": [4, 32767, 32767, 32767, 32767, 1, 1, 1]}, "too-large"),
        ({"datatype": 32, "bitpix": 64}, "holds complex64"),
        ({"xyzt_units": 2 + 32}, "fourth axis is in hz"),
        ({"magic": b"ni1"}, "voxels lie in another file"),
    ],
)
def test_what_cannot_be_believed_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        NiftiSource(write(tmp_path / "a.nii", values(3, 4, 2, 2), **fields), BAND).list_scenes()


def test_the_config_chooses_between_two_affines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", values(3, 4, 2, 2), srow_z=OBLIQUE[2] + [0, 0, 0, 5], qform_code=1)
    header = nibabel.load(path).header
    for choice in ("sform", "qform"):
        source = NiftiSource(path, BAND, affine=choice)
        np.testing.assert_allclose(affine_ras(source.native_grid()), getattr(header, f"get_{choice}")(), atol=1e-9)
        assert any(f"the {choice} counts" in note for note in source.list_scenes().notes)


@pytest.mark.parametrize(("fields", "is_said"), [({"sform_code": 0}, False), ({}, True)])
def test_a_zero_sform_leaves_the_qform(tmp_path: Path, fields: dict[str, int], is_said: bool) -> None:
    path = write(tmp_path / "a.nii", values(3, 4, 2), qform_code=1, **ZEROS, **fields)
    source = NiftiSource(path, BAND, affine="qform")
    np.testing.assert_allclose(affine_ras(source.native_grid()), nibabel.load(path).header.get_qform(), atol=1e-9)
    assert any("its sform has the code" in note for note in source.list_scenes().notes) == is_said


def test_a_truncated_packed_file_is_found_when_it_is_listed(tmp_path: Path) -> None:
    packed = [
        gzip.compress(write(tmp_path / "a.nii", values(30, 4, 2, 2)).read_bytes()[part])
        for part in (slice(200), slice(200, None))
    ]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(packed))  # in two members, of which only the last states its size
    assert len(NiftiSource(tmp_path / "a.nii.gz", BAND).list_scenes().scenes) == 2
    (tmp_path / "a.nii.gz").write_bytes(b"".join(packed)[:-20])
    with pytest.raises(RequestError, match="cannot be read, truncated: the file cannot be unpacked"):
        NiftiSource(tmp_path / "a.nii.gz", BAND).list_scenes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_no_truncation_is_accepted(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 999, (6, 5, 4, 2)).astype("int16")).read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        path = tmp_path / f"cut-{length}{suffix}"
        path.write_bytes(whole[:length])
        with pytest.raises((RequestError, SceneRefused), match=r"truncated|no NIfTI"):
            read_all(NiftiSource(path, BAND))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_more_volumes_than_the_header_states_are_refused(tmp_path: Path, suffix: str) -> None:
    content = write(tmp_path / "a.nii", values(3, 4, 2, 3)).read_bytes()
    shorter = content[:48] + b"\2" + content[49:]  # dim[4] = 2
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(shorter) if suffix == ".nii.gz" else shorter)
    with pytest.raises(RequestError, match="more volumes than the 2"):
        read_all(NiftiSource(path, BAND))


def test_b_values_beside_the_file_are_several_contrasts(tmp_path: Path) -> None:
    path = write(tmp_path / "dwi.nii.gz", values(3, 4, 2, 3))
    (tmp_path / "dwi.bval").write_text("0 0 0\n")
    assert seconds(NiftiSource(path, BAND)) == [0, 2, 4]
    (tmp_path / "dwi.bval").write_text("0 1000 1000\n")
    with pytest.raises(RequestError, match=r"several contrasts: .* lists 2 different ones"):
        NiftiSource(path, BAND).list_scenes()


# ---------------------------------------------------------------- a folder of volumes


def test_dates_in_names_make_a_series(tmp_path: Path) -> None:
    for n, name in enumerate(("b/visit_2021-03-05.nii.gz", "a/visit_2020-01-31.nii.gz")):
        write(tmp_path / name, values(3, 4, 2) + n)
    source = NiftiSource(tmp_path, BAND)
    dates = [scene.observed_utc.astype("datetime64[D]") for scene in source.list_scenes().scenes]
    assert dates == [np.datetime64("2020-01-31"), np.datetime64("2021-03-05")]
    np.testing.assert_array_equal(read_all(source)[..., 0], values(3, 4, 2) + 1)
    pattern = NiftiSource(tmp_path, BAND, pattern="*/visit_{date:%Y-%m-%d}.nii.gz")
    assert [scene.observed_utc for scene in pattern.list_scenes().scenes] == dates


def test_numbers_in_names_need_a_frame_time(tmp_path: Path) -> None:
    for n in (1, 2, 10):
        write(tmp_path / f"vol{n}.nii", values(3, 4, 2) + n)
    with pytest.raises(RequestError, match="numbers and no dates: state the seconds"):
        NiftiSource(tmp_path, BAND).list_scenes()
    assert seconds(NiftiSource(tmp_path, BAND, frame_time=2)) == [0, 2, 18]


def test_files_off_the_grid_are_refused_and_visits_with_grids_of_their_own_too(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"2020010{n + 1}.nii", values(3, 4, 2), OBLIQUE + 0.3 * np.eye(4, k=3) * (n == 1))
    listing = NiftiSource(tmp_path, BAND).list_scenes()
    assert (len(listing.scenes), [refusal.reason for refusal in listing.refused]) == (2, ["wrong-grid"])
    (tmp_path / "20200103.nii").unlink()
    with pytest.raises(RequestError, match="kind: visits"):
        NiftiSource(tmp_path, BAND).list_scenes()


def test_visits_of_real_patients_have_grids_of_their_own(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"study{n}.nii.gz").symlink_to(shared_data(f"medical/ms-lesions/patient01/study{n}_FLAIR.nii.gz"))
    with pytest.raises(RequestError, match=re.escape("the 2 volumes of the folder have grids")):
        NiftiSource(tmp_path, BAND, frame_time=1).list_scenes()


# ---------------------------------------------------------------- and out again


@pytest.mark.parametrize("times", [1, 2, 3])
def test_few_times_are_proposed_for_ingest(tmp_path: Path, times: int) -> None:
    text = propose_run(write(tmp_path / "a.nii", values(8, 8, 4, times)), "few", "forecast")
    assert "`driftline ingest` takes any number of times; a forecast needs at least 4" in text
    ForecastRun.model_validate(yaml.safe_load(text))


def test_a_volume_leaves_with_the_affine_units_and_values_with_which_it_came(tmp_path: Path) -> None:
    data = values(3, 4, 2, 3).astype("float32")
    source = NiftiSource(write(tmp_path / "a.nii", data, step=1.13), BAND)
    listing, grid = source.list_scenes(), source.native_grid()
    slabs = (source.read(scene, grid, ("bold",), "nearest", slice(k, k + 1))[0] for scene in listing.scenes for k in range(2))
    write_nifti(tmp_path / "b.nii.gz", slabs, grid, [scene.observed_utc for scene in listing.scenes], 1.13)
    came, left = nibabel.load(tmp_path / "a.nii"), nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(left.dataobj), data)
    np.testing.assert_allclose(left.affine, came.affine, rtol=0, atol=1e-6)
    assert left.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(left.header["pixdim"][1:5], came.header["pixdim"][1:5], rtol=1e-6)
    first = (tmp_path / "b.nii.gz").read_bytes()
    write_nifti(tmp_path / "b.nii.gz", iter([data.T]), grid, [scene.observed_utc for scene in listing.scenes], 1.13)
    assert (tmp_path / "b.nii.gz").read_bytes() == first
