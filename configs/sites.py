"""Sites: one source and one cube each, with a label raster beside the images. For every task that learns from sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.build import build_request
from configs.paths import BELOW_SOURCE
from configs.run import Run
from configs.schema import Finding, InputPath, LocalPath, Name, Sections, Strict, missing_folder, suggest
from configs.sources import SourceDefaults
from configs.yaml_positions import Key

if TYPE_CHECKING:
    from pipelines.sources.sites import SiteSource

FIELDS = ("site", "step", "band", "date")  # of source.pattern
MOST_NAMES = 20  # that a message lists

# ---------------------------------------------------------------- schema


class SitesSource(SourceDefaults):
    """Folders of GeoTIFF or JPEG2000 files, one site each.

    `pattern` is matched against the path below `path`: `{site}`, `{band}`, `*`, and either `{date:%Y%m%d}` or `{step}`,
    which is looked up in the file `dates` (lines such as `date_1: 20150916`).
    """

    kind: Literal["sites"]
    path: InputPath = Field(description="the folder of the sites")
    pattern: str = Field(description="where site, band and date or step are in the path, see above")
    dates: Annotated[LocalPath | None, BELOW_SOURCE] = Field(
        None, description="path below `path` of the file that dates the steps, e.g. {site}/dates.txt"
    )
    sites: list[Name] | None = Field(
        None, min_length=1, description="names of the sites to use; default: all that the pattern finds"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        key: Key = ("source", "pattern")
        names = re.findall(r"\{([^{}:]*)(?::[^{}]*)?\}", self.pattern)
        known = "{site}, {step}, {band}, {date:%Y%m%d}; * stands for the rest"
        for name in names:
            if name not in FIELDS:
                yield Finding(key, f"unknown field {{{name}}}", suggest(name, FIELDS, known, "{{{}}}".format))
        if "site" not in names:
            yield Finding(key, "the pattern has no {site}", "for example {site}/imgs_{step}/*_{band}.tif")
        if "step" in names and "date" in names:
            yield Finding(key, "both {step} and {date} are in the pattern", "take {step} out, or {date} and name `dates`")
        if "step" not in names and "date" not in names:
            yield Finding(key, "nothing in the pattern distinguishes the dates", "add {step} and `dates`, or {date:%Y%m%d}")
        if "step" in names and self.dates is None:
            yield Finding(("source", "dates"), "steps need a file that dates them", "for example dates: '{site}/dates.txt'")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        no_folder = list(missing_folder(Path(self.path)))
        yield from no_folder or _check_sites(self, sections)


class PairsConfig(Strict):
    """What is done to the dates of a site before anything compares them."""

    normalise: Literal["z_score", "none"] = Field("z_score", description="per site, date and band, over usable pixels")
    coregister: bool = Field(True, description="move later dates onto the first by a fraction of a pixel, where that fits better")
    max_shift_px: float = Field(2.0, gt=0, description="a larger shift is not applied, and noted")


# ---------------------------------------------------------------- checks


def check_label_path(path: str, source: object) -> Iterator[Finding]:
    """A finding for labels.path where every site would get the same label."""
    if isinstance(source, SitesSource) and "{site}" in source.pattern and "{site}" not in path:
        problem = "every site would get the same label"
        yield Finding(("labels", "path"), problem, "put {site} into it, e.g. '{site}/{site}-cm.tif'")


def _check_sites(source: SitesSource, sections: Sections) -> Iterator[Finding]:
    """Findings for what the source and the labels name on disk, and for sites that are named and not there."""
    from pipelines.errors import DriftlineError
    from pipelines.sources.sites import list_sites

    root = Path(source.path)
    try:
        there = list_sites(root, source.pattern)
    except DriftlineError as e:
        yield Finding(("source", "pattern"), str(e))
        return
    of_source: dict[Key, str] = {("source", "sites", i): name for i, name in enumerate(source.sites or ())}
    yield from _unknown_sites(of_source, there, f"no site {{!r}} below {root}")
    used = [name for name in there if source.sites is None or name in source.sites]
    yield from _unknown_sites(_sites_named(sections), used, "names {!r}, which is no site of this run")
    labels = sections.get("labels")
    label_files = [root / str(labels.path).replace("{site}", site) for site in there] if labels is not None else []
    is_trained = getattr(sections.get("model"), "use", None) is not None  # then nothing is learnt from labels
    if label_files and not is_trained and not any(path.exists() for path in label_files):
        yield Finding(("labels", "path"), f"no site has a label; the first would be {label_files[0]}", "correct the path")


def _sites_named(sections: Sections) -> dict[Key, str]:
    """Key -> the site that it names, in the groups that are left out together and in prediction.sites."""
    named: dict[Key, str] = {}
    for section in ("evaluation", "split"):
        for g, group in enumerate(getattr(sections.get(section), "groups", ())):
            named |= {(section, "groups", g, i): site for i, site in enumerate(group)}
    predicted = getattr(sections.get("prediction"), "sites", None) or ()
    return named | {("prediction", "sites", i): site for i, site in enumerate(predicted)}


def _unknown_sites(named: dict[Key, str], there: list[str], problem: str) -> Iterator[Finding]:
    shown = ", ".join(there[:MOST_NAMES]) + (f" and {len(there) - MOST_NAMES} more" if len(there) > MOST_NAMES else "")
    for key, site in named.items():
        if site not in there:
            yield Finding(key, problem.format(site), suggest(site, there, f"the sites are {shown}"))


# ---------------------------------------------------------------- objects


def has_sites(run: object) -> bool:
    """True for a run with a cube for each of several sites, or of several patients."""
    return getattr(getattr(run, "source", None), "kind", None) in ("sites", "visits")


def build_sites(run: Run) -> dict[str, SiteSource]:
    """A source of scenes for each site, by name, sorted. Raises MissingInput, RequestError (none, an unknown one)."""
    from pipelines.errors import RequestError
    from pipelines.sources.sites import SiteSource, list_sites

    source = run.source
    assert isinstance(source, SitesSource)
    found = list_sites(Path(source.path), source.pattern)
    names = source.sites if source.sites is not None else found
    if unknown := [name for name in names if name not in found]:
        problem = f"which the pattern {source.pattern!r} does not find below {source.path}; it finds {', '.join(found)}"
        raise RequestError(f"source.sites names {', '.join(unknown)}, {problem}")
    requested, path, labels = build_request(run), Path(source.path), getattr(run, "labels", None)
    others = () if labels is None else (labels.path,)
    return {
        name: SiteSource(
            path,
            requested,
            source.pattern,
            name,
            source.dates,
            run.cube.same_date,
            tuple(one.replace("{site}", name) for one in others),
        )
        for name in sorted(set(names))  # the order in which a config names them decides nothing
    }


def label_file(source: SourceDefaults, path: str, site: str, *, is_needed: bool) -> Path | None:
    """Where the label of a site lies, `path` being labels.path; None for one that has none and needs none.

    Raises MissingInput, RequestError (labels.path).
    """
    from pipelines.errors import MissingInput
    from pipelines.sources.sites import site_file

    assert isinstance(source, SitesSource)
    try:
        return site_file(Path(source.path), path, site, "labels.path")
    except MissingInput as e:
        if not is_needed:
            return None
        raise MissingInput(f"{e}. A site that is only to be predicted needs none: name it in prediction.sites") from e
