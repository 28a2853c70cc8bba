"""What is published of labelled change: per site COGs, patches and a picture; one STAC collection over all sites."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import xarray as xr

from pipelines.change.evaluation import Truth
from pipelines.change.metrics import count_changes
from pipelines.change.site_prediction import SiteChange
from pipelines.change.sites import SiteFiles, Sites, frame_of
from pipelines.cube.store import bands_of, grid_of, open_cube
from pipelines.products.before_after import Observation, PairMaps, draw_pair_quicklook, thin_rows
from pipelines.products.cog import Lineage, iso
from pipelines.products.frames import step_for
from pipelines.products.layer_cog import write_layers
from pipelines.products.layer_stac import ChangeItem, write_change_collection
from pipelines.products.layers import CHANGE_LAYERS, NOT_SEEN
from pipelines.products.polygons import outline_changes, write_polygons
from pipelines.progress import Progress
from pipelines.samples.variables import Variable, decode

TRUE_COLOURS = (("B04", "B03", "B02"), ("B4", "B3", "B2"), ("red", "green", "blue"))
MOST_LARGEST = 50


@dataclass(frozen=True)
class SiteProducts:
    """How sites are published. `measured`: figures of the method on sites left out (`describe_method`).

    `model_hash`, `config_hash`, `code_version`: the lineage that every file carries.
    """

    run: str
    threshold: float
    min_area_px: int
    measured: Mapping[str, Any]
    model_hash: str
    config_hash: str
    code_version: str


@dataclass(frozen=True)
class PublishedSites:
    """`sites`: name -> facts (dates, share seen and changed, patches, area); `largest`: rows of the largest patches."""

    sites: Mapping[str, dict[str, Any]]
    largest: Sequence[dict[str, Any]]

    @property
    def patches(self) -> int:
        return sum(facts["patches"] for facts in self.sites.values())

    def to_json(self) -> dict[str, Any]:
        """With the last dates of the sites, ISO 8601: `target_utc`, and the latest of them, `issued_utc`."""
        until = sorted({facts["to_utc"] for facts in self.sites.values()})
        return {"sites": dict(self.sites), "largest": list(self.largest), "issued_utc": until[-1], "target_utc": until}


def write_sites(
    sites: Sites,
    found: Mapping[str, SiteChange],
    settings: SiteProducts,
    folder: Path,
    pictures: Path,
    linked: Path,
    progress: Progress,
) -> PublishedSites:
    """All sites: rasters, patches and collection into `folder`; quicklook-SITE.png, and quicklook.png of the site that changed
    most, into `pictures`. The collection links to the pictures in the folder `linked`, where they will lie.
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
    metrics = {name: value for name, value in settings.measured["pooled"].items() if isinstance(value, int | float)}
    write_change_collection(folder, settings.run, text, items, pictures=shown, metrics=metrics)
    return PublishedSites(facts, largest[:MOST_LARGEST])


def picture_name(site: str) -> str:
    return f"quicklook-{site}.png"


def write_site(
    name: str, dataset: xr.Dataset, snapshot: str, change: SiteChange, settings: SiteProducts, folder: Path
) -> tuple[ChangeItem, dict[str, Any], list[dict[str, Any]]]:
    """(STAC item, facts, the largest patches) of one site, its files written into `folder`."""
    grid, times = grid_of(dataset), dataset["time"].values
    first, last = iso(times[0]), iso(times[-1])
    scenes = tuple(str(scene) for scene in dataset["scene_id"].values)
    lineage = Lineage(snapshot, settings.model_hash, settings.config_hash, settings.code_version, last, scenes)
    layers = {"probability": change.probability_HW, "mask": change.mask_HW}
    rasters = write_layers(layers, CHANGE_LAYERS, grid, "", lineage, last, folder, prefix=f"{name}-")
    confidence = {"confidence": change.probability_HW}
    patches = outline_changes(change.mask_HW, grid, confidence, min_area_px=settings.min_area_px)
    vectors = write_polygons(patches, folder, f"{name}-changes")
    facts = {"from_utc": first, "to_utc": last, **describe_mask(change.mask_HW), **describe_patches(patches)}
    item = ChangeItem(
        id=name,
        title=f"Change in {name}",
        grid=grid,
        start_utc=first,
        end_utc=last,
        layers=CHANGE_LAYERS,
        rasters=rasters,
        vectors=vectors,
        unit="",
        lineage=lineage,
        facts={key: value for key, value in facts.items() if isinstance(value, int | float)},
    )
    return item, facts, rows_of(patches)


def describe_mask(mask_HW: np.ndarray) -> dict[str, float]:
    """Shares: `seen` of all pixels, `changed` of the seen ones."""
    seen, changed = (int(np.count_nonzero(is_so)) for is_so in (np.asarray(mask_HW) != NOT_SEEN, np.asarray(mask_HW) == 1))
    return {"seen": seen / mask_HW.size, "changed": changed / max(seen, 1)}


def describe_patches(patches: geopandas.GeoDataFrame) -> dict[str, int | float]:
    return {"patches": len(patches), "area_m2": float(patches["area_m2"].sum())}


def rows_of(patches: geopandas.GeoDataFrame) -> list[dict[str, Any]]:
    """The largest patches as plain values, None where a pair cannot know (dates, magnitude)."""
    rows = patches.drop(columns="geometry").head(MOST_LARGEST)
    found: list[dict[str, Any]] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return found


# ---------------------------------------------------------------- pictures


def draw_site(
    name: str, dataset: xr.Dataset, change: SiteChange, truth: Truth | None, settings: SiteProducts, path: Path
) -> None:
    """Before and after with the change outlined, the probability, and where there is a label the comparison with it."""
    grid, mask_HW = grid_of(dataset), np.asarray(change.mask_HW)
    step = step_for(grid.shape_yx)
    maps = PairMaps(
        observation_of(dataset, 0, step),
        observation_of(dataset, -1, step),
        thin_rows(change.probability_HW, step),
        thin_rows(change.mask_HW, step),
        grid,
        None if truth is None else thin_rows(truth.label_HW, step),
        settings.threshold,
        None if truth is None else count_changes(mask_HW == 1, truth.label_HW, mask_HW != NOT_SEEN),
    )
    draw_pair_quicklook(maps, path, f"{settings.run}: {name}", how_found(settings.measured["sites"].get(name)))


def how_found(measured: Mapping[str, Any] | None) -> str:
    """Which networks found the change in a site, and its F1 with every choice made elsewhere; None: it has no label."""
    if measured is None:
        return "found by all networks"
    f1 = "" if measured["f1"] is None else f"; with the threshold too chosen on other sites, F1 is {measured['f1']:.2f}"
    return f"found by a network that has not seen this site{f1}"


def observation_of(dataset: xr.Dataset, index: int, step: int) -> Observation:
    """A date of a cube in true colour where its bands are known by name, else its first band; every `step`-th pixel."""
    bands = bands_of(dataset)
    names = [band.name for band in bands]
    shown = next((colours for colours in TRUE_COLOURS if set(colours) <= set(names)), (names[0],))
    part = dataset.isel(time=[index], y=slice(None, None, step), x=slice(None, None, step))
    variables = tuple(Variable(band, "band", (band,)) for band in shown)
    x_TCHW, valid_THW = decode(part["image"].values, part["valid"].values.astype(bool), bands, variables)
    values = np.where(valid_THW[0], x_TCHW[0], np.nan).astype(np.float32)
    date = dataset["time"].values[index]
    if len(shown) == 3:
        return Observation(date, np.moveaxis(values, 0, -1), text="true colour")
    return Observation(date, values[0], shown[0], bands[names.index(shown[0])].unit)


# ---------------------------------------------------------------- facts for the report


def describe_sites(files: Mapping[str, SiteFiles]) -> dict[str, dict[str, str]]:
    """name -> facts of a site's cube and label for a reader."""
    return {name: describe_site(one) for name, one in files.items()}


def describe_site(files: SiteFiles) -> dict[str, str]:
    dataset, shift_T_yx = open_cube(files.cube_uri, files.snapshot), frame_of(files.decoded).pair.shift_T_yx
    grid = grid_of(dataset)
    moved = [f"date {t + 1} by {dy:+.2f} down, {dx:+.2f} right" for t, (dy, dx) in enumerate(shift_T_yx) if (dy, dx) != (0, 0)]
    return {
        "dates": ", ".join(str(date)[:10] for date in dataset["time"].values),
        "bands": ", ".join(band.name for band in bands_of(dataset)),
        "grid": f"{grid.shape_yx[0]} x {grid.shape_yx[1]} pixels of {grid.resolution_xy[0]:g}, {grid.crs[:60]}",
        "moved (pixels)": "; ".join(moved) or "no date",
        "label": "none: predicted only" if files.changed_fraction is None else f"{files.changed_fraction:.2%} changed",
    }


def warnings_of(files: Mapping[str, SiteFiles]) -> list[str]:
    """What makes it doubtful that the dates of a site can be compared, as it was measured when the site was decoded."""
    return [warning for one in files.values() for warning in frame_of(one.decoded).pair.warnings]
