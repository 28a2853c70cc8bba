"""What samples offer to a model, or what a model was trained on: see `pipelines.learning.reuse`."""

from __future__ import annotations

import numpy as np

from pipelines.learning.reuse import Inputs, range_of
from pipelines.samples.sample_windows import SampleArrays

MOST_SAMPLES = 200


def inputs_of(arrays: SampleArrays, index_P: np.ndarray) -> Inputs:
    """Bands with the values of some samples; there are no dates, steps or places."""
    chosen_P = index_P[np.unique(np.linspace(0, len(index_P) - 1, min(len(index_P), MOST_SAMPLES)).astype(int))]
    values_CP = np.moveaxis(arrays.physical(chosen_P).numpy()[arrays.valid_NT[chosen_P]], 1, 0).reshape(len(arrays.bands), -1)
    return Inputs(tuple(range_of(band.name, band.unit, [one]) for band, one in zip(arrays.bands, values_CP, strict=True)))
