"""What a NIfTI header says: affine in LPS, frame times, scaling; or why it cannot be believed. nibabel reads the header."""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, PatientFrame
from pipelines.sources.dicom_files import without_warnings
from pipelines.sources.volumes import LPS_TO_RAS

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

AffineChoice = Literal["auto", "sform", "qform"]
SUFFIXES = (".nii", ".nii.gz")
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 1e-3, "unknown": 1.0}
SHORTEST_S, LONGEST_S = 0.01, 400.0  # of a frame: from fast ultrasound to a late PET frame
SAME_AFFINE = 0.1  # voxels by which a corner may differ between sform and qform
MAX_VOXELS = 1 << 36
KEPT = ("uint8", "int16", "uint16", "int32", "float32")  # dtypes that the cube stores as they are
WIDENED = {"int8": "int16", "float64": "float32"}


@dataclass(frozen=True)
class NiftiHeader:
    """A checked header. `grid` in LPS; `frame_s` seconds between two volumes (None: one volume, or not stated).

    `dtype` is that in the file, with its byte order, `stored` that in the cube. `notes` say what was concluded.
    """

    grid: Grid
    frames: int
    frame_s: float | None
    dtype: np.dtype
    stored: np.dtype
    offset: int
    scale: float
    intercept: float
    notes: tuple[str, ...] = ()

    @property
    def volume_bytes(self) -> int:
        return int(np.prod(self.grid.shape)) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        return self.offset + self.frames * self.volume_bytes


def require_nibabel() -> None:
    """Raises RequestError, which names the extra, where nibabel is not installed."""
    try:
        import nibabel  # noqa: F401
    except ImportError as e:
        raise RequestError("NIfTI files need nibabel: pip install 'driftline[medical]'") from e


def read_nifti_header(path: Path, label: str, affine: AffineChoice = "auto", frame_time: float | None = None) -> NiftiHeader:
    """The header of a NIfTI-1 or NIfTI-2 file.

    Raises SceneRefused(unreadable, truncated, too-large, driver, wrong-grid, wrong-unit, wrong-dtype, wrong-scale, no-date).

    frame_time: seconds between two volumes, in place of what the header says. affine: which of two that contradict each other.
    """
    header = _parse(path, label)
    shape, notes = _shape(header, label), list[str]()
    dtype, stored = _dtype(header, label)
    if dtype.newbyteorder("=") == np.float64:
        notes.append("values of 64 bits are stored as float32")
    grid, said = _grid(header, shape[:3], label, affine)
    notes += said
    frame_s, said = _frame_time(header, shape[3], label, frame_time)
    notes += said
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    has_scale = np.isfinite(slope) and slope != 0
    if has_scale and not np.isfinite(intercept):
        raise SceneRefused(label, "wrong-scale", f"scl_slope is {slope:g} and scl_inter is no number")
    offset = max(int(header["vox_offset"]), header.sizeof_hdr)
    scaling = (slope, intercept) if has_scale else (1.0, 0.0)
    found = NiftiHeader(grid, shape[3], frame_s, dtype, stored, offset, *scaling, tuple(notes))
    if path.suffix != ".gz" and (size := path.stat().st_size) < found.file_bytes:
        detail = f"the file has {size} bytes, its header describes {found.file_bytes} ({found.frames} volumes of {grid.shape})"
        raise SceneRefused(label, "truncated", f"{detail}; copy it again")
    return found


def _parse(path: Path, label: str) -> Nifti1Header:
    require_nibabel()
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    try:
        with open_nifti(path) as file:
            head = file.read(4)
            if len(head) < 4:
                raise SceneRefused(label, "truncated", "the file ends inside its header; copy it again")
            size = {struct.unpack(order + "i", head)[0] for order in "<>"} & {348, 540}
            if not size:
                raise SceneRefused(
                    label, "driver", "it is no NIfTI file, whatever its name says; save a pair (.hdr, .img) as .nii"
                )
            block = head + file.read(max(size) - 4)
            if len(block) < max(size):
                raise SceneRefused(label, "truncated", "the file ends inside its header; copy it again")
        with without_warnings():
            kind: Any = Nifti2Header if 540 in size else Nifti1Header
            header = cast("Nifti1Header", kind(block, check=False))
        magic = bytes(header["magic"].tobytes())[:3]
        if magic not in (b"n+1", b"n+2"):
            what = "its voxels lie in another file (.img)" if magic in (b"ni1", b"ni2") else "it is Analyze, not NIfTI"
            raise SceneRefused(label, "driver", f"{what}: save it as one .nii or .nii.gz file")
    except (OSError, EOFError, zlib.error) as e:
        raise SceneRefused(label, "truncated", f"its header cannot be unpacked ({type(e).__name__}); copy it again") from None
    return header


def open_nifti(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where it is packed, whatever its name says."""
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_packed else path.open("rb")


def _shape(header: Nifti1Header, label: str) -> tuple[int, int, int, int]:
    """(x, y, z, t)."""
    count = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    if len(sizes) < 3 or min(sizes) < 1:
        raise SceneRefused(label, "unreadable", f"it has the dimensions {sizes}; a volume has x, y, z, and t if it is a series")
    if any(size > 1 for size in sizes[4:]):
        raise SceneRefused(
            label, "wrong-grid", f"it has {len(sizes)} dimensions {sizes}: vectors and tensors are no series in time"
        )
    if np.prod([float(size) for size in sizes]) > MAX_VOXELS:
        raise SceneRefused(label, "too-large", f"it declares {sizes} voxels, the limit is {MAX_VOXELS}")
    x, y, z, t = (*sizes[:3], sizes[3] if len(sizes) > 3 else 1)
    return x, y, z, t


def _dtype(header: Nifti1Header, label: str) -> tuple[np.dtype, np.dtype]:
    try:
        dtype = np.dtype(header.get_data_dtype())
    except Exception:  # nibabel's errors for codes that it does not know
        raise SceneRefused(label, "wrong-dtype", f"it has the unknown datatype {int(header['datatype'])}") from None
    native = "colours" if dtype.names else dtype.newbyteorder("=").name
    if native not in (*KEPT, *WIDENED):
        raise SceneRefused(label, "wrong-dtype", f"it holds {native}; save it as one of {', '.join(KEPT)}")
    return dtype, np.dtype(WIDENED.get(native, native))


# ---------------------------------------------------------------- where it is


def _grid(header: Nifti1Header, shape_xyz: tuple[int, ...], label: str, choice: AffineChoice) -> tuple[Grid, list[str]]:
    """The grid by sform or qform. Raises SceneRefused where there is none, it is none, or both contradict each other."""
    notes = []
    known: dict[str, np.ndarray] = {}
    with without_warnings():
        for name in ("sform", "qform"):
            if int(header[f"{name}_code"]) > 0:
                try:
                    known[name] = np.asarray(getattr(header, f"get_{name}")(), float)
                except Exception:  # a quaternion that is none
                    raise SceneRefused(
                        label, "wrong-grid", f"its {name} is no affine; write a right one with nibabel or fslorient"
                    ) from None
    if choice != "auto" and choice not in known:
        there = " and ".join(known) or "none"
        raise SceneRefused(label, "wrong-grid", f"source.affine asks for the {choice}, and the file states {there}")
    if not known:
        remedy = "write one (nibabel, fslorient): nothing is assumed"
        raise SceneRefused(
            label, "wrong-grid", f"it states no position in the patient (sform and qform have the code 0); {remedy}"
        )
    if choice != "auto" and len(known) == 2 and not _is_affine(known[other := "qform" if choice == "sform" else "sform"]):
        notes.append(f"its {other} has the code {int(header[f'{other}_code'])} and is no affine: it is not used")
        del known[other]
    for name, matrix in known.items():
        if not _is_affine(matrix):
            others = [one for one, found in known.items() if _is_affine(found)]
            remedy = (
                f"set its code to 0, or source.affine: {others[0]}" if others else "write a right one with nibabel or fslorient"
            )
            kind = "holds zeros only" if not matrix[:3].any() else "is not invertible"
            detail = f"its {name} has the code {int(header[f'{name}_code'])} and {kind}, so the header is damaged"
            raise SceneRefused(label, "wrong-grid", f"{detail}: {remedy}")
    if len(known) == 2:
        voxels = _corner_difference(known["sform"], known["qform"], shape_xyz)
        if voxels > SAME_AFFINE and choice == "auto":
            detail = f"its sform and qform contradict each other by up to {voxels:.3g} voxels"
            raise SceneRefused(label, "wrong-grid", f"{detail}: say which counts, source.affine: sform or qform")
        if voxels > SAME_AFFINE:
            notes.append(f"sform and qform differ by up to {voxels:.3g} voxels: the {choice} counts, as the config says")
    chosen = known.get(choice, known.get("sform", known.get("qform")))
    assert chosen is not None
    unit = header.get_xyzt_units()[0]
    if unit not in MILLIMETRES:
        raise SceneRefused(label, "wrong-unit", "its unit of length is none of m, mm, micrometre")
    if unit not in ("mm", "unknown"):
        notes.append(f"lengths in {unit} are converted to mm")
    rows = LPS_TO_RAS @ (chosen[:3] * MILLIMETRES[unit])
    return Grid.from_centres(PatientFrame(), rows, shape_xyz[::-1]), notes


def _is_affine(matrix: np.ndarray) -> bool:
    """Whether a matrix is one of voxels of a size; zeros are none."""
    return bool(np.isfinite(matrix).all() and abs(np.linalg.det(matrix[:3, :3])) >= 1e-12)


def _corner_difference(one: np.ndarray, other: np.ndarray, shape_xyz: tuple[int, ...]) -> float:
    """How far apart two affines put a corner, in the smallest voxel size of the first."""
    corners = np.array([(*ends, 1) for ends in itertools.product(*((0, size - 1) for size in shape_xyz))], float)
    apart = np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max()
    return float(apart / np.linalg.norm(one[:3, :3], axis=0).min())


# ---------------------------------------------------------------- when it was


def stated_frame_time(path: Path) -> float | None:
    """Seconds between two volumes where the header states them, with a unit, and they can be; else None."""
    try:
        header = _parse(path, "the file")
        number, unit = float(str(header["pixdim"][4])), header.get_xyzt_units()[1]
    except SceneRefused:
        return None
    seconds = number * SECONDS.get(unit, np.nan)
    return seconds if unit != "unknown" and SHORTEST_S <= seconds <= LONGEST_S else None


def _frame_time(header: Nifti1Header, frames: int, label: str, asked: float | None) -> tuple[float | None, list[str]]:
    """Seconds between two volumes, and notes. Raises SceneRefused(no-date) for what is missing or cannot be."""
    if frames == 1:
        return asked, []
    number, unit = float(str(header["pixdim"][4])), header.get_xyzt_units()[1]  # 1.13, not what float32 makes of it
    if asked is not None:
        said = f"the header says {number:g} {'of an unknown unit' if unit == 'unknown' else unit}"
        return asked, [f"times by source.frame_time: {asked:g} s apart ({said})"]
    if unit not in SECONDS:
        raise SceneRefused(
            label, "no-date", f"its fourth axis is in {unit}, which is no time: state source.frame_time if it is one"
        )
    if not np.isfinite(number) or number <= 0:
        remedy = "state the seconds between two volumes as source.frame_time"
        raise SceneRefused(label, "no-date", f"the header states {number:g} for the time between its {frames} volumes: {remedy}")
    seconds = number * SECONDS[unit]
    if not SHORTEST_S <= seconds <= LONGEST_S:
        meant = next((number * factor for factor in (1e-3, 1.0, 1e-6) if 0.05 <= number * factor <= 60), None)
        remedy = f"state the right one in seconds, as source.frame_time{f': {meant:g}' if meant else ''}"
        shown = f"{number:g} {'(of an unknown unit)' if unit == 'unknown' else unit}"
        raise SceneRefused(
            label, "no-date", f"{shown} between two volumes cannot be ({SHORTEST_S} to {LONGEST_S:g} s can): {remedy}"
        )
    if unit == "unknown":
        return seconds, [f"the header states no unit of time: {number:g} is taken for seconds (else state source.frame_time)"]
    return seconds, []
