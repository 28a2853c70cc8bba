"""`task: change`: sites with two or more dates and a label raster each. Schema, checks, and the objects that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs import labels
from configs.compute import STAGING, Staging
from configs.labels import LabelsConfig
from configs.networks import PAIR_NETWORKS
from configs.run import CubeConfig, ModelConfig, Run, StartedTraining
from configs.schema import Finding, Fraction, Name, Sections, Strict, check_must_beat
from configs.sites import PairsConfig, SitesSource
from configs.sweep import Sweep

if TYPE_CHECKING:
    from pipelines.change.method_comparison import Comparison
    from pipelines.change.sites import SiteSettings

# Packages are imported where they are needed: a verb that only reads a config must not wait for torch, which the builders of
# detectors load (`configs.tasks.change_detectors`).

# ---------------------------------------------------------------- schema


class ChangeModel(Strict):
    """The network, and the change index that it is fused with."""

    kind: Literal["siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef"] = Field(
        "siamese_dcrn", description="the first two take two or more dates, the others exactly two"
    )
    widths: list[Annotated[int, Field(ge=1)]] = Field(
        [8, 16, 32], min_length=1, description="channels of each scale, finest first"
    )
    recurrence: Literal["convlstm", "convgru", "dcrn"] = Field("convlstm", description="of siamese_dcrn, across the dates")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of channels dropped in training")
    fuse_with: Literal["change_vector", "none"] = Field(
        "change_vector", description="the change index that the networks are fused with"
    )


class UsedChangeModel(ModelConfig, ChangeModel):
    """The network, and the change index that it is fused with; trained here, or before."""


class ChangeTraining(StartedTraining):
    """How the networks are trained."""

    epochs: int = Field(10, ge=1, description="most passes, of `windows` windows each")
    batch: int = Field(8, ge=1, description="windows per step of the optimiser")
    window_px: int = Field(64, ge=16, description="side of a window")
    windows: int = Field(400, ge=1, description="windows that an epoch draws")
    changed_share: float = Field(0.5, ge=0, le=1, description="share of them that are drawn around changed pixels")
    learning_rate: float = Field(3e-3, gt=0, description="of AdamW, at its peak")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    loss: Literal["dice", "focal", "lovasz", "cross_entropy", "dice_focal"] = Field(
        "dice_focal", description="what training makes small"
    )
    patience: int = Field(8, ge=1, description="epochs without a smaller validation loss after which training ends")
    augment: bool = Field(True, description="rotate and mirror training windows")
    reverse_time: bool = Field(True, description="also show the dates in reverse order: change has no direction")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if (model := sections.get("model")) is not None and self.window_px < (least := 2 ** len(model.widths) * 2):
            problem = f"a window of {self.window_px} pixels is too small for {len(model.widths)} scales"
            yield Finding(("training", "window_px"), problem, f"at least {least}, or fewer model.widths")


ChangeIndexName = Literal["image_difference", "change_vector", "change_vector_plain", "ir_mad"]


class ChangeEvaluation(Strict):
    """Leave one group of sites out. Sites that touch or share a scene belong in one group."""

    groups: list[list[Name]] = Field([], description="sites that are left out together; every other site is a group of its own")
    references: list[ChangeIndexName] = Field(
        ["image_difference", "change_vector_plain", "ir_mad", "change_vector"], description="change indices in the same table"
    )
    compare: list[ChangeModel] = Field([], description="other models, trained and evaluated in the same way")
    seeds: int = Field(1, ge=1, description="trainings per model, to show the spread")
    must_beat: list[ChangeIndexName] = Field(
        ["change_vector"], description="indices that a published model must beat in pooled F1"
    )
    margin: Fraction = Field(0.01, description="smallest difference of F1 that matters; a smaller one is called equal")
    confidence: Fraction = Field(0.95, description="of the intervals of the measured figures")
    near: Fraction = Field(0.05, description="metadata alone this near to the model's balanced accuracy makes it CONFOUNDED")

    def check(self, sections: Sections) -> Iterator[Finding]:
        seen: set[str] = set()
        for index, group in enumerate(self.groups):
            for site in group:
                if site in seen:
                    problem = f"{site!r} is in two groups"
                    yield Finding(("evaluation", "groups", index), problem, "a site belongs to one group, or to none")
                seen.add(site)
        yield from check_must_beat(self.must_beat, self.references, "references")
        if self.compare and getattr(sections.get("model"), "use", None) is not None:
            problem = "trains other models, and the model of this run was trained before"
            yield Finding(("evaluation", "compare"), problem, "leave it out")


class ChangePrediction(Strict):
    """Which sites are mapped, and how."""

    sites: list[Name] | None = Field(
        None,
        min_length=1,
        description="sites to map; default: all. A site that was trained on is predicted by the networks that did not see it",
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon")
    tile_px: int = Field(512, ge=16, description="sites are scored in tiles of this side: less memory, the same result")
    staging: Staging = STAGING


class ChangeRun(Run):
    """Labelled change: the sites, what is learnt, how it is evaluated."""

    task: Literal["change"]
    source: SitesSource = Field(description="where the sites come from")
    cube: CubeConfig = CubeConfig(on_other_grid="reproject", resampling="bilinear")
    labels: LabelsConfig | None = Field(None, description="which pixels changed; not needed where `model.use` names a model")
    pairs: PairsConfig = PairsConfig()
    model: UsedChangeModel = UsedChangeModel()
    training: ChangeTraining = ChangeTraining()
    evaluation: ChangeEvaluation = ChangeEvaluation()
    prediction: ChangePrediction = ChangePrediction()
    sweep: Sweep = None


# ---------------------------------------------------------------- objects


def label_file(run: ChangeRun, site: str) -> Path | None:
    """As `configs.labels.label_file`."""
    return labels.label_file(run, run.labels, site, run.prediction.sites, is_used=run.model.use is not None)


def is_only_predicted(run: ChangeRun, site: str) -> bool:
    """True for a site that prediction.sites names and that has no label."""
    from pipelines.errors import RequestError

    try:
        return label_file(run, site) is None
    except RequestError:
        return False


def build_site_settings(run: ChangeRun) -> SiteSettings:
    from pipelines.change.sites import SiteSettings
    from pipelines.samples.pairs import PairSettings

    kinds = [model.kind for model in (run.model, *run.evaluation.compare) if model.kind in PAIR_NETWORKS]
    return SiteSettings(PairSettings(**run.pairs.model_dump()), run.evaluation.groups, run.training.window_px, kinds)


def build_comparison(run: ChangeRun) -> Comparison:
    from pipelines.change.method_comparison import Comparison

    chosen = run.evaluation
    groups = tuple(tuple(group) for group in chosen.groups)
    return Comparison(tuple(chosen.must_beat), chosen.margin, chosen.confidence, groups)
