"""What `driftline evaluate` hands over, the same value for every task: methods and their figures, criteria, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.learning.verdict import Verdict

Figure = float | int | str | None


@dataclass(frozen=True)
class Criterion:
    """An acceptance criterion: whether the measured `value` is `at least` or `at most` what is `requested`.

    >>> Criterion("drops of 0.4 found", 0.98, 0.5).is_met
    True
    """

    name: str
    value: float | None
    requested: float
    kind: Literal["at least", "at most"] = "at least"
    unit: str = ""

    @property
    def is_met(self) -> bool:
        if self.value is None or self.value != self.value:
            return False
        return self.value >= self.requested if self.kind == "at least" else self.value <= self.requested

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_met": self.is_met}


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of what a run would publish, beside its baselines.

    shipped: the method that is published. methods: name -> flat figures of it; None is not measured. verdict.is_publishable opens
    the gate. details: JSON values whose keys belong to the task (errors by lead, sites, intervals...). notes: what a reader must
    know before believing the figures. protocol: how it was measured, in sentences.
    """

    shipped: str
    methods: Mapping[str, Mapping[str, Figure]]
    verdict: Verdict
    criteria: tuple[Criterion, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    protocol: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `evaluation.json` holds them beside the hash of the model and the cube's snapshot."""
        return {
            "shipped": self.shipped,
            "methods": {name: dict(figures) for name, figures in self.methods.items()},
            "verdict": self.verdict.to_json(),
            "criteria": [criterion.to_json() for criterion in self.criteria],
            "details": dict(self.details),
            "notes": list(self.notes),
            "protocol": self.protocol,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """What `to_json` wrote. Raises KeyError or TypeError for anything else."""
        verdict = {**content["verdict"], "must_beat": tuple(content["verdict"]["must_beat"])}
        criteria = [{key: value for key, value in one.items() if key != "is_met"} for one in content["criteria"]]
        return cls(
            content["shipped"],
            content["methods"],
            Verdict(**verdict),
            tuple(Criterion(**one) for one in criteria),
            content["details"],
            tuple(content["notes"]),
            content["protocol"],
        )
