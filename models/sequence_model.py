"""A model of whole sequences: networks that each left a fold of groups out; labels (calibrated) or numbers (in their units).

Member i has the mean and standard deviation of its own training samples. Of classes its probability is
softmax(logit / temperature) (Guo et al. 2017, arXiv:1706.04599), fitted on groups that it did not learn from; numbers are learnt
standardised, and are raw x standard deviation + mean of the training targets. The model's answer is the members' mean.

Shapes: B batch, T steps, C bands, K outputs (classes or numbers), H rows, W columns, M members; `HW`: all axes of space.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.blocks.sequence import SequenceNetwork
from models.checkpoint import Checkpoint
from models.contract import Description, Ensemble, over_space, seeded
from models.networks.caption_lstm import CaptionLSTM, CaptionLSTMConfig
from models.networks.centre_point import CentrePoint, CentrePointConfig
from models.networks.cnn_recurrent import CNNRecurrent, CNNRecurrentConfig
from models.networks.cnn_tcn import CNNTCN, CNNTCNConfig
from models.networks.conv_recurrent import ConvRecurrent, ConvRecurrentConfig
from models.networks.frame_cnn import FrameCNN, FrameCNNConfig
from models.networks.region_recurrent import RegionRecurrent, RegionRecurrentConfig
from models.networks.row_recurrent import RowRecurrent, RowRecurrentConfig
from models.networks.volume_recurrent import VolumeRecurrent, VolumeRecurrentConfig

ROWS = ("row_rnn", "row_lstm", "row_gru")
REGIONS = ("region_rnn", "region_lstm", "region_gru")
CNNS = ("cnn_rnn", "cnn_lstm", "cnn_gru")
CONVOLUTIONAL = ("dcrn", "convgru", "convlstm")
VOLUMES = ("volume_rnn", "volume_lstm", "volume_gru")
CENTRES = ("centre_convgru", "centre_convlstm", "centre_dcrn", "centre_frame")
KINDS = (*ROWS, *REGIONS, *CNNS, *CONVOLUTIONAL, "frame_cnn", "cnn_tcn", *CENTRES, *VOLUMES, "caption_lstm")


class SequenceModel(Ensemble):
    """See the module's docstring. All members have one architecture. `outputs` names the classes or the numbers."""

    mean_MC: Tensor
    std_MC: Tensor
    temperature_M: Tensor
    target_mean_MK: Tensor
    target_std_MK: Tensor

    def __init__(self, members: Sequence[SequenceNetwork], outputs: Sequence[str], *, is_number: bool = False):
        super().__init__(members)
        expected = f"{len(outputs)} {'numbers' if is_number else 'classes'} ({', '.join(outputs)})"
        found = sorted({(member.config.bands, member.config.outputs) for member in members})
        if len(found) != 1 or found[0][1] != len(outputs):
            said = "; ".join(f"{bands} bands, {answers} outputs" for bands, answers in found) or "no members"
            raise ValueError(f"expected members for the same bands and {expected}, got {said}")
        self.outputs, self.is_number, self.bands = tuple(outputs), is_number, found[0][0]
        self.register_buffer("mean_MC", torch.zeros(len(members), self.bands))
        self.register_buffer("std_MC", torch.ones(len(members), self.bands))
        self.register_buffer("temperature_M", torch.ones(len(members)))
        self.register_buffer("target_mean_MK", torch.zeros(len(members), len(outputs)))
        self.register_buffer("target_std_MK", torch.ones(len(members), len(outputs)))

    @property
    def networks(self) -> tuple[SequenceNetwork, ...]:
        return tuple(member for member in self.members if isinstance(member, SequenceNetwork))

    def describe(self) -> Description:
        return {"outputs": list(self.outputs), "is_number": self.is_number, "members": self.describe_members()}

    def set_statistics(self, i: int, mean_C: Tensor, std_C: Tensor) -> None:
        """Mean and standard deviation of the bands in the training samples of member i. Raises ValueError."""
        _require_statistics(mean_C, std_C, self.bands, "bands")
        self.mean_MC[i], self.std_MC[i] = mean_C, std_C

    def set_target_statistics(self, i: int, mean_K: Tensor, std_K: Tensor) -> None:
        """Mean and standard deviation of the numbers in the training samples of member i. Raises ValueError."""
        if not self.is_number:
            raise ValueError(f"classes ({', '.join(self.outputs)}) have no mean and standard deviation")
        _require_statistics(mean_K, std_K, len(self.outputs), "numbers")
        self.target_mean_MK[i], self.target_std_MK[i] = mean_K, std_K

    def set_calibration(self, i: int, temperature: float) -> None:
        """The probability is softmax(logit / temperature). Raises ValueError for a temperature of 0 or less, and for numbers."""
        if self.is_number:
            raise ValueError(f"numbers ({', '.join(self.outputs)}) have no temperature")
        if not temperature > 0:
            raise ValueError(f"a temperature must be above 0, got {temperature}")
        self.temperature_M[i] = temperature

    def standardise(self, i: int, x_BTCHW: Tensor) -> Tensor:
        """`x_BTCHW` (physical values) as member i reads it. Raises ValueError for other bands."""
        if x_BTCHW.ndim < 3 or x_BTCHW.shape[2] != self.bands:
            raise ValueError(f"expected (samples, steps, {self.bands} bands, ...), got {tuple(x_BTCHW.shape)}")
        axes = x_BTCHW.ndim - 3
        mean, std = over_space(self.mean_MC[i], axes), over_space(self.std_MC[i], axes)
        return (x_BTCHW.to(mean.dtype) - mean) / std

    def raw(self, i: int, x_BTCHW: Tensor, valid_BT: Tensor, *words_BL: Tensor) -> Tensor:
        """y_BK (with `per_step` y_BTK) of member i: logits, or standardised numbers; `x_BTCHW` in physical values.

        Of networks that write sentences y_BLK, given the true words.
        """
        y: Tensor = self.members[i](self.standardise(i, x_BTCHW), valid_BT, *words_BL)
        return y

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """For training: `raw` from `x_TCHW` and `valid_T` (bool), of sentences also `target`, each with a leading B."""
        words = (batch["target"],) if isinstance(self.members[i], CaptionLSTM) else ()
        return self.raw(i, batch["x_TCHW"], batch["valid_T"], *words)

    @torch.no_grad()
    def predict(self, i: int, x_BTCHW: Tensor, valid_BT: Tensor) -> Tensor:
        """`raw` for prediction."""
        return self.raw(i, x_BTCHW, valid_BT)

    def standardised(self, i: int, target: Tensor) -> Tensor:
        """Numbers (..., K) in the units in which member i learns them; the inverse of `calibrated`."""
        return (target - self.target_mean_MK[i]) / self.target_std_MK[i]

    def calibrated(self, i: int, raw: np.ndarray) -> np.ndarray:
        """From the raw outputs (..., K) of member i: probabilities of classes, or numbers in their units; float32."""
        values = torch.from_numpy(raw)
        if self.is_number:
            numbers: np.ndarray = (values * self.target_std_MK[i] + self.target_mean_MK[i]).numpy()
            return numbers
        p: np.ndarray = torch.softmax(values / self.temperature_M[i], dim=-1).numpy()
        return p


def _require_statistics(mean: Tensor, std: Tensor, count: int, what: str) -> None:
    if mean.shape != (count,) or std.shape != (count,):
        raise ValueError(f"expected means and deviations of {count} {what}, got {tuple(mean.shape)} and {tuple(std.shape)}")
    if not bool((std > 0).all()):
        raise ValueError(f"the standard deviation of {what} {(~(std > 0)).nonzero().flatten().tolist()} is not above 0: constant")


def build_sequence_model(
    description: Description, outputs: Sequence[str], members: int, seed: int, *, is_number: bool = False
) -> SequenceModel:
    """Untrained members of one `description` (of a network, without `outputs`), determined by the arguments alone."""
    full = {**description, "outputs": len(outputs)}
    networks = [seeded(seed * 1000 + i, lambda: rebuild_network(full)) for i in range(members)]
    return SequenceModel(networks, outputs, is_number=is_number)


def join_members(learners: Sequence[SequenceModel]) -> SequenceModel:
    """One model with the members of all `learners`, and their statistics and temperatures."""
    first = learners[0]
    joined = SequenceModel([member for one in learners for member in one.networks], first.outputs, is_number=first.is_number)
    for name, values in joined.named_buffers(recurse=False):
        values.copy_(torch.cat([getattr(one, name) for one in learners]))
    return joined.eval()


def rebuild_network(description: Description) -> SequenceNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    fields = {**description, **({"widths": tuple(description["widths"])} if "widths" in description else {})}
    match fields["kind"]:
        case kind if kind in ROWS:
            return RowRecurrent(RowRecurrentConfig(**fields))
        case kind if kind in REGIONS:
            return RegionRecurrent(RegionRecurrentConfig(**fields))
        case kind if kind in CNNS:
            return CNNRecurrent(CNNRecurrentConfig(**fields))
        case kind if kind in CONVOLUTIONAL:
            return ConvRecurrent(ConvRecurrentConfig(**fields))
        case "cnn_tcn":
            return CNNTCN(CNNTCNConfig(**fields))
        case "frame_cnn":
            return FrameCNN(FrameCNNConfig(**fields))
        case kind if kind in VOLUMES:
            return VolumeRecurrent(VolumeRecurrentConfig(**fields))
        case kind if kind in CENTRES:
            return CentrePoint(CentrePointConfig(**fields))
        case "caption_lstm":
            return CaptionLSTM(CaptionLSTMConfig(**fields))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the network {fields['kind']!r}")


def rebuild_sequence_model(description: Description) -> SequenceModel:
    members = [rebuild_network(member) for member in description["members"]]
    return SequenceModel(members, description["outputs"], is_number=description["is_number"])


SEQUENCE_MODEL = Checkpoint[SequenceModel]("sequence-model", rebuild_sequence_model)
