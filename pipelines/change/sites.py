"""The decoded sites of a run, and which of them are left out together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.change.evaluation import Truth
from pipelines.change.windows import check_classes
from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import LabelledSite, SiteFiles, decode_sites, key_of
from pipelines.samples.pairs import PairSettings
from pipelines.samples.site_groups import STRIP_GAP_PX, Grouping, group_sites


@dataclass(frozen=True)
class SiteSettings:
    """How sites are prepared and grouped. `pair_networks`: kinds of networks to be trained that compare exactly two dates."""

    pair: PairSettings
    together: Sequence[Sequence[str]] = ()
    window_px: int = 64
    pair_networks: Sequence[str] = ()


@dataclass(frozen=True)
class Sites:
    """All sites of a run, decoded; `grouping` is of those `labelled`. `key` names all that they were made from, code included."""

    all: Mapping[str, LabelledSite]
    files: Mapping[str, SiteFiles]
    labelled: tuple[str, ...]
    grouping: Grouping
    key: str

    @property
    def bands(self) -> int:
        bands: int = next(iter(self.all.values())).x_TCHW.shape[1]
        return bands

    @cached_property
    def truths(self) -> dict[str, Truth]:
        """name -> Truth of the labelled sites; seen is what at least two dates saw."""
        sites = {name: self.all[name] for name in self.labelled}
        return {
            name: Truth(np.asarray(site.label_HW), np.asarray(np.sum(site.valid_THW, axis=0) >= 2))
            for name, site in sites.items()
        }


def open_sites(
    files: Mapping[str, SiteFiles], settings: SiteSettings, notify: Callable[[str], None], progress: Progress,
    compute: Compute = HERE,
) -> Sites:  # fmt: skip
    """The sites, decoded where they are not, and grouped. `notify` shows what had to be noted.

    Raises RequestError (dates that cannot be compared, too few sites, a group of one class), StateError (a label that does not
    fit), StorageFull.
    """
    sites = decode_sites(files, settings.pair, notify, progress, compute)
    longer = {name: len(site.days_T) for name, site in sites.items() if len(site.days_T) > 2}
    if longer and settings.pair_networks:
        name, dates = next(iter(longer.items()))
        raise RequestError(
            f"{settings.pair_networks[0]} compares exactly 2 dates, and {name} has {dates}; set model.kind to siamese_dcrn or "
            "l_unet, or leave dates out of the site's folder"
        )
    labelled = tuple(name for name, one in files.items() if one.label)
    if not labelled:  # of a model that was trained elsewhere
        return Sites(sites, files, (), Grouping((), ()), key_of(sites={name: dict(one.made_from) for name, one in files.items()}))
    shapes = {name: sites[name].shape_yx for name in labelled}
    grouping = group_sites(shapes, settings.together, least_px=settings.window_px // 2, gap_px=STRIP_GAP_PX)
    for name, group in zip(grouping.names, grouping.groups, strict=True):
        check_classes(sites.values(), group, f"the group {name}", is_strip=bool(grouping.note))
    return Sites(sites, files, labelled, grouping, key_of(sites={name: dict(one.made_from) for name, one in files.items()}))
