"""`training.sampling` of a forecast: when training shows a network true frames where it would read its own forecasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from configs.networks import AutoModel, HistoryModel, PredRNNModel, SimVPModel
from configs.schema import Finding, Sections, Strict

if TYPE_CHECKING:
    from pipelines.learning.schedules import ScheduledSampling


class SamplingConfig(Strict):
    """How often training shows a network true frames where it would read its own forecasts."""

    kind: Literal["scheduled", "reverse"] = Field(
        description="scheduled: true target frames ever less often, from always to never; reverse (PredRNN-v2): true frames of "
        "the context ever more often, from half of the time to always, and of targets from half of the time to never"
    )
    curve: Literal["linear", "exponential", "sigmoid"] = Field("linear", description="how that changes over the steps")
    until: float = Field(0.5, gt=0, le=1, description="share of all steps after which training reads what a forecast reads")

    def check(self, sections: Sections) -> Iterator[Finding]:
        where, model = ("training", "sampling"), sections.get("model")
        match model:
            case PredRNNModel():
                remedy = ""
            case SimVPModel() | HistoryModel() | AutoModel():
                remedy = "model.kind: predrnn, or take it out"
            case _:
                remedy = "" if getattr(model, "feedback", True) else "model.feedback: true, or take it out"
        if remedy:
            yield Finding(where, f"{getattr(model, 'kind', '')} does not read its own forecasts frame by frame", remedy)
        elif getattr(model, "baseline", "") == "moving_field":
            problem = "is not for model.baseline: moving_field, which is corrected at the issue date, not where targets lie"
            yield Finding(where, problem, "another baseline, or take it out")

    def build(self) -> ScheduledSampling:
        from pipelines.learning.schedules import ScheduledSampling

        return ScheduledSampling(**self.model_dump())
