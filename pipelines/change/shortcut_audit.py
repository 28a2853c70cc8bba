"""Shortcut audit of labelled change: what dates, season, position, size, missing share and site alone say of changed pixels."""

from collections.abc import Callable, Mapping

import numpy as np

from pipelines.change.metrics import CHANGED, UNCHANGED
from pipelines.change.sites import Sites
from pipelines.learning.shortcuts import Audit, Classifier, audit_shortcuts
from pipelines.samples.decoded_sites import LabelledSite, Region

SAMPLE_PX = 2000  # of each class, drawn from all sites together


def sample_pixels(sites: Sites, most: int = SAMPLE_PX, seed: int = 0) -> dict[Region, np.ndarray]:
    """Region that is left out -> (P, 2) rows and columns, in the site, of its part of the sample.

    Changed and unchanged pixels are drawn apart, each from all regions together: recall of either class stays what it is.
    """
    rng = np.random.default_rng(seed)
    regions = [region for group in sites.grouping.groups for region in group]
    found: dict[Region, list[np.ndarray]] = {region: [] for region in regions}
    for code in (UNCHANGED, CHANGED):
        counts_R = np.array([np.count_nonzero(_holds(sites, region, code)) for region in regions])
        drawn_R = rng.multivariate_hypergeometric(counts_R, min(most, int(counts_R.sum())))
        for region, number in zip(regions, drawn_R, strict=True):
            flat_P = rng.choice(np.flatnonzero(_holds(sites, region, code)), number, replace=False)
            found[region].append(np.stack(np.unravel_index(flat_P, region.tile.shape), axis=1) + np.array(region.tile.start))
    return {region: np.concatenate(parts) for region, parts in found.items()}


def _holds(sites: Sites, region: Region, code: int) -> np.ndarray:
    truth = sites.truths[region.site].cut(region.tile)
    is_code_HW: np.ndarray = (truth.label_HW == code) & truth.known_HW()
    return is_code_HW


def audit_change(
    sites: Sites, sample: Mapping[Region, np.ndarray], said: Mapping[Region, np.ndarray], build: Callable[[], Classifier], *,
    near: float, confidence: float,
) -> Audit:  # fmt: skip
    """The audit on the groups left out. `said`: region -> bool_P, what was said of the `sample` there, unseen.

    Its intervals leave out one group after the other.
    """
    rows, group_of = [], {region: g for g, group in enumerate(sites.grouping.groups) for region in group}
    regions = [region for region, pixels_P2 in sample.items() if len(pixels_P2)]
    for region in regions:
        site, number = sites.all[region.site], sites.labelled.index(region.site)
        rows.append(_metadata(site, number, sample[region]))
    metadata = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    class_P = np.concatenate([sites.all[region.site].label_HW[*sample[region].T] for region in regions]).astype(np.int64)
    group_P = np.concatenate([np.full(len(sample[region]), group_of[region]) for region in regions])
    said_P = np.concatenate([said[region] for region in regions]).astype(np.int64)
    return audit_shortcuts(metadata, class_P, group_P, group_P, said_P, build, near=near, confidence=confidence)


def _metadata(site: LabelledSite, number: int, pixels_P2: np.ndarray) -> dict[str, np.ndarray]:
    """Kind -> (P, F) float64 of some pixels of a site; dates are the first and the last one."""
    ends = site.days_T[[0, -1]].astype("datetime64[D]")
    of_year = (ends - ends.astype("datetime64[Y]")).astype(np.float64)
    of_site = {
        "date": site.days_T[[0, -1]], "season": of_year, "size": (len(site.days_T), *site.shape_yx), "site": (number,),
    }  # fmt: skip
    found = {name: np.tile(np.asarray(values, np.float64), (len(pixels_P2), 1)) for name, values in of_site.items()}
    missing_P = 1 - np.asarray(site.valid_THW[:, *pixels_P2.T]).mean(axis=0)
    return {**found, "position": pixels_P2.astype(np.float64), "missing share": missing_P[:, None]}
