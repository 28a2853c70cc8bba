"""One HTML file that tells the whole run, readable anywhere: no network, no scripts, pictures inside.

Everything that comes from files (names, messages, settings) is escaped by the template.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.calendar import span_words
from pipelines.products.cog import publish
from pipelines.products.summary import Summary

MEDIA = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
METRICS = ("mae", "rmse", "bias", "ssim")


@dataclass(frozen=True)
class Picture:
    """A picture file and the sentence under it."""

    path: Path
    title: str
    caption: str = ""


@dataclass(frozen=True)
class ReportInput:
    """What the report shows beside the summary.

    `cube` are facts to list (label -> text), `audit` is `{ok, problems, ...facts}`, `evaluation` what `Evaluation.to_json`
    returns, `config_yaml` the resolved config. `maps`, `curves` and `split` are pictures; `notes` are sentences that a
    reader must see first (for example that the model was published although it is no better).
    """

    summary: Summary
    config_yaml: str = ""
    cube: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    maps: Sequence[Picture] = ()
    curves: Sequence[Picture] = ()
    coverage: Sequence[Picture] = ()
    split: Sequence[Picture] = ()
    notes: Sequence[str] = ()


def write_report(content: ReportInput, path: Path) -> None:
    """Writes the report in one rename."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(render_report(content), encoding="utf-8")
    publish(draft, path)


def render_report(content: ReportInput) -> str:
    """The report as one HTML text."""
    environment = Environment(
        loader=PackageLoader("pipelines.products", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "percent": percent, "duration": duration, "inline": inline, "when": when}
    evaluation = content.evaluation
    model = str(evaluation.get("model", ""))
    metrics = content.summary.metrics
    return environment.get_template("report.html").render(
        c=content,
        s=content.summary,
        verdict=content.summary.verdict,
        tone=tone(content.summary.verdict),
        order=[model, *[name for name in metrics if name != model]] if model in metrics else list(metrics),
        model=model,
        shown=[metric for metric in METRICS if any(metrics[name]["overall"].get(metric) is not None for name in metrics)],
        best={metric: best_by_lead(metrics, metric) for metric in METRICS},
        leads=len(next(iter(metrics.values()))["by_lead"]) if metrics else 0,
        refused=grouped(content.summary.refused),
        facts=audit_facts(content.audit),
    )


def audit_facts(audit: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit measured, spans of days in words: a gap of 0.0035 days is 5 minutes."""
    facts = {key: value for key, value in audit.items() if key not in ("ok", "problems", "parts", "least_gap_days")}
    gaps = audit.get("least_gap_days", {})
    words = {key: "-" if days is None else span_words(days) for key, days in gaps.items()}
    return {**facts, **({"least_gap": words} if words else {})}


def tone(verdict: Mapping[str, Any]) -> str:
    """`good`, `bad` or `unsure`: how the verdict is coloured."""
    outcomes = verdict.get("outcomes", {})
    if not verdict.get("is_publishable", False):
        return "bad"
    return "good" if all(outcome == "beats" for outcome in outcomes.values()) else "unsure"


def best_by_lead(metrics: Mapping[str, Any], metric: str) -> list[float | None]:
    """The best value of any forecaster at each lead: the largest SSIM, the smallest of everything else."""
    columns = zip(*([lead[metric] for lead in of_name["by_lead"]] for of_name in metrics.values()), strict=True)
    pick = max if metric == "ssim" else min
    return [pick((value for value in column if value is not None), default=None) for column in columns]


def grouped(refused: Sequence[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    """Refusals by reason, the most frequent reason first."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for entry in refused:
        groups.setdefault(entry["reason"], []).append(entry)
    return dict(sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])))


def inline(path: Path) -> str:
    """A picture as a data URI."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def number(value: Any) -> str:
    """Three significant digits; a dash where there is no number."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}".replace("-", "−")


def when(date: str) -> str:
    """An ISO 8601 date for people: `2020-06-05`, with the time of day where it is not midnight."""
    return date.rstrip("Z").replace("T", " ").removesuffix(":00").removesuffix(" 00:00")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
