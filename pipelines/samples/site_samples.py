"""Labels and images of several sites: what a class map is learnt from where a cube each was written for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.cube.store import open_cube
from pipelines.errors import RequestError
from pipelines.progress import Progress
from pipelines.samples.class_samples import ClassSamples, SpanImages, decode_span, images_of_site, samples_of_sites, whole_span
from pipelines.samples.decoded_sites import SiteFiles, decode_site
from pipelines.samples.pairs import PairSettings
from pipelines.samples.site_groups import STRIP_GAP_PX, group_sites
from pipelines.samples.variables import Variable


@dataclass(frozen=True)
class SiteImages:
    """How the images of sites are read: `variables` in physical values, or with `pair` bands whose dates are comparable."""

    variables: tuple[Variable, ...]
    pair: PairSettings | None
    notify: Callable[[str], None]

    def open(self, name: str, files: SiteFiles) -> SpanImages:
        """All dates of a site as memory maps, decoded where they are not. Raises RequestError, StorageFull."""
        if self.pair is None:
            dataset = open_cube(files.cube_uri, files.snapshot)
            span = whole_span(dataset["time"].values)
            return decode_span(dataset, span, self.variables, files.decoded, files.made_from, name)
        return images_of_site(decode_site(name, files, self.pair, self.notify))


def open_site_samples(
    files: Mapping[str, SiteFiles], images: SiteImages, classes: tuple[str, ...], together: Sequence[Sequence[str]], *,
    min_dates: int, window_px: int, progress: Progress,
) -> ClassSamples:  # fmt: skip
    """The labelled sites, each group of them (`together`) a fold. Raises RequestError."""
    opened, rasters = [], {}
    for done, (name, one) in enumerate(files.items()):
        progress(done, len(files))
        if one.label is not None:
            opened.append(images.open(name, one))
            rasters[name] = np.load(one.label, allow_pickle=False)
    if not opened:
        raise RequestError("no site has a label, so there is nothing to learn from; correct labels.path")
    shapes = {one.site: (one.shape[0], one.shape[1]) for one in opened}
    grouping = group_sites(shapes, together, least_px=window_px // 2, gap_px=STRIP_GAP_PX)
    samples = samples_of_sites(opened, rasters, classes, grouping, min_dates=min_dates, is_comparable=images.pair is not None)
    if grouping.note:
        images.notify(f"  {grouping.note}")
    return samples
