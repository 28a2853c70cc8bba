"""Networks of labelled change, each trained on all groups of sites but those that it leaves out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from pipelines.change.sites import Sites
from pipelines.change.windows import ChangeWindows, WindowSettings
from pipelines.learning.training import Loss, TrainingSettings, train
from pipelines.predictors import ChangeDetector, ChangeIndex
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import key_of

VALIDATION_WINDOWS = 48  # fixed windows of the training sites on which the loss is followed

Result = TypeVar("Result")


class Do(Protocol):
    """Carries out a named step and returns its result; `work` is given a progress callback."""

    def __call__(self, name: str, work: Callable[[Progress], Result]) -> Result: ...


@dataclass(frozen=True)
class NamedIndex:
    """A change index with its name. `threshold_of(score_HW, bands)`: (name, threshold) that its literature sets without labels.

    is_comparable: it is computed on what networks see, in the site's own deviations, so that one threshold serves every site.
    """

    name: str
    index: ChangeIndex
    threshold_of: Callable[[np.ndarray, int], tuple[str, float]]
    is_comparable: bool = False


@dataclass(frozen=True)
class Recipe:
    """A kind of detector: how its networks are built and trained, and which index they are fused with (None: none).

    `name` is part of a folder's name. `described`: what weights depend on beside sites, groups and seed (JSON values).
    `build_learner(bands, seed)` is a detector of one untrained network, `build_detector(networks)` one of several trained
    ones. The index is calibrated on `log_score` of its score.
    """

    name: str
    seed: int
    described: Mapping[str, object]
    build_learner: Callable[[int, int], ChangeDetector]
    build_detector: Callable[[Sequence[nn.Module]], ChangeDetector]
    loss: Loss
    training: Callable[[int], TrainingSettings]
    windows: WindowSettings
    log_score: Callable[[Tensor], Tensor]
    fused: NamedIndex | None = None


@dataclass(frozen=True)
class TrainedNetwork:
    """A network on its own, as a detector of one member; `key` names everything that its weights depend on."""

    detector: ChangeDetector
    key: str
    report: Mapping[str, object]


def train_network(
    sites: Sites, recipe: Recipe, left_out: Sequence[int], folder: Path, progress: Progress | None = None
) -> TrainedNetwork:
    """A network trained on all groups but `left_out`, below `folder`; goes on where an interrupted call stopped.

    Nothing is chosen on a site that is left out: the epoch that is kept has the smallest loss on fixed windows of the sites
    that it learns from. Raises as `pipelines.learning.training.train`.
    """
    regions, settings = sites.grouping.outside(left_out), recipe.windows
    # another seed for every network, the same wherever it is trained
    seed = int(np.random.SeedSequence([recipe.seed, *left_out]).generate_state(1)[0] >> 1)
    names, described = [str(region) for region in regions], dict(recipe.described)
    key = key_of(sites=sites.key, recipe=described, regions=names, seed=recipe.seed, left_out=list(left_out))
    few = replace(settings, windows=min(settings.windows, VALIDATION_WINDOWS), augment=False, reverse_time=False)
    windows = ChangeWindows(sites.all, regions, settings, seed)
    fixed = ChangeWindows(sites.all, regions, few, seed, is_fixed=True)
    learner = recipe.build_learner(sites.bands, seed)
    where = folder / f"{recipe.name}-seed{recipe.seed}-without-{'-'.join(str(g) for g in left_out)}"
    report = train(learner, windows, fixed, recipe.loss, recipe.training(seed), where, progress, key=key)
    learner.eval()
    return TrainedNetwork(learner, key, report.to_json()["members"][0])


def train_networks(
    sites: Sites, recipe: Recipe, left_out: Sequence[tuple[int, ...]], folder: Path, do: Do, title: str = "train"
) -> dict[tuple[int, ...], TrainedNetwork]:
    """The groups left out -> the network without them, one step each; `title` begins the steps' names."""
    networks = {}
    for groups in left_out:
        without = " and ".join(sites.grouping.names[g] for g in groups)
        networks[groups] = do(f"{title} without {without}", partial(train_network, sites, recipe, groups, folder))
    return networks


def flop_per_pixel(widths: Sequence[int], bands: int, dates: int) -> float:
    """About how many multiplications and additions a network needs at a pixel: 3 convolutions of 3 x 3 a scale and date."""
    inputs = [bands + 1, *widths]
    flop: float = 3 * sum(2 * 9 * (a + b) * b * dates / 4**i for i, (a, b) in enumerate(zip(inputs, widths, strict=False)))
    return flop
