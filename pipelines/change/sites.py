"""The sites of a run, decoded once into memory maps, and which of them are left out together.

A site is a cube and, unless it is only predicted, a label on the cube's grid (`pipelines.change.site_ingest` writes both).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.change.evaluation import Truth
from pipelines.change.frames import about_site, measure_change_frame, open_site, write_site
from pipelines.change.groups import Grouping, group_sites
from pipelines.change.pairs import PairSettings, measure_site, site_of_cube
from pipelines.change.windows import UNKNOWN, LabelledSite, check_classes
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, StateError
from pipelines.progress import Progress

STRIP_GAP_PX = 30  # between the strips of a site, so that windows do not share their surroundings


@dataclass(frozen=True)
class SiteFiles:
    """Where a site lies: its cube at version `snapshot`, and its label (.npy on the cube's grid; None: only predicted).

    `decoded` is the folder of what networks see, `made_from` what that depends on (JSON values). `changed_fraction` is of the
    label's known pixels.
    """

    cube_uri: str
    snapshot: str
    label: Path | None
    decoded: Path
    made_from: Mapping[str, object]
    changed_fraction: float | None = None


@dataclass(frozen=True)
class SiteSettings:
    """How sites are prepared and grouped: `together` are left out as one, `window_px` is that of training.

    `pair_networks`: kinds of networks to be trained that compare exactly two dates.
    """

    pair: PairSettings
    together: Sequence[Sequence[str]] = ()
    window_px: int = 64
    pair_networks: Sequence[str] = ()


@dataclass(frozen=True)
class Sites:
    """All sites of a run, decoded; `labelled` are those with a label, and `grouping` is theirs.

    `key` names everything that they were made from, code included.
    """

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
        return {
            name: Truth(np.asarray(self.all[name].label_HW), np.asarray(np.sum(self.all[name].valid_THW, axis=0) >= 2))
            for name in self.labelled
        }

    def describe_groups(self) -> dict[str, list[str]]:
        """group -> its sites, or its strips of them."""
        return {
            name: [f"{region.site} {region.tile.key}" if self.grouping.note else region.site for region in group]
            for name, group in zip(self.grouping.names, self.grouping.groups, strict=True)
        }


def key_of(**values: object) -> str:
    """SHA-256 (hex) of JSON values: files are named by everything that they were made from."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_cubes(files: Mapping[str, SiteFiles]) -> None:
    """Raises MissingInput where the cube of a site, or the version of it that was ingested last, is gone."""
    for one in files.values():
        open_cube(one.cube_uri, one.snapshot)


def open_sites(
    files: Mapping[str, SiteFiles], settings: SiteSettings, notify: Callable[[str], None], progress: Progress
) -> Sites:
    """The sites, decoded where they are not, and grouped. `notify` shows what had to be noted.

    Raises RequestError (dates that cannot be compared, too few sites, a group of one class), StateError, StorageFull.
    """
    decoded = decode_sites(files, settings.pair, notify, progress)
    check_series(decoded, settings.pair_networks)
    labelled = tuple(name for name, one in files.items() if one.label)
    grouping = group_labelled(decoded, labelled, settings.together, settings.window_px)
    return Sites(decoded, files, labelled, grouping, key_of(sites={name: dict(one.made_from) for name, one in files.items()}))


def decode_sites(
    files: Mapping[str, SiteFiles], settings: PairSettings, notify: Callable[[str], None], progress: Progress
) -> dict[str, LabelledSite]:
    """name -> LabelledSite; what is up to date on disk is opened.

    Raises RequestError (dates that cannot be compared), StateError (a label that does not fit), StorageFull.
    """
    for folder in {one.decoded.parent for one in files.values()}:
        for left in folder.glob(".*.[0-9]*"):  # half a site that a killed process left
            shutil.rmtree(left, ignore_errors=True)
    sites = {}
    for done, (name, one) in enumerate(files.items()):
        progress(done, len(files))
        is_there = about_site(one.decoded) == one.made_from
        sites[name] = open_site(one.decoded) if is_there else decode_site(name, one, settings, notify)
    return sites


def decode_site(name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None]) -> LabelledSite:
    """Measures a site and writes what networks see of it. Raises as `decode_sites`."""
    site = site_of_cube(name, open_cube(files.cube_uri, files.snapshot))
    pair = measure_site(site, settings)
    for note in pair.notes:
        notify(f"  {note}")
    for warning in pair.warnings:
        notify(f"  WARNING {warning}")
    frame = measure_change_frame(site, pair)
    label_HW = np.full(site.shape_yx, UNKNOWN, np.uint8) if files.label is None else np.load(files.label, allow_pickle=False)
    if label_HW.shape != site.shape_yx:
        raise StateError(
            f"{files.label} has shape {label_HW.shape}, the cube of {name} {site.shape_yx}; run `driftline ingest CONFIG`"
        )
    return write_site(site, frame, label_HW, files.decoded, dict(files.made_from))


def check_series(sites: Mapping[str, LabelledSite], pair_networks: Sequence[str]) -> None:
    """Raises RequestError where a network that compares exactly two dates (`pair_networks`: kinds) would be given more."""
    longer = {name: len(site.days_T) for name, site in sites.items() if len(site.days_T) > 2}
    if longer and pair_networks:
        name, dates = next(iter(longer.items()))
        raise RequestError(
            f"{pair_networks[0]} compares exactly 2 dates, and {name} has {dates}; set model.kind to siamese_dcrn or l_unet, or "
            "leave dates out of the site's folder"
        )


def group_labelled(
    sites: Mapping[str, LabelledSite], labelled: Sequence[str], together: Sequence[Sequence[str]], window_px: int
) -> Grouping:
    """The groups that are left out in turn. Raises RequestError: too few sites, or a group of one class."""
    shapes = {name: sites[name].shape_yx for name in labelled}
    grouping = group_sites(shapes, together, least_px=window_px // 2, gap_px=STRIP_GAP_PX)
    for name, group in zip(grouping.names, grouping.groups, strict=True):
        check_classes(sites.values(), group, f"the group {name}", is_strip=bool(grouping.note))
    return grouping


def choose_sites(sites: Sequence[str], requested: Sequence[str] | None, refused: Sequence[str], listed_in: Path) -> list[str]:
    """The sites to predict: all of `sites`, or those requested that were not `refused` (the reasons are in `listed_in`).

    Raises RequestError for one that the run does not have, or where none is left.
    """
    if requested is None:
        return list(sites)
    found = [name for name in dict.fromkeys(requested) if name not in refused]
    if unknown := [name for name in found if name not in sites]:
        raise RequestError(
            f"prediction.sites names {', '.join(unknown)}, which is no site of this run; the sites are {', '.join(sites)}"
        )
    if not found:
        raise RequestError(f"none of prediction.sites ({', '.join(requested)}) can be used: {listed_in} says why")
    return found
