"""Shortcut audit: whether facts beside the images (date, season, position, size, missing share, site) give the labels away.

A model on such metadata alone learns and is tested on the same folds. The rule: metadata is a shortcut where its balanced
accuracy is less than `near` below that of the model, and at least `near` above chance (one over the classes). Then nobody can
say whether the model reads the images or recognises where and when they were taken: the figures are CONFOUNDED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.learning.class_metrics import balanced_accuracy_of, block_confusions, difference
from pipelines.learning.result import Criterion, listed

ALL = "all together"
AND = " with "


class Classifier(Protocol):
    """A model of rows of numbers."""

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> Classifier: ...
    def predict(self, features_PF: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Clue:
    """What one kind of metadata alone reaches. `gap`: model minus metadata in balanced accuracy, with its interval over blocks.

    is_constant: all labels have the same value, which can give nothing away.
    """

    name: str
    accuracy: float | None
    gap: float | None
    low: float | None
    high: float | None
    is_shortcut: bool
    could_be: bool
    is_constant: bool = False


@dataclass(frozen=True)
class Audit:
    """The result of an audit: `model` is the model's own balanced accuracy, `chance` that of guessing."""

    model: float
    chance: float
    near: float
    clues: tuple[Clue, ...]

    @property
    def confounded_by(self) -> tuple[str, ...]:
        """The kinds that are shortcuts by themselves; where none is, the smallest set found of those that are together."""
        named = tuple(clue.name for clue in self.clues if clue.is_shortcut and clue.name != ALL)
        return named or tuple(clue.name for clue in self.clues if clue.is_shortcut)

    @property
    def sentence(self) -> str:
        """The verdict of the audit in words."""
        by_name = {clue.name: clue for clue in self.clues}
        if found := self.confounded_by:
            shown = listed([f"{name} ({by_name[name].accuracy:.3f})" for name in found])
            return (
                f"CONFOUNDED by {shown}: without any image {'these reach' if len(found) > 1 else 'this reaches'} the model's "
                f"balanced accuracy ({self.model:.3f}) to within {self.near:g}."
            )
        known = [clue for clue in self.clues if clue.accuracy is not None]
        best = max(known, key=lambda clue: clue.accuracy or 0, default=None)
        if best is None:
            return f"No shortcut: all labels have the same {listed([clue.name for clue in self.clues])}."
        return f"No shortcut found: of metadata alone {best.name} reaches {best.accuracy:.3f}, the model {self.model:.3f}."

    @property
    def notes(self) -> tuple[str, ...]:
        """Kinds of metadata that the interval does not clear."""
        doubtful = [clue.name for clue in self.clues if clue.could_be and not clue.is_shortcut]
        if not doubtful:
            return ()
        return (
            f"Metadata that could be a shortcut (the interval of the gap reaches below {self.near:g}): {listed(doubtful)}. "
            "Larger blocks or more of them would tell.",
        )

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What the gap to the best metadata must be; none where metadata say nothing."""
        gaps = [clue.gap for clue in self.clues if clue.gap is not None and (clue.accuracy or 0) >= self.chance + self.near]
        return (Criterion("balanced accuracy minus that of metadata alone", min(gaps), self.near),) if gaps else ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "clues": [asdict(clue) for clue in self.clues], "confounded_by": list(self.confounded_by)}


def audit_shortcuts(
    metadata: Mapping[str, np.ndarray], class_P: np.ndarray, fold_P: np.ndarray, block_P: np.ndarray, predicted_P: np.ndarray,
    build: Callable[[], Classifier], *, near: float = 0.05, confidence: float = 0.95,
) -> Audit:  # fmt: skip
    """`metadata`: kind -> values (P,) or (P, F); `predicted_P`: what the model says of labels in the folds it has not seen.

    Labels of fold -1 are learnt from and never tested.
    """
    trial = _Trial(class_P, fold_P, block_P, predicted_P, build, near, confidence)
    tables_PF = {name: np.asarray(values, np.float64).reshape(len(class_P), -1) for name, values in metadata.items()}
    varying = {name: table for name, table in tables_PF.items() if np.ptp(table, axis=0).any()}
    constant = [Clue(name, None, None, None, None, False, False, is_constant=True) for name in tables_PF if name not in varying]
    clues = [trial.clue(name, table) for name, table in varying.items()]
    if len(varying) > 1:
        together, needed = trial.clue(ALL, np.hstack(list(varying.values()))), list(varying)
        clues.append(together)
        if together.is_shortcut and not any(clue.is_shortcut for clue in clues[:-1]):
            for clue in sorted(clues[:-1], key=lambda one: one.accuracy or 0):  # what can be left out, the weakest first
                fewer = [name for name in needed if name != clue.name]
                without = trial.clue(AND.join(fewer), np.hstack([varying[name] for name in fewer])) if len(fewer) > 1 else None
                if without is not None and without.is_shortcut:
                    needed, together = fewer, without
            clues += [together] if together.name != ALL else []
    ordered = sorted(clues, key=lambda clue: -(clue.accuracy or 0))
    return Audit(_balanced(trial.ours_BKK), trial.chance, near, (*ordered, *constant))


@dataclass(frozen=True)
class _Trial:
    """The labels, folds and model that every kind of metadata is tried against."""

    class_P: np.ndarray
    fold_P: np.ndarray
    block_P: np.ndarray
    predicted_P: np.ndarray
    build: Callable[[], Classifier]
    near: float
    confidence: float

    @property
    def chance(self) -> float:
        return 1 / len(np.unique(self.class_P))

    @property
    def ours_BKK(self) -> np.ndarray:
        return self._counts(self.predicted_P)

    def _counts(self, said_P: np.ndarray) -> np.ndarray:
        tested_P, classes = self.fold_P >= 0, int(max(self.class_P.max(), self.predicted_P.max())) + 1
        return block_confusions(self.class_P[tested_P], said_P[tested_P], self.block_P[tested_P], classes)

    def clue(self, name: str, table_PF: np.ndarray) -> Clue:
        """What this metadata reaches on the folds that it was not fitted on."""
        said_P = np.zeros(len(self.class_P), np.int64)
        for fold in np.unique(self.fold_P[self.fold_P >= 0]):
            known_P = self.fold_P != fold
            said_P[~known_P] = self.build().fit(table_PF[known_P], self.class_P[known_P]).predict(table_PF[~known_P])
        theirs_BKK = self._counts(said_P)
        reached = _balanced(theirs_BKK)
        gap = difference(self.ours_BKK, theirs_BKK, balanced_accuracy_of, self.confidence)
        is_informed = reached >= self.chance + self.near
        could_be = is_informed and gap.low is not None and gap.low < self.near
        return Clue(name, reached, gap.value, gap.low, gap.high, is_informed and (gap.value or 0.0) < self.near, could_be)


def _balanced(counts_BKK: np.ndarray) -> float:
    return float(balanced_accuracy_of(counts_BKK.sum(axis=0).reshape(1, -1))[0])
