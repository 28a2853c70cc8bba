"""Made series of volumes whose truth is known: the uptake of a contrast agent by tissues, and boluses that travel along vessels.

Uptake follows the extended model of Tofts et al. 1999, J. Magn. Reson. Imaging 10, 223 (eq. 7): the concentration in a voxel is

    C(t) = v_p C_a(t) + K_trans * integral of C_a(u) exp(-k_ep (t - u)) du,

the arterial one a gamma variate (Thompson et al. 1964, Circ. Res. 14, 502) and a slow decay. The signal is linear in C. Level,
K_trans and k_ep vary from voxel to voxel, so neither brightness nor one curve gives the class away; tissues lie in many patches,
so the position does not either. Everything is invented.

Shapes: T times, D slices, H rows, W columns. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

MM_ZYX = (4.0, 1.5, 1.5)
GAIN = 3.0  # of the signal, per concentration of 1 (the peak in the artery)
LEVEL, LEVEL_SPREAD = 200.0, 0.15
PARAMETER_SPREAD = 0.15  # of the logarithms of K_trans and k_ep
LABELLED = 0.1  # of the voxels
PATCH_PX = (1.2, 3.5, 3.5)  # standard deviation of the fields that patches are cut from
ARTERIES, RADIUS_PX = 9, 1.6


@dataclass(frozen=True)
class Tissue:
    """`transfer` (K_trans) and `return_rate` (k_ep) per minute, `plasma`: the share of plasma (v_p)."""

    transfer: float
    return_rate: float
    plasma: float


TISSUES = {  # by name, in the order of their codes from 1
    "persistent": Tissue(0.10, 0.15, 0.02),
    "plateau": Tissue(0.30, 1.0, 0.03),
    "washout": Tissue(0.80, 4.0, 0.06),
    "artery": Tissue(0.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class Uptake:
    """`signal_TDHW` float32, `times_s` (T,), `truth_DHW` uint8 (codes from 1), `labels_DHW` uint8 (0: not labelled)."""

    signal_TDHW: np.ndarray
    times_s: np.ndarray
    truth_DHW: np.ndarray
    labels_DHW: np.ndarray


def arterial_curve(times_s: np.ndarray, arrival_s: float = 15.0) -> np.ndarray:
    """C_a, with a peak of about 1 ten seconds after the arrival."""
    after = np.maximum(times_s - arrival_s, 0)
    first_pass = (after / 10) ** 3 * np.exp(3 * (1 - after / 10))
    return np.asarray(0.85 * first_pass + 0.25 * (1 - np.exp(-after / 10)) * np.exp(-after / 300))


def tissue_curve(tissue: Tissue, times_s: np.ndarray, fine_s: float = 0.5) -> np.ndarray:
    """C(t) of a tissue."""
    fine = np.arange(0, times_s[-1] + fine_s, fine_s)
    response = tissue.transfer / 60 * np.exp(-tissue.return_rate / 60 * fine)
    arterial = arterial_curve(fine)
    whole = tissue.plasma * arterial + np.convolve(arterial, response)[: len(fine)] * fine_s
    curve_T: np.ndarray = np.interp(times_s, fine, whole)
    return curve_T


def draw_uptake(
    shape: tuple[int, int, int] = (12, 48, 48), times: int = 30, step_s: float = 6.0, noise: float = 15.0, seed: int = 0,
    labelled: float = LABELLED,
) -> Uptake:  # fmt: skip
    """The series; `noise`: standard deviation, of a level of about `LEVEL`; `labelled`: share of the voxels, drawn at random."""
    rng = np.random.default_rng(seed)
    truth_DHW, times_s = _draw_truth(rng, shape), step_s * np.arange(times)
    level_DHW = LEVEL * np.exp(LEVEL_SPREAD * _unit_field(rng, shape, 2.0))
    spread_DHW, mixed_DHW = np.exp(PARAMETER_SPREAD * rng.normal(size=(2, *shape)))
    taken_TDHW = np.zeros((times, *shape), np.float32)
    for code, tissue in enumerate(TISSUES.values(), start=1):
        for inside_DHW, rate in _strata(mixed_DHW, truth_DHW == code):  # voxels of about one k_ep are computed together
            curve_T = tissue_curve(Tissue(tissue.transfer, tissue.return_rate * rate, 0.0), times_s)
            plasma_T = tissue.plasma * arterial_curve(times_s)
            taken_TDHW[:, inside_DHW] = curve_T[:, None] * spread_DHW[inside_DHW] + plasma_T[:, None]
    signal_TDHW = level_DHW * (1 + GAIN * taken_TDHW) + rng.normal(0, noise, taken_TDHW.shape)
    labels_DHW = np.where(rng.random(shape) < labelled, truth_DHW, 0).astype(np.uint8)
    return Uptake(signal_TDHW.astype(np.float32), times_s, truth_DHW, labels_DHW)


def _strata(values_DHW: np.ndarray, inside_DHW: np.ndarray, count: int = 12) -> list[tuple[np.ndarray, float]]:
    """Parts of `inside` by equal numbers of their values, with the mean value of each."""
    if not inside_DHW.any():
        return []
    found, edges = [], np.quantile(values_DHW[inside_DHW], np.linspace(0, 1, count + 1))
    for low, high in pairwise(edges):
        part_DHW = inside_DHW & (values_DHW >= low) & (values_DHW <= high)
        found.append((part_DHW, float(values_DHW[part_DHW].mean())))
    return found


def _draw_truth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Patches of the three tissues, and arteries that cross all slices."""
    fields = np.stack([gaussian_filter(rng.normal(size=shape), PATCH_PX, mode="wrap") for _ in range(3)])
    truth_DHW = (fields.argmax(axis=0) + 1).astype(np.uint8)
    slices, rows, columns = np.indices(shape)
    for _ in range(ARTERIES):
        row, column = (rng.uniform(3, size - 3) for size in shape[1:])
        slope = rng.uniform(-0.5, 0.5, 2)
        away = np.hypot(rows - row - slope[0] * slices, columns - column - slope[1] * slices)
        truth_DHW[away <= RADIUS_PX] = len(TISSUES)
    return np.asarray(truth_DHW)


def _unit_field(rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float) -> np.ndarray:
    """A smooth field of standard deviation 1."""
    field = gaussian_filter(rng.normal(size=shape), sigma_px, mode="wrap")
    return np.asarray(field / field.std())


# ---------------------------------------------------------------- boluses


def draw_bolus(
    shape: tuple[int, int, int] = (6, 36, 36), times: int = 72, step_s: float = 1.0, noise: float = 5.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(signal_TDHW float32, which voxels lie in a vessel, bool): boluses at irregular times that travel along straight vessels.

    What a voxel of a vessel will show is what the voxels upstream show now: no mean, trend or last value of its own tells it.
    """
    rng = np.random.default_rng(seed)
    slices, rows, columns = np.indices(shape)
    passing_TDHW, is_vessel_DHW = np.zeros((times, *shape), np.float32), np.zeros(shape, bool)
    times_s = step_s * np.arange(times)
    for _ in range(2 * ARTERIES):
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.2)  # pixels per second
        row, column, depth = (rng.uniform(0, size) for size in (*shape[1:], shape[0]))
        across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
        along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
        inside_DHW = (np.abs(across) <= RADIUS_PX) & (np.abs(slices - depth) <= 1) & ~is_vessel_DHW
        starts = np.cumsum(rng.uniform(7, 17, times)) - 60  # seconds at which a bolus passes (row, column)
        delay = along[inside_DHW] / speed
        for start in starts[starts < times_s[-1] + 60]:
            passing_TDHW[:, inside_DHW] += np.exp(-(((times_s[:, None] - start - delay) / 1.5) ** 2) / 2)
        is_vessel_DHW |= inside_DHW
    level_DHW = 100 * np.exp(LEVEL_SPREAD * _unit_field(rng, shape, 2.0))
    return (level_DHW + 80 * passing_TDHW + rng.normal(0, noise, passing_TDHW.shape)).astype(np.float32), is_vessel_DHW
