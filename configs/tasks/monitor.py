"""The config of `task: monitor`: one growing cube, no labels; what changed, when, by how much."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.findings import Finding
from configs.run import CubeRun, Sections, VariableConfig
from configs.types import InputPath, Strict, UtcDate


class HarmonicModel(Strict):
    """A harmonic curve of the year per pixel, fitted robustly on the history."""

    kind: Literal["harmonic"] = "harmonic"
    harmonics: int = Field(2, ge=1, le=4)
    trend: bool = False


class RecurrentModel(Strict):
    """Small recurrent networks that correct the harmonic curve, one step a date; trained on the history of the same cube."""

    kind: Literal["recurrent"]
    harmonics: int = Field(2, ge=1, le=4)
    trend: bool = False
    radius: int = Field(0, ge=0, le=16, description="pixels around whose residuals a network sees as well; 0: its own alone")
    hidden: int = Field(8, ge=1)
    pixels: int = Field(4096, ge=64, description="stable pixels of the history that it learns from")
    epochs: int = Field(20, ge=1)
    seed: int = 0


class ForecasterModel(Strict):
    """The forecaster of a finished forecast run, asked for each new date from the dates before it."""

    kind: Literal["forecaster"]
    run: InputPath = Field(description="folder of the forecast run, e.g. runs/demo")
    harmonics: int = Field(2, ge=1, le=4, description="of the curve that says which values are too far off to forecast from")


ValueModel = Annotated[HarmonicModel | RecurrentModel | ForecasterModel, Field(discriminator="kind")]


class SequentialTest(Strict):
    """A sequential test on standardised residuals; `drift`, `cap` and `threshold` are in standard deviations."""

    kind: Literal["cusum", "mosum", "ewma"] = "cusum"
    direction: Literal["down", "up", "both"] = "both"
    drift: float = Field(2.0, ge=0, description="what a residual must exceed to count as evidence (the reference value k)")
    cap: float = Field(4.0, gt=0, description="residuals count at most this much, so that one bad date is no alarm")
    threshold: float | None = Field(None, gt=0, description="default: calibrated on the history to `false_alarms`")
    false_alarms: float = Field(10.0, gt=0, description="wanted false alarms per 1000 stable pixels and year")


class MonitoringConfig(Strict):
    start: UtcDate = Field(description="the first date that is judged; everything before it is history")
    model: ValueModel = HarmonicModel()
    test: SequentialTest = SequentialTest()
    min_history: int = Field(
        12, ge=4, description="usable dates that a pixel's history must have; with fewer it is not monitored"
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon and no alert")
    tile_px: int = Field(256, ge=16)
    keep_every: int = Field(16, ge=1, description="dates between the states that are kept for late and reprocessed scenes")


class AlertsConfig(Strict):
    min_area_m2: float = Field(0.0, ge=0)
    min_confidence: float = Field(0.0, ge=0, le=1)
    notify: list[str] = Field([], description="Prefect notification blocks, e.g. slack-webhook/forest or custom-webhook/ops")


Reference = Literal["difference", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum", "three_low"]


class MonitorEvaluation(Strict):
    """How well breaks of known size and date, put into stable pixels, are found."""

    drops: list[float] = Field([0.2, 0.4], description="sizes of the injected breaks, in units of the variable")
    references: list[Reference] = Field(
        ["difference", "three_low", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum"], description="methods in the same table"
    )
    pixels: int = Field(2000, ge=10, description="at most so many stable pixels are tested")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = 0


class MonitorRun(CubeRun):
    """One place watched: what comes in, what is expected, what counts as a change."""

    task: Literal["monitor"]
    variable: VariableConfig = Field(description="what is watched")
    monitoring: MonitoringConfig
    alerts: AlertsConfig = AlertsConfig()
    evaluation: MonitorEvaluation = MonitorEvaluation()

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        from configs.checks_monitor import check_monitor

        yield from super().check(sections)
        yield from check_monitor(sections)
