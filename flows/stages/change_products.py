"""What is published of labelled change: per site COGs, patches, a picture; one STAC collection over all sites."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import config_hash
from flows.folder import code_version
from flows.invocation import Invocation
from flows.stages.change_evaluate import read_change_evaluation
from flows.stages.change_networks import Sites
from flows.stages.predict import replace_folder
from pipelines.progress import Progress

TRUE_COLOURS = (("B04", "B03", "B02"), ("B4", "B3", "B2"), ("red", "green", "blue"))
MOST_LARGEST = 50


def publish(
    invocation: Invocation, sites: Sites, fields: dict[str, Any], threshold: float, model_hash: str, progress: Progress
) -> dict[str, Any]:
    """Files of all sites beside the old ones, then in their place; {products, sites: name -> facts, largest}."""
    from pipelines.products.layer_stac import write_change_collection

    run, folder = invocation.run, invocation.folder
    building = folder.path / ".products-building"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    pictures: dict[str, Path] = {}
    items, facts, largest = [], {}, []
    for done, (name, arrays) in enumerate(fields.items()):
        progress(done, len(fields))
        item, found, rows = write_site_products(invocation, sites, name, arrays, building, model_hash)
        items.append(item)
        facts[name] = found
        largest += [{"site": name, **row} for row in rows]
        pictures[name] = folder.path / f"quicklook-{name}.png"
        draw_site(invocation, sites, name, arrays, threshold, pictures[name])
    largest.sort(key=lambda row: -row["area_m2"])
    shutil.copyfile(pictures[max(facts, key=lambda name: facts[name]["changed"])], folder.quicklook)
    evaluation = read_change_evaluation(invocation)
    pooled = evaluation["methods"][evaluation["model"]]["pooled"]
    metrics = {name: value for name, value in pooled.items() if isinstance(value, int | float)}
    text = f"driftline change between dates in {len(fields)} sites"
    write_change_collection(building, run.name, text, items, pictures=pictures, metrics=metrics)
    replace_folder(building, folder.products)
    paths = [*sorted(folder.products.iterdir()), folder.quicklook, *pictures.values()]
    products = [str(path.relative_to(folder.path)) for path in paths]
    return {"products": products, "sites": facts, "largest": largest[:MOST_LARGEST]}


def write_site_products(
    invocation: Invocation, sites: Sites, name: str, arrays: dict[str, Any], folder: Path, model_hash: str
) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """(STAC item, facts, the largest patches) of one site, its files written into `folder`."""
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.products.cog import Lineage, iso
    from pipelines.products.layer_cog import write_layers
    from pipelines.products.layer_stac import ChangeItem
    from pipelines.products.layers import CHANGE_LAYERS
    from pipelines.products.polygons import outline_changes, write_polygons

    run = invocation.run
    dataset = open_cube(invocation.folder.cube_of(name), sites.snapshots[name])
    grid, times = grid_of(dataset), dataset["time"].values
    first, last = iso(times[0]), iso(times[-1])
    scenes = tuple(str(scene) for scene in dataset["scene_id"].values)
    lineage = Lineage(sites.snapshots[name], model_hash, config_hash(run), code_version(), last, scenes)
    rasters = write_layers(arrays, CHANGE_LAYERS, grid, "", lineage, last, folder, prefix=f"{name}-")
    patches = outline_changes(arrays["mask"], grid, {"confidence": arrays["probability"]}, min_area_px=run.prediction.min_area_px)
    vectors = write_polygons(patches, folder, f"{name}-changes")
    seen = int(np.count_nonzero(np.asarray(arrays["mask"]) != 255))
    changed = int(np.count_nonzero(np.asarray(arrays["mask"]) == 1))
    facts = {
        "from_utc": first,
        "to_utc": last,
        "seen": seen / arrays["mask"].size,
        "changed": changed / max(seen, 1),
        "patches": len(patches),
        "area_m2": float(patches["area_m2"].sum()),
    }
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


def rows_of(patches: Any) -> list[dict[str, Any]]:
    """The largest patches as plain values, None where a pair cannot know (dates, magnitude)."""
    rows = patches.drop(columns="geometry").head(MOST_LARGEST)
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def draw_site(invocation: Invocation, sites: Sites, name: str, arrays: dict[str, Any], threshold: float, path: Path) -> None:
    """Before and after with the change outlined, the probability, and where there is a label what it says."""
    from pipelines.change.metrics import count_changes
    from pipelines.cube.store import grid_of, open_cube
    from pipelines.products.before_after import PairMaps, draw_pair_quicklook, thin_rows
    from pipelines.products.frames import step_for
    from pipelines.products.layers import NOT_SEEN

    dataset = open_cube(invocation.folder.cube_of(name), sites.snapshots[name])
    grid = grid_of(dataset)
    step = step_for(grid.shape_yx)
    truth, counts = None, None
    if name in sites.labelled:
        known = sites.truths[name]
        truth = thin_rows(known.label_HW, step)
        counts = count_changes(np.asarray(arrays["mask"]) == 1, known.label_HW, np.asarray(arrays["mask"]) != NOT_SEEN)
    maps = PairMaps(
        observation_of(dataset, 0, step),
        observation_of(dataset, -1, step),
        thin_rows(arrays["probability"], step),
        thin_rows(arrays["mask"], step),
        grid,
        truth,
        threshold,
        counts,
    )
    draw_pair_quicklook(maps, path, f"{invocation.run.name}: {name}", how_found(invocation, name))


def how_found(invocation: Invocation, name: str) -> str:
    """Who found the change in a site, and what was measured there with every choice made elsewhere."""
    evaluation = read_change_evaluation(invocation)
    scores = evaluation["methods"][evaluation["model"]]["sites"].get(name)
    if scores is None:
        return "found by all networks"
    scores_of_method = "" if scores["f1"] is None else f"; with the threshold too chosen on other sites, F1 is {scores['f1']:.2f}"
    return f"found by a network that has not seen this site{scores_of_method}"


def observation_of(dataset: Any, index: int, step: int) -> Any:
    """A date of a site in true colour where its bands are known by name, else its first band."""
    from pipelines.cube.store import bands_of
    from pipelines.products.before_after import Observation
    from pipelines.samples.variables import Variable, decode

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
