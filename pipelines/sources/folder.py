"""Scenes from a folder of GeoTIFF, JPEG2000 or HDF5 files with date and band in their names.

Note: Landsat names hold the acquisition date first and the processing date second; `S2A_OPER` names hold only the
processing date. Sentinel-2 products since processing baseline 04.00 (25 January 2022) store reflectance with an offset:
physical = (stored - 1000) / 10000. A series across that day must be harmonised first, or cut at that day and given
`offset: -0.1` (https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming).
Links that point out of the folder are refused; folders that are links, and what is hidden, are not searched but counted.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Asset, Scene
from pipelines.sources.dates import parse_date
from pipelines.sources.expansion import expand_times
from pipelines.sources.file_names import FilePattern, Named, natural_key, propose_pattern, show_some
from pipelines.sources.layered import LayeredSource, locate_bands
from pipelines.sources.layers import BandRequest
from pipelines.sources.metadata_files import product_files
from pipelines.sources.source import Listing, SameDate, resolve_dates

LITTER = (".ds_store", "thumbs.db", "desktop.ini")
MOST_COUNTED = 10_000  # files of a hidden folder


@dataclass(frozen=True)
class FolderSource(LayeredSource):
    """One scene for every date (and other varying text of the name) that `pattern` finds below `path`.

    Without `{band}` in the pattern every file holds all bands in the requested order, then the quality band; a band whose
    name in the files is a number is that raster band (1-based). `variable` is the data set in HDF5 files, where `{band}`
    is replaced by the band's name in the files. A file whose data set has several times is one scene for each of them.
    """

    path: Path
    requested: BandRequest
    pattern: str
    variable: str | None = None
    same_date: SameDate = "refuse"

    def list_scenes(self) -> Listing:
        """The scenes found. Raises MissingInput (no folder), RequestError (the pattern is wrong or matches nothing)."""
        paths, misnamed = take_text_names(list_files(self.path))
        pattern = FilePattern(self.pattern)
        assert pattern.date_format  # raises for a pattern without
        bands = self.requested.names_in_files if pattern.has_band else ()
        found: dict[str, dict[str, tuple[str, Named]]] = {}  # key of the scene -> band -> (path, parsed name)
        undated: dict[str, SceneRefused] = {}
        seen_undated: set[str] = set()
        for path in paths:
            if name := pattern.match(path, bands):
                found.setdefault(name.key, {})[name.band] = (path, name)
            elif name := pattern.match(path, bands, any_date=True):
                seen_undated.add(path)
                undated[name.key] = _no_date(scene_name(name.key), name.date_text, path, pattern)
        if not found:
            raise RequestError(self._nothing_found(pattern, paths))
        scenes, refused = [], []
        for key, files in sorted(found.items()):
            try:
                scenes.append(self._scene(key, files, pattern))
            except SceneRefused as refusal:
                refused.append(refusal)
        steps, of_steps, notes = expand_times(scenes, self.requested, pattern.date_format)
        used = {path for files in found.values() for path, _ in files.values()}
        used |= product_files(paths, used)
        rest = [p for p in paths if p not in used and p.removesuffix(".msk") not in used and p not in seen_undated]
        others = {path: of.band for path in rest if pattern.has_band and (of := pattern.match(path))}
        unused = [*not_searched(self.path), *(path for path in rest if path not in others)]
        refused += [*of_steps, *(undated[key] for key in sorted(undated)), *misnamed]
        notes += self._notes(pattern, set(others.values()), len(others))
        return resolve_dates(steps, refused, self.same_date, unused, notes)

    def _notes(self, pattern: FilePattern, others: set[str], count: int) -> list[str]:
        notes = []
        if not re.search(r"%[djHMS]", pattern.date_format):
            notes.append(f"the pattern {self.pattern!r} has no day: scenes are dated to the first day of the month or year")
        if others:
            notes.append(f"not used: {count} files of other bands ({', '.join(sorted(others, key=natural_key))})")
        return notes

    def _nothing_found(self, pattern: FilePattern, paths: list[str]) -> str:
        any_band = {name.band for path in paths if (name := pattern.match(path))}
        if any_band and pattern.has_band:
            requested = ", ".join(self.requested.names_in_files)
            return f"no file of {self.path} has one of the bands {requested}; the names have: {', '.join(sorted(any_band))}"
        names = propose_pattern(paths)
        proposal = f"; try pattern: {names.pattern}" if names and names.pattern != self.pattern else ""
        return f"the pattern {self.pattern!r} matches none of the files below {self.path}, such as {show_some(paths)}{proposal}"

    def _scene(self, key: str, files: dict[str, tuple[str, Named]], pattern: FilePattern) -> Scene:
        label = scene_name(key)
        date_text = next(iter(files.values()))[1].date_text
        observed_utc = parse_date(date_text, pattern.date_format)
        if observed_utc is None:
            raise _no_date(label, date_text, key, pattern)
        assets = locate_bands(self.path, self.requested, {band: path for band, (path, _) in files.items()}, label)
        if self.variable is not None:
            is_shared = "{band}" not in self.pattern + self.variable
            for name, asset in assets.items():
                variable = self.variable.replace("{band}", self.requested.name_in_file(name))
                assets[name] = Asset(asset.path, variable, asset.index - 1 if is_shared else 0)
        return Scene(label, observed_utc, assets)


def _no_date(label: str, text: str, path: str, pattern: FilePattern) -> SceneRefused:
    return SceneRefused(label, "no-date", f"{text!r} in {path} is not a date of the format {pattern.date_format!r}")


def list_files(folder: Path) -> list[str]:
    """Paths of the files below `folder`, with /, sorted, without hidden files and without folders that are links.

    Raises MissingInput for a folder that does not exist or cannot be read: skipping it would lose its scenes silently.
    """

    def refuse(error: OSError) -> None:
        raise MissingInput(f"the folder {error.filename} cannot be read: {error.strerror}; grant read permission") from error

    if not folder.is_dir():
        raise MissingInput(f"no such folder: {folder}" if not folder.exists() else f"{folder} is a file; a folder is expected")
    paths = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(here).relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        paths += [prefix + name for name in files if not name.startswith(".") and not _is_litter(name)]
    return sorted(paths)


def not_searched(folder: Path) -> list[str]:
    """What `list_files` leaves out below `folder`, sorted: folders that are links, hidden folders and files.

    Nothing is said of what operating systems leave behind (LITTER).
    """
    found = []
    for here, folders, files in os.walk(folder):
        below = Path(here).relative_to(folder)
        for name in folders:
            path = Path(here) / name
            if path.is_symlink():
                found.append(f"{(below / name).as_posix()} (a folder that is a link)")
            elif name.startswith("."):
                inside = (one for _, _, names in os.walk(path) for one in names if not _is_litter(one))
                count = sum(1 for _ in itertools.islice(inside, MOST_COUNTED))
                holds = f"{count} files{' or more' if count == MOST_COUNTED else ''}" if count != 1 else "1 file"
                found += [f"{(below / name).as_posix()} (a hidden folder with {holds})"] if count else []
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [f"{(below / name).as_posix()} (hidden)" for name in files if name.startswith(".") and not _is_litter(name)]
    return take_text_names(sorted(found))[0]


def _is_litter(name: str) -> bool:
    return name.lower() in LITTER or name.startswith("._")


def take_text_names(paths: list[str]) -> tuple[list[str], list[SceneRefused]]:
    """The paths that are valid UTF-8, and a refusal for each other one: neither a cube nor JSON could hold its name."""
    kept, refused = [], []
    for path in paths:
        if any("\udc80" <= character <= "\udcff" for character in path):
            refused.append(SceneRefused(ascii(path)[1:-1], "unreadable", "the file name is not UTF-8; rename the file"))
        else:
            kept.append(path)
    return kept, refused


def scene_name(key: str) -> str:
    """The id of a scene from its key: without band and suffix, the separators around the band joined."""
    stem, _, suffix = key.rpartition(".")
    text = stem if stem and "/" not in suffix else key
    head, band, tail = text.partition("{band}")
    if not band:
        return text
    while head and tail and head[-1] in "_-./" and tail[0] in "_-./":
        tail = tail[1:]
    return (head + tail.replace("{band}", "")).strip("_-./") or text
