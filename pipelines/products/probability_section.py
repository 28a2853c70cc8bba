"""The section of the report on probabilities of reaching thresholds: maps, reliability, Brier scores, CRPS, spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import PercentFormatter

from pipelines.learning.result import called
from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.charts import COLOURS, GREY, MARKERS
from pipelines.products.json_values import Json
from pipelines.products.probability_products import PICTURE
from pipelines.products.section import Column, Picture, Section, Table

FEWEST = 50  # pixels of a point of the reliability diagram


def probability_section(scores: Json | None, shipped: str, quicklook: Path, drafts: Path) -> Section:
    """An empty section where the config asks for no probabilities. The maps lie beside the quicklook, once published."""
    if not scores:
        return Section("probabilities", "Probabilities")
    scores, shipped = with_names(scores), called(shipped)
    maps, picture = quicklook.with_name(PICTURE), drafts / "probability_reliability.png"
    draw_probability_reliability(scores, shipped, picture)
    pictures = [Picture(maps, "Probability of reaching each threshold")] if maps.exists() else []
    pictures.append(Picture(picture, "Reliability, and where the truth lies in its distribution", reliability_caption(scores)))
    tables = [*brier_tables(scores, shipped), *distribution_tables(scores, shipped)]
    return Section("probabilities", "Probabilities of reaching a threshold", pictures=pictures, tables=tables)


def with_names(scores: Json) -> Json:
    """The scores with their methods under the names that people read."""

    def name(method: str) -> str:
        kind, comma, rest = method.partition(",")
        return f"{called(kind)}{comma}{rest}"

    by_method = ("methods", "distributions", "reliability", "ranks")
    return {**scores, **{part: {name(one): found for one, found in scores[part].items()} for part in by_method if part in scores}}


def reliability_caption(scores: Json) -> str:
    return (
        f"Left: how often it came, of all pixels that were given about this probability (points of at least {FEWEST} pixels). "
        "Right: the share of truths in each tenth of their distribution, which should be a tenth."
    )


def ordered(scores: Json, shipped: str) -> list[str]:
    return list(dict.fromkeys(name for name in (shipped, *scores["methods"]) if name in scores["methods"]))


def brier_tables(scores: Json, shipped: str) -> list[Table]:
    """Brier score and skill of every method at each threshold, and the skill by lead."""
    names, tables = ordered(scores, shipped), []
    around, known = ", ".join(f"{width:g}" for width in scores["neighbourhood_px"]), scores["references"]
    note = (
        f"Skill: 1 - Brier score / that of the {known['frequency']}, how often the pixel's past values reached the threshold. "
        "Yes or no: the forecast taken as certain. The interval is from "
        f"{scores['dates']} target dates drawn again, as if they were independent."
    )
    if around:
        note += (
            f" The {known['neighbourhood']}: the share of what lies around in the moved field, within {around} pixels by lead."
        )
    for number, threshold in enumerate(scores["thresholds"]):
        of, found = f"at least {threshold:g} {scores['unit']}".strip(), {name: scores["methods"][name][number] for name in names}
        columns = [
            Column("method", "method", "text"), Column("brier", "Brier score", "number", "low"),
            Column("skill", "Brier skill", "number", "high"), Column("skill_low", "from"), Column("skill_high", "to"),
            Column("events", "events", "whole"),
        ]  # fmt: skip
        rows = [{"method": name, **found[name]["overall"]} for name in names]
        tables.append(Table(f"Probability of {of}", columns, rows, strong=[shipped], note="" if number else note))
        leads = [lead["lead"] for lead in found[names[0]]["by_lead"]]
        columns = [Column("method", "steps ahead", "text"), *[Column(str(k), f"{k}", "number", "high") for k in leads]]
        rows = [{"method": name, **{str(lead["lead"]): lead["skill"] for lead in found[name]["by_lead"]}} for name in names]
        tables.append(Table(f"Brier skill of {of} by steps ahead", columns, rows, strong=[shipped]))
    return tables


def distribution_tables(scores: Json, shipped: str) -> list[Table]:
    """CRPS beside the mean absolute error of the forecast itself, and spread over error, overall and by lead."""
    found = scores["distributions"]
    names = [name for name in ordered(scores, shipped) if name in found]
    columns = [
        Column("method", "method", "text"), Column("crps", "CRPS", "number", "low"), Column("mae", "MAE of the forecast"),
        Column("spread_over_error", "spread / error"),
    ]  # fmt: skip
    note = (
        "CRPS of the distribution around each forecast, in physical units; that of a single value is its mean absolute error. "
        "Spread / error: root of the mean variance over the error of the mean (RMSE), 1 is right."
    )
    rows = [{"method": name, **found[name]["overall"]} for name in names]
    tables = [Table("Distribution around the forecast", columns, rows, strong=[shipped], note=note)]
    if shipped in found:
        leads = found[shipped]["by_lead"]
        columns = [Column("what", "steps ahead", "text"), *[Column(str(lead["lead"]), str(lead["lead"])) for lead in leads]]
        keys = {"crps": "CRPS", "mae": "MAE of the forecast", "spread_over_error": "spread / error"}
        rows = [{"what": text, **{str(lead["lead"]): lead[key] for lead in leads}} for key, text in keys.items()]
        tables.append(Table(f"Distribution around {shipped} by steps ahead", columns, rows))
    return tables


def draw_probability_reliability(scores: Json, shipped: str, path: Path) -> None:
    """Writes a PNG: how often events came against the probability said, a panel per threshold, and the rank histogram."""
    shown = [name for name in (shipped, scores["references"]["neighbourhood"]) if name in scores["reliability"]]
    count = len(scores["thresholds"])
    with drawing(path, (3.3 * (count + 1) + 0.3, 3.6)) as figure:
        *panels, ranks = figure.subplots(1, count + 1, squeeze=False)[0]
        for number, axes in enumerate(panels):
            axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
            for line, name in enumerate(shown):
                x, y = points(scores["reliability"][name][number])
                axes.plot(x, y, color=COLOURS[line], marker=MARKERS[line], ms=4.5, lw=2.2 - line, label=name, zorder=5 - line)
            said = f"at least {scores['thresholds'][number]:g} {scores['unit']}".strip()
            title(axes, said)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability said")
            tidy(axes)
        panels[0].set_ylabel("how often it came", color=INK)
        panels[0].legend(frameon=False, fontsize=8.5, loc="upper left")
        if shipped in scores["ranks"]:
            shares = scores["ranks"][shipped]
            ranks.bar([(number + 0.5) / len(shares) for number in range(len(shares))], shares, 0.9 / len(shares), color=GREY)
            ranks.axhline(1 / len(shares), color=INK, lw=1, ls=(0, (5, 3)))
        title(ranks, "Place of the truth")
        ranks.set(xlim=(0, 1), xlabel="place in the distribution")
        ranks.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        tidy(ranks)


def points(bins: Sequence[Json]) -> tuple[list[float], list[float]]:
    """(said, came) of the bins that hold enough pixels."""
    kept = [one for one in bins if one["pixels"] >= FEWEST]
    return [one["said"] for one in kept], [one["came"] for one in kept]
