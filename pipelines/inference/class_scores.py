"""What a segmenter and its references say of labels that they have not seen; and what is fitted on such labels.

Shapes: T dates, C variables, K classes, H rows, W columns, P labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.inference.class_map import SegmentModel, tensors_of, window_around
from pipelines.learning.class_metrics import Predicted, choose_weights, confusion, decide, fit_biased_temperature, fit_temperature
from pipelines.learning.class_training import ClassRecipe, parts_of_fold
from pipelines.learning.intervals import Statistic
from pipelines.learning.shortcuts import Audit, Classifier, audit_shortcuts
from pipelines.progress import Progress
from pipelines.samples.class_samples import AT_ONCE, ClassSamples, SpanImages, common_steps, series_features
from pipelines.samples.labels import Place
from pipelines.tiles import Box

if TYPE_CHECKING:
    from torch import Tensor

SCORED_EARLY = 5000  # labels, drawn at random, of which accuracy by dates is told
AUDITED = 2000  # labels of each class that the shortcut audit draws, as `pipelines.change.shortcut_audit` does


class Reference(Protocol):
    """A model of rows of features; `predict_probability` is there only for those that have one."""

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> Reference: ...
    def predict(self, features_PF: np.ndarray) -> np.ndarray: ...


Builders = Mapping[str, Callable[[], Reference]]
Part = Callable[[np.ndarray, "int | None", "int | None"], Any]  # as `ClassComparison.part`

# ---------------------------------------------------------------- networks


def calibrate(samples: ClassSamples, model: SegmentModel, recipe: ClassRecipe, tile_px: int, decision: str) -> list[float]:
    """Sets the temperature of each member, fitted on the blocks that validated it, and returns them.

    `decision`: "most_likely", or "largest_f1": then the weights of the classes (`choose_weights`) are those for the blocks that
    validated the members of a fold, each of which is scored by the member that has not learnt from it; and a bias of each class
    is fitted with the temperature, so that probabilities of rare classes can be compared between members.
    """
    temperatures, class_P = [], samples.labels.class_P
    for fold in range(samples.folds):
        members = range(fold * recipe.networks, (fold + 1) * recipe.networks)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for turn, member in enumerate(members):
            p = parts_of_fold(samples, fold, recipe.seed, turn).validation_P
            logit_PK = score_labels(samples, p, model, member, tile_px, None)
            bias_K = np.zeros(logit_PK.shape[1])
            if decision == "largest_f1":
                temperature, bias_K = fit_biased_temperature(logit_PK, class_P[p])
            else:
                temperature = fit_temperature(logit_PK, class_P[p])
            model.set_calibration(member, temperature, bias_K)
            temperatures.append(temperature)
            found.append((model.calibrated(member, logit_PK), class_P[p]))
        if decision == "largest_f1":
            weight_K = choose_weights(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
            for member in members:
                model.set_decision(member, weight_K)
    return temperatures


def held_out_scores(samples: ClassSamples, model: SegmentModel, p: np.ndarray, tile_px: int, cut: int | None = None) -> Predicted:
    """The labels `p` by the members that have not seen their fold; `cut`: only the first dates count as seen."""
    members = range(len(model.members))
    of_member = [member_scores(samples, model, held_out(samples, model, p, one), one, tile_px, cut) for one in members]
    return join_held_out(samples, model, p, of_member)


def held_out(samples: ClassSamples, model: SegmentModel, p: np.ndarray, member: int) -> np.ndarray:
    """Those of the labels `p` whose fold a member has not seen."""
    unseen_P: np.ndarray = p[samples.fold_P[p] == member // (len(model.members) // samples.folds)]
    return unseen_P


def join_held_out(samples: ClassSamples, model: SegmentModel, p: np.ndarray, of_member: Sequence[np.ndarray]) -> Predicted:
    """of_member: probabilities of the labels that are held out from each member."""
    found_PK = np.zeros((len(samples.labels), len(samples.labels.classes)), np.float32)
    said_P, networks = np.zeros(len(samples.labels), np.int64), len(model.members) // samples.folds
    for member, p_PK in enumerate(of_member):
        found_PK[held_out(samples, model, p, member)] += p_PK / networks
    for fold in range(samples.folds):
        test_P = held_out(samples, model, p, fold * networks)
        said_P[test_P] = decide(found_PK[test_P], model.decision_of(fold * networks))
    return Predicted(said_P[p], found_PK[p])


def join_trained(model: SegmentModel, of_member: Sequence[np.ndarray]) -> Predicted:
    """of_member: probabilities of the same labels by each member of a segmenter that was trained elsewhere."""
    weighted_PK = np.mean([p_PK * model.decision_of(member) for member, p_PK in enumerate(of_member)], axis=0)
    return Predicted(weighted_PK.argmax(axis=1), np.mean(of_member, axis=0))


def member_scores(
    samples: ClassSamples, model: SegmentModel, p: np.ndarray, member: int, tile_px: int, cut: int | None
) -> np.ndarray:
    """Probabilities (P, K) float32 of the labels `p` by one member."""
    return model.calibrated(member, score_labels(samples, p, model, member, tile_px, cut))


def score_labels(
    samples: ClassSamples, p: np.ndarray, model: SegmentModel, member: int, tile_px: int, cut: int | None
) -> np.ndarray:
    """Logits (P, K) float32 of the labels `p` by one member; a network per pixel sees their series, others tiles around them."""
    logit_PK = np.zeros((len(p), len(samples.labels.classes)), np.float32)
    for s, images in enumerate(samples.images):
        own = np.flatnonzero(samples.labels.span_P[p] == s)
        halo_px = model.halo_px(len(images.years_T))
        is_pointwise = halo_px is not None and not any(halo_px) and set(model.stride_px) == {1}
        parts = _series_of(samples, p, own, images) if is_pointwise else _tiles_of(samples, p, own, images, model, tile_px)
        for here, (x_TCHW, valid_THW, years_T), place in parts:
            if cut is not None:
                valid_THW[cut:] = False
            logit_KHW = model.member_logits(member, x_TCHW[None], valid_THW[None], years_T[None])[0].numpy()
            logit_PK[here] = logit_KHW[:, *place].T
    return logit_PK


Shown = tuple[np.ndarray, "tuple[Tensor, Tensor, Tensor]", Place]  # labels, images, and where they are in these


def _series_of(samples: ClassSamples, p: np.ndarray, own: np.ndarray, images: SpanImages) -> Iterator[Shown]:
    """The series of labels, side by side as the columns of an image of one row."""
    along = [1] * (samples.axes - 1)
    for here in np.split(own, np.arange(AT_ONCE, len(own), AT_ONCE)):
        if len(here):
            place = samples.labels.place(p[here])
            x_TCP, valid_TP = images.x_TCHW[:, :, *place], images.valid_THW[:, *place]
            arrays = x_TCP.reshape(*x_TCP.shape[:2], *along, -1), valid_TP.reshape(len(valid_TP), *along, -1)
            zeros = [np.zeros(len(here), np.int64) for _ in along]
            yield here, tensors_of(*arrays, images.years_T), (*zeros, np.arange(len(here)))


def _tiles_of(
    samples: ClassSamples, p: np.ndarray, own: np.ndarray, images: SpanImages, model: SegmentModel, tile_px: int
) -> Iterator[Shown]:
    """Tiles that hold labels, with their halo."""
    place, halo_px = samples.labels.place(p[own]), model.halo_px(len(images.years_T))
    for tile in Box.whole(images.shape).cut(tile_px):
        spans = zip(place, tile.start, tile.stop, strict=True)
        is_here = np.all([(axis_P >= start) & (axis_P < stop) for axis_P, start, stop in spans], axis=0)
        if is_here.any():
            window = window_around(tile, halo_px, images.shape, model.stride_px)
            part = images.part(window)
            arrays = tensors_of(part.x_TCHW, part.valid_THW, part.years_T)
            inside = zip(place, window.start, strict=True)
            yield own[is_here], arrays, tuple(axis_P[is_here] - start for axis_P, start in inside)


# ---------------------------------------------------------------- references


def held_out_references(
    samples: ClassSamples, builders: Builders, p: np.ndarray, most: int, seed: int, cut: int | None = None
) -> dict[str, Predicted]:
    """Name -> what a reference says of the labels `p`, fitted on at most `most` labels of each class of the other folds."""
    if not builders:
        return {}
    class_P, fold_P, steps_K = samples.labels.class_P, samples.fold_P, common_steps(samples)[:cut]
    known = [samples.at_most(samples.known(fold), most, seed) for fold in range(samples.folds)]
    learnt = np.unique(np.concatenate(known))
    learnt_PF = series_features(samples, learnt, steps_K, cut)
    rows = [np.searchsorted(learnt, one) for one in known]
    fitted = {name: [build().fit(learnt_PF[at], class_P[learnt[at]]) for at in rows] for name, build in builders.items()}
    said_P = {name: np.zeros(len(p), np.int64) for name in builders}
    vote_PK = {name: np.zeros((len(p), len(samples.labels.classes))) for name in builders}
    for at in np.split(np.arange(len(p)), np.arange(AT_ONCE, len(p), AT_ONCE)):
        features_PF = series_features(samples, p[at], steps_K, cut)
        for name, fold in product(builders, np.unique(fold_P[p[at]])):
            test, reference = fold_P[p[at]] == fold, fitted[name][fold]
            said_P[name][at[test]] = reference.predict(features_PF[test])
            if (vote := getattr(reference, "predict_probability", None)) is not None:
                vote_PK[name][at[test]] = vote(features_PF[test])
    has_votes = {name: hasattr(one[0], "predict_probability") for name, one in fitted.items()}
    return {name: Predicted(said_P[name], vote_PK[name] if has_votes[name] else None) for name in builders}


@dataclass(frozen=True)
class ClassComparison:
    """A segmenter (`name`) and its references on labels that they have not seen.

    `most`: labels of a class that a reference learns from. is_own: the segmenter has learnt from labels of these samples, so
    each of them is scored by members that have not seen its fold.
    """

    name: str
    samples: ClassSamples
    model: SegmentModel
    references: Builders
    most: int
    seed: int
    tile_px: int
    is_own: bool = True

    @property
    def all_P(self) -> np.ndarray:
        return np.arange(len(self.samples.labels))

    def part(self, p: np.ndarray, cut: int | None, member: int | None) -> Any:
        """Probabilities by one member, of those of the labels `p` that it answers; member None: what the references say."""
        if member is None:
            return held_out_references(self.samples, self.references, p, self.most, self.seed, cut)
        answered_P = held_out(self.samples, self.model, p, member) if self.is_own else p
        return member_scores(self.samples, self.model, answered_P, member, self.tile_px, cut)

    def score(self, p: np.ndarray, cut: int | None, part: Part | None = None) -> dict[str, Predicted]:
        """Name -> what is said of the labels `p` with the first `cut` dates (None: all); `part`: as that of this comparison."""
        say = part or self.part
        of_member = [say(p, cut, member) for member in range(len(self.model.members))]
        joined = join_held_out(self.samples, self.model, p, of_member) if self.is_own else join_trained(self.model, of_member)
        return {self.name: joined, **say(p, cut, None)}


# ---------------------------------------------------------------- accuracy by dates, and the audit


def score_early(
    samples: ClassSamples, score: Callable[[np.ndarray, int | None], Mapping[str, Predicted]], statistic: Statistic, seed: int,
    show: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of `dates` and the figure of each method with the first dates only, on at most SCORED_EARLY labels."""
    p, classes = early_labels(samples, seed), len(samples.labels.classes)
    true_P, cuts, rows = samples.labels.class_P[p], cuts_of(samples), []
    for done, cut in enumerate(cuts):
        tables = {name: confusion(true_P, one.class_P, classes).reshape(1, -1) for name, one in score(p, cut).items()}
        rows.append({"dates": cut, **{name: float(statistic(table_RX)[0]) for name, table_RX in tables.items()}})
        show(done + 1, len(cuts))
    return rows


def early_labels(samples: ClassSamples, seed: int) -> np.ndarray:
    """The labels of which accuracy by dates is told."""
    count = len(samples.labels)
    if count <= SCORED_EARLY:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, SCORED_EARLY, replace=False))


def audit_labels(
    samples: ClassSamples, predicted_P: np.ndarray, build: Callable[[], Classifier], seed: int, *, near: float, confidence: float
) -> Audit:
    """The shortcut audit on at most AUDITED labels of each class."""
    p = samples.at_most(np.arange(len(samples.labels)), AUDITED, seed)
    parts = samples.labels.class_P[p], samples.fold_P[p], samples.block_P[p], predicted_P[p]
    return audit_shortcuts(metadata_of(samples, p), *parts, build, near=near, confidence=confidence)


def metadata_of(samples: ClassSamples, p: np.ndarray) -> dict[str, np.ndarray]:
    """What is known of the labels `p` beside their images, for the shortcut audit; (P,) or (P, axes) float64.

    Size is the number of dates and the raster's sides; site the number of the cube.
    """
    labels, images = samples.labels, samples.images
    start_S = np.array([span.start.astype("datetime64[D]").astype(np.int64) for span in labels.spans], np.float64)
    of_year_S = np.array(
        [(span.start.astype("datetime64[D]") - span.start.astype("datetime64[Y]")).astype(np.int64) for span in labels.spans]
    )
    size_S = np.array([(len(one.years_T), *one.shape) for one in images], np.float64)
    sites = list(dict.fromkeys(one.site for one in images))
    site_S = np.array([sites.index(one.site) for one in images], np.float64)
    missing_P = [1 - valid_T.mean() if len(valid_T) else 1.0 for _, valid_T, _ in samples.series(p)]
    span_P = labels.span_P[p]
    return {
        "date": start_S[span_P],
        "season": of_year_S[span_P],
        "position": np.stack(labels.place(p), axis=1).astype(np.float64),
        "size": size_S[span_P],
        "missing share": np.array(missing_P),
        "site": site_S[span_P],
    }


def cuts_of(samples: ClassSamples, most: int = 8) -> Sequence[int]:
    """Numbers of first dates at which accuracy is measured, evenly spread, the last one all."""
    dates = max(len(one.years_T) for one in samples.images)
    return sorted({round(n) for n in np.linspace(1, dates, min(most, dates))})
