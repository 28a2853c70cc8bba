"""The sites of a run, decoded once into memory maps, and which of them are left out together.

A site is a cube and, unless it is only predicted, a label on the cube's grid (`pipelines.change.site_ingest` writes both).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.change import pairs
from pipelines.change.evaluation import Truth
from pipelines.change.groups import Grouping, group_sites
from pipelines.change.metrics import UNKNOWN
from pipelines.change.pairs import ChangeFrame, PairSettings, Site, SiteFrame
from pipelines.change.windows import LabelledSite, check_classes
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, RequestError, StateError
from pipelines.files import naming_full_disk, replace_folder
from pipelines.progress import Progress
from pipelines.samples.sampling import map_file
from pipelines.tiles import Box

STRIP_GAP_PX = 30  # between the strips of a site, so that windows do not share their surroundings
ABOUT = "site.json"


@dataclass(frozen=True)
class SiteFiles:
    """Where a site lies: its cube at version `snapshot`, and its label (.npy on the cube's grid; None: only predicted).

    `decoded` is the folder of what networks see, `made_from` what that depends on (JSON values). `changed_fraction` is of the
    label's known pixels. `bands`: those that networks see, in their order; none: all of the cube.
    """

    cube_uri: str
    snapshot: str
    label: Path | None
    decoded: Path
    made_from: Mapping[str, object]
    changed_fraction: float | None = None
    bands: tuple[str, ...] = ()


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

    Raises RequestError (dates that cannot be compared, too few sites, a group of one class), StateError (a label that does not
    fit), StorageFull.
    """
    for folder in {one.decoded.parent for one in files.values()}:
        for left in folder.glob(".*.[0-9]*"):  # half a site that a killed process left
            shutil.rmtree(left, ignore_errors=True)
    sites = {}
    for done, (name, one) in enumerate(files.items()):
        progress(done, len(files))
        is_there = about_site(one.decoded) == one.made_from
        sites[name] = open_site(one.decoded)[0] if is_there else decode_site(name, one, settings.pair, notify)
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


def choose_sites(sites: Sequence[str], requested: Sequence[str] | None, refused: Sequence[str], listed_in: Path) -> list[str]:
    """The sites to predict: all, or those requested that were not `refused`. Raises RequestError: unknown ones, or none left."""
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


# ---------------------------------------------------------------- decoded sites on disk


def decode_site(
    name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None], images: Sequence[str] = ()
) -> LabelledSite:
    """Measures a site, or two `images`, and writes what networks see of it. Raises as `open_sites`."""
    site = pairs.site_of_cube(name, open_cube(files.cube_uri, files.snapshot), files.bands)
    if images:
        site = pairs.common_ground(site, images)
    pair = pairs.measure_site(site, settings)
    for line in (*pair.notes, *(f"WARNING {warning}" for warning in pair.warnings)):
        notify(f"  {line}")
    frame = pairs.measure_change_frame(site, pair)
    label_HW = np.full(site.shape_yx, UNKNOWN, np.uint8) if files.label is None else np.load(files.label, allow_pickle=False)
    if label_HW.shape != site.shape_yx:
        raise StateError(
            f"{files.label} has shape {label_HW.shape}, the cube of {name} {site.shape_yx}; run `driftline ingest CONFIG`"
        )
    return write_site(site, frame, label_HW, files.decoded, files.made_from)


def write_site(site: Site, frame: ChangeFrame, label_HW: np.ndarray, folder: Path, about: Mapping[str, object]) -> LabelledSite:
    """The site decoded into memory maps in `folder`, there as a whole or not at all; `about` comes back from `about_site`."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    dates, bands = len(site.days_T), len(site.bands)
    x_TCHW = new_array(partial / "x.npy", np.float32, (dates, bands, *site.shape_yx))
    valid_THW = new_array(partial / "valid.npy", bool, (dates, *site.shape_yx))
    for tile in Box.whole(site.shape_yx).cut(pairs.MEASURED_PX):
        x_TCHW[..., tile.rows, tile.columns], valid_THW[..., tile.rows, tile.columns] = pairs.read_frames(site, frame, tile)
    x_TCHW.flush()
    valid_THW.flush()
    np.save(partial / "label.npy", label_HW)
    content = {"name": site.name, "days_T": site.days_T.tolist(), "frame": asdict(frame), "about": dict(about)}
    (partial / ABOUT).write_text(json.dumps(content, default=np.ndarray.tolist), encoding="utf-8")
    replace_folder(partial, folder)
    return open_site(folder)[0]


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` memory map of zeros to write into. Its blocks are asked for first: a full disk is StorageFull, not SIGBUS."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with naming_full_disk(path), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_site(folder: Path) -> tuple[LabelledSite, ChangeFrame]:
    """What `write_site` wrote, as memory maps, and the constants of the site. Raises ArtefactDamaged."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        x_TCHW, valid_THW, label_HW = (map_file(folder / f"{name}.npy") for name in ("x", "valid", "label"))
        site = LabelledSite(content["name"], x_TCHW, valid_THW, np.array(content["days_T"], np.float64), label_HW)
        frame, names = content["frame"], ("mean_TC", "std_TC", "shift_T_yx", "gain_T")
        mean_TC, std_TC, shift_T_yx, gain_T = (np.array(frame["pair"][name], np.float64) for name in names)
        notes, warnings = (tuple(frame["pair"][name]) for name in ("notes", "warnings"))
        pair = SiteFrame(mean_TC, std_TC, shift_T_yx, gain_T, notes, warnings)
        return site, ChangeFrame(pair, np.array(frame["spread_C"], np.float64), int(frame["low_frequency_px"]))
    except (OSError, ValueError, KeyError) as e:
        raise ArtefactDamaged(
            f"{folder}: the decoded site cannot be read ({e}); delete it and run `driftline train CONFIG`"
        ) from e


def frame_of(folder: Path) -> ChangeFrame:
    """The constants of a decoded site. Raises ArtefactDamaged."""
    return open_site(folder)[1]


def about_site(folder: Path) -> dict[str, Any] | None:
    """What the site was made from, as given to `write_site`; None where there is no whole site."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["about"]
        return about
    except (OSError, ValueError, KeyError):
        return None
