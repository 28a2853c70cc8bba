"""What networks and references say of labels, by the workers of `compute` (docs/design/046).

A piece is a network, or all references, with the first so many dates; its answer is small. Answers are put together by
`ClassComparison.score` as they are in one process, in the order of networks.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.compute import Compute, carry_out
from pipelines.inference.class_scores import ClassComparison, cuts_of, early_labels
from pipelines.learning.class_metrics import Predicted
from pipelines.progress import Progress

Score = Callable[[np.ndarray, int | None], dict[str, Predicted]]


@dataclass(frozen=True)
class ScorePiece:
    """cut: only the first dates count as seen, of the labels that are scored by dates; None: all of both. member: None: all
    references."""

    cut: int | None
    member: int | None

    def __str__(self) -> str:
        who = "references" if self.member is None else f"network {self.member + 1}"
        return who if self.cut is None else f"{who}, {self.cut} dates"


@dataclass(frozen=True)
class ScoreWork:
    """A comparison, pickled: a worker opens it, and maps the images by the names of their files."""

    content: bytes
    key: str = "scores of labels"
    on_gpu: bool = False

    def open(self) -> Callable[[ScorePiece], tuple[ScorePiece, Any]]:
        comparison: ClassComparison = pickle.loads(self.content)
        labels = {True: comparison.all_P, False: early_labels(comparison.samples, comparison.seed)}
        return lambda piece: (piece, comparison.part(labels[piece.cut is None], piece.cut, piece.member))

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)


def spread_scores(comparison: ClassComparison, compute: Compute, progress: Progress) -> Score:
    """`comparison.score` of all labels, and of the early ones with each number of dates, with answers that are there already.

    With a single worker nothing is answered yet: whoever asks answers. Raises RequestError where a worker sees no images.
    """
    if compute.is_local and compute.at_once == 1:
        return comparison.score
    who = [*([None] if comparison.references else []), *range(len(comparison.model.members))]  # the longest first
    pieces = [ScorePiece(cut, member) for cut in (None, *reversed(cuts_of(comparison.samples))) for member in who]
    answers: dict[ScorePiece, Any] = {}
    for piece, answer in carry_out(ScoreWork(pickle.dumps(comparison)), pieces, compute):
        answers[piece] = answer
        progress(len(answers), len(pieces))
    return partial(comparison.score, part=partial(_answered, answers))


def _answered(answers: Mapping[ScorePiece, Any], p: np.ndarray, cut: int | None, member: int | None) -> Any:
    return answers[ScorePiece(cut, member)] if member is not None or ScorePiece(cut, None) in answers else {}
