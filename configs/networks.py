"""The networks that a forecast can be made with: one class per network. `kind` says which one a config means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from configs.run import ModelConfig

if TYPE_CHECKING:
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


def _kind_of_model(value: object) -> Any:
    return value.get("kind", "convlstm") if isinstance(value, dict) else getattr(value, "kind", None)


Model = Annotated[
    Annotated[ConvLSTMModel, Tag("convlstm")] | Annotated[ConvGRUModel, Tag("convgru")], Discriminator(_kind_of_model)
]


def build_network(model: Model) -> Settings:
    """The network's settings; how many channels it has follows from the corrected baseline and the data."""
    from models.networks.conv_gru_forecaster import ConvGRUSettings
    from models.networks.encoder_forecaster import ConvLSTMSettings

    match model:
        case ConvLSTMModel() as m:
            return ConvLSTMSettings(tuple(m.hidden), m.kernel, m.peepholes, m.forget_bias, m.dropout, m.frame_dropout)
        case ConvGRUModel() as m:
            return ConvGRUSettings(tuple(m.hidden), m.kernel, m.frame_dropout)
