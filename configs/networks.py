"""The networks of forecasts, one class each, and those of class maps. `kind` says which one a config means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from configs.privacy import OF_VOLUMES
from configs.run import ModelConfig
from configs.schema import Finding, Sections

if TYPE_CHECKING:
    from models.residual_forecaster import Settings

Channels = Annotated[int, Field(ge=1, le=4096)]
CorrectedBaseline = Literal["none", "persistence", "climatology", "decaying_anomaly", "moving_field"]
PatchPx = Annotated[int, Field(ge=1, le=16)]
FEEDBACK = "the part that forecasts also reads its last forecast, which training.sampling needs; the halo is larger"
PATCH = "side of the squares that are one pixel of the network; 2: a quarter of the cost"


def is_off(value: bool) -> bool:
    """A run without a setting that came later reads as one of before."""
    return not value


def is_one(value: int) -> bool:
    """A run without patches reads as one of before there were any."""
    return value == 1


class ConvLSTMModel(ModelConfig):
    """ConvLSTM encoder-forecaster that corrects a baseline; what `model` without a `kind` means."""

    kind: Literal["convlstm"] = "convlstm"
    hidden: list[Channels] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels")
    peepholes: bool = Field(False, description="let the gates see the cell state")
    forget_bias: float = Field(1.0, description="first bias of the forget gate; larger: remembers longer at first")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels dropped between layers in training")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    feedback: bool = Field(False, exclude_if=is_off, description=FEEDBACK)
    patch_px: PatchPx = Field(1, exclude_if=is_one, description=PATCH)
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class ConvGRUModel(ModelConfig):
    """ConvGRU encoder-forecaster that corrects a baseline: one state map a layer, half of the ConvLSTM's."""

    kind: Literal["convgru"]
    hidden: list[Channels] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    feedback: bool = Field(False, exclude_if=is_off, description=FEEDBACK)
    patch_px: PatchPx = Field(1, exclude_if=is_one, description=PATCH)
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class TrajGRUModel(ModelConfig):
    """TrajGRU encoder-forecaster that corrects a baseline: a ConvGRU whose state is read along learnt trajectories."""

    kind: Literal["trajgru"]
    hidden: list[Channels] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolution of the input, in pixels")
    links: int = Field(5, ge=1, le=32, description="places from which each pixel's state comes")
    max_flow: float = Field(4.0, gt=0, le=64, description="largest shift of the state per step and axis, in pixels (patches)")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    feedback: bool = Field(False, exclude_if=is_off, description=FEEDBACK)
    patch_px: PatchPx = Field(1, exclude_if=is_one, description=PATCH)
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class PredRNNModel(ModelConfig):
    """PredRNN that corrects a baseline: ST-LSTM layers that share a memory; with `decoupling` above 0 PredRNN-v2."""

    kind: Literal["predrnn"]
    hidden: list[Channels] = Field([16, 16], min_length=1, description="channels of each layer, equal numbers")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels (patches)")
    layer_norm: bool = Field(False, description="normalise what the convolutions give, over the channels of each pixel")
    forget_bias: float = Field(1.0, description="first bias of the forget gates; larger: remembers longer at first")
    decoupling: float = Field(
        0.1, ge=0, description="weight of the decoupling loss, added to `training.loss`; 0: PredRNN without it"
    )
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    patch_px: PatchPx = Field(2, description=PATCH)
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if len(set(self.hidden)) != 1:
            yield Finding(("model", "hidden"), f"the layers share a memory and need equal numbers, got {self.hidden}")


class SimVPModel(ModelConfig):
    """SimVP-gSTA that corrects a baseline: convolutions only, all frames at once. Images only."""

    kind: Literal["simvp"]
    spatial: int = Field(16, ge=2, le=1024, multiple_of=2, description="channels of a frame's state, an even number")
    temporal: int = Field(64, ge=1, le=4096, description="channels of the part that mixes the frames")
    scales: int = Field(1, ge=1, le=5, description="how often frames are halved")
    blocks: int = Field(2, ge=2, le=32, description="of the part that mixes the frames")
    kernel: Literal[11, 15, 21] = Field(11, description="side of the attention's kernel, in pixels after the halving")
    expansion: int = Field(4, ge=1, le=16, description="of the channels inside a block")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class HistoryModel(ModelConfig):
    """Dense layers over a pixel's last valid values and those of earlier years, as gradient boosting sees them."""

    kind: Literal["history"]
    hidden: list[Channels] = Field([128, 128], min_length=1, description="channels of each layer, before and after the lead")
    lags: int = Field(23, ge=1, le=400, description="last valid values of a pixel that are seen, in the context or before it")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values dropped between layers in training")
    baseline: Literal["none", "persistence", "climatology", "decaying_anomaly"] = Field(
        "decaying_anomaly", description="the one that the network corrects"
    )
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class AutoModel(ModelConfig):
    """The network that the past supports best: `driftline choose` compares candidates on rolling origins of the training part.

    Written `model: auto`, or with settings `model: {kind: auto, members: 3}`. See evaluation.md.
    """

    kind: Literal["auto"]
    members: int = Field(1, ge=1, description="networks of the ensemble that is trained in the end, one seed each")
    tries: int = Field(14, ge=1, description="most candidates that are trained to choose from")
    origins: int = Field(3, ge=1, le=10, description="dates inside the training part that candidates are scored after")
    steps: int = Field(240, ge=1, description="steps of the optimiser in the training of a candidate, at each origin")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if getattr(sections.get("training"), "start_from", None) is not None:
            remedy = "state kind, hidden and baseline of that model, or take start_from out"
            yield Finding(
                ("training", "start_from"), "has an architecture of its own, which `model: auto` may not choose", remedy
            )


PIXEL_KINDS = ("gru", "lstm", "rnn", "l_tae")
RECURRENT_UNETS = ("unet_convgru", "unet_convlstm", "unet_dcrn")
PAIR_NETWORKS = ("fc_siam_diff", "fc_siam_conc", "fc_ef")  # those that compare exactly two dates
CHANGE_NETWORKS = ("siamese_dcrn", "l_unet", *PAIR_NETWORKS)  # those of `task: change`


class ClassModel(ModelConfig):
    """The network of a class map. Per pixel or voxel: gru, lstm, rnn, l_tae. Over space too: u_tae, unet_*.

    Those of `task: change` tell two classes of images apart.
    """

    kind: Literal[
        "gru", "lstm", "rnn", "l_tae", "u_tae", "unet_convgru", "unet_convlstm", "unet_dcrn",
        "siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef",
    ] = Field("l_tae", description="the network")  # fmt: skip
    hidden: int = Field(32, ge=2, le=1024, description="channels of gru, lstm, rnn and l_tae")
    widths: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [16, 32], min_length=1, description="channels of each scale of the others, finest first"
    )
    heads: int = Field(4, ge=1, description="of the attention of l_tae and u_tae; divides the channels")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of channels dropped in training")
    recurrence: Literal["convlstm", "convgru", "dcrn"] = Field("convlstm", description="of siamese_dcrn, across the dates")
    kernel: Literal[1, 3, 5] | None = Field(
        None,
        exclude_if=lambda value: value is None,  # of runs of before there was a choice
        description="of the recurrent layer of unet_*; default 3, of volumes 1, whose halo does not grow with the dates",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.kind in CHANGE_NETWORKS and getattr(sections.get("source"), "kind", "") in OF_VOLUMES:
            remedy = "gru or lstm (each voxel's curve), unet_convgru or u_tae (over space too)"
            yield Finding(("model", "kind"), f"{self.kind} is for images, and the source has volumes", remedy)
        widths = {"l_tae": [self.hidden], "u_tae": self.widths}.get(self.kind, [])
        if any(width % self.heads or width % 2 for width in widths):
            yield Finding(("model", "heads"), f"{self.heads} heads do not divide {widths} channels into even parts")

    @property
    def description(self) -> dict[str, Any]:
        """What `models.segmenter.rebuild_network` takes, without the variables and classes of the data."""
        own: dict[str, dict[str, Any]]
        own = {"l_tae": {"heads": self.heads}, "u_tae": {"heads": self.heads}, "siamese_dcrn": {"recurrence": self.recurrence}}
        if self.kernel is not None:
            own |= {kind: {"kernel": self.kernel} for kind in RECURRENT_UNETS}
        size = {"hidden": self.hidden} if self.kind in PIXEL_KINDS else {"widths": list(self.widths)}
        return {"kind": self.kind, "dropout": self.dropout, **size, **own.get(self.kind, {})}


def _kind_of_model(value: object) -> Any:
    if value == AUTO:
        return AUTO
    return value.get("kind", "convlstm") if isinstance(value, dict) else getattr(value, "kind", None)


def _spelt_out(value: object) -> object:
    return {"kind": AUTO} if value == AUTO else value


AUTO: Literal["auto"] = "auto"
HISTORY_HALO_PX = 3  # as in `models.blocks.pixel_history`, which is heavier to import
FrameModel = ConvLSTMModel | ConvGRUModel | TrajGRUModel | PredRNNModel | SimVPModel
Model = FrameModel | HistoryModel
ModelOrAuto = Annotated[
    Annotated[ConvLSTMModel, Tag("convlstm")]
    | Annotated[ConvGRUModel, Tag("convgru")]
    | Annotated[TrajGRUModel, Tag("trajgru")]
    | Annotated[PredRNNModel, Tag("predrnn")]
    | Annotated[SimVPModel, Tag("simvp")]
    | Annotated[HistoryModel, Tag("history")]
    | Annotated[AutoModel, BeforeValidator(_spelt_out), Tag(AUTO)],
    Discriminator(_kind_of_model),
]


def halo_px(model: Model, steps: int) -> int | None:
    """As `halo_px` of the forecaster: the radius of what a forecast over `steps` dates depends on; None: all of the image.

    Of the usual networks without importing them, since an ingest asks too, which needs no torch.
    """
    if model.baseline == "moving_field":
        return None
    match model:
        case HistoryModel():
            return HISTORY_HALO_PX
        case ConvLSTMModel(patch_px=1, feedback=False):
            return model.kernel // 2 * (steps - 1 + len(model.hidden))
        case ConvGRUModel(patch_px=1, feedback=False):
            return model.kernel // 2 * (2 * (steps + len(model.hidden)) - 3)
    import torch

    with torch.device("meta"):
        halo = build_network(model, steps, 1).build(1, 2, 2, 2).halo_px(steps)
    return None if halo is None else max(halo)


def build_network(model: FrameModel, context: int, horizon: int) -> Settings:
    """The network's settings; how many channels it has follows from the corrected baseline and the data."""
    from models.networks.patched import PatchedSettings

    settings = build_settings(model, context, horizon)
    return settings if isinstance(model, SimVPModel) or model.patch_px == 1 else PatchedSettings(settings, model.patch_px)


def build_settings(model: FrameModel, context: int, horizon: int) -> Settings:
    """Those of the network that the patches go through."""
    from models.networks.conv_gru_forecaster import ConvGRUSettings
    from models.networks.encoder_forecaster import ConvLSTMSettings
    from models.networks.predrnn_forecaster import PredRNNSettings
    from models.networks.simvp_forecaster import SimVPSettings
    from models.networks.traj_gru_forecaster import TrajGRUSettings

    match model:
        case ConvLSTMModel() as m:
            return ConvLSTMSettings(tuple(m.hidden), m.kernel, m.peepholes, m.forget_bias, m.dropout, m.frame_dropout, m.feedback)
        case ConvGRUModel() as m:
            return ConvGRUSettings(tuple(m.hidden), m.kernel, m.frame_dropout, m.feedback)
        case TrajGRUModel() as m:
            return TrajGRUSettings(tuple(m.hidden), m.kernel, m.links, m.max_flow, m.frame_dropout, m.feedback)
        case PredRNNModel() as m:
            return PredRNNSettings(tuple(m.hidden), m.kernel, m.layer_norm, m.forget_bias, m.decoupling, m.frame_dropout)
        case SimVPModel() as m:
            own = (m.spatial, m.temporal, m.scales, m.blocks, m.kernel, m.expansion)
            return SimVPSettings(context, horizon, *own, m.frame_dropout)
