"""Windows read from the cube equal those of the cache."""

import torch

from pipelines.samples.cache import build_samples
from pipelines.samples.reading import read_windows


def test_windows_equal_those_of_the_cache(cube, plan, ndvi, tmp_path):
    cache = build_samples(cube, "S1", tmp_path, plan, ndvi)
    for part in ("train", "validation", "test"):
        cached = {(w.tile, float(w.target_days_K[0])): w for w in cache.windows(part)}
        read = list(read_windows(cube, plan, ndvi, part))
        assert read
        assert len(read) <= len(cached)
        for window in read:
            twin = cached[window.tile, float(window.target_days_K[0])]
            for name in (*window.arguments(), "target_KCHW", "target_valid_KHW"):
                assert torch.equal(getattr(window, name), getattr(twin, name)), name
