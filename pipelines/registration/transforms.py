"""Transforms of visits in files: the text files of ITK, and plain matrices of four rows.

ITK's own text format, "Insight Transform File V1.0": kind, parameters, fixed parameters (https://insightsoftwareconsortium.github.io
/ITKWikiArchive/Wiki/ITK/Image_IO#Transform_I.2FO). Points are in LPS (DICOM's axes), in mm, and a transform maps a point of the
space that is resampled to (the common space) to a point of the image that is read (a visit).
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.errors import RequestError

Coordinates = Literal["LPS", "RAS"]
MOST_BYTES = 1 << 16
HEAD = "#Insight Transform File V1.0"
LINEAR = (  # what a matrix and an offset say in full
    "AffineTransform", "MatrixOffsetTransformBase", "Euler3DTransform", "VersorTransform", "VersorRigid3DTransform",
    "QuaternionRigidTransform", "Similarity3DTransform", "ScaleVersor3DTransform", "ScaleSkewVersor3DTransform",
    "TranslationTransform", "IdentityTransform", "Rigid3DTransform", "ScaleTransform", "CenteredAffineTransform",
)  # fmt: skip
KIND = re.compile(r"Transform: ([A-Za-z0-9]+)_(?:double|float)_3_3")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
LEAST_SCALE, MOST_SCALE = 0.5, 2.0  # of lengths: more is no head of the same person
MOST_MM = 2000.0  # by which a point near the origin moves
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def require_simpleitk() -> None:
    """Raises RequestError, which names the extra, where SimpleITK is not installed."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError as e:
        raise RequestError("transforms and registration need SimpleITK: pip install 'driftline[medical]'") from e


def read_transform(path: Path, coordinates: Coordinates | None = None) -> np.ndarray:
    """matrix (4, 4) float64: a point (x, y, z, 1) of one space, in mm, LPS, to the other, as the file has it.

    coordinates: those of a plain matrix, which states none; of ITK's files they are known (LPS).

    Raises RequestError, without the name of the file: too large, no text, no kind that a matrix can say, no finite numbers, a
    mirror image, a scale that no two images of one person have, coordinates that nobody has stated.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("ascii")
    except (OSError, UnicodeDecodeError) as e:
        raise RequestError(
            f"the file of a transform cannot be read as text ({type(e).__name__}): save it as ITK's text"
        ) from None
    if len(data) > MOST_BYTES:
        raise RequestError(f"the file of a transform has more than {MOST_BYTES} bytes; a linear transform needs some hundred")
    is_itk = text.startswith("#Insight Transform File")
    matrix = _of_itk(text) if is_itk else _of_plain(text, coordinates)
    check_matrix(matrix)
    return matrix


def check_matrix(matrix: np.ndarray) -> None:
    """Raises RequestError for what maps no image of a person to another of the same person."""
    if not np.isfinite(matrix).all():
        raise RequestError("a transform holds numbers that are not finite: write it again")
    scales, determinant = np.linalg.svd(matrix[:3, :3], compute_uv=False), np.linalg.det(matrix[:3, :3])
    if determinant < 0:
        raise RequestError(f"a transform mirrors the patient (its determinant is {determinant:.3g}): write it in LPS throughout")
    if scales.min() < LEAST_SCALE or scales.max() > MOST_SCALE:
        between = f"{LEAST_SCALE:g} and {MOST_SCALE:g}"
        raise RequestError(
            f"a transform stretches lengths by {scales.min():.3g} to {scales.max():.3g}; two images of one person need between "
            f"{between}: matrices of voxel coordinates (FLIRT) are not read, convert them to ITK's text"
        )
    if np.abs(matrix[:3, 3]).max() > MOST_MM:
        raise RequestError(f"a transform moves the patient by more than {MOST_MM:g} mm: its unit is mm")


def format_transform(matrix: np.ndarray) -> bytes:
    """ITK's text of a matrix, which `read_transform` reads: numbers alone, so nothing of the file that it came from.

    >>> print(format_transform(np.eye(4)).decode().splitlines()[2])
    Transform: AffineTransform_double_3_3
    """
    numbers = " ".join(f"{value:.17g}" for value in (*matrix[:3, :3].ravel(), *matrix[:3, 3]))
    lines = (HEAD, "#Transform 0", "Transform: AffineTransform_double_3_3", f"Parameters: {numbers}", "FixedParameters: 0 0 0")
    return ("\n".join(lines) + "\n").encode("ascii")


def _of_itk(text: str) -> np.ndarray:
    """What SimpleITK makes of the text, once it is known to hold one linear transform and numbers."""
    kinds = [line.strip() for line in text.splitlines() if line.startswith("Transform:")]
    found = KIND.fullmatch(kinds[0]) if len(kinds) == 1 else None
    if found is None or found[1] not in LINEAR:
        what = f"{len(kinds)} transforms" if len(kinds) != 1 else "no linear transform of three dimensions"
        raise RequestError(f"a file of ITK's text holds {what}: write one affine or rigid transform (double, 3 to 3) into it")
    numbers = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        if not line.strip() or line.startswith(("#", "Transform:")):
            continue
        if name not in ("Parameters", "FixedParameters") or not colon or name in numbers:
            raise RequestError("a file of ITK's text has a line that is none of Transform, Parameters, FixedParameters")
        numbers[name] = _numbers(rest)
    lines = [HEAD, "#Transform 0", kinds[0], *(f"{k}: {' '.join(map(repr, v))}" for k, v in numbers.items())]
    return _read_with_itk("\n".join(lines) + "\n")


def _numbers(text: str) -> list[float]:
    words = text.split()
    if len(words) > 64 or not all(NUMBER.fullmatch(word) for word in words):
        raise RequestError("a transform holds something that is no finite number, or too many of them: write it again")
    return [float(word) for word in words]


def _read_with_itk(text: str) -> np.ndarray:
    """The matrix by where the transform takes the origin and the ends of the axes."""
    require_simpleitk()
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transform.txt"
        path.write_text(text, encoding="ascii")
        try:
            transform = sitk.ReadTransform(str(path))
            places = np.array(
                [transform.TransformPoint(tuple(map(float, point))) for point in np.vstack([np.zeros(3), np.eye(3)])]
            )
        except RuntimeError:
            remedy = "its numbers do not fit its kind: write it again with ITK (SimpleITK.WriteTransform)"
            raise RequestError(f"ITK cannot read a transform: {remedy}") from None
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (places[1:] - places[0]).T, places[0]
    return matrix


def _of_plain(text: str, coordinates: Coordinates | None) -> np.ndarray:
    """A matrix of four rows of four numbers (lines with # left out), in the coordinates that the config states."""
    rows = [_numbers(line.replace(",", " ")) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if [len(row) for row in rows] != [4, 4, 4, 4] or rows[3] != [0, 0, 0, 1]:
        raise RequestError(
            "the file of a transform is neither ITK's text (#Insight Transform File) nor four rows of four numbers, the last "
            "0 0 0 1"
        )
    if coordinates is None:
        raise RequestError("a plain matrix does not say whether it is in LPS (ITK, DICOM) or RAS: set registration.coordinates")
    matrix = np.array(rows, float)
    return LPS_RAS @ matrix @ LPS_RAS if coordinates == "RAS" else matrix
