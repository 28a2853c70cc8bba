"""What a report shows of labelled change: the maps of all sites, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.learning.result import Evaluation
from pipelines.products.charts import draw_f1, draw_reliability, scores_of
from pipelines.products.section import Picture, Section
from pipelines.products.tables import area_table, label_tables, patch_table, site_table

HECTARE_M2 = 10_000
MAP_CAPTION = (
    "Before and after with the change outlined, and how likely it is. F1 below the title: with every choice (the threshold too) "
    "made on other sites. Figures on the last panel: of the map as published, with the shipped threshold."
)


def change_section(
    sites: Mapping[str, Mapping[str, Any]], largest: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path], threshold: float
) -> Section:
    """Maps, sites and largest patches. `sites`: name -> facts; `pictures`: site -> file; `threshold` of the published masks."""
    note = (
        f"With the shipped threshold ({threshold:.3f}), which was chosen on all labelled sites together. The figures under "
        "Confidence have thresholds chosen without the site, so areas and F1 differ from those of the maps."
    )
    maps = [Picture(path, name, MAP_CAPTION) for name, path in pictures.items() if path.exists()]
    return Section("change", "What changed", pictures=maps, tables=[site_table(sites, note), patch_table(largest)])


def confidence_section(evaluation: Evaluation, drafts: Path) -> Section:
    """Every method side by side, areas and curves; the curves are drawn into `drafts`."""
    details, shipped = evaluation.details, evaluation.shipped
    method = details["methods"][shipped]
    tables = label_tables(evaluation.methods, list(method["sites"]), shipped)
    if details["area"]:
        tables.append(area_table(details["area"], details["confidence"]))
    draw_f1(scores_of(details["methods"]), shipped, drafts / "f1.png")
    caption = (
        "The threshold too is chosen on other sites. Pooled over all pixels, with its "
        f"{details['confidence'] * 100:g} % interval ({method['f1_interval'].get('basis', 'blocks')}); "
        "no method has seen the site."
    )
    curves = [Picture(drafts / "f1.png", "F1 of every method and site", caption)]
    if method.get("reliability"):
        curves.append(reliability_curve(method["reliability"], drafts / "reliability.png"))
    return Section("confidence", "Confidence", text=[evaluation.protocol], pictures=curves, tables=tables)


def reliability_curve(reliability: Mapping[str, Any], path: Path) -> Picture:
    """Stated probabilities against shares that changed, drawn to `path`."""
    bins = [one for one in reliability["bins"] if one["pixels"]]
    claimed, happened, pixels = ([one[key] for one in bins] for key in ("claimed", "happened", "pixels"))
    draw_reliability(claimed, happened, pixels, path)
    caption = (
        "How often pixels that were given a probability have really changed, on sites that were left out. "
        f"Off by {reliability['expected_error']:.3f} on average."
    )
    return Picture(path, "Stated probability against what happened", caption)


def change_sentence(name: str, sites: Mapping[str, Mapping[str, Any]], evaluation: Evaluation | None) -> str:
    """What changed, where, when and how sure, in one sentence. `sites`: name -> facts of what is published, {} for nothing."""
    measured = "" if evaluation is None else accuracy_clause(evaluation.details["methods"][evaluation.shipped]["pooled"])
    if not sites:
        return f"No change is published for {name}{measured}."
    patches, area = sum(one["patches"] for one in sites.values()), sum(one["area_m2"] for one in sites.values()) / HECTARE_M2
    first, last = min(one["from_utc"] for one in sites.values())[:10], max(one["to_utc"] for one in sites.values())[:10]
    where = f"{len(sites)} sites" if len(sites) > 1 else f"the site {next(iter(sites))}"
    found = f"{patches} patches ({area:.3g} ha) have" if patches != 1 else f"1 patch ({area:.3g} ha) has"
    return f"In {where} {found} changed between {first} and {last}{measured}."


def accuracy_clause(pooled: Mapping[str, float | None]) -> str:
    """`; ...`: shares of right and of found pixels on sites left out, "" where they are not defined."""
    precision, recall = pooled["precision"], pooled["recall"]
    if precision is None or recall is None:
        return ""
    return (
        f"; on labelled sites that the model had not seen, {precision * 100:.0f} % of the pixels that it maps as changed "
        f"have changed, and it finds {recall * 100:.0f} % of those that have"
    )
