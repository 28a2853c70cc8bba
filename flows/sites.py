"""Scenes and labels of several sites into a cube each, for every task that learns from sites."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from configs import build
from configs.run import Run
from configs.sites import build_sites
from configs.trained import used_by
from flows.copies import format_refusals
from flows.folder import RunFolder, finished, require
from flows.ingest_slices import require_sites, site_settings
from flows.task import Invocation, Record, format_findings, format_report, staging_of_scenes
from pipelines.errors import RequestError
from pipelines.files import write_json
from pipelines.stored_files import files_at
from pipelines.wording import counted

if TYPE_CHECKING:
    from flows.planning import Extent
    from pipelines.samples.decoded_sites import SiteFiles
    from pipelines.samples.label_codes import LabelSettings
    from pipelines.samples.site_ingest import LabelFacts
    from pipelines.sources.sites import SiteSource


@dataclass(frozen=True)
class SiteLabels:
    """How labels of sites are read (None: not at all), where that of a site lies, and how many dates a site must have."""

    settings: LabelSettings | None
    file_of: Callable[[str], Path | None]
    least_dates: int


def extent_of(run: Run, folder: RunFolder, sources: Mapping[str, SiteSource], *, reads_source: bool) -> Extent:
    """All sites as one of as many pixels, with the dates of the longest series; with what an ingest would do, if it is asked."""
    from flows.planning import Extent
    from pipelines.grid import require_lonlat

    shapes, first = [require_lonlat(source.native_grid()).shape_yx for source in sources.values()], next(iter(sources.values()))
    pixels, width = sum(rows * columns for rows, columns in shapes), max(columns for _, columns in shapes)
    dates = max(len(source.list_scenes().scenes) for source in sources.values())
    extent = Extent(dates, dates, (ceil(pixels / width), width), len(first.bands), first.dtype().itemsize, len(sources))
    return preview_sites(run, folder, sources, extent) if reads_source else extent


def preview_sites(run: Run, folder: RunFolder, sources: Mapping[str, SiteSource], extent: Extent) -> Extent:
    """The extent, with the scenes that an ingest would read and refuse. A site that cannot be used counts as one refusal."""
    from pipelines.cube.comparison import preview

    notes, refused, to_read = list[str](), list[str](), 0
    for name, source in sources.items():
        settings = build.build_ingest_settings(run, folder.labels / f"{name}-refused.json")
        try:
            found = preview(source, build.build_quality_mask(run), folder.cube_of(name), None, settings)
        except RequestError as e:
            notes.append(f"{name} would be refused: {e}")
            refused.append("site")
            continue
        to_read += len(found.added) + len(found.replaced)
        if found.refused:
            notes.append(f"{name}: {counted(len(found.refused), 'scene')} would be refused; the first: {found.refused[0]}")
            refused += [error.reason for error in found.refused]
    return replace(extent, notes=tuple(notes), refused=tuple(refused), to_read=to_read)


def ingest_sites(context: Invocation, labels: SiteLabels, is_only_predicted: Callable[[str], bool]) -> Record:
    """Scenes and label of every site. Raises RequestError, once all sites have been tried, where one cannot be used.

    Without it another model would be trained and evaluated, so that is for the user to say. A site that is only predicted
    is left out.
    """
    from pipelines.samples.site_ingest import refuse_sites

    sources = context.steps.do("ingest", "list the sites", lambda progress: build_sites(context.run))
    if context.is_finishing:
        context.steps.do("ingest", "check the sites of all slices", lambda _: require_sites(context, sources))
    sites: dict[str, Record] = {}
    refused: list[Record] = []
    problems: dict[str, RequestError] = {}
    for name, source in sources.items():
        try:
            sites[name] = ingest_one_site(context, name, source, labels)
            refused += sites[name].pop("refused")
        except RequestError as e:
            if not is_only_predicted(name):
                problems[name] = e
                continue
            refused.append({"scene_id": name, "reason": "site", "detail": str(e)})
            context.steps.log(f"ingest: {name} is left out: {e}")
    if problems:
        raise refuse_sites(problems, list(sites))
    is_learnt = labels.settings is not None and used_by(context.run) is None
    if is_learnt and not any(site["label_sha256"] for site in sites.values()):
        raise RequestError("no site has a label, so there is nothing to learn from; correct labels.path")
    new = sum(site.pop("is_new") for site in sites.values())
    many = counted(len(sites), "site")
    message = f"{many}, {new} with new scenes or labels" if new else f"{many} (nothing new)"
    digest = hashlib.sha256("".join(f"{n}{p['snapshot']}{p['label_sha256']}" for n, p in sites.items()).encode())
    write_json(context.folder.refused, refused)
    if context.is_finishing:
        files_at(staging_of_scenes(context)).remove("")
    return {"snapshot": digest.hexdigest(), "sites": sites, "refused": refused, "message": message, "is_new": bool(new)}


def ingest_one_site(context: Invocation, name: str, source: SiteSource, labels: SiteLabels) -> Record:
    """What the record says of a site, with `refused` and `is_new`; its cube and label are written. Raises RequestError."""
    from pipelines.cube.ingest import refusals_as_json
    from pipelines.samples.site_ingest import LabelFacts, ingest_label, ingest_site

    run, folder, steps = context.run, context.folder, context.steps
    uri = folder.cube_of(name)
    settings = site_settings(context, name, is_staged=context.is_finishing)
    if settings.quarantine is not None:
        settings = replace(settings, quarantine=str(Path(settings.quarantine) / name))
    work = partial(ingest_site, source, build.build_quality_mask(run), uri, settings, least=labels.least_dates)
    report = steps.do("ingest", f"write scenes of {name}", work)
    target, asked = folder.labels / f"{name}.npy", labels.settings

    def read(_progress: object) -> LabelFacts:
        return LabelFacts() if asked is None else ingest_label(source, uri, asked, target, labels.file_of(name))

    label = steps.do("ingest", f"read the label of {name}", read)
    steps.log(f"ingest: {name}: {format_report(report)}; {label.sentence}")
    found = [*report.notes, *format_findings(report, run.cube.on_missing)]
    for line in [*label.notes, *found, *format_refusals(report.refused, settings.refused_json)]:
        steps.log(f"  {line.strip()}")
    before = (finished(folder, "ingest") or {}).get("sites", {}).get(name, {}).get("label_sha256")
    is_new = report.is_new or label.label_sha256 != before
    return {"snapshot": report.snapshot, "is_new": is_new, "refused": refusals_as_json(report.refused), **label.to_json()}


def site_files(context: Invocation, made_by: Mapping[str, object], bands: Sequence[str] = ()) -> dict[str, SiteFiles]:
    """Where the sites of the last ingest lie. `made_by`: what decoded images depend on beside cube, label and bands.

    Raises MissingInput.
    """
    from pipelines.samples.decoded_sites import SiteFiles

    folder, files = context.folder, {}
    for name, about in require(folder, "ingest")["sites"].items():
        label = folder.labels / f"{name}.npy" if about["label_sha256"] else None
        made_from = {"snapshot": about["snapshot"], "label": about["label_sha256"], **made_by}
        made_from |= {"bands": list(bands)} if bands else {}
        uri, decoded = folder.cube_of(name), folder.samples / name
        files[name] = SiteFiles(uri, about["snapshot"], label, decoded, made_from, about["changed_fraction"], tuple(bands))
    return files


def labels_of(context: Invocation) -> dict[str, str]:
    """labelled site -> SHA-256 of its label, of the last ingest."""
    sites = require(context.folder, "ingest")["sites"]
    return {name: about["label_sha256"] for name, about in sites.items() if about["label_sha256"]}
