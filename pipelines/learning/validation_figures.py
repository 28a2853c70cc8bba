"""What a search of hyperparameters may choose by: figures of the data that validate a model, and where a training shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LOSS = "validation_loss"  # as `pipelines.learning.member`, which loads torch, names it in curves


@dataclass(frozen=True)
class Figure:
    """A figure of the validation part. `per_epoch`: what follows it in the rows of a curve, LOSS or itself; "": nothing does.

    `is_of_the_loss`: it is the loss, whose scale depends on the loss that is trained.
    """

    name: str
    is_larger_better: bool = False
    per_epoch: str = LOSS

    @property
    def is_of_the_loss(self) -> bool:
        return self.name == LOSS

    @property
    def epoch_sign(self) -> float:
        """Times what follows it per epoch: larger is better where a larger figure is."""
        return -1.0 if self.is_larger_better and self.per_epoch == LOSS else 1.0

    def best(self, values: Iterable[float]) -> float:
        return max(values) if self.is_larger_better else min(values)


def at_kept_epochs(members: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
    """The mean over networks of each figure at the epoch whose weights were kept; a figure that a network lacks is left out.

    members: as `pipelines.learning.training.TrainingReport.to_json` has them, with `curve` and `best_epoch`.

    >>> at_kept_epochs([{"best_epoch": 1, "curve": [{"accuracy": 0.5}, {"accuracy": 0.75}]}], ["accuracy"])
    {'accuracy': 0.75}
    """
    found = {}
    for name in names:
        values = [one["curve"][one["best_epoch"]].get(name) for one in members]
        if values and all(value is not None for value in values):
            found[name] = sum(values) / len(values)
    return found


class EpochScores:
    """One number for each epoch of a training of one or several networks, which trials of a search are compared by.

    It is the mean of the best values of the networks so far, that of the present one included; the step counts epochs over all
    networks, so that equal steps of two trials are of equal networks and epochs.
    """

    def __init__(self, figure: Figure, epochs: int):
        self._figure, self._epochs = figure, epochs
        self._finished, self._present, self._networks = list[float](), list[float](), 0

    def add(self, row: Mapping[str, float | None]) -> tuple[int, float] | None:
        """(step, value) of an epoch; None for untrained networks (epoch 0) and where the figure is not defined."""
        epoch, value = int(row["epoch"] or 0), row.get(self._figure.per_epoch)
        if epoch == 0:
            if self._present:
                self._finished.append(self._figure.best(self._present))
            self._present, self._networks = [], self._networks + 1
        if value is None or value != value:  # not a number
            return None
        self._present.append(self._figure.epoch_sign * value)
        if epoch == 0:
            return None
        known = [*self._finished, self._figure.best(self._present)]
        return max(self._networks - 1, 0) * self._epochs + epoch, sum(known) / len(known)
