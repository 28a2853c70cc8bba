"""Scores of numbers of held-out samples -> evaluation: methods side by side, verdict, interval of a number, shortcut audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.learning.intervals import Outcome
from pipelines.learning.number_metrics import describe_numbers, flat_numbers, gain, half_width
from pipelines.learning.result import CLAIMS, CONFOUNDED, Criterion, Evaluation, Verdict, bounds_text, not_worse, unmet
from pipelines.learning.sample_evaluation import capped_notes, limits_of, protocol_of, spread_notes
from pipelines.learning.sample_training import describe_parts
from pipelines.learning.shortcuts import Audit
from pipelines.samples.labelled import LabelledSamples


@dataclass(frozen=True)
class AskedNumbers:
    """What is asked of the model: see `configs.tasks.regress`. `margin` is in standard deviations of the known numbers."""

    model: str
    must_equal: tuple[str, ...]
    min_r2: float | None
    margin: float
    confidence: float
    interval: float
    most_labels: int
    seed: int
    unit: str = ""


def conclude_numbers(
    samples: LabelledSamples, answers: Mapping[str, np.ndarray], single_MP: np.ndarray, audit: Audit | None, asked: AskedNumbers
) -> Evaluation:
    """`answers`: method -> (P,) for the tested samples; `single_MP`: what each network of a fold says alone."""
    tested_P = samples.tested_P
    known_P, group_P = samples.target_PK[tested_P, 0], samples.group_P[tested_P]
    ours_P, over = answers[asked.model], (group_P, asked.confidence, samples.unit)
    described = {name: describe_numbers(known_P, one, *over) for name, one in answers.items()}
    gains = {name: gain(known_P, ours_P, one, *over) for name, one in answers.items() if name != asked.model}
    margin = asked.margin * float(known_P.std())
    width, held = half_width(ours_P - known_P, group_P, asked.interval)
    outcomes: dict[str, Outcome] = {name: one.outcome(margin) for name, one in gains.items()}
    criteria = _criteria(described[asked.model], gains, audit, margin, asked)
    confounded = audit.confounded_by if audit else ()
    sentence = f"On {samples.unit} {_sentence(described, gains, outcomes, audit, criteria, margin, asked)}"
    best = min(gains, key=lambda name: described[name]["mae"]["value"], default=None)
    is_publishable = not (unmet(criteria) or confounded)
    verdict = Verdict(outcomes, (), is_publishable, sentence, samples.unit, asked.margin, asked.confidence, best, confounded)
    alone = [float(np.abs(one - known_P).mean()) for one in single_MP]
    details = {
        "number": samples.outputs[0],
        "unit": asked.unit,
        "methods": described,
        "gains": {name: one.to_json() for name, one in gains.items()},
        "single_networks": alone,
        "interval": {"confidence": asked.interval, "half_width": width, "held": held},
        "known": known_P.tolist() if len(known_P) <= 5000 else known_P[:: len(known_P) // 5000].tolist(),
        "answered": ours_P.tolist() if len(known_P) <= 5000 else ours_P[:: len(known_P) // 5000].tolist(),
        "audit": audit.to_json() if audit else None,
        "labels": {"samples": len(samples.known_P), "dropped": dict(samples.dropped), "classes": samples.counts()},
        "folds": list(describe_parts(samples)),
        "groups": len(np.unique(group_P)),
        "confidence": asked.confidence,
    }
    notes = [*limits_of(samples, asked.confidence), *spread_notes(alone, "mean absolute error")]
    notes += [*capped_notes(samples, asked.most_labels, asked.seed), *(audit.notes if audit else ())]
    methods = {name: flat_numbers(one) for name, one in described.items()}
    return Evaluation(asked.model, methods, verdict, criteria, details, tuple(notes), protocol_of(samples))


def _criteria(
    ours: Mapping[str, Any], gains: Mapping[str, Any], audit: Audit | None, margin: float, asked: AskedNumbers
) -> tuple[Criterion, ...]:
    found = [Criterion("R2", ours["r2"]["value"], asked.min_r2)] if asked.min_r2 is not None else []
    for name in asked.must_equal:
        found.append(not_worse(f"mean absolute error of {name} minus that of the {asked.model}", gains[name], margin))
    return (*found, *(audit.criteria if audit else ()))


def _sentence(
    described: Mapping[str, Any], gains: Mapping[str, Any], outcomes: Mapping[str, Outcome], audit: Audit | None,
    criteria: Sequence[Criterion], margin: float, asked: AskedNumbers,
) -> str:  # fmt: skip
    ours, unit = described[asked.model], f" {asked.unit}" if asked.unit else ""
    bounds = partial(bounds_text, confidence=asked.confidence, shown="{:.3g}".format)
    said = [
        f"that it has not seen, the {asked.model} has a mean absolute error of {ours['mae']['value']:.3g}{unit}"
        f"{bounds(ours['mae'])} and R2 {ours['r2']['value']:.3f}{bounds(ours['r2'])}."
    ]
    for name, one in gains.items():
        claim = CLAIMS[outcomes[name]].format(margin=f"{margin:.3g}{unit}")
        reached = described[name]["mae"]["value"]
        said.append(f"{name}: {reached:.3g}{unit}, {one.value:+.3g} more{bounds(one.to_json())}: {claim}.")
    said += [audit.sentence] if audit else []
    if audit and audit.confounded_by:
        said.append(CONFOUNDED)
    else:
        said += unmet(criteria)
    return " ".join(said)
