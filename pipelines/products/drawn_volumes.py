"""Made series of volumes as NIfTI files, and what was published of one, for the examples of the docs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.grid import Grid, PatientFrame
from pipelines.products.nifti import write_nifti
from pipelines.samples.drawn_uptake import MM_ZYX, TISSUES, draw_bolus, draw_uptake


def made_grid(shape: tuple[int, ...]) -> Grid:
    """Voxels of `MM_ZYX`, the slices tilted by 20 degrees about the axis from right to left."""
    tilt = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return Grid.from_centres(PatientFrame(), np.column_stack([turn @ np.diag(MM_ZYX[::-1]), [-36.0, -30.0, 12.0]]), shape)


def write_series(path: Path, signal_TDHW: np.ndarray, step_s: float) -> None:
    """A series as a NIfTI file of four dimensions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [UNKNOWN_ORIGIN + np.timedelta64(round(1e9 * step_s * t), "ns") for t in range(len(signal_TDHW))]
    write_nifti(path, signal_TDHW, made_grid(signal_TDHW.shape[1:]), times, step_s, "made by driftline")


def write_uptake(folder: Path, seed: int = 0) -> dict[str, int]:
    """series.nii.gz, labels.nii.gz and truth.nii.gz; how many voxels each class has."""
    made = draw_uptake(seed=seed)
    write_series(folder / "series.nii.gz", made.signal_TDHW, float(made.times_s[1]))
    for name, codes_DHW in (("labels", made.labels_DHW), ("truth", made.truth_DHW)):
        write_nifti(folder / f"{name}.nii.gz", [codes_DHW], made_grid(codes_DHW.shape), (), None, "made by driftline", "|u1")
    return {name: int((made.truth_DHW == code).sum()) for code, name in enumerate(TISSUES, start=1)}


def write_bolus(path: Path, seed: int = 0) -> int:
    """The series of travelling boluses; how many voxels lie in a vessel."""
    signal_TDHW, is_vessel_DHW = draw_bolus(seed=seed)
    write_series(path, signal_TDHW, 1.0)
    return int(is_vessel_DHW.sum())


def score_uptake(truth: Path, mapped: Path) -> list[str]:
    """Lines: the share of all voxels that a map with the codes of the truth names rightly; recall, precision, Dice of each class.

    Raises FileNotFoundError.
    """
    from nibabel import load

    truth_XYZ, mapped_XYZ = (np.asarray(load(path).dataobj) for path in (truth, mapped))  # type: ignore[attr-defined]
    lines = [f"{(truth_XYZ == mapped_XYZ).mean():.4f} of {mapped_XYZ.size} voxels are named rightly"]
    for code, name in enumerate(TISSUES, start=1):
        is_true, is_said = truth_XYZ == code, mapped_XYZ == code
        both = np.count_nonzero(is_true & is_said)
        recall, precision = both / max(is_true.sum(), 1), both / max(is_said.sum(), 1)
        lines.append(
            f"{name}: recall {recall:.3f}, precision {precision:.3f}, Dice {2 * both / (is_true.sum() + is_said.sum()):.3f}"
        )
    return lines
