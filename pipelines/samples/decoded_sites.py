"""Sites, decoded once into memory maps: what networks see of a cube, whatever its size, and its label.

A site is a cube and, unless it is only predicted, a label on the cube's grid (`pipelines.samples.site_ingest` writes both).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.compute import HERE, Compute, carry_out
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, RequestError, StateError
from pipelines.files import making, map_file, naming_full_disk, replace_folder
from pipelines.progress import Progress
from pipelines.samples import pairs
from pipelines.samples.label_codes import UNKNOWN
from pipelines.samples.pairs import ChangeFrame, Dates, PairSettings, Site, SiteFrame
from pipelines.stored_files import absolute
from pipelines.tiles import Box

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
class LabelledSite:
    """A site as the networks see it, with its truth. Arrays may be memory maps; nothing writes to them.

    `x_TCHW` float32, normalised, 0 where `valid_THW` (bool) is False; `days_T` float64 days since 1970-01-01, ascending;
    `label_HW` uint8.
    """

    name: str
    x_TCHW: np.ndarray
    valid_THW: np.ndarray
    days_T: np.ndarray
    label_HW: np.ndarray

    def __post_init__(self) -> None:
        T, _, H, W = self.x_TCHW.shape
        if self.valid_THW.shape != (T, H, W) or self.label_HW.shape != (H, W) or self.days_T.shape != (T,):
            raise ValueError(
                f"{self.name}: x has shape {self.x_TCHW.shape}, valid {self.valid_THW.shape}, label {self.label_HW.shape}, "
                f"days {self.days_T.shape}; expected one (T, C, H, W)"
            )

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.label_HW.shape[0], self.label_HW.shape[1]

    @cached_property
    def elapsed_T(self) -> np.ndarray:
        """Days since the date before, float32; 0 at the first."""
        return np.diff(self.days_T, prepend=self.days_T[:1]).astype(np.float32)


@dataclass(frozen=True, order=True)
class Region:
    """A part of a site, usually all of it, that is left out or learnt from as a whole."""

    site: str
    tile: Box


def key_of(**values: object) -> str:
    """SHA-256 (hex) of JSON values: files are named by everything that they were made from."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_cubes(files: Mapping[str, SiteFiles]) -> None:
    """Raises MissingInput where the cube of a site, or the version of it that was ingested last, is gone."""
    for one in files.values():
        open_cube(one.cube_uri, one.snapshot)


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


# ---------------------------------------------------------------- on disk


def decode_site(
    name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None], images: Sequence[str] = ()
) -> LabelledSite:
    """What networks see of a site, or of two `images`: measured and written where it was not made from the same.

    Of processes that ask at once, as slices do, one writes. Raises as `open_sites`.
    """
    with making(files.decoded):
        if about_site(files.decoded) == files.made_from:
            return open_site(files.decoded)[0]
        return _decode(name, files, settings, notify, images)


@dataclass(frozen=True)
class DecodeWork:
    """Sites to be decoded, as work for `compute`: a piece is a site's name, its result that name and what had to be noted.

    Cubes and folders go by name: a worker writes into the run's folder, which all of them must see.
    """

    files: Mapping[str, SiteFiles]
    settings: PairSettings
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return key_of(sites={name: dict(one.made_from) for name, one in self.files.items()})

    def open(self) -> Callable[[str], tuple[str, list[str]]]:
        for one in self.files.values():
            if not (folder := one.decoded.parent).is_dir():
                raise RequestError(f"this worker does not see {folder}: the run's folder must be one that all of them share")
        return self.decode

    def decode(self, name: str) -> tuple[str, list[str]]:
        said = list[str]()
        decode_site(name, self.files[name], self.settings, said.append)
        return name, said

    def limit(self, threads: int) -> None:
        """NumPy and SciPy alone, which take one."""

    def __getstate__(self) -> dict[str, object]:
        files = {
            name: replace(
                one, cube_uri=absolute(one.cube_uri), decoded=one.decoded.absolute(), label=one.label and one.label.absolute()
            )
            for name, one in self.files.items()
        }
        return {**self.__dict__, "files": files}


def decode_sites(
    files: Mapping[str, SiteFiles], settings: PairSettings, notify: Callable[[str], None], progress: Progress,
    compute: Compute = HERE,
) -> dict[str, LabelledSite]:  # fmt: skip
    """`decode_site` of all, in their order; several at once where `compute` has several workers."""
    missing = [name for name, one in files.items() if about_site(one.decoded) != one.made_from]
    if len(missing) > 1 and not (compute.is_local and compute.at_once == 1):
        for one in files.values():
            one.decoded.parent.mkdir(parents=True, exist_ok=True)
        found = dict[str, list[str]]()
        for name, said in carry_out(DecodeWork({name: files[name] for name in missing}, settings), missing, compute):
            found[name] = said
            progress(len(found), len(missing))
        for name in missing:
            for line in found[name]:
                notify(line)
    sites = {}
    for done, (name, one) in enumerate(files.items()):
        progress(done, len(files))
        sites[name] = decode_site(name, one, settings, notify)
    return sites


def _decode(
    name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None], images: Sequence[str]
) -> LabelledSite:
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
    """The site decoded into memory maps in `folder`, there as a whole or not at all; `about` comes back from `about_site`.

    For whoever is alone in `making` the folder: what a killed process left of it is overwritten.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shape = len(site.days_T), len(site.bands), *site.shape_yx
    write_images(partial, shape, lambda tile: pairs.read_frames(site, frame, tile), pairs.MEASURED_PX)
    np.save(partial / "label.npy", label_HW)
    content = {"name": site.name, "days_T": site.days_T.tolist(), "frame": asdict(frame), "about": dict(about)}
    (partial / ABOUT).write_text(json.dumps(content, default=np.ndarray.tolist), encoding="utf-8")
    replace_folder(partial, folder)
    return open_site(folder)[0]


def write_images(folder: Path, shape: tuple[int, ...], read: Callable[[Box], Dates], tile_px: int) -> None:
    """`x.npy` (T, C, [D,] H, W) float32 and `valid.npy` (T, [D,] H, W) bool in `folder`, tile by tile. Raises StorageFull."""
    dates, _, *space = shape
    x_TCHW = new_array(folder / "x.npy", np.float32, shape)
    valid_THW = new_array(folder / "valid.npy", bool, (dates, *space))
    for tile in Box.whole(space).cut(tile_px):
        x_TCHW[:, :, *tile.slices], valid_THW[:, *tile.slices] = read(tile)
    x_TCHW.flush()
    valid_THW.flush()


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
