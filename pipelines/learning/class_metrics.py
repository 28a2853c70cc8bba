"""What a class map gets right: confusion, accuracy, figures of each class, with intervals over blocks; calibration.

Shapes: P labels, K classes, B blocks. Confusion matrices have the true class in rows and the predicted one in columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipelines.learning.area_estimates import jeffreys
from pipelines.learning.intervals import Interval, Statistic, Unit, jackknife

CALIBRATION_BINS = 10
TEMPERATURES = (0.05, 20.0)
BIAS = 30.0  # largest one of a class
PASSES, CANDIDATES, WEIGHTS = 2, 101, (1e-6, 1e6)  # of the search for the weights of a decision


@dataclass(frozen=True)
class Predicted:
    """What a method says of labels that it has not seen. `probability_PK` may be None for methods without one."""

    class_P: np.ndarray
    probability_PK: np.ndarray | None = None


def confusion(true_P: np.ndarray, predicted_P: np.ndarray, classes: int) -> np.ndarray:
    """counts_KK int64, true class by predicted class."""
    counts_KK: np.ndarray = np.bincount(true_P * classes + predicted_P, minlength=classes**2).reshape(classes, classes)
    return counts_KK


def block_confusions(true_P: np.ndarray, predicted_P: np.ndarray, block_P: np.ndarray, classes: int) -> np.ndarray:
    """counts_BKK: a confusion matrix for each block that holds labels, in the order of the blocks' numbers."""
    numbers, index_P = np.unique(block_P, return_inverse=True)
    flat = (index_P * classes + true_P) * classes + predicted_P
    return np.bincount(flat, minlength=len(numbers) * classes**2).reshape(len(numbers), classes, classes)


# ---------------------------------------------------------------- statistics of summed confusion matrices, flat (R, K K)


def accuracy_of(sums_RX: np.ndarray) -> np.ndarray:
    """Overall accuracy, (R,)."""
    table_RKK = _square(sums_RX)
    return _share(np.trace(table_RKK, axis1=1, axis2=2), table_RKK.sum(axis=(1, 2)))


def balanced_accuracy_of(sums_RX: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that are labelled, (R,)."""
    table_RKK = _square(sums_RX)
    recall_RK = _share(np.diagonal(table_RKK, axis1=1, axis2=2), table_RKK.sum(axis=2))
    with np.errstate(invalid="ignore"):
        return _share(np.nansum(recall_RK, axis=1), np.isfinite(recall_RK).sum(axis=1))


def class_figure_of(name: str, k: int, sums_RX: np.ndarray) -> np.ndarray:
    """`precision`, `recall` or `f1` of class k, (R,); NaN where it is not defined."""
    table_RKK = _square(sums_RX)
    right_R, labelled_R, mapped_R = table_RKK[:, k, k], table_RKK[:, k].sum(axis=1), table_RKK[:, :, k].sum(axis=1)
    match name:
        case "precision":
            return _share(right_R, mapped_R)
        case "recall":
            return _share(right_R, labelled_R)
        case _:
            return _share(2 * right_R, labelled_R + mapped_R)


def mean_f1_of(sums_RX: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that are labelled or mapped, (R,)."""
    f1_KR = np.stack([class_figure_of("f1", k, sums_RX) for k in range(math.isqrt(sums_RX.shape[1]))])
    return _share(np.nansum(f1_KR, axis=0), np.isfinite(f1_KR).sum(axis=0))


def _square(sums_RX: np.ndarray) -> np.ndarray:
    classes = math.isqrt(sums_RX.shape[1])
    return sums_RX.reshape(-1, classes, classes)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.asarray(whole, np.float64)
    share: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share


def over_blocks(
    counts_BKK: np.ndarray, statistic: Statistic, confidence: float, holding_B: np.ndarray | None = None, unit: Unit = "blocks"
) -> Interval:
    """The statistic with its jackknife interval over blocks (or whatever `unit` names).

    Where no block errs (or all do) the jackknife sees no spread and would claim certainty; then the other bound is Jeffreys'
    for as many trials as there are blocks (`holding_B`: those that hold the class).
    """
    undefined = "no label of it", f"only one {unit.removesuffix('s')} defines it"
    found = jackknife(counts_BKK.reshape(len(counts_BKK), -1), statistic, confidence, unit, undefined=undefined)
    if found.value is None or found.low is None or found.low < found.value or (found.high or 0) > found.value:
        return found
    trials = np.array(int(np.count_nonzero(holding_B)) if holding_B is not None else len(counts_BKK))
    low, high = jeffreys(trials * (found.value >= 0.5), trials, confidence)
    return replace(found, low=min(found.low, float(low)), high=max(found.value, float(high)))


def difference(
    ours_BKK: np.ndarray, theirs_BKK: np.ndarray, statistic: Statistic, confidence: float, unit: Unit = "blocks"
) -> Interval:
    """The statistic of ours minus that of theirs, in pairs over the same blocks."""
    cells = ours_BKK[0].size

    def gain(sums_RX: np.ndarray) -> np.ndarray:
        gain_R: np.ndarray = statistic(sums_RX[:, :cells]) - statistic(sums_RX[:, cells:])
        return gain_R

    both_BX = np.hstack([ours_BKK.reshape(len(ours_BKK), -1), theirs_BKK.reshape(len(theirs_BKK), -1)])
    return jackknife(both_BX, gain, confidence, unit, (-1.0, 1.0))


# ---------------------------------------------------------------- description


def describe(
    predicted: Predicted,
    true_P: np.ndarray,
    block_P: np.ndarray,
    classes: Sequence[str],
    confidence: float,
    unit: Unit = "blocks",
) -> dict[str, Any]:
    """JSON values: confusion, accuracies with intervals, rows of the classes, and calibration where there are probabilities."""
    over = partial(over_blocks, confidence=confidence, unit=unit)
    blocks_BKK = block_confusions(true_P, predicted.class_P, block_P, len(classes))
    rows = []
    for k, name in enumerate(classes):
        holding_B = blocks_BKK[:, k].sum(axis=1) > 0
        figures: dict[str, Any] = {"class": name, "labels": int(blocks_BKK[:, k].sum()), "blocks": int(holding_B.sum())}
        for figure in ("precision", "recall", "f1"):
            holds_B = blocks_BKK[:, :, k].sum(axis=1) > 0 if figure == "precision" else holding_B
            found = over(blocks_BKK, partial(class_figure_of, figure, k), holding_B=holds_B)
            figures |= {figure: found.value, f"{figure}_low": found.low, f"{figure}_high": found.high}
        rows.append(figures)
    content: dict[str, Any] = {
        "confusion": blocks_BKK.sum(axis=0).tolist(),
        "accuracy": over(blocks_BKK, accuracy_of).to_json(),
        "balanced_accuracy": over(blocks_BKK, balanced_accuracy_of).to_json(),
        "mean_f1": over(blocks_BKK, mean_f1_of).to_json(),
        "classes": rows,
    }
    if predicted.probability_PK is not None:
        content["reliability"] = reliability(predicted.probability_PK, true_P)
    return content


def flat_figures(described: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a method for tables over methods."""
    return {
        "accuracy": described["accuracy"]["value"],
        "accuracy_low": described["accuracy"]["low"],
        "accuracy_high": described["accuracy"]["high"],
        "balanced_accuracy": described["balanced_accuracy"]["value"],
        "mean_f1": described["mean_f1"]["value"],
        "calibration_error": described.get("reliability", {}).get("expected_error"),
    }


def reliability(probability_PK: np.ndarray, true_P: np.ndarray) -> dict[str, Any]:
    """How often the most likely class is right against the probability it was given, in bins of `charts.draw_reliability`.

    `expected_error`: mean |claimed - happened| over bins by their labels (Guo et al. 2017, arXiv:1706.04599, eq. 3).
    """
    top_P, right_P = probability_PK.max(axis=1), probability_PK.argmax(axis=1) == true_P
    bin_P = np.minimum((top_P * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for number in range(CALIBRATION_BINS):
        is_in_P = bin_P == number
        count = int(is_in_P.sum())
        if count:
            claimed, happened = float(top_P[is_in_P].mean()), float(right_P[is_in_P].mean())
            error += abs(claimed - happened) * count / len(true_P)
            edges = {"from": number / CALIBRATION_BINS, "to": (number + 1) / CALIBRATION_BINS}
            bins.append({**edges, "pixels": count, "claimed": claimed, "happened": happened})
    return {"bins": bins, "expected_error": error}


def fit_temperature(logit_PK: np.ndarray, true_P: np.ndarray) -> float:
    """The temperature that makes softmax(logit / temperature) most likely (Guo et al. 2017, section 4.2); 1.0 without labels.

    A few labels that are all right would make it 0, so that the network is never unsure: as in Platt 1999 each true class has the
    probability (n + 1) / (n + K) and each other one 1 / (n + K), as if one more label had been seen of every class.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if not len(true_P):
        return 1.0
    share_PK = _smoothed(true_P, logit_PK.shape[1])

    def surprise(log_temperature: float) -> float:
        log_p_PK = log_softmax(logit_PK.astype(np.float64) / math.exp(log_temperature), axis=1)
        return float(-(share_PK * log_p_PK).sum(axis=1).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return math.exp(float(minimize_scalar(surprise, bounds=(low, high), method="bounded").x))


def fit_biased_temperature(logit_PK: np.ndarray, true_P: np.ndarray) -> tuple[float, np.ndarray]:
    """(temperature, bias_K float64) that make softmax(logit / temperature + bias) most likely; bias_0 is 0.

    Where classes were drawn or weighted alike in training, rare ones are given too much: no temperature mends that, a bias does
    (Alexandari et al. 2020, arXiv:1901.06852, section 4). With two classes it is the scaling of Platt 1999.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    classes, logit_PK = logit_PK.shape[1], logit_PK.astype(np.float64)
    share_PK = _smoothed(true_P, classes)

    def surprise(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias_K = np.exp(-x[0]), np.append(0.0, x[1:])
        log_p_PK = log_softmax(logit_PK * scale + bias_K, axis=1)
        error_PK = (np.exp(log_p_PK) - share_PK) / len(true_P)
        by_scale = float((error_PK * logit_PK).sum() * -scale)
        return float(-(share_PK * log_p_PK).sum() / len(true_P)), np.append(by_scale, error_PK.sum(axis=0)[1:])

    bounds = [tuple(np.log(TEMPERATURES)), *[(-BIAS, BIAS)] * (classes - 1)]
    found = minimize(surprise, np.zeros(classes), jac=True, bounds=bounds, method="L-BFGS-B")
    return float(np.exp(found.x[0])), np.append(0.0, found.x[1:])


def _smoothed(true_P: np.ndarray, classes: int) -> np.ndarray:
    """share_PK: see `fit_temperature`."""
    count = len(true_P)
    share_PK = np.full((count, classes), 1 / (count + classes))
    share_PK[np.arange(count), true_P] = (count + 1) / (count + classes)
    return share_PK


# ---------------------------------------------------------------- decision


def decide(probability_PK: np.ndarray, weight_K: np.ndarray) -> np.ndarray:
    """class_P: that of the largest weight x probability."""
    class_P: np.ndarray = (probability_PK * weight_K).argmax(axis=1)
    return class_P


def choose_weights(probability_PK: np.ndarray, true_P: np.ndarray) -> np.ndarray:
    """weight_K float64 for `decide` that give the largest mean F1 of all labelled classes but the commonest one.

    With two classes that is the threshold of the largest F1 of the rarer one. The commonest class would outvote rare ones that
    are hard to tell: to map none of them costs its F1 nothing.

    Class by class, the rarest first, `PASSES` times over; its weight is one at which some label of it changes sides.
    """
    classes = probability_PK.shape[1]
    counts_K, weight_K = np.bincount(true_P, minlength=classes), np.ones(classes)
    tiny = np.finfo(np.float64).tiny
    for k in [*np.argsort(counts_K, kind="stable")] * PASSES:
        weighted_PK = probability_PK.astype(np.float64) * weight_K
        weighted_PK[:, k] = -1
        other_P = weighted_PK.argmax(axis=1)
        needed_P = weighted_PK.max(axis=1) / np.maximum(probability_PK[:, k], tiny)  # a larger weight of k makes it k
        own = needed_P[(true_P == k) & np.isfinite(needed_P)]
        if not own.size:
            continue
        tried = np.unique([weight_K[k], *np.quantile(own, np.linspace(0, 1, CANDIDATES)) * (1 + 1e-9)])
        tried = tried[(tried > WEIGHTS[0]) & (tried < WEIGHTS[1])]
        scores = [_rarer_f1(true_P, np.where(weight > needed_P, k, other_P), classes) for weight in tried]
        if len(scores):
            weight_K[k] = tried[int(np.argmax(scores))]
    return weight_K


def _rarer_f1(true_P: np.ndarray, said_P: np.ndarray, classes: int) -> float:
    sums_RX, known_K = confusion(true_P, said_P, classes).reshape(1, -1), np.unique(true_P)
    rarer = [k for k in known_K if k != np.bincount(true_P).argmax()] or known_K
    return float(np.nanmean([class_figure_of("f1", k, sums_RX)[0] for k in rarer]))
