"""What the keys of `summary.json` are called where people read them (report, Prefect's UI), and in which order alerts stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {
    "difference": "difference to the same season",
    "three_low": "three low in a row",
    "harmonic_mosum": "harmonic MOSUM",
    "harmonic_ewma": "harmonic EWMA",
    "harmonic_cusum": "harmonic CUSUM",
}
TESTS = {name: name.upper() for name in ("cusum", "mosum", "ewma")}
FACTS = {
    "pixels": "changed pixels", "pixels_new": "newly changed pixels", "objects": "patches", "objects_new": "new patches",
    "pixels_recovered": "pixels of patches as expected again",
}  # fmt: skip


def method_label(name: str) -> str:
    """The label of a method of monitoring: `three_low` is "three low in a row"; unknown names stay as they are."""
    return METHODS.get(name) or " ".join(TESTS.get(word, word) for word in name.split(" "))


def name_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with their keys in words; those that say themselves what they are (`area_m2`, `first_date`) keep theirs."""
    return {FACTS.get(key, key): value for key, value in facts.items()}


def latest_run_first(alerts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Alerts of the latest run first, those of one run by area, the largest first. Logs of older versions number no runs."""
    return sorted(
        alerts, key=lambda one: (-int(one.get("look", 0)), -float(one.get("area_m2") or 0.0), int(one.get("number", 0)))
    )
