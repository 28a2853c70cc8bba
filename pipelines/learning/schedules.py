"""What changes over the steps of a training: learning rate, averaged weights, how much of the truth a network reads."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

WARM_UP = 0.05  # share of the steps in which the rate of `cosine` rises
STEEPNESS = {"exponential": 5.0, "sigmoid": 10.0}  # so that at most 1 % is left at the end
FIRST_OF_TARGETS = {"scheduled": 1.0, "reverse": 0.5}
FIRST_OF_CONTEXT = 0.5


def rate_schedule(name: str, optimizer: Optimizer, peak: float, steps: int, *, has_momentum: bool) -> LRScheduler:
    """The learning rate of every step: one_cycle (Smith & Topin 2018), cosine (Loshchilov & Hutter 2017) or constant."""
    match name:
        case "one_cycle":
            return OneCycleLR(optimizer, peak, total_steps=max(steps, 2), pct_start=0.15, cycle_momentum=has_momentum)
        case "cosine":
            return LambdaLR(optimizer, lambda step: cosine_share(step, steps))
        case _:
            return LambdaLR(optimizer, lambda _step: 1.0)


def cosine_share(step: int, steps: int) -> float:
    """
    >>> [round(cosine_share(step, 100), 3) for step in (0, 4, 5, 52, 100)]  # rises for 5 steps, then falls to 0
    [0.2, 1.0, 1.0, 0.508, 0.0]
    """
    rising = max(round(WARM_UP * steps), 1)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * min((step - rising) / max(steps - rising, 1), 1))) / 2


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """For `AveragedModel`: an exponential mean that forgets faster in the first steps, in which it is not `decay` yet."""

    def average(means: Sequence[Tensor], values: Sequence[Tensor], steps: Tensor | int) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(steps)) / (10 + int(steps))))(means, values, steps)

    return average


@dataclass(frozen=True)
class ScheduledSampling:
    """How often a network reads true frames instead of its own forecasts, over the steps of a training.

    scheduled: of target frames ever less often, from always to never (Bengio et al. 2015, arXiv:1506.03099, section 2.4).
    reverse: of the context ever more often, from half of the time to always, of target frames from half of the time to never
    (Wang et al. 2022, arXiv:2103.09504, section 3.4). `until`: the share of the steps after which training reads what a forecast
    reads.
    """

    kind: str = "scheduled"  # "scheduled" | "reverse"
    curve: str = "linear"  # "linear" | "exponential" | "sigmoid"
    until: float = 0.5

    def chances(self, step: int, steps: int) -> tuple[float, float]:
        """Of reading the truth (of a frame of the context, of a target).

        >>> ScheduledSampling("reverse").chances(25, 100)
        (0.75, 0.25)
        """
        share = min(step / max(self.until * steps, 1), 1)
        if share < 1 and self.curve == "exponential":
            share = 1 - math.exp(-STEEPNESS["exponential"] * share)
        elif share < 1 and self.curve == "sigmoid":
            share = 1 / (1 + math.exp(STEEPNESS["sigmoid"] * (0.5 - share)))
        of_context = FIRST_OF_CONTEXT + (1 - FIRST_OF_CONTEXT) * share if self.kind == "reverse" else 1.0
        return of_context, FIRST_OF_TARGETS[self.kind] * (1 - share)

    def drawn(self, batch: dict[str, Tensor], step: int, steps: int) -> dict[str, Tensor]:
        """`batch` of frames with shown_T and shown_K, whether a sample reads the true frame; in the end the batch as it is."""
        chances = self.chances(step, steps)
        if chances == (1.0, 0.0):
            return batch
        lengths = zip(("shown_T", "shown_K"), ("x_TCHW", "target_KCHW"), chances, strict=True)
        return batch | {name: torch.rand(batch[of].shape[:2], device=batch[of].device) < chance for name, of, chance in lengths}
