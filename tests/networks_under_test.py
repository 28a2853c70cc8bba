"""Every network of `models`, small, with inputs for it, for the tests of the contract.

A new network gets a line in `CASES`; `tests/unit/models/test_contract.py` fails until it has one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.change import NetworkConfig
from models.blocks.forecast import TIME_FEATURES
from models.contract import Network
from models.networks.change_as_classes import ChangeAsClasses, ChangeAsClassesConfig
from models.networks.conv_gru_forecaster import ConvGRUForecaster, ConvGRUForecasterConfig, ConvGRUSettings
from models.networks.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from models.networks.fully_convolutional import FCEF, FCSiamConc, FCSiamDiff
from models.networks.l_tae import LTAE, LTAEConfig
from models.networks.l_unet import LUNet, LUNetConfig
from models.networks.patched import PatchedSettings
from models.networks.pixel_history import PixelHistory, PixelHistoryConfig
from models.networks.pixel_recurrent import PixelRecurrent, PixelRecurrentConfig
from models.networks.predrnn_forecaster import PredRNNForecaster, PredRNNForecasterConfig
from models.networks.recurrent_unet import RecurrentUNet, RecurrentUNetConfig
from models.networks.residual_gru import ResidualGRU, ResidualGRUConfig
from models.networks.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig
from models.networks.simvp_forecaster import SimVPForecaster, SimVPForecasterConfig
from models.networks.traj_gru_forecaster import TrajGRUForecaster, TrajGRUForecasterConfig
from models.networks.u_tae import UTAE, UTAEConfig
from models.pixel_model import rebuild_network as rebuild_pixel_network
from models.sequence_model import rebuild_network

Inputs = dict[str, Tensor]  # arguments of `forward`; those that end in HW are images
FRAME = {"height": 9, "width": 12}  # of sequences, whose networks read one size
BANDS, TARGETS, CLASSES = 2, 1, 3


@dataclass(frozen=True)
class Case:
    """A network, and the inputs of its `forward`: "forecast", "history", "change", "segment", "rows" or those of `ONE_SIZE`."""

    build: Callable[[], Network]
    kind: str
    fixed_steps: int | None = None

    def steps(self, requested: int) -> int:
        """The number of dates for this network if a test requests `requested`."""
        return self.fixed_steps or requested

    def ready(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
        """The network in evaluation mode, with a random head."""
        torch.manual_seed(seed)
        network = self.build().eval()
        heads = [module for name, module in network.named_modules() if name.split(".")[-1] == "head"]
        for weight in [one for head in heads for one in head.parameters() if one.ndim > 1]:
            nn.init.normal_(weight)
        return network.to(dtype)

    def inputs(self, seed: int, steps: int, shape_yx: tuple[int, int], dtype: torch.dtype = torch.float64) -> Inputs:
        """Seeded noise with gaps (of sequences without), over `steps` dates in all. Sequences have their network's own shape."""
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        if self.kind in ("change", "segment"):
            valid = torch.rand(1, steps, *shape_yx, generator=generator) > 0.2
            x = noise(1, steps, BANDS, *shape_yx) * valid[:, :, None]
            if self.kind == "segment":
                return {"x_BTCHW": x, "valid_BTHW": valid, "years_BT": torch.linspace(0, 1, steps, dtype=dtype)[None]}
            return {"x_BTCHW": x, "valid_BTHW": valid, "elapsed_BT": torch.zeros(1, steps, dtype=dtype)}
        if self.kind == "pixels":
            return {"x_BHW": (noise(1, FRAME["height"], FRAME["width"]) > 0).to(dtype)}
        if self.kind in SEQUENCES:
            clip = {"x_BTCHW": noise(1, steps, *self.build().frame_shape), "valid_BT": torch.ones(1, steps, dtype=torch.bool)}
            return clip | ({"words_BL": torch.tensor([[1, 2, 1, 0]])} if self.kind == "captions" else {})
        if self.kind == "rows":
            valid = torch.rand(1, steps, *shape_yx, generator=generator) > 0.2
            days = 10.0 * torch.arange(steps, dtype=dtype)[None]
            return {"x_BTCHW": noise(1, steps, BANDS, *shape_yx), "valid_BTHW": valid, "days_BT": days}
        context = steps - TARGETS
        if self.kind == "history":
            return {
                "lags_BLFHW": noise(1, context, BANDS, *shape_yx),
                "seen_BLHW": (noise(1, context, *shape_yx) > -0.8).to(dtype),
                "outlook_BKGHW": noise(1, TARGETS, BANDS, *shape_yx),
                "time_BKF": noise(1, TARGETS, TIME_FEATURES),
            }
        return {
            "frames_BTCHW": noise(1, context, BANDS, *shape_yx),
            "valid_BTHW": (noise(1, context, *shape_yx) > -0.8).to(dtype),
            "time_BTF": noise(1, context, TIME_FEATURES),
            "elapsed_BT": noise(1, context).abs(),
            "futures_BKCHW": noise(1, TARGETS, BANDS, *shape_yx),
            "time_BKF": noise(1, TARGETS, TIME_FEATURES),
            "elapsed_BK": noise(1, TARGETS).abs(),
        }

    def call(self, network: Network, inputs: Inputs) -> Tensor:
        """The output (..., H, W)."""
        if self.kind != "rows":
            return network(**inputs)
        x, valid = inputs["x_BTCHW"], inputs["valid_BTHW"]
        return network(x.flatten(3).transpose(2, 3), valid.flatten(2), inputs["days_BT"]).unflatten(-1, x.shape[-2:])

    def shape(self, inputs: Inputs) -> tuple[int, ...]:
        """Shape of the first argument of `forward`."""
        if self.kind != "rows":
            return tuple(next(iter(inputs.values())).shape)
        batch, dates, bands, height, width = inputs["x_BTCHW"].shape
        return batch, dates, height * width, bands


def _siamese(recurrence: str, kernel: int) -> Case:
    return Case(lambda: SiameseDCRN(SiameseDCRNConfig(BANDS, (3, 4, 4), 0.0, recurrence, kernel)), "change")


def _convlstm(hidden: tuple[int, ...], kernel: int, *, feedback: bool = False) -> Case:
    config = EncoderForecasterConfig(BANDS, BANDS, BANDS, hidden, kernel, peepholes=kernel == 5, feedback=feedback)
    return Case(lambda: EncoderForecaster(config), "forecast")


def _convgru(hidden: tuple[int, ...], kernel: int, *, feedback: bool = False) -> Case:
    config = ConvGRUForecasterConfig(BANDS, BANDS, BANDS, hidden, kernel, feedback=feedback)
    return Case(lambda: ConvGRUForecaster(config), "forecast")


def _trajgru(hidden: tuple[int, ...], kernel: int, **settings: float) -> Case:
    config = TrajGRUForecasterConfig(BANDS, BANDS, BANDS, hidden, kernel, links=2, **settings)
    return Case(lambda: TrajGRUForecaster(config), "forecast")


def _predrnn(hidden: tuple[int, ...], kernel: int, **settings: bool | float) -> Case:
    config = PredRNNForecasterConfig(BANDS, BANDS, BANDS, hidden, kernel, **settings)
    return Case(lambda: PredRNNForecaster(config), "forecast")


def _simvp(context: int, **settings: int) -> Case:
    config = SimVPForecasterConfig(BANDS, BANDS, BANDS, context=context, horizon=TARGETS, spatial=4, temporal=6, **settings)
    return Case(lambda: SimVPForecaster(config), "forecast", context + TARGETS)


def _patched(patch_px: int) -> Case:
    return Case(lambda: PatchedSettings(ConvGRUSettings((3,)), patch_px).build(BANDS, BANDS, BANDS), "forecast")


def _unet(kind: str) -> Case:
    return Case(lambda: RecurrentUNet(RecurrentUNetConfig(kind, BANDS, CLASSES, 0.0, (3, 4, 4))), "segment")


def _sequence(kind: str, fixed_steps: int | None = None, **settings: object) -> Case:
    description = {"kind": kind, "bands": BANDS, "outputs": CLASSES, **FRAME, "dropout": 0.0, **settings}
    return Case(lambda: rebuild_network(description), "sequence", fixed_steps)


def _boxes(kind: str, **settings: object) -> Case:
    """Of sequences too, but its answer is maps for every step."""
    case = _sequence(kind, widths=(3, 4, 4, 5), per_step=True, **settings)
    return Case(case.build, "boxes")


def _vectors(kind: str, **settings: object) -> Case:
    return _sequence(kind, widths=(3, 4), hidden=4, **settings)


def _captions(**settings: object) -> Case:
    """Of sequences too; its answer is that of the first word, and with `words_BL` of every word."""
    case = _vectors("caption_lstm", embedding=3, word_hidden=4, longest=3, **settings)
    return Case(case.build, "captions")


def _pixels(kind: str, **settings: object) -> Case:
    return Case(lambda: rebuild_pixel_network({"kind": kind, **FRAME, **settings}), "pixels")


SEQUENCES = ("sequence", "boxes", "captions")  # kinds whose networks read whole sequences of frames of one size
ONE_SIZE = (*SEQUENCES, "pixels")  # kinds whose networks read images of one size, whole
CASES = {
    "convlstm": _convlstm((3,), 3),
    "convlstm, two layers": _convlstm((3, 4), 3),
    "convlstm, wide": _convlstm((4,), 5),
    "convlstm, pointwise": _convlstm((4,), 1),
    "convlstm, feedback": _convlstm((3, 4), 3, feedback=True),
    "convgru": _convgru((3,), 3),
    "convgru, two layers": _convgru((3, 4), 3),
    "convgru, wide": _convgru((4,), 5),
    "convgru, feedback": _convgru((3,), 3, feedback=True),
    "trajgru": _trajgru((3,), 3),
    "trajgru, two layers": _trajgru((3, 2), 1, max_flow=2.5),
    "trajgru, feedback": _trajgru((3,), 1, max_flow=2.5, feedback=True),
    "predrnn": _predrnn((3,), 3),
    "predrnn, two layers": _predrnn((3, 3), 3, layer_norm=True, decoupling=0.0),
    "simvp": _simvp(3),
    "simvp, two scales": _simvp(2, scales=2),
    "patched convgru": _patched(3),
    "history": Case(lambda: PixelHistory(PixelHistoryConfig(BANDS, BANDS, BANDS, (4,), 3, 0.0)), "history", 3 + TARGETS),
    "fc_ef": Case(lambda: FCEF(NetworkConfig(BANDS, (3, 4, 4), 0.0)), "change", 2),
    "fc_siam_diff": Case(lambda: FCSiamDiff(NetworkConfig(BANDS, (3, 4, 4), 0.0)), "change", 2),
    "fc_siam_conc": Case(lambda: FCSiamConc(NetworkConfig(BANDS, (3, 4, 4), 0.0)), "change", 2),
    "l_unet": Case(lambda: LUNet(LUNetConfig(BANDS, (3, 4, 4), 0.0)), "change"),
    "l_unet, one scale": Case(lambda: LUNet(LUNetConfig(BANDS, (3,), 0.0)), "change"),
    "siamese convlstm": _siamese("convlstm", 3),
    "siamese convgru": _siamese("convgru", 3),
    "siamese dcrn": _siamese("dcrn", 5),
    "siamese, pointwise": _siamese("convlstm", 1),
    "change as classes": Case(lambda: ChangeAsClasses(ChangeAsClassesConfig("l_unet", BANDS, 2, 0.0, (3, 4, 4))), "segment"),
    "gru": Case(lambda: PixelRecurrent(PixelRecurrentConfig("gru", BANDS, CLASSES, 0.0, 4)), "segment"),
    "lstm": Case(lambda: PixelRecurrent(PixelRecurrentConfig("lstm", BANDS, CLASSES, 0.0, 4)), "segment"),
    "rnn": Case(lambda: PixelRecurrent(PixelRecurrentConfig("rnn", BANDS, CLASSES, 0.0, 4)), "segment"),
    "l_tae": Case(lambda: LTAE(LTAEConfig("l_tae", BANDS, CLASSES, 0.0, 8, 2)), "segment"),
    "u_tae": Case(lambda: UTAE(UTAEConfig("u_tae", BANDS, CLASSES, 0.0, (4, 4, 4), 2)), "segment"),
    "unet_convgru": _unet("unet_convgru"),
    "unet_convlstm": _unet("unet_convlstm"),
    "unet_dcrn": _unet("unet_dcrn"),
    "residual": Case(lambda: ResidualGRU(ResidualGRUConfig(BANDS)), "rows"),
    "row_rnn": _sequence("row_rnn", 1, hidden=4, layers=2),
    "row_lstm": _sequence("row_lstm", 1, hidden=4, bidirectional=True, per_step=True),
    "row_gru": _sequence("row_gru", 1, hidden=4),
    "region_rnn": _vectors("region_rnn", fixed_steps=1, patch_px=4),
    "region_lstm": _vectors("region_lstm", fixed_steps=1, patch_px=5, per_step=True),
    "region_gru": _vectors("region_gru", fixed_steps=1, patch_px=4, layers=2, bidirectional=True),
    "cnn_rnn": _vectors("cnn_rnn"),
    "cnn_rnn, grid": _vectors("cnn_rnn", grid=4),
    "cnn_lstm": _vectors("cnn_lstm", layers=2, bidirectional=True),
    "cnn_gru": _vectors("cnn_gru", per_step=True),
    "cnn_tcn": _vectors("cnn_tcn"),
    "cnn_tcn, grid": _vectors("cnn_tcn", grid=2, layers=3, kernel=1, per_step=True),
    "dcrn": _sequence("dcrn", widths=(3, 4)),
    "dcrn, flattened": _sequence("dcrn", widths=(3, 4), flattened=True, bidirectional=True),
    "conv_gru": _sequence("convgru", widths=(3, 4), kernel=1, per_step=True),
    "conv_lstm": _sequence("convlstm", widths=(3, 4), bidirectional=True, detach_every=2, checkpointed=True),
    "frame_cnn": _sequence("frame_cnn", widths=(3, 4), grid=2),
    "frame_cnn, per step": _sequence("frame_cnn", widths=(3, 4), grid=2, per_step=True),
    "centre points": _boxes("centre_convgru"),
    "centre points, both ways": _boxes("centre_convlstm", bidirectional=True, kernel=1),
    "centre points, dcrn": _boxes("centre_dcrn"),
    "centre points, single frames": _boxes("centre_frame"),
    "caption_lstm": _captions(),
    "caption_lstm, attention": _captions(attention=True, bidirectional=True, grid=2),
    "masked_row_lstm": _pixels("masked_row_lstm", hidden=4, layers=2, head=5),
    "masked_row_lstm, wide": _pixels("masked_row_lstm", hidden=3, layers=1, kernel=5, head=4),
    "pixel_rnn": _pixels("pixel_rnn", cell="lstm", hidden=6, above=2, embedding=5),
    "pixel_rnn, previous pixel": _pixels("pixel_rnn", cell="gru", hidden=6, layers=2, above=0, embedding=5),
    "volume_lstm": _vectors("volume_lstm", depth=5, grid=3),
    "volume_gru": _vectors("volume_gru", depth=5, per_step=True),
}
