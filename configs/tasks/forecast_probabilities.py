"""`evaluation.probabilities` and `prediction.members` of a forecast: what the schema of the config cannot say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configs.schema import Finding, Sections


def check_probabilities(thresholds: Sequence[float], scale: float, sections: Sections) -> Iterator[Finding]:
    """Findings for thresholds that a probability cannot be given of."""
    if not thresholds:
        yield Finding(("evaluation", "probabilities"), "are of `evaluation.thresholds`, which names none", "thresholds: [0.5, 2]")
    if list(thresholds) != sorted(set(thresholds)):
        yield Finding(("evaluation", "thresholds"), "must rise and not repeat: each is a band of the maps of probability")
    variables = getattr(sections.get("samples"), "variables", None)
    if not variables:
        return
    first = variables[0]
    low, high = first.valid_range or (None, None)
    if first.transform == "log1p":
        low = max(0.0, low or 0.0)
    for index, threshold in enumerate(thresholds):
        problem = ""
        if low is not None and threshold / scale <= low:
            problem = f"{threshold:g} is reached by every value: {first.name} is at least {low * scale:g}"
        elif high is not None and threshold / scale > high:
            problem = f"{threshold:g} is reached by no value: {first.name} is at most {high * scale:g}"
        if problem:
            yield Finding(("evaluation", "thresholds", index), problem, "another threshold, threshold_scale or valid_range")


def check_members(members: int, sections: Sections) -> Iterator[Finding]:
    """Findings for members of an ensemble of which no probabilities are known."""
    if members and not getattr(sections.get("evaluation"), "probabilities", False):
        problem = "are drawn from the distributions of `evaluation.probabilities`, which is not set"
        yield Finding(("prediction", "members"), problem, "evaluation: {probabilities: true, thresholds: [...]}, or take it out")
