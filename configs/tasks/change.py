"""The config of `task: change`: sites with two or more dates and a label raster each."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.findings import Finding
from configs.paths import BELOW_SOURCE
from configs.run import CubeConfig, Run, Sections
from configs.sources import SourceDefaults
from configs.types import Fraction, InputPath, Name, Strict


class SitesSource(SourceDefaults):
    """Folders of GeoTIFF or JPEG2000 files, one site each.

    `pattern` is matched against the path below `path`: `{site}`, `{band}`, `*`, and either `{date:%Y%m%d}` or `{step}`,
    which is looked up in the file `dates` (lines such as `date_1: 20150916`).
    """

    kind: Literal["sites"]
    path: InputPath
    pattern: str
    dates: Annotated[str | None, BELOW_SOURCE] = Field(
        None, description="path below `path` of the file that dates the steps, e.g. {site}/dates.txt"
    )
    sites: list[Name] | None = Field(None, min_length=1, description="default: all that the pattern finds")


class LabelsConfig(Strict):
    """Label rasters: which pixels changed. Codes that are in neither list are unknown and left out."""

    path: Annotated[str, BELOW_SOURCE] = Field(description="path below source.path, e.g. {site}/{site}-cm.tif")
    band: int = Field(1, ge=1)
    changed: list[int] = Field([1], min_length=1, description="codes that mean changed")
    unchanged: list[int] = Field([0], min_length=1, description="codes that mean not changed")
    grid_of: Literal["own", "first", "last"] = Field(
        "own", description="whose grid the label lies on: its own georeferencing, or the first or last scene's"
    )


class PairsConfig(Strict):
    """What is done to the dates of a site before anything compares them."""

    normalise: Literal["z_score", "none"] = Field("z_score", description="per site, date and band, over usable pixels")
    coregister: bool = Field(True, description="move later dates onto the first by a fraction of a pixel, where that fits better")
    max_shift_px: float = Field(2.0, gt=0, description="a larger shift is not believed, and said so")


class ChangeModel(Strict):
    kind: Literal["siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef"] = "siamese_dcrn"
    widths: list[Annotated[int, Field(ge=1)]] = Field(
        [8, 16, 32], min_length=1, description="channels of each scale, finest first"
    )
    recurrence: Literal["convlstm", "convgru", "dcrn"] = Field("convlstm", description="of siamese_dcrn, across the dates")
    dropout: float = Field(0.1, ge=0, lt=1)
    fuse_with: Literal["change_vector", "none"] = Field("change_vector", description="the rule that the networks are fused with")


class ChangeTraining(Strict):
    epochs: int = Field(10, ge=1)
    batch: int = Field(8, ge=1)
    window_px: int = Field(64, ge=16)
    windows: int = Field(400, ge=1, description="windows that an epoch draws")
    changed_share: float = Field(0.5, ge=0, le=1, description="share of them that are drawn around changed pixels")
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    loss: Literal["dice", "focal", "lovasz", "cross_entropy", "dice_focal"] = "dice_focal"
    clip: float = Field(1.0, gt=0)
    patience: int = Field(8, ge=1)
    augment: bool = Field(True, description="the symmetries of the square")
    reverse_time: bool = Field(True, description="also show the dates in reverse order: change has no direction")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1)
    seed: int = 0


ChangeIndexName = Literal["image_difference", "change_vector", "change_vector_plain", "ir_mad"]


class ChangeEvaluation(Strict):
    """Leave one group of sites out. Sites that touch or share a scene belong in one group."""

    groups: list[list[Name]] = Field([], description="sites that are left out together; every other site is a group of its own")
    references: list[ChangeIndexName] = Field(
        ["image_difference", "change_vector_plain", "ir_mad", "change_vector"], description="classical rules in the same table"
    )
    compare: list[ChangeModel] = Field([], description="other models, trained and judged in the same way")
    seeds: int = Field(1, ge=1, description="trainings per model, to show the spread")
    must_beat: list[ChangeIndexName] = Field(["change_vector"], description="rules that a published model must beat in pooled F1")
    margin: Fraction = Field(0.01, description="smallest difference of F1 that matters; a smaller one is called equal")
    confidence: Fraction = 0.95


class ChangePrediction(Strict):
    sites: list[Name] | None = Field(
        None,
        min_length=1,
        description="default: all; a site that was trained on is predicted by the networks that did not see it",
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon")
    tile_px: int = Field(512, ge=16, description="sites are scored in tiles of this side: less memory, the same result")


class ChangeRun(Run):
    """Labelled change: the sites, what is learnt, how it is judged."""

    task: Literal["change"]
    source: SitesSource
    cube: CubeConfig = CubeConfig(on_other_grid="reproject", resampling="bilinear")
    labels: LabelsConfig
    pairs: PairsConfig = PairsConfig()
    model: ChangeModel = ChangeModel()
    training: ChangeTraining = ChangeTraining()
    evaluation: ChangeEvaluation = ChangeEvaluation()
    prediction: ChangePrediction = ChangePrediction()

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        from configs.checks_change import check_change

        yield from super().check(sections)
        yield from check_change(sections)

    @classmethod
    def check_files(cls, sections: Sections) -> Iterator[Finding]:
        from configs.checks_change import check_sites

        if sections.get("source") is not None:
            yield from check_sites(sections)
