"""Transforms in files: what ITK writes is read as ITK applies it; what cannot be a person's is refused."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.registration.transforms import LPS_RAS, format_transform, read_transform
from tests.made_visits import rigid

sitk = pytest.importorskip("SimpleITK")
POINT = (11.0, -23.0, 37.0)


def made(name: str) -> object:
    if name == "AffineTransform":
        return sitk.AffineTransform([1.01, 0.1, 0, -0.1, 0.99, 0.02, 0, 0.03, 1.0], (1.0, 2.0, 3.0), (5.0, -6.0, 7.0))
    transform = getattr(sitk, name)()
    transform.SetCenter((5.0, -6.0, 7.0))
    transform.SetTranslation((1.0, -2.0, 3.0))
    if name == "Euler3DTransform":
        transform.SetRotation(0.1, -0.2, 0.15)
        transform.SetComputeZYX(True)
    else:
        transform.SetRotation((0.0, 0.6, 0.8), 0.2)
    if name == "Similarity3DTransform":
        transform.SetScale(1.05)
    return transform


@pytest.mark.parametrize("name", ["Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform", "AffineTransform"])
def test_a_matrix_takes_points_where_itk_takes_them(tmp_path: Path, name: str) -> None:
    transform, path = made(name), tmp_path / "a.txt"
    sitk.WriteTransform(transform, str(path))
    matrix = read_transform(path)
    assert np.allclose(matrix @ [*POINT, 1], [*transform.TransformPoint(POINT), 1], atol=1e-9)
    path.write_bytes(format_transform(matrix))
    assert np.allclose(read_transform(path), matrix, atol=1e-12)


def test_the_kind_of_the_shared_data_is_read_and_moves_about_its_centre(tmp_path: Path) -> None:
    path, turn = tmp_path / "a.txt", rigid(degrees_xyz=(0, 0, 90))[:3, :3]
    numbers = " ".join(map(str, [*turn.ravel(), 1.0, 0.0, 0.0]))
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
    path.write_text(f"{head}Parameters: {numbers}\nFixedParameters: 10 0 0\n")
    assert np.allclose(read_transform(path) @ [10, 0, 0, 1], [11, 0, 0, 1])


def test_a_plain_matrix_needs_its_coordinates(tmp_path: Path) -> None:
    path, matrix = tmp_path / "a.mat", rigid((1, 2, 3), (4, 5, 6))
    np.savetxt(path, matrix)
    with pytest.raises(RequestError, match=r"registration\.coordinates"):
        read_transform(path)
    assert np.allclose(read_transform(path, "LPS"), matrix)
    assert np.allclose(read_transform(path, "RAS"), LPS_RAS @ matrix @ LPS_RAS)


HEAD = "#Insight Transform File V1.0\n#Transform 0\n"
AFFINE = HEAD + "Transform: AffineTransform_double_3_3\n"


@pytest.mark.parametrize(("text", "problem"), [
    (AFFINE + "Parameters: -1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n", "mirrors"),
    (AFFINE + "Parameters: 3 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n", "stretches"),
    (AFFINE + "Parameters: 1 0 0 0 1 0 0 0 1 9000 0 0\nFixedParameters: 0 0 0\n", "moves"),
    (AFFINE + "Parameters: 1 0 0 0 1 0 0 0 nan 0 0 0\nFixedParameters: 0 0 0\n", "no finite number"),
    (AFFINE + "Parameters: 1 0 0 0 1 0\nFixedParameters: 0 0 0\n", "do not fit its kind"),
    (AFFINE + "Parameters: 1 0 0\nOther: 1\n", "none of Transform"),
    (HEAD + "Transform: DisplacementFieldTransform_double_3_3\nParameters: 1\n", "no linear transform"),
    (AFFINE + AFFINE, "2 transforms"),
    ("1 0 0 0\n0 1 0 0\n", "neither"),
    ("hello", "no finite number"),
    ("#" * 70_000, "more than"),
])  # fmt: skip
def test_what_no_image_of_the_same_person_needs_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "doe_jane.txt"
    path.write_text(text)
    with pytest.raises(RequestError, match=problem) as e:
        read_transform(path, "LPS")
    assert "doe_jane" not in str(e.value)
