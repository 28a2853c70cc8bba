"""Scenes of several sites below one folder: one source, and so one cube, per site.

`{site}` in the pattern separates the sites. The file names hold a date (`{date:%Y%m%d}`), or a step number (`{step}`)
whose date is listed in a dates file. Note: `S2A_OPER` names hold the processing date, which can be months late; if there
is a dates file, it overrides the names.
"""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Scene
from pipelines.sources.dates import detect_date, format_date
from pipelines.sources.file_names import SITE_FIELDS, FilePattern, Named, natural_key, show_some
from pipelines.sources.folder import FolderSource, list_files, not_searched, scene_name, take_text_names
from pipelines.sources.layered import LayeredSource, locate_bands
from pipelines.sources.layers import BandRequest
from pipelines.sources.resampling import overlaps
from pipelines.sources.source import Listing, SameDate, resolve_dates

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # as names in configs: no separators, no leading dot
STEP_LINE = re.compile(r"(?P<step>[^\s,;:=]+)\s*[\s,;:=]\s*(?P<date>\S.*)")
MAX_DATES_BYTES = 1 << 20


def list_sites(path: Path, pattern: str) -> list[str]:
    """Names of the sites that `pattern` finds below `path`, sorted.

    Raises MissingInput (no folder), RequestError (no {site}, nothing found, an invalid name).
    """
    sites = sites_pattern(pattern)
    files, _ = take_text_names(list_files(path))
    found = sorted({name.site for file in files if (name := sites.match(file, any_date=True))})
    if not found:
        there = show_some(files)
        raise RequestError(f"the pattern {pattern!r} finds no site below {path}; there are {there}: correct source.pattern")
    if odd := [name for name in found if not SITE_NAME.fullmatch(name)]:
        raise RequestError(
            f"the site {odd[0]!r} below {path} cannot be used: a site's name has letters, digits and _ . - only, "
            "and begins with a letter or digit; rename the folder, or name the sites in source.sites"
        )
    return found


def sites_pattern(pattern: str) -> FilePattern:
    """The checked pattern. Raises RequestError if it has no {site}, neither date nor {step}, or points out of the folder."""
    sites = FilePattern(pattern, SITE_FIELDS)
    if not sites.has("site"):
        raise RequestError(f"the pattern {pattern!r} has no {{site}}; write {{site}} in place of the site's name")
    assert sites.date_format or sites.has("step")  # raises for a pattern without either
    _check_below(pattern, "source.pattern")
    return sites


def site_file(path: Path, template: str, site: str, key: str = "source.dates") -> Path:
    """The file that `template` (below `path`, with {site}) names for a site. Raises RequestError, MissingInput.

    `key` is the config key of the template, for messages.
    """
    _check_name(site)
    if "{" in template.replace("{site}", ""):
        raise RequestError(f"{key}: {template!r} may contain {{site}} and no other field")
    _check_below(template, key)
    file = path / template.replace("{site}", site)
    if not file.is_file():
        raise MissingInput(f"no such file: {file}, which {key}: {template} names for the site {site}")
    if not file.resolve().is_relative_to(path.resolve()):
        raise RequestError(f"{key}: {file} is a link that points out of {path}; replace it with the file")
    return file


def _check_below(template: str, key: str) -> None:
    parts = PurePosixPath(template)
    if parts.is_absolute() or ".." in parts.parts:
        raise RequestError(f"{key}: {template!r} points out of source.path; write a path below it, without ..")


def _check_name(site: str) -> None:
    if not SITE_NAME.fullmatch(site):
        raise RequestError(
            f"{site!r} is not a valid site name: letters, digits and _ . - only, beginning with a letter or digit; "
            "it is the name of one folder, not a path"
        )


@dataclass(frozen=True)
class SiteSource(LayeredSource):
    """The scenes of one site, one for each step or date.

    `pattern` is matched against the path relative to `path`. `dates` is the dates file of the steps, relative to `path`
    (it may contain {site}); required if the pattern has {step}. `others` are files of the site that are read elsewhere (its
    label), relative to `path`.
    """

    path: Path
    requested: BandRequest
    pattern: str
    site: str
    dates: str | None = None
    same_date: SameDate = "refuse"
    others: tuple[str, ...] = field(default=(), repr=False)  # fingerprints hash the repr

    def list_scenes(self) -> Listing:
        """The scenes of the site, and the files below its folder that nothing uses.

        Raises MissingInput (folder, dates file) and RequestError.

        RequestError: the pattern or the dates are wrong, fewer than two dates are left, or the scenes do not overlap.
        """
        _check_name(self.site)
        pattern = sites_pattern(self.pattern)
        if pattern.has("step"):
            listing = self._list_steps(pattern)
        else:
            of_site = self.pattern.replace("{site}", self.site)
            found = FolderSource(self.path, self.requested, of_site, same_date=self.same_date).list_scenes()
            listing = replace(found, unused=[path for path in found.unused if self._is_unused(path)])
        if len(listing.scenes) < 2:
            there = ", ".join(scene.id for scene in listing.scenes) or "none"
            refused = "".join(f"\n  {error}" for error in listing.refused[:5])
            raise RequestError(
                f"the site {self.site} has {len(listing.scenes)} date(s) ({there}), change needs two; add the missing scene, "
                f"or remove the site from source.sites{refused}"
            )
        self._check_same_site(listing.scenes)
        return listing

    def _list_steps(self, pattern: FilePattern) -> Listing:
        if self.dates is None:
            raise RequestError(
                f"the pattern {self.pattern!r} has {{step}}, but no dates file gives the dates of the steps; "
                "set source.dates, e.g. {site}/dates.txt with lines such as date_1: 20150916"
            )
        paths, misnamed = take_text_names(list_files(self.path))
        requested = self.requested.names_in_files if pattern.has_band else ()
        named = [(path, name) for path in paths if (name := pattern.match(path, requested)) and name.site == self.site]
        if not named:
            raise RequestError(self._nothing_found(pattern, paths, requested))
        steps = sorted({name.step for _, name in named}, key=natural_key)
        dates_path = site_file(self.path, self.dates, self.site)
        dates = date_steps(steps, read_steps(dates_path), f"{dates_path.name} of {self.site}")
        scenes, refused = [], list(misnamed)
        for step in steps:
            try:
                scenes.append(self._scene(step, dates[step], [(path, name) for path, name in named if name.step == step]))
            except SceneRefused as refusal:
                refused.append(refusal)
        used = {path for path, _ in named}
        rest = [path for path in paths if path not in used and path.removesuffix(".msk") not in used and self._is_unused(path)]
        other = [path for path in rest if pattern.match(path)]
        notes = [f"not used: {len(other)} files of other bands (first {other[0]})"] if other else []
        unused = [*filter(self._is_unused, not_searched(self.path)), *(path for path in rest if path not in other)]
        return resolve_dates(scenes, refused, self.same_date, unused, notes)

    def _is_unused(self, path: str) -> bool:
        """True for a path below the site's folder that is neither its dates file nor read elsewhere."""
        parts = self.pattern.split("/")[:-1]
        last = max((index for index, part in enumerate(parts) if "{site}" in part), default=-1)
        folders = [part.replace("{site}", self.site) for part in parts[: last + 1]]
        there = path.split("/")[: last + 1]
        is_of_site = (
            bool(folders)
            and len(there) == len(folders)
            and all(
                re.fullmatch(re.sub(r"\\\{[^{}]*\\\}|\\\*", "[^/]*", re.escape(folder)), part)
                for folder, part in zip(folders, there, strict=True)
            )
        )
        dates = "" if self.dates is None else self.dates.replace("{site}", self.site)
        return is_of_site and path not in (dates, *self.others)

    def _nothing_found(self, pattern: FilePattern, paths: list[str], requested: tuple[str, ...]) -> str:
        any_band = [name for path in paths if (name := pattern.match(path))]
        here = sorted({name.band for name in any_band if name.site == self.site})
        if here and requested:
            return f"the site {self.site} has none of the bands {', '.join(requested)}; its files have: {', '.join(here)}"
        sites = sorted({name.site for name in any_band})
        there = show_some(sites, 8, "none")
        return f"no site {self.site!r} below {self.path}; the pattern {self.pattern!r} finds: {there}"

    def _scene(self, step: str, observed_utc: np.datetime64, files: list[tuple[str, Named]]) -> Scene:
        label = self._label(files[0][1].key)
        by_band: dict[str, str] = {}
        for path, name in files:
            if name.band in by_band:
                detail = f"{by_band[name.band]} and {path} are both band {name.band!r} of step {step}; narrow the pattern"
                raise SceneRefused(label, "missing-band", detail)
            by_band[name.band] = path
        return Scene(label, observed_utc, locate_bands(self.path, self.requested, by_band, label))

    def _label(self, key: str) -> str:
        """The path up to the part with site and step, as bordeaux/imgs_1."""
        parts = self.pattern.split("/")
        last = max(index for index, part in enumerate(parts) if "{site}" in part or "{step}" in part)
        return scene_name("/".join(key.split("/")[: last + 1]))

    def _check_same_site(self, scenes: list[Scene]) -> None:
        """Raises RequestError if a date does not overlap the first one; the parts of one date may be adjacent.

        Files that cannot be opened are skipped here: ingest refuses them with their own reason.
        """
        grids: dict[str, list[Grid]] = {}
        for scene in scenes:
            for part in scene.parts or (scene,):
                with suppress(SceneRefused):
                    grid = self.grid_of(part, self.requested.bands[0].name)
                    grids.setdefault(scene.id, []).append(grid)
        if not grids:
            return
        (first_id, first), *others = grids.items()
        for scene_id, there in others:
            if not any(overlaps(one, other) for one in there for other in first):
                raise RequestError(
                    f"{scene_id} and {first_id} show different sites: they do not overlap "
                    f"({_bounds(there[0].bounds_xy)} in {there[0].crs[:40]}, {_bounds(first[0].bounds_xy)} in "
                    f"{first[0].crs[:40]}); correct the files of the site {self.site}, or remove it from source.sites"
                )


def _bounds(bounds_xy: tuple[float, float, float, float]) -> str:
    return ", ".join(f"{v:.9g}" for v in bounds_xy)


def read_steps(path: Path) -> dict[str, np.datetime64]:
    """Step -> date, from a text or CSV file: `date_1: 20150916`, `1 2015-09-16`, `before,2015-09-16`.

    Lines with only a date give the steps 1, 2, ... in order. Empty lines, lines that begin with # and a heading are
    ignored. Raises MissingInput, RequestError (a line without a date, a step twice, no dates).
    """
    if not path.is_file():
        raise MissingInput(f"no such dates file: {path}")
    with path.open("rb") as file:
        text = file.read(MAX_DATES_BYTES).decode("utf-8-sig", "replace")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if lines and not any(character.isdigit() for character in lines[0][1]):
        del lines[0]  # a heading
    steps: dict[str, np.datetime64] = {}
    for number, line in lines:
        whole, match = detect_date(line), STEP_LINE.fullmatch(line)
        date = whole if whole is not None else detect_date(match["date"].strip(" \t\"'")) if match else None
        if date is None:
            raise RequestError(f"{path.name}:{number}: {line[:60]!r} holds no date; write lines such as date_1: 20150916")
        step = str(len(steps) + 1) if whole is not None or match is None else match["step"].strip("\"'")
        if step in steps:
            raise RequestError(f"{path.name}:{number}: the step {step!r} has two dates; keep one of the lines")
        steps[step] = date
    if not steps:
        raise RequestError(f"{path.name} holds no dates; write lines such as date_1: 20150916")
    return steps


def date_steps(steps: list[str], dated: dict[str, np.datetime64], where: str) -> dict[str, np.datetime64]:
    """The date of each of `steps` (in their natural order); step `1` matches `1`, `date_1` or `01`.

    Raises RequestError for a step without a date, and for numbered steps whose dates are not increasing.
    """
    dates: dict[str, np.datetime64] = {}
    for step in steps:
        keys = [key for key in dated if key == step] or [key for key in dated if _step_of(key) == _step_of(step)]
        known = ", ".join(f"{key} ({format_date(dated[key])})" for key in keys or dated)
        if not keys:
            raise RequestError(f"{where} has no date for step {step}, only for {known}: add a line such as date_{step}: 20150916")
        if len({dated[key] for key in keys}) > 1:
            raise RequestError(f"{where} has two dates for step {step}: {known}; keep one of the lines")
        dates[step] = dated[keys[0]]
    numbered = [step for step in steps if re.search(r"\d$", step)]
    for earlier, later in itertools.pairwise(numbered):
        is_one_series = re.sub(r"\d+$", "", earlier) == re.sub(r"\d+$", "", later)  # after_1 may be later than before_1
        if is_one_series and dates[later] <= dates[earlier]:
            raise RequestError(
                f"{where}: the dates are in the wrong order: step {earlier} is {format_date(dates[earlier])}, step {later} is "
                f"{format_date(dates[later])}; step {later} must be later: correct the dates, or rename the steps"
            )
    return dates


def _step_of(text: str) -> str:
    """The name of a step without `date_` and leading zeros: date_01 -> 1, img-2 -> 2, before -> before."""
    number = re.search(r"(\d+)$", text)
    return str(int(number[1])) if number else re.sub(r"^(?:date|step)[ _-]?", "", text.lower())
