"""How well the networks of a segmenter name the labels that validated them; none of the labels that test them is looked at."""

from __future__ import annotations

import numpy as np

from pipelines.inference.class_map import SegmentModel
from pipelines.inference.class_scores import score_labels
from pipelines.learning.class_metrics import accuracy_of, confusion, decide, mean_f1_of
from pipelines.learning.class_training import ClassRecipe, parts_of_fold
from pipelines.samples.class_samples import ClassSamples


def score_validation(samples: ClassSamples, model: SegmentModel, recipe: ClassRecipe, tile_px: int) -> dict[str, float]:
    """`accuracy` and `mean_f1` of a calibrated segmenter, over the validation labels of all its networks together."""
    class_P, classes = samples.labels.class_P, len(samples.labels.classes)
    total_KK = np.zeros((classes, classes))
    for member in range(samples.folds * recipe.networks):
        fold, turn = divmod(member, recipe.networks)
        p = parts_of_fold(samples, fold, recipe.seed, turn).validation_P
        found_PK = model.calibrated(member, score_labels(samples, p, model, member, tile_px, None))
        total_KK += confusion(class_P[p], decide(found_PK, model.decision_of(member)), classes)
    sums_RX = total_KK.reshape(1, -1)
    return {"accuracy": float(accuracy_of(sums_RX)[0]), "mean_f1": float(mean_f1_of(sums_RX)[0])}
