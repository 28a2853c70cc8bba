"""The networks of forecasts, one class each, and those of class maps. `kind` says which one a config means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from configs.run import ModelConfig
from configs.schema import Finding, Sections

if TYPE_CHECKING:
    from models.networks.pixel_history import PixelHistorySettings
    from models.residual_forecaster import Settings

Channels = Annotated[int, Field(ge=1, le=4096)]
CorrectedBaseline = Literal["none", "persistence", "climatology", "decaying_anomaly"]


class ConvLSTMModel(ModelConfig):
    """ConvLSTM encoder-forecaster that corrects a baseline; what `model` without a `kind` means."""

    kind: Literal["convlstm"] = "convlstm"
    hidden: list[Channels] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels")
    peepholes: bool = Field(False, description="let the gates see the cell state")
    forget_bias: float = Field(1.0, description="first bias of the forget gate; larger: remembers longer at first")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels dropped between layers in training")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class ConvGRUModel(ModelConfig):
    """ConvGRU encoder-forecaster that corrects a baseline: one state map a layer, half of the ConvLSTM's."""

    kind: Literal["convgru"]
    hidden: list[Channels] = Field([16], min_length=1, description="channels of each layer")
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="share of context frames hidden in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


class HistoryModel(ModelConfig):
    """Dense layers over a pixel's last valid values and those of earlier years, as gradient boosting sees them."""

    kind: Literal["history"]
    hidden: list[Channels] = Field([128, 128], min_length=1, description="channels of each layer, before and after the lead")
    lags: int = Field(23, ge=1, le=400, description="last valid values of a pixel that are seen, in the context or before it")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values dropped between layers in training")
    baseline: CorrectedBaseline = Field("decaying_anomaly", description="the one that the network corrects")
    members: int = Field(1, ge=1, description="networks of the ensemble, one seed each")


PIXEL_KINDS = ("gru", "lstm", "l_tae")
PAIR_NETWORKS = ("fc_siam_diff", "fc_siam_conc", "fc_ef")  # those that compare exactly two dates
CHANGE_NETWORKS = ("siamese_dcrn", "l_unet", *PAIR_NETWORKS)  # those of `task: change`


class ClassModel(ModelConfig):
    """The network of a class map. Per pixel: gru, lstm, l_tae. Over space too: u_tae, unet_convgru, unet_convlstm.

    Those of `task: change` tell two classes apart.
    """

    kind: Literal[
        "gru", "lstm", "l_tae", "u_tae", "unet_convgru", "unet_convlstm",
        "siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef",
    ] = Field("l_tae", description="the network")  # fmt: skip
    hidden: int = Field(32, ge=2, le=1024, description="channels of gru, lstm and l_tae")
    widths: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [16, 32], min_length=1, description="channels of each scale of the others, finest first"
    )
    heads: int = Field(4, ge=1, description="of the attention of l_tae and u_tae; divides the channels")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of channels dropped in training")
    recurrence: Literal["convlstm", "convgru", "dcrn"] = Field("convlstm", description="of siamese_dcrn, across the dates")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        widths = {"l_tae": [self.hidden], "u_tae": self.widths}.get(self.kind, [])
        if any(width % self.heads or width % 2 for width in widths):
            yield Finding(("model", "heads"), f"{self.heads} heads do not divide {widths} channels into even parts")

    @property
    def description(self) -> dict[str, Any]:
        """What `models.segmenter.rebuild_network` takes, without the variables and classes of the data."""
        own: dict[str, dict[str, Any]]
        own = {"l_tae": {"heads": self.heads}, "u_tae": {"heads": self.heads}, "siamese_dcrn": {"recurrence": self.recurrence}}
        size = {"hidden": self.hidden} if self.kind in PIXEL_KINDS else {"widths": list(self.widths)}
        return {"kind": self.kind, "dropout": self.dropout, **size, **own.get(self.kind, {})}


def _kind_of_model(value: object) -> Any:
    return value.get("kind", "convlstm") if isinstance(value, dict) else getattr(value, "kind", None)


Model = Annotated[
    Annotated[ConvLSTMModel, Tag("convlstm")] | Annotated[ConvGRUModel, Tag("convgru")] | Annotated[HistoryModel, Tag("history")],
    Discriminator(_kind_of_model),
]


def build_network(model: Model) -> Settings | PixelHistorySettings:
    """The network's settings; how many channels it has follows from the corrected baseline and the data."""
    from models.networks.conv_gru_forecaster import ConvGRUSettings
    from models.networks.encoder_forecaster import ConvLSTMSettings
    from models.networks.pixel_history import PixelHistorySettings

    match model:
        case ConvLSTMModel() as m:
            return ConvLSTMSettings(tuple(m.hidden), m.kernel, m.peepholes, m.forget_bias, m.dropout, m.frame_dropout)
        case ConvGRUModel() as m:
            return ConvGRUSettings(tuple(m.hidden), m.kernel, m.frame_dropout)
        case HistoryModel() as m:
            return PixelHistorySettings(tuple(m.hidden), m.lags, m.dropout)
