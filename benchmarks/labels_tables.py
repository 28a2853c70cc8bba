"""What `benchmarks.results_labels` measures: ready-made configs, members of the family in the place of their model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CUBE = "romania-20m"  # the config whose cube the table of tree cover reads


@dataclass(frozen=True)
class Figure:
    """A column: `key` among the scores of a method."""

    title: str
    key: str
    digits: int = 4


@dataclass(frozen=True)
class Table:
    """`config`: name of the ready-made config; `changes`: dotted key -> value, for every row; `members`: name -> `model`.

    `alone`: the score of which single networks are shown; what `changes` reduced stands in `about`.
    """

    title: str
    config: str
    about: str
    members: Mapping[str, Mapping[str, Any]]
    figures: tuple[Figure, ...] = (Figure("accuracy", "accuracy"), Figure("calibration error", "calibration_error", 3))
    changes: Mapping[str, Any] = field(default_factory=dict)
    alone: str = "accuracy"


ROW = {"hidden": 128, "dropout": 0.2}
SMALL, MEDIUM = {"widths": [8, 16]}, {"widths": [8, 16, 32]}
LAST_MAP = {**MEDIUM, "flattened": True}
CHEAP_REFERENCES = ["commonest", "nearest_mean", "random_forest"]
CLIPS = {"split.networks": 2, "evaluation.references": CHEAP_REFERENCES, "evaluation.must_equal": ["commonest"]}
DIGITS = {
    "source.answer": "digit", "source.clips": 6000, "source.frames": 4, "split.networks": 1, "training.epochs": 8,
}  # fmt: skip
CROPS = {"training.windows": 128, "training.epochs": 20, "training.batch": 16}
PAIRS = {"training.window_px": 32, "training.epochs": 6, "evaluation.references": ["change_vector", "image_difference"]}

TABLES: dict[str, Table] = {
    "mnist": Table(
        "MNIST, an image as a sequence of its rows or of its patches",
        "mnist-rows",
        "The test images are those of the data set.",
        {
            "rnn": {**ROW, "kind": "row_rnn"},
            "gru": {**ROW, "kind": "row_gru"},
            "lstm": {**ROW, "kind": "row_lstm"},
            "lstm, bidirectional": {**ROW, "kind": "row_lstm", "bidirectional": True, "hidden": 96},
            "lstm, two layers": {**ROW, "kind": "row_lstm", "layers": 2, "hidden": 96},
            "regions, lstm": {"kind": "region_lstm", "patch_px": 7, "hidden": 64, **SMALL},
        },
        changes={"split.networks": 3, "evaluation.references": ["commonest", "nearest_mean"]},
    ),
    "direction": Table(
        "In which of eight directions a digit moves",
        "moving-digits",
        "Made clips; those of the test show digits by other people. A single frame tells nothing.",
        {
            "frame_cnn": {"kind": "frame_cnn", "grid": 4, **SMALL},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 48, "grid": 4, **SMALL},
            "cnn_gru": {"kind": "cnn_gru", "hidden": 48, "grid": 4, **SMALL},
            "dcrn": {"kind": "dcrn", **SMALL},
            "convgru": {"kind": "convgru", **SMALL},
            "convlstm": {"kind": "convlstm", **SMALL},
            "convlstm, bidirectional": {"kind": "convlstm", "bidirectional": True, **SMALL},
        },
        changes=CLIPS,
    ),
    "digit": Table(
        "Which digit moves",
        "moving-digits",
        "More and shorter clips: what tells digits apart is how many are seen.",
        {
            "frame_cnn": {"kind": "frame_cnn", "grid": 2, **MEDIUM},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 48, "grid": 2, **MEDIUM},
            "cnn_gru": {"kind": "cnn_gru", "hidden": 48, "grid": 2, **MEDIUM},
            "dcrn": {"kind": "dcrn", **LAST_MAP},
            "convgru": {"kind": "convgru", **LAST_MAP},
            "convlstm": {"kind": "convlstm", **LAST_MAP},
            "convlstm, bidirectional": {"kind": "convlstm", "bidirectional": True, **LAST_MAP},
        },
        changes={**CLIPS, **DIGITS},
    ),
    "lung": Table(
        "Lung ultrasound: pneumonia or regular",
        "lung-ultrasound",
        "30 clips of one hospital prove nothing about patients; the intervals say as much.",
        {
            "frame_cnn": {"kind": "frame_cnn", "widths": [8, 16, 32]},
            "cnn_lstm": {"kind": "cnn_lstm", "hidden": 32, "widths": [8, 16, 32]},
            "dcrn": {"kind": "dcrn", **SMALL},
        },
        changes={"training.learning_rate": 2e-3, "evaluation.references": CHEAP_REFERENCES},
    ),
    "tree-cover": Table(
        "Tree cover of pixels of 20 m, from the series of one year",
        "tree-cover",
        "Percent; it stands in for yield, for which no labels are at hand. The cube: `configs/romania-20m.yaml`.",
        {"cnn_gru": {"kind": "cnn_gru"}},
        (Figure("R2", "r2", 3), Figure("mean absolute error", "mae", 2)),
        alone="error",
    ),
    "boxes": Table(
        "Boxes around two moving digits",
        "moving-boxes",
        "Made clips; those of the test show digits by other people. The config was made larger after a smaller run's test score "
        "was known, because it learnt its training clips better than its validation clips.",
        {"centre_convgru, bidirectional": {"kind": "centre_convgru", "bidirectional": True}},
        (Figure("mean AP50", "ap50", 3), Figure("precision", "precision", 3), Figure("recall", "recall", 3)),
    ),
    "crops": Table(
        "Crops of one season",
        "porto-dos-gauchos",
        "`task: segment` on 222 points. Reduced for time: 20 epochs of 128 windows in place of 30 of 512 (in steps of 16, not "
        "64), one seed, for all rows; the ready-made settings are measured in [segment.md](../segment.md#the-example).",
        {
            **{kind: {"kind": kind} for kind in ("rnn", "gru", "lstm", "l_tae")},
            **{kind: {"kind": kind} for kind in ("u_tae", "unet_convgru", "unet_convlstm", "unet_dcrn")},
        },
        (Figure("accuracy", "accuracy", 3), Figure("mean F1", "mean_f1", 3), Figure("calibration error", "calibration_error", 3)),
        changes=CROPS,
    ),
    "oscd": Table(
        "Change between two dates in five cities",
        "oscd",
        "`task: change`. Reduced for time: 6 epochs of windows of 32 x 32 pixels in place of 10 of 64 x 64, one seed, for all "
        "rows: 300 steps, set once, after 50 steps of larger windows at the same cost had left networks alone at an F1 of 0.000 "
        "and 0.019. The full training is in [oscd.md](oscd.md). F1 is that of the network joined with the change index "
        "`change_vector`, then of the network alone.",
        {
            "siamese_dcrn, convlstm": {"kind": "siamese_dcrn"},
            "siamese_dcrn, convgru": {"kind": "siamese_dcrn", "recurrence": "convgru"},
            "siamese_dcrn, dcrn": {"kind": "siamese_dcrn", "recurrence": "dcrn"},
            **{kind: {"kind": kind} for kind in ("l_unet", "fc_siam_conc", "fc_siam_diff", "fc_ef")},
        },
        (Figure("F1", "f1", 3), Figure("F1 alone", "f1_alone", 3), Figure("average precision", "average_precision", 3)),
        changes=PAIRS,
        alone="F1",
    ),
}


def read_methods(evaluation: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Scores of each method, the one that is published as `model`; of `task: change` also how it does without the index."""
    methods: dict[str, dict[str, float | None]] = dict(evaluation["methods"])
    shipped = evaluation["shipped"]
    model = dict(methods.pop(shipped))
    if (alone := methods.pop(f"{shipped} alone", None)) is not None:
        model["f1_alone"] = alone["f1"]
    for name, content in evaluation["details"]["methods"].items():
        if isinstance(interval := content.get("f1_interval"), dict):
            scores = model if name == shipped else methods.get(name, {})
            scores |= {"f1_low": interval["low"], "f1_high": interval["high"]}
    return {"model": model, **methods}


def weights_of(run: Path, task: str) -> int:
    """Weights of one network."""
    from models.checkpoint import DETECTOR
    from models.filler import FILLER
    from models.pixel_model import PIXEL_MODEL
    from models.segmenter import SEGMENTER
    from models.sequence_model import SEQUENCE_MODEL

    checkpoints: dict[str, Any] = {"segment": SEGMENTER, "change": DETECTOR, "generate": PIXEL_MODEL, "pretrain": FILLER}
    model, _ = checkpoints.get(task, SEQUENCE_MODEL).load(run / "model")
    return sum(one.numel() for one in model.members[0].parameters())
