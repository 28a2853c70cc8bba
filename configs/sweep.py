"""The section `sweep`: which values `driftline sweep` tries (docs/sweep.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.schema import Finding, Sections, Seed, Strict
from configs.yaml_positions import Key

SECTIONS = ("model", "training")  # other sections change what is measured
NOT_TRIED = {  # keys of these sections that a search cannot set, and why
    "model.use": "a model that is used is not trained",
    "model.as_is": "a model that is used is not trained",
    "model.least_count": "it changes which words count",
    "model.longest": "it changes which words count",
    "training.start_from": "it names a path",
    "training.accelerator": "it says where work runs",
    "training.devices": "it says where work runs",
    "training.refit": "trials are not refitted",
    "training.most_labels": "it changes which labels validate",
    "training.most_blocks": "it changes which labels validate",
    "training.seed": "it changes which labels validate, and luck is no setting",
}


class SweepRange(Strict):
    """Numbers between two ends, both included."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="values are spread evenly over the logarithm")
    step: float | None = Field(None, gt=0, description="values are `low` and every `step` above it; default: any number between")


class SweepConfig(Strict):
    """What `driftline sweep` tries. No other verb reads it. See sweep.md."""

    space: dict[str, SweepRange | list[Any]] = Field(
        min_length=1,
        description="key of `model` or `training`, as in `--set` -> {low, high, log, step} of a number, or a list of choices",
    )
    trials: int = Field(30, ge=1, description="how many settings are tried, with those that are pruned or fail")
    timeout_s: float | None = Field(None, gt=0, description="seconds of a call after which no trial begins; default: no limit")
    metric: str | None = Field(None, description="validation figure to choose by; default: the task's own")
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="tpe: learns from earlier trials; grid: all combinations of lists and of ranges with `step`"
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median",
        description="ends trials that fall behind; median: worse than half of the earlier ones at that epoch, after a quarter of "
        "the epochs; hyperband: many for a few epochs, few for all",
    )
    seed: Seed = Field(0, description="of what is tried, and in which order")

    def check(self, sections: Sections) -> Iterator[Finding]:
        for name, domain in self.space.items():
            key: Key = ("sweep", "space", name)
            yield from self._check_name(key, name)
            if isinstance(domain, SweepRange):
                yield from self._check_range(key, domain)
            elif not domain:
                yield Finding(key, "has no choices", "name some, or take it out")

    def _check_name(self, key: Key, name: str) -> Iterator[Finding]:
        section, _, rest = name.partition(".")
        if section not in SECTIONS or not rest:
            remedy = "for example training.learning_rate; other sections change what is measured: trials could not be compared"
            yield Finding(key, f"expected a key of {' or '.join(SECTIONS)}", remedy)
        elif name in NOT_TRIED:
            yield Finding(key, f"cannot be tried: {NOT_TRIED[name]}", "take it out")

    def _check_range(self, key: Key, domain: SweepRange) -> Iterator[Finding]:
        if domain.low >= domain.high:
            yield Finding(key, f"low {domain.low:g} is not below high {domain.high:g}", "exchange them, or give a list")
        if domain.log and domain.low <= 0:
            yield Finding(key, f"log with low {domain.low:g}", "a logarithm needs numbers above 0")
        if domain.log and domain.step is not None:
            yield Finding(key, "log and step exclude each other", "take one out, or give a list of choices")
        if self.sampler == "grid" and domain.step is None:
            yield Finding(key, "a grid needs values that can be counted", "add step, or give a list of choices")


Sweep = Annotated[
    SweepConfig | None,
    Field(exclude_if=lambda value: value is None, description="what `driftline sweep` tries; no other verb reads it"),
]
