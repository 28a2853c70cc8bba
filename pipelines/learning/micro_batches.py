"""A batch in parts that fit into memory, with the gradient of the whole batch.

Losses are not sums over samples: means over valid pixels, Dice, or a mean per class see the whole batch. So the parts go forward
without a graph, the loss of the whole gives the gradient of every output, and the parts go forward again, with the same random
numbers, to hand it on (as in Gao et al. 2021, arXiv:2101.06983). It costs a forward pass.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipelines.learning.epoch_batches import Batch

log = logging.getLogger(__name__)
Result = TypeVar("Result")
RandomState = tuple[Tensor, list[Tensor]]  # of the CPU, of every GPU


@dataclass
class MicroBatches:
    """How many samples go through the network at a time; None: as many as a batch has."""

    size: int | None = None

    def parts(self, batch: Batch) -> list[Batch]:
        count = samples_in(batch)
        size = min(self.size or count, count)
        return [{name: one[first : first + size] for name, one in batch.items()} for first in range(0, count, size)]

    def within_memory(self, batch: Batch, work: Callable[[list[Batch]], Result]) -> Result:
        """What `work` makes of the parts; where memory is short it does so again, with smaller parts from then on.

        Raises what `work` raises, and the lack of memory where a single sample is too much.
        """
        count, state = samples_in(batch), random_state()
        while True:
            try:
                return work(self.parts(batch))
            except (MemoryError, RuntimeError) as e:
                size = min(self.size or count, count)
                if size == 1 or not is_lack_of_memory(e):
                    raise
                reason = str(e).splitlines()[0] if str(e) else type(e).__name__
            self.size = size // 2  # outside of `except`, whose traceback keeps the tensors of the attempt
            log.warning(
                "memory is short for %d samples at a time (%s): %d from now on; the batch of the optimiser stays as it is",
                size, reason, self.size,
            )  # fmt: skip
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            set_random_state(state)


def forward(parts: list[Batch], compute: Callable[[Batch], Tensor]) -> Tensor:
    """The outputs of all parts."""
    outputs = [compute(part) for part in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def backward_in_parts(
    parts: list[Batch], compute: Callable[[Batch], Tensor], loss_of: Callable[[Tensor], Tensor],
    auxiliary: Callable[[], Tensor | None], scale: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """Adds to the parameters' gradients that of `scale(loss_of(all outputs))`, part after part; gives the loss, detached.

    `auxiliary()` is what the last forward pass adds, a mean over samples.
    """
    states, outputs = [], []
    with torch.no_grad():
        for part in parts:
            states.append(random_state())
            outputs.append(compute(part))
    y = torch.cat(outputs).requires_grad_()
    loss = loss_of(y)
    backward([scale(loss)], [None])
    assert y.grad is not None
    count = len(y)
    for part, state, gradient in zip(parts, states, y.grad.split([len(one) for one in outputs]), strict=True):
        set_random_state(state)
        again, added = compute(part), auxiliary()
        if added is None:
            backward([again], [gradient])
        else:
            backward([again, scale(added * (len(again) / count))], [gradient, None])
    return loss.detach()


def backward(tensors: list[Tensor], gradients: list[Tensor | None]) -> None:
    """In the precision of the forward pass, whatever is in force here."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        torch.autograd.backward(tensors, gradients)


def samples_in(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def is_lack_of_memory(error: BaseException) -> bool:
    """Of the GPU, of Python, or of PyTorch's allocator for the CPU, which raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocat" in str(error).lower()


def random_state() -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def set_random_state(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
