"""One HTML file that tells the whole run, readable anywhere: no network, no scripts, pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.calendar import format_span
from pipelines.products.page import Picture, render_page, write_page
from pipelines.products.summary import Summary

METRICS = ("mae", "rmse", "bias", "ssim")


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
    write_page(render_report(content), path)


def render_report(content: ReportInput) -> str:
    """The report as one HTML text."""
    evaluation = content.evaluation
    model = str(evaluation.get("model", ""))
    metrics = content.summary.metrics
    return render_page(
        "report.html",
        content,
        verdict=content.summary.verdict,
        tone=tone(content.summary.verdict),
        order=[model, *[name for name in metrics if name != model]] if model in metrics else list(metrics),
        model=model,
        shown=[metric for metric in METRICS if any(metrics[name]["overall"].get(metric) is not None for name in metrics)],
        best={metric: best_by_lead(metrics, metric) for metric in METRICS},
        leads=len(next(iter(metrics.values()))["by_lead"]) if metrics else 0,
        facts=audit_facts(content.audit),
    )


def audit_facts(audit: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit measured, spans of days in words: a gap of 0.0035 days is 5 minutes."""
    facts = {key: value for key, value in audit.items() if key not in ("ok", "problems", "parts", "least_gap_days")}
    gaps = audit.get("least_gap_days", {})
    text = {key: "-" if days is None else format_span(days) for key, days in gaps.items()}
    return {**facts, **({"least_gap": text} if text else {})}


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
