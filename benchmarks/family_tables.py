"""What `benchmarks.family` measures: tables of ready-made configs, and which rows of them each member of the family has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.few_labels import CHANGE
from benchmarks.forecasts_rows import SERIES
from benchmarks.labels_tables import SMALL, Figure, Table
from benchmarks.labels_tables import TABLES as LABELS

REDUCED = "Reduced for a CPU"


@dataclass(frozen=True)
class Section:
    """One protocol of one task; `table.alone` names its first figure in words.

    page: of docs/results, which states rows of it that its own command has measured. seeds: at most so many; 1 where the networks
    of one run tell the spread. as_is: the member that is the model of the ready-made config (`benchmarks.results_forecasts`).
    command: what measures a row that is no `driftline run`. also: where other protocols of these members are measured.
    """

    task: str
    table: Table
    page: str = ""
    seeds: int = 3
    model_key: str = "model"
    seed_key: str = "training.seed"
    as_is: str = ""
    command: str = ""
    also: str = ""


def with_more(name: str, **more: Mapping[str, Any]) -> Table:
    """A table of docs/results/labels.md with further members under its protocol."""
    members = {key.replace("__", ", ").replace("_of_", " "): model for key, model in more.items()}
    return replace(LABELS[name], members={**LABELS[name].members, **members})


NATS = (Figure("nats per image", "nats", 2), Figure("bits per dimension", "bits_per_dimension", 4))
FILLED = (Figure("error of what was hidden", "loss", 3),)
SENTENCES = (Figure("exact match", "exact", 3), Figure("BLEU-4", "bleu4", 3), Figure("calibration error", "calibration_error", 3))
BREAKS = (
    Figure("drop of 0.2 found", "found_0.2", 3),
    Figure("median days", "delay_0.2", 0),
    Figure("drop of 0.4 found", "found_0.4", 3),
    Figure("false alarms per 1000 pixels and year", "false_alarms", 1),
)
PIXELS = {kind: {"kind": kind} for kind in ("rnn", "gru", "lstm", "l_tae")}
MAPS = {kind: {"kind": kind} for kind in ("u_tae", "unet_convgru", "unet_convlstm", "unet_dcrn")}
SIAMESE = {
    f"siamese_dcrn, {cell}": {"kind": "siamese_dcrn", "recurrence": cell, "widths": [8, 16, 32], "dropout": 0.1}
    for cell in ("convlstm", "convgru", "dcrn")
}
SHORT = {kind: {"kind": kind, "widths": [8, 16, 32], "dropout": 0.1} for kind in ("fc_siam_conc", "fc_siam_diff", "fc_ef")}
L_UNET = {"l_unet": {"kind": "l_unet", "widths": [8, 16, 32], "dropout": 0.1}}
CENTRES = ("centre_convgru", "centre_convlstm", "centre_dcrn", "centre_frame")
PORTO = SERIES["porto-dos-gauchos"]

SECTIONS: dict[str, Section] = {
    "moving-mnist": Section(
        "forecast",
        Table(
            "The next ten frames of two moving digits",
            "",
            "Reduced, not the published protocol. MSE and MAE are sums over the pixels of a frame, SSIM has a data range of 1.",
            {},  # those of `benchmarks.results_forecasters`
            (Figure("MSE", "mse", 1), Figure("MAE", "mae", 1), Figure("SSIM", "ssim", 3)),
            alone="MSE",
        ),
        page="forecasters.md",
        seeds=1,
        command="python -m benchmarks.results_forecasters DATA FOLDER --member {member!r}",
    ),
    "porto-dos-gauchos": Section(
        "forecast",
        Table(
            "Vegetation of six years, the next 80 days",
            PORTO.config,
            f"{PORTO.about} Every network with its defaults, nothing was chosen for any of them. MAE is that of the network; "
            "what a run publishes may be the combination with baselines.",
            {
                "convlstm": {},
                "convgru": {"kind": "convgru"},
                "trajgru": {"kind": "trajgru"},
                "predrnn": {"kind": "predrnn", "decoupling": 0},
                "predrnn, decoupled": {"kind": "predrnn"},
                "simvp": {"kind": "simvp"},
                "history": {"kind": "history"},
            },
            (Figure("MAE", "mae", 4), Figure("MAE of the combination", "combination", 4)),
            alone="MAE",
        ),
        page="forecasts.md",
        as_is="convlstm",
    ),
    "oscd": Section(
        "change",
        LABELS["oscd"],
        page="labels.md",
        also="The full training, three seeds of two of them: [oscd.md](oscd.md).",
    ),
    "crops": Section(
        "segment",
        LABELS["crops"],
        page="labels.md",
        also="With the ready-made settings: [segment.md](../segment.md#other-networks-on-the-same-season).",
    ),
    "oscd-classes": Section(
        "segment",
        Table(
            "Changed or not, as two classes of pairs",
            "oscd",
            "The pairs of OSCD as `task: segment`, with the settings of `benchmarks.few_labels`, all groups but one learnt from. "
            f"{REDUCED}: 12 epochs of 256 windows of 32 x 32 pixels. No change index is joined with the network. Mean F1: of "
            "both classes.",
            {**SIAMESE, **L_UNET, **SHORT},
            (
                Figure("mean F1", "mean_f1", 3),
                Figure("balanced accuracy", "balanced_accuracy", 3),
                Figure("calibration error", "calibration_error", 3),
            ),
            changes={key: value for key, value in CHANGE.items() if key != "model"},
            alone="mean F1",
        ),
        also="What labels are saved by pretraining: `python -m benchmarks.few_labels`.",
    ),
    "mnist": Section(
        "classify",
        with_more(
            "mnist",
            regions__rnn={"kind": "region_rnn", "patch_px": 7, "hidden": 64, **SMALL},
            regions__gru={"kind": "region_gru", "patch_px": 7, "hidden": 64, **SMALL},
        ),
        page="labels.md",
        seeds=1,
    ),
    "direction": Section(
        "classify",
        with_more(
            "direction",
            cnn_rnn={"kind": "cnn_rnn", "hidden": 48, "grid": 4, **SMALL},
            cnn_tcn={"kind": "cnn_tcn", "hidden": 48, "layers": 3, "grid": 4, **SMALL},
        ),
        page="labels.md",
        seeds=1,
    ),
    "digit": Section("classify", LABELS["digit"], page="labels.md"),
    "lung": Section("classify", LABELS["lung"], page="labels.md"),
    "tree-cover": Section(
        "regress",
        with_more("tree-cover", **{kind: {"kind": kind} for kind in ("cnn_rnn", "cnn_lstm", "cnn_tcn")}),
        page="labels.md",
        seeds=1,
    ),
    "tree-cover-5px": Section(
        "regress",
        replace(
            LABELS["tree-cover"],
            title="Tree cover, from windows of 5 x 5 pixels",
            about=f"{REDUCED}: one network for each fold in place of two, 10 epochs in place of 30. The cube: "
            "`configs/romania-20m.yaml`.",
            members={kind: {"kind": kind, "widths": [16]} for kind in ("cnn_gru", "dcrn", "convgru", "convlstm", "frame_cnn")},
            changes={"source.window_px": 5, "split.networks": 1, "training.epochs": 10},
            alone="R2",
        ),
    ),
    "boxes": Section("detect", replace(LABELS["boxes"], alone="mean AP50"), page="labels.md", seeds=1),
    "boxes-small": Section(
        "detect",
        replace(
            LABELS["boxes"],
            title="Boxes around two moving digits, fewer clips",
            about=f"{REDUCED}: 600 clips in place of 1800, 6 frames in place of 8, narrower networks, in one direction.",
            members={kind: {"kind": kind, "widths": [8, 16, 24, 32]} for kind in CENTRES},
            changes={"source.clips": 600, "source.test_clips": 200, "source.frames": 6},
            alone="mean AP50",
        ),
    ),
    "generate": Section(
        "generate",
        Table(
            "Handwritten digits, pixel by pixel",
            "generate-digits",
            f"{REDUCED}: 4 epochs of 3000 images in place of 3 of 55,000; tested on all 10,000 test images. Fewer nats are "
            "better.",
            {
                **{f"pixel_rnn, {cell}": {"kind": "pixel_rnn", "cell": cell, "hidden": 96} for cell in ("lstm", "gru", "rnn")},
                "masked_row_lstm": {"kind": "masked_row_lstm", "hidden": 24, "layers": 2},
            },
            NATS,
            changes={"training.per_epoch": 3000, "training.epochs": 4, "split.validation_parts": 60},
            alone="nats per image",
        ),
        also="What is known of longer trainings: [generate.md](../generate.md#scores).",
    ),
    "describe": Section(
        "describe",
        Table(
            "Which digit moves, how fast and where to",
            "describe-digits",
            "Without the reference `network_template`, which takes three times the training of the member.",
            {
                "caption_lstm": {"kind": "caption_lstm", "widths": [8, 16, 32, 64], "grid": 5, "hidden": 96, "word_hidden": 64},
                "caption_lstm, attention": {
                    "kind": "caption_lstm", "widths": [8, 16, 32, 64], "grid": 5, "hidden": 96, "word_hidden": 64,
                    "attention": True,
                },
            },
            SENTENCES,
            changes={"evaluation.references": ["commonest", "nearest", "forest_template"]},
            alone="exact match",
        ),
        also="Stated in [describe.md](../describe.md#how-it-is-measured) under this protocol, caption_lstm, seed 0: exact match "
        "0.954 (0.936 to 0.972), BLEU-4 0.983; commonest caption 0.002, nearest clip 0.260, forest template 0.386.",
    ),
    "porto-pretrain": Section(
        "pretrain",
        Table(
            "Hidden dates of four seasons",
            "porto-dos-gauchos-pretrain",
            "As the ready-made config, with another network. Mean absolute error over hidden values of blocks held out, in "
            "standard deviations, at the epoch with the smallest one, so a little too small; nothing else was chosen. What is "
            "hidden is drawn by the seed; interpolation is on the values of the first one.",
            {**PIXELS, **MAPS},
            FILLED,
            alone="error of what was hidden",
        ),
        also="An earlier run of l_tae, on other hidden values: [pretrain.md](../pretrain.md#what-was-measured).",
    ),
    "oscd-pretrain": Section(
        "pretrain",
        Table(
            "Hidden squares of pairs of dates",
            "oscd-more-pretrain",
            "As the ready-made config, five cities, one of them held out. Mean absolute error over hidden values in standard "
            "deviations, at the epoch with the smallest one, so a little too small.",
            {**SIAMESE, **L_UNET},
            FILLED,
            alone="error of what was hidden",
        ),
    ),
    "monitor": Section(
        "monitor",
        Table(
            "Simulated drops of NDVI in a forest",
            "demo-change",
            "The expected value is the harmonic curve corrected by the network; the thresholds of all methods come from the "
            "history, for the same rate of false alarms.",
            {
                "recurrent": {"kind": "recurrent"},
                "recurrent, neighbours": {"kind": "recurrent", "radius": 2},
            },
            BREAKS,
            alone="drop of 0.2 found",
        ),
        model_key="monitoring.model",
        seed_key="monitoring.model.seed",
        also="With thresholds from the west half and scores from the east half of the image, and a ConvLSTM as `forecaster`: "
        "[monitoring-models.md](../monitoring-models.md#comparison).",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A row of the overview. rows: section -> names of its rows there, the one for the overview first."""

    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


FAMILY: dict[str, Member] = {
    "RNN": Member({
        "crops": ("rnn",), "mnist": ("rnn", "regions, rnn"), "direction": ("cnn_rnn",), "tree-cover": ("cnn_rnn",),
        "generate": ("pixel_rnn, rnn",), "porto-pretrain": ("rnn",),
    }),
    "LSTM": Member({
        "crops": ("lstm",), "mnist": ("lstm", "lstm, bidirectional", "lstm, two layers", "regions, lstm"),
        "direction": ("cnn_lstm",), "digit": ("cnn_lstm",), "lung": ("cnn_lstm",), "tree-cover": ("cnn_lstm",),
        "generate": ("pixel_rnn, lstm",), "describe": ("caption_lstm", "caption_lstm, attention"), "porto-pretrain": ("lstm",),
    }),
    "Row LSTM": Member({"generate": ("masked_row_lstm",)}),
    "GRU": Member({
        "crops": ("gru",), "mnist": ("gru", "regions, gru"), "direction": ("cnn_gru",), "digit": ("cnn_gru",),
        "tree-cover": ("cnn_gru",), "tree-cover-5px": ("cnn_gru",), "generate": ("pixel_rnn, gru",), "porto-pretrain": ("gru",),
        "monitor": ("recurrent", "recurrent, neighbours"),
    }),
    "ConvLSTM": Member({
        "moving-mnist": ("ConvLSTM", "ConvLSTM, peepholes"), "porto-dos-gauchos": ("convlstm",),
        "oscd": ("siamese_dcrn, convlstm",), "crops": ("unet_convlstm",), "oscd-classes": ("siamese_dcrn, convlstm",),
        "direction": ("convlstm", "convlstm, bidirectional"), "digit": ("convlstm", "convlstm, bidirectional"),
        "tree-cover-5px": ("convlstm",),
        "boxes-small": ("centre_convlstm",), "porto-pretrain": ("unet_convlstm",),
        "oscd-pretrain": ("siamese_dcrn, convlstm",),
    }),
    "ConvGRU": Member({
        "moving-mnist": ("ConvGRU",), "porto-dos-gauchos": ("convgru",), "oscd": ("siamese_dcrn, convgru",),
        "crops": ("unet_convgru",), "oscd-classes": ("siamese_dcrn, convgru",), "direction": ("convgru",), "digit": ("convgru",),
        "tree-cover-5px": ("convgru",),
        "boxes": ("centre_convgru, bidirectional",), "boxes-small": ("centre_convgru",), "porto-pretrain": ("unet_convgru",),
        "oscd-pretrain": ("siamese_dcrn, convgru",),
    }),
    "DCRN": Member({
        "oscd": ("siamese_dcrn, dcrn",), "crops": ("unet_dcrn",), "oscd-classes": ("siamese_dcrn, dcrn",), "direction": ("dcrn",),
        "digit": ("dcrn",), "lung": ("dcrn",), "tree-cover-5px": ("dcrn",), "boxes-small": ("centre_dcrn",),
        "porto-pretrain": ("unet_dcrn",),
        "oscd-pretrain": ("siamese_dcrn, dcrn",),
    }),
    "TrajGRU": Member({"moving-mnist": ("TrajGRU",), "porto-dos-gauchos": ("trajgru",)}),
    "PredRNN": Member({"moving-mnist": ("PredRNN",), "porto-dos-gauchos": ("predrnn",)}),
    "PredRNN-v2": Member({"moving-mnist": ("PredRNN-v2",), "porto-dos-gauchos": ("predrnn, decoupled",)}),
    "L-UNet": Member({
        "oscd": ("l_unet",), "oscd-classes": ("l_unet",), "oscd-pretrain": ("l_unet",),
    }),
    "*L-TAE, U-TAE*": Member({"crops": ("l_tae", "u_tae"), "porto-pretrain": ("l_tae", "u_tae")}),
    "*TCN*": Member({"direction": ("cnn_tcn",), "tree-cover": ("cnn_tcn",)}),
    "*SimVP*": Member({"moving-mnist": ("SimVP-gSTA",), "porto-dos-gauchos": ("simvp",)}),
    "*history*": Member({"porto-dos-gauchos": ("history",)}),
    "*FC-Siam, FC-EF*": Member({
        "oscd": ("fc_siam_conc", "fc_siam_diff", "fc_ef"), "oscd-classes": ("fc_siam_conc", "fc_siam_diff", "fc_ef"),
    }),
    "*a frame alone*": Member({
        "direction": ("frame_cnn",), "digit": ("frame_cnn",), "lung": ("frame_cnn",), "tree-cover-5px": ("frame_cnn",),
        "boxes-small": ("centre_frame",),
    }),
}  # fmt: skip

VECTORS = ("RNN", "LSTM", "Row LSTM", "GRU", "*TCN*", "*a frame alone*")
FORECASTERS = ("ConvLSTM", "ConvGRU", "TrajGRU", "PredRNN", "PredRNN-v2", "*SimVP*", "*history*")
NOT_OF: tuple[tuple[str, tuple[str, ...], str], ...] = (  # task, members (none: all others), why they have no row there
    (
        "forecast",
        VECTORS,
        "their state is a vector, of a pixel or of a whole image; a forecast is a series of maps, and its networks carry maps. "
        "Of single pixels `history` is there.",
    ),
    ("forecast", (), "no kind of `task: forecast`: nothing in them writes frame after frame."),
    ("change", (), "no kind of `task: change`, whose networks compare the dates of a place and answer with a map."),
    (
        "segment",
        (),
        "no kind of `task: segment`. TrajGRU, PredRNN, PredRNN-v2 and SimVP are encoder and forecaster in one, without a head "
        "for classes; what reads rows or whole frames has no answer for a pixel.",
    ),
    (
        "classify",
        ("L-UNet", "*L-TAE, U-TAE*", "*FC-Siam, FC-EF*"),
        "they answer for every pixel (`segment`, `change`), not once for a sample.",
    ),
    (
        "classify",
        (),
        "no kind of `task: classify`: they give frames, values or images. Volumes (`volume_rnn`, `volume_lstm`, `volume_gru`) "
        "are RNN, LSTM and GRU and have no row: no ready-made data have labelled volumes.",
    ),
    ("regress", (), "as of `classify`, whose networks these are."),
    ("detect", (), "boxes are read from maps of every frame: `centre_*` carries a ConvGRU, ConvLSTM, DCRN, or nothing."),
    ("generate", (), "an image is drawn pixel by pixel, in raster order, by `pixel_rnn` or `masked_row_lstm` alone."),
    ("describe", (), "`caption_lstm` is the only kind: LSTMs over frames and over words."),
    ("pretrain", ("*FC-Siam, FC-EF*",), "refused: they see a pixel only where both dates are valid, so nothing can be filled."),
    ("pretrain", (), "pretraining is of the networks of `segment` and `change`."),
    (
        "monitor",
        FORECASTERS,
        "no row of their own: `model: {kind: forecaster, run: ...}` takes the network of a finished forecast run. Measured for "
        "one ConvLSTM in [monitoring-models.md](../monitoring-models.md#comparison).",
    ),
    (
        "monitor",
        (),
        "the expected value of a pixel comes from its harmonic curve, from small GRUs that correct it, or a forecast.",
    ),
)
