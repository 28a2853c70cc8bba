"""Does a new scene look like those of the cube? Median and spread per band, compared robustly; outliers are named, not refused.

The figures of a scene lie in the metadata of the version that wrote it, so no pixel is read again. Versions of earlier releases
have none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pipelines.scene import Band, bands_from_json

if TYPE_CHECKING:  # workers, which sample the pixels, need neither it nor zarr
    import icechunk

Figures = list[list[float]]  # per band [median, spread] of the usable pixels, as stored
MOST_PX = 10_000  # of a scene; the median of so many is within 1 to 2 % of a standard deviation
MOST_VERSIONS = 200  # whose figures are looked up, newest first
FEWEST_SCENES = 12  # to compare with
FAR = 6.0  # robust standard deviations; of Gaussian scenes one in 5e8 is further away


def sample_pixels(image_BYX: np.ndarray, valid_YX: np.ndarray, most_px: int = MOST_PX) -> np.ndarray:
    """(band, n) of about `most_px` pixels on a regular lattice, of them the usable ones."""
    step = max(1, int(np.ceil((valid_YX.size / most_px) ** (1 / valid_YX.ndim))))
    lattice = (slice(step // 2, None, step),) * valid_YX.ndim
    found: np.ndarray = image_BYX[(slice(None), *lattice)][:, valid_YX[lattice]]
    return found


def figures_of(sample_BN: np.ndarray) -> Figures:
    """Median and spread (interquartile range over 1.349, the standard deviation of a Gaussian) per band; [] without pixels."""
    if sample_BN.shape[1] == 0:
        return []
    low, middle, high = np.percentile(sample_BN.astype(np.float64), (25, 50, 75), axis=1)
    return [[float(m), float(s)] for m, s in zip(middle.round(6), ((high - low) / 1.349).round(6), strict=True)]


def known_figures(repository: icechunk.Repository, branch: str) -> dict[str, Figures]:
    """scene id -> figures, from the newest versions."""
    known: dict[str, Figures] = {}
    for entry in islice(repository.ancestry(branch=branch), MOST_VERSIONS):
        for scene_id, figures in (entry.metadata.get("figures") or {}).items():
            known.setdefault(scene_id, figures)
    return known


def find_drift(repository: icechunk.Repository, branch: str, new: Collection[str]) -> list[str]:
    """Lines about scenes of the newest version, whose ids are `new`, that look unlike its other scenes (`find_outliers`)."""
    import zarr

    root = zarr.open_group(repository.readonly_session(branch).store, mode="r")
    bands = bands_from_json(str(root["image"].attrs["bands"]))
    return find_outliers(known_figures(repository, branch), new, bands)


def find_outliers(known: Mapping[str, Figures], new: Collection[str], bands: Sequence[Band]) -> list[str]:
    """One line for each scene of `new` of which a band's median or spread is far from those of all in `known`; furthest first."""
    of_scenes = {name: figures for name, figures in known.items() if len(figures) == len(bands)}
    if len(of_scenes) < FEWEST_SCENES:
        return []
    values_NB2 = np.array(list(of_scenes.values()))
    usual_B2 = np.median(values_NB2, axis=0)
    apart_B2 = 1.4826 * np.median(np.abs(values_NB2 - usual_B2), axis=0)
    apart_B2 = np.maximum(apart_B2, 0.02 * np.abs(usual_B2) + 1e-12)  # series that hardly vary
    lines: list[tuple[float, str]] = []
    for name in (name for name in of_scenes if name in new):
        far_B2 = np.abs(np.array(of_scenes[name]) - usual_B2) / apart_B2
        if far_B2.max() > FAR:
            band, kind = np.unravel_index(far_B2.argmax(), far_B2.shape)
            found, usual, apart = of_scenes[name][band][kind], usual_B2[band, kind], apart_B2[band, kind]
            what = f"{bands[band].name} has the {('median', 'spread')[kind]} {found:.6g}"
            line = f"{name}: {what}, usual are {usual:.6g} +- {apart:.3g} ({len(of_scenes)} scenes, as stored)"
            lines.append((float(far_B2.max()), line))
    return [line for _, line in sorted(lines, reverse=True)]
