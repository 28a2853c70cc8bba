"""What the schema of `task: change` cannot say: values that do not fit each other, and inputs that are not there."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.checks import RELATIVE_TO, Finding, check_bands, check_crs
from configs.tasks.change import ChangeEvaluation, ChangeModel, ChangePrediction, ChangeTraining, LabelsConfig, SitesSource
from configs.yaml_positions import Key

FIELDS = ("site", "step", "band", "date")
MOST_NAMES = 20  # that a message lists


def check_change(sections: dict[str, Any]) -> list[Finding]:
    """Findings over everything but the files; `sections` maps the fields of ChangeRun to their values or None."""
    source, labels, model = sections.get("source"), sections.get("labels"), sections.get("model")
    training, evaluation = sections.get("training"), sections.get("evaluation")
    findings: list[Finding] = []
    if source is not None:
        findings += [*check_bands(source), *check_crs(("source", "crs"), source.crs), *_check_pattern(source)]
    if labels is not None:
        findings += _check_labels(labels, source)
    if model is not None and training is not None:
        findings += _check_window(model, training)
    if evaluation is not None:
        findings += _check_evaluation(evaluation)
    return findings


def _check_pattern(source: SitesSource) -> Iterator[Finding]:
    key: Key = ("source", "pattern")
    names = re.findall(r"\{([^{}:]*)(?::[^{}]*)?\}", source.pattern)
    for name in names:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            remedy = f"did you mean {{{near[0]}}}?" if near else "{site}, {step}, {band}, {date:%Y%m%d}; * stands for the rest"
            yield Finding(key, f"unknown field {{{name}}}", remedy)
    if "site" not in names:
        yield Finding(key, "the pattern has no {site}", "for example {site}/imgs_{step}/*_{band}.tif")
    if "step" in names and "date" in names:
        yield Finding(key, "both {step} and {date} are in the pattern", "take {step} out, or {date} and name `dates`")
    if "step" not in names and "date" not in names:
        yield Finding(key, "nothing in the pattern tells the dates apart", "add {step} and `dates`, or {date:%Y%m%d}")
    if "step" in names and source.dates is None:
        yield Finding(("source", "dates"), "steps need a file that dates them", "for example dates: '{site}/dates.txt'")


def _check_labels(labels: LabelsConfig, source: SitesSource | None) -> Iterator[Finding]:
    both = sorted(set(labels.changed) & set(labels.unchanged))
    if both:
        yield Finding(("labels", "changed"), f"the codes {both} mean changed and unchanged", "every code in one of the lists")
    if source is not None and "{site}" in source.pattern and "{site}" not in labels.path:
        problem = "every site would get the same label"
        yield Finding(("labels", "path"), problem, "put {site} into it, e.g. '{site}/{site}-cm.tif'")


def _check_window(model: ChangeModel, training: ChangeTraining) -> Iterator[Finding]:
    least = 2 ** len(model.widths) * 2
    if training.window_px < least:
        problem = f"a window of {training.window_px} pixels is too small for {len(model.widths)} scales"
        yield Finding(("training", "window_px"), problem, f"at least {least}, or fewer model.widths")


def _check_evaluation(evaluation: ChangeEvaluation) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, group in enumerate(evaluation.groups):
        for site in group:
            if site in seen:
                problem = f"{site!r} is in two groups"
                yield Finding(("evaluation", "groups", index), problem, "a site belongs to one group, or to none")
            seen.add(site)
    for index, name in enumerate(evaluation.must_beat):
        if name not in evaluation.references:
            problem = f"{name!r} must be beaten but is not among the references that are computed"
            yield Finding(("evaluation", "must_beat", index), problem, f"add {name} to evaluation.references")


def check_sites(sections: dict[str, Any]) -> list[Finding]:
    """Findings for what the source and the labels name on disk, and for sites that are named and not there."""
    from pipelines.errors import DriftlineError
    from pipelines.sources.sites import list_sites

    source: SitesSource = sections["source"]
    root = Path(source.path)
    if not root.is_dir():
        problem = f"{root} is not a folder" if root.exists() else f"no folder at {root}"
        return [Finding(("source", "path"), problem, f"check the path: {RELATIVE_TO}")]
    try:
        there = list_sites(root, source.pattern)
    except DriftlineError as e:
        return [Finding(("source", "pattern"), str(e))]
    of_source: dict[Key, str] = {("source", "sites", i): name for i, name in enumerate(source.sites or ())}
    findings = [*_unknown_sites(of_source, there, f"no site {{!r}} below {root}")]
    used = [name for name in there if source.sites is None or name in source.sites]
    findings += _unknown_sites(_sites_named(sections), used, "names {!r}, which is no site of this run")
    labels: LabelsConfig | None = sections.get("labels")
    if labels is not None and there and not any((root / labels.path.replace("{site}", site)).exists() for site in there):
        first = root / labels.path.replace("{site}", there[0])
        findings.append(Finding(("labels", "path"), f"no site has a label; the first would be {first}", "mend the path"))
    return findings


def _sites_named(sections: dict[str, Any]) -> dict[Key, str]:
    """Key -> the site that it names, in evaluation.groups and prediction.sites."""
    evaluation: ChangeEvaluation | None = sections.get("evaluation")
    prediction: ChangePrediction | None = sections.get("prediction")
    named: dict[Key, str] = {}
    for g, group in enumerate(evaluation.groups if evaluation else ()):
        named |= {("evaluation", "groups", g, i): site for i, site in enumerate(group)}
    return named | {("prediction", "sites", i): site for i, site in enumerate((prediction and prediction.sites) or ())}


def _unknown_sites(named: dict[Key, str], there: list[str], problem: str) -> Iterator[Finding]:
    shown = ", ".join(there[:MOST_NAMES]) + (f" and {len(there) - MOST_NAMES} more" if len(there) > MOST_NAMES else "")
    for key, site in named.items():
        if site not in there:
            near = difflib.get_close_matches(site, there, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"the sites are {shown}"
            yield Finding(key, problem.format(site), remedy)
