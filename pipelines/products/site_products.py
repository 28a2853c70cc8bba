"""What is published of labelled change: per site COGs, patches and a picture; one STAC collection over all sites."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipelines.change.evaluation import Truth
from pipelines.change.metrics import count_changes
from pipelines.change.site_prediction import SiteChange
from pipelines.change.sites import Sites
from pipelines.cube.store import bands_of, grid_of, open_cube
from pipelines.errors import ArtefactDamaged
from pipelines.products.before_after import Observation, PairMaps, draw_pair_quicklook
from pipelines.products.cog import Lineage, iso, write_layers
from pipelines.products.frames import read_variables, thin_rows
from pipelines.products.json_values import Json
from pipelines.products.layers import CHANGE_LAYERS, NOT_SEEN, Layer
from pipelines.products.polygons import MOST_LARGEST, outline_changes, write_polygons
from pipelines.products.stac import change_item, write_collection
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import SiteFiles, frame_of
from pipelines.samples.variables import Variable

TRUE_COLOURS = (("B04", "B03", "B02"), ("B4", "B3", "B2"), ("red", "green", "blue"))


@dataclass(frozen=True)
class SiteProducts:
    """How sites are published. `measured`: figures of the method on what was left out (`describe_method`), which were strips of
    the sites where `are_strips`.

    `model_hash`, `config_hash`, `code_version`: the lineage that every file carries. `layers`: score and mask; `subtitle`: of
    pictures of sites without a label; without `is_dated` the dates of the cube stand for unknown ones and are not shown.
    is_own: the model was trained by this run.
    """

    run: str
    threshold: float
    min_area_px: int
    measured: Json
    are_strips: bool
    model_hash: str
    config_hash: str
    code_version: str
    layers: tuple[Layer, ...] = CHANGE_LAYERS
    subtitle: str = "found by all networks"
    is_dated: bool = True
    is_own: bool = True


def write_sites(
    sites: Sites, found: Mapping[str, SiteChange], settings: SiteProducts, folder: Path, pictures: Path, linked: Path,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """All sites: rasters, patches and collection into `folder`; quicklook-SITE.png, and quicklook.png of the site that changed
    most, into `pictures`. The collection links to the pictures in the folder `linked`, where they will lie.

    Returns `sites` (name -> facts: dates, share seen and changed, patches, area), `largest` (rows of the largest patches), and
    the last dates of the sites, ISO 8601: `target_utc`, and the latest of them, `issued_utc`.
    """
    items, facts, largest = [], {}, []
    for done, (name, change) in enumerate(found.items()):
        progress(done, len(found))
        dataset = open_cube(sites.files[name].cube_uri, sites.files[name].snapshot)
        item, facts[name], rows = write_site(name, dataset, sites.files[name].snapshot, change, settings, folder)
        items.append(item)
        largest += [{"site": name, **row} for row in rows]
        truth = sites.truths[name] if name in sites.labelled else None
        draw_site(name, dataset, change, truth, settings, pictures / picture_name(name))
    largest.sort(key=lambda row: -row["area_m2"])
    shutil.copyfile(pictures / picture_name(max(facts, key=lambda name: facts[name]["changed"])), pictures / "quicklook.png")
    text = f"driftline change between dates in {len(found)} sites"
    shown = {name: linked / picture_name(name) for name in found}
    write_collection(folder, settings.run, "change", text, items, pictures=shown, metrics=_numbers(settings.measured["pooled"]))
    until = sorted({one["to_utc"] for one in facts.values()})
    return {"sites": facts, "largest": largest[:MOST_LARGEST], "issued_utc": until[-1], "target_utc": until}


def picture_name(site: str) -> str:
    return f"quicklook-{site}.png"


def _numbers(values: Json) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def write_site(
    name: str, dataset: xr.Dataset, snapshot: str, change: SiteChange, settings: SiteProducts, folder: Path
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """(STAC item, facts, the largest patches: None where a pair cannot know a value) of a site, its files written into `folder`.

    Of the facts, `seen` is a share of all pixels, `changed` of the seen ones.
    """
    grid, times = grid_of(dataset), dataset["time"].values
    first, last = iso(times[0]), iso(times[-1])
    scenes = tuple(str(scene) for scene in dataset["scene_id"].values)
    lineage = Lineage(snapshot, settings.model_hash, settings.config_hash, settings.code_version, last, scenes)
    is_seen = change.mask_HW != NOT_SEEN
    if is_seen.any() and not np.isfinite(change.probability_HW[is_seen]).any():
        raise ArtefactDamaged(
            f"the change of {name} has no number on any pixel that was seen: the model is damaged, run `driftline train CONFIG`; "
            "nothing was published"
        )
    score = settings.layers[0].name
    layers = {score: change.probability_HW, "mask": change.mask_HW}
    rasters = write_layers(layers, settings.layers, grid, "", lineage, folder, prefix=f"{name}-")
    patches = outline_changes(
        change.mask_HW, grid, {"confidence": change.probability_HW}, min_area_px=settings.min_area_px
    ).rename(columns={"confidence": score})  # of a rank it has nothing: it is calibrated
    vectors = write_polygons(patches, folder, f"{name}-changes")
    seen, changed = (int(np.count_nonzero(is_so)) for is_so in (is_seen, change.mask_HW == 1))
    dates = {"from_utc": first, "to_utc": last} if settings.is_dated else {"from_utc": "", "to_utc": ""}
    facts: dict[str, Any] = {
        **dates, "seen": seen / change.mask_HW.size, "changed": changed / max(seen, 1),
        "patches": len(patches), "area_m2": float(patches["area_m2"].sum()),
    }  # fmt: skip
    title = f"Change in {name}" + ("" if settings.is_dated else " (dates unknown: those given are placeholders)")
    item = change_item(name, title, grid, first, settings.layers, rasters, vectors, "", lineage, _numbers(facts))
    rows = patches.drop(columns="geometry").head(MOST_LARGEST)
    return item, facts, rows.astype(object).where(rows.notna(), None).to_dict("records")


def draw_site(
    name: str, dataset: xr.Dataset, change: SiteChange, truth: Truth | None, settings: SiteProducts, path: Path
) -> None:
    """Before and after with the change outlined, the probability, and where there is a label the comparison with it."""
    mask_HW = np.asarray(change.mask_HW)
    before, after = (replace(observation_of(dataset, i), when="" if settings.is_dated else "date unknown") for i in (0, -1))
    maps = PairMaps(before, after, thin_rows(change.probability_HW), thin_rows(mask_HW), grid_of(dataset), settings.threshold)
    maps = replace(maps, is_score=settings.layers is not CHANGE_LAYERS)
    if truth is not None:
        counts = count_changes(mask_HW == 1, truth.label_HW, mask_HW != NOT_SEEN)
        maps = replace(maps, truth=thin_rows(truth.label_HW), counts=counts)
    text, measured = settings.subtitle, settings.measured["sites"].get(name)
    if measured is not None:  # it has a label
        text = "found by a network that has not seen this site"
        if not settings.is_own:
            text = "found by a model that was trained elsewhere"
        elif settings.are_strips:
            text = "each strip found by networks that have not seen it"
        if measured["f1"] is not None:
            part = "strips" if settings.are_strips else "sites"
            text += f"; F1 {measured['f1']:.2f}, threshold {f'chosen on the other {part}' if settings.is_own else 'of the model'}"
    draw_pair_quicklook(maps, path, name if name == settings.run else f"{settings.run}: {name}", text)


def observation_of(dataset: xr.Dataset, index: int) -> Observation:
    """A date of a cube in true colour where its bands are known by name, else its first band; thinned."""
    bands = {band.name: band for band in bands_of(dataset)}
    shown = next((colours for colours in TRUE_COLOURS if set(colours) <= bands.keys()), (next(iter(bands)),))
    values = read_variables(dataset, index, tuple(Variable(band, "band", (band,)) for band in shown))
    date = dataset["time"].values[index]
    if len(shown) == 3:
        return Observation(date, np.moveaxis(values, 0, -1))
    return Observation(date, values[0], shown[0], bands[shown[0]].unit)


def describe_site(files: SiteFiles) -> dict[str, str]:
    """Facts of a site's cube and label for a reader."""
    dataset, shift_T_yx = open_cube(files.cube_uri, files.snapshot), frame_of(files.decoded).pair.shift_T_yx
    grid = grid_of(dataset)
    moved = [f"date {t + 1} by {dy:+.2f} down, {dx:+.2f} right" for t, (dy, dx) in enumerate(shift_T_yx) if (dy, dx) != (0, 0)]
    return {
        "dates": ", ".join(str(date)[:10] for date in dataset["time"].values),
        "bands": ", ".join(band.name for band in bands_of(dataset)),
        "grid": f"{grid.shape_yx[0]} x {grid.shape_yx[1]} pixels of {grid.spacing[-1]:g}, {grid.crs[:60]}",
        "moved (pixels)": "; ".join(moved) or "no date",
        "label": "none: predicted only" if files.changed_fraction is None else f"{100 * files.changed_fraction:.2f} % changed",
    }


def warnings_of(files: Mapping[str, SiteFiles]) -> list[str]:
    """What makes it doubtful that the dates of a site can be compared, as it was measured when the site was decoded."""
    return [warning for one in files.values() for warning in frame_of(one.decoded).pair.warnings]
