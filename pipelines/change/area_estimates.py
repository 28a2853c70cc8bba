"""How large the change is: `pipelines.learning.area_estimates` on counts of changed pixels.

The interval is right where somebody interprets the sampled pixels. Where a wall-to-wall label is the reference, the labelled area
is known without any sampling error; then the estimate shows what so many interpreted pixels would have given, and nothing of
errors in the label itself.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.change.metrics import Counts
from pipelines.learning.area_estimates import allocate_sample, estimate_areas


def estimate_area(counts: Counts, pixel_m2: float, total: int, confidence: float, seed: int = 0) -> dict[str, Any]:
    """The changed area in m2: mapped, labelled, and what a stratified sample of `total` labelled pixels would have given.

    The sample (section 5.1 of Olofsson et al. 2014) is drawn from the counts: which pixel it is does not matter.
    """
    table_SK = np.array([[counts.true_unchanged, counts.missed], [counts.false_changed, counts.true_changed]])
    pixels_S = table_SK.sum(axis=1)
    known = {"mapped_m2": counts.mapped_changed * pixel_m2, "labelled_m2": counts.labelled_changed * pixel_m2}
    if not pixels_S.any() or pixels_S[pixels_S > 0].min() < 2:
        return {**known, "estimate": None}
    sizes = allocate_sample(min(total, int(pixels_S.sum())), pixels_S, least=min(50, total // 2))
    rng = np.random.default_rng(seed)
    sample_SK = np.array([rng.multivariate_hypergeometric(row, size) for row, size in zip(table_SK, sizes, strict=True)])
    changed = estimate_areas(sample_SK, pixels_S * pixel_m2, confidence)[1]
    return {**known, "sampled": int(sample_SK.sum()), "estimate": asdict(changed)}
