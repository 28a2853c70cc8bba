"""`task: follow_up`: lesions of patients from visit to visit. Schema, checks, and the objects that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.paths import READ
from configs.privacy import PrivacyConfig
from configs.run import CubeConfig, Run
from configs.schema import Finding, Fraction, LocalPath, Sections, Strict
from configs.visits import RegistrationConfig, VisitsSource

if TYPE_CHECKING:
    from pipelines.follow_up.analysis import FollowUpSettings
    from pipelines.follow_up.conclusion import AskedFigures

# ---------------------------------------------------------------- schema


class FollowedLesionsConfig(Strict):
    """Lesions of each visit, and when one of them has changed."""

    masks: str | None = Field(
        None,
        description="pattern of a mask of lesions of each visit, e.g. `{patient}/lesions{visit}.nii.gz`; lesions that touch are "
        "told apart by codes of their own; default: lesions are proposed",
    )
    change_share: float = Field(0.3, gt=0, le=10, description="change of volume above which a lesion is enlarging or shrinking")
    least_mm: float = Field(3.0, ge=0, le=50, description="lesions with a shorter longest axial diameter, in mm, are not counted")
    match_mm: float = Field(
        2.0, gt=0, le=50, description="lesions of two visits that do not overlap are one up to this distance of their centroids"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.masks is not None and "{visit}" not in self.masks and "{date:" not in self.masks:
            yield Finding(("lesions", "masks"), "every visit would have the same mask", "put {visit} of source.pattern into it")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        decisions = sections.get("decisions")  # of the run, which is no section and is not asked itself
        if isinstance(decisions, str) and not Path(decisions).exists():
            remedy = "check the path (not repeated here: it may name a patient), or take it out"
            yield Finding(("decisions",), "there is no such file or folder", remedy)


class ChangeProposalConfig(Strict):
    """How change between two visits is proposed (`pipelines.follow_up.change_score`)."""

    threshold: float | None = Field(
        None,
        gt=0,
        description="score of a change, in spreads of the differences nearby; default: learnt from patients with a reference, of "
        "each patient from the others alone; 3.5 without any",
    )
    smooth_mm: float = Field(0.8, gt=0, le=10, description="standard deviation of the Gaussian at the scale of small lesions, mm")
    noise_mm: float = Field(5.0, gt=0, le=50, description="of the neighbourhood whose differences are usual, mm")
    edge_mm: float = Field(4.0, ge=0, le=50, description="no change is proposed nearer to the edge of the brain mask, mm")
    bright: float = Field(
        0.25, ge=-5, le=10, description="a changed voxel is this much above the brain's median at one visit, robust deviations"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.noise_mm <= self.smooth_mm:
            problem = f"{self.noise_mm:g} mm is not larger than change.smooth_mm"
            yield Finding(("change", "noise_mm"), problem, "several times change.smooth_mm")


class FollowUpEvaluation(Strict):
    """Change that is proposed beside simple differencing and a reference mask of changes."""

    reference: str | None = Field(
        None, description="pattern of a mask of changes of each patient, e.g. `{patient}/gt.nii.gz`; not every patient needs one"
    )
    confidence: Fraction = Field(0.95, description="of the intervals of the measured figures")
    margin: Fraction = Field(
        0.02, description="smallest difference of lesion-wise F1 that matters; a smaller one is called equal"
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="drawings of places of change that intervals are made from")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.reference is not None and ("{visit}" in self.reference or "{date:" in self.reference):
            problem = "is one mask for each patient, and the pattern has one for each visit"
            yield Finding(("evaluation", "reference"), problem, "write * for the visit")


class FollowUpRun(Run):
    """Follow-up of patients: which lesions are new, enlarging, shrinking, stable, disappearing, merging, splitting."""

    task: Literal["follow_up"]
    source: VisitsSource = Field(description="where the visits come from")
    registration: RegistrationConfig = RegistrationConfig()
    privacy: PrivacyConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="default: the images are de-identified, with the defaults of this section",
    )
    cube: CubeConfig = CubeConfig()
    lesions: FollowedLesionsConfig = FollowedLesionsConfig()
    change: ChangeProposalConfig = ChangeProposalConfig()
    evaluation: FollowUpEvaluation = FollowUpEvaluation()
    decisions: Annotated[LocalPath | None, READ] = Field(
        None,
        description="what a reader decided about lesions: a CSV file that the page of a patient saved, or a folder of them; "
        "default: the folder runs/NAME/decisions, if it is there",
    )


# ---------------------------------------------------------------- objects


def build_settings(run: FollowUpRun) -> FollowUpSettings:
    """How patients are followed."""
    from pipelines.follow_up.analysis import FollowUpSettings
    from pipelines.follow_up.change_score import BrightSettings, ChangeSettings
    from pipelines.follow_up.events import EventSettings

    lesions, change = run.lesions, run.change
    return FollowUpSettings(
        ChangeSettings(
            smooth_mm=change.smooth_mm,
            noise_mm=change.noise_mm,
            edge_mm=change.edge_mm,
            bright=change.bright,
            least_mm=lesions.least_mm,
        ),
        BrightSettings(smooth_mm=change.smooth_mm),
        EventSettings(change_share=lesions.change_share, least_mm=lesions.least_mm, match_mm=lesions.match_mm),
    )


def build_asked(run: FollowUpRun) -> AskedFigures:
    from pipelines.follow_up.conclusion import AskedFigures

    return AskedFigures(**run.evaluation.model_dump(exclude={"reference"}))
